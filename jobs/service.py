"""The use cases of clients, in the domain's words. Knows no HTTP, no sockets and no JSON representation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.clock import now_ms
from jobs.errors import JobNotFound, TemplateNotFound, Unavailable
from jobs.log_states import LogStates
from jobs.model import Caller, Job, JobEvent, JobType, Json, LogChunk, Stream, Submission, WorkerInfo
from jobs.recipes.expand import JobTypeInfo, Recipes
from jobs.recipes.templates import Template, TemplateCatalog
from jobs.store.jobs import IdempotencyKey, Store, Submitted
from jobs.store.listing import JobCounts, JobFilter
from jobs.store.logs import Logs, LogState
from jobs.store.tokens import Tokens
from jobs.submission import Submissions

RAW_BYTES = 1 << 20
FOLLOW_POLL_INTERVAL_SECONDS = 2.0
PAGE_BYTES = 4 << 20
"""A page of very long lines ends after so many bytes, before its limit of lines."""


class Changes(Protocol):
    """Waits for the store to change. Read `version` before the store, so that no change in between is missed."""

    @property
    def version(self) -> int: ...

    def wait(self, seen: int, timeout: float) -> None:
        """Return when the version is not `seen` any more, or after `timeout` seconds."""


@dataclass(frozen=True)
class LogLine:
    seq: int
    at: int
    stream: Stream
    text: str


@dataclass(frozen=True)
class LogPage:
    lines: Sequence[LogLine]
    next_seq: int
    complete: bool
    dropped: tuple[int, int] | None


@dataclass(frozen=True)
class JobPage:
    jobs: Sequence[Job]
    next_cursor: str | None


class Service:
    def __init__(self, store: Store, logs: Logs, recipes: Recipes, submissions: Submissions, changes: Changes) -> None:
        self.tokens = Tokens(store.database)
        self._store = store
        self._logs = logs
        self._recipes = recipes
        self._submissions = submissions
        self._changes = changes
        self._newest = (-1, 0)
        self._log_states = LogStates(logs)

    # -- jobs -------------------------------------------------------------------------------------------------------------

    def submit(self, body: Mapping[str, Json], *, caller: Caller, idempotency_key: str | None = None) -> Submitted:
        """`body` has passed the contract. Raises what `Submissions.submit` raises; nothing is stored then."""
        return self._submissions.submit(_to_submission(body), by=caller.name, idempotency=_idempotency(idempotency_key, body, caller))

    def retry(self, job_id: str, *, caller: Caller) -> Job:
        """Raises what `Submissions.retry` raises."""
        return self._submissions.retry(job_id, by=caller.name)

    def get(self, job_id: str, *, wait: float = 0) -> Job:
        """The job, at once or when it has ended, after at most `wait` seconds. Raises JobNotFound."""
        deadline = time.monotonic() + wait
        known: int | None = None
        while (left := deadline - time.monotonic()) > 0:
            seen = self._changes.version
            if (newest := self._newest_event(seen)) != known:
                known = newest
                if (job := self._store.get(job_id)).ended:
                    return job
            self._changes.wait(seen, left)
        return self._store.get(job_id)

    def _newest_event(self, version: int) -> int:
        """The newest status change, read once for all callers that wait: most changes of the store are log lines, which end no wait."""
        if self._newest[0] != version:
            self._newest = (version, self._store.last_event())
        return self._newest[1]

    def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None) -> JobPage:
        jobs = self._store.list_jobs(wanted, limit=limit + 1, cursor=cursor)
        return JobPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def cancel(self, job_id: str, *, caller: Caller, force: bool) -> Job:
        return self._store.request_cancel(job_id, by=caller.name, force=force)

    def delete(self, job_id: str, *, caller: Caller) -> None:
        self._store.delete(job_id, by=caller.name)

    def history(self, job_id: str) -> list[JobEvent]:
        return self._store.events(job_id)

    # -- logs -------------------------------------------------------------------------------------------------------------

    def log_page(self, job_id: str, *, after_seq: int, limit: int, tail: int | None, stream: Stream | None) -> LogPage:
        """Raises JobNotFound."""
        self._store.get(job_id)
        # The state first: if it says complete, the chunks that are read after it are complete, too.
        state = self._logs.state(job_id)
        seq = self._logs.tail(job_id, tail, stream=stream) if tail else after_seq
        limit = tail or limit
        lines: list[LogLine] = []
        room = PAGE_BYTES
        while len(lines) < limit and room > 0:
            chunks = self._logs.chunks(job_id, after_seq=seq, max_bytes=1 << 18, stream=stream)
            if not chunks:
                seq = max(seq, state.lines)  # the remaining lines are of the other stream
                break
            for chunk in chunks:
                seq = _take_lines(chunk, lines, limit=limit, last=seq)
                room -= len(chunk.data)
        if stream and state.complete and not self._logs.chunks(job_id, after_seq=seq, max_bytes=1, stream=stream):
            seq = max(seq, state.lines)  # the last line of this stream was taken
        return LogPage(lines, seq + 1, state.complete and seq >= state.lines, state.dropped)

    def raw_log(self, job_id: str, *, after_seq: int, tail: int | None, stream: Stream | None, follow: bool) -> Iterator[bytes]:
        """The log as the job wrote it; with `follow`, until the job ends. Raises JobNotFound before the first byte.

        While a followed job is silent, the iterator yields an empty piece first and every few seconds, so that the caller can send the head
        of its answer, and check whether the client is still there.
        """
        self._store.get(job_id)
        state = self._logs.state(job_id)
        seq = self._logs.tail(job_id, tail, stream=stream) if tail else after_seq
        return self._follow(job_id, seq, stream) if follow else self._stored(job_id, seq, stream, until=state)

    def _stored(self, job_id: str, seq: int, stream: Stream | None, *, until: LogState) -> Generator[bytes, None, int]:
        """The lines after `seq`, at least to the last one of `until` unless the job is removed meanwhile. Returns the number of the last
        line."""
        while seq < until.lines and (chunks := self._logs.chunks(job_id, after_seq=seq, max_bytes=RAW_BYTES)):
            for chunk in chunks:
                yield from _raw(chunk, seq, stream)
                seq = chunk.next_seq - 1
        if seq < until.lines and until.dropped and until.dropped[1] >= until.lines:
            yield _gap(seq + 1, until.lines)
            seq = until.lines
        return seq

    def _follow(self, job_id: str, seq: int, stream: Stream | None) -> Iterator[bytes]:
        looked: float | None = None
        with self._log_states.job(job_id):
            while True:
                version = self._changes.version
                try:
                    state = self._log_states.state(job_id, version=version)
                except JobNotFound:  # the job was removed
                    return
                seq = yield from self._stored(job_id, seq, stream, until=state)
                if state.complete:
                    return
                if looked is None or time.monotonic() >= looked + FOLLOW_POLL_INTERVAL_SECONDS:
                    looked = time.monotonic()
                    yield b""
                self._changes.wait(version, FOLLOW_POLL_INTERVAL_SECONDS)

    # -- the rest ---------------------------------------------------------------------------------------------------------

    def job_types(self) -> list[JobTypeInfo]:
        return self._recipes.job_types()

    def templates(self) -> TemplateCatalog:
        """Raises WorkspaceGone."""
        return self._recipes.templates()

    def template(self, name: str) -> Template:
        """Raises TemplateNotFound and WorkspaceGone."""
        try:
            return self.templates().get(name)
        except TemplateNotFound:
            # Here the name is in the URL; there is no body that a pointer could point into.
            raise TemplateNotFound(name, pointer=None) from None

    def counts(self) -> JobCounts:
        return self._store.counts()

    def workers(self) -> list[WorkerInfo]:
        return self._store.workers()

    def check_ready(self) -> None:
        """Raises Unavailable when the store, or every worker, is gone."""
        self._store.database.check_ready()
        if not any(worker.alive for worker in self._store.workers()):
            raise Unavailable("No worker is alive.")


def _take_lines(chunk: LogChunk, lines: list[LogLine], *, limit: int, last: int) -> int:
    """Append the chunk's lines until there are `limit`. Returns the number of the last line taken."""
    for seq, text in enumerate(chunk.texts(), chunk.first_seq):
        if len(lines) >= limit:
            return last
        lines.append(LogLine(seq, chunk.at, chunk.stream, text))
        last = seq
    return last


def _raw(chunk: LogChunk, seq: int, stream: Stream | None) -> Iterator[bytes]:
    """A chunk after line `seq`, with a note about dropped lines in between."""
    if chunk.first_seq > seq + 1:
        yield _gap(seq + 1, chunk.first_seq - 1)
    if stream is None or chunk.stream is stream:
        yield chunk.data


def _gap(first: int, last: int) -> bytes:
    return f"[runcast: lines {first} to {last} were dropped, the log was too long]\n".encode()


def _to_submission(body: Mapping[str, Json]) -> Submission:
    return Submission(
        type=JobType(body["type"]),
        params=body["params"],
        priority=body.get("priority", 0),
        queue=body.get("queue"),
        labels=tuple(body.get("labels", ())),
        timeout_seconds=body.get("timeout_seconds"),
        max_attempts=body.get("max_attempts", 1),
        concurrency_key=body.get("concurrency_key"),
    )


def _idempotency(key: str | None, body: Mapping[str, Json], caller: Caller) -> IdempotencyKey | None:
    if key is None:
        return None
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return IdempotencyKey(caller.name, key, hashlib.sha256(canonical.encode()).hexdigest())


def oldest_pending_seconds(counts: JobCounts) -> float | None:
    """How long the oldest pending job has waited."""
    return None if counts.oldest_pending_ms is None else max(0, now_ms() - counts.oldest_pending_ms) / 1000
