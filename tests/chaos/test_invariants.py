"""The checks can fail: each sees what it is there for, in a store that was spoilt by hand, and nothing in one that was not."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chaos.invariants import (
    ends,
    hold_all,
    hold_no_processes,
    hold_nothing_left,
    hold_numbered,
    job_descriptors,
    leases,
    legal_histories,
    whole_logs,
)
from chaos.scenario import Findings
from chaos.service import MARK, Surroundings
from jobs.database import Database
from jobs.leases import Leases, Outcome
from jobs.logs import LogWriter
from jobs.model import JobType, Status, Stream, Submission
from jobs.process import MARKER, Identity
from jobs.store import NewJob, Store


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """With a store in which one job has ended, with a log, and one runs: under this process, which lives."""
    made = Surroundings.make(tmp_path / "service")
    made.database.parent.mkdir()
    database = Database(f"sqlite:///{made.database}")
    database.migrate()
    store, own = Store(database), Leases(database)
    for _ in range(2):
        store.submit(NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=10)
    first, second = own.claim(worker_id="w", host="here", queues=["default"], slots=2)
    for lease in (first, second):
        own.take(lease, supervisor=Identity.of(os.getpid()).__dict__)
    writer = LogWriter(first, cap=1 << 20)
    for data in (b"line 1\nline 2\n", b"line 3\n"):
        step = writer.step(writer.chunks(lines=data.count(b"\n"), at=0, stream=Stream.STDOUT, data=data))
        database.write(lambda connection, step=step: writer.write(connection, step, {}))  # type: ignore[misc]
        writer.written(step)
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


def test_nothing_is_wrong_with_what_was_not_spoilt(surroundings: Surroundings) -> None:
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
def test_what_was_spoilt_is_seen(statement: str, surroundings: Surroundings) -> None:
    spoil(surroundings, statement)
    with closing(sqlite3.connect(surroundings.database)) as connection:
        connection.row_factory = sqlite3.Row
        assert list(SPOILT[statement](connection))
    assert broken(surroundings)


def test_a_job_that_was_accepted_and_is_not_there_is_missed(surroundings: Surroundings) -> None:
    assert "was accepted and is not there" in broken(surroundings, "a-job")[0]


def test_lines_are_counted_and_compared() -> None:
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


def test_what_a_service_left_is_found(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.invariants.PATIENCE_SECONDS", 0.1)
    (surroundings.temporary / "runcast-job-1").mkdir()
    with subprocess.Popen(["sleep", "600"], env={MARK: surroundings.mark}) as left:
        findings = Findings()
        hold_nothing_left(findings, surroundings)
        left.kill()
    assert findings.left_processes == 1
    assert len(findings.broken) == 2


def test_an_open_pipe_is_seen() -> None:
    before = job_descriptors(os.getpid())
    ends_of_pipe = os.pipe()
    try:
        assert len(job_descriptors(os.getpid())) == len(before) + 2
    finally:
        for end in ends_of_pipe:
            os.close(end)
