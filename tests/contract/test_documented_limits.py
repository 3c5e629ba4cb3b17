"""The defaults and bounds that the contract promises, held against the running server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from handlers.contract.document import Contract
from support.server import RunningServer, task_submission

OPENAPI = Contract.load().openapi
LABEL = "documented-limits"
BODY_BYTES = 1 << 20


def parameter(path: str, name: str) -> dict[str, Any]:
    """The schema of a parameter of GET."""
    (schema,) = [item["schema"] for item in OPENAPI["paths"][path]["get"]["parameters"] if item.get("name") == name]
    return dict(schema)


@pytest.fixture(scope="module")
def long_log(server: RunningServer) -> str:
    """A job that printed more lines than a page holds."""
    job_id = server.shell(f"seq {parameter('/jobs/{job_id}/log', 'limit')['default'] + 7}")
    assert server.wait(job_id)["status"] == "completed"
    return job_id


@pytest.mark.slow
def test_a_page_of_jobs_is_as_long_as_the_contract_says(server: RunningServer) -> None:
    limit = parameter("/jobs", "limit")
    for _ in range(limit["default"] + 2):
        server.submit({**task_submission("shell", script=":"), "labels": [LABEL]})
    first = server.call("GET", "/jobs", params={"label": LABEL}).json()
    assert len(first["jobs"]) == limit["default"]
    rest = server.call("GET", "/jobs", params={"label": LABEL, "cursor": first["next_cursor"]}).json()
    assert (len(rest["jobs"]), rest["next_cursor"]) == (2, None)
    assert len(server.call("GET", "/jobs", params={"label": LABEL, "limit": limit["maximum"]}).json()["jobs"]) == limit["default"] + 2
    for job in (*first["jobs"], *rest["jobs"]):
        server.wait(job["id"])


def test_a_page_of_a_log_is_as_long_as_the_contract_says(server: RunningServer, long_log: str) -> None:
    limit = parameter("/jobs/{job_id}/log", "limit")
    page = server.call("GET", f"/jobs/{long_log}/log").json()
    assert (len(page["lines"]), page["lines"][0]["seq"], page["complete"]) == (limit["default"], 1, False)
    page = server.call("GET", f"/jobs/{long_log}/log", params={"limit": limit["maximum"]}).json()
    assert (len(page["lines"]), page["complete"]) == (limit["default"] + 7, True)


@pytest.mark.parametrize(("path", "name"), [("/jobs", "limit"), ("/jobs/{job_id}", "wait"), ("/jobs/{job_id}/log", "limit")])
def test_the_documented_bounds_are_the_exact_ones(server: RunningServer, long_log: str, path: str, name: str) -> None:
    schema = parameter(path, name)
    statuses = {}
    for value in (schema["minimum"] - 1, schema["minimum"], schema["maximum"], schema["maximum"] + 1):
        statuses[value] = server.call("GET", path.replace("{job_id}", long_log), params={name: value}).status_code
    assert list(statuses.values()) == [400, 200, 200, 400]


def test_a_call_without_wait_answers_at_once(server: RunningServer) -> None:
    assert parameter("/jobs/{job_id}", "wait")["default"] == 0
    job_id = server.shell("sleep 60")
    started = time.monotonic()
    assert server.job(job_id)["status"] in ("pending", "running")
    assert server.call("GET", f"/jobs/{job_id}", params={"wait": 1}).json()["status"] in ("pending", "running")
    assert 1 <= time.monotonic() - started < 5
    server.call("DELETE", f"/jobs/{job_id}")


def test_a_body_may_be_as_large_as_the_contract_says(server: RunningServer) -> None:
    answer = OPENAPI["components"]["responses"]["TooLarge"]
    (example,) = answer["content"]["application/problem+json"]["examples"].values()
    assert "(1 MiB)" in answer["description"]
    body = json.dumps(task_submission("shell", script=":")).encode()
    statuses = []
    for size in (BODY_BYTES, BODY_BYTES + 1):
        said = server.call("POST", "/jobs/submit", data=body.ljust(size), headers={"Content-Type": "application/json"})
        statuses.append(said.status_code)
    assert statuses == [202, 413]
    assert said.json() == example["value"]
