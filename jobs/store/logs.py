"""A job's log in the store: chunks of lines, written by the one supervisor that holds the lease, read by everybody.

Chunks are gapless and in order, but for one gap where the cap removed the middle of a log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, insert, select

from jobs.errors import JobNotFound
from jobs.lines import piece_end
from jobs.model import ENDED, LogChunk, Status, Stream
from jobs.store.database import Database
from jobs.store.leases import Lease, update_held
from jobs.store.schema import jobs, log_chunks


@dataclass(frozen=True)
class LogState:
    """How far a log is: `lines` were written, of which `dropped` (first, last) are gone; nothing follows once it is `complete`."""

    lines: int
    dropped: tuple[int, int] | None
    complete: bool


class Logs:
    """Reads logs. A deleted job's log is still there for those who watched the job, until its rows are removed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def state(self, job_id: str) -> LogState:
        """Raises JobNotFound."""
        states = self.states([job_id])
        if not states:
            raise JobNotFound(job_id)
        return states[job_id]

    def states(self, job_ids: Sequence[str]) -> dict[str, LogState]:
        """Those of the jobs that are there."""
        rows = self.database.read(lambda connection: connection.execute(_STATES, {"job_ids": job_ids}).all())
        return {row.id: _to_state(row) for row in rows}

    def chunks(self, job_id: str, *, after_seq: int = 0, max_bytes: int = 1 << 20, stream: Stream | None = None) -> list[LogChunk]:
        """The chunks (of one stream, if it is given) that hold the lines after `after_seq`, cut to those lines, up to about `max_bytes`."""

        def work(connection: Connection) -> list[LogChunk]:
            wanted = _of(job_id, stream)
            start = select(log_chunks.c.first_seq).where(*wanted, log_chunks.c.first_seq <= after_seq + 1)
            first = connection.execute(start.order_by(log_chunks.c.first_seq.desc()).limit(1)).scalar() or 0
            query = select(log_chunks).where(*wanted, log_chunks.c.first_seq >= first).order_by(log_chunks.c.first_seq)
            return list(_take(connection.execute(query.limit(512)), after_seq=after_seq, max_bytes=max_bytes))

        return self.database.read(work)

    def tail(self, job_id: str, count: int, *, stream: Stream | None = None) -> int:
        """The `after_seq` that leaves the last `count` lines (of one stream, if it is given). Raises JobNotFound."""
        if stream is None:
            return max(0, self.state(job_id).lines - count)
        query = select(log_chunks.c.first_seq, log_chunks.c.lines).where(*_of(job_id, stream))
        newest = query.order_by(log_chunks.c.first_seq.desc()).limit(count)
        for first_seq, lines in self.database.read(lambda connection: connection.execute(newest).all()):
            if lines >= count:
                return int(first_seq - 1 + lines - count)
            count -= lines
        return 0


_STATES = select(jobs.c.id, jobs.c.log_lines, jobs.c.dropped_first, jobs.c.dropped_last, jobs.c.status).where(
    jobs.c.id.in_(bindparam("job_ids", expanding=True))
)


def _to_state(row: Any) -> LogState:
    dropped = None if row.dropped_first is None else (row.dropped_first, row.dropped_last)
    return LogState(row.log_lines, dropped, Status(row.status) in ENDED)


def _of(job_id: str, stream: Stream | None) -> list[ColumnElement[bool]]:
    return [log_chunks.c.job_id == job_id, *([] if stream is None else [log_chunks.c.stream == stream])]


def _take(rows: Iterable[Row[Any]], *, after_seq: int, max_bytes: int) -> Iterator[LogChunk]:
    taken = 0
    for row in rows:
        chunk = LogChunk(row.job_id, row.first_seq, row.lines, row.at, Stream(row.stream), row.data)
        if chunk.next_seq <= after_seq + 1:
            continue
        yield cut(chunk, after_seq)
        taken += len(chunk.data)
        if taken >= max_bytes:
            return


def cut(chunk: LogChunk, after_seq: int) -> LogChunk:
    """The part of a chunk that follows line `after_seq`."""
    surplus = after_seq + 1 - chunk.first_seq
    if surplus <= 0:
        return chunk
    data = chunk.data.split(b"\n", surplus)[-1]
    return LogChunk(chunk.job_id, chunk.first_seq + surplus, chunk.lines - surplus, chunk.at, chunk.stream, data)


@dataclass(frozen=True)
class Step:
    """What one transaction does to a log: chunks to add, and the lines (first, last) that go to make room for them.

    It may not begin before `wait` seconds have passed.
    """

    chunks: Sequence[LogChunk]
    doomed: tuple[int, int] | None = None
    wait: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """A chunk of the tail, and when it was stored."""

    first_seq: int
    lines: int
    bytes: int
    stored: float


class LogWriter:
    """Writes one job's log under its lease, and keeps it below the cap: the first half of it, and the last.

    Nothing is added that is larger than a quarter of the cap: head and tail both have room for the chunk that each of them needs, the one
    that fills it and the newest. A line that is longer becomes several.

    Those who watch live read from the store as well, so nothing is removed before they had the time for it.
    """

    SLACK = 1 << 20
    """The tail may outgrow its half by so much before it is cut, so that cutting is rare."""
    READ_SECONDS = 0.5
    """How long every line is kept at least."""

    def __init__(self, lease: Lease, *, cap: int) -> None:
        self.lease = lease
        self.next_seq = 1
        self._head_left = cap // 2
        self._tail_cap = cap - cap // 2
        # Chunks come and go as a whole: against a small cap they have to be small as well.
        self._chunk_bytes = max(1, cap // 16)
        self._line_bytes = max(8, cap // 4)
        self._tail: deque[_Kept] = deque()
        self._tail_bytes = 0
        self._dropped: tuple[int, int] | None = None

    def resume(self, connection: Connection) -> None:
        """Go on where an earlier attempt at the job was lost."""
        query = select(jobs.c.log_lines, jobs.c.dropped_first, jobs.c.dropped_last).where(jobs.c.id == self.lease.job_id)
        row = connection.execute(query).one()
        self.next_seq = row.log_lines + 1
        self._dropped = None if row.dropped_first is None else (row.dropped_first, row.dropped_last)
        size = func.length(log_chunks.c.data)
        stored = select(log_chunks.c.first_seq, log_chunks.c.lines, size).where(log_chunks.c.job_id == self.lease.job_id)
        for first_seq, lines, length in connection.execute(stored.order_by(log_chunks.c.first_seq)):
            in_head = first_seq < self._dropped[0] if self._dropped else self._head_left > 0
            self._keep(_Kept(first_seq, lines, length, stored=0.0), in_head=in_head)
        if self._dropped:
            self._head_left = min(0, self._head_left)  # what is behind the gap is the tail, whatever the cap was then

    def chunks(self, *, lines: int, at: int, stream: Stream, data: bytes) -> list[LogChunk]:
        """Lines as chunks, numbered."""
        made = []
        for part in _parts(data, self._chunk_bytes, longest=self._line_bytes):
            count = lines if len(part) == len(data) else part.count(b"\n") + (not part.endswith(b"\n"))
            made.append(LogChunk(self.lease.job_id, self.next_seq, count, at, stream, part))
            self.next_seq += count
        return made

    def step(self, chunks: Sequence[LogChunk], *, last: bool = False) -> Step:
        """How to add chunks. With `last`, so that the log is below its cap afterwards."""
        surplus = self._tail_bytes + sum(len(chunk.data) for chunk in chunks) - self._tail_room
        # The newest chunk stays in any case: errors come last.
        removable = len(self._tail) if chunks else len(self._tail) - 1
        if removable <= 0 or surplus < (1 if last else min(self.SLACK, self._tail_cap // 4)):
            return Step(chunks)
        doomed = self._oldest(surplus, among=removable)
        wait = doomed.stored + self.READ_SECONDS - time.monotonic()
        if wait > 0 and not last and surplus < self.SLACK:
            return Step(chunks)
        return Step(chunks, (self._tail[0].first_seq, doomed.first_seq + doomed.lines - 1), max(0.0, wait))

    def write(self, connection: Connection, step: Step, values: Mapping[str, Any]) -> None:
        """Store what a step adds, and other columns of the job with it. Raises LeaseLost. May be repeated after a transaction that
        failed."""
        if step.chunks:
            size = sum(len(chunk.data) for chunk in step.chunks)
            values = {**values, "log_lines": step.chunks[-1].next_seq - 1, "log_bytes": jobs.c.log_bytes + size}
        if step.doomed:
            values = {**values, "dropped_first": self._dropped_with(step.doomed)[0], "dropped_last": step.doomed[1]}
        update_held(connection, self.lease, values)
        if step.chunks:
            connection.execute(insert(log_chunks), [chunk.__dict__ for chunk in step.chunks])
        if step.doomed:
            within = log_chunks.c.first_seq.between(*step.doomed)
            connection.execute(delete(log_chunks).where(log_chunks.c.job_id == self.lease.job_id, within))

    def written(self, step: Step) -> None:
        """The transaction of this step was committed."""
        now = time.monotonic()
        for chunk in step.chunks:
            self._keep(_Kept(chunk.first_seq, chunk.lines, len(chunk.data), now), in_head=self._head_left > 0)
        if step.doomed:
            while self._tail and self._tail[0].first_seq <= step.doomed[1]:
                self._tail_bytes -= self._tail.popleft().bytes
            self._dropped = self._dropped_with(step.doomed)

    @property
    def _tail_room(self) -> int:
        # A chunk that is half in the head is kept whole, at the cost of the tail.
        return max(self._tail_cap + min(0, self._head_left), self._line_bytes)

    def _keep(self, kept: _Kept, *, in_head: bool) -> None:
        if in_head:
            self._head_left -= kept.bytes
        else:
            self._tail.append(kept)
            self._tail_bytes += kept.bytes

    def _oldest(self, surplus: int, *, among: int) -> _Kept:
        """The last that must go, of the first so many chunks of the tail, to be rid of so many bytes."""
        for kept in islice(self._tail, among):
            surplus -= kept.bytes
            if surplus <= 0:
                return kept
        return self._tail[among - 1]

    def _dropped_with(self, doomed: tuple[int, int]) -> tuple[int, int]:
        return (self._dropped[0] if self._dropped else doomed[0], doomed[1])


def _parts(data: bytes, size: int, *, longest: int) -> Iterator[bytes]:
    """Cuts between lines, so that a part is no larger than `size` unless it is one line; and within lines larger than `longest`."""
    start = 0
    while len(data) - start > size:
        end = data.rfind(b"\n", start, start + size) + 1 or data.find(b"\n", start) + 1 or len(data)
        if end - start > longest:
            end = piece_end(data, start, longest - 2)  # its line end may stay with the last piece
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:] if start else data
