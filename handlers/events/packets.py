"""Checks the Engine.IO packets that clients send, before engineio sees them. A packet that engineio cannot decode is replaced by one that
is answered as malformed.

This module knows no event, and does not look into a packet.

The reasons, in engineio 4.15: over a WebSocket, an exception while it decodes a packet leaves the connection half open
(https://github.com/miguelgrinberg/python-engineio/issues/328 reports sockets that are never released after errors). In a long-polling
request, a packet that cannot be decoded discards all packets that were posted with it
(https://github.com/miguelgrinberg/Flask-SocketIO/issues/579), and one of a type that only a server may send closes the connection and
blocks the request until the client has read that (https://github.com/miguelgrinberg/python-engineio/pull/60).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from handlers.errors import TooLarge
from handlers.web.wsgi import Refuse, Wsgi

MALFORMED = "4 "
"""An Engine.IO message that holds no Socket.IO packet."""
CLIENT_TYPES = ("1", "3", "4", "5")
"""Close, pong, message, upgrade. The other types are for servers to send."""
PROBE = "2probe"
"""A ping that tests a WebSocket before it replaces long polling."""
SEPARATOR = b"\x1e"


def checked(packet: str) -> str:
    """The packet that came over a WebSocket, or MALFORMED."""
    return packet if packet[:1] in CLIENT_TYPES or packet == PROBE else MALFORMED


class PostedPackets:
    """A WSGI layer: checks the packets that long-polling clients post to `path`, in bodies of at most `most` bytes."""

    def __init__(self, inner: Wsgi, *, path: str, most: int, refuse: Refuse) -> None:
        self._inner = inner
        self._path = path
        self._most = most
        self._refuse = refuse

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST" or not environ["PATH_INFO"].startswith(self._path):
            return self._inner(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = _checked_body(environ["wsgi.input"].read(length)) if length <= self._most else b""
        if max(length, len(body)) > self._most:
            return self._refuse(TooLarge(f"The body is larger than {self._most} bytes."), start_response)
        return self._inner({**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}, start_response)


def _checked_body(body: bytes) -> bytes:
    return SEPARATOR.join(_checked_bytes(packet) for packet in body.split(SEPARATOR))


def _checked_bytes(packet: bytes) -> bytes:
    try:
        text = packet.decode("utf-8")
        if text[:1] == "b":
            base64.b64decode(text[1:])
            return packet
    except ValueError:
        return MALFORMED.encode()
    return packet if text[:1] in CLIENT_TYPES else MALFORMED.encode()
