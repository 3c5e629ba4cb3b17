"""The contract as the server uses it: where a value breaks it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from handlers.contract.document import Contract
from handlers.contract.json_schema import json_schema
from handlers.errors import ContractError
from jobs.errors import Violation

JOB_ID = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
PROBLEM = {"type": "urn:runcast:problem:job-not-found", "title": "Job not found", "status": 404, "detail": "There is no such job."}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.load()


def example(contract: Contract, name: str) -> dict[str, Any]:
    value: dict[str, Any] = copy.deepcopy(contract.openapi["components"]["examples"][name]["value"])
    return value


def changed(contract: Contract, part: str, change: Callable[[dict[str, Any]], object]) -> Contract:
    documents: dict[str, dict[str, Any]] = {
        "openapi": copy.deepcopy(dict(contract.openapi)),
        "asyncapi": copy.deepcopy(dict(contract.asyncapi)),
    }
    change(documents[part])
    return Contract(openapi=documents["openapi"], asyncapi=documents["asyncapi"])


def test_the_documents_are_read_once() -> None:
    assert Contract.load() is Contract.load()


def test_an_operation_has_its_path_and_scope(contract: Contract) -> None:
    submit = contract.operations["submit_job"]
    assert (submit.tag, submit.method, submit.path, submit.scope) == ("jobs", "post", "/jobs/submit", "jobs:write")
    assert submit.header_parameters == ("Idempotency-Key",)
    assert submit.body == {"$ref": "#/components/schemas/Submission"}
    assert submit.body_required
    assert not contract.operations["cancel_job"].body_required
    assert contract.operations["get_liveness"].scope is None
    assert contract.operations["get_liveness"].body is None


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (5, "#", "must be an object"),
        ({}, "#/type", 'is missing; it must be "build", "launch", "create" or "task"'),
        ({"type": "bild", "params": {}}, "#/type", '"bild" is not "build", "launch", "create" or "task"'),
        ({"type": ["build"], "params": {}}, "#/type", 'an array is not "build", "launch", "create" or "task"'),
        ({"type": "build"}, "#/params", "is missing"),
        ({"type": "build", "params": {"config": "fast"}}, "#/params/config", '"fast" is not "release" or "debug"'),
        ({"type": "build", "params": {"app": "a.kit"}}, "#/params/app", "is unknown"),
        ({"type": "build", "params": {"a/b~c %": 1}}, "#/params/a~1b~0c%20%25", "is unknown"),
        ({"type": "build", "params": {}, "colour": "red"}, "#/colour", "is unknown"),
        ({"type": "build", "params": {}, "priority": 11}, "#/priority", "11 is more than 10"),
        ({"type": "build", "params": {}, "priority": "high"}, "#/priority", "must be an integer"),
        ({"type": "build", "params": {}, "labels": ["a", "b", "a"]}, "#/labels", "has duplicate items"),
        ({"type": "build", "params": {}, "labels": ["a", "b" * 65]}, "#/labels/1", "is longer than 64 characters"),
        ({"type": "build", "params": {}, "queue": None}, "#/queue", "must be a string"),
        ({"type": "launch", "params": {}}, "#/params/app", "is missing"),
        ({"type": "launch", "params": {"app": "-x.kit"}}, "#/params/app", r'"-x.kit" does not match ^[A-Za-z0-9_][A-Za-z0-9_.-]*\.kit$'),
        ({"type": "launch", "params": {"app": "a.kit", "args": ["x"] * 51}}, "#/params/args", "has more than 50 items"),
        (
            {"type": "create", "params": {"template": "t", "name": "n", "display_name": ""}},
            "#/params/display_name",
            "is shorter than 1 character",
        ),
        ({"type": "task", "params": {"task": "t", "inputs": {"a": float("nan")}}}, "#", "contains a number that JSON does not allow"),
        ({"type": "task", "params": {"task": "t", "inputs": {"a": "\ud800"}}}, "#", "contains an unpaired surrogate"),
    ],
)
def test_an_invalid_submission_gives_pointers_to_its_violations(contract: Contract, body: Any, pointer: str, detail: str) -> None:
    assert contract.body_violations("submit_job", body)[0] == Violation("body", pointer, detail)


def test_all_violations_of_a_body_are_reported(contract: Contract) -> None:
    body = {"type": "build", "params": {"config": 1}, "priority": 99, "zebra": True}
    assert {violation.pointer for violation in contract.body_violations("submit_job", body)} == {"#/params/config", "#/priority", "#/zebra"}


def test_violations_fit_into_a_problem(contract: Contract) -> None:
    body = {"type": "build", "params": {"x" * 5000: 1, **{f"field{n}": n for n in range(500)}}, "queue": "y" * 100_000}
    violations = contract.body_violations("submit_job", body)
    problem = {
        **PROBLEM,
        "errors": [{"in": violation.location, "pointer": violation.pointer, "detail": violation.detail} for violation in violations],
    }
    answer = json.dumps(problem).encode()
    assert contract.answer_violations("submit_job", 400, "application/problem+json", {}, answer) == []


def test_a_body_that_is_nested_too_deeply_is_a_violation(contract: Contract) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert [violation.detail for violation in contract.body_violations("cancel_job", nested)] == ["is nested too deeply"]


def test_an_operation_without_a_body_has_no_body_violations(contract: Contract) -> None:
    assert contract.body_violations("retry_job", {"any": "thing"}) == []


def test_a_submission_is_checked_in_microseconds(contract: Contract) -> None:
    body = {"type": "build", "params": {"project": "a.b", "config": "release"}, "priority": 3, "labels": ["nightly", "ci"]}
    best = float("inf")
    for _ in range(20):  # the best of some, so that a busy machine does not decide
        start = time.perf_counter()
        for _ in range(200):
            contract.body_violations("submit_job", body)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 30e-6


@pytest.mark.parametrize(
    ("location", "name", "value", "detail"),
    [
        ("query", "limit", 50, None),
        ("query", "limit", 201, "201 is more than 200"),
        ("query", "limit", "many", "must be an integer"),
        ("query", "status", ["pending"], None),
        ("query", "status", ["idle"], '"idle" is not "pending", "running", "completed", "failed" or "cancelled"'),
        ("query", "since", "yesterday", '"yesterday" is not a valid date-time'),
        ("query", "colour", "red", "is unknown"),
    ],
)
def test_a_violation_of_a_parameter_names_the_parameter(
    contract: Contract, location: str, name: str, value: Any, detail: str | None
) -> None:
    expected = [Violation(location, name, detail)] if detail else []
    assert contract.parameter_violations("list_jobs", location, name, value) == expected


def test_parameters_of_the_path_and_headers_are_found(contract: Contract) -> None:
    assert contract.parameter_violations("get_job", "path", "job_id", JOB_ID) == []
    assert contract.parameter_violations("get_job", "path", "job_id", "7")
    assert contract.parameter_violations("submit_job", "header", "idempotency-key", "key-1") == []
    assert contract.parameter_violations("submit_job", "header", "Idempotency-Key", "two words")


@pytest.mark.parametrize(
    ("payload", "pointer", "detail"),
    [
        (None, "#", "must be an object"),
        ([JOB_ID], "#", "must be an object"),
        ({}, "#", 'needs "job_id" or "all"'),
        ({"job_id": 5}, "#/job_id", "must be a string"),
        ({"job_id": JOB_ID, "after_seq": -1}, "#/after_seq", "-1 is less than 0"),
        ({"job_id": JOB_ID, "after_seq": "1"}, "#/after_seq", "must be an integer"),
        ({"job_id": JOB_ID, "all": True}, "#/all", "is unknown"),
        ({"all": False}, "#/all", "false is not true"),
        ({"all": True, "after_seq": 1}, "#/after_seq", "is unknown"),
        ({"job": JOB_ID}, "#/job", "is unknown"),
    ],
)
def test_an_invalid_subscription_is_compared_with_its_closest_form(contract: Contract, payload: Any, pointer: str, detail: str) -> None:
    assert contract.message_violations("subscribe", payload)[0] == Violation("body", pointer, detail)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("connect", {"token": "secret"}),
        ("disconnect", None),
        ("subscribe", {"job_id": JOB_ID}),
        ("subscribe", {"job_id": JOB_ID, "after_seq": 12}),
        ("subscribe", {"all": True}),
        ("unsubscribe", {"job_id": JOB_ID}),
        ("unsubscribe", {"all": True}),
    ],
)
def test_valid_client_messages_have_no_violations(contract: Contract, event: str, payload: Any) -> None:
    assert contract.message_violations(event, payload) == []


def test_invalid_client_messages_have_violations(contract: Contract) -> None:
    assert contract.message_violations("connect", None) == [Violation("body", "#", "must be an object")]
    assert contract.message_violations("connect", {}) == [Violation("body", "#/token", "is missing")]
    assert contract.message_violations("log", {}) == [Violation("body", "#", 'there is no event "log"')]


def test_events_and_acknowledgements_are_listed_by_direction(contract: Contract) -> None:
    assert contract.events_in == {"connect", "disconnect", "subscribe", "unsubscribe"}
    assert contract.events_out == {"log", "progress", "status", "complete", "error"}


def test_an_event_is_validated_against_its_message(contract: Contract) -> None:
    event = {"job_id": JOB_ID, "first_seq": 1, "at": "2026-11-23T09:00:00.000Z", "stream": "stdout", "lines": ["one"]}
    assert contract.event_violations("log", event) == []
    assert contract.event_violations("log", {**event, "lines": []}) == ["#/lines: has fewer than 1 item"]
    assert contract.event_violations("log", {**event, "at": 1}) == ["#/at: must be a string"]
    assert (
        contract.event_violations("status", {"job_id": JOB_ID, "status": "pending", "previous": None, "reason": None, "at": event["at"]})
        == []
    )
    assert contract.event_violations("subscribe", {"all": True}) == ["there is no event 'subscribe' from server to client"]


def test_an_acknowledgement_is_validated_against_its_message(contract: Contract) -> None:
    job = example(contract, "RunningJob")
    assert contract.ack_violations("subscribe", {"ok": True, "job": job, "next_seq": 3}) == []
    assert contract.ack_violations("subscribe", {"ok": True}) == []
    assert contract.ack_violations("subscribe", {"ok": False, "problem": PROBLEM}) == []
    assert contract.ack_violations("subscribe", {"ok": True, "job": {**job, "status": "idle"}, "next_seq": 3})[0].startswith(
        "#/job/status: "
    )
    assert contract.ack_violations("unsubscribe", {"ok": True, "job": job}) == ["#/job: is unknown"]
    assert contract.ack_violations("connect", {"message": "Unauthenticated", "data": PROBLEM}) == []
    assert contract.ack_violations("log", {"ok": True}) == ["the event 'log' has no acknowledgement"]


def test_an_answer_is_validated_against_its_operation(contract: Contract) -> None:
    job = json.dumps(example(contract, "FailedJob")).encode()
    headers = {"location": f"/api/jobs/{JOB_ID}"}
    assert contract.answer_violations("submit_job", 202, "application/json; charset=utf-8", headers, job) == []
    assert contract.answer_violations("submit_job", 202, "application/json", {}, job) == ["the header Location is missing"]
    assert contract.answer_violations("submit_job", 200, "application/json", headers, job) == ["status 200 is not documented"]
    assert contract.answer_violations("submit_job", 202, "text/html", headers, job) == ["media type text/html is not documented"]
    assert contract.answer_violations("submit_job", 202, "application/json", headers, b"{") == ["the body is not JSON"]
    assert contract.answer_violations("submit_job", 202, "application/json", headers, b"[]") == ["#: must be an object"]
    assert contract.answer_violations(
        "submit_job", 429, "application/problem+json", {"Retry-After": "soon"}, json.dumps(PROBLEM).encode()
    ) == ["the header Retry-After: must be an integer"]


def test_an_answer_declared_without_a_body_must_have_none(contract: Contract) -> None:
    assert contract.answer_violations("delete_job", 204, None, {}, b"") == []
    assert contract.answer_violations("delete_job", 204, None, {}, b"gone") == ["a body is not documented"]
    assert contract.answer_violations("get_job_log", 200, "text/plain; charset=utf-8", {}, b"\xff raw") == []


def test_the_default_answer_applies_only_to_problems(contract: Contract) -> None:
    assert contract.answer_violations("get_stats", 500, "application/problem+json", {}, json.dumps(PROBLEM).encode()) == []
    assert contract.answer_violations("get_stats", 201, "application/json", {}, b"{}") == ["status 201 is not documented"]


@pytest.mark.parametrize(
    ("openapi", "json_schema_"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"allOf": [{"type": "object"}], "nullable": True}, {"anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}]}),
        ({"properties": {"a": {"type": "integer", "nullable": True}}}, {"properties": {"a": {"type": ["integer", "null"]}}}),
        ({"type": "string", "nullable": False}, {"type": "string", "nullable": False}),
    ],
)
def test_nullable_is_translated_to_null_in_json_schema(openapi: Any, json_schema_: Any) -> None:
    assert json_schema(openapi) == json_schema_


def test_a_broken_reference_is_one_clear_line(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"^openapi/jobs\.yaml refers to #/components/schemas/Nothing, which does not exist$"):
        changed(
            contract,
            "openapi",
            lambda d: d["components"]["schemas"]["Submission"]["discriminator"]["mapping"].update(build="#/components/schemas/Nothing"),
        )
    with pytest.raises(ContractError, match=r"^jobs\.asyncapi\.yaml#/components/messages/log/payload/schema: .*Nothing"):
        schema = {"$ref": "jobs.yaml#/components/schemas/Nothing"}
        changed(contract, "asyncapi", lambda d: d["components"]["messages"]["log"]["payload"].update(schema=schema))


def test_an_operation_without_a_name_or_scope_is_one_clear_line(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"^openapi/jobs\.yaml: GET /stats has no operationId$"):
        changed(contract, "openapi", lambda d: d["paths"]["/stats"]["get"].pop("operationId"))
    with pytest.raises(
        ContractError, match=r"^openapi/jobs\.yaml: get_stats needs an x-scope, or `security: \[\]` when it needs no token$"
    ):
        changed(contract, "openapi", lambda d: d["paths"]["/stats"]["get"].pop("x-scope"))


@pytest.mark.parametrize("tags", [None, [], ["service", "jobs"], [5], "service"])
def test_an_operation_needs_exactly_one_tag(contract: Contract, tags: Any) -> None:
    with pytest.raises(ContractError, match=r"^openapi/jobs\.yaml: get_stats needs exactly one tag$"):
        changed(contract, "openapi", lambda d: d["paths"]["/stats"]["get"].update(tags=tags))


def test_published_event_documents_name_the_requested_server(contract: Contract) -> None:
    published = contract.published_asyncapi(host="jobs.example.com", secure=True, prefix="/runcast")
    assert published["servers"]["this"]["host"] == "jobs.example.com"
    assert published["servers"]["this"]["pathname"] == "/runcast/socket.io"
    assert published["servers"]["this"]["protocol"] == "wss"
    assert "jobs.yaml" not in json.dumps(published["components"])
    assert published["components"]["messages"]["status"]["payload"]["schema"]["properties"]["status"] == {
        "$ref": "openapi.json#/components/schemas/Status"
    }
    assert contract.asyncapi["servers"]["this"]["host"] == "127.0.0.1:8000"
