"""What stands before HTTP and Socket.IO alike: who may come in at all, and what every answer carries. Plain WSGI."""

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
"""Scripts, styles and connections of our own only. The small pictures in Swagger UI's style sheet are `data:` addresses."""

DATA_SECURITY_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""Of answers that are no pages: whatever a job wrote into them, a browser that shows one runs nothing of it."""

HARDENING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), serial=(), usb=()",
    "Cache-Control": "no-store",
}
"""What every answer carries unless it says otherwise: also a refusal at the gate, and what the library tells Socket.IO clients."""


class HostCheckLayer:
    """Stands before HTTP and Socket.IO alike."""

    def __init__(self, inner: Wsgi, gate: HostCheck) -> None:
        self._inner = inner
        self._gate = gate

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            self._gate.check(host=environ.get("HTTP_HOST"), origin=environ.get("HTTP_ORIGIN"))
        except RuncastError as error:
            return refuse(error, start_response)
        return self._inner(environ, start_response)


class SecurityHeaders:
    """Adds what every answer carries."""

    def __init__(self, inner: Wsgi) -> None:
        self._inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            given = {name.lower(): value for name, value in headers}
            data = given.get("content-type", "").startswith(("application/json", "application/problem+json", "text/plain"))
            policy = DATA_SECURITY_POLICY if data else CONTENT_SECURITY_POLICY
            wanted = {**HARDENING, "Content-Security-Policy": policy}
            missing = [(name, value) for name, value in wanted.items() if name.lower() not in given]
            return start_response(status, [*headers, *missing], *more)

        return self._inner(environ, start)


def answer_nonsense(status: int, reason: str, detail: str) -> bytes:
    """All that is said to what is no request, and so comes no further: a problem like any other, and the end of the connection."""
    kind = INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else kind_of(InvalidRequest(""))
    phrase = HTTPStatus(status).phrase  # the library says "Bad Request" of some others, too
    body = to_json({"type": PREFIX + kind.name, "title": kind.title, "status": status, "detail": detail[:4000] or reason}).encode()
    headers = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Content-Security-Policy": DATA_SECURITY_POLICY,
        **HARDENING,
    }
    head = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def refuse(error: RuncastError, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with a problem, where Flask is not there to do it."""
    status, body = HTTPStatus(kind_of(error).status), to_json(problem(error)).encode()
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))])
    return [body]
