"""What a job prints, until it is stored: which lines become one chunk, when something is due, and what goes with the last lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.contract.document import Contract
from handlers.events.payloads import log_payload
from jobs.clock import SteadyClock
from jobs.errors import Unavailable
from jobs.execution import lease_renewal
from jobs.execution.job_log import CHUNK_BYTES, FLUSH_BYTES, FLUSH_SECONDS, PROGRESS_SECONDS, JobLog
from jobs.model import Stream
from jobs.recipes.expand import Recipe
from jobs.store.database import OwnedDatabase
from jobs.store.leases import Lease
from jobs.store.logs import Logs
from support.jobs import start, submit
from support.stores import StoreHarness

OUT, ERR = Stream.STDOUT, Stream.STDERR


class Time:
    """Stands in for `time` where it is decided when something is due."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("jobs.execution.job_log.time", time)
    return time


@pytest.fixture
def lease(harness: StoreHarness) -> Lease:
    return harness.running()


@pytest.fixture
def log(harness: StoreHarness, lease: Lease, time: Time) -> JobLog:
    recipe = Recipe(argv=("x",), cwd=Path("/"), ready=r"listening on (?P<url>\S+)")
    return JobLog(harness.database, lease, recipe=recipe, cap=64 << 20, clock=SteadyClock(), pause=lambda seconds: None)


def chunks(harness: StoreHarness, lease: Lease) -> list[tuple[str, bytes]]:
    return [(chunk.stream, chunk.data) for chunk in harness.chunks_of(lease.job_id)]


def test_waiting_lines_become_one_chunk_of_each_stream_in_turn(harness: StoreHarness, lease: Lease, log: JobLog) -> None:
    for stream, data in ((OUT, b"a\n"), (OUT, b"b\n"), (ERR, b"c\n"), (OUT, b"d\ne")):
        log.feed(stream, data)
    assert chunks(harness, lease) == []
    log.flush()
    assert chunks(harness, lease) == [(OUT, b"a\nb\n"), (ERR, b"c\n"), (OUT, b"d\n")]
    for stream in (OUT, ERR):
        log.end(stream)
    log.flush(last=True)
    assert chunks(harness, lease)[3:] == [(OUT, b"e")]
    assert harness.store.get(lease.job_id).log.lines == 5


def test_a_piece_of_a_long_line_is_not_joined_with_the_next_line(harness: StoreHarness, lease: Lease, log: JobLog) -> None:
    log.feed(OUT, b"x" * 70_000)
    log.feed(OUT, b"\nnext\n")
    log.flush()
    assert harness.store.get(lease.job_id).log.lines == 3
    assert [text for chunk in harness.logs.chunks(lease.job_id) for text in chunk.texts()] == ["x" * 65536, "x" * (70_000 - 65536), "next"]


def test_much_output_is_stored_without_waiting_for_a_flush(harness: StoreHarness, lease: Lease, log: JobLog) -> None:
    line = b"x" * 99 + b"\n"
    log.feed(OUT, line * (FLUSH_BYTES // 100))
    assert chunks(harness, lease) == []
    log.feed(OUT, line)
    stored = chunks(harness, lease)
    assert b"".join(data for _, data in stored) == line * (FLUSH_BYTES // 100 + 1)
    assert max(len(data) for _, data in stored) < 2 * CHUNK_BYTES


def test_output_after_a_pause_is_due_at_once_and_then_in_batches(log: JobLog, time: Time) -> None:
    assert log.due() is None
    log.feed(OUT, b"a\n")
    due = log.due()
    assert due is not None and due <= time.now
    log.flush()
    assert log.due() is None
    log.feed(OUT, b"b\n")
    assert log.due() == time.now + FLUSH_SECONDS


def test_progress_is_stored_ten_times_a_second_and_always_at_the_end(harness: StoreHarness, lease: Lease, log: JobLog, time: Time) -> None:
    def percent() -> float | None:
        return harness.store.get(lease.job_id).progress.percent

    for number, expected in ((10, 10.0), (20, 10.0), (30, 10.0)):
        log.feed(OUT, b"::progress %d\n" % number)
        log.flush()
        assert percent() == expected
    assert log.due() == time.now + PROGRESS_SECONDS
    time.now += PROGRESS_SECONDS
    log.flush()
    assert percent() == 30.0
    log.feed(OUT, b"::progress 40\n")
    log.flush(last=True)
    assert percent() == 40.0


def test_readiness_and_results_go_with_the_lines(harness: StoreHarness, lease: Lease, log: JobLog) -> None:
    log.feed(OUT, b"listening on http://127.0.0.1:1\n")
    log.flush()
    job = harness.store.get(lease.job_id)
    assert (job.result, job.progress.message, job.log.lines) == ({"url": "http://127.0.0.1:1"}, "ready", 1)
    assert job.ready_at is not None
    log.feed(OUT, b'::result {"n": 1}\n')
    log.flush(last=True)
    job = harness.store.get(lease.job_id)
    assert (job.result, job.log.lines) == ({"n": 1}, 1)


@pytest.mark.parametrize("last", [False, True], ids=["long job", "short job"])
def test_notes_are_not_stored_for_a_short_job(harness: StoreHarness, lease: Lease, log: JobLog, last: bool) -> None:
    log.note(process_group=7)
    log.flush(last=last)
    assert harness.row(lease.job_id)["process_group"] == (None if last else 7)


def test_no_line_is_lost_while_the_store_is_away(
    harness: StoreHarness, lease: Lease, log: JobLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_renewal, "RETRY_SECONDS", 0.0)
    write, calls = harness.database.write, 0

    def away(work: Callable[..., Any], *, durable: bool = True) -> Any:
        if calls < 3:
            raise Unavailable("The store does not answer: a test.")
        return write(work, durable=durable)

    def look_after() -> None:
        nonlocal calls
        calls += 1

    monkeypatch.setattr(harness.database, "write", away)
    log.meanwhile = look_after
    log.feed(OUT, b"a\n")
    log.flush()
    assert calls == 3
    assert chunks(harness, lease) == [(OUT, b"a\n")]
    assert caplog.messages == ["The store does not answer: a test. Retrying."], "said once, not at every try"


@pytest.mark.parametrize("before", [b"x\n", b"x\n" * 30_000, b""], ids=["one line", "many", "none"])
def test_a_flood_of_empty_lines_makes_events_within_the_contract(database: OwnedDatabase, before: bytes) -> None:
    """What waits together is bounded in bytes, and in lines as well."""
    job_id = submit(database)
    log = JobLog(database, start(database), recipe=Recipe(argv=("x",), cwd=Path("/")), cap=64 << 20, clock=SteadyClock())
    for data in (before, b"\n" * 200_000):
        log.feed(Stream.STDOUT, data)
    log.end(Stream.STDOUT)
    log.flush(last=True)
    chunks = Logs(database).chunks(job_id, max_bytes=1 << 30)
    assert sum(chunk.lines for chunk in chunks) == before.count(b"\n") + 200_000
    for chunk in chunks:
        assert Contract.load().event_violations("log", log_payload(chunk)) == []
