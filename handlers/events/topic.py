"""One watched job: the newest part of its log and its status changes, encoded once for all clients that watch it.

The store is the truth; a topic only saves reading and encoding the same again for each client. It sends nothing: it wakes its watchers,
which take what they lack.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import gevent
from gevent.lock import BoundedSemaphore

from handlers.events.payloads import Encode, Packet, log_payload, progress_payload, status_payload
from jobs.model import ENDED, Job, JobEvent, Json, LogChunk, Progress
from jobs.store.logs import Logs, cut

IN_FLIGHT_BYTES = 256 << 10
"""A client is sent no more than this before it has taken what it was sent earlier. So no more than this is read for it at a time."""
CHUNKS_PER_TURN = 50
"""After encoding so many chunks, other greenlets get their turn. For a log of single lines this takes about 2 ms."""
RECENT_LOG_BYTES = 1 << 20
"""How much of each watched log is kept, encoded, for clients that are nearly up to date."""


class Watcher(Protocol):
    """A client that watches a job, as far as its topic knows it."""

    def wake(self) -> None:
        """There is something to send."""

    def end_subscription(self, job_id: str, problem: Json) -> None:
        """The job cannot be followed any more; `problem` says why."""

    def report_missing(self, job_id: str) -> None:
        """The job's rows were removed from the store."""


@dataclass(frozen=True)
class StatusChange:
    cursor: int
    ended: bool
    packet: Packet


@dataclass(frozen=True)
class EncodedChunk:
    first_seq: int
    next_seq: int
    packet: Packet


class Topic:
    """What is kept of one watched job. There is a topic only while a client watches the job."""

    def __init__(self, job_id: str, *, logs: Logs, encode: Encode, catch_up_lock: BoundedSemaphore) -> None:
        self.job_id = job_id
        self.watchers: set[Watcher] = set()
        self.progress = Progress()
        self.progress_packet: Packet | None = None
        self.ended: Job | None = None
        """The job, once the status change that ended it was read. From then on all its status changes are in `status_changes`."""
        self.status_changes: list[StatusChange] = []
        self.lines = 0
        """How many lines of the log were read. They are in `_recent`, but for the oldest, which may be forgotten."""
        self._logs = logs
        self._encode = encode
        self._catch_up_lock = catch_up_lock
        self._recent: list[EncodedChunk] = []
        self._recent_bytes = 0

    # -- what is new, from the caster -------------------------------------------------------------------------------------

    def start_after(self, lines: int) -> None:
        """Keep nothing of the log up to this line: it was written before a client watched the job."""
        self.lines = lines

    def update(self, job: Job) -> None:
        """Take in the job as it is now, and wake the watchers if there is something new for them. Raises Unavailable."""
        changed = job.ended
        if job.progress not in (self.progress, Progress()):
            self.progress = job.progress
            self.progress_packet = self._encode("progress", progress_payload(job.id, job.progress))
            changed = True
        if job.log.lines > self.lines:
            self._read_log(job.log.lines)
            changed = True
        if changed:
            self._wake()

    def add_status(self, event: JobEvent) -> None:
        packet = self._encode("status", status_payload(event))
        self.status_changes.append(StatusChange(event.cursor, event.status in ENDED, packet))
        self._wake()

    def end_subscriptions(self, problem: Json) -> None:
        for watcher in list(self.watchers):
            watcher.end_subscription(self.job_id, problem)

    def report_missing(self) -> None:
        for watcher in list(self.watchers):
            watcher.report_missing(self.job_id)

    def _wake(self) -> None:
        for watcher in self.watchers:
            watcher.wake()

    def _read_log(self, lines: int) -> None:
        while self.lines < lines and (chunks := self._logs.chunks(self.job_id, after_seq=self.lines, max_bytes=RECENT_LOG_BYTES)):
            for chunk in chunks:
                encoded = self._encode_chunk(chunk)
                # Count it now: the next read may fail, and this chunk must not be added a second time.
                self.lines = encoded.next_seq - 1
                self._recent.append(encoded)
                self._recent_bytes += encoded.packet.size
        self.lines = max(self.lines, lines)
        if self._recent_bytes > 2 * RECENT_LOG_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        surplus = self._recent_bytes - RECENT_LOG_BYTES
        count = 0
        while surplus > 0:
            surplus -= self._recent[count].packet.size
            count += 1
        self._recent_bytes = RECENT_LOG_BYTES + surplus
        del self._recent[:count]

    # -- for a subscriber -------------------------------------------------------------------------------------------------

    def chunks_after(self, seq: int) -> Iterator[EncodedChunk]:
        """The log after line `seq`: from what is kept, if that reaches back so far, else from the store, at most IN_FLIGHT_BYTES."""
        if not self._recent or seq + 1 < self._recent[0].first_seq:
            if seq < self.lines:
                yield from self._stored_after(seq, up_to=None)
            return
        place = bisect_right(self._recent, seq, key=lambda recent: recent.first_seq)
        # A copy: chunks may be added and forgotten while the caller sends these.
        newer = self._recent[place:]
        if place and self._recent[place - 1].next_seq > seq + 1:
            yield from self._stored_after(seq, up_to=self._recent[place - 1].next_seq)
        yield from newer

    def _stored_after(self, seq: int, *, up_to: int | None) -> Iterator[EncodedChunk]:
        # One client at a time reads from the store. In between, the clients that are up to date get their turn.
        with self._catch_up_lock:
            chunks = self._logs.chunks(self.job_id, after_seq=seq, max_bytes=IN_FLIGHT_BYTES)
            flight: list[EncodedChunk] = []
            for chunk in chunks:
                if up_to is not None and chunk.first_seq >= up_to:
                    break
                flight.append(self._encode_chunk(cut(chunk, seq)))
                if len(flight) % CHUNKS_PER_TURN == 0:
                    gevent.sleep(0)
            gevent.sleep(0)
        yield from flight

    def _encode_chunk(self, chunk: LogChunk) -> EncodedChunk:
        return EncodedChunk(chunk.first_seq, chunk.next_seq, self._encode("log", log_payload(chunk)))
