"""Parts of python-socketio and engineio, replaced or overridden: the originals trust clients to be well-behaved, to read, and to say
goodbye.

`server.py` installs them. Each class names the public report of what it works around, or says that none was found.
`tests/unit/test_patched_libraries.py` lists every private name that is used here. This module knows no event of the contract.
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

from handlers.errors import InvalidRequest
from handlers.events.packets import checked
from handlers.events.websocket_patches import WebSockets
from handlers.problems import problem
from jobs.model import Json

NAMESPACE = "/"
RESERVED_EVENTS = frozenset({"connect", "disconnect", "*"})
"""Names with a meaning to python-socketio itself. No client may send an event of such a name."""
MALFORMED = "malformed"
PACKET_BYTES = 1 << 10
"""What a packet costs besides its text: the objects around it, and a system call to send it. It keeps the number of small packets low that
are sent in one go, so that other greenlets get their turn in between."""


class EncodedPacket:
    """An event in the form in which the transport sends it, encoded once for all clients."""

    def __init__(self, event: str, payload: Json) -> None:
        # binary=False: else python-socketio examines every line for binary data, which took most of the time. Reported for another project
        # that sends only text: https://github.com/open-webui/open-webui/issues/28164
        text = SocketPacket(EVENT, namespace=NAMESPACE, data=[event, payload], binary=False).encode()
        self.engine = EnginePacket(MESSAGE, data=text)
        self.size = len(text) + PACKET_BYTES


class ClientPacket(SocketPacket):  # type: ignore[misc]
    """A Socket.IO packet from a client. Anything but the packets that the contract knows becomes the event MALFORMED, which `server.py`
    answers.

    python-socketio 5.18 raises at JSON that it cannot decode (https://github.com/miguelgrinberg/Flask-SocketIO/issues/1022), runs the
    handler of `disconnect` for an event of that name (https://github.com/miguelgrinberg/Flask-SocketIO/issues/1433), and collects binary
    attachments without a limit (no public issue found).
    """

    packet_type: int
    namespace: str | None
    id: int | None
    data: Any

    def __init__(self, *arguments: Any, encoded_packet: Any = None, **options: Any) -> None:
        # The library does not decode an empty packet. A space is malformed, too, and is decoded.
        super().__init__(*arguments, encoded_packet=" " if encoded_packet in ("", b"") else encoded_packet, **options)

    def decode(self, encoded_packet: Any) -> int:
        try:
            attachments = super().decode(encoded_packet)
        except (TypeError, ValueError, RecursionError):
            attachments = None
        is_event = attachments == 0 and self.packet_type == EVENT and (self.namespace or NAMESPACE) == NAMESPACE
        if not (self._is_client_event() if is_event else attachments == 0 and self.packet_type in (CONNECT, DISCONNECT)):
            acknowledge = self.id if is_event else None  # a client that asked for an acknowledgement must not wait for ever
            self.packet_type, self.namespace, self.id, self.data = EVENT, None, acknowledge, [MALFORMED]
        return 0

    def _is_client_event(self) -> bool:
        return isinstance(self.data, list) and bool(self.data) and isinstance(self.data[0], str) and self.data[0] not in RESERVED_EVENTS


class ClientWebSocket(WebSockets):
    """Passes on only what engineio can decode: in 4.15 an exception there leaves the client's connection behind, half open. Sockets that
    are not released after errors: https://github.com/miguelgrinberg/python-engineio/issues/328"""

    def wait(self) -> str | bytes | None:
        data: str | bytes | None = super().wait()
        return checked(data) if isinstance(data, str) else data

    def close(self) -> None:
        """engineio calls this when it will send nothing more."""
        try:
            super().close()
        finally:
            self.app.__self__.queue.abandon()  # `app` is a method of the engineio socket; its queue is an Outbox


class Outbox(JoinableQueue[Any]):
    """The packets that wait to be sent to one client.

    engineio 4.15 puts all of them into the answer to one long poll, and its own client refuses an answer of more than 16 packets
    (https://github.com/miguelgrinberg/python-engineio/issues/142). So this queue seems empty after 16, until the next poll begins, with a
    `get` that may wait.

    When a message cannot be sent, engineio stops sending and tells nobody: a caller of `join` would wait for ever, and the packets would
    stay in memory (https://github.com/miguelgrinberg/python-engineio/issues/56 and
    https://github.com/miguelgrinberg/python-engineio/pull/60). So the queue can be abandoned.
    """

    MAX_PACKETS = 16

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0
        self._abandoned = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if not self._abandoned:
            super().put(item, block, timeout)

    def abandon(self) -> None:
        """Drop the packets that wait, and every further one: nothing is sent any more."""
        self._abandoned = True
        while not self.empty():
            super().get(block=False)
            self.task_done()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self._taken = 1 if block else self._taken + 1
        if self._taken > self.MAX_PACKETS:
            raise Empty
        return super().get(block, timeout)


class UnauthenticatedConnections:
    """Ends connections on which no client is authenticated: it never sent `connect`, was refused, or has disconnected.

    python-socketio 5.18 keeps such connections for as long as the client answers pings: refusing a client leaves the Engine.IO connection
    open (https://github.com/miguelgrinberg/python-socketio/issues/298).
    """

    def __init__(self, server: Any, *, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._authenticated_at: dict[str, float] = {}
        """When a client was last seen authenticated on each connection; at first, when the connection was opened."""
        self._checking = False

    def opened(self, engine_sid: str, environ: dict[str, Any]) -> None:
        """In place of python-socketio's own handler, which this calls."""
        self._authenticated_at[engine_sid] = time.monotonic()
        if not self._checking:
            self._checking = True
            gevent.spawn(self._run)
        self._server._handle_eio_connect(engine_sid, environ)

    def closed(self, engine_sid: str) -> None:
        self._authenticated_at.pop(engine_sid, None)

    def _run(self) -> None:
        try:
            while self._authenticated_at:
                gevent.sleep(self._seconds / 10)
                for engine_sid in list(self._authenticated_at):
                    self._check(engine_sid)
        finally:
            self._checking = False

    def _check(self, engine_sid: str) -> None:
        now, socket = time.monotonic(), self._server.eio.sockets.get(engine_sid)
        if socket is None:
            self.closed(engine_sid)
        elif self._server.manager.sid_from_eio_sid(engine_sid, NAMESPACE) is not None:
            self._authenticated_at[engine_sid] = now
        elif now > self._authenticated_at[engine_sid] + self._seconds:
            end_socket(self._server, socket)


def end_socket(server: Any, socket: Any) -> None:
    """End a client's connection, without waiting.

    Not by engineio's own `disconnect`: that waits until the client has read everything it was sent, which it may never do
    (https://github.com/miguelgrinberg/python-engineio/pull/60).
    """
    socket.close(wait=False, reason=server.eio.reason.SERVER_DISCONNECT)


class ConnectHandler:
    """Handles a client's `connect`, in place of python-socketio's own handler. That one, in 5.18, answers a second `connect`, and one to
    another namespace, with a text that is not in the contract (no public issue found)."""

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
