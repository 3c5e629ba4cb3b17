"""A job's log in the store: chunks of lines, written by the one supervisor that holds the lease, read by everybody.

Chunks are gapless and in order, but for one gap where the cap removed the middle of a log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from jobs.database import Database
from jobs.errors import JobNotFound
from jobs.leases import Lease, update_held
from jobs.model import ENDED, LogChunk, Status, Stream
from jobs.schema import jobs, log_chunks


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
        query = select(jobs.c.log_lines, jobs.c.dropped_first, jobs.c.dropped_last, jobs.c.status).where(jobs.c.id == job_id)
        row = self.database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise JobNotFound(job_id)
        dropped = None if row.dropped_first is None else (row.dropped_first, row.dropped_last)
        return LogState(row.log_lines, dropped, Status(row.status) in ENDED)

    def chunks(self, job_id: str, *, after_seq: int = 0, max_bytes: int = 1 << 20) -> list[LogChunk]:
        """The chunks that hold the lines after `after_seq`, cut to those lines, up to about `max_bytes`."""

        def work(connection: Connection) -> list[LogChunk]:
            start = select(log_chunks.c.first_seq).where(log_chunks.c.job_id == job_id, log_chunks.c.first_seq <= after_seq + 1)
            first = connection.execute(start.order_by(log_chunks.c.first_seq.desc()).limit(1)).scalar() or 0
            query = (
                select(log_chunks).where(log_chunks.c.job_id == job_id, log_chunks.c.first_seq >= first).order_by(log_chunks.c.first_seq)
            )
            return list(_take(connection.execute(query.limit(512)), after_seq=after_seq, max_bytes=max_bytes))

        return self.database.read(work)

    def tail(self, job_id: str, count: int) -> int:
        """The `after_seq` that leaves the last `count` lines. Raises JobNotFound."""
        return max(0, self.state(job_id).lines - count)


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


class LogWriter:
    """Writes one job's log under its lease, and keeps it below the cap: the first half of it, and the last.

    It alone knows what the tail holds, so a job that is taken over after a lost attempt begins a new tail.
    """

    SLACK = 1 << 20
    """The tail may outgrow its half by so much before it is cut, so that cutting is rare."""

    def __init__(self, lease: Lease, *, first_seq: int, cap: int) -> None:
        self.lease = lease
        self.next_seq = first_seq
        self.bytes = 0
        self._head_left = cap // 2
        self._tail_cap = cap - cap // 2
        self._tail: deque[tuple[int, int, int]] = deque()  # first seq, lines, bytes
        self._tail_bytes = 0
        self._dropped: tuple[int, int] | None = None

    def chunk(self, *, lines: int, at: int, stream: Stream, data: bytes) -> LogChunk:
        """The next chunk, numbered."""
        chunk = LogChunk(self.lease.job_id, self.next_seq, lines, at, stream, data)
        self.next_seq += lines
        self.bytes += len(data)
        return chunk

    def write(self, connection: Connection, chunks: Sequence[LogChunk], values: dict[str, Any]) -> None:
        """Store chunks, and other columns of the job with them. Raises LeaseLost. May be repeated after a transaction that failed."""
        if chunks:
            rows = [
                {
                    "job_id": chunk.job_id,
                    "first_seq": chunk.first_seq,
                    "lines": chunk.lines,
                    "at": chunk.at,
                    "stream": chunk.stream,
                    "data": chunk.data,
                }
                for chunk in chunks
            ]
            values = {**values, "log_lines": self.next_seq - 1, "log_bytes": jobs.c.log_bytes + sum(len(chunk.data) for chunk in chunks)}
        doomed = self._doomed(chunks)
        if doomed:
            first = self._dropped[0] if self._dropped else doomed[0]
            values = {**values, "dropped_first": first, "dropped_last": doomed[1]}
        update_held(connection, self.lease, values)
        if chunks:
            connection.execute(insert(log_chunks), rows)
        if doomed:
            connection.execute(delete(log_chunks).where(log_chunks.c.job_id == self.lease.job_id, log_chunks.c.first_seq.between(*doomed)))

    def written(self, chunks: Sequence[LogChunk]) -> None:
        """The transaction that stored the chunks was committed."""
        doomed = self._doomed(chunks)
        for chunk in chunks:
            if self._head_left > 0:
                self._head_left -= len(chunk.data)
            else:
                self._tail.append((chunk.first_seq, chunk.lines, len(chunk.data)))
                self._tail_bytes += len(chunk.data)
        if doomed:
            while self._tail and self._tail[0][0] <= doomed[1]:
                self._tail_bytes -= self._tail.popleft()[2]
            self._dropped = (self._dropped[0] if self._dropped else doomed[0], doomed[1])

    def _doomed(self, chunks: Sequence[LogChunk]) -> tuple[int, int] | None:
        """The lines (first, last) that must go when these chunks come; None while there is room."""
        surplus = self._tail_bytes + sum(len(chunk.data) for chunk in chunks) - self._tail_cap
        if not self._tail or surplus < min(self.SLACK, self._tail_cap // 4):
            return None
        last = 0
        for first_seq, lines, size in self._tail:
            if surplus <= 0:
                break
            surplus -= size
            last = first_seq + lines - 1
        return (self._tail[0][0], last)
