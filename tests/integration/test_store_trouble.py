"""The store is in trouble while a job runs: what a client, the job's time limit and its temporary files see of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

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


def test_a_locked_store_refuses_what_it_cannot_take_and_keeps_time(make_server: MakeServer) -> None:
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
