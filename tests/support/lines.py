"""Socket.IO by hand over either transport: whatever frame a test sends, and every packet that comes back."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol, Self

import requests
import websocket

from support.server import RunningServer

Frame = str | bytes
SEPARATOR = "\x1e"
CLOSE, PING, PONG, MESSAGE = "1", "2", "3", "4"


class Closed(Exception):
    """The server has ended the connection."""


class Refused(Exception):
    """The server has not taken a body, and not ended the connection either."""


class Line(Protocol):
    """One connection, not yet connected to the namespace."""

    def send(self, frame: Frame) -> None:
        """Raises Closed and Refused."""

    def receive(self) -> list[str]:
        """The next packets, at least one. Raises Closed."""

    def close(self) -> None: ...


class WebSocketLine:
    def __init__(self, server: RunningServer) -> None:
        url = server.url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
        self._connection = websocket.create_connection(url, timeout=20, skip_utf8_validation=True)
        self._connection.recv()

    def send(self, frame: Frame) -> None:
        try:
            if isinstance(frame, str):
                self._connection.send(frame)
            else:
                self._connection.send_binary(frame)
        except (OSError, websocket.WebSocketException) as error:
            raise Closed from error

    def receive(self) -> list[str]:
        try:
            text = self._connection.recv()
        except (OSError, websocket.WebSocketException) as error:
            raise Closed from error
        if not isinstance(text, str) or not text:
            raise Closed
        if text == PING:
            self.send(PONG)
        return [text]

    def close(self) -> None:
        self._connection.close(timeout=0)
        self._connection.shutdown()  # type: ignore[no-untyped-call]  # also when it is broken


class PollingLine:
    def __init__(self, server: RunningServer) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        self._url += "&sid=" + json.loads(self._session.get(self._url, timeout=20).text[1:])["sid"]

    def send(self, frame: Frame) -> None:
        body = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else b"b" + base64.b64encode(frame)
        status = self._session.post(self._url, data=body, timeout=20).status_code
        if status != 200:
            raise Closed if status == 400 else Refused(status)

    def receive(self) -> list[str]:
        answer = self._session.get(self._url, timeout=40)
        if answer.status_code != 200:
            raise Closed
        packets = answer.content.decode("utf-8").split(SEPARATOR)
        if PING in packets:
            self.send(PONG)
        return packets

    def close(self) -> None:
        with self._session:
            self._session.post(self._url, data=CLOSE, timeout=20)


def next_messages(line: Line) -> list[str]:
    """What comes next of Socket.IO's own, at least one packet. Raises Closed."""
    while not (packets := [packet for packet in line.receive() if packet[:1] == MESSAGE]):
        pass
    return packets


LINES: dict[str, type[WebSocketLine] | type[PollingLine]] = {"websocket": WebSocketLine, "polling": PollingLine}


class Conversation:
    """A connection of a client with a right token. `say` sends frames, and gives all that comes back until the server has answered what
    was sent after them."""

    def __init__(self, server: RunningServer, transport: str, *, auth: Any = None) -> None:
        self.line: Line = LINES[transport](server)
        self._asked = 10**12
        self._pending: list[str] = []
        self.line.send(f"{MESSAGE}0{json.dumps({'token': server.token} if auth is None else auth)}")
        self.greeting = self._next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def say(self, *frames: Frame) -> list[str]:
        """Raises Closed."""
        self._asked += 1
        for frame in frames:
            self.line.send(frame)
        self.line.send(f'{MESSAGE}2{self._asked}["unsubscribe",{{"job_id":"019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"}}]')
        heard: list[str] = []
        while not (packet := self._next()).startswith(f"{MESSAGE}3{self._asked}["):
            heard.append(packet)
        return heard

    def _next(self) -> str:
        self._pending = self._pending or next_messages(self.line)
        return self._pending.pop(0)
