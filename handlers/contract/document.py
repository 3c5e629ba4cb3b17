"""The two contracts as the server uses them: whether a value matches, and where it does not.

Never changes a document. Knows neither Flask nor Socket.IO, and nothing of the code that the contracts are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsonschema_rs import Draft202012Validator, ReferencingError, Registry, ValidationError

from handlers.contract.json_schema import json_schema
from handlers.contract.source import (
    ASYNCAPI,
    BASE,
    OPENAPI,
    Node,
    Source,
    check_references,
    malformed_as_contract_error,
    read,
    with_references,
)
from handlers.contract.wording import Checker, ChoiceChecker, not_json
from handlers.errors import ContractError
from jobs.errors import Violation
from jobs.model import Json

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


@dataclass(frozen=True)
class Operation:
    """An operation of the HTTP contract. `scope` is None when it needs no token. `body` is the schema of the JSON body, if it has one."""

    operation_id: str
    tag: str
    method: str
    path: str
    scope: str | None
    takes_parameters: bool
    header_parameters: tuple[str, ...]
    body: Mapping[str, Json] | None
    body_required: bool


class Contract:
    """Both contracts. Make it with `load`."""

    def __init__(self, *, openapi: Mapping[str, Json], asyncapi: Mapping[str, Json]) -> None:
        self.openapi = openapi
        self.asyncapi = asyncapi
        self._http = Source(OPENAPI, openapi)
        self._events = Source(ASYNCAPI, asyncapi)
        sources = (self._http, self._events)
        self._registry = Registry([(source.uri, json_schema(source.document)) for source in sources])
        self._compiled: dict[str, Checker] = {}
        self.operations = {operation.operation_id: operation for operation in self._read_operations()}
        self._bodies = {name: self._body_checker(operation) for name, operation in self.operations.items() if operation.body is not None}
        self._parameters = dict(self._read_parameters())
        self._messages = dict(self._read_messages())
        self._replies = dict(self._read_replies())
        self.events_in = self._events_of("receive")
        self.events_out = self._events_of("send")

    @classmethod
    def load(cls) -> Contract:
        """The contracts that ship with this package; read once in a process. Raises ContractError."""
        return _load()

    @classmethod
    def of(cls, *, openapi: Mapping[str, Json], asyncapi: Mapping[str, Json]) -> Contract:
        """Raises ContractError, whatever is wrong with them."""
        with malformed_as_contract_error():
            return cls(openapi=openapi, asyncapi=asyncapi)

    # What clients send

    def body_violations(self, operation_id: str, body: Json) -> list[Violation]:
        """Where a parsed JSON body breaks its schema; nothing for an operation that takes no body."""
        checker = self._bodies.get(operation_id)
        return _client_violations(checker, body) if checker else []

    def parameter_violations(self, operation_id: str, location: str, name: str, value: Json) -> list[Violation]:
        """What is wrong with a parameter's value, which already has its type: a string in place of a number is a violation.

        The pointer is the parameter's name.
        """
        checker = self._parameters.get((operation_id, location, name.lower() if location == "header" else name))
        if checker is None:
            return [Violation(location, name, "is unknown")]
        return [Violation(location, name, violation.detail) for violation in checker(value)]

    def message_violations(self, event: str, payload: Json) -> list[Violation]:
        """Where the payload of an event from a client breaks its schema; for `connect` the payload is `auth`."""
        if event not in self.events_in:
            return [Violation("body", "#", f"there is no event {json.dumps(event[:100])}")]
        checker = self._messages[event]
        return _client_violations(checker, payload) if checker else []

    # What the server sends

    def event_violations(self, event: str, payload: Json) -> list[str]:
        """What is wrong with an event for a client."""
        if event not in self.events_out:
            return [f"there is no event {event!r} from server to client"]
        return _lines(self._messages[event], payload)

    def ack_violations(self, event: str, payload: Json) -> list[str]:
        """What is wrong with the acknowledgement of an event; for `connect`, with the refusal."""
        if event not in self._replies:
            return [f"the event {event!r} has no acknowledgement"]
        return _lines(self._replies[event], payload)

    def answer_violations(
        self, operation_id: str, status: int, content_type: str | None, headers: Mapping[str, str], body: bytes
    ) -> list[str]:
        """What is wrong with an HTTP answer: its status, media type, headers or JSON body. Raises KeyError for an unknown operation."""
        operation = self.operations[operation_id]
        responses = self._http.at("paths", operation.path, operation.method, "responses")
        # `default` stands for errors, never for a success that is not documented.
        name = str(status) if str(status) in responses.value else "default"
        if name == "default" and (status < 400 or name not in responses.value):
            return [f"status {status} is not documented"]
        response = self._http.down(responses, name)
        return [*self._header_violations(response, headers), *self._content_violations(response, content_type, body)]

    def _header_violations(self, response: Node, headers: Mapping[str, str]) -> Iterator[str]:
        given = {name.lower(): value for name, value in headers.items()}
        for name in response.value.get("headers", {}):
            header = self._http.down(response, "headers", name)
            value: Json = given.get(name.lower())
            if value is None:
                if header.value.get("required"):
                    yield f"the header {name} is missing"
                continue
            schema = self._http.down(header, "schema")
            if schema.value.get("type") == "integer" and value.isdecimal():
                value = int(value)
            yield from (f"the header {name}: {violation.detail}" for violation in self._checker(schema)(value))

    def _content_violations(self, response: Node, content_type: str | None, body: bytes) -> Iterator[str]:
        content = response.value.get("content", {})
        media_type = (content_type or "").partition(";")[0].strip().lower()
        if not content:
            if body:
                yield "a body is not documented"
        elif media_type not in content:
            yield f"media type {media_type or 'none'} is not documented"
        elif media_type.endswith("json"):
            try:
                value = json.loads(body)
            except ValueError:
                yield "the body is not JSON"
            else:
                yield from _lines(self._checker(self._http.down(response, "content", media_type, "schema")), value)

    # What the contracts say

    def check_references(self) -> None:
        """Raises ContractError for the first reference that leads nowhere."""
        check_references(self._http, self._events)

    def enum(self, schema: str, *steps: str) -> frozenset[str]:
        """The values of the enum at a named schema, or at the steps below it, without null. Raises ContractError."""
        with malformed_as_contract_error():
            node = self._http.at("components", "schemas", schema, *steps)
            if "enum" not in node.value:
                raise ContractError(f"{node} has no enum")
            return frozenset(value for value in node.value["enum"] if value is not None)

    def published_asyncapi(self, *, host: str, secure: bool = False, prefix: str = "") -> dict[str, Json]:
        """The events contract as a client may load it: with the server that it asked, and `openapi.json` in place of `jobs.yaml`."""
        document: dict[str, Json] = with_references(self.asyncapi, "jobs.yaml#", "openapi.json#")
        server = document["servers"]["this"]
        server.update(host=host, pathname=prefix + server["pathname"], protocol="wss" if secure else "ws")
        return document

    def params_schema(self, job_type: str) -> dict[str, Json]:
        """The JSON Schema of a built-in job type's `params`, without references."""
        submissions = self._http.at("components", "schemas", "Submission", "discriminator", "mapping")
        params = self._http.down(self._http.refer(submissions.value[job_type]), "properties", "params")
        schema: dict[str, Json] = json_schema(self._http.inlined(params.value))
        return schema

    # Reading the documents

    def _read_operations(self) -> Iterator[Operation]:
        for path, item in self.openapi["paths"].items():
            for method in METHODS:
                if method in item:
                    yield self._read_operation(path, method, item[method])

    def _read_operation(self, path: str, method: str, operation: Mapping[str, Json]) -> Operation:
        operation_id = operation.get("operationId")
        if not isinstance(operation_id, str):
            raise ContractError(f"{OPENAPI}: {method.upper()} {path} has no operationId")
        if operation.get("security") != [] and "x-scope" not in operation:
            raise ContractError(f"{OPENAPI}: {operation_id} needs an x-scope, or `security: []` when it needs no token")
        body = operation.get("requestBody")
        return Operation(
            operation_id=operation_id,
            tag=_only_tag(operation_id, operation.get("tags")),
            method=method,
            path=path,
            scope=operation.get("x-scope"),
            takes_parameters=any(True for _ in self._parameters_of(path, method)),
            header_parameters=tuple(p.value["name"] for p in self._parameters_of(path, method) if p.value["in"] == "header"),
            body=body and body["content"]["application/json"]["schema"],
            body_required=bool(body and body.get("required", False)),
        )

    def _parameters_of(self, path: str, method: str) -> Iterator[Node]:
        for node in (self._http.at("paths", path), self._http.at("paths", path, method)):
            for index in range(len(node.value.get("parameters", ()))):
                yield self._http.down(node, "parameters", index)

    def _read_parameters(self) -> Iterator[tuple[tuple[str, str, str], Checker]]:
        for operation in self.operations.values():
            for parameter in self._parameters_of(operation.path, operation.method):
                name, location = parameter.value["name"], parameter.value["in"]
                key = operation.operation_id, location, name.lower() if location == "header" else name
                yield key, self._checker(self._http.down(parameter, "schema"))

    def _body_checker(self, operation: Operation) -> Checker | ChoiceChecker:
        schema = self._http.at("paths", operation.path, operation.method, "requestBody", "content", "application/json", "schema")
        discriminator = schema.value.get("discriminator")
        if discriminator is None:
            return self._checker(schema)
        mapping = self._http.down(schema, "discriminator", "mapping")
        choices = {name: self._checker(self._http.refer(reference)) for name, reference in mapping.value.items()}
        return ChoiceChecker(discriminator["propertyName"], choices)

    def _read_messages(self) -> Iterator[tuple[str, Checker | None]]:
        """The name of every message, which is the event's, and the checker of its payload, if it has one."""
        messages = self._events.at("components", "messages")
        for key, message in messages.value.items():
            has_payload = "payload" in message
            yield message["name"], self._checker(self._events.down(messages, key, "payload", "schema")) if has_payload else None

    def _read_replies(self) -> Iterator[tuple[str, Checker | None]]:
        for operation in self._events.at("operations").value:
            node = self._events.at("operations", operation)
            for index in range(len(node.value.get("reply", {}).get("messages", ()))):
                name = self._events.down(node, "reply", "messages", index).value["name"]
                yield from ((event, self._messages[name]) for event in self._events_of_operation(node))

    def _events_of(self, action: str) -> frozenset[str]:
        nodes = (self._events.at("operations", operation) for operation in self._events.at("operations").value)
        return frozenset(event for node in nodes if node.value["action"] == action for event in self._events_of_operation(node))

    def _events_of_operation(self, operation: Node) -> Iterator[str]:
        for index in range(len(operation.value["messages"])):
            yield self._events.down(operation, "messages", index).value["name"]

    def _checker(self, schema: Node) -> Checker:
        if schema.address not in self._compiled:
            try:
                validator = Draft202012Validator({"$ref": schema.address}, validate_formats=True, registry=self._registry)
            except (ValidationError, ReferencingError, ValueError) as error:
                raise ContractError(f"{schema.address.removeprefix(BASE)}: {' '.join(str(error).split())}") from None
            self._compiled[schema.address] = Checker(validator)
        return self._compiled[schema.address]


def _only_tag(operation_id: str, tags: Any) -> str:
    match tags:
        case [str(tag)]:
            return tag
    raise ContractError(f"{OPENAPI}: {operation_id} needs exactly one tag")


def _client_violations(checker: Checker | ChoiceChecker, value: Json) -> list[Violation]:
    if reason := not_json(value):
        return [Violation("body", "#", reason)]
    return [Violation("body", violation.pointer, violation.detail) for violation in checker(value)]


def _lines(checker: Checker | None, value: Json) -> list[str]:
    return [f"{violation.pointer}: {violation.detail}" for violation in checker(value)] if checker else []


@cache
def _load() -> Contract:
    return Contract.of(openapi=read(OPENAPI), asyncapi=read(ASYNCAPI))
