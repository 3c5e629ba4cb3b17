"""WebSockets that cost what they should: the three libraries beneath, with what they lack for clients that mean no good, or read slowly.

Knows no event and no client; `app.py` puts it around Socket.IO, `engine.py` and `socket_server.py` into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socket import SHUT_RDWR
from typing import Any, NoReturn

import simple_websocket  # type: ignore[import-untyped]
from engineio.async_drivers.gevent import WebSocketWSGI
from gevent.lock import RLock

from handlers.web.wsgi import Wsgi

MESSAGE_BYTES = 1 << 20
SILENT = "runcast.silent_seconds"
"""A connection that neither takes nor gives anything for so long is closed; Socket.IO's pings come more often."""


class SendAllLayer:
    """Gives WebSockets a socket whose `send` sends everything.

    simple-websocket 1.1 calls `send` once and ignores how much was sent, which cuts frames for a client that reads slowly; and it
    answers pings from another greenlet, which may fall into the middle of one. Compression is turned off with it: it would cost 300 KB a
    client.
    """

    def __init__(self, inner: Wsgi, *, silent_seconds: float) -> None:
        self._inner = inner
        self._silent_seconds = silent_seconds

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "gunicorn.socket" in environ:
            environ["gunicorn.socket"] = SendAllSocket(environ["gunicorn.socket"])
        environ[SILENT] = self._silent_seconds
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        return self._inner(environ, start_response)


class SendAllSocket:
    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._lock = RLock()

    def send(self, data: bytes) -> int:
        with self._lock:
            try:
                self._socket.sendall(data)
            except TimeoutError:
                # Half a frame may be out, so nothing can follow it; and whoever reads has to learn of it, too.
                self._socket.shutdown(SHUT_RDWR)
                raise
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class WebSocket(simple_websocket.Server):  # type: ignore[misc]
    """Reads on only when what was read has been taken, so that a client which sends faster than it is served fills no memory of ours.

    engineio 4.15 looks at the size of a message when it has all of it; here it is cut off while it comes.
    """

    def __init__(self, environ: dict[str, Any], **options: Any) -> None:
        self._taken = options["event_class"]()
        environ["gunicorn.socket"].settimeout(environ[SILENT])
        super().__init__(environ, max_message_size=MESSAGE_BYTES, **options)

    def receive(self, timeout: float | None = None) -> Any:
        message = super().receive(timeout)
        self._taken.set()
        return message

    def _handle_events(self) -> bool:
        goes_on: bool = super()._handle_events()
        while goes_on and self.connected and self.input_buffer:
            self._taken.wait(1.0)  # for ever would be too long: when the connection is closed meanwhile, nobody takes any more
            self._taken.clear()
        return goes_on


class WebSockets(WebSocketWSGI):  # type: ignore[misc]
    """What engineio calls for a request to become a WebSocket."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> NoReturn:
        self.ws = WebSocket(environ, **self.server_args)
        self.app(self)
        raise StopIteration  # as its own does: gunicorn then knows that there is no answer to send
