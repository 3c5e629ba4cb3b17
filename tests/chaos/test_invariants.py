"""The checks can fail: each sees what it is there for, in a store that was spoilt by hand, and nothing in one that was not."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from chaos.children import head_and_tail, pids
from chaos.invariants import (
    SUPERVISOR,
    beyond,
    descriptors,
    ends,
    hold_all,
    hold_api,
    hold_at_rest,
    hold_leases,
    hold_no_processes,
    hold_nothing_left,
    hold_numbered,
    job_descriptors,
    leases,
    legal_histories,
    whole_logs,
)
from chaos.kills import hold_lost, stop
from chaos.load import Load, LoadJob, by_attempt, hold_load
from chaos.scenario import Findings
from chaos.service import MARK, Surroundings
from chaos.witnesses import Witness, hold_witnesses
from jobs.bootstrap import make_engine, open_database
from jobs.execution.process_table import Identity
from jobs.model import MARKER, JobType, Status, Submission
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases, Outcome
from jobs.store.log_writer import LogWriter
from support.logs import append
from support.server import RunningServer
from support.stores import claim


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """With a store in which one job has ended, with a log, and one runs: under this process, which lives."""
    made = Surroundings.make(tmp_path / "service")
    made.database.parent.mkdir()
    database = open_database(f"sqlite:///{made.database}")
    database.migrate()
    store, own = Store(database, make_engine(database.url)), Leases(database, make_engine(database.url))
    for _ in range(2):
        store.submit(NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=10)
    first, second = claim(database, worker_id="w", host="here", queues=["default"], slots=2)
    for lease in (first, second):
        own.take(lease, supervisor=Identity.of(os.getpid()).__dict__)
    writer = LogWriter(first, cap=1 << 20)
    append(database, writer, b"line 1\nline 2\n", b"line 3\n")
    own.end(first, Outcome(Status.COMPLETED, "exited with code 0"))
    database.close()
    yield made


def spoil(surroundings: Surroundings, statement: str) -> None:
    with closing(sqlite3.connect(surroundings.database, isolation_level=None)) as connection:
        connection.execute(statement)


def broken(surroundings: Surroundings, *accepted: str) -> list[str]:
    findings = Findings()
    hold_all(findings, surroundings, accepted=accepted)
    return findings.broken


def test_an_unspoilt_service_breaks_no_invariant(surroundings: Surroundings) -> None:
    assert broken(surroundings) == []


SPOILT = {
    "UPDATE job_events SET previous = 'completed' WHERE status = 'running'": legal_histories,
    "DELETE FROM job_events WHERE status = 'completed'": legal_histories,
    "INSERT INTO job_events (job_id, at, status, previous, attempt, cause) SELECT id, 0, 'completed', 'completed', 1, 'again' FROM jobs "
    "WHERE status = 'completed'": legal_histories,
    "UPDATE jobs SET ended_at = NULL WHERE status = 'completed'": ends,
    "UPDATE jobs SET ended_at = started_at - 1 WHERE status = 'completed'": ends,
    "UPDATE jobs SET lease = 'kept' WHERE status = 'completed'": ends,
    "UPDATE jobs SET lease = NULL WHERE status = 'running'": leases,
    "UPDATE jobs SET supervisor = json_set(supervisor, '$.start_time', 1) WHERE status = 'running'": leases,
    "DELETE FROM log_chunks WHERE first_seq = 1": whole_logs,
    "DELETE FROM log_chunks WHERE first_seq = 3": whole_logs,
    "UPDATE log_chunks SET data = CAST('line 1' || char(10) AS BLOB) WHERE first_seq = 1": whole_logs,
    "UPDATE log_chunks SET first_seq = 2 WHERE first_seq = 1": whole_logs,
}


@pytest.mark.parametrize("statement", SPOILT)
def test_every_broken_invariant_is_reported(statement: str, surroundings: Surroundings) -> None:
    spoil(surroundings, statement)
    with closing(sqlite3.connect(surroundings.database)) as connection:
        connection.row_factory = sqlite3.Row
        assert list(SPOILT[statement](connection))
    assert broken(surroundings)


def test_a_missing_accepted_job_is_reported(surroundings: Surroundings) -> None:
    assert "was accepted and is not there" in broken(surroundings, "a-job")[0]


def test_lost_and_changed_lines_are_counted() -> None:
    for lines, lost in ((["line 1", "line 2"], 1), (["line 1", "line 3"], 1), (["line 2", "line 1", "line 3"], 0), (["line 1"] * 3, 0)):
        findings = Findings()
        hold_numbered(findings, lines, of="a job", at_least=3)
        assert (findings.lost_lines, not findings.broken) == (lost, lines == ["line 1", "line 2"])


def test_a_process_of_an_ended_job_is_found(surroundings: Surroundings) -> None:
    with subprocess.Popen(["sleep", "600"], env={MARKER: "a-job:lease"}) as left:
        findings = Findings()
        hold_no_processes(findings, ["a-job"])
        left.kill()
    assert findings.left_processes == 1


def test_leftovers_of_a_service_are_found(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.invariants.SETTLE_TIMEOUT_SECONDS", 0.1)
    (surroundings.temporary / "runcast-job-1").mkdir()
    with subprocess.Popen(["sleep", "600"], env={MARK: surroundings.mark}) as left:
        findings = Findings()
        hold_nothing_left(findings, surroundings)
        left.kill()
    assert findings.left_processes == 1
    assert len(findings.broken) == 2


def test_an_open_pipe_is_reported() -> None:
    before = job_descriptors(os.getpid())
    ends_of_pipe = os.pipe()
    try:
        assert len(job_descriptors(os.getpid())) == len(before) + 2
    finally:
        for end in ends_of_pipe:
            os.close(end)


# -- what a service may have at rest ----------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RunningServer, Surroundings]]:
    surroundings = Surroundings.make(tmp_path / "served")
    with surroundings.serve(slots=2) as server:
        yield server, surroundings


def at_rest(served: tuple[RunningServer, Surroundings]) -> str:
    findings = Findings()
    hold_at_rest(findings, *served)
    return " ".join(findings.broken)


@pytest.mark.slow
def test_leftovers_of_a_service_at_rest_are_reported(served: tuple[RunningServer, Surroundings], monkeypatch: pytest.MonkeyPatch) -> None:
    server, surroundings = served
    server.wait(server.run("true"))
    assert at_rest(served) == ""
    monkeypatch.setattr("chaos.invariants.SETTLE_TIMEOUT_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))):
        assert "the API has 2 sockets" in at_rest(served)
    job_id = server.shell("exec sleep 600")
    server.wait_for_log(server.shell("echo there; exec sleep 600"), "there")
    assert "a supervisor in reserve holds" in at_rest(served)
    for job in server.call("GET", "/jobs").json()["jobs"]:
        server.call("POST", f"/jobs/{job['id']}/cancel")
        server.wait(job["id"])
    server.wait(job_id)
    monkeypatch.undo()
    assert at_rest(served) == ""
    monkeypatch.setattr("chaos.invariants.SETTLE_TIMEOUT_SECONDS", 0.2)
    (surroundings.temporary / "runcast-job-x").mkdir()
    assert "temporary file runcast-job-x" in at_rest(served)
    (surroundings.temporary / "runcast-job-x").rmdir()


def test_threads_descriptors_and_zombies_are_counted() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    opened = [os.dup(0) for _ in range(SUPERVISOR.descriptors)]
    try:
        seen = " ".join(beyond(SUPERVISOR, psutil.Process(), "this"))
    finally:
        ended.set()
        thread.join()
        for descriptor in opened:
            os.close(descriptor)
    assert "threads, 1 at most" in seen
    assert f"descriptors, {SUPERVISOR.descriptors} at most" in seen
    assert len(descriptors(os.getpid())) > 0
    with subprocess.Popen(["true"]) as zombie:
        process = psutil.Process(zombie.pid)
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert beyond(SUPERVISOR, process, "this") == ["this is a zombie"]


# -- who lost what ----------------------------------------------------------------------------------------------------------


def make_load(server: RunningServer, surroundings: Surroundings, *jobs: LoadJob) -> Load:
    load = Load(server, surroundings, Random(1))
    load.jobs += jobs
    return load


def accepted(surroundings: Surroundings) -> tuple[str, str]:
    """The job that has ended, and the one that runs."""
    with closing(sqlite3.connect(surroundings.database)) as connection:
        first, second = (row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY id"))
    return first, second


def note(load: Load, job: LoadJob, *, starts: int, said: int) -> None:
    (load.folder / f"{job.name}.starts").write_text("1\n" * starts)
    (load.folder / f"{job.name}.said").write_text("".join(f"{number}\n" for number in range(1, said + 1)))


@pytest.mark.parametrize(
    ("starts", "lines", "told"),
    [
        (1, 3, ""),
        (2, 3, "was started 2 times in 1 attempts"),
        (0, 3, "completed and was never started"),
        (1, 4, "lost 1"),
    ],
)
def test_the_load_is_compared_with_its_notes(server: RunningServer, surroundings: Surroundings, starts: int, lines: int, told: str) -> None:
    job = LoadJob("0-numbered", "numbered", lines, 1, id=accepted(surroundings)[0])
    load = make_load(server, surroundings, job)
    note(load, job, starts=starts, said=3)
    findings = Findings()
    hold_load(findings, load, lost_at_most=0)
    seen = [*findings.broken, *([f"lost {findings.lost_lines}"] if findings.lost_lines else [])]
    assert bool(seen) == bool(told) and told in " ".join(seen)


def test_a_load_that_did_nothing_is_not_ok(server: RunningServer, surroundings: Surroundings) -> None:
    findings = Findings()
    hold_load(findings, make_load(server, surroundings), lost_at_most=0)
    assert findings.broken == ["the load did nothing"]


def lose(surroundings: Surroundings, job_id: str, *, lines: int) -> None:
    """As a worker does whose supervisor is gone, after so many lines were stored."""
    database = open_database(f"sqlite:///{surroundings.database}")
    leases_of_it = Leases(database, make_engine(database.url))
    (held,) = leases_of_it.held()
    writer = LogWriter(held.taken, cap=1 << 20)
    data = b"".join(b"line %d\n" % number for number in range(1, lines + 1))
    append(database, writer, data)
    (held,) = leases_of_it.held()
    assert held.job_id == job_id and leases_of_it.lose(held) is Status.FAILED
    database.close()


@pytest.mark.parametrize(("stored", "lost"), [(2, 0), (5, 3)])
def test_lines_that_were_stored_when_a_supervisor_died_are_not_lost(
    server: RunningServer, surroundings: Surroundings, stored: int, lost: int
) -> None:
    job_id = accepted(surroundings)[1]
    lose(surroundings, job_id, lines=2)
    job = LoadJob("0-numbered", "numbered", 9, 1, id=job_id)
    load = make_load(server, surroundings, job)
    note(load, job, starts=1, said=7)
    findings = Findings()
    hold_load(findings, load, lost_at_most=1, stored={job_id: stored})
    assert (findings.lost_lines, findings.broken) == (lost, [])
    findings = Findings()
    hold_load(findings, load, lost_at_most=0, stored={job_id: stored})
    assert findings.broken == ["1 supervisors were lost, but only 0 were killed"]


def test_only_jobs_whose_supervisor_was_killed_may_be_lost(server: RunningServer, surroundings: Surroundings) -> None:
    first, second = accepted(surroundings)
    lose(surroundings, second, lines=1)
    rounds: list[tuple[set[str], int]] = [({second}, 0), (set(), 1), ({first, second}, 1), ({first}, 2)]
    for killed, told in rounds:
        findings = Findings()
        hold_lost(findings, surroundings.database, killed)
        assert len(findings.broken) == told


def test_a_log_is_split_where_each_attempt_begins() -> None:
    lines = ["line 1", "line 2", "line 1", "line 1", "line 2"]
    assert by_attempt(lines) == [["line 1", "line 2"], ["line 1"], ["line 1", "line 2"]]
    assert by_attempt([]) == [[]]
    assert by_attempt(["line 2", "line 3"]) == [["line 2", "line 3"]]


def test_a_stopped_witness_does_nothing_more(tmp_path: Path) -> None:
    script = f"while :; do echo >> {tmp_path / 'said'}; done"
    with subprocess.Popen(["sh", "-c", script]) as talker:
        stop([psutil.Process(talker.pid)])
        size = (tmp_path / "said").stat().st_size if (tmp_path / "said").exists() else 0
        assert psutil.Process(talker.pid).status() == psutil.STATUS_STOPPED
        with suppress(ProcessLookupError):
            os.kill(talker.pid, signal.SIGKILL)
        talker.wait()
    assert ((tmp_path / "said").stat().st_size if (tmp_path / "said").exists() else 0) == size


def test_a_running_job_without_a_supervisor_is_reported(surroundings: Surroundings) -> None:
    findings = Findings()
    hold_leases(findings, surroundings, seconds=0.1)
    assert findings.broken == []
    spoil(surroundings, "UPDATE jobs SET supervisor = json_set(supervisor, '$.start_time', 1) WHERE status = 'running'")
    hold_leases(findings, surroundings, seconds=0.1)
    assert "is running without a supervisor" in findings.broken[0]


# -- who saw what -----------------------------------------------------------------------------------------------------------


END = ("complete", {"job_id": "a-job", "log_lines": 2})


def log(first_seq: int, *lines: str) -> tuple[str, Any]:
    return "log", {"job_id": "a-job", "first_seq": first_seq, "lines": list(lines)}


SEEN: dict[str, list[tuple[str, Any]]] = {
    "line 2 of job a-job after line 0": [log(2, "line 2")],
    "line 1 of job a-job after line 1": [log(1, "line 1"), log(1, "line 1")],
    "0 of 2 lines": [END],
    "never saw the end": [log(1, "line 1")],
    "the end of job a-job twice": [log(1, "line 1", "line 2"), END, END],
    "after its end": [log(1, "line 1", "line 2"), END, log(3, "line 3")],
    "other lines of job a-job": [log(1, "line 1", "line 3"), END],
    "was refused": [("ack", [{"ok": False, "problem": {"status": 404, "detail": "gone"}}])],
}


@pytest.mark.parametrize("told", SEEN)
def test_a_forbidden_observation_of_a_witness_is_reported(told: str, server: RunningServer) -> None:
    witness = Witness(server, "witness")
    witness.watch("a-job")
    for event, payload in SEEN[told]:
        witness._take(event, payload)
    findings = Findings()
    hold_witnesses(findings, [witness], logs={"a-job": ["line 1", "line 2"]}, seconds=0.01)
    assert told in " ".join(findings.broken)


def test_a_difference_between_api_and_store_is_reported(server: RunningServer, surroundings: Surroundings) -> None:
    findings = Findings()
    hold_api(findings, server, surroundings, accepted=accepted(surroundings))
    assert sum("is not in the list" in sentence for sentence in findings.broken) == 2


# -- what children may have written -----------------------------------------------------------------------------------------


def counted(lines: int, dropped: int = 0) -> dict[str, Any]:
    return {"log": {"lines": lines, "dropped_lines": dropped}}


def test_logs_with_a_gap_are_checked() -> None:
    whole, gap = b"line 1\nline 2\n", b"[runcast: lines 3 to 8 were dropped, the log was too long]\n"
    assert head_and_tail(whole, counted(2)) is None
    assert head_and_tail(whole + b"lin", counted(3)) is None
    for raw, job in (
        (whole, counted(3)),
        (b"line 1\nline 1\n", counted(2)),
        (b"", counted(1)),
        (whole + gap + b"line 10\n", counted(9, 6)),
        (whole + gap + b"line 9\n", counted(9)),
        (whole + gap + b"line 9\n", counted(9, 6)),  # too little of the head
    ):
        assert head_and_tail(raw, job) is not None
    assert "bytes are kept of the head" in str(head_and_tail(whole + gap + b"line 9\n", counted(9, 6)))


def test_pids_are_distinct_numbers() -> None:
    assert pids(3)(b"1\n2\n3\n", {}) is None
    for raw in (b"1\n2\n3\n4\n", b"1\n1\n", b"1\nx\n", b"1 2\n"):
        assert pids(3)(raw, {}) is not None
