"""Writes one job's log into the store, under the lease of its supervisor, and keeps the log below its cap.

The writer numbers lines and decides what is dropped. It does not retry: its caller says how a transaction is run. It never reads what
others wrote, except when a second attempt at a job resumes its log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from jobs.lines import piece_end
from jobs.model import LogChunk, Stream
from jobs.store.leases import Lease, update_held
from jobs.store.schema import jobs, log_chunks

Transaction = Callable[[Connection], None]
Write = Callable[[Transaction], None]
"""Runs a transaction until it is committed. It may run it again after a rollback."""

_NO_VALUES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class LogBlock:
    """Consecutive lines of one stream that came together. Each ends in `\\n`, except perhaps the last: a piece of a long line."""

    stream: Stream
    at: int
    lines: int
    data: bytes


@dataclass(frozen=True)
class _Step:
    """What one transaction does to a log: it adds `chunks` and removes the lines `drop` (first, last).

    It may not begin before `wait` seconds have passed.
    """

    chunks: Sequence[LogChunk] = ()
    drop: tuple[int, int] | None = None
    wait: float = 0.0


@dataclass(frozen=True)
class _TailChunk:
    """A chunk of the tail that is in the store, and when it was stored (monotonic time)."""

    first_seq: int
    lines: int
    bytes: int
    stored: float


class LogWriter:
    """The one writer of a job's log. It keeps the first half of the cap and the last half, and drops lines in between.

    No chunk is larger than a quarter of the cap, so that head and tail both have room for the chunk that they need: the one that fills the
    head, and the newest. A longer line becomes several chunks.

    Clients that watch live read from the store as well, so no line is dropped before they had the time to read it. `pause` is called with
    the seconds to wait for that.
    """

    SLACK = 1 << 20
    """The tail may outgrow its half by so many bytes before it is cut, so that cutting is rare."""
    READ_SECONDS = 0.5
    """How long every line is kept at least."""

    def __init__(self, lease: Lease, *, cap: int, pause: Callable[[float], None] = time.sleep) -> None:
        self.lease = lease
        self.next_seq = 1
        self._pause = pause
        self._head_left = cap // 2
        self._tail_cap = cap - cap // 2
        # Chunks come and go as a whole: against a small cap they have to be small as well.
        self._chunk_bytes = max(1, cap // 16)
        self._line_bytes = max(8, cap // 4)
        self._tail: deque[_TailChunk] = deque()
        self._tail_bytes = 0
        self._dropped: tuple[int, int] | None = None

    def resume(self, connection: Connection) -> None:
        """Continue the log of an earlier attempt at the job, which was lost."""
        query = select(jobs.c.log_lines, jobs.c.dropped_first, jobs.c.dropped_last).where(jobs.c.id == self.lease.job_id)
        row = connection.execute(query).one()
        self.next_seq = row.log_lines + 1
        self._dropped = None if row.dropped_first is None else (row.dropped_first, row.dropped_last)
        size = func.length(log_chunks.c.data)
        stored = select(log_chunks.c.first_seq, log_chunks.c.lines, size).where(log_chunks.c.job_id == self.lease.job_id)
        for first_seq, lines, length in connection.execute(stored.order_by(log_chunks.c.first_seq)):
            in_head = first_seq < self._dropped[0] if self._dropped else self._head_left > 0
            self._keep(_TailChunk(first_seq, lines, length, stored=0.0), in_head=in_head)
        if self._dropped:
            self._head_left = min(0, self._head_left)  # what is behind the gap is the tail, whatever the cap was then

    def append(self, write: Write, blocks: Sequence[LogBlock], values: Mapping[str, Any] = _NO_VALUES, *, last: bool = False) -> None:
        """Add blocks to the log, and set columns of the job in the same transaction. Without either, nothing is written.

        With `last`, the log is brought below its cap in a second transaction. Raises LeaseLost, and what `write` raises; then nothing of
        that transaction counts, and the same blocks may be appended again.
        """
        self._commit(write, self._plan(self._numbered(blocks)), values)
        if last:
            self._commit(write, self._plan((), last=True), _NO_VALUES)

    def _commit(self, write: Write, step: _Step, values: Mapping[str, Any]) -> None:
        if not (step.chunks or step.drop or values):
            return
        if step.wait > 0:
            self._pause(step.wait)
        write(lambda connection: self._store(connection, step, values))
        # Not before the commit: a transaction that was rolled back, or is run again, must not count.
        self._note_stored(step)

    def _numbered(self, blocks: Sequence[LogBlock]) -> list[LogChunk]:
        chunks: list[LogChunk] = []
        seq = self.next_seq
        for block in blocks:
            for part in _parts(block.data, self._chunk_bytes, longest=self._line_bytes):
                lines = block.lines if len(part) == len(block.data) else part.count(b"\n") + (not part.endswith(b"\n"))
                chunks.append(LogChunk(self.lease.job_id, seq, lines, block.at, block.stream, part))
                seq += lines
        return chunks

    def _plan(self, chunks: Sequence[LogChunk], *, last: bool = False) -> _Step:
        """How to add chunks. With `last`, the log is below its cap afterwards."""
        surplus = self._tail_bytes + sum(len(chunk.data) for chunk in chunks) - self._tail_room
        # The newest chunk stays in any case: errors come last.
        removable = len(self._tail) if chunks else len(self._tail) - 1
        if removable <= 0 or surplus < (1 if last else min(self.SLACK, self._tail_cap // 4)):
            return _Step(chunks)
        newest = self._newest_to_drop(surplus, among=removable)
        wait = newest.stored + self.READ_SECONDS - time.monotonic()
        if wait > 0 and not last and surplus < self.SLACK:
            return _Step(chunks)
        return _Step(chunks, (self._tail[0].first_seq, newest.first_seq + newest.lines - 1), max(0.0, wait))

    def _store(self, connection: Connection, step: _Step, values: Mapping[str, Any]) -> None:
        """Raises LeaseLost. Changes nothing but the store, because the transaction may be run again."""
        if step.chunks:
            size = sum(len(chunk.data) for chunk in step.chunks)
            values = {**values, "log_lines": step.chunks[-1].next_seq - 1, "log_bytes": jobs.c.log_bytes + size}
        if step.drop:
            values = {**values, "dropped_first": self._dropped_with(step.drop)[0], "dropped_last": step.drop[1]}
        update_held(connection, self.lease, values)
        if step.chunks:
            connection.execute(insert(log_chunks), [chunk.__dict__ for chunk in step.chunks])
        if step.drop:
            within = log_chunks.c.first_seq.between(*step.drop)
            connection.execute(delete(log_chunks).where(log_chunks.c.job_id == self.lease.job_id, within))

    def _note_stored(self, step: _Step) -> None:
        now = time.monotonic()
        for chunk in step.chunks:
            self._keep(_TailChunk(chunk.first_seq, chunk.lines, len(chunk.data), now), in_head=self._head_left > 0)
            self.next_seq = chunk.next_seq
        if step.drop:
            while self._tail and self._tail[0].first_seq <= step.drop[1]:
                self._tail_bytes -= self._tail.popleft().bytes
            self._dropped = self._dropped_with(step.drop)

    @property
    def _tail_room(self) -> int:
        # A chunk that is half in the head is kept whole, at the cost of the tail.
        return max(self._tail_cap + min(0, self._head_left), self._line_bytes)

    def _keep(self, chunk: _TailChunk, *, in_head: bool) -> None:
        if in_head:
            self._head_left -= chunk.bytes
        else:
            self._tail.append(chunk)
            self._tail_bytes += chunk.bytes

    def _newest_to_drop(self, surplus: int, *, among: int) -> _TailChunk:
        """The last chunk to drop so that `surplus` bytes are gone; at most the first `among` chunks of the tail are dropped."""
        for chunk in islice(self._tail, among):
            surplus -= chunk.bytes
            if surplus <= 0:
                return chunk
        return self._tail[among - 1]

    def _dropped_with(self, more: tuple[int, int]) -> tuple[int, int]:
        return (self._dropped[0] if self._dropped else more[0], more[1])


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
