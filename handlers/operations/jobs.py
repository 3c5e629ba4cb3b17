"""Operations that submit, show, list and end jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from handlers.errors import InvalidRequest
from handlers.representations import Answer, job_json
from jobs.clock import from_rfc3339
from jobs.errors import Violation
from jobs.model import Caller, Job, Json
from jobs.service import Service
from jobs.store.listing import JobFilter


def submit_job(service: Service, *, caller: Caller, body: Json, idempotency_key: str | None = None) -> Answer:
    submitted = service.submit(body, caller=caller, idempotency_key=idempotency_key)
    headers = {"Location": _location(submitted.job)}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Answer(job_json(submitted.job), 202, headers)


def list_jobs(
    service: Service,
    *,
    limit: int,
    status: Sequence[str] = (),
    type: Sequence[str] = (),
    project: str | None = None,
    label: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    cursor: str | None = None,
) -> Answer:
    wanted = JobFilter(status, type, project, label, _moment("since", since), _moment("until", until))
    page = service.list_jobs(wanted, limit=limit, cursor=cursor and cursor.lower())
    return Answer({"jobs": [job_json(job) for job in page.jobs], "next_cursor": page.next_cursor})


def get_job(service: Service, *, job_id: str, wait: int, if_none_match: str | None = None) -> Answer:
    job = job_json(service.get(job_id, wait=wait))
    tag = f'"{hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]}"'
    if if_none_match is not None and (if_none_match.strip() == "*" or tag in if_none_match):
        return Answer(None, 304, {"ETag": tag})
    return Answer(job, headers={"ETag": tag})


def cancel_job(service: Service, *, caller: Caller, job_id: str, body: Json = None) -> Answer:
    force = bool((body or {}).get("force", False))
    return Answer(job_json(service.cancel(job_id, caller=caller, force=force)), 202)


def retry_job(service: Service, *, caller: Caller, job_id: str) -> Answer:
    job = service.retry(job_id, caller=caller)
    return Answer(job_json(job), 202, {"Location": _location(job)})


def delete_job(service: Service, *, caller: Caller, job_id: str) -> Answer:
    service.delete(job_id, caller=caller)
    return Answer(None, 204)


def _location(job: Job) -> str:
    return f"/api/jobs/{job.id}"


def _moment(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else from_rfc3339(text)
    except ValueError:
        violation = Violation("query", name, "is not a valid date and time")
        raise InvalidRequest(f"{name} is not a valid date and time.", violations=[violation]) from None
