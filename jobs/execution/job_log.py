"""What a job prints, on its way to the store: masked, cut into lines, collected into batches, with the progress that is read from it.

It decides when something is worth a transaction, and in which transaction the job's progress and result are stored. It reads no
descriptor, and knows nothing of the job's process or of how the job ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from jobs.clock import SteadyClock
from jobs.execution.lease_renewal import do_nothing, retry_until_stored
from jobs.execution.output import Block, Masker, OutputPipeline, OutputScanner, forms_of
from jobs.execution.progress import ProgressTracker
from jobs.fault_points import reached
from jobs.model import Progress, Stream
from jobs.recipes.expand import Recipe
from jobs.store.database import Database
from jobs.store.leases import Lease
from jobs.store.log_writer import LogBlock, LogWriter, Transaction

FLUSH_SECONDS = 0.02
FLUSH_BYTES = 1 << 18
CHUNK_BYTES = 1 << 16
"""Blocks that wait together become one chunk, and so one event, up to about this size."""
CHUNK_LINES = 1 << 16
"""The most lines that an event may hold, by openapi/jobs.asyncapi.yaml."""
PROGRESS_SECONDS = 0.1


@dataclass
class Batch:
    """Consecutive blocks of one stream that are not stored yet. `at` is when the first of them came."""

    stream: Stream
    at: int
    blocks: list[Block] = field(default_factory=list)
    bytes: int = 0
    lines: int = 0

    def accepts(self, stream: Stream, block: Block) -> bool:
        """Whether the next block may join. Not after a piece without a line end: the two would become one line."""
        fits = self.bytes < CHUNK_BYTES and self.lines + block.lines <= CHUNK_LINES
        return stream is self.stream and fits and self.blocks[-1].data.endswith(b"\n")

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.bytes += len(block.data)
        self.lines += block.lines

    def to_log_block(self) -> LogBlock:
        return LogBlock(self.stream, self.at, self.lines, b"".join(block.data for block in self.blocks))


class JobLog:
    """The log of one job under one lease. `pause` is called with the seconds for which the log has to wait."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        recipe: Recipe,
        cap: int,
        clock: SteadyClock,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._database = database
        self._writer = LogWriter(lease, cap=cap, pause=pause)
        if lease.attempt > 1:
            retry_until_stored(lambda: database.read(self._writer.resume))
        self._scanner = OutputScanner(patterns=recipe.progress, ready=recipe.ready)
        self._tracker = ProgressTracker()
        self._secrets = [form for name in recipe.secrets for form in forms_of(os.environ[name].encode())]
        self._pipelines: dict[Stream, OutputPipeline] = {}
        self._batches: list[Batch] = []
        self._batched_bytes = 0
        self._values: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._noted_at = 0.0
        self._flushed_at = 0.0
        self._progress: Progress | None = None
        self._progress_stored_at = 0.0
        self.meanwhile: Callable[[], None] = do_nothing
        """Called between two tries while the store does not answer."""

    def feed(self, stream: Stream, data: bytes) -> None:
        """Raises LeaseLost."""
        self._add(stream, self._pipeline(stream).feed(data))
        if self._batched_bytes >= FLUSH_BYTES:
            self.flush()

    def end(self, stream: Stream) -> None:
        """Nothing more comes from this stream."""
        self._add(stream, self._pipeline(stream).end())

    def note(self, **values: Any) -> None:
        """Columns that matter only while the job runs, so that a short job need not store them."""
        self._notes, self._noted_at = values, time.monotonic()

    def due(self) -> float | None:
        """When something has to be stored (monotonic time), None while nothing waits. Output after a pause is due at once."""
        if self._batches or self._values:
            return self._flushed_at + FLUSH_SECONDS
        if self._progress is not None:
            return self._progress_stored_at + PROGRESS_SECONDS
        return self._noted_at + FLUSH_SECONDS if self._notes else None

    def flush(self, *, last: bool = False) -> None:
        """Store what waits. Raises LeaseLost."""
        now = time.monotonic()
        values = self._values if last else {**self._notes, **self._values}
        if self._progress is not None and (last or now >= self._progress_stored_at + PROGRESS_SECONDS):
            values = {**values, "progress_percent": self._progress.percent, "progress_message": self._progress.message}
            self._progress, self._progress_stored_at = None, now
        self._writer.append(self._write, [batch.to_log_block() for batch in self._batches], values, last=last)
        self._batches, self._batched_bytes, self._values, self._notes = [], 0, {}, {}
        self._flushed_at = time.monotonic()

    def _write(self, transaction: Transaction) -> None:
        def work(connection: Connection) -> None:
            transaction(connection)
            reached("chunk.stored")

        retry_until_stored(lambda: self._database.write(work, durable=False), self.meanwhile)
        reached("chunk.committed")

    def _pipeline(self, stream: Stream) -> OutputPipeline:
        if stream not in self._pipelines:
            self._pipelines[stream] = OutputPipeline(masker=Masker(self._secrets), scanner=self._scanner)
        return self._pipelines[stream]

    def _add(self, stream: Stream, blocks: list[Block]) -> None:
        at = self._clock.now_ms()
        for block in blocks:
            if not (self._batches and self._batches[-1].accepts(stream, block)):
                self._batches.append(Batch(stream, at))
            self._batches[-1].add(block)
            self._batched_bytes += len(block.data)
        self._add_findings(at)

    def _add_findings(self, at: int) -> None:
        found = self._scanner.take_findings()
        if found.progress is not None:
            self._progress = self._tracker.offer(found.progress) or self._progress
        if found.ready is not None:
            self._values["ready_at"] = at
            # A job that is ready has no event of its own: clients that watch learn it from this progress.
            self._progress = self._tracker.offer(Progress(message="ready")) or self._progress
            if found.ready:
                self._values["result"] = dict(found.ready)
        if found.result is not None:
            self._values["result"] = found.result
