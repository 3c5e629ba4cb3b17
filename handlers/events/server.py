"""Socket.IO: from Flask-SocketIO to the handlers of events and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import flask
import gevent
from engineio.payload import Payload
from flask_socketio import ConnectionRefusedError, SocketIO

from handlers.access.audit import Audit
from handlers.contract.document import Contract
from handlers.events.caster import Gone, Packet
from handlers.events.socketio_patches import (
    ClientPacket,
    ClientWebSocket,
    ConnectHandler,
    EncodedPacket,
    Outbox,
    UnauthenticatedConnections,
    end_socket,
)
from handlers.events.sockets import Refused, Sockets, payload_of
from handlers.problems import PREFIX
from handlers.web.body_timeout import BODY_BYTES
from handlers.web.request import address
from jobs.model import Json

socket_logger = logging.getLogger("runcast.socketio")
socket_logger.setLevel(logging.ERROR)  # below, the libraries tell of every packet
# Only errors of the server. The libraries log the mistakes of clients, who are told of them, at the same level.
socket_logger.addFilter(lambda record: record.msg == "message handler error")

UNREAD_ANSWERS = 5000
"""A long-polling client that leaves so many unread is disconnected."""

STRANGER_SECONDS = 10.0
"""For so long a connection may be open on which nobody has been let in."""


def make_encode(contract: Contract | None) -> Callable[[str, Json], Packet]:
    """With a contract, every event is held against it before it is sent."""

    def encode(event: str, payload: Json) -> Packet:
        if contract is not None and (violations := contract.event_violations(event, payload)):
            raise RuntimeError(f"The event {event} breaks the contract: {'; '.join(violations)}")
        return EncodedPacket(event, payload)

    return encode


class SocketTransport:
    """One client's connection, as the caster uses it."""

    def __init__(self, server: Any, sid: str) -> None:
        self._server = server
        self._engine = server.eio
        self._socket_sid = sid
        self._sid = server.manager.eio_sid_from_sid(sid, "/")

    def send(self, packet: Packet) -> None:
        assert isinstance(packet, EncodedPacket)
        if self._sid in self._engine.sockets:
            self._engine.send_packet(self._sid, packet.engine)

    def drain(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is not None:
            socket.queue.join()

    def pace(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is None:
            return
        if socket.upgraded:
            socket.queue.join()
        elif socket.queue.qsize() > UNREAD_ANSWERS:
            # A request of a long-polling client must not wait: while its connection becomes a WebSocket, nothing is read before it ended.
            self._end()
            raise Gone("The client left too many answers unread.")

    def hang_up(self) -> None:
        # Both: a client of good will does not come back by itself after the first, and any other is rid of by the second.
        self._server.disconnect(self._socket_sid)
        gevent.spawn(self._end)

    def _end(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is not None:
            end_socket(self._server, socket)


def add_sockets(web: flask.Flask, sockets: Sockets, audit: Audit, *, silent_seconds: float) -> None:
    # The gate keeper has already refused foreign origins. Events of a client are handled one after another, so that they take effect in
    # order.
    socketio = SocketIO(
        web,
        async_mode="gevent",
        cors_allowed_origins="*",
        cors_credentials=False,
        async_handlers=False,
        max_http_buffer_size=BODY_BYTES,
        # As the library has them, unless clients have to give signs more often.
        ping_interval=min(25.0, silent_seconds / 3),
        ping_timeout=min(20.0, silent_seconds / 3),
        serializer=ClientPacket,
        logger=socket_logger,
        engineio_logger=socket_logger,
    )
    server = socketio.server
    server._handle_connect = ConnectHandler(server)
    strangers = UnauthenticatedConnections(server, seconds=min(STRANGER_SECONDS, silent_seconds))
    server.eio.on("connect", strangers.come)

    def ended(engine_sid: str, reason: str) -> None:
        strangers.go(engine_sid)
        server._handle_eio_disconnect(engine_sid, reason)
        # At once: engineio 4.15 raises at a request for one that is closed, and still there.
        server.eio.sockets.pop(engine_sid, None)

    server.eio.on("disconnect", ended)
    # A page subscribes to many jobs at once, and its library sends that as one body; what bounds it is the size of a body.
    Payload.max_decode_packets = BODY_BYTES
    server.eio.create_queue = Outbox
    server.eio._async = {**server.eio._async, "websocket": ClientWebSocket}

    def connect(auth: Json = None) -> None:
        try:
            caller = sockets.connect(auth, address=address())
        except Refused as refused:
            audit.refused("connect", address=address(), outcome=str(refused.problem["type"]).removeprefix(PREFIX))
            raise ConnectionRefusedError(str(refused), refused.problem) from None
        sid = flask.request.sid  # type: ignore[attr-defined]
        sockets.connected(sid, caller, SocketTransport(server, sid))

    def disconnect(*_reason: Any) -> None:
        sockets.disconnected(flask.request.sid)  # type: ignore[attr-defined]

    def subscribe(*arguments: Any) -> dict[str, Json]:
        return sockets.subscribe(flask.request.sid, payload_of(arguments))  # type: ignore[attr-defined]

    def unsubscribe(*arguments: Any) -> dict[str, Json]:
        return sockets.unsubscribe(flask.request.sid, payload_of(arguments))  # type: ignore[attr-defined]

    def unknown(event: str, *_arguments: Any) -> dict[str, Json]:
        return sockets.unknown(flask.request.sid, event)  # type: ignore[attr-defined]

    def malformed(*_arguments: Any) -> dict[str, Json]:
        return sockets.malformed(flask.request.sid)  # type: ignore[attr-defined]

    for handler in (connect, disconnect, subscribe, unsubscribe, malformed):
        socketio.on_event(handler.__name__, handler)
    socketio.on_event("*", unknown)
