"""Socket.IO: from Flask-SocketIO to the handlers of events and back.

The only module of this room that knows Flask. Here the parts of `socketio_patches.py` are installed in the libraries; beside each private
name stands the public report of what it works around, or that none was found.
"""

from __future__ import annotations

import logging
from typing import Any

import flask
import gevent
from engineio.payload import Payload
from flask_socketio import ConnectionRefusedError, SocketIO

from handlers.access.audit import Audit
from handlers.contract.document import Contract
from handlers.events.payloads import Encode, Packet
from handlers.events.socketio_patches import (
    NAMESPACE,
    ClientPacket,
    ClientWebSocket,
    ConnectHandler,
    EncodedPacket,
    Outbox,
    UnauthenticatedConnections,
    end_socket,
)
from handlers.events.sockets import Refused, Sockets, payload_of
from handlers.events.subscriber import ClientDisconnected
from handlers.problems import PREFIX
from handlers.web.body_timeout import BODY_BYTES
from handlers.web.request import client_address
from jobs.model import Json

socket_logger = logging.getLogger("runcast.socketio")
socket_logger.setLevel(logging.ERROR)  # at lower levels, the libraries log every packet
# Only errors of the server. The libraries log the mistakes of clients, who are told of them, at the same level.
socket_logger.addFilter(lambda record: record.msg == "message handler error")

MAX_UNREAD_ANSWERS = 5000
"""A long-polling client that leaves more answers unread is disconnected."""
AUTHENTICATION_TIMEOUT_SECONDS = 10.0
"""How long a connection may stay open without an authenticated client."""


def make_encode(contract: Contract | None) -> Encode:
    """With a contract, every event is validated against it before it is sent."""

    def encode(event: str, payload: Json) -> Packet:
        if contract is not None and (violations := contract.event_violations(event, payload)):
            raise RuntimeError(f"The event {event} breaks the contract: {'; '.join(violations)}")
        return EncodedPacket(event, payload)

    return encode


class SocketTransport:
    """One client's connection, as a `subscriber.Transport`.

    engineio 4.15 queues packets for a client without a limit and offers no way to wait for it:
    https://github.com/miguelgrinberg/python-engineio/issues/133. So this uses the queue of the engineio socket itself.
    """

    def __init__(self, server: Any, sid: str) -> None:
        self._server = server
        self._engine = server.eio
        self._socket_sid = sid
        self._sid = server.manager.eio_sid_from_sid(sid, NAMESPACE)

    def send(self, packet: Packet) -> None:
        assert isinstance(packet, EncodedPacket)
        if self._sid in self._engine.sockets:
            self._engine.send_packet(self._sid, packet.engine)

    def drain(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is not None:
            socket.queue.join()

    def limit_answers(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is None:
            return
        if socket.upgraded:
            socket.queue.join()
        elif socket.queue.qsize() > MAX_UNREAD_ANSWERS:
            # Do not wait in a long-polling request: while the connection is being upgraded to a WebSocket, nothing is read before the
            # request has ended.
            self._end()
            raise ClientDisconnected("The client left too many answers unread.")

    def disconnect(self) -> None:
        # Both: after the first, a well-behaved client does not reconnect by itself; the second ends the connection of any other.
        self._server.disconnect(self._socket_sid)
        gevent.spawn(self._end)

    def _end(self) -> None:
        socket = self._engine.sockets.get(self._sid)
        if socket is not None:
            end_socket(self._server, socket)


def add_sockets(web: flask.Flask, sockets: Sockets, audit: Audit, *, silent_seconds: float) -> None:
    """Serve Socket.IO beside HTTP."""
    socketio = make_socketio(web, silent_seconds=silent_seconds)
    patch(socketio.server, authentication_seconds=min(AUTHENTICATION_TIMEOUT_SECONDS, silent_seconds))
    add_handlers(socketio, sockets, audit)


def make_socketio(web: flask.Flask, *, silent_seconds: float) -> SocketIO:
    return SocketIO(
        web,
        async_mode="gevent",
        # HostCheckLayer has already refused foreign origins.
        cors_allowed_origins="*",
        cors_credentials=False,
        # The events of one client are handled one after another, so that they take effect in order.
        async_handlers=False,
        max_http_buffer_size=BODY_BYTES,
        # The library's own values, unless silent connections are closed earlier.
        ping_interval=min(25.0, silent_seconds / 3),
        ping_timeout=min(20.0, silent_seconds / 3),
        serializer=ClientPacket,
        logger=socket_logger,
        engineio_logger=socket_logger,
    )


def patch(server: Any, *, authentication_seconds: float) -> None:
    """Install the replacements for parts of python-socketio and engineio. Their classes name the public issues."""
    engine = server.eio
    server._handle_connect = ConnectHandler(server)
    unauthenticated = UnauthenticatedConnections(server, seconds=authentication_seconds)

    def closed(engine_sid: str, reason: str) -> None:
        unauthenticated.closed(engine_sid)
        server._handle_eio_disconnect(engine_sid, reason)
        # At once: engineio 4.15 raises at a request for a connection that is closed and still listed.
        # https://github.com/miguelgrinberg/python-engineio/issues/83
        engine.sockets.pop(engine_sid, None)

    engine.on("connect", unauthenticated.opened)
    engine.on("disconnect", closed)
    # The page subscribes to many jobs at once, and its library posts that as one body. The size of the body is the limit.
    # https://github.com/miguelgrinberg/python-engineio/issues/142
    Payload.max_decode_packets = BODY_BYTES
    engine.create_queue = Outbox
    engine._async = {**engine._async, "websocket": ClientWebSocket}


def add_handlers(socketio: SocketIO, sockets: Sockets, audit: Audit) -> None:
    """One function an event: its name is the event's."""

    def connect(auth: Json = None) -> None:
        try:
            caller = sockets.connect(auth, address=client_address())
        except Refused as refused:
            audit.refused("connect", address=client_address(), outcome=str(refused.problem["type"]).removeprefix(PREFIX))
            raise ConnectionRefusedError(str(refused), refused.problem) from None
        sid = flask.request.sid  # type: ignore[attr-defined]
        sockets.connected(sid, caller, SocketTransport(socketio.server, sid))

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
