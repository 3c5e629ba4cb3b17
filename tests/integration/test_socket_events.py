"""What a subscriber sees of a job: everything once, in order, whenever and however often it subscribes; and what a broken message gets."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import socketio
import websocket
from websocket import ABNF

from handlers.contract.document import Contract
from jobs.bootstrap import open_database
from jobs.model import Scope
from jobs.store.tokens import Tokens
from support.events import EventLog
from support.raw_socket import raw_socket
from support.server import PROGRAMS, RunningServer, start_server, task_submission
from support.waiting import eventually

TRANSPORTS = ("websocket", "polling")
NOWHERE = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
PROBLEM = "urn:runcast:problem:"


class Gate:
    """Holds a job in the middle until the test opens it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.wait = f"while ! [ -e {file} ]; do sleep 0.01; done"

    def open(self) -> None:
        self._file.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "open")
    yield gate
    gate.open()


def numbered(count: int, *options: str) -> str:
    return f"{sys.executable} {PROGRAMS}/numbered_lines.py {count} {' '.join(options)}"


def expected(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


def changes(events: EventLog, job_id: str) -> list[tuple[str | None, str]]:
    return [(payload["previous"], payload["status"]) for payload in events.of("status", job_id)]


def lines_in(events: EventLog, job_id: str) -> int:
    return sum(len(payload["lines"]) for payload in events.of("log", job_id))


def clients(server: RunningServer) -> int:
    text = server.session.get(f"{server.url}/metrics", timeout=20).text
    match = re.search(r"^runcast_clients (\S+)$", text, re.MULTILINE)
    assert match, text
    return int(float(match[1]))


def api_process(server: RunningServer) -> psutil.Process:
    """The process that serves clients: the worker of gunicorn."""
    return eventually(lambda: next(iter(server.part("api").children()), None), "the API has its worker")


# -- connecting -----------------------------------------------------------------------------------------------------------


def refused(server: RunningServer, auth: Any, transport: str) -> dict[str, Any]:
    """The payload of `connect_error`."""
    caught: list[dict[str, Any]] = []
    client = socketio.Client(reconnection=False)
    client.on("connect_error", caught.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(server.url, auth=auth, transports=[transport])
    assert Contract.load().ack_violations("connect", caught[0]) == []
    assert caught[0]["message"] == caught[0]["data"]["detail"]
    return dict(caught[0]["data"])


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        (None, "unauthenticated"),
        ({"token": "wrong"}, "unauthenticated"),
        ({"token": ""}, "invalid-request"),
        ({"token": 5}, "invalid-request"),
        ({"token": "x" * 1001}, "invalid-request"),
        ({"token": "right", "more": 1}, "invalid-request"),
        (["token"], "invalid-request"),
        ("token", "invalid-request"),
    ],
)
def test_a_connection_without_a_right_token_is_refused_with_a_problem(server: RunningServer, transport: str, auth: Any, kind: str) -> None:
    if isinstance(auth, dict) and "more" in auth:
        auth = {**auth, "token": server.token}
    before = clients(server)
    problem = refused(server, auth, transport)
    assert problem["type"] == PROBLEM + kind
    assert problem["status"] == {"unauthenticated": 401, "invalid-request": 400}[kind]
    assert clients(server) == before


def test_a_token_that_may_not_read_is_refused(server: RunningServer) -> None:
    database = open_database(server.database_url)
    Tokens(database).add("writer", "only-writes", frozenset({Scope.WRITE}))
    Tokens(database).add("reader", "only-reads", frozenset({Scope.READ}))
    database.close()
    assert refused(server, {"token": "only-writes"}, "websocket")["type"] == PROBLEM + "forbidden"
    with server.connect(token="only-reads") as events:
        assert events.call("subscribe", {"all": True}) == {"ok": True}


# -- broken messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["subscribe", "unsubscribe"])
@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (None, "#"),
        ("job", "#"),
        ([], "#"),
        (("a", "b"), "#"),
        (b"binary", None),
        ({}, None),
        ({"job_id": "nonsense"}, "#/job_id"),
        ({"job_id": None}, "#/job_id"),
        ({"all": False}, None),
        ({"all": True, "job_id": NOWHERE}, None),
        ({"job_id": NOWHERE, "more": 1}, "#/more"),
    ],
)
def test_a_broken_message_gets_a_problem_and_keeps_the_connection(
    server: RunningServer, event: str, payload: Any, pointer: str | None
) -> None:
    with server.connect() as events:
        if payload == b"binary":  # the contract has no binary messages, so nothing waits for their attachments
            events.client.emit(event, payload)
        else:
            answer = events.call(event, payload)
            assert answer["ok"] is False
            assert answer["problem"]["type"] == PROBLEM + "invalid-request"
        error = events.wait("error")
        assert error["job_id"] is None
        assert error["problem"]["type"] == PROBLEM + "invalid-request"
        if pointer is not None:
            assert pointer in [violation["pointer"] for violation in error["problem"]["errors"]]
        assert events.call("subscribe", {"all": True}) == {"ok": True}


@pytest.mark.parametrize("after_seq", [-1, 1.5, "1", True, None, 2**60])
def test_a_broken_after_seq_gets_a_problem(server: RunningServer, after_seq: Any) -> None:
    with server.connect() as events:
        answer = events.call("subscribe", {"job_id": NOWHERE, "after_seq": after_seq})
        assert answer["problem"]["type"] == PROBLEM + "invalid-request"
        assert [violation["pointer"] for violation in answer["problem"]["errors"]] == ["#/after_seq"]


def test_an_unknown_job_is_refused_in_the_acknowledgement_only(server: RunningServer) -> None:
    with server.connect() as events:
        answer = events.call("subscribe", {"job_id": NOWHERE})
        assert (answer["ok"], answer["problem"]["type"], answer["problem"]["status"]) == (False, PROBLEM + "job-not-found", 404)
        assert events.call("unsubscribe", {"job_id": NOWHERE}) == {"ok": True}
        job_id = server.run("true")
        events.subscribe(job_id)
        events.wait("complete", job_id)
        assert events.of("error") == []


def test_an_unknown_event_is_answered_with_a_problem(server: RunningServer) -> None:
    with server.connect() as events:
        for count, event in enumerate(["subscrib", "log", "complete", "message", "*", "malformed", "x" * 5000], 1):
            events.client.emit(event, {"a": 1})
            error = events.wait("error", count=count)
            assert error["problem"]["type"] == PROBLEM + "invalid-request"
            assert len(error["problem"]["detail"]) < 300
        assert events.call("subscribe", {"all": True}) == {"ok": True}


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "4x",
        "42",
        "42[",
        "42[]",
        "42[5]",
        "42{}",
        '421["disconnect"]',
        '421["connect",{"token":"x"}]',
        '42["*"]',
        '451-["subscribe",{"_placeholder":true,"num":0}]',
        '459999999999-["subscribe"]',
        "46",
        "431[]",
        "44{}",
        "49",
        "42" + "[" * 100_000,
        "42" + "9" * 200 + "[]",
        "nonsense",
        "",
        "b4=",
        "é",
    ],
)
def test_a_packet_that_no_library_sends_is_answered_with_a_problem(server: RunningServer, text: str) -> None:
    job_id = server.run("true")
    with raw_socket(server) as client:
        client.send_text(text)
        assert client.receive()[1]["problem"]["type"] == PROBLEM + "invalid-request"
        client.subscribe(job_id)
        assert client.wait("complete")["job_id"] == job_id


# -- one job --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_subscriber_sees_the_whole_job_in_order(server: RunningServer, transport: str, gate: Gate) -> None:
    with server.connect(transport=transport) as events:
        blockers = [server.shell(gate.wait) for _ in range(2)]  # on both slots, so that the job is still pending when it is subscribed to
        job_id = server.shell("echo one; echo '::progress 50 half'; echo two; exit 3")
        answer = events.subscribe(job_id)
        gate.open()
        assert answer["job"]["id"] == job_id
        assert answer["job"]["status"] == "pending"
        assert answer["next_seq"] == 1
        complete = events.wait("complete", job_id)
        assert events.lines(job_id) == ["one", "two"]
        assert (complete["status"], complete["reason"], complete["exit_code"], complete["log_lines"]) == ("failed", "exit_code", 3, 2)
        assert 0 <= complete["duration_seconds"] < 20
        assert [(p["percent"], p["message"]) for p in events.of("progress", job_id)] == [(50, "half")]
        assert changes(events, job_id) == [("pending", "running"), ("running", "failed")]
        assert events.of("status", job_id)[-1]["reason"] == "exit_code"
        assert [error["problem"]["type"] for error in events.of("error", job_id)] == [PROBLEM + "job-failed"]
        assert [name for name, _ in events.events][-3:] == ["status", "error", "complete"]
        for blocker in blockers:
            server.wait(blocker)


def test_streams_stay_in_order_and_apart(server: RunningServer) -> None:
    job_id = server.shell("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; echo '::result {\"made\": 5}'")
    with server.connect() as events:
        events.subscribe(job_id)
        assert events.wait("complete", job_id)["result"] == {"made": 5}
        assert len(events.lines(job_id)) == 10
        for stream, word in (("stdout", "out"), ("stderr", "err")):
            lines = itertools.chain.from_iterable(p["lines"] for p in events.of("log", job_id) if p["stream"] == stream)
            assert list(lines) == [f"{word} {number}" for number in range(1, 6)]


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
def test_every_after_seq_gives_the_remaining_lines_once(server: RunningServer, gate: Gate, ended: bool) -> None:
    """Line ends and chunk ends alike: the chunks of this log hold 1, 3 and 4 lines, and more follow live."""
    chunks = [numbered(count, f"--first {first}") for count, first in ((1, 1), (3, 2), (4, 5))]
    job_id = server.shell(f"{'; sleep 0.1; '.join(chunks)}; {gate.wait}; {numbered(4, '--first 9')}")
    server.wait_for_log(job_id, "line 8")
    if ended:
        gate.open()
        server.wait(job_id)
    known = 12 if ended else 8
    with ExitStack() as stack:
        watchers = [stack.enter_context(server.connect()) for _ in range(15)]
        for after_seq, events in enumerate(watchers):
            assert events.subscribe(job_id, after_seq)["next_seq"] == min(after_seq, known) + 1
        gate.open()
        for after_seq, events in enumerate(watchers):
            assert events.wait("complete", job_id)["log_lines"] == 12
            assert events.lines(job_id) == expected(min(after_seq, known) + 1, 12)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_subscribing_during_a_fast_log_gives_no_gap_and_no_repeat(server: RunningServer, transport: str) -> None:
    total = 150_000
    job_id = server.shell(numbered(total))
    with ExitStack() as stack:
        watchers: list[tuple[EventLog, int]] = []
        for _ in range(4):
            events = stack.enter_context(server.connect(transport=transport))
            after_seq = max(0, server.job(job_id)["log"]["lines"] - 5000)
            next_seq = events.subscribe(job_id, after_seq)["next_seq"]
            assert next_seq == after_seq + 1
            watchers.append((events, next_seq))
        for events, next_seq in watchers:
            assert events.wait("complete", job_id)["log_lines"] == total
            assert events.lines(job_id) == expected(next_seq, total)


def test_a_second_subscription_starts_again_and_repeats_nothing(server: RunningServer, gate: Gate) -> None:
    job_id = server.shell(f"{numbered(10)}; {gate.wait}; {numbered(5, '--first 11')}")
    with server.connect() as events:
        events.subscribe(job_id)
        eventually(lambda: lines_in(events, job_id) == 10, "the first ten lines came")
        assert events.subscribe(job_id, 4)["next_seq"] == 5
        eventually(lambda: lines_in(events, job_id) == 16, "six of them came again")
        gate.open()
        events.wait("complete", job_id)
        texts = [text for payload in events.of("log", job_id) for text in payload["lines"]]
        assert texts == expected(1, 10) + expected(5, 15)
        assert len(events.of("complete", job_id)) == 1
        assert changes(events, job_id)[-1:] == [("running", "completed")]
        # Once it is over, a new subscription is a replay.
        events.subscribe(job_id, 13)
        events.wait("complete", job_id, count=2)
        assert [text for payload in events.of("log", job_id) for text in payload["lines"]][21:] == expected(14, 15)


def test_a_reconnected_client_resumes_at_its_line(server: RunningServer, gate: Gate) -> None:
    job_id = server.shell(f"{numbered(2000, '--rate 20000')}; {gate.wait}; {numbered(1000, '--first 2001')}")
    seen: list[str] = []
    for part in range(4):
        with server.connect(transport=TRANSPORTS[part % 2]) as events:
            assert events.subscribe(job_id, len(seen))["next_seq"] == len(seen) + 1
            if part == 3:
                gate.open()
                events.wait("complete", job_id)
            elif part < 2:
                events.wait("log", job_id)
            seen += events.lines(job_id)
    assert seen == expected(1, 3000)


def test_an_ended_job_replays_its_log_and_completes(server: RunningServer) -> None:
    job_id = server.shell("echo one; exit 4")
    server.wait(job_id)
    with server.connect() as events:
        assert events.subscribe(job_id)["job"]["status"] == "failed"
        assert events.wait("complete", job_id)["exit_code"] == 4
        assert events.lines(job_id) == ["one"]
        assert [name for name, _ in events.events] == ["log", "error", "complete"]


def test_unsubscribing_ends_the_events_of_that_job_only(server: RunningServer, gate: Gate) -> None:
    script = f"echo before; {gate.wait}; echo after"
    dropped, kept = server.shell(script), server.shell(script)
    with server.connect() as events:
        for job_id in (dropped, kept):
            events.subscribe(job_id)
            events.wait("log", job_id)
        assert events.call("unsubscribe", {"job_id": dropped}) == {"ok": True}
        gate.open()
        events.wait("complete", kept)
        server.wait(dropped)
        marker = server.run("true")
        events.subscribe(marker)
        events.wait("complete", marker)
        assert events.lines(kept) == ["before", "after"]
        assert events.lines(dropped) == ["before"]
        assert events.of("complete", dropped) == []


@pytest.mark.slow
def test_progress_events_are_limited_to_ten_a_second_plus_the_last(server: RunningServer) -> None:
    job_id = server.shell(f"{sys.executable} {PROGRAMS}/progress.py --steps 997 --delay 0.0015 --style directive; exec sleep 0.3")
    with server.connect() as events:
        events.subscribe(job_id)
        events.wait("complete", job_id)
        progress = events.of("progress", job_id)
        percents = [payload["percent"] for payload in progress]
        assert percents == sorted(set(percents))
        assert (percents[-1], progress[-1]["message"]) == (100, "part 997")
        times = [datetime.fromisoformat(payload["at"]).timestamp() for payload in progress]
        span = times[-2] - times[0]
        assert span > 1
        # From one to the next there is a tenth of a second, on average: when a single one is noticed varies by some milliseconds.
        assert len(progress) - 2 <= 10 * (span + 0.03)
        assert len(progress) >= 8


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_last_progress_is_sent_when_the_job_ends_at_once(server: RunningServer, gate: Gate, transport: str) -> None:
    reports = "for i in 1 2 3 4 5 6 7 8 9; do echo ::progress ${i}0 step $i; done; echo ::progress 97 the last"
    job_id = server.shell(f"{gate.wait}; {reports}")
    with server.connect(transport=transport) as events:
        events.subscribe(job_id)
        gate.open()
        events.wait("complete", job_id)
        last = events.of("progress", job_id)[-1]
        assert (last["percent"], last["message"]) == (97, "the last")


def test_subscribers_of_a_deleted_job_see_its_end(server: RunningServer) -> None:
    job_id = server.shell("echo begun; exec sleep 60")
    with server.connect() as events, server.connect() as all_events:
        all_events.call("subscribe", {"all": True})
        events.subscribe(job_id)
        events.wait("log", job_id)
        assert server.call("DELETE", f"/jobs/{job_id}").status_code == 204
        complete = events.wait("complete", job_id)
        assert (complete["status"], complete["reason"]) == ("cancelled", "cancelled_by_client")
        assert changes(events, job_id)[-1] == ("running", "cancelled")
        eventually(lambda: changes(all_events, job_id)[-1:] == [("running", "cancelled")], "those who watch all jobs see it too")
        answer = events.call("subscribe", {"job_id": job_id})
        assert (answer["ok"], answer["problem"]["type"]) == (False, PROBLEM + "job-not-found")


# -- all jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_subscriber_of_all_jobs_gets_every_change_and_no_log(server: RunningServer, transport: str) -> None:
    with server.connect(transport=transport) as events:
        assert events.call("subscribe", {"all": True}) == {"ok": True}
        assert events.call("subscribe", {"all": True}) == {"ok": True}  # and nothing comes twice
        good = [server.shell(f"echo {number}") for number in range(25)]
        bad = [server.shell("exit 2") for _ in range(5)]
        moving = server.shell("echo ::progress 30 some; sleep 0.15; echo ::progress 60 more; sleep 0.15")
        waiting = server.submit({**task_submission("keyed", script="exec sleep 60", key="held")})["id"]
        queued = server.submit({**task_submission("keyed", script="true", key="held")})["id"]
        server.call("POST", f"/jobs/{queued}/cancel")
        server.call("POST", f"/jobs/{waiting}/cancel")
        for job_id in (*good, *bad, moving, waiting, queued):
            server.wait(job_id)
        usual = [(None, "pending"), ("pending", "running")]
        for job_ids, end in ((good, "completed"), (bad, "failed"), ([moving], "completed")):
            for job_id in job_ids:
                events.wait("status", job_id, count=3)
                assert changes(events, job_id) == [*usual, ("running", end)]
        events.wait("status", queued, count=2)
        assert changes(events, queued) == [(None, "pending"), ("pending", "cancelled")]
        eventually(lambda: changes(events, waiting)[-1][1] == "cancelled", "every change came")
        assert events.of("progress", moving)[-1]["percent"] == 60
        assert {name for name, _ in events.events} == {"status", "progress"}


def test_subscriptions_to_all_jobs_and_to_one_are_independent(server: RunningServer, gate: Gate) -> None:
    job_id = server.shell(f"echo running; {gate.wait}")
    with server.connect() as events:
        events.subscribe(job_id)
        events.wait("log", job_id)
        events.call("subscribe", {"all": True})
        gate.open()
        events.wait("complete", job_id)
        eventually(lambda: changes(events, job_id).count(("running", "completed")) == 2, "the end came by each")
        assert events.call("unsubscribe", {"all": True}) == {"ok": True}
        unseen = server.run("true")
        server.wait(unseen)
        marker = server.run("true")
        events.subscribe(marker)
        events.wait("complete", marker)
        assert events.of("status", unseen) == []


# -- many -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fifty_clients_of_one_job_get_the_whole_log(server: RunningServer, gate: Gate) -> None:
    job_id = server.shell(f"{gate.wait}; {numbered(2000, '--rate 10000')}")
    with ExitStack() as stack:
        watchers = [stack.enter_context(server.connect(transport=TRANSPORTS[number % 10 == 9])) for number in range(50)]
        for events in watchers:
            events.subscribe(job_id)
        gate.open()
        for events in watchers:
            assert events.wait("complete", job_id)["log_lines"] == 2000
            assert events.lines(job_id) == expected(1, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clients_of_many_jobs_get_each_log_whole(server: RunningServer, transport: str) -> None:
    job_ids = [server.shell(numbered(50 + number)) for number in range(30)]
    with ExitStack() as stack:
        watchers = [stack.enter_context(server.connect(transport=transport)) for _ in range(3)]
        for events in watchers:
            for job_id in job_ids:
                events.client.emit("subscribe", {"job_id": job_id})  # all at once, as a page does
        for events in watchers:
            for number, job_id in enumerate(job_ids):
                events.wait("complete", job_id)
                assert events.lines(job_id) == expected(1, 50 + number)


# -- going away -----------------------------------------------------------------------------------------------------------


@contextmanager
def vanishing(server: RunningServer, job_id: str) -> Iterator[Callable[[], None]]:
    """A subscriber whose connection breaks without a goodbye."""
    with raw_socket(server) as client:
        client.subscribe(job_id)
        client.wait("log")
        yield client.cut


@pytest.mark.slow
def test_a_disconnect_frees_everything(server: RunningServer, gate: Gate) -> None:
    job_id = server.shell(f"{numbered(100)}; {gate.wait}")
    server.wait_for_log(job_id, "line 100")
    api = api_process(server)

    def visit(times: int) -> None:
        for number in range(times):
            if number % 3 == 2:
                with vanishing(server, job_id) as cut:
                    cut()
                continue
            with server.connect(transport=TRANSPORTS[number % 3]) as events:
                events.subscribe(job_id)
                events.call("subscribe", {"all": True})
                events.wait("log", job_id)

    before = clients(server)
    with server.connect():
        assert clients(server) == before + 1
    visit(30)
    eventually(lambda: clients(server) == before, "the server has forgotten them")
    eventually(lambda: _only_listens(api), "their connections are closed")
    files, memory = api.num_fds(), api.memory_full_info().uss
    visit(90)
    eventually(lambda: clients(server) == before, "the server has forgotten them")
    eventually(lambda: api.num_fds() <= files + 2, "their files are closed", seconds=5)
    assert api.memory_full_info().uss - memory < 2 << 20


def _only_listens(api: psutil.Process) -> bool:
    # One connection is ours, kept alive for HTTP.
    return sum(connection.status == "ESTABLISHED" for connection in api.net_connections()) <= 2


def test_a_stopping_server_sends_the_end_and_disconnects(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(slots=1)
    job_id = server.shell("echo begun; exec sleep 60")
    with server.connect() as events:
        gone: list[float] = []
        events.client.on("disconnect", lambda *_: gone.append(time.monotonic()))
        events.subscribe(job_id)
        events.wait("log", job_id)
        server.stop()
        complete = events.wait("complete", job_id)
        assert (complete["status"], complete["reason"]) == ("cancelled", "server_shutdown")
        eventually(lambda: gone, "the connection is closed")


# -- who is not let in ------------------------------------------------------------------------------------------------------


def until_closed(connection: websocket.WebSocket) -> list[str]:
    """What comes until the server ends the connection, while pings are answered."""
    texts = []
    while text := connection.recv():
        texts.append(str(text))
        if text == "2":
            connection.send("3")
    return texts


WAYS_IN = {"nothing is said": [], "a wrong token": ['40{"token":"wrong"}'], "in and out again": ['40{"token":"TOKEN"}', "41"]}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("impatient"), silent_seconds=3) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS_IN)
def test_an_unauthenticated_connection_is_closed(way: str, impatient: RunningServer) -> None:
    server = impatient
    with server.connect() as honest:
        connection = websocket.create_connection(f"{server.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", timeout=20)
        try:
            for text in WAYS_IN[way]:
                connection.send(text.replace("TOKEN", server.token))
            texts = until_closed(connection)
        finally:
            connection.shutdown()  # type: ignore[no-untyped-call]
        assert texts[0].startswith("0")
        assert [text[:2] for text in texts if text[0] == "4"] == {"a wrong token": ["44"], "in and out again": ["40"]}.get(way, [])
        eventually(lambda: clients(server) == 1, "only the honest one is left")
        assert honest.call("subscribe", {"all": True})["ok"]


@pytest.mark.slow
def test_an_unauthenticated_long_poll_ends(impatient: RunningServer) -> None:
    server = impatient
    address = f"{server.url}/socket.io/?EIO=4&transport=polling"
    session = json.loads(server.session.get(address, timeout=20).text[1:])["sid"]

    def known() -> bool:
        answer = server.session.get(f"{address}&sid={session}", timeout=20)
        return answer.status_code == 200 and server.session.post(f"{address}&sid={session}", data="3", timeout=20).status_code == 200

    eventually(lambda: not known(), "the session is not known any more", seconds=20)


def test_an_endless_websocket_message_closes_the_connection(server: RunningServer) -> None:
    """A WebSocket is there before any token is asked for."""
    url = server.url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
    connection = websocket.create_connection(url, timeout=20)
    connection.recv()
    part = ABNF.create_frame("x" * (1 << 16), ABNF.OPCODE_TEXT, 0)
    with suppress(OSError):
        for _ in range(64):
            connection.send_frame(part)
            part = ABNF.create_frame("x" * (1 << 16), ABNF.OPCODE_CONT, 0)
    with suppress(OSError):  # reset, when what was sent meanwhile finds nobody there
        code, answer = connection.recv_data()
        assert (code, answer[:2]) == (ABNF.OPCODE_CLOSE, (1009).to_bytes(2, "big"))
    connection.shutdown()  # type: ignore[no-untyped-call]
    with server.connect() as events:
        assert events.call("subscribe", {"all": True}) == {"ok": True}
