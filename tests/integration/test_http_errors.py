"""Every mistake that a client can make: exactly its problem, with a pointer to the faulty place, and nothing changed by it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from handlers.contract.document import Contract
from jobs.bootstrap import open_database
from jobs.model import Scope
from jobs.recipes.workspace import copy_workspace
from jobs.store.tokens import Tokens
from support.server import RunningServer, start_server, task_submission
from support.state import state
from support.waiting import eventually

NOWHERE = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
KEY = "the-one-key"
TOKENS = {"reader": {Scope.READ}, "writer": {Scope.WRITE}, "admin": {Scope.ADMIN}}
BUILD = {"type": "build", "params": {}}
TOKEN_CALLS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/tokens", {"name": "mine", "scopes": ["admin"]}),
    ("GET", "/tokens", None),
    ("DELETE", f"/tokens/{NOWHERE}", None),
)


@dataclass(frozen=True)
class Place:
    """A server with a job in every state that a mistake may meet. They stay as they are: the one slot is taken, and what waits, waits."""

    server: RunningServer
    ended: str
    running: str
    pending: str
    own_token: str

    def path(self, text: str) -> str:
        return text.format(ended=self.ended, running=self.running, pending=self.pending, nowhere=NOWHERE, own_token=self.own_token)


@dataclass(frozen=True)
class Mistake:
    """One wrong request, and what it is answered with. `violations` are pairs of where and pointer, in any order."""

    name: str
    method: str
    path: str
    status: int
    problem: str
    violations: tuple[tuple[str, str], ...] = ()
    token: str | None = "admin"
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    data: bytes | None = None
    params: Any = None


def body(name: str, value: Any, *pointers: str, path: str = "/jobs/submit") -> Mistake:
    """A body that the contract does not allow."""
    return Mistake(f"body: {name}", "POST", path, 400, "invalid-request", tuple(("body", pointer) for pointer in pointers), json=value)


def raw(name: str, data: bytes, pointer: str = "#") -> Mistake:
    """A body that is not JSON."""
    headers = {"Content-Type": "application/json"}
    return Mistake(f"body: {name}", "POST", "/jobs/submit", 400, "invalid-request", (("body", pointer),), headers=headers, data=data)


def media(name: str, media_type: str | None) -> Mistake:
    headers = {"Content-Type": media_type} if media_type else {}
    data = json.dumps(BUILD).encode()
    return Mistake(f"media type: {name}", "POST", "/jobs/submit", 415, "unsupported-media-type", headers=headers, data=data)


def query(path: str, name: str, *values: str) -> Mistake:
    params = [(name, value) for value in values]
    title = f"query: {path} {name}={'&'.join(values)}"
    return Mistake(title, "GET", path, 400, "invalid-request", (("query", name),), params=params)


def refused(name: str, submission: Mapping[str, Any], status: int, problem: str, *pointers: str) -> Mistake:
    """A submission that the contract allows, but that contradicts how things are."""
    return Mistake(f"submit: {name}", "POST", "/jobs/submit", status, problem, tuple(("body", p) for p in pointers), json=submission)


def outside(name: str, path: str) -> Mistake:
    return refused(f"path {name}", task_submission("lint", path=path), 409, "outside-workspace", "#/params/inputs/path")


def create(name: str, template: str = "small_editor") -> dict[str, Any]:
    return {"type": "create", "params": {"template": template, "name": name}}


def unknown_job(method: str, call: str) -> Mistake:
    return Mistake(f"unknown job: {method} {call}", method, f"/jobs/{{nowhere}}{call}", 404, "job-not-found")


def scope(method: str, path: str, token: str, **options: Any) -> Mistake:
    return Mistake(f"scope: {method} {path} by {token}", method, path, 403, "forbidden", token=token, **options)


def method_unknown(method: str, path: str, allowed: str) -> Mistake:
    return Mistake(f"method: {method} {path}", method, path, 405, "method-not-allowed", answer_headers={"Allow": allowed})


def unauthenticated(name: str, token: str | None, **headers: str) -> Mistake:
    challenge = {"WWW-Authenticate": 'Bearer realm="runcast"'}
    return Mistake(f"token: {name}", "GET", "/jobs", 401, "unauthenticated", token=token, headers=headers, answer_headers=challenge)


MISTAKES = [
    *(unknown_job("GET", call) for call in ("", "?wait=5", "/log", "/log?follow=true", "/events")),
    *(unknown_job("POST", call) for call in ("/cancel", "/retry")),
    unknown_job("DELETE", ""),
    Mistake("unknown job: its raw log", "GET", "/jobs/{nowhere}/log", 404, "job-not-found", headers={"Accept": "text/plain"}),
    Mistake("address: unknown", "GET", "/nothing", 404, "not-found"),
    Mistake("address: a job id that is none", "GET", "/jobs/nothing", 404, "not-found"),
    Mistake("address: a job id that is none, below", "POST", "/jobs/nothing/cancel", 404, "not-found"),
    # Bodies
    raw("empty", b""),
    raw("cut off", b'{"type": "build", "params": {'),
    raw("not a number", b'{"type": "build", "params": {}, "priority": NaN}'),
    raw("infinity", b'{"type": "build", "params": {}, "priority": -Infinity}'),
    raw("a number beyond all", b'{"type": "task", "params": {"task": "true", "inputs": {"x": 1e999}}}'),
    raw("not UTF-8", b'{"type": "build", "params": {}, "labels": ["\xff"]}'),
    raw("nested beyond reason", b"[" * 200_000),
    raw("nested beyond reason, and closed", b'{"type": "task", "params": {"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}"),
    raw("half of a surrogate pair", b'{"type": "create", "params": {"template": "a", "name": "b", "display_name": "\\ud800"}}'),
    body("a list", [], "#"),
    raw("null", b"null"),
    body("no type", {"params": {}}, "#/type"),
    body("unknown type", {"type": "dance", "params": {}}, "#/type"),
    body("no params", {"type": "build"}, "#/params"),
    body("unknown field", {**BUILD, "colour": 1}, "#/colour"),
    body("unknown field in params", {"type": "build", "params": {"colour": 1}}, "#/params/colour"),
    body("params of another type", {"type": "launch", "params": {"config": "release"}}, "#/params/app", "#/params/config"),
    body("value that is none of the allowed", {"type": "build", "params": {"config": "fast"}}, "#/params/config"),
    body("several", {**BUILD, "priority": 11, "queue": "-x", "labels": ["a", "a"]}, "#/priority", "#/queue", "#/labels"),
    body("a number as text", {**BUILD, "priority": "1"}, "#/priority"),
    body("a bad item", {**BUILD, "labels": ["a", "-"]}, "#/labels/1"),
    body("a name that begins with a dash", create("-rf"), "#/params/name"),
    body("a name that is a path", create("../../etc"), "#/params/name"),
    body("a line end in a name", create("name\n"), "#/params/name"),
    body("an app that is a path", {"type": "launch", "params": {"app": "../x.kit"}}, "#/params/app"),
    body("a NUL in an argument", {"type": "launch", "params": {"app": "x.kit", "args": ["a\0b"]}}, "#/params/args/0"),
    body("unknown field of a cancellation", {"forse": True}, "#/forse", path="/jobs/{running}/cancel"),
    body("force that is no boolean", {"force": 1}, "#/force", path="/jobs/{running}/cancel"),
    media("text", "text/plain"),
    media("a form, as a foreign page could send it", "application/x-www-form-urlencoded"),
    media("several parts", "multipart/form-data; boundary=x"),
    media("none", None),
    media("like JSON", "text/json"),
    Mistake(
        "media type: of a cancellation",
        "POST",
        "/jobs/{running}/cancel",
        415,
        "unsupported-media-type",
        data=b"{}",
        headers={"Content-Type": "text/plain"},
    ),
    Mistake(
        "body: too large",
        "POST",
        "/jobs/submit",
        413,
        "too-large",
        data=b" " * (1 << 20) + json.dumps(BUILD).encode(),
        headers={"Content-Type": "application/json"},
    ),
    # Parameters
    *(query("/jobs", "limit", value) for value in ("0", "201", "-1", "many", "", "1.5", "1e1", "99999999999999999999")),
    *(query("/jobs", "status", value) for value in ("done", "", "pending,done", "PENDING")),
    *(query("/jobs", name, "") for name in ("type", "cursor", "since", "project")),
    query("/jobs", "type", "dance"),
    query("/jobs", "label", "-"),
    query("/jobs", "project", "../x"),
    *(query("/jobs", "cursor", value) for value in ("1", NOWHERE[:-1], f"{NOWHERE}0", f"{{{NOWHERE}}}", NOWHERE.replace("-", ""))),
    *(query("/jobs", "since", value) for value in ("yesterday", "2026-11-23", "2026-02-30T00:00:00Z", "2026-11-23T09:00:00", "1")),
    query("/jobs", "until", "2026-13-01T00:00:00Z"),
    query("/jobs", "colour", "red"),
    query("/jobs", "limit", "1", "2"),
    *(query("/jobs/{ended}", "wait", value) for value in ("-1", "10", "x", "true")),
    query("/jobs/{ended}", "colour", "red"),
    *(query("/jobs/{ended}/log", "limit", value) for value in ("0", "10001")),
    *(query("/jobs/{ended}/log", "tail", value) for value in ("0", "10001", "x")),
    *(query("/jobs/{ended}/log", "after_seq", value) for value in ("-1", "9007199254740992", "x")),
    *(query("/jobs/{ended}/log", "follow", value) for value in ("yes", "1", "")),
    query("/jobs/{ended}/log", "stream", "stdin"),
    query("/whoami", "colour", "red"),
    Mistake("path: a template's name", "GET", "/templates/-x", 400, "invalid-request", (("path", "name"),)),
    *(
        Mistake(
            f"header: Idempotency-Key {title}",
            "POST",
            "/jobs/submit",
            400,
            "invalid-request",
            (("header", "Idempotency-Key"),),
            headers={"Idempotency-Key": value},
            json=BUILD,
        )
        for title, value in {"empty": "", "too long": "x" * 201, "of two words": "a b"}.items()
    ),
    # Tokens
    unauthenticated("none", None),
    unauthenticated("unknown", "unknown"),
    unauthenticated("empty", None, Authorization="Bearer "),
    unauthenticated("without its kind", None, Authorization="{admin}"),
    unauthenticated("of another kind", None, Authorization="Basic {admin}"),
    unauthenticated("twice", None, Authorization="Bearer {admin},Bearer {admin}"),
    unauthenticated("not ASCII", None, Authorization="Bearer \u00e9"),
    Mistake("token: none, before all else", "POST", "/jobs/submit", 401, "unauthenticated", token=None, data=b"{"),
    Mistake("token: none, to delete", "DELETE", "/jobs/{ended}", 401, "unauthenticated", token=None),
    scope("POST", "/jobs/submit", "reader", json=BUILD),
    *(
        scope("POST", f"/jobs/{{{job}}}/{call}", "reader")
        for job, call in (("running", "cancel"), ("ended", "retry"), ("nowhere", "retry"))
    ),
    scope("DELETE", "/jobs/{ended}", "reader"),
    Mistake("scope: before the body", "POST", "/jobs/submit", 403, "forbidden", token="reader", data=b"{"),
    *(
        scope("GET", path, "writer")
        for path in (
            "/jobs",
            "/jobs/{ended}",
            "/jobs/{ended}/log",
            "/jobs/{ended}/events",
            "/job-types",
            "/templates",
            "/templates/small_editor",
            "/stats",
            "/workers",
        )
    ),
    *(scope(method, path, token, json=body) for token in ("reader", "writer") for method, path, body in TOKEN_CALLS),
    body("token without scopes", {"name": "x", "scopes": []}, "#/scopes", path="/tokens"),
    body("token with a scope twice", {"name": "x", "scopes": ["admin", "admin"]}, "#/scopes", path="/tokens"),
    body("token with an unknown scope", {"name": "x", "scopes": ["root"]}, "#/scopes/0", path="/tokens"),
    body("token with a name that is none", {"name": "-x\x1b", "scopes": ["admin"]}, "#/name", path="/tokens"),
    body(
        "token that ends before it begins",
        {"name": "x", "scopes": ["admin"], "expires_in_seconds": 0},
        "#/expires_in_seconds",
        path="/tokens",
    ),
    body("token whose secret the client chooses", {"name": "x", "scopes": ["admin"], "token": "x"}, "#/token", path="/tokens"),
    Mistake(
        "token: of a name that is there",
        "POST",
        "/tokens",
        409,
        "token-exists",
        (("body", "#/name"),),
        json=TOKEN_CALLS[0][2] | {"name": "reader"},
    ),
    Mistake("token: unknown, to revoke", "DELETE", f"/tokens/{NOWHERE}", 404, "token-not-found"),
    Mistake("token: of the server itself, to revoke", "DELETE", "/tokens/{own_token}", 409, "token-protected"),
    # How things are
    refused("unknown project", {"type": "build", "params": {"project": "nothing"}}, 404, "project-not-found", "#/params/project"),
    refused(
        "unknown project to launch",
        {"type": "launch", "params": {"project": "nothing", "app": "x.kit"}},
        404,
        "project-not-found",
        "#/params/project",
    ),
    refused("unknown template", create("new", "nothing"), 404, "template-not-found", "#/params/template"),
    refused("unknown app", {"type": "launch", "params": {"app": "nothing.kit"}}, 404, "app-not-found", "#/params/app"),
    refused("unknown task", task_submission("nothing"), 404, "task-not-found", "#/params/task"),
    refused("project that exists", create("sample.page"), 409, "project-exists", "#/params/name"),
    refused("template that is a part", create("new", "fixed_port_layer"), 409, "template-not-creatable", "#/params/template"),
    refused("input missing", task_submission("lint"), 409, "inputs-rejected", "#/params/inputs/path"),
    refused("input unknown", task_submission("lint", path=".", x=1), 409, "inputs-rejected", "#/params/inputs/x"),
    refused("input of another type", task_submission("lint", path=1), 409, "inputs-rejected", "#/params/inputs/path"),
    refused("input that looks like an option", task_submission("lint", path="-la"), 409, "inputs-rejected", "#/params/inputs/path"),
    refused("inputs for a task without", task_submission("true", x=1), 409, "inputs-rejected", "#/params/inputs/x"),
    refused("no text for a command", task_submission("shell", script="a\0b"), 409, "inputs-rejected", "#/params/inputs/script"),
    outside("that climbs out", "../.."),
    outside("that climbs out on the way", "source/../../.."),
    outside("that climbs out and comes back", "../workspace/source"),
    outside("that is absolute", "/etc"),
    outside("that is a symbolic link out", "way_out"),
    outside("below a symbolic link out", "way_out/passwd"),
    outside("of a loop of symbolic links", "loop"),
    Mistake("template: unknown", "GET", "/templates/nothing", 404, "template-not-found"),
    Mistake("cancel: of an ended job", "POST", "/jobs/{ended}/cancel", 409, "job-ended"),
    Mistake("cancel: of an ended job, by force", "POST", "/jobs/{ended}/cancel", 409, "job-ended", json={"force": True}),
    Mistake("retry: of a running job", "POST", "/jobs/{running}/retry", 409, "job-active"),
    Mistake("retry: of a pending job", "POST", "/jobs/{pending}/retry", 409, "job-active"),
    Mistake(
        "submit: the key of another body", "POST", "/jobs/submit", 409, "idempotency-conflict", headers={"Idempotency-Key": KEY}, json=BUILD
    ),
    *(
        Mistake(f"accept: {accept}", "GET", "/jobs/{ended}/log", 406, "not-acceptable", headers={"Accept": accept})
        for accept in ("text/html", "application/xml, image/*", "application/json;q=0, text/plain;q=0")
    ),
    # Methods
    *(method_unknown(method, "/jobs/submit", "OPTIONS, POST") for method in ("GET", "PUT", "DELETE", "PATCH")),
    *(method_unknown(method, "/jobs/{ended}", "DELETE, GET, HEAD, OPTIONS") for method in ("POST", "PUT", "PATCH")),
    *(method_unknown(method, "/jobs", "GET, HEAD, OPTIONS") for method in ("POST", "DELETE")),
    *(method_unknown("GET", f"/jobs/{{ended}}/{call}", "OPTIONS, POST") for call in ("cancel", "retry")),
    method_unknown("POST", "/jobs/{ended}/log", "GET, HEAD, OPTIONS"),
    method_unknown("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with start_server(tmp_path_factory.mktemp("errors"), slots=1) as server:
        add_tokens(server)
        ended = server.submit(task_submission("true"), headers={"Idempotency-Key": KEY})["id"]
        server.wait(ended)
        running = server.shell("echo here; exec sleep 600")
        server.wait_for_log(running, "here")
        pending = server.shell("true")
        workspace = server.folder / "data" / "workspace"
        (workspace / "way_out").symlink_to("/etc")
        (workspace / "loop").symlink_to("loop")
        own_token = next(token["id"] for token in server.call("GET", "/tokens").json()["tokens"] if token["name"] == "admin")
        yield Place(server, ended, running, pending, own_token)


def add_tokens(server: RunningServer) -> None:
    """Tokens of every scope, each with its name as the secret, but for the admin's."""
    database = open_database(server.database_url)
    try:
        for name, scopes in TOKENS.items():
            if name != "admin":
                Tokens(database).add(name, name, frozenset(scopes))
    finally:
        database.close()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_wrong_request_gives_its_problem_and_changes_nothing(place: Place, mistake: Mistake) -> None:
    before = state(place.server)
    answer = send(place, mistake)
    assert_problem(answer, mistake.status, mistake.problem, mistake.violations)
    for name, value in mistake.answer_headers.items():
        assert ", ".join(sorted(answer.headers[name].split(", "))) == value
    assert state(place.server) == before


def test_table_has_every_problem_of_a_single_request() -> None:
    documented = set(Contract.load().openapi["components"]["schemas"]["ProblemType"]["enum"])
    here = {f"urn:runcast:problem:{mistake.problem}" for mistake in MISTAKES}
    # These need a server that is full, broken, idle or called from elsewhere; the one of a failed job is no answer.
    names = ("queue-full", "quota-exceeded", "rate-limited", "too-slow", "internal-error", "unavailable", "origin-refused", "job-failed")
    elsewhere = {f"urn:runcast:problem:{name}" for name in names}
    assert documented == here | elsewhere


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(place: Place) -> None:
    before = state(place.server)
    answer = place.server.call("POST", "/jobs/submit", data=(b" " * 65536 for _ in range(17)), headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "too-large")
    assert state(place.server) == before


CHUNKED = b'f\r\n{"type":"build",\r\nc\r\n"params":{}}\r\n'
NO_BODIES = {
    "a trailer that is none": CHUNKED + b"0\r\nX-T 1\r\n\r\n",
    "a trailer that is forbidden": CHUNKED + b"0\r\nAuthorization: Bearer x\r\n\r\n",
    "a size that is none": CHUNKED + b"zz\r\n\r\n",
    "a chunk without an end": b"2\r\n{}{}\r\n0\r\n\r\n",
    "no end": CHUNKED,
}


@pytest.mark.parametrize("body", NO_BODIES.values(), ids=NO_BODIES.keys())
def test_a_malformed_http_body_is_a_client_error(place: Place, body: bytes) -> None:
    before = state(place.server)
    where = urlsplit(place.server.url)
    head = f"POST /api/jobs/submit HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {place.server.token}\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        problem = json.loads(answer.read())
        assert connection.recv(1) == b""
    assert (answer.status, problem["type"]) == (400, "urn:runcast:problem:invalid-request"), problem
    assert state(place.server) == before


NO_REQUESTS = {
    b"nonsense\r\n\r\n": 400,
    b"GET / HTTP/9.9\r\n\r\n": 400,
    b"G@T / HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\na b: c\r\n\r\n": 400,
    b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n": 414,
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n": 431,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: nonsense\r\n\r\n": 501,
}


@pytest.mark.parametrize("data", NO_REQUESTS, ids=lambda data: repr(data[:30]))
def test_bytes_that_are_no_request_are_answered_with_a_problem(place: Place, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(place.server.url).port), timeout=20) as connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        problem = json.loads(answer.read())
        assert connection.recv(1) == b""
    status = NO_REQUESTS[data]
    assert (answer.status, problem["status"], problem["type"]) == (status, status, "urn:runcast:problem:invalid-request")
    assert problem["title"] and problem["detail"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.slow
def test_a_missing_workspace_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    copy_workspace(workspace)
    create = {"type": "create", "params": {"template": "small_editor", "name": "mine"}}
    launch = {"type": "launch", "params": {"app": "mine.kit"}}
    with start_server(tmp_path / "server", workspace=workspace) as server:
        ended = server.run("true")
        server.wait(ended)
        workspace.rename(tmp_path / "elsewhere")
        before = state(server)
        calls = [("GET", "/templates", None), ("GET", "/templates/small_editor", None), ("POST", f"/jobs/{ended}/retry", None)]
        for method, path, body in (*calls, *(("POST", "/jobs/submit", each) for each in (BUILD, create, launch, task_submission("true")))):
            answer = server.call(method, path, json=body)
            assert_problem(answer, 503, "unavailable")
            assert "workspace" in answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0
        assert state(server) == before
        (tmp_path / "elsewhere").rename(workspace)
        assert server.call("GET", "/templates").json()["templates"]
        assert server.wait(server.run("true"))["status"] == "completed"


@pytest.mark.slow
def test_a_full_queue_refuses_submissions_and_retries(tmp_path: Path) -> None:
    with start_server(tmp_path, slots=1, max_pending=2) as server:
        ended = server.run("true")
        server.wait(ended)
        running = server.shell("exec sleep 600")
        eventually(lambda: server.job(running)["status"] == "running", "the job runs")
        key = {"Idempotency-Key": KEY}
        first = server.submit(task_submission("true"), headers=key)
        second = server.run("true")
        before = state(server)
        for path, options in (("/jobs/submit", {"json": task_submission("true")}), (f"/jobs/{ended}/retry", {})):
            answer = server.call("POST", path, **options)
            assert_problem(answer, 429, "queue-full")
            assert int(answer.headers["Retry-After"]) > 0
        replay = server.call("POST", "/jobs/submit", json=task_submission("true"), headers=key)
        assert (replay.status_code, replay.json()["id"]) == (202, first["id"])
        assert state(server) == before
        assert server.call("POST", f"/jobs/{second}/cancel").status_code == 202
        server.run("true")


def send(place: Place, mistake: Mistake) -> requests.Response:
    secrets = {name: name for name in TOKENS} | {"admin": place.server.token, "unknown": "unknown"}
    headers = {name: value.format(**secrets).encode() for name, value in mistake.headers.items()}
    if mistake.token:
        headers["Authorization"] = f"Bearer {secrets[mistake.token]}".encode()
    data = mistake.data
    if mistake.json is not None:
        data = json.dumps(mistake.json).encode()
        headers.setdefault("Content-Type", b"application/json")
    request = requests.Request(
        mistake.method, f"{place.server.url}/api{place.path(mistake.path)}", headers=headers, data=data, params=mistake.params
    )
    with requests.Session() as session:
        return session.send(request.prepare(), timeout=20)


def assert_problem(answer: requests.Response, status: int, kind: str, violations: tuple[tuple[str, str], ...] = ()) -> None:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text[:500]
    problem = answer.json()
    assert (answer.status_code, problem["type"], problem["status"]) == (status, f"urn:runcast:problem:{kind}", status), problem
    assert problem["title"]
    assert problem["detail"]
    assert {(violation["in"], violation["pointer"]) for violation in problem.get("errors", [])} == set(violations), problem
    assert all(violation["detail"] for violation in problem.get("errors", []))
