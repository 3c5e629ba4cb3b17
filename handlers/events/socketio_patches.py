"""python-socketio and engineio, with what they lack for clients that mean no good, read slowly, or leave without a word.

What of the libraries' own is replaced by which class is in `socket_server.py`.
"""

from __future__ import annotations

import time
from typing import Any

import gevent
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from gevent.queue import Empty, JoinableQueue
from socketio.packet import CONNECT, CONNECT_ERROR, DISCONNECT, EVENT
from socketio.packet import Packet as SocketPacket

from handlers.events.packets import passed
from handlers.events.websocket_patches import WebSockets
from handlers.problems import problem
from jobs.errors import InvalidRequest
from jobs.model import Json

NAMESPACE = "/"
OWN_EVENTS = frozenset({"connect", "disconnect", "*"})
"""Names that the library itself gives a meaning, and that no client may call."""
MALFORMED = "malformed"


PACKET_BYTES = 1 << 10
"""What a packet costs besides its text: the objects around it, and a call of the system to send it. So very many small ones are not sent at
once, and whoever else has something to send comes in between."""


class EncodedPacket:
    """An event as the transport sends it, made once for all clients."""

    def __init__(self, event: str, payload: Json) -> None:
        # Told that there is nothing binary in it, it does not look at each line for that, which took most of the time.
        text = SocketPacket(EVENT, namespace="/", data=[event, payload], binary=False).encode()
        self.engine = EnginePacket(MESSAGE, data=text)
        self.size = len(text) + PACKET_BYTES


class ClientPacket(SocketPacket):  # type: ignore[misc]
    """A packet as clients send it. What none of the contract's looks like becomes an event that the contract does not have, and is
    answered as one.

    The library would raise in the midst of its work, take an event called `disconnect` for the end of the connection, and collect
    attachments without end.
    """

    packet_type: int
    namespace: str | None
    id: int | None
    data: Any

    def __init__(self, *arguments: Any, encoded_packet: Any = None, **options: Any) -> None:
        # An empty one too is to be decoded.
        super().__init__(*arguments, encoded_packet=" " if encoded_packet in ("", b"") else encoded_packet, **options)

    def decode(self, encoded_packet: Any) -> int:
        try:
            attachments = super().decode(encoded_packet)
        except (TypeError, ValueError, RecursionError):
            attachments = None
        is_event = attachments == 0 and self.packet_type == EVENT and (self.namespace or NAMESPACE) == NAMESPACE
        if not (self._is_known() if is_event else attachments == 0 and self.packet_type in (CONNECT, DISCONNECT)):
            asked = self.id if is_event else None  # who asked for an acknowledgement shall not wait for ever
            self.packet_type, self.namespace, self.id, self.data = EVENT, None, asked, [MALFORMED]
        return 0

    def _is_known(self) -> bool:
        return isinstance(self.data, list) and bool(self.data) and isinstance(self.data[0], str) and self.data[0] not in OWN_EVENTS


class ClientWebSocket(WebSockets):
    """Passes on what engineio 4.15 can decode; at anything else it raises and leaves the client's connection behind, half open."""

    def wait(self) -> str | bytes | None:
        data: str | bytes | None = super().wait()
        return passed(data) if isinstance(data, str) else data

    def close(self) -> None:
        """Called when nothing more is sent."""
        try:
            super().close()
        finally:
            self.app.__self__.queue.abandon()  # its engineio socket's


class Outbox(JoinableQueue[Any]):
    """What waits to be sent to one client.

    engineio 4.15 puts all of it into one answer to a long poll, and its own client refuses answers of more than 16 packets. So after 16
    there seems to be no more, until the next `poll` begins, with a `get` that may wait.

    When a message cannot be sent, engineio sends no further one, but tells nobody: who waits for what is left would wait for ever, and what
    is held for the client would be held as long.
    """

    AT_ONCE = 16

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0
        self._abandoned = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if not self._abandoned:
            super().put(item, block, timeout)

    def abandon(self) -> None:
        """Nobody takes any more: drop what waits, now and from now on."""
        self._abandoned = True
        while not self.empty():
            super().get(block=False)
            self.task_done()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self._taken = 1 if block else self._taken + 1
        if self._taken > self.AT_ONCE:
            raise Empty
        return super().get(block, timeout)


class UnauthenticatedConnections:
    """Ends connections on which nobody is let in: who never asks for it, was refused, or has left. The libraries would keep them as long
    as pings are answered."""

    def __init__(self, server: Any, *, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._known_at: dict[str, float] = {}
        """When somebody was last known to be connected, or the connection was opened."""
        self._looking = False

    def come(self, engine_sid: str, environ: dict[str, Any]) -> None:
        """A connection is opened."""
        self._known_at[engine_sid] = time.monotonic()
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)
        self._server._handle_eio_connect(engine_sid, environ)

    def go(self, engine_sid: str) -> None:
        self._known_at.pop(engine_sid, None)

    def _look(self) -> None:
        try:
            while self._known_at:
                gevent.sleep(self._seconds / 10)
                for engine_sid in list(self._known_at):
                    self._look_at(engine_sid)
        finally:
            self._looking = False

    def _look_at(self, engine_sid: str) -> None:
        now, socket = time.monotonic(), self._server.eio.sockets.get(engine_sid)
        if socket is None:
            self.go(engine_sid)
        elif self._server.manager.sid_from_eio_sid(engine_sid, NAMESPACE) is not None:
            self._known_at[engine_sid] = now
        elif now > self._known_at[engine_sid] + self._seconds:
            end_socket(self._server, socket)


def end_socket(server: Any, socket: Any) -> None:
    """End a client's connection. Not by the engine's own `disconnect`, which waits until the client has read what it got: one that never
    does would hold all of it."""
    socket.close(wait=False, reason=server.eio.reason.SERVER_DISCONNECT)


class ConnectHandler:
    """What a client's `connect` leads to, in place of python-socketio 5.18, which answers a second one, and one to another namespace,
    with a text that the contract does not have."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._connect = server._handle_connect

    def __call__(self, engine_sid: str, namespace: str | None, data: Any) -> None:
        if namespace not in (None, NAMESPACE):
            why = problem(InvalidRequest(f"There is no namespace {namespace[:100]!r}, only {NAMESPACE}."))
            refusal = {"message": why["detail"], "data": why}
            self._server._send_packet(engine_sid, ClientPacket(CONNECT_ERROR, data=refusal, namespace=namespace))
        elif self._server.manager.sid_from_eio_sid(engine_sid, NAMESPACE) is not None:
            self._server._handle_event(engine_sid, None, None, [MALFORMED])
        else:
            self._connect(engine_sid, namespace, data)
