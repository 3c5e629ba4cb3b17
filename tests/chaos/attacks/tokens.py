"""Those who should not be let in: no token, a wrong, revoked or expired one, one of another scope, one in the query; on every call and on
the socket. Then those who guess, and those who ask too much."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import requests
import websocket

from chaos.attacks.row import Attack, Row, Target, refused
from handlers.contract.document import Contract, Operation
from jobs.store.tokens import make_secret
from support.raw_socket import raw_socket
from support.server import task_submission
from support.waiting import eventually

NOWHERE = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
METRICS = Operation(
    "get_metrics", "", "get", "/metrics", "jobs:read", takes_parameters=False, header_parameters=(), body=None, body_required=False
)
"""The one call that is not in the contract, and not below its address."""
SCOPED = [*(operation for operation in Contract.load().operations.values() if operation.scope), METRICS]
OTHER_SCOPE = {"jobs:read": "writer", "jobs:write": "reader", "admin": "writer"}
UNAUTHENTICATED = ("none", "unknown", "nearly right", "revoked", "expired", "in the query", "in a cookie", "of another kind")
TIMED_CALLS = 150


def prepare(target: Target) -> None:
    tokens = {
        "reader": target.token("reader", "jobs:read")["token"],
        "writer": target.token("writer", "jobs:write")["token"],
        "expired": target.token("expired", "admin", seconds=1)["token"],
    }
    revoked = target.token("revoked", "admin")
    assert target.call("GET", "/api/whoami", token=revoked["token"]).status_code == 200
    assert target.server.call("DELETE", f"/tokens/{revoked['id']}").status_code == 204
    eventually(lambda: target.call("GET", "/api/whoami", token=tokens["expired"]).status_code == 401, "the token expires")
    right = target.server.token
    job_id = target.server.run("true")
    target.server.wait(job_id)
    target.things |= {**tokens, "revoked": revoked["token"], "nearly right": right[:-1] + ("A" if right[-1] != "A" else "B"), "job": job_id}
    let_in(target)


def let_in(target: Target) -> None:
    """With the right token each of these calls is answered: what refuses strangers is their token."""
    for operation in SCOPED:
        if operation.method == "get":
            assert target.call("GET", address(target, operation), token=target.server.token).status_code == 200, operation.operation_id
    with raw_socket(target.server) as watcher:
        assert watcher.refusal is None


def address(target: Target, operation: Operation) -> str:
    """With the id of a job that is there: what is refused shall not depend on what it asks for."""
    path = operation.path.replace("{job_id}", target.things["job"]).replace("{token_id}", NOWHERE).replace("{name}", "small_editor")
    return path if operation is METRICS else f"/api{path}"


def options_of(operation: Operation) -> Mapping[str, object]:
    return {"json": task_submission("true")} if operation.operation_id == "submit_job" else {}


def knock(operation: Operation, credentials: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        right = target.server.token
        token, query, headers = None, {}, {}
        if credentials == "in the query":
            query = {"token": right, "access_token": right}
        elif credentials == "in a cookie":
            headers = {"Cookie": f"token={right}; Authorization=Bearer {right}"}
        elif credentials == "of another kind":
            headers = {"Authorization": f"Basic {right}"}
        elif credentials != "none":
            token = target.things.get(credentials) or make_secret()
        given = dict(options_of(operation))
        refused(target.call(operation.method, address(target, operation), token=token, params=query, headers=headers, **given), 401)

    return run


def overreach(operation: Operation) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        token = target.things[OTHER_SCOPE[operation.scope or ""]]
        refused(target.call(operation.method, address(target, operation), token=token, **dict(options_of(operation))), 403)

    return run


def refusal_by_websocket(target: Target, auth: Any, query: str) -> Any:
    with raw_socket(target.server, auth=auth, query=query) as attacker:
        assert attacker.refusal, "it was let in"
        return attacker.refusal["data"]


def refusal_by_polling(target: Target, auth: Any, query: str) -> Any:
    path = f"/socket.io/?EIO=4&transport=polling{query}"
    address = f"{path}&sid={json.loads(target.call('GET', path).text[1:])['sid']}"
    assert target.call("POST", address, data=f"40{json.dumps(auth)}").text == "OK"
    answer = target.call("GET", address).text
    assert answer.startswith("44"), f"it was let in: {answer}"
    return json.loads(answer[2:])["data"]


REFUSALS = {"WebSocket": refusal_by_websocket, "polling": refusal_by_polling}
# What each says with the connection, and adds to the address.
CONNECTING: dict[str, Callable[[Target], tuple[Any, str]]] = {
    "without a token": lambda target: ({}, ""),
    "with an unknown token": lambda target: ({"token": make_secret()}, ""),
    "with a token that is nearly right": lambda target: ({"token": target.things["nearly right"]}, ""),
    "with a token that is revoked": lambda target: ({"token": target.things["revoked"]}, ""),
    "with a token that is expired": lambda target: ({"token": target.things["expired"]}, ""),
    "with a token of another scope": lambda target: ({"token": target.things["writer"]}, ""),
    "with the token in the query": lambda target: ({}, f"&token={target.server.token}&access_token={target.server.token}"),
}


def connect(transport: str, how: str) -> Callable[[Target], None]:
    kind = "forbidden" if how == "with a token of another scope" else "unauthenticated"

    def run(target: Target) -> None:
        refusal = REFUSALS[transport](target, *CONNECTING[how](target))
        assert refusal["type"] == f"urn:runcast:problem:{kind}", refusal

    return run


def same_time(target: Target) -> None:
    """A token that is right but for its end takes as long as any other; the two are asked in turns, so that what else runs slows both."""
    times: dict[str, list[float]] = {"nearly right": [], "unknown": []}
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(TIMED_CALLS):
            for kind, found in times.items():
                token = target.things["nearly right"] if kind == "nearly right" else make_secret()
                started = time.perf_counter()
                answer = session.get(f"{target.server.url}/api/whoami", headers={"Authorization": f"Bearer {token}"}, timeout=20)
                found.append(time.perf_counter() - started)
                assert answer.status_code == 401
    near, far = (statistics.median(found) for found in times.values())
    assert abs(near - far) < 0.2 * max(near, far), f"{near * 1e6:.0f} µs for a token that is nearly right, {far * 1e6:.0f} µs for another"


def revoked_at_once(target: Target) -> None:
    """Also one that was good a moment ago, and so is remembered."""
    for _ in range(5):
        made = target.token("short-lived", "jobs:read")
        assert target.call("GET", "/api/jobs", token=made["token"]).status_code == 200
        assert target.server.call("DELETE", f"/tokens/{made['id']}").status_code == 204
        refused(target.call("GET", "/api/jobs", token=made["token"]), 401)


Hear = Callable[[str | None], list[tuple[str, dict[str, Any]]]]
"""Everything that comes until the connection is closed; only before the job that is named ends may anything of it come."""


@contextmanager
def by_websocket(target: Target, token: str) -> Iterator[Hear]:
    with raw_socket(target.server, auth={"token": token}) as watcher:
        watcher.send("subscribe", {"all": True})
        assert watcher.wait("ack") == [{"ok": True}]

        def hear(_: str | None) -> list[tuple[str, dict[str, Any]]]:
            heard = []
            started = time.monotonic()
            with suppress(websocket.WebSocketException, AssertionError):  # closed
                while True:
                    heard.append(watcher.receive())
            assert time.monotonic() - started < 5, "it was closed late"
            return [event for event in heard if event[0] not in ("status", "progress")]

        yield hear


@contextmanager
def by_polling(target: Target, token: str) -> Iterator[Hear]:
    opened = target.call("GET", "/socket.io/?EIO=4&transport=polling").text
    address = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(opened[1:])['sid']}"
    target.call("POST", address, data=f"40{json.dumps({'token': token})}")
    assert target.call("GET", address).text.startswith("40")
    target.call("POST", address, data='420["subscribe",{"all":true}]')
    assert '[{"ok":true}]' in target.call("GET", address).text

    def hear(_: str | None) -> list[tuple[str, dict[str, Any]]]:
        packets: list[str] = []
        started = time.monotonic()
        while (answer := target.call("GET", address)).status_code == 200 and answer.text != "1":
            packets += answer.text.split("\x1e")
        assert time.monotonic() - started < 5, "it was closed late"
        assert "41" in packets, "no goodbye"
        events = [json.loads(packet[2:]) for packet in packets if packet.startswith("42")]
        return [(event, payload) for event, payload in events if event not in ("status", "progress")]

    yield hear


CONNECTIONS = {"websocket": by_websocket, "polling": by_polling}


def revoked_while_connected(transport: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        made = target.token("watcher", "jobs:read")
        with CONNECTIONS[transport](target, made["token"]) as hear:
            assert target.server.call("DELETE", f"/tokens/{made['id']}").status_code == 204
            heard = hear(target.server.run("true"))
        assert heard[-1][0] == "error" and heard[-1][1]["problem"]["detail"] == "The token was revoked.", heard

    return run


def expired_while_connected(transport: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        made = target.token("briefly", "jobs:read", seconds=1)
        with CONNECTIONS[transport](target, made["token"]) as hear:
            heard = hear(None)
        assert [event for event, _ in heard] == ["error"] and heard[0][1]["problem"]["detail"] == "The token has expired.", heard

    return run


def subscribe_after_the_end(target: Target) -> None:
    """At once, before the connections of ended tokens are looked for."""
    made = target.token("late", "jobs:read")
    with raw_socket(target.server, auth={"token": made["token"]}) as attacker:
        assert target.server.call("DELETE", f"/tokens/{made['id']}").status_code == 204
        attacker.subscribe(target.things["job"])
        while (came := attacker.receive())[0] not in ("ack", "error"):
            assert came[0] not in ("log", "status", "complete"), came
        answer = came[1][0] if came[0] == "ack" else came[1]
        assert answer["problem"]["status"] == 401, came


def followed_log(target: Target) -> None:
    made = target.token("follower", "jobs:read")
    job_id = target.server.shell("i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo line $i; sleep 0.05; done")
    headers = {"Authorization": f"Bearer {made['token']}", "Accept": "text/plain"}
    url = f"{target.server.url}/api/jobs/{job_id}/log"
    with requests.get(url, params={"follow": "true"}, headers=headers, stream=True, timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(b"line")
        assert target.server.call("DELETE", f"/tokens/{made['id']}").status_code == 204
        rest = list(lines)
    assert rest[-1] == b"[runcast: The token was revoked.]", rest[-3:]
    assert len(rest) < 100
    target.server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    target.server.wait(job_id)


def own_token(target: Target) -> None:
    tokens = {token["name"]: token["id"] for token in target.server.call("GET", "/tokens").json()["tokens"]}
    refused(target.server.call("DELETE", f"/tokens/{tokens['admin']}"), 409)
    refused(target.server.call("POST", "/tokens", json={"name": "admin", "scopes": ["admin"]}), 409)


def secrets_are_not_told(target: Target) -> None:
    told = target.server.call("GET", "/tokens").text
    assert not [secret for secret in target.secrets if secret in told]


def token_attacks() -> Iterator[Attack]:
    for operation in SCOPED:
        for credentials in UNAUTHENTICATED:
            yield Attack(f"{operation.operation_id} with a token that is {credentials}", knock(operation, credentials))
        if operation.scope in OTHER_SCOPE:
            yield Attack(f"{operation.operation_id} with a token of another scope", overreach(operation))
    for transport in REFUSALS:
        for how in CONNECTING:
            yield Attack(f"connect by {transport} {how}", connect(transport, how))
    yield Attack("tell from the time how right a token is", same_time)
    yield Attack("go on with a revoked token", revoked_at_once, changes=True)
    yield Attack("stay connected with a revoked token", revoked_while_connected("websocket"), changes=True)
    yield Attack("go on polling with a revoked token", revoked_while_connected("polling"), changes=True)
    yield Attack("stay connected with an expired token", expired_while_connected("websocket"), changes=True)
    yield Attack("go on polling with an expired token", expired_while_connected("polling"), changes=True)
    yield Attack("subscribe with a revoked token", subscribe_after_the_end, changes=True)
    yield Attack("follow a log with a revoked token", followed_log, changes=True)
    yield Attack("take the server's own token away, or its name", own_token)
    yield Attack("read tokens back", secrets_are_not_told)


# -- those who guess, and those who ask too much ---------------------------------------------------------------------------


def prepare_limits(target: Target) -> None:
    target.things |= {
        "guest": target.token("guest", "jobs:read", "jobs:write")["token"],
        "greedy": target.token("greedy", "jobs:read", "jobs:write")["token"],
        "busy": target.token("busy", "jobs:read")["token"],
        "noisy": target.token("noisy", "jobs:read", "jobs:write")["token"],
        "late": target.token("late", "jobs:read")["token"],
    }
    for name in set(target.things) - {"late"}:
        assert target.call("GET", "/api/whoami", token=target.things[name]).status_code == 200


def limited(answer: requests.Response, kind: str) -> None:
    refused(answer, 429)
    assert answer.json()["type"] == f"urn:runcast:problem:{kind}", answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def too_many_pending(target: Target) -> None:
    token = target.things["greedy"]
    held = [target.call("POST", "/api/jobs/submit", token=token, json=task_submission("shell", script="exec sleep 60")) for _ in range(3)]
    assert [answer.status_code for answer in held] == [202] * 3
    eventually(lambda: target.server.job(held[0].json()["id"])["status"] == "running", "the first runs in the only slot")
    third = target.call("POST", "/api/jobs/submit", token=token, json=task_submission("true"))
    limited(third, "quota-exceeded")
    assert "pending" in third.json()["detail"]
    # Others are not concerned, and what the token has already it may end.
    other = target.call("POST", "/api/jobs/submit", token=target.things["guest"], json=task_submission("true"))
    assert other.status_code == 202
    for answer in held:
        assert target.call("POST", f"/api/jobs/{answer.json()['id']}/cancel", token=token).status_code == 202
    target.server.wait(other.json()["id"])
    assert target.call("POST", "/api/jobs/submit", token=token, json=task_submission("true")).status_code == 202


def too_long_logs(target: Target) -> None:
    token = target.things["noisy"]
    first = target.call(
        "POST", "/api/jobs/submit", token=token, json=task_submission("shell", script="head -c 300000 /dev/zero | tr '\\0' 'x'")
    )
    target.server.wait(first.json()["id"])

    def full() -> bool:
        answer = target.call("POST", "/api/jobs/submit", token=token, json=task_submission("true"))
        if answer.status_code == 202:  # not added up anew yet
            address = f"/api/jobs/{answer.json()['id']}"
            # Else it would count as one of the pending.
            eventually(lambda: target.call("GET", address, token=token, params={"wait": 5}).json()["ended_at"], "it has ended")
            return False
        limited(answer, "quota-exceeded")
        assert "logs" in answer.json()["detail"]
        return True

    eventually(full, "the quota is noticed", seconds=5)
    assert target.call("DELETE", f"/api/jobs/{first.json()['id']}", token=token).status_code == 204
    submit = {"token": token, "json": task_submission("true")}
    eventually(lambda: target.call("POST", "/api/jobs/submit", **submit).status_code == 202, "there is room again", seconds=20)


def too_many_calls(target: Target) -> None:
    token = target.things["busy"]
    answers = [target.call("GET", "/api/jobs", token=token) for _ in range(650)]
    assert [answer.status_code for answer in answers[:550]] == [200] * 550
    limited(answers[-1], "rate-limited")
    assert target.call("GET", "/api/health/live").status_code == 200
    assert target.call("GET", "/api/jobs", token=target.things["guest"]).status_code == 200


def too_many_messages(target: Target) -> None:
    with raw_socket(target.server, auth={"token": target.token("chatty", "jobs:read")["token"]}) as attacker:
        for _ in range(650):
            attacker.send("unsubscribe", {"all": True})
        answers = [attacker.wait("ack")[0] for _ in range(650)]
    assert answers[0] == {"ok": True}
    assert answers[-1]["problem"]["type"] == "urn:runcast:problem:rate-limited"


def guess(target: Target) -> None:
    """Beyond the limit nothing is even looked up: a right token that was not seen before is refused as well; one that was, is not."""
    answers = [target.call("GET", "/api/jobs", token=make_secret()) for _ in range(15)]
    assert [answer.status_code for answer in answers[:5]] == [401] * 5
    limited(answers[-1], "rate-limited")
    limited(target.call("GET", "/api/jobs", token=target.things["late"]), "rate-limited")
    assert target.call("GET", "/api/whoami", token=target.things["guest"]).status_code == 200
    with raw_socket(target.server, auth={"token": make_secret()}) as attacker:
        assert attacker.refusal["data"]["type"] == "urn:runcast:problem:rate-limited", attacker.refusal


def fill_the_audit_log(target: Target) -> None:
    before = target.server.output.count("by=- ")
    answers: list[requests.Response] = []
    callers = [
        threading.Thread(target=lambda: answers.extend(target.call("GET", "/api/jobs", token=make_secret()) for _ in range(25)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(answers) == 100 and {answer.status_code for answer in answers} <= {401, 429}
    assert target.server.output.count("by=- ") - before <= 20


def check_audit(target: Target) -> None:
    """Who did what, by name; never with what."""
    lines = [line for line in target.server.output.splitlines() if " runcast.audit INFO " in line]
    for part in ("submit_job by=greedy from=127.0.0.1 outcome=202 made=", "submit_job by=greedy from=127.0.0.1 outcome=quota-exceeded",
                 "cancel_job by=greedy from=127.0.0.1 outcome=202 job=", "delete_job by=noisy", "create_token by=admin",
                 "list_jobs by=- from=127.0.0.1 outcome=unauthenticated", "outcome=rate-limited"):  # fmt: skip
        assert [line for line in lines if part in line], f"no line has {part!r}"


LIMIT_ATTACKS = (
    Attack("submit more jobs than may be pending", too_many_pending, changes=True),
    Attack("call more often than allowed", too_many_calls),
    Attack("send more messages than allowed", too_many_messages, changes=True),
    Attack("guess tokens", guess),
    Attack("fill the disk with refusals", fill_the_audit_log),
    Attack("log more than may be stored", too_long_logs, changes=True),
)

SCENARIOS = (
    Row(
        name="attack-tokens",
        fault="no token, wrong, revoked, expired, of another scope, in the query: on every call and on the socket",
        attacks=list(token_attacks()),
        prepare=prepare,
        options={"failure_limit": "off"},
    ).scenario(),
    Row(
        name="attack-limits",
        fault="more calls, messages, pending jobs, log bytes than a token may have; guessed tokens",
        attacks=LIMIT_ATTACKS,
        prepare=prepare_limits,
        options={
            "slots": 1,
            "failure_limit": "10/minute",
            "rate_limit": "600/minute",
            "token_max_pending": 2,
            "token_max_log_bytes": 200_000,
        },
        check=check_audit,
    ).scenario(),
)
