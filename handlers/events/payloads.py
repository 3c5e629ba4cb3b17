"""The payloads of events: one function an event, from the core's objects to JSON as `openapi/jobs.asyncapi.yaml` describes it.

This module knows no client and no connection. How an event is encoded is decided elsewhere; here is only the type of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jobs.clock import now_ms, to_rfc3339
from jobs.model import Job, JobEvent, Json, LogChunk, Progress


class Packet(Protocol):
    """An event, encoded once for all clients."""

    @property
    def size(self) -> int:
        """What it costs to hold it and to send it, in bytes."""


Encode = Callable[[str, Json], Packet]
"""Makes a packet of an event's name and payload."""


def status_payload(event: JobEvent) -> dict[str, Json]:
    return {
        "job_id": event.job_id,
        "status": event.status,
        "previous": event.previous,
        "reason": event.reason,
        "at": to_rfc3339(event.at),
    }


def progress_payload(job_id: str, progress: Progress) -> dict[str, Json]:
    return {"job_id": job_id, "percent": progress.percent, "message": progress.message, "at": to_rfc3339(now_ms())}


def log_payload(chunk: LogChunk) -> dict[str, Json]:
    return {
        "job_id": chunk.job_id,
        "first_seq": chunk.first_seq,
        "at": to_rfc3339(chunk.at),
        "stream": chunk.stream,
        "lines": chunk.texts(),
    }


def complete_payload(job: Job) -> dict[str, Json]:
    return {
        "job_id": job.id,
        "status": job.status,
        "reason": job.reason,
        "exit_code": job.exit_code,
        "duration_seconds": job.duration_seconds,
        "log_lines": job.log.lines,
        "result": job.result,
    }
