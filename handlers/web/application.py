"""HTTP: from Connexion, which routes by `openapi/jobs.yaml`, to a handler and back."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import connexion
import flask
from connexion.apis.flask_api import FlaskApi
from connexion.exceptions import ProblemException
from connexion.resolver import Resolver
from connexion.security import FlaskSecurityHandlerFactory
from flask.json.provider import DefaultJSONProvider
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException

import handlers
from handlers.access.audit import Audit
from handlers.access.auth import ANY, MISSING, Authenticator, HostCheck
from handlers.contract.document import Contract
from handlers.errors import AddressNotFound, InvalidRequest, MethodNotAllowed
from handlers.problems import PREFIX, headers, kind_of, problem
from handlers.representations import Address, Answer, to_json
from handlers.web import swagger
from handlers.web.body_timeout import BODY_BYTES
from handlers.web.metrics import MEDIA_TYPE, Metrics
from handlers.web.request import address, admit, operation_id
from handlers.web.static_files import add_pages, serve_file
from handlers.web.validation import answer_violations, body_validator, parameter_validator, too_large, unknown_in_query
from handlers.web.wsgi import has_left
from jobs.errors import RuncastError, Unauthenticated
from jobs.model import Caller, Scope
from jobs.service import Service
from jobs.store.tokens import Tokens

# What it reports as errors are those of clients, who are told; ours are exceptions.
logging.getLogger("connexion").setLevel(logging.CRITICAL)

BASE_PATH = "/api"
IDS = re.compile(r"\{(job_id|token_id)\}")


def make_web(contract: Contract, service: Service, door: Authenticator, *, validate_answers: bool) -> flask.Flask:
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
    for name, path in swagger.assets().items():
        serve_file(web, f"{BASE_PATH}/docs/assets/{name}", path)
    add_pages(web)
    if validate_answers:
        web.after_request(lambda response: validated(contract, response))
    return web


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
            if operation.scope is not None and not operation.takes_parameters and (violations := list(unknown_in_query(known=frozenset()))):
                # Connexion validates parameters only where there are some. Pages and health checks may be asked for with anything.
                raise InvalidRequest("The parameters do not match the contract.", violations=violations)
            given = {name: value for name, value in arguments.items() if name in wanted}
            given |= {argument: value for name, argument in header_arguments if (value := flask.request.headers.get(name)) is not None}
            if "caller" in wanted:
                given["caller"] = arguments["token_info"]["caller"]
            if "accept" in wanted:
                given["accept"] = best_of(offered, flask.request.accept_mimetypes)
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


def best_of(offered: Sequence[str], accepted: MIMEAccept) -> str | None:
    """Which of the media types the client likes best; None when it takes none of them. What it says besides a type, such as `charset`, does
    not count: there is one form of each."""
    if not accepted:
        return offered[0]
    return MIMEAccept([(wanted.partition(";")[0].strip(), quality) for wanted, quality in accepted]).best_match(offered)


def while_good(parts: Iterator[bytes], tokens: Tokens, caller: Caller, line: Any) -> Iterator[bytes]:
    """A stream that may last as long as a job, and ends with the token that asked for it, or when the client has left.

    An empty part passes as well: gunicorn sends the head of the answer with the first part, and the job may be silent for long.
    """
    for part in parts:
        if not part and has_left(line):
            return
        try:
            tokens.check(caller)
        except Unauthenticated as error:
            yield f"[runcast: {error}]\n".encode()
            return
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

    def __init__(self, pass_context_arg_name: str | None, contract: Contract, door: Authenticator) -> None:
        super().__init__(pass_context_arg_name)
        self._contract = contract
        self._door = door

    def get_bearerinfo_func(self, security_definition: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
        def authorised(token: str) -> Mapping[str, Any]:
            scope = self._contract.operations[operation_id()].scope
            caller = admit(self._door, token, None if scope == ANY else Scope(scope or Scope.ADMIN))
            return {"sub": caller.name, "caller": caller}

        return authorised


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
        return AddressNotFound(f"There is nothing at {flask.request.path[:200]}.")
    if status == 405:
        return MethodNotAllowed(flask.request.method, sorted(getattr(error, "valid_methods", None) or ()))
    if status == 413:
        return too_large()
    if status == 401:
        return Unauthenticated(MISSING)
    detail = getattr(error, "description", None) or getattr(error, "detail", None) or str(error)
    return InvalidRequest(str(detail)) if status < 500 else error


def validated(contract: Contract, response: flask.Response) -> flask.Response:
    """The answer, or an error of the server if it breaks the contract."""
    if violations := answer_violations(contract, response):
        return answer_error(RuntimeError(f"The answer to {operation_id()} breaks the contract: {'; '.join(violations)}"))
    return response


def add_metrics(web: flask.Flask, metrics: Metrics, door: Authenticator) -> None:
    def get_metrics() -> flask.Response:
        kind, _, token = flask.request.headers.get("Authorization", "").partition(" ")
        admit(door, token.strip() if kind.lower() == "bearer" else None, Scope.READ)
        return flask.Response(metrics.text(), content_type=MEDIA_TYPE)

    web.add_url_rule("/metrics", "metrics", get_metrics)


def add_headers(web: flask.Flask, gate: HostCheck) -> None:
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
