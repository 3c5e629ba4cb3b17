"""The domain as JSON for clients, by the schemas of `openapi/jobs.yaml`. Pure; no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from handlers.problems import job_problem
from jobs.clock import to_rfc3339
from jobs.model import Caller, Job, JobEvent, Json, Status, WorkerInfo
from jobs.recipes.expand import JobTypeInfo
from jobs.recipes.templates import Template, TemplateCatalog
from jobs.service import LogPage, oldest_pending_seconds
from jobs.store.listing import JobCounts
from jobs.store.tokens import Token


@dataclass(frozen=True)
class Answer:
    """The answer of an operation. `body` is JSON, unless `media_type` says that it is text or chunks of bytes."""

    body: Json | str | Iterator[bytes] = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass(frozen=True)
class Address:
    """How the client addressed the server: `host` with port, and the path prefix that a proxy removed."""

    host: str
    secure: bool
    prefix: str


def to_json(value: Json) -> str:
    """JSON with a line end, for people who call from a terminal."""
    return json.dumps(value) + "\n"


def _time(ms: int | None) -> str | None:
    return None if ms is None else to_rfc3339(ms)


def job_json(job: Job) -> dict[str, Json]:
    return {
        "id": job.id,
        "type": job.type,
        "params": job.params,
        "status": job.status,
        "reason": job.reason,
        "error": None if job.error is None else job_problem(job.error),
        "waiting_for": job.waiting_for,
        "progress": {"percent": job.progress.percent, "message": job.progress.message},
        "result": job.result,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "queue": job.queue,
        "concurrency_key": job.concurrency_key,
        "labels": list(job.labels),
        "timeout_seconds": job.timeout_seconds,
        "project": job.project,
        "submitted_by": job.submitted_by,
        "retry_of": job.retry_of,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "ready_at": _time(job.ready_at),
        "ended_at": _time(job.ended_at),
        "cancel_requested_at": _time(job.cancel_requested_at),
        "log": {"lines": job.log.lines, "bytes": job.log.bytes, "dropped_lines": job.log.dropped_lines},
    }


def event_json(event: JobEvent) -> dict[str, Json]:
    return {
        "at": _time(event.at),
        "status": event.status,
        "previous": event.previous,
        "reason": event.reason,
        "attempt": event.attempt,
        "cause": event.cause,
    }


def log_page_json(job_id: str, page: LogPage) -> dict[str, Json]:
    return {
        "job_id": job_id,
        "lines": [{"seq": line.seq, "at": _time(line.at), "stream": line.stream, "text": line.text} for line in page.lines],
        "next_seq": page.next_seq,
        "complete": page.complete,
        "dropped": None if page.dropped is None else {"first_seq": page.dropped[0], "last_seq": page.dropped[1]},
    }


def job_type_json(info: JobTypeInfo, schema: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "type": info.type,
        "task": info.task,
        "title": info.title,
        "description": info.description,
        "queue": info.queue,
        "schema": schema,
    }


def template_json(template: Template) -> dict[str, Json]:
    return {
        "name": template.name,
        "title": template.title,
        "kind": template.kind,
        "creatable": template.creatable,
        "description": template.description,
        "variables": dict(template.variables),
    }


def catalog_json(catalog: TemplateCatalog) -> dict[str, Json]:
    return {"templates": [template_json(template) for template in catalog.list()], "problems": list(catalog.problems)}


def counts_json(counts: JobCounts) -> dict[str, Json]:
    return {
        "by_status": dict(counts.by_status),
        "by_type": dict(counts.by_type),
        "queue_depth": counts.by_status[Status.PENDING],
        "oldest_pending_seconds": oldest_pending_seconds(counts),
    }


def worker_json(worker: WorkerInfo) -> dict[str, Json]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "busy_slots": worker.busy_slots,
        "queues": list(worker.queues),
        "started_at": _time(worker.started_at),
        "heartbeat_at": _time(worker.heartbeat_at),
        "alive": worker.alive,
    }


def caller_json(caller: Caller) -> dict[str, Json]:
    return {"name": caller.name, "scopes": sorted(caller.scopes), "expires_at": _time(caller.expires_at)}


def token_json(token: Token) -> dict[str, Json]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "created_at": _time(token.created_at),
        "expires_at": _time(token.expires_at),
    }
