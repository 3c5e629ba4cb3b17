"""Each call of the HTTP contract does what the contract says, on a real server."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import psutil
import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from handlers.web.gateway import CONTENT_SECURITY_POLICY, DATA_SECURITY_POLICY
from jobs.bootstrap import open_database
from jobs.model import Scope
from jobs.store.tokens import Tokens
from support.compatibility import LOADER
from support.server import RunningServer, task_submission
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
OPENAPI: dict[str, Any] = yaml.load((ROOT / "openapi" / "jobs.yaml").read_text(encoding="utf-8"), Loader=LOADER)
LONG = "echo started; exec sleep 600"
RAW = {"Accept": "text/plain"}


# -- submitting and showing -----------------------------------------------------------------------------------------------


def test_a_submission_is_accepted_durably_and_readable_at_its_location(server: RunningServer) -> None:
    submission = {
        **task_submission("shell", script="exit 3"),
        "priority": 7,
        "labels": ["nightly", "a:b=c"],
        "timeout_seconds": 60,
        "max_attempts": 2,
        "concurrency_key": "mine",
    }
    answer = server.call("POST", "/jobs/submit", json=submission)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    assert "Idempotency-Replayed" not in answer.headers
    assert {name: job[name] for name in submission} == submission
    assert (job["status"], job["attempt"], job["queue"], job["submitted_by"], job["retry_of"]) == ("pending", 0, "default", "admin", None)
    shown = server.session.get(f"{server.url}{answer.headers['Location']}", timeout=20)
    assert shown.json()["created_at"] == job["created_at"]
    ended = server.wait(job["id"])
    assert (ended["status"], ended["reason"], ended["exit_code"], ended["attempt"]) == ("failed", "exit_code", 3, 1)
    assert ended["error"]["type"] == "urn:runcast:problem:job-failed"
    moments = [datetime.fromisoformat(ended[name]) for name in ("created_at", "started_at", "ended_at")]
    assert moments == sorted(moments)
    assert all(ended[name].endswith("Z") and len(ended[name]) == len("2026-11-23T09:00:00.000Z") for name in ("created_at", "ended_at"))


def test_a_body_of_1_mib_is_accepted(server: RunningServer) -> None:
    data = json.dumps(task_submission("true")).encode().ljust(1 << 20)
    answer = server.call("POST", "/jobs/submit", data=data, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == 202


def test_an_unchanged_job_gives_304_and_a_changed_one_another_tag(server: RunningServer) -> None:
    job_id = server.shell(LONG)
    server.wait_for_log(job_id, "started")
    first = eventually(lambda: settled(server, job_id), "the job changes no more")
    tag = first.headers["ETag"]
    for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        unchanged = server.call("GET", f"/jobs/{job_id}", headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
    assert server.call("GET", f"/jobs/{job_id}", headers={"If-None-Match": '"other"'}).status_code == 200
    server.call("POST", f"/jobs/{job_id}/cancel")
    server.wait(job_id)
    changed = server.call("GET", f"/jobs/{job_id}", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def settled(server: RunningServer, job_id: str) -> requests.Response | None:
    """The job, if two looks in a row show it the same, with a line logged."""
    looks = [server.call("GET", f"/jobs/{job_id}") for _ in range(2)]
    return looks[1] if looks[0].content == looks[1].content and looks[1].json()["log"]["lines"] == 1 else None


def test_wait_holds_the_answer_until_the_job_ends(server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"until test -e {gate}; do sleep 0.02; done")
    eventually(lambda: server.job(job_id)["status"] == "running", "the job runs")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.call, "GET", f"/jobs/{job_id}", params={"wait": 9})
        assert server.job(job_id)["status"] == "running"  # others are answered meanwhile
        assert not waiting.done()
        gate.touch()
        answer = waiting.result()
    assert answer.json()["status"] == "completed"
    assert time.monotonic() - began < 8


def test_wait_returns_the_job_when_its_time_is_over(server: RunningServer) -> None:
    job_id = server.shell(LONG)
    server.wait_for_log(job_id, "started")
    began = time.monotonic()
    answer = server.call("GET", f"/jobs/{job_id}", params={"wait": 1})
    assert answer.json()["status"] == "running"
    assert 1 <= time.monotonic() - began < 4
    cancel(server, job_id)


# -- idempotency ----------------------------------------------------------------------------------------------------------


def test_same_idempotency_key_and_body_give_the_same_job(server: RunningServer) -> None:
    submission, headers = task_submission("shell", script="true"), {"Idempotency-Key": "same-key"}
    first = server.call("POST", "/jobs/submit", json=submission, headers=headers)
    server.wait(first.json()["id"])
    reordered = dict(reversed(submission.items()))  # the same body to JSON
    again = server.call("POST", "/jobs/submit", json=reordered, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "completed"
    other = server.call("POST", "/jobs/submit", json=submission, headers={"Idempotency-Key": "other-key"})
    assert other.json()["id"] != first.json()["id"]


def test_idempotency_key_is_per_token_and_free_after_deletion(server: RunningServer) -> None:
    add_token(server, "other", Scope.WRITE)
    headers = {"Idempotency-Key": "whose-key"}
    mine = server.submit(task_submission("true"), headers=headers)["id"]
    others = server.submit(task_submission("true"), headers={**headers, "Authorization": "Bearer other"})
    assert others["id"] != mine
    assert others["submitted_by"] == "other"
    server.wait(mine)
    assert server.call("DELETE", f"/jobs/{mine}").status_code == 204
    assert server.submit(task_submission("true"), headers=headers)["id"] != mine


def test_concurrent_submissions_with_one_key_make_one_job(server: RunningServer) -> None:
    submission, headers = task_submission("true"), {"Idempotency-Key": "crowded-key", "Authorization": f"Bearer {server.token}"}
    together = threading.Barrier(12)

    def submit(_: int) -> requests.Response:
        together.wait()
        return requests.post(f"{server.url}/api/jobs/submit", json=submission, headers=headers, timeout=20)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(12)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers].count("true") == 11


# -- listing --------------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_by_every_filter(server: RunningServer) -> None:
    before = server.job(server.shell("true"))["created_at"]
    eventually(lambda: server.job(server.shell("true", labels=["tick"]))["created_at"] > before, "the clock goes on")
    good = server.shell("true", labels=["list", "red"])
    bad = server.shell("false", labels=["list", "red", "big"])
    for job_id in (good, bad):
        server.wait(job_id)
    last = server.job(bad)
    build = server.submit({"type": "build", "params": {"project": "sample.page"}, "labels": ["list"]})["id"]
    cancel(server, build)

    def listed(**filters: Any) -> list[str]:
        page = server.call("GET", "/jobs", params={"label": ["list"], **filters}).json()
        assert page["next_cursor"] is None
        return [job["id"] for job in page["jobs"]]

    assert listed() == [build, bad, good]
    assert listed(status="completed") == [good]
    assert listed(status=["completed", "failed"]) == [bad, good]
    assert listed(status="pending") == []
    assert listed(type="build") == [build]
    assert listed(type=["build", "task"]) == [build, bad, good]
    assert listed(project="sample.page") == [build]
    assert listed(label=["list", "red"]) == [bad, good]
    assert listed(label=["red", "big"]) == [bad]
    assert listed(label=["nobody"]) == []
    assert listed(since=before) == [build, bad, good]
    assert listed(until=before) == []
    assert bad in listed(since=last["created_at"])
    assert good not in listed(since=last["created_at"]) or server.job(good)["created_at"] == last["created_at"]
    assert bad not in listed(until=last["created_at"])  # since includes its moment, until does not
    assert listed(since="2020-01-01T02:00:00+02:00") == [build, bad, good]
    assert listed(status=["completed", "failed"], type="task", label=["red"], since=before) == [bad, good]
    assert listed(cursor=bad) == listed(cursor=bad.upper()) == [good]


def test_paging_sees_every_job_once_while_new_ones_come(server: RunningServer) -> None:
    jobs = [server.shell("true", labels=["paged"]) for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = server.call("GET", "/jobs", params={"label": "paged", "limit": 3, "cursor": cursor}).json()
        seen += [job["id"] for job in page["jobs"]]
        assert len(page["jobs"]) <= 3
        cursor = page["next_cursor"]
        if cursor is None:
            break
        server.shell("true", labels=["paged"])
        # The job that the cursor names may go, too.
        assert server.call("DELETE", f"/jobs/{cursor}").status_code == 204
    assert seen == jobs[::-1]
    nothing = server.call("GET", "/jobs", params={"cursor": "00000000-0000-0000-0000-000000000000"}).json()
    assert nothing == {"jobs": [], "next_cursor": None}


# -- logs -----------------------------------------------------------------------------------------------------------------


def test_the_log_as_json_by_pages_tail_and_stream(server: RunningServer) -> None:
    job_id = server.shell("for i in $(seq 1 450); do echo line $i; done; echo oops >&2; exec true")
    server.wait(job_id)
    first = server.call("GET", f"/jobs/{job_id}/log").json()
    assert (first["job_id"], len(first["lines"]), first["next_seq"], first["complete"], first["dropped"]) == (job_id, 200, 201, False, None)
    assert first["lines"][0].keys() == {"seq", "at", "stream", "text"}
    pages, after = [], 0
    while True:
        page = server.call("GET", f"/jobs/{job_id}/log", params={"after_seq": after, "limit": 60}).json()
        pages += page["lines"]
        after = page["next_seq"] - 1
        if page["complete"]:
            break
        assert len(page["lines"]) == 60
    assert [line["seq"] for line in pages] == list(range(1, 452))
    stdout = [line["text"] for line in pages if line["stream"] == "stdout"]
    assert stdout == [f"line {number}" for number in range(1, 451)]
    tail = server.call("GET", f"/jobs/{job_id}/log", params={"tail": 3, "after_seq": 1}).json()
    assert [line["seq"] for line in tail["lines"]] == [449, 450, 451]
    assert tail["complete"]
    for query in ({"tail": 3, "stream": "stdout"}, {"after_seq": 447, "limit": 3, "stream": "stdout"}):
        page = server.call("GET", f"/jobs/{job_id}/log", params=query).json()
        assert ([line["seq"] for line in page["lines"]], page["next_seq"], page["complete"]) == ([448, 449, 450], 452, True)
    page = server.call("GET", f"/jobs/{job_id}/log", params={"limit": 449, "stream": "stdout"}).json()
    assert (page["next_seq"], page["complete"]) == (450, False)
    errors = server.call("GET", f"/jobs/{job_id}/log", params={"stream": "stderr"}).json()
    assert [line["text"] for line in errors["lines"]] == ["oops"]
    assert errors["complete"]
    beyond = server.call("GET", f"/jobs/{job_id}/log", params={"after_seq": 451}).json()
    assert (beyond["lines"], beyond["next_seq"], beyond["complete"]) == ([], 452, True)


def test_the_log_of_a_running_job_is_not_complete(server: RunningServer) -> None:
    job_id = server.shell(LONG)
    server.wait_for_log(job_id, "started")
    page = server.call("GET", f"/jobs/{job_id}/log").json()
    assert ([line["text"] for line in page["lines"]], page["next_seq"], page["complete"]) == (["started"], 2, False)
    cancel(server, job_id)
    assert server.call("GET", f"/jobs/{job_id}/log").json()["complete"]


def test_the_raw_log_is_byte_for_byte_what_the_job_wrote(server: RunningServer, tmp_path: Path) -> None:
    content = bytes(range(256)) + b"\xff\xfe broken \xc3(\n" + "ä€𝄞\x1b[31mred\x1b[0m\r\n".encode() + b"\n\nlast line without end"
    content = content.replace(b"\r", b"")  # a bare one rewrites its line
    (tmp_path / "content").write_bytes(content)
    job_id = server.shell(f"cat {tmp_path / 'content'}")
    server.wait(job_id)
    raw = server.call("GET", f"/jobs/{job_id}/log", headers=RAW)
    assert raw.content == content
    assert raw.headers["Content-Type"].partition(";")[0] == "text/plain"
    assert raw.headers["Content-Disposition"] == f'attachment; filename="{job_id}.log"'
    lines = server.call("GET", f"/jobs/{job_id}/log").json()["lines"]
    assert [line["text"] for line in lines] == content.decode(errors="replace").split("\n")
    assert server.call("GET", f"/jobs/{job_id}/log", headers=RAW, params={"tail": 1}).content == b"last line without end"
    after = server.call("GET", f"/jobs/{job_id}/log", headers=RAW, params={"after_seq": len(lines) - 2}).content
    assert after == b"\nlast line without end"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("text/plain;q=0.5, application/json", "application/json"),
        ("text/plain, application/json;q=0.5", "text/plain"),
        ("text/*", "text/plain"),
        ("*/*", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/plain;charset=utf-8", "text/plain"),
        ("application/json;charset=utf-8;q=0.5, text/plain; charset=utf-8", "text/plain"),
    ],
)
def test_log_comes_in_the_media_type_that_the_client_prefers(ended: str, server: RunningServer, accept: str, media_type: str) -> None:
    answer = server.call("GET", f"/jobs/{ended}/log", headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == media_type


def test_a_followed_log_streams_live_and_ends_with_the_job(server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"echo one; echo two; until test -e {gate}; do sleep 0.02; done; echo three")
    options: dict[str, Any] = {"params": {"follow": "true", "after_seq": 1}, "headers": RAW, "stream": True}
    with server.call("GET", f"/jobs/{job_id}/log", **options) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"two"  # though the job has not ended
        assert server.job(job_id)["status"] == "running"
        gate.touch()
        assert list(lines) == [b"three"]
    assert server.wait(job_id)["status"] == "completed"


def test_a_followed_log_ends_when_its_job_is_deleted(server: RunningServer) -> None:
    job_id = server.shell(LONG)
    with server.call("GET", f"/jobs/{job_id}/log", params={"follow": "true"}, headers=RAW, stream=True) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"started"
        assert requests.delete(f"{server.url}/api/jobs/{job_id}", headers=server.session.headers, timeout=20).status_code == 204
        assert list(lines) == []


# -- history, cancel, retry, delete ---------------------------------------------------------------------------------------


def test_the_history_has_every_change_and_its_cause(server: RunningServer) -> None:
    job_id = server.shell(LONG)
    server.wait_for_log(job_id, "started")
    cancel(server, job_id)
    history = server.call("GET", f"/jobs/{job_id}/events").json()
    events = history["events"]
    assert history["job_id"] == job_id
    assert [(e["previous"], e["status"], e["reason"], e["attempt"]) for e in events] == [
        (None, "pending", None, 0),
        ("pending", "running", None, 1),
        ("running", "cancelled", "cancelled_by_client", 1),
    ]
    assert "submitted by admin" in events[0]["cause"]
    assert "worker" in events[1]["cause"]
    assert "admin" in events[2]["cause"]
    assert [e["at"] for e in events] == sorted(e["at"] for e in events)


def test_a_second_cancel_changes_nothing(server: RunningServer) -> None:
    job_id = server.shell("trap '' TERM; echo started; while :; do sleep 0.05; done")
    server.wait_for_log(job_id, "started")
    first, second = (server.call("POST", f"/jobs/{job_id}/cancel") for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["cancel_requested_at"] == second.json()["cancel_requested_at"] is not None
    ended = server.wait(job_id)
    assert (ended["status"], ended["reason"]) == ("cancelled", "cancelled_by_client")
    again = server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    assert (again.status_code, again.json()) == (202, ended)
    assert len(server.call("GET", f"/jobs/{job_id}/events").json()["events"]) == 3


def test_force_skips_the_grace_period(server: RunningServer) -> None:
    job_id = server.submit(task_submission("patient", script="trap '' TERM; echo started; while :; do sleep 0.05; done"))["id"]
    server.wait_for_log(job_id, "started")
    assert server.call("POST", f"/jobs/{job_id}/cancel").json()["status"] == "running"
    began = time.monotonic()
    server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    assert server.wait(job_id)["signal"] == "SIGKILL"
    assert time.monotonic() - began < 10  # of 30 s that it would have


def test_a_retry_is_a_new_job_from_the_same_submission(server: RunningServer) -> None:
    submission = {**task_submission("shell", script="exit 4"), "priority": 3, "labels": ["again"], "timeout_seconds": 50, "max_attempts": 3}
    old_id = server.submit(submission)["id"]
    old = server.wait(old_id)
    answer = server.call("POST", f"/jobs/{old_id}/retry")
    new = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/jobs/{new['id']}"
    assert new["id"] != old_id
    assert new["retry_of"] == old_id
    assert {name: new[name] for name in submission} == submission
    assert server.wait(new["id"])["exit_code"] == 4
    assert server.job(old_id) == old
    assert f"retry of {old_id}" in server.call("GET", f"/jobs/{new['id']}/events").json()["events"][0]["cause"]


def test_a_deleted_job_is_gone_for_every_call(server: RunningServer) -> None:
    ended = server.shell("true")
    server.wait(ended)
    running = server.shell("echo pid $$; exec sleep 600", concurrency_key="delete")
    server.wait_for_log(running, "pid")
    process = psutil.Process(int(server.raw_log(running).split()[1]))
    pending = server.shell("echo must never run", concurrency_key="delete")
    assert server.job(pending)["status"] == "pending"
    for job_id in (pending, running, ended):
        answer = server.call("DELETE", f"/jobs/{job_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        for method, call in (("DELETE", ""), ("GET", ""), ("GET", "/log"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
            gone = server.call(method, f"/jobs/{job_id}{call}")
            assert (gone.status_code, gone.json()["type"]) == (404, "urn:runcast:problem:job-not-found")
    everything = server.call("GET", "/jobs", params={"limit": 200}).json()["jobs"]
    assert not {ended, running, pending} & {job["id"] for job in everything}
    eventually(lambda: not process.is_running(), "the deleted job's process ends")


# -- what the server can run ----------------------------------------------------------------------------------------------


def test_job_types_have_schemas_of_what_they_accept(server: RunningServer) -> None:
    types = server.call("GET", "/job-types").json()["job_types"]
    by_name = {(info["type"], info["task"]): info for info in types}
    assert {("build", None), ("launch", None), ("create", None), ("task", "lint"), ("task", "shell")} <= set(by_name)
    for info in types:
        jsonschema_rs.meta.validate(info["schema"])
        assert "$ref" not in json.dumps(info["schema"])
    lint = by_name["task", "lint"]
    assert (lint["title"], lint["description"], lint["queue"]) == ("List a folder", "What the examples of the contract run", "default")
    # What a schema accepts and refuses, the server does, too.
    for info, good, bad in (
        (lint, {"path": "source"}, {"path": 1}),
        (by_name["build", None], {"config": "debug"}, {"config": "fast"}),
        (by_name["launch", None], {"app": "x.kit", "args": []}, {"app": "x"}),
        (by_name["create", None], {"template": "t", "name": "n", "version": "1.2.3"}, {"template": "t"}),
    ):
        assert jsonschema_rs.is_valid(info["schema"], good)
        assert not jsonschema_rs.is_valid(info["schema"], bad)
        params = {"task": info["task"], "inputs": bad} if info["task"] else bad
        refused = server.call("POST", "/jobs/submit", json={"type": info["type"], "params": params})
        assert refused.status_code == (409 if info["task"] else 400)


def test_templates_include_those_that_cannot_be_created_alone(server: RunningServer) -> None:
    found = server.call("GET", "/templates").json()
    by_name = {template["name"]: template for template in found["templates"]}
    assert {"small_editor", "fixed_port_layer"} <= set(by_name)
    assert by_name["small_editor"]["creatable"]
    assert not by_name["fixed_port_layer"]["creatable"]
    assert by_name["small_editor"]["kind"] == "application"
    assert {"application_name", "application_display_name", "version"} <= set(by_name["small_editor"]["variables"])
    for name, template in by_name.items():
        assert server.call("GET", f"/templates/{name}").json() == template


# -- the service ----------------------------------------------------------------------------------------------------------


def test_stats_workers_and_metrics_agree(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(slots=1)
    server.wait(server.run("true"))
    server.wait(server.shell("false"))
    running = server.shell(LONG)
    server.wait_for_log(running, "started")
    waiting = [server.shell("true") for _ in range(2)]
    stats = server.call("GET", "/stats").json()
    assert stats["by_status"] == {"pending": 2, "running": 1, "completed": 1, "failed": 1, "cancelled": 0}
    assert stats["by_type"] == {"build": 0, "launch": 0, "create": 0, "task": 5}
    assert stats["queue_depth"] == 2
    assert stats["oldest_pending_seconds"] >= 0
    (worker,) = server.call("GET", "/workers").json()["workers"]
    assert (worker["slots"], worker["busy_slots"], worker["queues"], worker["alive"]) == (1, 1, ["default"], True)
    assert worker["pid"] == server.part("worker").pid
    assert worker["heartbeat_at"] >= worker["started_at"]
    assert server.job(waiting[0])["waiting_for"] == "slot"

    scraped = server.session.get(f"{server.url}/metrics", timeout=20)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(scraped.text)
        for sample in family.samples
    }
    assert {status: samples["runcast_jobs", status] for status in stats["by_status"]} == stats["by_status"]
    assert samples["runcast_oldest_pending_seconds",] >= stats["oldest_pending_seconds"]
    assert (samples["runcast_workers",], samples["runcast_slots",], samples["runcast_busy_slots",]) == (1, 1, 1)
    assert samples["runcast_clients",] == 0
    with server.connect():
        assert "runcast_clients 1.0" in server.session.get(f"{server.url}/metrics", timeout=20).text
    for headers, status in (({}, 401), ({"Authorization": "Bearer unknown"}, 401)):
        refused = requests.get(f"{server.url}/metrics", headers=headers, timeout=20)
        assert (refused.status_code, refused.json()["type"]) == (status, "urn:runcast:problem:unauthenticated")


def test_whoami_tells_the_name_and_scopes_of_the_token(server: RunningServer) -> None:
    assert server.call("GET", "/whoami").json() == {"name": "admin", "scopes": ["admin"], "expires_at": None}
    add_token(server, "reader", Scope.READ)
    answer = server.call("GET", "/whoami", headers={"Authorization": "bearer reader"})
    assert answer.json() == {"name": "reader", "scopes": ["jobs:read"], "expires_at": None}


def test_server_without_a_worker_is_live_but_not_ready(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(no_worker=True)
    anonymous = requests.Session()
    with anonymous:
        live = anonymous.get(f"{server.url}/api/health/live", timeout=20)
        ready = anonymous.get(f"{server.url}/api/health/ready", timeout=20)
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["type"]) == (503, "urn:runcast:problem:unavailable")
    assert server.job(server.run("true"))["waiting_for"] == "worker"


def test_server_with_a_worker_is_ready(server: RunningServer) -> None:
    answer = requests.get(f"{server.url}/api/health/ready", timeout=20)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


# -- documents ------------------------------------------------------------------------------------------------------------


def test_contract_is_served_as_written_except_for_its_url(server: RunningServer) -> None:
    answer = requests.get(f"{server.url}/api/openapi.json", timeout=20)
    served = answer.json()
    (here,) = served["servers"]
    base = requests.compat.urljoin(f"{server.url}/api/openapi.json", here["url"])
    assert requests.get(f"{base}/health/live", timeout=20).status_code == 200
    assert {**served, "servers": OPENAPI["servers"]} == OPENAPI
    assert list(served["paths"]) == list(OPENAPI["paths"])


def test_references_in_the_served_events_contract_resolve(server: RunningServer) -> None:
    served = requests.get(f"{server.url}/api/asyncapi.json", timeout=20).json()
    written = yaml.load((ROOT / "openapi" / "jobs.asyncapi.yaml").read_text(encoding="utf-8"), Loader=LOADER)
    assert served["asyncapi"] == "3.0.0"
    assert served["servers"]["this"]["host"] == urlsplit(server.url).netloc
    assert json.loads(json.dumps(written).replace("jobs.yaml#", "openapi.json#")) == {**served, "servers": written["servers"]}
    references = {value for value in strings(served) if "openapi.json#" in value}
    assert references
    for reference in references:
        document, _, pointer = reference.partition("#")
        node = requests.get(requests.compat.urljoin(f"{server.url}/api/asyncapi.json", document), timeout=20).json()
        for step in pointer.strip("/").split("/"):
            node = node[step]


def test_pages_need_no_token_and_load_nothing_from_other_hosts(server: RunningServer) -> None:
    for path, expected in (("docs", "swagger-ui"), ("docs/events", "asyncapi.json")):
        answer = requests.get(f"{server.url}/api/{path}", timeout=20)
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
        assert expected in answer.text
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        for asset in assets(answer.text):
            assert not urlsplit(asset).netloc, asset
            found = requests.get(requests.compat.urljoin(answer.url, asset), timeout=20)
            assert (found.status_code, bool(found.content)) == (200, True), asset


def assets(page: str) -> list[str]:
    return re.findall(r"<(?:script|link|img)\b[^>]*?\b(?:src|href)=[\"']?([^\"'>\s]+)", page)


# -- refused before routing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/jobs", "/api/health/live", "/api/docs", "/metrics", "/socket.io/?EIO=4&transport=polling"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example", "[::2]"])
def test_a_foreign_host_is_refused(server: RunningServer, path: str, host: str) -> None:
    port = str(urlsplit(server.url).port)
    headers = {"Host": host.replace("{port}", port), "Authorization": f"Bearer {server.token}"}
    assert_refused_before_routing(requests.get(f"{server.url}{path}", headers=headers, timeout=20))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1", "[::1]:{port}"])
def test_names_of_the_loopback_address_are_accepted_as_host(server: RunningServer, host: str) -> None:
    headers = {"Host": host.replace("{port}", str(urlsplit(server.url).port))}
    assert requests.get(f"{server.url}/api/health/live", headers=headers, timeout=20).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "https://jobs.example.com.evil.example"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_request_from_a_foreign_origin_is_refused(server: RunningServer, origin: str, method: str) -> None:
    before = server.call("GET", "/stats").json()["by_type"]
    headers = {"Origin": origin, "Authorization": f"Bearer {server.token}"}
    answer = requests.request(method, f"{server.url}/api/jobs/submit", headers=headers, json=task_submission("true"), timeout=20)
    assert_refused_before_routing(answer)
    assert server.call("GET", "/stats").json()["by_type"] == before


def assert_refused_before_routing(answer: requests.Response) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
    assert answer.json()["type"] == "urn:runcast:problem:origin-refused"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_servers_own_pages_may_call_it(server: RunningServer) -> None:
    answer = server.call("GET", "/whoami", headers={"Origin": server.url})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_configured_origins_and_hosts_are_accepted(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(no_worker=True, allow_origin=["https://jobs.example.com", "http://localhost:5173"], allow_host="jobs.example.com")
    assert server.call("GET", "/whoami", headers={"Host": "jobs.example.com"}).status_code == 200
    page = "https://jobs.example.com"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,idempotency-key"}
    preflight = requests.options(f"{server.url}/api/jobs/submit", headers={"Origin": page, **asked}, timeout=20)
    assert preflight.status_code in (200, 204)
    assert preflight.headers["Access-Control-Allow-Origin"] == page
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}
    assert set(asked["Access-Control-Request-Headers"].split(",")) <= allowed
    assert "Origin" in preflight.headers["Vary"]
    submitted = server.call("POST", "/jobs/submit", json=task_submission("true"), headers={"Origin": page})
    assert submitted.status_code == 202
    assert submitted.headers["Access-Control-Allow-Origin"] == page
    exposed = {name.strip() for name in submitted.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"Location", "ETag", "Retry-After", "Idempotency-Replayed"} <= exposed
    # A page must be able to read why it was refused, too.
    refused = requests.get(f"{server.url}/api/jobs", headers={"Origin": page}, timeout=20)
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, page)
    assert_refused_before_routing(requests.get(f"{server.url}/api/jobs", headers={"Origin": "https://other.example.com"}, timeout=20))


def test_every_answer_carries_security_headers(server: RunningServer) -> None:
    log = f"/api/jobs/{server.submit(task_submission('true'))['id']}/log"
    calls = (
        "/api/whoami",
        "/api/jobs/nothing",
        "/api/openapi.json",
        "/api/health/live",
        log,
        "/socket.io/?EIO=4&transport=polling",
        "/socket.io/",
    )
    pages = ("/", "/api/docs", "/api/docs/events", "/api/docs/assets/swagger-ui.css")
    for path, more in [
        *((path, {}) for path in (*calls, *pages)),
        ("/api/whoami", {"Host": "evil.example"}),
        (log, {"Accept": "text/plain"}),
    ]:
        headers = server.session.get(f"{server.url}{path}", headers=more, timeout=20).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert "Access-Control-Allow-Credentials" not in headers
        policy = CONTENT_SECURITY_POLICY if path in pages else DATA_SECURITY_POLICY
        assert headers["Content-Security-Policy"] == policy, path
        assert "unsafe" not in policy
        assert path in pages or headers["Cache-Control"] == "no-store", path


# -- helpers --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(server: RunningServer) -> str:
    job_id = server.shell("echo something")
    server.wait(job_id)
    return job_id


def cancel(server: RunningServer, job_id: str) -> None:
    assert server.call("POST", f"/jobs/{job_id}/cancel").status_code == 202
    assert server.wait(job_id)["status"] == "cancelled"


def add_token(server: RunningServer, name: str, *scopes: Scope) -> None:
    """A token whose secret is its name."""
    database = open_database(server.database_url)
    try:
        Tokens(database).add(name, name, frozenset(scopes))
    finally:
        database.close()


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node
