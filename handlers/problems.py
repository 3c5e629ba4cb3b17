"""Core errors as problems (RFC 9457): one table, and nothing decided anywhere else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

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
    errors.RateLimited: Kind("rate-limited", "Rate limited", 429),
    errors.InvalidRequest: Kind("invalid-request", "Invalid request", 400),
    errors.Unauthenticated: Kind("unauthenticated", "Unauthenticated", 401),
    errors.Forbidden: Kind("forbidden", "Forbidden", 403),
    errors.OriginRefused: Kind("origin-refused", "Origin refused", 403),
    errors.AddressNotFound: Kind("not-found", "Not found", 404),
    errors.MethodNotAllowed: Kind("method-not-allowed", "Method not allowed", 405),
    errors.NotAcceptable: Kind("not-acceptable", "Not acceptable", 406),
    errors.TooSlow: Kind("too-slow", "Request too slow", 408),
    errors.TooLarge: Kind("too-large", "Request too large", 413),
    errors.UnsupportedMediaType: Kind("unsupported-media-type", "Unsupported media type", 415),
    errors.Unavailable: Kind("unavailable", "Service unavailable", 503),
}

PROBLEM_TYPES = frozenset(PREFIX + kind.name for kind in (*KINDS.values(), INTERNAL, JOB_FAILED))


def kind_of(error: Exception) -> Kind:
    """The table's entry for the error's class, or for the nearest class above it; anything else is an error of the server."""
    for parent in type(error).__mro__:
        if parent in KINDS:
            return KINDS[parent]
    return INTERNAL


def problem(error: Exception) -> dict[str, Json]:
    """The error as a problem. What an unforeseen error says stays in the server's log."""
    kind = kind_of(error)
    if kind is INTERNAL:
        logger.error("Unforeseen error.", exc_info=error)
        return _problem(kind, "Something went wrong in the server; its log says what.")
    answer = _problem(kind, str(error)[:4000])
    if isinstance(error, RuncastError) and error.violations:
        answer["errors"] = [
            {"in": one.location, "pointer": one.pointer[:1000], "detail": one.detail[:1000]} for one in error.violations[:100]
        ]
    return answer


def _problem(kind: Kind, detail: str) -> dict[str, Json]:
    return {"type": PREFIX + kind.name, "title": kind.title, "status": kind.status, "detail": detail}


def headers(error: Exception) -> dict[str, str]:
    """The header fields that belong to the error."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="runcast"'}
    if isinstance(error, errors.TooMuch):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.Unavailable):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    return {}
