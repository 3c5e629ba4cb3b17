"""WebSockets with a bounded cost: parts of simple-websocket and engineio, overridden for clients that read slowly or mean harm.

`handlers/server/app.py` puts SendAllLayer around Socket.IO, and `socketio_patches.py` puts WebSockets into it. Each class names the public
report of what it works around, or says that none was found. `tests/unit/test_patched_libraries.py` lists every private name that is used
here. This module knows no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socket import SHUT_RDWR
from typing import Any, NoReturn

import simple_websocket  # type: ignore[import-untyped]
from engineio.async_drivers.gevent import WebSocketWSGI
from gevent.lock import RLock

from handlers.web.wsgi import Wsgi

MAX_MESSAGE_BYTES = 1 << 20
SILENCE_TIMEOUT = "runcast.silent_seconds"
"""Key in the WSGI environment. A connection that neither takes nor gives anything for so many seconds is closed; Socket.IO's pings come
more often."""


class SendAllLayer:
    """A WSGI layer: gives WebSockets a socket whose `send` sends everything.

    simple-websocket 1.1 calls `send` once and ignores how much was sent, which cuts frames for a client that reads slowly; and it answers
    pings from another greenlet, which may fall into the middle of a frame. Both are reported in
    https://github.com/miguelgrinberg/simple-websocket/issues/45

    Compression is turned off, too: it costs 300 KB a client, and simple-websocket has no option for it (it was added in
    https://github.com/miguelgrinberg/simple-websocket/issues/11).
    """

    def __init__(self, inner: Wsgi, *, silent_seconds: float) -> None:
        self._inner = inner
        self._silent_seconds = silent_seconds

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "gunicorn.socket" in environ:
            environ["gunicorn.socket"] = SendAllSocket(environ["gunicorn.socket"])
        environ[SILENCE_TIMEOUT] = self._silent_seconds
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        return self._inner(environ, start_response)


class SendAllSocket:
    """A socket whose `send` sends everything, one caller at a time."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._lock = RLock()

    def send(self, data: bytes) -> int:
        with self._lock:
            try:
                self._socket.sendall(data)
            except TimeoutError:
                # Half a frame may have been sent, so nothing can follow it. The reading greenlet must learn of that, too.
                self._socket.shutdown(SHUT_RDWR)
                raise
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class WebSocket(simple_websocket.Server):  # type: ignore[misc]
    """Reads on only when the last message was taken, so that a client that sends faster than it is served does not fill the memory.

    simple-websocket 1.1 reads everything into a list without a limit (no public issue found). engineio 4.15 checks the size of a message
    when it has received all of it (https://github.com/miguelgrinberg/python-engineio/issues/260) and does not pass its limit on to
    simple-websocket, which has an option for it (https://github.com/miguelgrinberg/simple-websocket/issues/5): here it is set.
    """

    def __init__(self, environ: dict[str, Any], **options: Any) -> None:
        self._taken = options["event_class"]()
        environ["gunicorn.socket"].settimeout(environ[SILENCE_TIMEOUT])
        super().__init__(environ, max_message_size=MAX_MESSAGE_BYTES, **options)

    def receive(self, timeout: float | None = None) -> Any:
        message = super().receive(timeout)
        self._taken.set()
        return message

    def _handle_events(self) -> bool:
        goes_on: bool = super()._handle_events()
        while goes_on and self.connected and self.input_buffer:
            self._taken.wait(1.0)  # not without a limit: if the connection is closed meanwhile, nobody calls `receive` again
            self._taken.clear()
        return goes_on


class WebSockets(WebSocketWSGI):  # type: ignore[misc]
    """What engineio calls when a request becomes a WebSocket: as its own class does, but with the WebSocket above. engineio has no option
    for that (no public issue found)."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> NoReturn:
        self.ws = WebSocket(environ, **self.server_args)
        self.app(self)
        # As engineio's own class does: it tells gunicorn that there is no answer to send.
        # https://github.com/miguelgrinberg/flask-sock/pull/73 explains it.
        raise StopIteration
