"""Operations that read the log and the history of a job."""

from __future__ import annotations

from handlers.errors import NotAcceptable
from handlers.representations import Answer, event_json, log_page_json
from jobs.model import Stream
from jobs.service import Service

JSON, TEXT = "application/json", "text/plain"


def get_job_log(
    service: Service,
    *,
    job_id: str,
    accept: str | None,
    limit: int,
    follow: bool,
    after_seq: int = 0,
    tail: int | None = None,
    stream: str | None = None,
) -> Answer:
    """`accept` is the media type that the client prefers; None when it accepts neither. Raises NotAcceptable."""
    if accept is None:
        raise NotAcceptable(f"Available media types: {JSON}, {TEXT}.")
    only = None if stream is None else Stream(stream)
    if accept == TEXT:
        raw = service.raw_log(job_id, after_seq=after_seq, tail=tail, stream=only, follow=follow)
        return Answer(raw, headers={"Content-Disposition": f'attachment; filename="{job_id}.log"'}, media_type=TEXT)
    page = service.log_page(job_id, after_seq=after_seq, limit=limit, tail=tail, stream=only)
    return Answer(log_page_json(job_id, page))


def list_job_events(service: Service, *, job_id: str) -> Answer:
    return Answer({"job_id": job_id, "events": [event_json(event) for event in service.history(job_id)]})
