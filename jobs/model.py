"""The domain: what a job is, which states it has, and how it moves between them. Pure data; no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

Json = Any  # a value that JSON can carry

HEADER_WORD = re.compile(r"[!-~]+")
"""The characters of a token or an Idempotency-Key, as in `openapi/jobs.yaml`: every client can send them in a header."""

MARKER = "RUNCAST_JOB"
"""Environment variable that every process of a job carries; its value is `<job id>:<lease>`."""


class JobType(StrEnum):
    BUILD = "build"
    LAUNCH = "launch"
    CREATE = "create"
    TASK = "task"


class Status(StrEnum):
    PENDING = "pending"
    """Accepted and stored. A worker starts it when a slot and its concurrency key are free. After a crash it still waits."""
    RUNNING = "running"
    """A supervisor holds its lease, and ends it. If the supervisor dies, a worker ends what is left, and fails or requeues the job."""
    COMPLETED = "completed"
    """The command exited with 0, and no process of it is left. Final."""
    FAILED = "failed"
    """It ended otherwise; `reason` says how. Final."""
    CANCELLED = "cancelled"
    """A client or a stopping server ended it, and no process of it is left. Final."""


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PENDING}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""Status to the statuses that may follow it. `running → pending` is a new attempt after the supervisor was lost."""

ENDED: frozenset[Status] = frozenset(status for status, following in TRANSITIONS.items() if not following)


def sources(target: Status) -> frozenset[Status]:
    """The statuses from which `target` may be reached."""
    return frozenset(status for status, following in TRANSITIONS.items() if target in following)


class Reason(StrEnum):
    """Why a job ended as it did. Null for one that completed."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    START_ERROR = "start_error"
    WORKER_LOST = "worker_lost"
    CANCELLED_BY_CLIENT = "cancelled_by_client"
    SERVER_SHUTDOWN = "server_shutdown"


class WaitingFor(StrEnum):
    """What a pending job waits for."""

    SLOT = "slot"
    CONCURRENCY_KEY = "concurrency_key"
    WORKER = "worker"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class Scope(StrEnum):
    READ = "jobs:read"
    WRITE = "jobs:write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Progress:
    """How far a job is: `percent` from 0 to 100, null while nothing is known; `message` is what it is doing."""

    percent: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class LogStats:
    lines: int = 0
    bytes: int = 0
    dropped_lines: int = 0


@dataclass(frozen=True)
class Submission:
    """What a client asks for. Validated against the contract before it gets here."""

    type: JobType
    params: Mapping[str, Json]
    priority: int = 0
    queue: str | None = None
    labels: tuple[str, ...] = ()
    timeout_seconds: int | None = None
    max_attempts: int = 1
    concurrency_key: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Plain data for the store; `from_json` reads it."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, plain: Mapping[str, Json]) -> Submission:
        return cls(**{**plain, "type": JobType(plain["type"]), "labels": tuple(plain.get("labels", ()))})


@dataclass(frozen=True)
class Job:
    """A job as the store knows it. Times are Unix milliseconds, UTC."""

    id: str
    type: JobType
    params: Mapping[str, Json]
    status: Status
    reason: Reason | None
    error: str | None
    waiting_for: WaitingFor | None
    progress: Progress
    result: Mapping[str, Json] | None
    exit_code: int | None
    signal: str | None
    attempt: int
    max_attempts: int
    priority: int
    queue: str
    concurrency_key: str | None
    labels: tuple[str, ...]
    timeout_seconds: int | None
    project: str | None
    submitted_by: str
    retry_of: str | None
    created_at: int
    started_at: int | None
    ready_at: int | None
    ended_at: int | None
    cancel_requested_at: int | None
    cancel_forced: bool
    log: LogStats
    submission: Mapping[str, Json]

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def duration_seconds(self) -> float | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0, self.ended_at - self.started_at) / 1000


@dataclass(frozen=True)
class JobEvent:
    """One status change of a job and what caused it. `cursor` orders all events of a store."""

    cursor: int
    job_id: str
    at: int
    status: Status
    previous: Status | None
    reason: Reason | None
    attempt: int
    cause: str


@dataclass(frozen=True)
class LogChunk:
    """Consecutive lines of one stream. `data` holds them as the job wrote them, each with its line end but perhaps the last."""

    job_id: str
    first_seq: int
    lines: int
    at: int
    stream: Stream
    data: bytes

    @property
    def next_seq(self) -> int:
        return self.first_seq + self.lines

    def texts(self) -> list[str]:
        """The lines as text: without line ends, invalid UTF-8 replaced."""
        texts = self.data.decode("utf-8", "replace").split("\n")
        if len(texts) > self.lines:
            texts.pop()
        if b"\r" in self.data:
            return [text.removesuffix("\r") for text in texts]
        return texts


@dataclass(frozen=True)
class WorkerInfo:
    id: str
    host: str
    pid: int
    slots: int
    busy_slots: int
    queues: tuple[str, ...]
    started_at: int
    heartbeat_at: int
    alive: bool


@dataclass(frozen=True)
class Caller:
    """Who makes a call: the token's name, scopes and id, and when it expires (Unix milliseconds; None for never)."""

    name: str
    scopes: frozenset[Scope]
    token_id: str = ""
    expires_at: int | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes
