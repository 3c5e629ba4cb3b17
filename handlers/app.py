"""The web process, composed: Connexion routes HTTP by `openapi/jobs.yaml`, Flask-SocketIO carries the events, and both call plain
functions.

The only file that knows Flask, Connexion and Socket.IO.
"""

from __future__ import annotations

import inspect
import json
import logging
import mimetypes
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import connexion
import flask
import gevent
from connexion.apis.flask_api import FlaskApi
from connexion.exceptions import ProblemException
from connexion.resolver import Resolver
from connexion.security import FlaskSecurityHandlerFactory
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket
from engineio.payload import Payload
from flask.json.provider import DefaultJSONProvider
from flask_socketio import ConnectionRefusedError, SocketIO
from gevent.queue import Empty, JoinableQueue
from socketio.packet import CONNECT, CONNECT_ERROR, DISCONNECT, EVENT
from socketio.packet import Packet as SocketPacket
from werkzeug.exceptions import HTTPException

import handlers
from handlers import docs, pages
from handlers.agreement import check_agreement
from handlers.audit import Audit
from handlers.auth import ANY, MISSING, Door, Gate, require
from handlers.bodies import PatientBodies
from handlers.cast import Caster, Gone, Packet
from handlers.contract import Contract
from handlers.documents import CONTENT_SECURITY_POLICY, DATA_SECURITY_POLICY, Address
from handlers.green import GreenChanges, GreenDatabase
from handlers.metrics import MEDIA_TYPE, Metrics
from handlers.packets import Polls, passed
from handlers.problems import PREFIX, headers, kind_of, problem
from handlers.rates import Rate
from handlers.representations import Answer
from handlers.sockets import Refused, Sockets, payload_of
from handlers.websocket import WebSockets, WholeSends, Wsgi, has_left
from jobs import errors
from jobs.bootstrap import make_service
from jobs.errors import Fault, InvalidRequest, RuncastError
from jobs.feed import open_feed
from jobs.logs import Logs
from jobs.model import Caller, Json, Scope
from jobs.service import Service
from jobs.settings import Settings
from jobs.store import Store
from jobs.tokens import Tokens

logger = logging.getLogger("runcast.api")
# What it reports as errors are those of clients, who are told; ours are exceptions.
logging.getLogger("connexion").setLevel(logging.CRITICAL)
socket_logger = logging.getLogger("runcast.socketio")
socket_logger.setLevel(logging.ERROR)  # below, the libraries tell of every packet
# Only what went wrong in here; for the faults of clients, which they are told, the libraries use the same level.
socket_logger.addFilter(lambda record: record.msg == "message handler error")

BODY_BYTES = 1 << 20
IDS = re.compile(r"\{(job_id|token_id)\}")
BASE_PATH = "/api"
HARDENING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), serial=(), usb=()",
    "Cache-Control": "no-store",
}
"""What every answer carries unless it says otherwise: also a refusal at the gate, and what the library tells Socket.IO clients."""
OWN_EVENTS = frozenset({"connect", "disconnect", "*"})
"""Names that the library itself gives a meaning, and that no client may call."""
MALFORMED = "malformed"
UNREAD_ANSWERS = 5000
"""A long-polling client that leaves so many unread is disconnected."""
NAMESPACE = "/"
EVENTS_PATH = "/socket.io"


def create_app(settings: Settings) -> Wsgi:
    """Everything that answers clients, from the inside out. Raises ContractError when contract and code differ."""
    contract = Contract.load()
    check_agreement(contract)
    feed = open_feed(settings.url)
    database = GreenDatabase(settings.url, doubt=feed.doubt)
    changes = GreenChanges(feed)
    service = make_service(settings, database=database, changes=changes)
    caster = Caster(Store(database), Logs(database), changes, make_encode(contract if settings.validate_events else None))
    gate = Gate.of(settings)
    door = Door(service.tokens, calls=Rate(settings.rate_limit), failures=Rate(settings.failure_limit))
    audit = Audit()
    web = make_web(contract, service, door, validate_answers=settings.validate_answers)
    add_metrics(web, Metrics(service, clients=lambda: caster.client_count), door)
    add_headers(web, gate)
    add_audit(web, contract, audit)
    add_sockets(web, Sockets(contract, caster, door), audit, silent_seconds=settings.silent_seconds)
    polls = Polls(WholeSends(web.wsgi_app, silent_seconds=settings.silent_seconds), path=EVENTS_PATH, most=BODY_BYTES, refuse=refuse)
    bodies = PatientBodies(polls, seconds=settings.body_seconds, refuse=refuse)
    return Hardened(GateKeeper(bodies, gate))


# -- HTTP: from Connexion to a handler and back ---------------------------------------------------------------------------


def make_web(contract: Contract, service: Service, door: Door, *, validate_answers: bool) -> flask.Flask:
    """The Flask application, routed by the contract."""

    class Application(connexion.FlaskApp):  # type: ignore[misc]
        def set_errors_handlers(self) -> None:
            self.app.register_error_handler(Exception, answer_error)

    class Api(FlaskApi):  # type: ignore[misc]
        @staticmethod
        def make_security_handler_factory(pass_context_arg_name: str | None) -> FlaskSecurityHandlerFactory:
            return Security(pass_context_arg_name, contract, door)

        def _add_operation_internal(self, method: str, path: str, operation: Any) -> None:
            # An id is a UUID to the router too, so that /jobs/submit is not taken for a job and `Allow` is right.
            super()._add_operation_internal(method, IDS.sub(r"{uuid:\1}", path), operation)

    application = Application("runcast", options={"swagger_ui": False, "serve_spec": False})
    application.api_cls = Api
    web: flask.Flask = application.app
    web.json = StrictJson(web)
    web.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    application.add_api(
        dict(contract.openapi),
        base_path=BASE_PATH,
        resolver=HandlerResolver(contract, service),
        validator_map={"body": body_validator(contract), "parameter": parameter_validator(contract)},
        strict_validation=True,
    )
    for name, path in docs.assets().items():
        serve_file(web, f"{BASE_PATH}/docs/assets/{name}", path)
    add_pages(web)
    if validate_answers:
        web.after_request(lambda response: validated(contract, response))
    return web


def operation_id() -> str:
    """The operation that the current request is for; empty for an address outside of the contract."""
    rule = flask.request.url_rule
    return rule.endpoint.rpartition(".")[2] if rule else ""


class HandlerResolver(Resolver):  # type: ignore[misc]
    """Finds the function of an operation in `handlers`, and calls it with what it asks for by name."""

    def __init__(self, contract: Contract, service: Service) -> None:
        super().__init__()
        self._contract = contract
        self._service = service

    def resolve_function_from_operation_id(self, operation_id: str) -> Callable[..., flask.Response]:
        function = handlers.operation(operation_id)
        wanted = frozenset(inspect.signature(function).parameters)
        operation = self._contract.operations[operation_id]
        answers = self._contract.openapi["paths"][operation.path][operation.method]["responses"]
        offered = list(answers.get("200", {}).get("content", ()))

        def handle(**arguments: Any) -> flask.Response:
            if operation.scope is not None and not operation.takes_parameters and (faults := list(unknown_in_query(known=frozenset()))):
                # Connexion validates parameters only where there are some. Pages and health checks may be asked for with anything.
                raise InvalidRequest("The parameters do not match the contract.", faults=faults)
            given = {name: value for name, value in arguments.items() if name in wanted}
            given |= {argument: value for name, argument in header_arguments if (value := flask.request.headers.get(name)) is not None}
            if "caller" in wanted:
                given["caller"] = arguments["token_info"]["caller"]
            if "accept" in wanted:
                given["accept"] = flask.request.accept_mimetypes.best_match(offered) if flask.request.accept_mimetypes else offered[0]
            if "contract" in wanted:
                given["contract"] = self._contract
            if "address" in wanted:
                given["address"] = Address(flask.request.host, flask.request.is_secure, flask.request.script_root)
            answer = function(self._service, **given)
            if isinstance(answer.body, Iterator):
                line = flask.request.environ.get("gunicorn.socket")
                answer = replace(answer, body=while_good(answer.body, self._service.tokens, arguments["token_info"]["caller"], line))
            return to_response(answer)

        header_arguments = [(name, name.lower().replace("-", "_")) for name in operation.header_parameters]
        return handle


def while_good(parts: Iterator[bytes], tokens: Tokens, caller: Caller, line: Any) -> Iterator[bytes]:
    """A stream that may last as long as a job, and ends with the token that asked for it, or when the client has left."""
    for part in parts:
        if not part and has_left(line):
            return
        try:
            tokens.check(caller)
        except errors.Unauthenticated as error:
            yield f"[runcast: {error}]\n".encode()
            return
        if part:
            yield part


def to_response(answer: Answer) -> flask.Response:
    body = answer.body
    if answer.status in (204, 304):
        response = flask.Response(status=answer.status)
        response.headers.pop("Content-Type", None)
    elif isinstance(body, Iterator):
        response = flask.Response(body, answer.status, mimetype=answer.media_type, direct_passthrough=True)
    else:
        text = body if answer.media_type == "text/html" else to_json(body)
        response = flask.Response(text, answer.status, mimetype=answer.media_type)
    response.headers.update(answer.headers)
    return response


def to_json(value: Json) -> str:
    """As a line of its own, for those who call from a terminal."""
    return json.dumps(value) + "\n"


class StrictJson(DefaultJSONProvider):
    """JSON as two programs cannot understand it differently: no NaN, no infinity, and no key twice in an object."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return json.loads(s, parse_constant=_no_constant, object_pairs_hook=_no_key_twice, **kwargs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return made


class Security(FlaskSecurityHandlerFactory):  # type: ignore[misc]
    """Who calls, and whether the call is in the scope of the token."""

    def __init__(self, pass_context_arg_name: str | None, contract: Contract, door: Door) -> None:
        super().__init__(pass_context_arg_name)
        self._contract = contract
        self._door = door

    def get_bearerinfo_func(self, security_definition: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
        def authorised(token: str) -> Mapping[str, Any]:
            scope = self._contract.operations[operation_id()].scope
            caller = admit(self._door, token, None if scope == ANY else Scope(scope or Scope.ADMIN))
            return {"sub": caller.name, "caller": caller}

        return authorised


def admit(door: Door, token: str | None, scope: Scope | None) -> Caller:
    """Lets the client of this request in; without a scope any token will do. Raises Unauthenticated, RateLimited and Forbidden."""
    caller = flask.g.caller = door.open(token, address=address())
    door.count(caller)
    if scope is not None:
        require(caller, scope)
    return caller


def address() -> str:
    """Where the client of this request is: behind a proxy, the proxy."""
    return flask.request.remote_addr or "unknown"


def body_validator(contract: Contract) -> Callable[..., Callable[..., Any]]:
    """What Connexion calls a validator class: makes a decorator for the functions that take a request."""

    def make(*_: Any, **__: Any) -> Callable[..., Any]:
        def decorate(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def check(request: Any) -> Any:
                check_body(contract, request)
                return function(request)

            return check

        return decorate

    return make


def check_body(contract: Contract, request: Any) -> None:
    operation = contract.operations[operation_id()]
    # First, because a form is read as one, and looks like no body then.
    if not flask.request.is_json and _has_body():
        raise errors.UnsupportedMediaType("Send the body as application/json.")
    if not request.body:
        if operation.body_required:
            raise InvalidRequest("The request has no body.", faults=[Fault("body", "#", "is missing")])
        return
    if flask.request.content_length is None and len(request.body) >= BODY_BYTES:
        raise _too_large()  # cut off there, without a word
    try:
        body = flask.request.get_json()
    except (HTTPException, RecursionError, ValueError) as error:
        raise InvalidRequest("The body is not JSON.", faults=[Fault("body", "#", "is not JSON")]) from error
    if faults := contract.body_faults(operation.operation_id, body):
        raise InvalidRequest("The body does not match the contract.", faults=faults)


def _has_body() -> bool:
    return bool(flask.request.content_length) or "Transfer-Encoding" in flask.request.headers


def _too_large() -> errors.TooLarge:
    return errors.TooLarge(f"The body is larger than {BODY_BYTES} bytes.")


def parameter_validator(contract: Contract) -> type:
    from connexion.decorators.validation import ParameterValidator, TypeValidationError, coerce_type

    class Validator(ParameterValidator):  # type: ignore[misc]
        """Collects every fault instead of the first, and says where it is."""

        def __call__(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def check(request: Any) -> Any:
                if faults := list(self.faults(request)):
                    raise InvalidRequest("The parameters do not match the contract.", faults=faults)
                return function(request)

            return check

        def faults(self, request: Any) -> Iterator[Fault]:
            yield from unknown_in_query(known={parameter["name"] for parameter in self.parameters.get("query", [])})
            for parameter in self.parameters.get("query", []):
                if parameter["schema"].get("type") != "array" and len(flask.request.args.getlist(parameter["name"])) > 1:
                    yield Fault("query", parameter["name"], "is given more than once")
            values = {"query": request.query, "path": request.path_params, "header": request.headers}
            for location, given in values.items():
                for parameter in self.parameters.get(location, []):
                    yield from self.check_one(location, parameter, given.get(parameter["name"]))

        def check_one(self, location: str, parameter: Mapping[str, Any], value: Any) -> Iterator[Fault]:
            name = parameter["name"]
            if value is None:
                return
            try:
                value = coerce_type(parameter, str(value) if location == "path" else value, location, name)
            except TypeValidationError:
                yield Fault(location, name, f"is not of type {parameter['schema'].get('type')}")
                return
            yield from contract.parameter_faults(operation_id(), location, name, value)

    return Validator


def unknown_in_query(*, known: AbstractSet[str]) -> Iterator[Fault]:
    for name in sorted(set(flask.request.args) - known):
        yield Fault("query", name[:1000], "is not known here")


def answer_error(error: Exception) -> flask.Response:
    """Whatever was raised, as a problem."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    core = to_core_error(error)
    response = flask.Response(to_json(problem(core)), kind_of(core).status, mimetype="application/problem+json")
    response.headers.update(headers(core))
    return response


def to_core_error(error: Exception) -> Exception:
    """What the libraries raise, in our own words."""
    if isinstance(error, RuncastError):
        return error
    status = getattr(error, "code", None) or getattr(error, "status", None)
    if not isinstance(error, (HTTPException, ProblemException)) or not isinstance(status, int):
        return error
    if status == 404 and "job_id" not in (flask.request.view_args or ()):
        return errors.AddressNotFound(f"There is nothing at {flask.request.path[:200]}.")
    if status == 405:
        return errors.MethodNotAllowed(flask.request.method, sorted(getattr(error, "valid_methods", None) or ()))
    if status == 413:
        return _too_large()
    if status == 401:
        return errors.Unauthenticated(MISSING)
    detail = getattr(error, "description", None) or getattr(error, "detail", None) or str(error)
    return InvalidRequest(str(detail)) if status < 500 else error


def validated(contract: Contract, response: flask.Response) -> flask.Response:
    """The answer, or a fault of ours if the contract does not have it."""
    operation = operation_id()
    if operation not in contract.operations or flask.request.method in ("HEAD", "OPTIONS"):
        return response
    streamed = response.direct_passthrough or response.is_streamed
    body = b"" if streamed else response.get_data()
    faults = contract.answer_faults(operation, response.status_code, response.content_type, dict(response.headers), body)
    if not faults:
        return response
    return answer_error(RuntimeError(f"The answer to {operation} breaks the contract: {'; '.join(faults)}"))


def serve_file(web: flask.Flask, url: str, path: Any) -> None:
    web.add_url_rule(url, f"file_{url}", lambda: flask.send_file(path, conditional=True, max_age=3600))


def add_pages(web: flask.Flask) -> None:
    """The built page at `/` and the files of all built pages; `/` leads to Swagger UI where there is none."""
    page = pages.page("index")

    def get_page() -> flask.Response:
        if page is None:
            return flask.redirect("api/docs")  # type: ignore[return-value]
        response = send_built(page)
        response.headers["Cache-Control"] = "no-cache"  # it names the files of its own build
        return response

    web.add_url_rule("/", "page", get_page)
    for name, path in pages.assets().items():
        web.add_url_rule(f"/console/{name}", f"console_{name}", lambda path=path: send_built(path, max_age=pages.FOREVER_SECONDS))


def send_built(path: Path, *, max_age: int | None = None) -> flask.Response:
    """A file of the build; its compressed copy if there is one and the client takes it."""
    packed = path.with_name(f"{path.name}.gz")
    if not packed.is_file():
        return flask.send_file(path, conditional=True, max_age=max_age)
    if flask.request.accept_encodings.quality("gzip") > 0:
        # Not by its own name: a file that ends in .gz would be one to be saved.
        response = flask.send_file(packed, mimetype=mimetypes.guess_type(path.name)[0], conditional=True, max_age=max_age)
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = flask.send_file(path, conditional=True, max_age=max_age)
    if max_age is not None:
        response.cache_control.immutable = True
    response.vary.add("Accept-Encoding")
    return response


def add_metrics(web: flask.Flask, metrics: Metrics, door: Door) -> None:
    def get_metrics() -> flask.Response:
        kind, _, token = flask.request.headers.get("Authorization", "").partition(" ")
        admit(door, token.strip() if kind.lower() == "bearer" else None, Scope.READ)
        return flask.Response(metrics.text(), content_type=MEDIA_TYPE)

    web.add_url_rule("/metrics", "metrics", get_metrics)


def add_headers(web: flask.Flask, gate: Gate) -> None:
    """Leave for the pages that the operator named to read every answer."""

    def add(response: flask.Response) -> flask.Response:
        origin = flask.request.headers.get("Origin")
        if origin and gate.is_foreign(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Idempotency-Key, If-None-Match"
            response.headers["Access-Control-Expose-Headers"] = "ETag, Location, Retry-After, Idempotency-Replayed"
            response.headers.add("Vary", "Origin")
        return response

    web.after_request(add)


def add_audit(web: flask.Flask, contract: Contract, audit: Audit) -> None:
    """A line for each call that would change something, whatever came of it, and for each that was not let in."""
    changing = {name for name, operation in contract.operations.items() if operation.method != "get"}

    def note(response: flask.Response) -> flask.Response:
        caller: Caller | None = flask.g.get("caller")
        action = operation_id()
        if caller is None and response.status_code in (401, 429):
            audit.refused(action or "call", address=address(), outcome=outcome(response))
        elif caller is not None and action in changing and response.status_code == 429:
            audit.refused(action, by=caller.name, address=address(), outcome=outcome(response))
        elif caller is not None and action in changing:
            named = {name.removesuffix("_id"): str(value) for name, value in (flask.request.view_args or {}).items()}
            made = {"made": response.headers["Location"].rpartition("/")[2]} if "Location" in response.headers else {}
            audit.change(action, by=caller.name, address=address(), outcome=outcome(response), **named, **made)
        return response

    web.after_request(note)


def outcome(response: flask.Response) -> str:
    """The status, or what kind of problem it was."""
    if response.mimetype != "application/problem+json":
        return str(response.status_code)
    return str(json.loads(response.get_data())["type"]).removeprefix(PREFIX)


# -- Socket.IO ------------------------------------------------------------------------------------------------------------


class EncodedPacket:
    """An event as the transport sends it, made once for all clients."""

    def __init__(self, event: str, payload: Json) -> None:
        text = SocketPacket(EVENT, namespace="/", data=[event, payload]).encode()
        self.engine = EnginePacket(MESSAGE, data=text)
        self.size = len(text)


def make_encode(contract: Contract | None) -> Callable[[str, Json], Packet]:
    """With a contract, every event is held against it before it is sent."""

    def encode(event: str, payload: Json) -> Packet:
        if contract is not None and (faults := contract.event_faults(event, payload)):
            raise RuntimeError(f"The event {event} breaks the contract: {'; '.join(faults)}")
        return EncodedPacket(event, payload)

    return encode


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


class OnceConnected:
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


class SocketWire:
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
        # Not by the engine's own `disconnect`, which waits until the client has read what it got: one that never does would hold all of it.
        socket = self._engine.sockets.get(self._sid)
        if socket is not None:
            socket.close(wait=False, reason=self._engine.reason.SERVER_DISCONNECT)


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
    server._handle_connect = OnceConnected(server)

    def ended(engine_sid: str, reason: str) -> None:
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
        sockets.connected(sid, caller, SocketWire(server, sid))

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


# -- around both ----------------------------------------------------------------------------------------------------------


class Hardened:
    """Adds what every answer carries."""

    def __init__(self, inner: Wsgi) -> None:
        self._inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            given = {name.lower(): value for name, value in headers}
            data = given.get("content-type", "").startswith(("application/json", "application/problem+json", "text/plain"))
            policy = DATA_SECURITY_POLICY if data else CONTENT_SECURITY_POLICY
            wanted = {**HARDENING, "Content-Security-Policy": policy}
            missing = [(name, value) for name, value in wanted.items() if name.lower() not in given]
            return start_response(status, [*headers, *missing], *more)

        return self._inner(environ, start)


def refuse(error: RuncastError, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with a problem, where Flask is not there to do it."""
    status, body = HTTPStatus(kind_of(error).status), to_json(problem(error)).encode()
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))])
    return [body]


class GateKeeper:
    """Stands before HTTP and Socket.IO alike."""

    def __init__(self, inner: Wsgi, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            self._gate.check(host=environ.get("HTTP_HOST"), origin=environ.get("HTTP_ORIGIN"))
        except RuncastError as error:
            return refuse(error, start_response)
        return self._inner(environ, start_response)
