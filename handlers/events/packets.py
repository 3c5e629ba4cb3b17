"""What clients send over Socket.IO, before the library sees it: a packet that it cannot take becomes one that is answered as malformed.

engineio 4.15 passes over such packets, drops all that was posted together with one, or closes the connection and holds the request until
the client has read that. Knows no event, and nothing of what is in a packet.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from handlers.web.wsgi import Refuse, Wsgi
from jobs.errors import TooLarge

MALFORMED = "4 "
"""A message in which Socket.IO finds no packet."""
FROM_CLIENTS = ("1", "3", "4", "5")
"""Close, pong, message, upgrade. The others are the server's."""
PROBE = "2probe"
SEPARATOR = b"\x1e"


def passed(packet: str) -> str:
    """What came over a WebSocket, if the library can take it; the probe is for one that takes a long-polling connection over."""
    return packet if packet[:1] in FROM_CLIENTS or packet == PROBE else MALFORMED


class PostedPackets:
    """Around the application: looks through what long-polling clients post to `path`."""

    def __init__(self, inner: Wsgi, *, path: str, most: int, refuse: Refuse) -> None:
        self._inner = inner
        self._path = path
        self._most = most
        self._refuse = refuse

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST" or not environ["PATH_INFO"].startswith(self._path):
            return self._inner(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = _looked_through(environ["wsgi.input"].read(length)) if length <= self._most else b""
        if max(length, len(body)) > self._most:
            return self._refuse(TooLarge(f"The body is larger than {self._most} bytes."), start_response)
        return self._inner({**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}, start_response)


def _looked_through(body: bytes) -> bytes:
    return SEPARATOR.join(_posted(packet) for packet in body.split(SEPARATOR))


def _posted(packet: bytes) -> bytes:
    try:
        text = packet.decode("utf-8")
        if text[:1] == "b":
            base64.b64decode(text[1:])
            return packet
    except ValueError:
        return MALFORMED.encode()
    return packet if text[:1] in FROM_CLIENTS else MALFORMED.encode()
