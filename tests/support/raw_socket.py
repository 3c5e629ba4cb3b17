"""A Socket.IO client by hand, on a bare WebSocket: it reads only when it is told to, and sends what no library would."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import websocket

from support.server import RunningServer

OPEN, PING, PONG, MESSAGE = "0", "2", "3", "4"
CONNECT, EVENT, ACK, CONNECT_ERROR = "0", "2", "3", "4"


class RawSocket:
    """One connection. `receive` gives what comes next: `("log", payload)`, `("ack", answer)` or `("refused", payload)`."""

    def __init__(self, connection: websocket.WebSocket) -> None:
        self._connection = connection
        self._packets = 0
        self.refusal: Any = None
        """What the connection was refused with, if it was."""

    def send(self, event: str, *arguments: Any) -> None:
        """An event that asks for an acknowledgement."""
        self._packets += 1
        self.send_text(f"{MESSAGE}{EVENT}{self._packets}{json.dumps([event, *arguments])}")

    def send_text(self, text: str) -> None:
        self._connection.send(text)

    def cut(self) -> None:
        """Break the connection without a goodbye."""
        assert self._connection.sock is not None
        self._connection.sock.close()
        self._connection.connected = False

    def hang_up(self) -> None:
        """Break the connection from another thread than the one that receives, which learns of it at once."""
        if self._connection.sock is not None:
            with suppress(OSError):  # it is broken already
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def subscribe(self, job_id: str, after_seq: int = 0) -> None:
        """Without waiting for the acknowledgement: nothing is read here."""
        self.send("subscribe", {"job_id": job_id, "after_seq": after_seq})

    def receive(self) -> tuple[str, Any]:
        while True:
            text = self._connection.recv()
            assert isinstance(text, str), "the connection was closed"
            if text == PING:
                self.send_text(PONG)
            elif text[:2] == MESSAGE + EVENT:
                event, payload = json.loads(text[2:])
                return event, payload
            elif text[:2] == MESSAGE + ACK:
                return "ack", json.loads(text[text.index("[") :])
            elif text[:2] == MESSAGE + CONNECT_ERROR:
                return "refused", json.loads(text[2:])

    def wait(self, wanted: str) -> Any:
        """The payload of the next event of that name; those before it are dropped."""
        while True:
            event, payload = self.receive()
            if event == wanted:
                return payload

    def log(self, job_id: str, *, after_seq: int = 0) -> Iterator[dict[str, Any]]:
        """The job's `log` events until it is complete; fails on a gap, a repeat or a wrong order."""
        seq = after_seq
        while True:
            event, payload = self.receive()
            if event == "complete" and payload["job_id"] == job_id:
                assert seq == payload["log_lines"], "complete came before the end of the log"
                return
            if event == "log" and payload["job_id"] == job_id:
                assert payload["first_seq"] == seq + 1, "a gap or a repeat in the log"
                seq += len(payload["lines"])
                yield payload


@contextmanager
def raw_socket(server: RunningServer, *, auth: Any = None, query: str = "") -> Iterator[RawSocket]:
    """Connected, with the admin's token unless `auth` says what to send instead; `query` is added to the address."""
    url = server.url.replace("http://", "ws://") + f"/socket.io/?EIO=4&transport=websocket{query}"
    # Small, so that little of what is not read is kept by the system.
    connection = websocket.create_connection(
        url, timeout=60, skip_utf8_validation=True, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)]
    )
    try:
        assert str(connection.recv()).startswith(OPEN)
        connection.send(f"{MESSAGE}{CONNECT}{json.dumps({'token': server.token} if auth is None else auth)}")
        answer = str(connection.recv())
        assert answer.startswith(MESSAGE + CONNECT) or auth is not None, answer
        opened = RawSocket(connection)
        if answer.startswith(MESSAGE + CONNECT_ERROR):
            opened.refusal = json.loads(answer[2:])
        yield opened
    finally:
        connection.close(timeout=0)
        connection.shutdown()  # type: ignore[no-untyped-call]  # what was closed by the server it takes for closed here, too
