"""Validates requests, and in tests answers. Connexion's own validators, which this replaces, report only the first violation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import flask
from connexion.decorators.validation import ParameterValidator, TypeValidationError, coerce_type
from werkzeug.exceptions import HTTPException

from handlers.contract.document import Contract
from handlers.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from handlers.web.body_timeout import BODY_BYTES
from handlers.web.request import operation_id
from jobs.errors import Violation


def body_validator(contract: Contract) -> Callable[..., Callable[..., Any]]:
    """A validator class, as Connexion calls it: makes a decorator for the functions that take a request."""

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
    # First, because Flask reads a form at once, and the body seems empty afterwards.
    if not flask.request.is_json and _has_body():
        raise UnsupportedMediaType("Send the body as application/json.")
    if not request.body:
        if operation.body_required:
            raise InvalidRequest("The request has no body.", violations=[Violation("body", "#", "is missing")])
        return
    if flask.request.content_length is None and len(request.body) >= BODY_BYTES:
        raise too_large()  # a body without a length is cut off there without an error
    try:
        body = flask.request.get_json()
    except (HTTPException, RecursionError, ValueError) as error:
        raise InvalidRequest("The body is not JSON.", violations=[Violation("body", "#", "is not JSON")]) from error
    if violations := contract.body_violations(operation.operation_id, body):
        raise InvalidRequest("The body does not match the contract.", violations=violations)


def _has_body() -> bool:
    return bool(flask.request.content_length) or "Transfer-Encoding" in flask.request.headers


def too_large() -> TooLarge:
    return TooLarge(f"The body is larger than {BODY_BYTES} bytes.")


def parameter_validator(contract: Contract) -> type:
    class Validator(ParameterValidator):  # type: ignore[misc]
        """Collects every violation, with its place, instead of the first."""

        def __call__(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def check(request: Any) -> Any:
                if violations := list(self.violations(request)):
                    raise InvalidRequest("The parameters do not match the contract.", violations=violations)
                return function(request)

            return check

        def violations(self, request: Any) -> Iterator[Violation]:
            yield from unknown_in_query(known={parameter["name"] for parameter in self.parameters.get("query", [])})
            for parameter in self.parameters.get("query", []):
                if parameter["schema"].get("type") != "array" and len(flask.request.args.getlist(parameter["name"])) > 1:
                    yield Violation("query", parameter["name"], "is given more than once")
            values = {"query": request.query, "path": request.path_params, "header": request.headers}
            for location, given in values.items():
                for parameter in self.parameters.get(location, []):
                    yield from self.check_one(location, parameter, given.get(parameter["name"]))

        def check_one(self, location: str, parameter: Mapping[str, Any], value: Any) -> Iterator[Violation]:
            name = parameter["name"]
            if value is None:
                return
            try:
                value = coerce_type(parameter, str(value) if location == "path" else value, location, name)
            except TypeValidationError:
                yield Violation(location, name, f"is not of type {parameter['schema'].get('type')}")
                return
            yield from contract.parameter_violations(operation_id(), location, name, value)

    return Validator


def unknown_in_query(*, known: AbstractSet[str]) -> Iterator[Violation]:
    for name in sorted(set(flask.request.args) - known):
        yield Violation("query", name[:1000], "is unknown")


def answer_violations(contract: Contract, response: flask.Response) -> list[str]:
    """How an answer breaks the contract of its operation."""
    operation = operation_id()
    if operation not in contract.operations or flask.request.method in ("HEAD", "OPTIONS"):
        return []
    streamed = response.direct_passthrough or response.is_streamed
    body = b"" if streamed else response.get_data()
    return contract.answer_violations(operation, response.status_code, response.content_type, dict(response.headers), body)
