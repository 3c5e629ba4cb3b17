"""A change of a contract that breaks a client of the last release fails here; what is said of changes is tried on some made on purpose.

`openapi/released/` keeps the contracts of each release, because a clone may lack the tags; `make release-contracts` adds those of a new.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.compatibility import ASYNCAPI, OPENAPI, Contracts, breaks

CONTRACTS = Path(__file__).parents[2] / "openapi"
RELEASED = CONTRACTS / "released"
Change = Callable[[Any, Any], object]
"""Of the schemas (or the paths) of one document and the messages of the other."""


def last_release() -> Path:
    return max(RELEASED.iterdir(), key=lambda folder: tuple(int(part) for part in folder.name.split(".")))


def test_no_client_of_the_last_release_is_broken() -> None:
    assert breaks(Contracts.load(last_release()), Contracts.load(CONTRACTS)) == []


@cache
def current() -> Contracts:
    return Contracts.load(CONTRACTS)


def changed(change: Change) -> list[str]:
    now = current()
    documents = copy.deepcopy(dict(now.documents))
    change(documents[OPENAPI], documents[ASYNCAPI])
    assert documents != now.documents, "the change changes something"
    return breaks(now, Contracts(documents))


def schemas(document: Any) -> Any:
    return document["components"]["schemas"]


def payload(document: Any, message: str) -> Any:
    return document["components"]["messages"][message]["payload"]["schema"]


def without(holder: Any, key: str) -> None:
    del holder[holder.index(key) if isinstance(holder, list) else key]


BREAKING: dict[str, Change] = {
    "a call goes": lambda http, _: without(http["paths"], "/stats"),
    "a method goes": lambda http, _: without(http["paths"]["/jobs/{job_id}"], "delete"),
    "a call is renamed": lambda http, _: http["paths"]["/jobs"]["get"].update(operationId="find_jobs"),
    "a call needs more rights": lambda http, _: http["paths"]["/jobs"]["get"].update({"x-scope": "admin"}),
    "a filter goes": lambda http, _: http["paths"]["/jobs"]["get"]["parameters"].pop(0),
    "a filter is needed": lambda http, _: http["paths"]["/jobs"]["get"]["parameters"][2].update(required=True),
    "a page is smaller": lambda http, _: http["paths"]["/jobs"]["get"]["parameters"][6]["schema"].update(maximum=100),
    "a body is needed": lambda http, _: http["paths"]["/jobs/{job_id}/cancel"]["post"]["requestBody"].update(required=True),
    "another success": lambda http, _: http["paths"]["/jobs/submit"]["post"]["responses"].update(
        {"201": http["paths"]["/jobs/submit"]["post"]["responses"].pop("202")}
    ),
    "a header goes": lambda http, _: without(http["paths"]["/jobs/submit"]["post"]["responses"]["202"]["headers"], "Location"),
    "a media type goes": lambda http, _: without(http["paths"]["/jobs/{job_id}/log"]["get"]["responses"]["200"]["content"], "text/plain"),
    "a param goes": lambda http, _: without(schemas(http)["BuildParams"]["properties"], "clean"),
    "a param is needed": lambda http, _: schemas(http)["BuildParams"].update(required=["project"]),
    "a choice goes": lambda http, _: without(schemas(http)["BuildParams"]["properties"]["config"]["enum"], "debug"),
    "a text is shorter": lambda http, _: schemas(http)["Label"].update(maxLength=10),
    "a text has another form": lambda http, _: schemas(http)["Label"].update(pattern="^[a-z]+$"),
    "a kind of submission goes": lambda http, _: schemas(http)["Submission"]["oneOf"].pop(1),
    "inputs are closed": lambda http, _: schemas(http)["TaskParams"]["properties"]["inputs"].update(additionalProperties=False),
    "a field of an answer goes": lambda http, _: [
        without(schemas(http)["Job"][holder], "priority")  # type: ignore[func-returns-value]
        for holder in ("properties", "required")
    ],
    "a field may be missing": lambda http, _: without(schemas(http)["Job"]["required"], "priority"),
    "a field may be null": lambda http, _: schemas(http)["Job"]["properties"]["attempt"].update(nullable=True),
    "a field is of another kind": lambda http, _: schemas(http)["Job"]["properties"]["attempt"].update(type="string"),
    "a status more": lambda http, _: schemas(http)["Status"]["enum"].append("paused"),
    "a list becomes one": lambda http, _: schemas(http)["JobPage"]["properties"].update(jobs={"$ref": "#/components/schemas/Job"}),
    "an event goes": lambda _, events: without(events["operations"], "progress"),
    "an event is renamed": lambda _, events: events["components"]["messages"]["log"].update(name="lines"),
    "an event turns round": lambda _, events: events["operations"]["log"].update(action="receive"),
    "a payload loses a field": lambda _, events: without(payload(events, "log")["properties"], "first_seq"),
    "a payload changes a field": lambda _, events: payload(events, "complete")["properties"]["log_lines"].update(type="string"),
    "a message needs more": lambda _, events: payload(events, "subscribe")["oneOf"][0]["required"].append("after_seq"),
    "a message takes less": lambda _, events: payload(events, "subscribe")["oneOf"].pop(1),
    "an acknowledgement says less": lambda _, events: without(payload(events, "subscribe_ack")["oneOf"][0]["properties"], "next_seq"),
    "the events move": lambda _, events: events["servers"]["this"].update(pathname="/events"),
}
HARMLESS: dict[str, Change] = {
    "another call": lambda http, _: http["paths"].update({"/pools": copy.deepcopy(http["paths"]["/stats"])}),
    "another filter": lambda http, _: http["paths"]["/jobs"]["get"]["parameters"].append(
        {"name": "queue", "in": "query", "schema": {"type": "string"}}
    ),
    "another error": lambda http, _: http["paths"]["/stats"]["get"]["responses"].update(
        {"418": {"$ref": "#/components/responses/NotFound"}}
    ),
    "another header": lambda http, _: http["paths"]["/stats"]["get"]["responses"]["200"].update(
        headers={"ETag": {"$ref": "#/components/headers/ETag"}}
    ),
    "another param": lambda http, _: schemas(http)["BuildParams"]["properties"].update(verbose={"type": "boolean"}),
    "a longer text": lambda http, _: schemas(http)["Label"].update(maxLength=1000),
    "any text": lambda http, _: without(schemas(http)["Label"], "pattern"),
    "another field": lambda http, _: (
        schemas(http)["Job"]["properties"].update(node={"type": "string"}),
        schemas(http)["Job"]["required"].append("node"),
    ),
    "a field that is never null": lambda http, _: without(schemas(http)["Job"]["properties"]["exit_code"], "nullable"),
    "another kind of problem": lambda http, _: schemas(http)["ProblemType"]["enum"].append("urn:runcast:problem:new"),
    "other words": lambda http, _: schemas(http)["Job"]["properties"]["attempt"].update(description="Otherwise."),
    "less rights": lambda http, _: http["paths"]["/jobs"]["get"].update({"x-scope": "any"}),
    "another event": lambda _, events: events["operations"].update(again=copy.deepcopy(events["operations"]["log"])),
    "another field of a payload": lambda _, events: payload(events, "log")["properties"].update(host={"type": "string"}),
    "something else to subscribe to": lambda _, events: payload(events, "subscribe")["oneOf"].append(
        {"type": "object", "required": ["label"], "additionalProperties": False, "properties": {"label": {"type": "string"}}}
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_reported(name: str) -> None:
    assert changed(BREAKING[name]) != []


@pytest.mark.parametrize("name", HARMLESS)
def test_a_compatible_change_is_not_reported(name: str) -> None:
    assert changed(HARMLESS[name]) == []
