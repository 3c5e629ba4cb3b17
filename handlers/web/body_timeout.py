"""Bodies of requests: a client has a while to send one, and no longer. Knows WSGI, gunicorn and gevent, and no call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import SHUT_RD
from typing import Any

import gevent
from gunicorn.http.errors import NoMoreData, ParseException

from handlers.errors import InvalidRequest, TooSlow
from handlers.web.wsgi import Refuse, Wsgi

BODY_BYTES = 1 << 20
"""No body may be larger, nor what a client sends as one event."""


class TimedBodies:
    """Gives every request a body that raises TooSlow when it has not come within `seconds`, and InvalidRequest when it is none; that is
    answered here, whoever read it.

    gunicorn's gevent worker waits for ever, so that a client which sends a byte now and then would hold a connection as long as it likes.
    """

    def __init__(self, inner: Wsgi, *, seconds: float, refuse: Refuse) -> None:
        self._inner = inner
        self._seconds = seconds
        self._refuse = refuse

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"] = TimedBody(environ["wsgi.input"], environ.get("gunicorn.socket"), seconds=self._seconds)
        try:
            return self._inner(environ, start_response)
        except InvalidRequest as error:
            return self._refuse(error, start_response)


class TimedBody:
    """The time runs from the first read."""

    def __init__(self, body: Any, socket: Any, *, seconds: float) -> None:
        self._body = body
        self._socket = socket
        self._seconds = seconds
        self._deadline = 0.0

    def read(self, size: int | None = None) -> bytes:
        return self._within_time(lambda: self._body.read(size))

    def readline(self, size: int | None = None) -> bytes:
        return self._within_time(lambda: self._body.readline(size))

    def readlines(self, hint: int | None = None) -> list[bytes]:
        return self.read().splitlines(keepends=True)

    def __iter__(self) -> Any:
        return iter(self.readlines())

    def _within_time(self, work: Callable[[], bytes]) -> bytes:
        now = time.monotonic()
        self._deadline = self._deadline or now + self._seconds
        timeout = gevent.Timeout(max(0.0, self._deadline - now))
        try:
            with timeout:
                return work()
        except gevent.Timeout as raised:
            if raised is not timeout:
                raise
            # What may still come is not waited for: to gunicorn, which reads bodies to their end, the client has sent its last.
            with suppress(OSError):
                self._socket.shutdown(SHUT_RD)
            raise TooSlow(f"The body did not come within {self._seconds:g} seconds.") from None
        except (ParseException, NoMoreData) as error:  # in chunks; gunicorn ends the connection after the answer
            raise InvalidRequest(f"The body is not what HTTP allows: {error}.") from error
