"""The names inside of libraries that this project replaces, overrides or reads although they are not part of a public interface.

A release of a library may rename them without notice. Then a test here fails and says which name is missing and where it is used, before
anything fails in a less obvious way. Beside each stands the public report of what it works around; None where none was found.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from types import CodeType
from typing import Any

import engineio
import gevent.baseserver
import gunicorn.http.wsgi
import gunicorn.util
import pytest
import simple_websocket  # type: ignore[import-untyped]
import socketio
from engineio.async_drivers.gevent import WebSocketWSGI
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from engineio.payload import Payload
from engineio.socket import Socket
from flask_socketio import SocketIO
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker
from socketio.packet import Packet as SocketPacket
from werkzeug.routing import Map

from handlers.events.socketio_patches import MALFORMED, ClientPacket, Outbox
from handlers.events.websocket_patches import WebSocket

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Connexion 2 imports a deprecated name from jsonschema
    import connexion
    from connexion.apis import flask_utils
    from connexion.apis.abstract import AbstractAPI
    from connexion.apis.flask_api import FlaskApi
    from connexion.apps.abstract import AbstractApp
    from connexion.decorators import validation
    from connexion.operations.secure import SecureOperation
    from connexion.resolver import Resolver
    from connexion.security import FlaskSecurityHandlerFactory

ENGINEIO = "https://github.com/miguelgrinberg/python-engineio"
SOCKETIO = "https://github.com/miguelgrinberg/python-socketio"
FLASK_SOCKETIO = "https://github.com/miguelgrinberg/Flask-SocketIO"
SIMPLE_WEBSOCKET = "https://github.com/miguelgrinberg/simple-websocket"
GUNICORN = "https://github.com/benoitc/gunicorn"
CONNEXION = "https://github.com/spec-first/connexion"

PATCHES, WEBSOCKETS, SERVER = "handlers/events/socketio_patches.py", "handlers/events/websocket_patches.py", "handlers/events/server.py"
API, WEB, FOLLOW = "handlers/server/api.py", "handlers/web/application.py", "handlers/cli/follow.py"
VALIDATION = "handlers/web/validation.py"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A function of a library that `used_in` replaces, overrides or calls."""

    library: str
    owner: Any
    name: str
    parameters: str
    used_in: str
    caller: Callable[..., Any] | None = None
    """The library's own function that calls it by this name, where the project depends on that."""
    issue: str | None = None

    def __str__(self) -> str:
        return f"{self.library}: {getattr(self.owner, '__qualname__', self.owner.__name__)}.{self.name}"


METHODS = [
    # engineio
    Method(
        library="python-engineio", owner=engineio.Server, name="create_queue", parameters="*args, **kwargs", used_in=SERVER,
        caller=Socket.__init__, issue=f"{ENGINEIO}/issues/142",
    ),
    Method(library="python-engineio", owner=engineio.Server, name="send_packet", parameters="sid, pkt", used_in=SERVER),
    Method(
        library="python-engineio", owner=Socket, name="close", parameters="wait=True, abort=False, reason=None", used_in=PATCHES,
        issue=f"{ENGINEIO}/pull/60",
    ),
    Method(library="python-engineio", owner=WebSocketWSGI, name="__call__", parameters="environ, start_response", used_in=WEBSOCKETS),
    Method(
        library="python-engineio", owner=WebSocketWSGI, name="wait", parameters="", used_in=PATCHES, caller=Socket._websocket_handler,
        issue=f"{ENGINEIO}/issues/328",
    ),
    Method(
        library="python-engineio", owner=WebSocketWSGI, name="close", parameters="", used_in=PATCHES, caller=Socket._websocket_handler,
        issue=f"{ENGINEIO}/issues/56",
    ),
    Method(
        library="python-engineio", owner=engineio.Client, name="_trigger_event", parameters="event, *args, **kwargs", used_in=FOLLOW,
        caller=engineio.Client._receive_packet, issue=f"{SOCKETIO}/issues/382",
    ),
    Method(
        library="python-engineio", owner=engineio.Client, name="disconnect", parameters="abort=False, reason=None", used_in=FOLLOW,
        caller=engineio.Client._receive_packet,
    ),
    # python-socketio
    Method(
        library="python-socketio", owner=socketio.Server, name="_handle_connect", parameters="eio_sid, namespace, data", used_in=SERVER,
        caller=socketio.Server._handle_eio_message,
    ),
    Method(
        library="python-socketio", owner=socketio.Server, name="_handle_event", parameters="eio_sid, namespace, id, data", used_in=PATCHES,
    ),
    Method(library="python-socketio", owner=socketio.Server, name="_send_packet", parameters="eio_sid, pkt", used_in=PATCHES),
    Method(
        library="python-socketio", owner=socketio.Server, name="_handle_eio_connect", parameters="eio_sid, environ", used_in=PATCHES,
        issue=f"{SOCKETIO}/issues/298",
    ),
    Method(
        library="python-socketio", owner=socketio.Server, name="_handle_eio_disconnect", parameters="eio_sid, reason", used_in=SERVER,
        issue=f"{ENGINEIO}/issues/83",
    ),
    Method(library="python-socketio", owner=socketio.Manager, name="sid_from_eio_sid", parameters="eio_sid, namespace", used_in=PATCHES),
    Method(library="python-socketio", owner=socketio.Manager, name="eio_sid_from_sid", parameters="sid, namespace", used_in=SERVER),
    Method(
        library="python-socketio", owner=SocketPacket, name="decode", parameters="encoded_packet", used_in=PATCHES,
        caller=SocketPacket.__init__, issue=f"{FLASK_SOCKETIO}/issues/1022",
    ),
    Method(
        library="python-socketio", owner=socketio.Client, name="_engineio_client_class", parameters="", used_in=FOLLOW,
        caller=socketio.Client.__init__,
    ),
    # simple-websocket
    Method(
        library="simple-websocket", owner=simple_websocket.Server, name="_handle_events", parameters="", used_in=WEBSOCKETS,
        caller=simple_websocket.Server._thread,
    ),
    Method(library="simple-websocket", owner=simple_websocket.Server, name="receive", parameters="timeout=None", used_in=WEBSOCKETS),
    # gunicorn
    Method(
        library="gunicorn", owner=gunicorn.util, name="write_error", parameters="sock, status_int, reason, mesg", used_in=API,
        caller=GeventWorker.handle_error, issue=f"{GUNICORN}/issues/993",
    ),
    Method(library="gunicorn", owner=gunicorn.util, name="write_nonblock", parameters="sock, data, chunked=False", used_in=API),
    Method(library="gunicorn", owner=GeventWorker, name="run", parameters="", used_in=API, issue=f"{GUNICORN}/issues/3227"),
    Method(library="gunicorn", owner=GeventWorker, name="handle", parameters="listener, client, addr", used_in=API),
    Method(library="gunicorn", owner=GeventWorker, name="notify", parameters="", used_in=API),
    Method(library="gunicorn", owner=GeventWorker, name="handle_exit", parameters="sig, frame", used_in=API),
    Method(
        library="gunicorn", owner=GeventWorker, name="handle_request", parameters="listener_name, req, sock, addr", used_in=API,
        caller=AsyncWorker.handle,
    ),
    # Connexion
    Method(
        library="connexion", owner=connexion.FlaskApp, name="set_errors_handlers", parameters="", used_in=WEB, caller=AbstractApp.__init__,
    ),
    Method(
        library="connexion", owner=FlaskApi, name="make_security_handler_factory", parameters="pass_context_arg_name", used_in=WEB,
        caller=AbstractAPI.__init__,
    ),
    Method(
        library="connexion", owner=FlaskApi, name="_add_operation_internal", parameters="method, path, operation", used_in=WEB,
        caller=AbstractAPI.add_operation, issue=f"{CONNEXION}/pull/379",
    ),
    Method(
        library="connexion", owner=Resolver, name="resolve_function_from_operation_id", parameters="operation_id", used_in=WEB,
        caller=Resolver.resolve,
    ),
    Method(
        library="connexion", owner=FlaskSecurityHandlerFactory, name="get_bearerinfo_func", parameters="security_definition", used_in=WEB,
        caller=SecureOperation.security_decorator.fget,
    ),
    Method(
        library="connexion", owner=validation, name="coerce_type", parameters="param, value, parameter_type, parameter_name=None",
        used_in=VALIDATION,
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """An attribute or a constant that `within`, a function of the library, sets or reads."""

    library: str
    name: str
    within: Callable[..., Any]
    used_in: str
    issue: str | None = None

    def __str__(self) -> str:
        return f"{self.library}: {self.name} in {self.within.__qualname__}"


ATTRIBUTES = [
    # engineio
    Attribute(library="python-engineio", name="_async", within=engineio.Server.__init__, used_in=SERVER),
    Attribute(library="python-engineio", name="sockets", within=engineio.Server.__init__, used_in=SERVER),
    Attribute(library="python-engineio", name="sockets", within=engineio.Server._get_socket, used_in=SERVER),
    Attribute(
        library="python-engineio", name="max_decode_packets", within=Payload.decode, used_in=SERVER, issue=f"{ENGINEIO}/issues/142",
    ),
    Attribute(library="python-engineio", name="queue", within=Socket.__init__, used_in=SERVER, issue=f"{ENGINEIO}/issues/133"),
    Attribute(library="python-engineio", name="upgraded", within=Socket.__init__, used_in=SERVER),
    Attribute(library="python-engineio", name="read_loop_task", within=engineio.Client.__init__, used_in=FOLLOW),
    # python-socketio and Flask-SocketIO
    Attribute(library="python-socketio", name="packet_class", within=socketio.Server._handle_eio_message, used_in=SERVER),
    Attribute(library="flask-socketio", name="server", within=SocketIO.init_app, used_in=SERVER, issue=f"{FLASK_SOCKETIO}/issues/991"),
    Attribute(library="flask-socketio", name="sid", within=SocketIO._handle_event, used_in=SERVER),
    # simple-websocket
    Attribute(library="simple-websocket", name="input_buffer", within=simple_websocket.Server.receive, used_in=WEBSOCKETS),
    Attribute(library="simple-websocket", name="input_buffer", within=simple_websocket.Server._handle_events, used_in=WEBSOCKETS),
    Attribute(library="simple-websocket", name="connected", within=simple_websocket.Server.receive, used_in=WEBSOCKETS),
    Attribute(
        library="simple-websocket", name="max_message_size", within=simple_websocket.Server._handle_events, used_in=WEBSOCKETS,
        issue=f"{SIMPLE_WEBSOCKET}/issues/5",
    ),
    Attribute(library="simple-websocket", name="gunicorn.socket", within=simple_websocket.Server.__init__, used_in=WEBSOCKETS),
    Attribute(library="simple-websocket", name="HTTP_", within=simple_websocket.Server.handshake, used_in=WEBSOCKETS),
    # gunicorn
    Attribute(library="gunicorn", name="gunicorn.socket", within=gunicorn.http.wsgi.default_environ, used_in=WEBSOCKETS),
    Attribute(
        library="gunicorn", name="StopIteration", within=AsyncWorker.handle_request, used_in=WEBSOCKETS,
        issue="https://github.com/miguelgrinberg/flask-sock/pull/73",
    ),
    *(
        Attribute(library="gunicorn", name=name, within=GeventWorker.__init__, used_in=API)
        for name in ("sockets", "alive", "cfg", "ppid", "worker_connections")
    ),
    # gevent
    Attribute(
        library="gevent", name="max_accept", within=gevent.baseserver.BaseServer._do_read,  # type: ignore[attr-defined]
        used_in=API, issue=f"{GUNICORN}/pull/2266",
    ),
    # Connexion
    Attribute(library="connexion", name="api_cls", within=AbstractApp.add_api, used_in=WEB),
    Attribute(library="connexion", name="parameters", within=validation.ParameterValidator.__init__, used_in=VALIDATION),
]  # fmt: skip


def names(function: Callable[..., Any]) -> set[str]:
    """Every name and text in a function, in the functions inside of it, and in those of the base classes that it extends."""
    functions = [function]
    owner = getattr(inspect.getmodule(function), function.__qualname__.partition(".")[0], None)
    if inspect.isclass(owner):
        functions += [base.__dict__[function.__name__] for base in owner.__mro__[1:-1] if function.__name__ in base.__dict__]
    return set().union(*(_names(inspect.unwrap(each).__code__) for each in functions))


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
        else:
            found |= {text for text in (constant if isinstance(constant, tuple) else (constant,)) if isinstance(text, str)}
    return found


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_method_that_is_replaced_or_called_still_exists(method: Method) -> None:
    release = f"{method.library} {version(method.library)}"
    needed = f"{method.used_in} needs it (works around: {method.issue or 'no public issue'})"
    function = getattr(method.owner, method.name, None)
    assert callable(function), f"{release} no longer has {method.name}: {needed}"
    parameters = [str(parameter) for name, parameter in inspect.signature(function).parameters.items() if name not in ("self", "cls")]
    assert ", ".join(parameters) == method.parameters, f"{release} changed the parameters of {method.name}: {needed}"
    if method.caller is not None:
        caller = method.caller.__qualname__
        assert method.name in names(method.caller), f"{release} no longer calls {method.name} in {caller}: {needed}"


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=str)
def test_an_attribute_that_is_read_or_set_still_exists(attribute: Attribute) -> None:
    release = f"{attribute.library} {version(attribute.library)}"
    needed = f"{attribute.used_in} needs it (works around: {attribute.issue or 'no public issue'})"
    assert attribute.name in names(attribute.within), (
        f"{release} no longer has {attribute.name} in {attribute.within.__qualname__}: {needed}"
    )


@pytest.fixture
def server() -> socketio.Server:
    return socketio.Server(async_mode="gevent", serializer=ClientPacket)


@pytest.fixture
def socket(server: socketio.Server) -> Socket:
    """An engineio socket with the queue of this project."""
    server.eio.create_queue = Outbox
    return Socket(server.eio, "sid")


def test_engineio_registers_the_handlers_that_are_replaced(server: socketio.Server) -> None:
    assert server.eio.handlers["connect"] == server._handle_eio_connect
    assert server.eio.handlers["disconnect"] == server._handle_eio_disconnect
    assert server.eio.reason.SERVER_DISCONNECT


def test_engineio_waits_only_in_the_first_get_of_a_poll(socket: Socket) -> None:
    for number in range(20):
        socket.send(EnginePacket(MESSAGE, data=str(number)))
    assert [len(socket.poll()), len(socket.poll())] == [16, 4]


def test_engineio_gives_a_method_of_its_socket_to_the_websocket_class(socket: Socket) -> None:
    made: list[Any] = []

    def websocket(handler: Any, server: Any) -> Any:
        made.append(WebSocketWSGI(handler, server))
        return lambda environ, start_response: []

    socket.server._async = {**socket.server._async, "websocket": websocket}
    socket._upgrade_websocket({}, None)
    assert made[0].app.__self__ is socket
    assert "event_class" in made[0].server_args


def test_socketio_decodes_with_the_packet_class_that_it_is_given(server: socketio.Server) -> None:
    assert server.packet_class is ClientPacket
    packet = server.packet_class(encoded_packet='2["disconnect"]')
    assert (packet.packet_type, packet.namespace, packet.id, packet.data) == (socketio.packet.EVENT, None, None, [MALFORMED])


def test_socketio_searches_no_binary_data_when_told_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(_data: Any) -> bool:
        raise AssertionError("the data was searched")

    monkeypatch.setattr(SocketPacket, "data_is_binary", search)
    assert SocketPacket(socketio.packet.EVENT, namespace="/", data=["event", {}], binary=False).encode() == '2["event",{}]'


def test_simple_websocket_takes_the_socket_and_sends_with_its_send() -> None:
    assert names(simple_websocket.Server.send) >= {"sock", "send"}
    assert "sendall" not in names(simple_websocket.Server.send), f"see whether SendAllSocket is still needed: {SIMPLE_WEBSOCKET}/issues/45"
    assert set(inspect.signature(simple_websocket.Server.__init__).parameters) >= {"max_message_size", "event_class", "thread_class"}
    assert WebSocket._handle_events is not simple_websocket.Server._handle_events


def test_gunicorn_looks_up_write_error_in_its_module() -> None:
    assert {"util", "write_error"} <= names(GeventWorker.handle_error)


def test_connexion_keeps_the_converter_of_a_path_parameter() -> None:
    # `{uuid:job_id}` is not OpenAPI. Connexion passes it on to the router; the formats that it knows itself (pull request 379) are few.
    assert flask_utils.flaskify_path("/jobs/{uuid:job_id}", {}) == "/jobs/<uuid:job_id>"
    assert "uuid" in Map().converters
