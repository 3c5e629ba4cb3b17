"""WSGI layers around HTTP and Socket.IO alike: the check of host and origin, and the security headers of every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from handlers.access.auth import HostCheck
from handlers.errors import InvalidRequest
from handlers.problems import INTERNAL, PREFIX, kind_of, problem
from handlers.representations import to_json
from handlers.web.wsgi import Wsgi
from jobs.errors import RuncastError

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For pages: scripts, styles and connections of this server only. The small pictures in Swagger UI's style sheet are `data:` URLs."""

DATA_SECURITY_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""For all other answers: a browser that shows one runs nothing that a job may have written into it."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), serial=(), usb=()",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself, including refusals and the answers of the Socket.IO library."""


class HostCheckLayer:
    """Refuses requests that the host check does not accept."""

    def __init__(self, inner: Wsgi, host_check: HostCheck) -> None:
        self._inner = inner
        self._host_check = host_check

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            self._host_check.check(host=environ.get("HTTP_HOST"), origin=environ.get("HTTP_ORIGIN"))
        except RuncastError as error:
            return refuse(error, start_response)
        return self._inner(environ, start_response)


class SecurityHeaders:
    """Adds the security headers to every answer."""

    def __init__(self, inner: Wsgi) -> None:
        self._inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            given = {name.lower(): value for name, value in headers}
            data = given.get("content-type", "").startswith(("application/json", "application/problem+json", "text/plain"))
            policy = DATA_SECURITY_POLICY if data else CONTENT_SECURITY_POLICY
            wanted = {**SECURITY_HEADERS, "Content-Security-Policy": policy}
            missing = [(name, value) for name, value in wanted.items() if name.lower() not in given]
            return start_response(status, [*headers, *missing], *more)

        return self._inner(environ, start)


def malformed_request_answer(status: int, reason: str, detail: str) -> bytes:
    """The whole answer to data that is not an HTTP request, and never reaches the application: a problem, after which gunicorn closes the
    connection."""
    kind = INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else kind_of(InvalidRequest(""))
    phrase = HTTPStatus(status).phrase  # gunicorn says "Bad Request" for some other statuses, too
    body = to_json({"type": PREFIX + kind.name, "title": kind.title, "status": status, "detail": detail[:4000] or reason}).encode()
    headers = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Content-Security-Policy": DATA_SECURITY_POLICY,
        **SECURITY_HEADERS,
    }
    head = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def refuse(error: RuncastError, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with a problem in a layer outside of Flask."""
    status, body = HTTPStatus(kind_of(error).status), to_json(problem(error)).encode()
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))])
    return [body]
