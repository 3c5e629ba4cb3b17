"""Errors as problems (RFC 9457). One table says which error a client sees as which problem; nothing else decides it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from handlers import errors as request_errors
from jobs import errors
from jobs.errors import RuncastError
from jobs.model import Json

logger = logging.getLogger("runcast.api")

PREFIX = "urn:runcast:problem:"


@dataclass(frozen=True)
class Kind:
    """A kind of error: the last part of its URI, its title, and its HTTP status."""

    name: str
    title: str
    status: int


INTERNAL = Kind("internal-error", "Internal error", 500)
JOB_FAILED = Kind("job-failed", "Job failed", 500)

KINDS: Mapping[type[RuncastError], Kind] = {
    errors.JobNotFound: Kind("job-not-found", "Job not found", 404),
    errors.ProjectNotFound: Kind("project-not-found", "Project not found", 404),
    errors.TemplateNotFound: Kind("template-not-found", "Template not found", 404),
    errors.AppNotFound: Kind("app-not-found", "Application not found", 404),
    errors.TaskNotFound: Kind("task-not-found", "Task not found", 404),
    errors.TokenNotFound: Kind("token-not-found", "Token not found", 404),
    errors.JobEnded: Kind("job-ended", "Job has ended", 409),
    errors.JobActive: Kind("job-active", "Job is active", 409),
    errors.IdempotencyConflict: Kind("idempotency-conflict", "Idempotency conflict", 409),
    errors.ProjectExists: Kind("project-exists", "Project exists", 409),
    errors.TemplateNotCreatable: Kind("template-not-creatable", "Template not creatable", 409),
    errors.InputsRejected: Kind("inputs-rejected", "Inputs rejected", 409),
    errors.OutsideWorkspace: Kind("outside-workspace", "Outside of the workspace", 409),
    errors.TokenExists: Kind("token-exists", "Token exists", 409),
    errors.TokenProtected: Kind("token-protected", "Token protected", 409),
    errors.QueueFull: Kind("queue-full", "Queue full", 429),
    errors.QuotaExceeded: Kind("quota-exceeded", "Quota exceeded", 429),
    request_errors.RateLimited: Kind("rate-limited", "Rate limited", 429),
    request_errors.InvalidRequest: Kind("invalid-request", "Invalid request", 400),
    errors.Unauthenticated: Kind("unauthenticated", "Unauthenticated", 401),
    request_errors.Forbidden: Kind("forbidden", "Forbidden", 403),
    request_errors.OriginRefused: Kind("origin-refused", "Origin refused", 403),
    request_errors.AddressNotFound: Kind("not-found", "Not found", 404),
    request_errors.MethodNotAllowed: Kind("method-not-allowed", "Method not allowed", 405),
    request_errors.NotAcceptable: Kind("not-acceptable", "Not acceptable", 406),
    request_errors.TooSlow: Kind("too-slow", "Request too slow", 408),
    request_errors.TooLarge: Kind("too-large", "Request too large", 413),
    request_errors.UnsupportedMediaType: Kind("unsupported-media-type", "Unsupported media type", 415),
    errors.Unavailable: Kind("unavailable", "Service unavailable", 503),
}

PROBLEM_TYPES = frozenset(PREFIX + kind.name for kind in (*KINDS.values(), INTERNAL, JOB_FAILED))


def kind_of(error: Exception) -> Kind:
    """The table's entry for the error's class or its nearest parent class. Any other error is an error of the server."""
    for parent in type(error).__mro__:
        if parent in KINDS:
            return KINDS[parent]
    return INTERNAL


def problem(error: Exception) -> dict[str, Json]:
    """The error as a problem. The text of an unexpected error goes to the server's log only."""
    kind = kind_of(error)
    if kind is INTERNAL:
        logger.error("Unexpected error.", exc_info=error)
        return _problem(kind, "Something went wrong in the server; its log has the details.")
    answer = _problem(kind, str(error)[:4000])
    if isinstance(error, RuncastError) and error.violations:
        answer["errors"] = [
            {"in": violation.location, "pointer": violation.pointer[:1000], "detail": violation.detail[:1000]}
            for violation in error.violations[:100]
        ]
    return answer


def job_problem(detail: str) -> dict[str, Json]:
    """The problem of a failed job. `detail` is what the store keeps of it."""
    return _problem(JOB_FAILED, detail)


def _problem(kind: Kind, detail: str) -> dict[str, Json]:
    return {"type": PREFIX + kind.name, "title": kind.title, "status": kind.status, "detail": detail}


def headers(error: Exception) -> dict[str, str]:
    """The header fields that an answer with this error carries."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="runcast"'}
    if isinstance(error, errors.TooMuch | errors.Unavailable):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, request_errors.MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    return {}
