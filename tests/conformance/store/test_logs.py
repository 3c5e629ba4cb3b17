"""A job's log in the store: read after any line, written in transactions that may be run again, and kept below its cap."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from sqlalchemy import Connection

from jobs.model import LogChunk, Stream
from jobs.store.database import Database
from jobs.store.log_writer import LogWriter, Transaction, Write
from jobs.store.logs import cut
from support.logs import append, block
from support.stores import SUPERVISOR, StoreHarness


def numbered(first: int, last: int, *, width: int = 0) -> list[bytes]:
    return [(b"line %d " % number).ljust(width - 1, b"x") + b"\n" for number in range(first, last + 1)]


def test_chunks_can_be_read_after_any_line(harness: StoreHarness) -> None:
    lease = harness.running()
    every = [b"one\n", b"two\r\n", b"\n", b"\xff\xfe\n", "vier ü\n".encode(), b"five\n", b"six"]
    writer = LogWriter(lease, cap=1 << 20)
    append(harness.database, writer, every[0] + every[1] + every[2], every[3], every[4] + every[5])
    append(harness.database, writer, every[6], stream=Stream.STDERR)
    for after in range(len(every) + 2):
        chunks = harness.logs.chunks(lease.job_id, after_seq=after)
        assert b"".join(chunk.data for chunk in chunks) == b"".join(every[after:])
        if chunks:
            assert chunks[0].first_seq == after + 1
            assert all(before.next_seq == behind.first_seq for before, behind in pairwise(chunks))
    texts = [text for chunk in harness.logs.chunks(lease.job_id) for text in chunk.texts()]
    assert texts == ["one", "two", "", "\ufffd\ufffd", "vier ü", "five", "six"]
    assert harness.logs.chunks(lease.job_id)[-1].stream is Stream.STDERR
    small = harness.logs.chunks(lease.job_id, max_bytes=1)
    assert [chunk.first_seq for chunk in small] == [1], "as many as were asked for, but one at least"
    assert harness.logs.tail(lease.job_id, 2) == 5
    job = harness.store.get(lease.job_id)
    assert (job.log.lines, job.log.bytes, job.log.dropped_lines) == (7, sum(map(len, every)), 0)


def test_cutting_a_chunk() -> None:
    chunk = LogChunk("j", 10, 3, 0, Stream.STDOUT, b"a\nb\nc")
    assert cut(chunk, 9) is chunk
    assert (cut(chunk, 11).first_seq, cut(chunk, 11).lines, cut(chunk, 11).data) == (12, 1, b"c")


def test_a_log_over_its_cap_keeps_head_and_tail(harness: StoreHarness) -> None:
    cap, width, count = 64_000, 100, 3000
    lease = harness.running()
    writer = LogWriter(lease, cap=cap)
    writer.READ_SECONDS = 0.0  # nobody watches
    every = numbered(1, count, width=width)
    for start in range(0, count, 50):
        append(harness.database, writer, b"".join(every[start : start + 50]))
        assert sum(len(chunk.data) for chunk in harness.chunks_of(lease.job_id)) <= cap * 1.25
    append(harness.database, writer, last=True)
    state = harness.logs.state(lease.job_id)
    assert state.lines == count and state.dropped is not None
    first, last = state.dropped
    assert harness.raw_log(lease.job_id) == b"".join(every[: first - 1] + every[last:])
    head, tail = (first - 1) * width, (count - last) * width
    assert cap / 2 <= head <= cap / 2 + cap / 16
    assert cap / 2 - cap / 8 <= tail <= cap / 2
    assert head + tail <= cap, "what the head has too much, the tail has less"
    job = harness.store.get(lease.job_id)
    assert (job.log.lines, job.log.bytes, job.log.dropped_lines) == (count, count * width, last - first + 1)
    after_the_gap = harness.logs.chunks(lease.job_id, after_seq=first + 10)
    assert after_the_gap[0].first_seq == last + 1


def test_no_line_is_dropped_before_clients_had_time_to_read_it(harness: StoreHarness) -> None:
    paused: list[float] = []

    def over_its_cap() -> LogWriter:
        paused.clear()
        writer = LogWriter(harness.running(), cap=64_000, pause=paused.append)
        writer.READ_SECONDS = 60.0
        append(harness.database, writer, b"".join(numbered(1, 5000, width=100)))
        assert harness.logs.state(writer.lease.job_id).dropped is None
        assert paused == []
        return writer

    writer = over_its_cap()
    append(harness.database, writer, last=True)
    assert harness.logs.state(writer.lease.job_id).dropped is not None
    (seconds,) = paused
    assert 0 < seconds <= writer.READ_SECONDS
    writer = over_its_cap()
    append(harness.database, writer, b"x" * LogWriter.SLACK)
    assert harness.logs.state(writer.lease.job_id).dropped is not None, "it does not outgrow its cap by more than the slack"
    (seconds,) = paused
    assert 0 < seconds <= writer.READ_SECONDS


def test_a_second_attempt_continues_the_log_below_the_same_cap(harness: StoreHarness) -> None:
    cap, width = 64_000, 100
    every = numbered(1, 4000, width=width)
    first = harness.running(max_attempts=2)
    writer = LogWriter(first, cap=cap)
    writer.READ_SECONDS = 0.0
    for start in range(0, 2000, 100):
        append(harness.database, writer, b"".join(every[start : start + 100]))
    earlier = harness.logs.state(first.job_id).dropped
    harness.leases.lose(harness.leases.held()[0])
    (second,) = harness.claim()
    harness.leases.take(second, supervisor=SUPERVISOR)
    writer = LogWriter(second, cap=cap)
    writer.READ_SECONDS = 0.0
    harness.database.read(writer.resume)
    for start in range(2000, 4000, 100):
        append(harness.database, writer, b"".join(every[start : start + 100]))
    append(harness.database, writer, last=True)
    dropped = harness.logs.state(first.job_id).dropped
    assert earlier is not None and dropped is not None
    assert dropped[0] == earlier[0] and dropped[1] > earlier[1]
    kept = harness.raw_log(first.job_id)
    assert kept == b"".join(every[: dropped[0] - 1] + every[dropped[1] :])
    assert len(kept) <= cap


@pytest.mark.parametrize("cap", [8_000, 640_000], ids=["smaller", "larger"])
def test_a_second_attempt_under_another_cap_keeps_one_gap_and_the_end(harness: StoreHarness, cap: int) -> None:
    width = 100
    every = numbered(1, 2000, width=width)
    first = harness.running(max_attempts=2)
    writer = LogWriter(first, cap=64_000)
    writer.READ_SECONDS = 0.0
    append(harness.database, writer, *(b"".join(every[start : start + 100]) for start in range(0, 1000, 100)), last=True)
    harness.leases.lose(harness.leases.held()[0])
    (second,) = harness.claim()
    harness.leases.take(second, supervisor=SUPERVISOR)
    writer = LogWriter(second, cap=cap)
    writer.READ_SECONDS = 0.0
    harness.database.read(writer.resume)
    append(harness.database, writer, *(b"".join(every[start : start + 100]) for start in range(1000, 2000, 100)), last=True)
    dropped = harness.logs.state(first.job_id).dropped
    assert dropped is not None and dropped[1] < 2000
    assert harness.raw_log(first.job_id) == b"".join(every[: dropped[0] - 1] + every[dropped[1] :])


def failing(database: Database) -> Write:
    """A transaction that does all its work and is then undone."""

    def write(transaction: Transaction) -> None:
        def work(connection: Connection) -> None:
            transaction(connection)
            raise ZeroDivisionError

        database.write(work)

    return write


def test_a_log_write_that_failed_may_be_repeated(harness: StoreHarness) -> None:
    writer = LogWriter(harness.running(), cap=1 << 20)
    with suppress(ZeroDivisionError):
        writer.append(failing(harness.database), [block(b"a\nb\n")], {"progress_percent": 5.0})
    assert harness.chunks_of(writer.lease.job_id) == []
    assert harness.store.get(writer.lease.job_id).progress.percent is None
    append(harness.database, writer, b"a\nb\n", b"c\n")
    assert harness.raw_log(writer.lease.job_id) == b"a\nb\nc\n"
    assert [chunk.first_seq for chunk in harness.chunks_of(writer.lease.job_id)] == [1, 3]


def test_a_transaction_that_is_run_again_counts_once(harness: StoreHarness) -> None:
    """Neither for the numbers of the lines nor for what is dropped under the cap."""

    def write_again(transaction: Transaction) -> None:
        with suppress(ZeroDivisionError):
            failing(harness.database)(transaction)
        harness.database.write(transaction)

    every = numbered(1, 2000, width=100)
    once, again = (LogWriter(harness.running(), cap=64_000) for _ in range(2))
    for writer, write in ((once, harness.database.write), (again, write_again)):
        writer.READ_SECONDS = 0.0
        for start in range(0, 2000, 100):
            writer.append(write, [block(b"".join(every[start : start + 100]))], last=start == 1900)
    assert harness.logs.state(again.lease.job_id) == harness.logs.state(once.lease.job_id)
    assert harness.raw_log(again.lease.job_id) == harness.raw_log(once.lease.job_id)
    assert harness.store.get(again.lease.job_id).log == harness.store.get(once.lease.job_id).log
    assert again.next_seq == once.next_seq == 2001


def test_columns_are_set_with_lines_and_an_empty_append_writes_nothing(harness: StoreHarness) -> None:
    writer = LogWriter(harness.running(), cap=1 << 20)
    writer.append(harness.database.write, [block(b"a\n")], {"progress_percent": 5.0})
    job = harness.store.get(writer.lease.job_id)
    assert (job.progress.percent, job.log.lines) == (5.0, 1)
    writer.append(lambda transaction: pytest.fail("it wrote"), [], last=True)
