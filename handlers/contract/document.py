"""The two contracts as the server uses them: read once, compiled once, and held against the code.

Says whether what comes in or goes out matches, and where it does not. It never changes a document, and knows neither Flask nor Socket.IO.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import yaml
from jsonschema_rs import Draft202012Validator, ReferencingError, Registry, ValidationError

from handlers.contract.wording import Checker, ChoiceChecker, not_json
from handlers.errors import ContractError
from jobs.errors import Violation
from jobs.model import Json

OPENAPI = "openapi/jobs.yaml"
ASYNCAPI = "openapi/jobs.asyncapi.yaml"
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_BASE = "contract:///"  # the documents refer to each other by file name, relative to this


@dataclass(frozen=True)
class Operation:
    """One call of the HTTP contract. `scope` is None when it needs no token; `body` is the schema of the JSON body, None without one."""

    operation_id: str
    method: str
    path: str
    scope: str | None
    takes_parameters: bool
    header_parameters: tuple[str, ...]
    body: Mapping[str, Json] | None
    body_required: bool


@dataclass(frozen=True)
class _Place:
    """A node of a document and its address there, by which validators find it."""

    address: str
    node: Any

    def __truediv__(self, step: str | int) -> _Place:
        escaped = str(step).replace("~", "~0").replace("/", "~1")
        try:
            node = self.node[step]
        except (LookupError, TypeError):
            raise ContractError(f"{self}: {step} is missing") from None
        return _Place(f"{self.address}/{quote(escaped, safe='~')}", node)

    def __str__(self) -> str:
        return f"openapi/{self.address.removeprefix(_BASE)}"


@dataclass(frozen=True)
class _Source:
    """One document, to walk it and to follow its references."""

    file: str
    document: Mapping[str, Json]

    @property
    def uri(self) -> str:
        return _BASE + self.file.rpartition("/")[2]

    def at(self, *steps: str | int) -> _Place:
        """The place that the steps lead to, references followed on the way and at the end."""
        return self.down(_Place(self.uri + "#", self.document), *steps)

    def down(self, place: _Place, *steps: str | int) -> _Place:
        place = self._followed(place)
        for step in steps:
            place = self._followed(place / step)
        return place

    def refer(self, reference: str) -> _Place:
        """The place that a reference within the document leads to."""
        try:
            return self.at(*(step.replace("~1", "/").replace("~0", "~") for step in reference.removeprefix("#/").split("/")))
        except ContractError:
            raise ContractError(f"{self.file} refers to {reference}, which is not there") from None

    def _followed(self, place: _Place) -> _Place:
        # A reference into the other document stays as it is: the validators follow it.
        while isinstance(place.node, Mapping) and str(place.node.get("$ref", "")).startswith("#"):
            place = self.refer(place.node["$ref"])
        return place


@contextmanager
def _no_contract() -> Iterator[None]:
    """Turns whatever a malformed document makes the reader raise into a ContractError, although its place is not known here."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"{OPENAPI} and {ASYNCAPI} are not the contracts of a server: {type(error).__name__}: {error}") from error


class Contract:
    """Both contracts. Make it with `load`."""

    def __init__(self, *, openapi: Mapping[str, Json], asyncapi: Mapping[str, Json]) -> None:
        self.openapi = openapi
        self.asyncapi = asyncapi
        self._http = _Source(OPENAPI, openapi)
        self._events = _Source(ASYNCAPI, asyncapi)
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
        """The contracts that ship with this package; read once a process. Raises ContractError."""
        return _load()

    @classmethod
    def of(cls, *, openapi: Mapping[str, Json], asyncapi: Mapping[str, Json]) -> Contract:
        """Raises ContractError, whatever is wrong with them."""
        with _no_contract():
            return cls(openapi=openapi, asyncapi=asyncapi)

    # What clients send

    def body_violations(self, operation_id: str, body: Json) -> list[Violation]:
        """The faulty places of a parsed JSON body; none for an operation that takes no body."""
        checker = self._bodies.get(operation_id)
        return _client_violations(checker, body) if checker else []

    def parameter_violations(self, operation_id: str, location: str, name: str, value: Json) -> list[Violation]:
        """What is wrong with a parameter's value, which is already of its type: a string that should have been a number is a violation.

        The pointer is the parameter's name.
        """
        checker = self._parameters.get((operation_id, location, name.lower() if location == "header" else name))
        if checker is None:
            return [Violation(location, name, "is not known here")]
        return [Violation(location, name, place.detail) for place in checker(value)]

    def message_violations(self, event: str, payload: Json) -> list[Violation]:
        """The faulty places of what a client sent with an event; for `connect` the payload is `auth`."""
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
        # `default` stands for what goes wrong, never for a success that nobody wrote down.
        name = str(status) if str(status) in responses.node else "default"
        if name == "default" and (status < 400 or name not in responses.node):
            return [f"status {status} is not documented"]
        response = self._http.down(responses, name)
        return [*self._header_violations(response, headers), *self._content_violations(response, content_type, body)]

    def _header_violations(self, response: _Place, headers: Mapping[str, str]) -> Iterator[str]:
        given = {name.lower(): value for name, value in headers.items()}
        for name in response.node.get("headers", {}):
            header = self._http.down(response, "headers", name)
            value: Json = given.get(name.lower())
            if value is None:
                if header.node.get("required"):
                    yield f"the header {name} is missing"
                continue
            schema = self._http.down(header, "schema")
            if schema.node.get("type") == "integer" and value.isdecimal():
                value = int(value)
            yield from (f"the header {name}: {place.detail}" for place in self._checker(schema)(value))

    def _content_violations(self, response: _Place, content_type: str | None, body: bytes) -> Iterator[str]:
        content = response.node.get("content", {})
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

    # Contract and code

    def agree(
        self,
        *,
        handlers: AbstractSet[str],
        events_in: AbstractSet[str],
        events_out: AbstractSet[str],
        problem_types: AbstractSet[str],
        statuses: AbstractSet[str],
        reasons: AbstractSet[str],
        job_types: AbstractSet[str],
        waiting_for: AbstractSet[str],
        streams: AbstractSet[str],
        scopes: AbstractSet[str],
    ) -> None:
        """Raise ContractError with the first thing that only one side knows. Problem types are the whole URNs."""
        self._check_references()
        model = "jobs/model.py"
        for kind, document, documented, place, coded in (
            ("operation", OPENAPI, set(self.operations), "handlers", handlers),
            ("event from clients", ASYNCAPI, self.events_in, "handlers", events_in),
            ("event to clients", ASYNCAPI, self.events_out, "handlers", events_out),
            ("problem type", OPENAPI, self._enum("ProblemType"), "handlers/problems.py", problem_types),
            ("status", OPENAPI, self._enum("Status"), model, statuses),
            ("reason", OPENAPI, self._enum("Reason"), model, reasons),
            ("job type", OPENAPI, self._enum("JobType"), model, job_types),
            ("waiting_for value", OPENAPI, self._enum("Job", "properties", "waiting_for"), model, waiting_for),
            ("stream", OPENAPI, self._enum("Stream"), model, streams),
            ("scope", OPENAPI, self._enum("Scope"), model, scopes),
        ):
            names = {str(name) for name in coded}
            for name in sorted(documented - names):
                raise ContractError(f"{document} has the {kind} {name}, but {place} has not")
            for name in sorted(names - documented):
                raise ContractError(f"{place} has the {kind} {name}, but {document} has not")

    def _check_references(self) -> None:
        """Those of answers, too, which nobody follows before the first such answer."""
        for source in (self._http, self._events):
            for reference in _references(source.document):
                file, _, pointer = reference.partition("#")
                try:
                    (self._http if file else source).refer(f"#{pointer}")
                except ContractError:
                    raise ContractError(f"{source.file} refers to {reference}, which is not there") from None

    def published_asyncapi(self, *, host: str, secure: bool = False, prefix: str = "") -> dict[str, Json]:
        """The events document as a client may load it: with the server that it asked, and `openapi.json` for the `jobs.yaml` beside it."""
        document: dict[str, Json] = _with_references(self.asyncapi, "jobs.yaml#", "openapi.json#")
        server = document["servers"]["this"]
        server.update(host=host, pathname=prefix + server["pathname"], protocol="wss" if secure else "ws")
        return document

    def params_schema(self, job_type: str) -> dict[str, Json]:
        """The JSON Schema of a built-in job type's `params`, with nothing referred to outside of it."""
        submissions = self._http.at("components", "schemas", "Submission", "discriminator", "mapping")
        params = self._http.down(self._http.refer(submissions.node[job_type]), "properties", "params")
        schema: dict[str, Json] = json_schema(self._inlined(params.node))
        return schema

    # Reading the documents

    def _inlined(self, node: Any) -> Any:
        if isinstance(node, Mapping):
            if str(node.get("$ref", "")).startswith("#"):
                return self._inlined(self._http.refer(node["$ref"]).node)
            return {key: self._inlined(value) for key, value in node.items()}
        return [self._inlined(value) for value in node] if isinstance(node, list) else node

    def _read_operations(self) -> Iterator[Operation]:
        for path, item in self.openapi["paths"].items():
            for method in METHODS:
                if method in item:
                    yield self._read_operation(path, method, item)

    def _read_operation(self, path: str, method: str, item: Mapping[str, Json]) -> Operation:
        operation = item[method]
        if "operationId" not in operation:
            raise ContractError(f"{OPENAPI}: {method.upper()} {path} has no operationId")
        if operation.get("security") != [] and "x-scope" not in operation:
            raise ContractError(f"{OPENAPI}: {operation['operationId']} names no x-scope, nor that it needs no token")
        body = operation.get("requestBody")
        return Operation(
            operation_id=operation["operationId"],
            method=method,
            path=path,
            scope=operation.get("x-scope"),
            takes_parameters=any(True for _ in self._parameters_of(path, method)),
            header_parameters=tuple(p.node["name"] for p in self._parameters_of(path, method) if p.node["in"] == "header"),
            body=body and body["content"]["application/json"]["schema"],
            body_required=bool(body) and body.get("required", False),
        )

    def _parameters_of(self, path: str, method: str) -> Iterator[_Place]:
        for place in (self._http.at("paths", path), self._http.at("paths", path, method)):
            for index in range(len(place.node.get("parameters", ()))):
                yield self._http.down(place, "parameters", index)

    def _read_parameters(self) -> Iterator[tuple[tuple[str, str, str], Checker]]:
        for operation in self.operations.values():
            for parameter in self._parameters_of(operation.path, operation.method):
                name, location = parameter.node["name"], parameter.node["in"]
                key = operation.operation_id, location, name.lower() if location == "header" else name
                yield key, self._checker(self._http.down(parameter, "schema"))

    def _body_checker(self, operation: Operation) -> Checker | ChoiceChecker:
        schema = self._http.at("paths", operation.path, operation.method, "requestBody", "content", "application/json", "schema")
        discriminator = schema.node.get("discriminator")
        if discriminator is None:
            return self._checker(schema)
        mapping = self._http.down(schema, "discriminator", "mapping")
        choices = {name: self._checker(self._http.refer(reference)) for name, reference in mapping.node.items()}
        return ChoiceChecker(discriminator["propertyName"], choices)

    def _read_messages(self) -> Iterator[tuple[str, Checker | None]]:
        """The name of every message, which is the event's, and what checks its payload, if it has one."""
        messages = self._events.at("components", "messages")
        for key, message in messages.node.items():
            has_payload = "payload" in message
            yield message["name"], self._checker(self._events.down(messages, key, "payload", "schema")) if has_payload else None

    def _read_replies(self) -> Iterator[tuple[str, Checker | None]]:
        for operation in self._events.at("operations").node:
            place = self._events.at("operations", operation)
            for index in range(len(place.node.get("reply", {}).get("messages", ()))):
                name = self._events.down(place, "reply", "messages", index).node["name"]
                yield from ((event, self._messages[name]) for event in self._events_of_operation(place))

    def _events_of(self, action: str) -> frozenset[str]:
        places = (self._events.at("operations", operation) for operation in self._events.at("operations").node)
        return frozenset(event for place in places if place.node["action"] == action for event in self._events_of_operation(place))

    def _events_of_operation(self, operation: _Place) -> Iterator[str]:
        for index in range(len(operation.node["messages"])):
            yield self._events.down(operation, "messages", index).node["name"]

    def _enum(self, *steps: str) -> set[str]:
        schema = self._http.refer("/".join(("#/components/schemas", *steps))).node
        if "enum" not in schema:
            raise ContractError(f"{OPENAPI}: {' '.join(steps)} has no enum")
        with _no_contract():
            return {value for value in schema["enum"] if value is not None}

    def _checker(self, schema: _Place) -> Checker:
        if schema.address not in self._compiled:
            try:
                validator = Draft202012Validator({"$ref": schema.address}, validate_formats=True, registry=self._registry)
            except (ValidationError, ReferencingError, ValueError) as error:
                raise ContractError(f"{schema.address.removeprefix(_BASE)}: {' '.join(str(error).split())}") from None
            self._compiled[schema.address] = Checker(validator)
        return self._compiled[schema.address]


def json_schema(node: Any) -> Any:
    """The node with every OpenAPI 3.0 schema in it as JSON Schema: `nullable` becomes a type. All else means the same in both."""
    if isinstance(node, Mapping):
        converted = {key: json_schema(value) for key, value in node.items()}
        return _nullable(converted) if converted.get("nullable") is True else converted
    return [json_schema(value) for value in node] if isinstance(node, list) else node


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    del schema["nullable"]
    if not isinstance(schema.get("type"), str) or any(word in schema for word in ("allOf", "anyOf", "oneOf", "$ref")):
        return {"anyOf": [schema, {"type": "null"}]}
    schema["type"] = [schema["type"], "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _references(value)


def _with_references(node: Any, old: str, new: str) -> Any:
    if isinstance(node, Mapping):
        return {
            key: new + value.removeprefix(old) if key == "$ref" and value.startswith(old) else _with_references(value, old, new)
            for key, value in node.items()
        }
    return [_with_references(value, old, new) for value in node] if isinstance(node, list) else node


def _client_violations(checker: Checker | ChoiceChecker, value: Json) -> list[Violation]:
    if reason := not_json(value):
        return [Violation("body", "#", reason)]
    return [Violation("body", place.pointer, place.detail) for place in checker(value)]


def _lines(checker: Checker | None, value: Json) -> list[str]:
    return [f"{place.pointer}: {place.detail}" for place in checker(value)] if checker else []


def _read(file: str) -> dict[str, Json]:
    try:
        text = files("openapi").joinpath(file.rpartition("/")[2]).read_text(encoding="utf-8")
        # libyaml reads the two files in a tenth of the time; it is in every wheel, but not in every distribution's build.
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ModuleNotFoundError) as error:
        raise ContractError(f"{file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ContractError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ContractError(f"{file} is not a contract")
    return document


@cache
def _load() -> Contract:
    return Contract.of(openapi=_read(OPENAPI), asyncapi=_read(ASYNCAPI))
