"""The store is in trouble while a job runs: what a client, the job's time limit and its temporary files see of that."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.bootstrap import open_database
from jobs.execution.signals import REPEAT_SECONDS
from jobs.fault_points import VARIABLE
from support.programs import processes_of, program
from support.server import RunningServer, task_submission
from support.waiting import eventually

MakeServer = Callable[..., RunningServer]


@contextmanager
def locked(server: RunningServer) -> Iterator[None]:
    """Another process is in the midst of a write."""
    with closing(sqlite3.connect(server.folder / "data" / "runcast.db", timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_locked_store_refuses_writes_and_keeps_timeouts(make_server: MakeServer) -> None:
    server = make_server(slots=2)
    # It always has something to be stored, so that its supervisor waits for the store.
    talks = program("numbered_lines", 100_000, "--rate", 100)
    job_id = server.submit(task_submission("limited", script=talks))["id"]
    server.wait_for_log(job_id, "line 1\n")
    with locked(server):
        refused = server.call("POST", "/jobs/submit", json=task_submission("true"))
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:runcast:problem:unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert server.call("GET", f"/jobs/{job_id}").json()["status"] == "running", "reading goes on"
        eventually(lambda: not processes_of(job_id), "the job's time limit is kept")
    job = server.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "timeout")
    lines = server.raw_log(job_id).splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert server.wait(server.run("true"))["status"] == "completed"


def test_a_lost_supervisor_leaves_no_temporary_folder(make_server: MakeServer, tmp_path: Path) -> None:
    (armed := tmp_path / "armed").mkdir()
    (temporary := tmp_path / "tmp").mkdir()
    server = make_server(environment={VARIABLE: str(armed), "TMPDIR": str(temporary)})
    (armed / "start.spawned").touch()
    job_id = server.submit({"type": "create", "params": {"template": "small_editor", "name": "my_company.lost"}})["id"]
    job = server.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "worker_lost")
    assert not any(armed.iterdir()), "its supervisor died with the command running, and its folder made"
    assert processes_of(job_id) == []
    assert list(temporary.iterdir()) == []


# -- a store that is gone for good ------------------------------------------------------------------------------------------


def test_a_removed_database_refuses_writes(make_server: MakeServer) -> None:
    server = make_server(slots=1)
    server.allowed_errors = ["was removed or replaced"]
    file = server.folder / "data" / "runcast.db"
    ended = server.run("true")
    server.wait(ended)
    file.rename(aside := file.with_name("aside"))
    refused = server.call("POST", "/jobs/submit", json=task_submission("true"))
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:runcast:problem:unavailable")
    assert "was removed or replaced" in refused.json()["detail"]
    assert server.call("GET", "/health/ready").status_code == 503
    assert not file.exists(), "no new one is made in its place"
    aside.rename(file)
    assert server.wait(server.run("true"))["status"] == "completed"
    assert server.call("GET", "/health/ready").status_code == 200


def test_a_stop_without_a_store_reports_jobs_that_it_leaves(make_server: MakeServer) -> None:
    server = make_server(slots=1)
    job_id = server.shell("exec sleep 600")
    (job,) = eventually(lambda: processes_of(job_id), "the job runs")
    server.allowed_errors = ["What runs was not ended", "file is not a database"]
    with (server.folder / "data" / "runcast.db").open("r+b") as database:
        database.write(b"x" * 100)
    main = server.part("worker")
    (dispatcher,) = (child for child in main.children() if os.getsid(child.pid) != child.pid)
    dispatcher.kill()  # the next one has nothing of the store in its memory
    eventually(lambda: "file is not a database" in server.output, "the store is unusable")
    server.process.send_signal(signal.SIGTERM)
    due = time.monotonic() + REPEAT_SECONDS
    eventually(lambda: time.monotonic() > due, "a second signal counts")
    assert server.stop() == 1
    assert "What runs was not ended" in server.output and "Traceback" not in server.output
    supervisor = psutil.Process(job).ppid()
    for pid in (supervisor, job):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not processes_of(job_id), "the job is gone")


def test_a_supervisor_whose_database_was_replaced_ends_its_job(make_server: MakeServer) -> None:
    """As by a backup: it knows nothing of the job, so nobody could ask the job to end."""
    server = make_server(slots=1)
    server.allowed_errors = ["was removed or replaced", "What runs was not ended"]
    file = server.folder / "data" / "runcast.db"
    with closing(sqlite3.connect(file)) as now, closing(sqlite3.connect(backup := file.with_name("backup"))) as then:
        now.backup(then)
    job_id = server.shell("while :; do echo line; sleep 0.05; done")
    server.wait_for_log(job_id, "line")
    backup.replace(file)
    eventually(lambda: not processes_of(job_id), "the job is ended")
    server.process.send_signal(signal.SIGTERM)
    due = time.monotonic() + REPEAT_SECONDS
    # The second signal comes with the end of the test: the worker need not wait for a store that knows nothing of the job.
    eventually(lambda: time.monotonic() > due, "a second signal counts")


def test_a_relative_database_path_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(open_database("sqlite:///runcast.db")) as database:
        database.migrate()
        feed = database.feed()
        monkeypatch.chdir("/")
        database.close()
        database.write(lambda connection: None)
        assert feed.changed() and not feed.changed()
        feed.close()
