"""Reads the logs of jobs from the store; `log_writer` writes them. Nothing here changes a log.

A log is chunks of lines. They are in order and without a gap, except one gap where the cap removed the middle of a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, select

from jobs.errors import JobNotFound
from jobs.model import ENDED, LogChunk, Status, Stream
from jobs.store.database import Database
from jobs.store.schema import jobs, log_chunks


@dataclass(frozen=True)
class LogState:
    """How far a log is: `lines` were written, `dropped` (first, last) of them are gone, and nothing follows once it is `complete`."""

    lines: int
    dropped: tuple[int, int] | None
    complete: bool


class Logs:
    """Reads logs. The log of a deleted job stays readable until its rows are removed, for the clients that watched the job."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def state(self, job_id: str) -> LogState:
        """Raises JobNotFound."""
        states = self.states([job_id])
        if not states:
            raise JobNotFound(job_id)
        return states[job_id]

    def states(self, job_ids: Sequence[str]) -> dict[str, LogState]:
        """By job id. A job that does not exist is left out."""
        rows = self.database.read(lambda connection: connection.execute(_STATES, {"job_ids": job_ids}).all())
        return {row.id: _to_state(row) for row in rows}

    def chunks(self, job_id: str, *, after_seq: int = 0, max_bytes: int = 1 << 20, stream: Stream | None = None) -> list[LogChunk]:
        """The chunks that hold the lines after `after_seq`, cut to those lines, up to about `max_bytes`; of one stream if it is given."""

        def work(connection: Connection) -> list[LogChunk]:
            wanted = _of(job_id, stream)
            start = select(log_chunks.c.first_seq).where(*wanted, log_chunks.c.first_seq <= after_seq + 1)
            first = connection.execute(start.order_by(log_chunks.c.first_seq.desc()).limit(1)).scalar() or 0
            query = select(log_chunks).where(*wanted, log_chunks.c.first_seq >= first).order_by(log_chunks.c.first_seq)
            return list(_take(connection.execute(query.limit(512)), after_seq=after_seq, max_bytes=max_bytes))

        return self.database.read(work)

    def tail(self, job_id: str, count: int, *, stream: Stream | None = None) -> int:
        """The `after_seq` that leaves the last `count` lines, of one stream if it is given. Raises JobNotFound."""
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
