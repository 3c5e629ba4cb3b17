"""The Flask application, which Connexion routes by `openapi/jobs.yaml`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import connexion
import flask
from connexion.apis.flask_api import FlaskApi
from connexion.security import FlaskSecurityHandlerFactory
from flask.json.provider import DefaultJSONProvider

from handlers.access.audit import Audit
from handlers.access.auth import ANY, Authenticator, HostCheck
from handlers.contract.document import Contract
from handlers.problems import PREFIX
from handlers.web import swagger
from handlers.web.body_timeout import BODY_BYTES
from handlers.web.error_answers import answer_error, validated
from handlers.web.metrics import MEDIA_TYPE, Metrics
from handlers.web.request import authenticate, client_address, operation_id
from handlers.web.resolver import HandlerResolver, OperationFunction
from handlers.web.static_files import add_pages, serve_file
from handlers.web.validation import body_validator, parameter_validator
from jobs.model import Caller, Scope
from jobs.service import Service

# What Connexion logs as errors are errors of clients, who get an answer. Errors of the server are exceptions.
logging.getLogger("connexion").setLevel(logging.CRITICAL)

BASE_PATH = "/api"
IDS = re.compile(r"\{(job_id|token_id)\}")


def make_web(
    contract: Contract,
    service: Service,
    authenticator: Authenticator,
    *,
    functions: Mapping[str, OperationFunction],
    validate_answers: bool,
) -> flask.Flask:
    """The Flask application. `functions` has the function of each operationId."""

    class Application(connexion.FlaskApp):  # type: ignore[misc]
        def set_errors_handlers(self) -> None:
            self.app.register_error_handler(Exception, answer_error)

    class Api(FlaskApi):  # type: ignore[misc]
        @staticmethod
        def make_security_handler_factory(pass_context_arg_name: str | None) -> FlaskSecurityHandlerFactory:
            return Security(pass_context_arg_name, contract, authenticator)

        def _add_operation_internal(self, method: str, path: str, operation: Any) -> None:
            # The router knows that an id is a UUID, so that /jobs/submit is not taken for a job and the `Allow` header is right.
            super()._add_operation_internal(method, IDS.sub(r"{uuid:\1}", path), operation)

    application = Application("runcast", options={"swagger_ui": False, "serve_spec": False})
    application.api_cls = Api
    web: flask.Flask = application.app
    web.json = StrictJson(web)
    web.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    application.add_api(
        dict(contract.openapi),
        base_path=BASE_PATH,
        resolver=HandlerResolver(contract, service, functions),
        validator_map={"body": body_validator(contract), "parameter": parameter_validator(contract)},
        strict_validation=True,
    )
    for name, path in swagger.assets().items():
        serve_file(web, f"{BASE_PATH}/docs/assets/{name}", path)
    add_pages(web)
    if validate_answers:
        web.after_request(lambda response: validated(contract, response))
    return web


class StrictJson(DefaultJSONProvider):
    """Accepts only JSON that every program understands in the same way: no NaN, no infinity, no duplicate keys in an object."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return json.loads(s, parse_constant=_refuse_constant, object_pairs_hook=_object_without_duplicates, **kwargs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return made


class Security(FlaskSecurityHandlerFactory):  # type: ignore[misc]
    """Authenticates the caller, and checks that the token has the scope that the operation needs."""

    def __init__(self, pass_context_arg_name: str | None, contract: Contract, authenticator: Authenticator) -> None:
        super().__init__(pass_context_arg_name)
        self._contract = contract
        self._authenticator = authenticator

    def get_bearerinfo_func(self, security_definition: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
        def authorised(token: str) -> Mapping[str, Any]:
            scope = self._contract.operations[operation_id()].scope
            caller = authenticate(self._authenticator, token, None if scope == ANY else Scope(scope or Scope.ADMIN))
            return {"sub": caller.name, "caller": caller}

        return authorised


def add_metrics(web: flask.Flask, metrics: Metrics, authenticator: Authenticator) -> None:
    """`/metrics`, which is outside of the contract."""

    def get_metrics() -> flask.Response:
        kind, _, token = flask.request.headers.get("Authorization", "").partition(" ")
        authenticate(authenticator, token.strip() if kind.lower() == "bearer" else None, Scope.READ)
        return flask.Response(metrics.text(), content_type=MEDIA_TYPE)

    web.add_url_rule("/metrics", "metrics", get_metrics)


def add_headers(web: flask.Flask, host_check: HostCheck) -> None:
    """Headers with which a browser lets pages from the origins that the operator allowed read every answer (CORS)."""

    def add(response: flask.Response) -> flask.Response:
        origin = flask.request.headers.get("Origin")
        if origin and host_check.is_allowed_origin(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Idempotency-Key, If-None-Match"
            response.headers["Access-Control-Expose-Headers"] = "ETag, Location, Retry-After, Idempotency-Replayed"
            response.headers.add("Vary", "Origin")
        return response

    web.after_request(add)


def add_audit(web: flask.Flask, contract: Contract, audit: Audit) -> None:
    """An audit line for each call that would change something, whatever its outcome, and for each call that was refused."""
    changing = {name for name, operation in contract.operations.items() if operation.method != "get"}

    def log(response: flask.Response) -> flask.Response:
        caller: Caller | None = flask.g.get("caller")
        action = operation_id()
        if caller is None and response.status_code in (401, 429):
            audit.refused(action or "call", address=client_address(), outcome=outcome(response))
        elif caller is not None and action in changing and response.status_code == 429:
            audit.refused(action, by=caller.name, address=client_address(), outcome=outcome(response))
        elif caller is not None and action in changing:
            named = {name.removesuffix("_id"): str(value) for name, value in (flask.request.view_args or {}).items()}
            made = {"made": response.headers["Location"].rpartition("/")[2]} if "Location" in response.headers else {}
            audit.change(action, by=caller.name, address=client_address(), outcome=outcome(response), **named, **made)
        return response

    web.after_request(log)


def outcome(response: flask.Response) -> str:
    """The status, or the kind of the problem."""
    if response.mimetype != "application/problem+json":
        return str(response.status_code)
    return str(json.loads(response.get_data())["type"]).removeprefix(PREFIX)
