"""Rows of the tables as the domain's dataclasses."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from jobs.model import Job, JobEvent, JobType, LogStats, Progress, Reason, Status, WaitingFor, WorkerInfo
from jobs.store.scheduling import WORKER_ALIVE_MS, queue_names


def to_job(row: Row[Any], waiting_for: WaitingFor | None) -> Job:
    """A row of `jobs`, as the domain knows it."""
    dropped = row.dropped_last - row.dropped_first + 1 if row.dropped_first is not None else 0
    return Job(
        id=row.id,
        type=JobType(row.type),
        params=row.submission["params"],
        status=Status(row.status),
        reason=row.reason and Reason(row.reason),
        error=row.error and row.error["detail"],
        waiting_for=waiting_for,
        progress=Progress(row.progress_percent, row.progress_message),
        result=row.result,
        exit_code=row.exit_code,
        signal=row.signal,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        priority=row.priority,
        queue=row.queue,
        concurrency_key=row.concurrency_key,
        labels=tuple(row.labels),
        timeout_seconds=row.timeout_seconds,
        project=row.project,
        submitted_by=row.submitted_by,
        retry_of=row.retry_of,
        created_at=row.created_at,
        started_at=row.started_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        cancel_requested_at=row.cancel_requested_at,
        cancel_forced=row.cancel_forced,
        log=LogStats(lines=row.log_lines, bytes=row.log_bytes, dropped_lines=dropped),
        submission=row.submission,
    )


def to_event(row: Row[Any]) -> JobEvent:
    """A row of `job_events`."""
    return JobEvent(
        cursor=row.cursor,
        job_id=row.job_id,
        at=row.at,
        status=Status(row.status),
        previous=row.previous and Status(row.previous),
        reason=row.reason and Reason(row.reason),
        attempt=row.attempt,
        cause=row.cause,
    )


def to_worker(row: Row[Any], now: int) -> WorkerInfo:
    """A row of `workers` with `busy_slots`; `now` is in Unix milliseconds."""
    return WorkerInfo(
        id=row.id,
        host=row.host,
        pid=row.pid,
        slots=row.slots,
        busy_slots=row.busy_slots,
        queues=tuple(queue_names(row.queues)),
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        # A sign from the future is one from before the clock was set back.
        alive=abs(now - row.heartbeat_at) < WORKER_ALIVE_MS,
    )
