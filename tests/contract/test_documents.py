"""Both documents, held against their official validators and against what those do not look at: examples, references, bounds, descriptions.

Examples are validated by a library that the server does not use, so that a fault of ours in reading a schema shows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from referencing import Registry
from referencing.jsonschema import DRAFT4

from jobs.model import ENDED
from support.compatibility import LOADER

ROOT = Path(__file__).parents[2]
NODE_TOOLS = ROOT / "tests" / "node" / "run.py"
FILES = ("jobs.yaml", "jobs.asyncapi.yaml")
DOCUMENTS: dict[str, Any] = {file: yaml.load((ROOT / "openapi" / file).read_text(encoding="utf-8"), Loader=LOADER) for file in FILES}
OPENAPI, ASYNCAPI = DOCUMENTS.values()
REGISTRY: Registry[Any] = Registry().with_resources((file, DRAFT4.create_resource(document)) for file, document in DOCUMENTS.items())
METHODS = ("get", "post", "put", "patch", "delete")


class Node(NamedTuple):
    """A place in one of the documents."""

    file: str
    path: tuple[str, ...]
    value: Any

    def __truediv__(self, step: str | int) -> Node:
        return self._replace(path=(*self.path, str(step)), value=self.value[step])

    @property
    def pointer(self) -> str:
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in self.path)

    def __str__(self) -> str:
        return f"{self.file}#{self.pointer}"

    def resolved(self) -> Node:
        """The place itself, or the one that it refers to. Raises LookupError."""
        if not (isinstance(self.value, Mapping) and isinstance(self.value.get("$ref"), str)):
            return self
        file, _, pointer = self.value["$ref"].partition("#")
        node = root(file or self.file)
        for step in pointer.removeprefix("/").split("/"):
            node = node / step.replace("~1", "/").replace("~0", "~")
        return node.resolved()

    def items(self) -> Iterator[tuple[str, Node]]:
        """The members of a mapping, references followed."""
        for key in self.value:
            yield key, (self / key).resolved()

    def get(self, *steps: str) -> Node | None:
        node: Node = self
        for step in steps:
            if step not in node.value:
                return None
            node = (node / step).resolved()
        return node


def root(file: str) -> Node:
    return Node(file, (), DOCUMENTS[file])


def walk(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node.value, Mapping):
        for key in node.value:
            yield from walk(node / key)
    elif isinstance(node.value, list):
        for index in range(len(node.value)):
            yield from walk(node / index)


def operations() -> list[Node]:
    return [item / method for _, item in (root("jobs.yaml") / "paths").items() for method in METHODS if method in item.value]


def parameters(operation: Node) -> Iterator[Node]:
    item = root("jobs.yaml")
    for step in operation.path[:-1]:
        item = item / step
    for holder in (item, operation):
        if "parameters" in holder.value:
            yield from ((holder / "parameters" / index).resolved() for index in range(len(holder.value["parameters"])))


def media_types(operation: Node) -> Iterator[Node]:
    """What an operation takes and answers, by media type."""
    bodies = [operation.get("requestBody"), *(response for _, response in (operation / "responses").items())]
    for body in bodies:
        if body is not None and "content" in body.value:
            yield from (media_type for _, media_type in (body / "content").items())


def headers(operation: Node) -> Iterator[Node]:
    for _, response in (operation / "responses").items():
        if "headers" in response.value:
            yield from (header for _, header in (response / "headers").items())


def event_operations() -> list[Node]:
    return [operation for _, operation in (root("jobs.asyncapi.yaml") / "operations").items()]


def messages() -> list[Node]:
    return [message for _, message in (root("jobs.asyncapi.yaml") / "components" / "messages").items()]


def names(nodes: list[Node]) -> list[str]:
    return [node.value.get("operationId") or node.value.get("name") or node.path[-1] for node in nodes]


def faults(schema: Node, value: Any) -> list[str]:
    validator = OAS30Validator({"$ref": str(schema)}, registry=REGISTRY, format_checker=oas30_format_checker)
    return [f"{schema}: {error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]


def example_faults(holder: Node) -> list[str]:
    """What is wrong with the examples beside a schema; that there is none is wrong too."""
    schema = (holder / "schema").resolved()
    values = [example.value["value"] for _, example in (holder / "examples").items()] if "examples" in holder.value else []
    values += [holder.value["example"]] if "example" in holder.value else []
    return [fault for value in values for fault in faults(schema, value)] if values else [f"{holder} has no example"]


# What the official validators and the linter say


@pytest.mark.builds
@pytest.mark.timeout(300)  # the first run on a machine installs the tools
def test_validators_and_linter_find_nothing() -> None:
    done = subprocess.run([sys.executable, NODE_TOOLS, "lint-contract"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.builds
@pytest.mark.timeout(300)
def test_the_events_validator_looks_into_payloads(tmp_path: Path) -> None:
    for file in FILES:
        text = (ROOT / "openapi" / file).read_text(encoding="utf-8")
        (tmp_path / file).write_text(text.replace("type: boolean", "type: bool", 1) if file == "jobs.asyncapi.yaml" else text)
    lint = [sys.executable, NODE_TOOLS, "node", NODE_TOOLS.parent / "lint-asyncapi.ts", tmp_path / "jobs.asyncapi.yaml"]
    done = subprocess.run([str(word) for word in lint], capture_output=True, text=True)
    assert done.returncode == 1
    assert "(components.messages.subscribe.payload.schema.oneOf.1.properties.all.type)" in done.stderr


# References and examples


@pytest.mark.parametrize("file", FILES)
def test_every_reference_resolves(file: str) -> None:
    references = [node for node in walk(root(file)) if isinstance(node.value, Mapping) and isinstance(node.value.get("$ref"), str)]
    assert references
    for node in references:
        try:
            node.resolved()
        except LookupError:
            pytest.fail(f"{node} refers to {node.value['$ref']}, which is not there")


def test_every_component_is_used() -> None:
    used = {node.resolved().path for file in FILES for node in walk(root(file)) if isinstance(node.value, Mapping) and "$ref" in node.value}
    for file in FILES:
        components = root(file) / "components"
        declared = {
            (components / kind / name).path for kind in components.value if kind != "securitySchemes" for name in components.value[kind]
        }
        assert {"/".join(path) for path in declared} - {"/".join(path) for path in used} == set()


@pytest.mark.parametrize("operation", operations(), ids=names(operations()))
def test_every_example_of_a_call_validates(operation: Node) -> None:
    holders = [*parameters(operation), *media_types(operation), *headers(operation)]
    assert [fault for holder in holders for fault in example_faults(holder)] == []


@pytest.mark.parametrize("message", messages(), ids=names(messages()))
def test_every_example_of_a_message_validates(message: Node) -> None:
    if "payload" not in message.value:
        return
    examples = message.value.get("examples", [])
    assert examples, f"{message} has no example"
    for example in examples:
        assert example["name"]
        assert example["summary"]
        assert faults(message / "payload" / "schema", example["payload"]) == []


def test_a_wrong_example_is_found() -> None:
    job = (root("jobs.yaml") / "components" / "schemas" / "Job").resolved()
    right = OPENAPI["components"]["examples"]["PendingJob"]["value"]
    assert faults(job, right) == []
    wrongs: list[dict[str, Any]] = [
        {"status": "idle"},
        {"id": "7"},
        {"created_at": "today"},
        {"error": {}},
        {"exit_code": "0"},
        {"more": 1},
    ]
    for wrong in wrongs:
        assert faults(job, {**right, **wrong}), wrong


def test_every_job_type_has_an_example() -> None:
    examples = OPENAPI["paths"]["/jobs/submit"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert {example["value"]["type"] for example in examples.values()} == set(OPENAPI["components"]["schemas"]["JobType"]["enum"])


# What each operation says


@pytest.mark.parametrize("operation", operations(), ids=names(operations()))
def test_every_call_is_fully_documented(operation: Node) -> None:
    call = operation.value
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", call["operationId"])
    assert re.fullmatch(r"[A-Z].*[^.]", call["summary"])
    assert call["description"].strip().endswith(".")
    assert set(call["tags"]) <= {tag["name"] for tag in OPENAPI["tags"]}
    assert len(call["tags"]) == 1
    assert ("x-scope" in call) != (call.get("security") == [])
    assert call.get("x-scope", "any") in ("any", *OPENAPI["components"]["schemas"]["Scope"]["enum"])
    assert "default" in call["responses"]
    if "x-scope" in call:
        assert {"401", "403"} <= set(call["responses"])
    for node in (*parameters(operation), *headers(operation), *(response for _, response in (operation / "responses").items())):
        assert node.value["description"], node


def test_every_tag_is_described_and_used() -> None:
    assert all(tag["description"] for tag in OPENAPI["tags"])
    assert {tag for operation in operations() for tag in operation.value["tags"]} == {tag["name"] for tag in OPENAPI["tags"]}


@pytest.mark.parametrize("operation", event_operations(), ids=names(event_operations()))
def test_every_event_is_fully_documented(operation: Node) -> None:
    event = operation.value
    assert re.fullmatch(r"[A-Z].*[^.]", event["summary"])
    assert event["description"].strip().endswith(".")
    assert [(operation / "messages" / 0).resolved().value["name"]] == [operation.path[-1]]
    channel = (operation / "channel").resolved()
    assert channel.value["address"] == "/"
    for holder in (event, event.get("reply", {"channel": event["channel"], "messages": []})):
        assert holder["channel"] == event["channel"]
        for reference in holder["messages"]:
            # A message is named through its channel: the official validator takes any reference.
            assert reference["$ref"].startswith(f"#{channel.pointer}/messages/"), reference


def test_every_message_is_an_event_or_a_reply() -> None:
    named = {
        (node / index).resolved().path
        for operation in event_operations()
        for node in (operation.get("messages"), operation.get("reply", "messages"))
        if node is not None
        for index in range(len(node.value))
    }
    assert named == {message.path for message in messages()}
    assert all(message.value["name"] == message.path[-1] for message in messages())


# Bounds


def reachable(schema: Node, seen: set[str] | None = None) -> Iterator[Node]:
    """Every schema that a value is held against, from this one down."""
    seen = set() if seen is None else seen
    schema = schema.resolved()
    if str(schema) in seen:
        return
    seen.add(str(schema))
    yield schema
    for word in ("oneOf", "anyOf", "allOf"):
        for index in range(len(schema.value.get(word, []))):
            yield from reachable(schema / word / index, seen)
    for name in schema.value.get("properties", {}):
        yield from reachable(schema / "properties" / name, seen)
    if "items" in schema.value:
        yield from reachable(schema / "items", seen)


def request_schemas() -> Iterator[Node]:
    for operation in operations():
        yield from (parameter / "schema" for parameter in parameters(operation))
        body = operation.get("requestBody", "content", "application/json")
        if body is not None:
            yield body / "schema"
    for operation in event_operations():
        message = (operation / "messages" / 0).resolved()
        if operation.value["action"] == "receive" and "payload" in message.value:
            yield message / "payload" / "schema"


def unbounded(schema: Mapping[str, Any]) -> str | None:
    if "enum" in schema:
        return None
    match schema.get("type"):
        case "string":
            return None if "maxLength" in schema or schema.get("format") == "uuid" else "a string without maxLength"
        case "array":
            return None if "maxItems" in schema else "an array without maxItems"
        case "integer" | "number":
            return None if {"minimum", "maximum"} <= set(schema) else "a number without minimum and maximum"
        case "object":
            return None if schema.get("additionalProperties") is False or "maxProperties" in schema else "an open object"
    return None


def test_everything_that_a_client_sends_is_bounded() -> None:
    schemas = [node for schema in request_schemas() for node in reachable(schema)]
    assert len(schemas) > 50
    assert [f"{node}: {fault}" for node in schemas if (fault := unbounded(node.value))] == []


def test_payloads_of_events_are_closed_and_their_additions_bounded() -> None:
    own = [node for message in messages() if "payload" in message.value for node in reachable(message / "payload" / "schema")]
    own = [node for node in own if node.file == "jobs.asyncapi.yaml"]
    assert [f"{node}: {fault}" for node in own if node.value.get("type") != "number" and (fault := unbounded(node.value))] == []


# Enumerations, and what both documents share


@pytest.mark.parametrize("schema", ["ProblemType", "Status", "Reason", "JobType", "Job/properties/waiting_for"])
def test_every_value_of_an_enumeration_is_described(schema: str) -> None:
    node = root("jobs.yaml") / "components" / "schemas"
    for step in schema.split("/"):
        node = node / step
    bullets = re.findall(r"^- (.*?): .+$", node.value["description"], re.MULTILINE)
    described = [name for bullet in bullets for name in re.findall(r"`([^`]+)`", bullet)]
    values = [value.removeprefix("urn:runcast:problem:") for value in node.value["enum"] if value is not None]
    assert described == values or set(described) == set(values)


def test_the_events_refer_to_the_schemas_of_the_calls() -> None:
    shared = {"job": "Job", "problem": "Problem", "data": "Problem", "reason": "Reason", "stream": "Stream", "at": "Time"}
    counted = 0
    for message in messages():
        for node in walk(message):
            if isinstance(node.value, Mapping) and node.path[-1] == "properties":
                for name in shared.keys() & node.value.keys():
                    property_ = node / name
                    meant = (property_ / "allOf" / 0 if "allOf" in property_.value else property_).resolved()
                    assert str(meant) == f"jobs.yaml#/components/schemas/{shared[name]}"
                    counted += 1
    assert counted > 8


def test_no_schema_of_the_calls_is_copied_into_the_events() -> None:
    known = {frozenset(schema["properties"]) for schema in OPENAPI["components"]["schemas"].values() if "properties" in schema}
    for node in walk(root("jobs.asyncapi.yaml")):
        if isinstance(node.value, Mapping) and isinstance(node.value.get("properties"), Mapping):
            assert frozenset(node.value["properties"]) not in known, node


def test_a_complete_job_has_a_final_status() -> None:
    complete = ASYNCAPI["components"]["messages"]["complete"]["payload"]["schema"]["properties"]
    assert set(complete["status"]["enum"]) == set(ENDED)


def test_both_contracts_have_the_same_version() -> None:
    assert ASYNCAPI["info"]["version"] == OPENAPI["info"]["version"]
    assert ASYNCAPI["info"]["license"] == OPENAPI["info"]["license"]
