"""A time limit for the bodies of requests. Knows WSGI, gunicorn and gevent, and no operation."""

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
"""The largest body, and the largest event from a client."""


class TimedBodies:
    """A WSGI layer that gives every request a TimedBody, and answers the errors that reading it raises.

    gunicorn's gevent worker waits without a limit, so that a client that sends a byte now and then could hold a connection for ever.
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
    """A body that raises TooSlow when it has not arrived within `seconds` of the first read, and InvalidRequest when it is malformed."""

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
            # gunicorn reads every body to its end after the answer. Now it finds the end at once.
            with suppress(OSError):
                self._socket.shutdown(SHUT_RD)
            raise TooSlow(f"The body did not arrive within {self._seconds:g} seconds.") from None
        except (ParseException, NoMoreData) as error:  # gunicorn closes the connection after the answer
            raise InvalidRequest(f"The body is malformed: {error}.") from error
