"""Faults that were found by reading the code, each held by what would show it again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest
import websocket
from sqlalchemy import Connection, delete, update
from websocket import ABNF

from handlers.access.auth import HostCheck
from handlers.contract.document import Contract
from handlers.events.caster import Caster
from handlers.events.payloads import log_payload
from handlers.server.gevent_store import GeventChanges
from jobs.bootstrap import make_engine, open_database
from jobs.clock import SteadyClock, now_ms
from jobs.errors import OperatorError, OriginRefused, Unauthenticated, Unavailable
from jobs.execution.job_log import JobLog
from jobs.model import Job, JobType, Json, LogChunk, Progress, Scope, Status, Stream, Submission
from jobs.recipes.expand import Recipe, Recipes
from jobs.service import Service
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.store.retention import Retention
from jobs.store.schema import jobs, log_chunks, workers
from jobs.store.tokens import Tokens, provide_admin_token
from jobs.submission import Submissions
from support.logs import append
from support.server import RunningServer, task_submission
from support.stores import claim
from support.waiting import eventually


def submit(database: OwnedDatabase, *, key: str | None = None) -> str:
    submission = Submission(JobType.TASK, {"task": "any"})
    return Store(database, make_engine(database.url)).submit(NewJob(submission, "default", key, None, "tests"), max_pending=1000).job.id


def start(database: OwnedDatabase, *, slots: int = 1) -> Lease:
    """The next pending job, claimed and taken."""
    leases = Leases(database, make_engine(database.url))
    (lease,) = claim(leases.database, worker_id="worker", host="here", queues=["default"], slots=slots)
    leases.take(lease, supervisor={})
    return lease


def log(database: OwnedDatabase, writer: LogWriter, text: bytes) -> None:
    append(database, writer, text)


@pytest.mark.parametrize("origin", ["http://[", "http://a]b", "null", "", "localhost:8000", "http://localhost:8000@evil.example"])
def test_whatever_an_origin_looks_like_it_is_refused_and_nothing_breaks(origin: str) -> None:
    with pytest.raises(OriginRefused):
        HostCheck(hosts=["localhost"], origins=["https://jobs.example.com"]).check(host="localhost:8000", origin=origin)


def test_stopping_cancels_the_jobs_even_when_the_dispatcher_was_just_killed(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(slots=1)
    job_id = server.shell("echo started; exec sleep 60")
    server.wait_for_log(job_id, "started")
    worker = server.part("worker")
    # A supervisor leads a session of its own, the dispatcher does not.
    dispatcher = next(child for child in worker.children() if os.getsid(child.pid) == os.getsid(worker.pid))
    server.session.close()
    worker.suspend()
    dispatcher.kill()
    worker.terminate()
    server.process.send_signal(signal.SIGTERM)
    worker.resume()
    server.process.wait(20)
    store = Store(open_database(server.database_url), make_engine(server.database_url))
    job = store.get(job_id)
    store.database.close()
    assert (job.status, job.reason) == ("cancelled", "server_shutdown")


class FailingLogs(Logs):
    """Does not answer every second time, and gives one chunk when it does."""

    def __init__(self, database: OwnedDatabase) -> None:
        super().__init__(database)
        self.calls = 0

    def chunks(self, job_id: str, *, after_seq: int = 0, max_bytes: int = 1 << 20, stream: Stream | None = None) -> list[LogChunk]:
        self.calls += 1
        if self.calls % 2:
            raise Unavailable("The store does not answer.")
        return super().chunks(job_id, after_seq=after_seq, max_bytes=1)


class FailingStore(Store):
    def __init__(self, database: OwnedDatabase) -> None:
        super().__init__(database, make_engine(database.url))
        self.calls = 0

    def find(self, job_id: str) -> Job | None:
        self.calls += 1
        if self.calls % 2:
            raise Unavailable("The store does not answer.")
        return super().find(job_id)


@dataclass(frozen=True)
class Sent:
    event: str
    payload: Any
    size: int = 1


class RecordingTransport:
    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def send(self, packet: Any) -> None:
        self.sent.append(packet)

    def drain(self) -> None: ...

    def limit_answers(self) -> None: ...

    def disconnect(self) -> None: ...

    def payloads(self, event: str) -> list[dict[str, Json]]:
        return [sent.payload for sent in self.sent if sent.event == event]


def test_a_store_that_fails_now_and_then_costs_subscribers_nothing_but_time(
    database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.events.caster.READ_RETRY_SECONDS", 0.01)
    monkeypatch.setattr("handlers.events.subscriber.SEND_RETRY_SECONDS", 0.01)
    job_id = submit(database)
    feed = database.feed()
    caster = Caster(FailingStore(database), FailingLogs(database), GeventChanges(feed), Sent)
    wire = RecordingTransport()
    caster.connect("client", wire)
    caster.subscriber("client").subscribe(job_id, 0)
    lease = start(database)
    writer = LogWriter(lease, cap=1 << 20)
    for number in range(5):
        log(database, writer, b"line %d\n" % number)
    with gevent.Timeout(10):
        while len(wire.payloads("log")) < 5:
            gevent.sleep(0.01)
    Leases(database, make_engine(database.url)).end(lease, Outcome(Status.COMPLETED, "done"))
    with gevent.Timeout(10):
        while not wire.payloads("complete"):
            gevent.sleep(0.01)
    caster.disconnect("client")
    feed.close()
    assert [line for payload in wire.payloads("log") for line in payload["lines"]] == [f"line {number}" for number in range(5)]
    assert [payload["status"] for payload in wire.payloads("status")] == ["running", "completed"]


def test_a_job_that_cannot_be_cast_is_given_up_and_the_others_go_on(database: OwnedDatabase) -> None:
    def encode(event: str, payload: Any) -> Sent:
        if event == "log" and payload["lines"] == ["poison"]:
            raise RuntimeError("cannot be encoded")
        return Sent(event, payload)

    feed = database.feed()
    caster = Caster(Store(database, make_engine(database.url)), Logs(database), GeventChanges(feed), encode)
    wire = RecordingTransport()
    caster.connect("client", wire)
    bad, good = submit(database), submit(database)
    for job_id in (bad, good):
        caster.subscriber("client").subscribe(job_id, 0)
    leases = [start(database, slots=slots) for slots in (1, 2)]
    for lease, text in zip(leases, (b"poison\n", b"fine\n"), strict=True):
        log(database, LogWriter(lease, cap=1 << 20), text)
        Leases(database, make_engine(database.url)).end(lease, Outcome(Status.COMPLETED, "done"))
    with gevent.Timeout(10):
        while not wire.payloads("complete") or not wire.payloads("error"):
            gevent.sleep(0.01)
    caster.disconnect("client")
    feed.close()
    assert [payload["job_id"] for payload in wire.payloads("error")] == [bad]
    assert [(payload["job_id"], payload["lines"]) for payload in wire.payloads("log")] == [(good, ["fine"])]
    assert [payload["job_id"] for payload in wire.payloads("complete")] == [good]


def end(database: OwnedDatabase, lease: Lease) -> str:
    Leases(database, make_engine(database.url)).end(lease, Outcome(Status.COMPLETED, "done"))
    return lease.job_id


def change(database: OwnedDatabase, job_id: str, **values: Any) -> None:
    database.write(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values)))


def test_what_the_cap_removed_from_a_log_takes_no_room(database: OwnedDatabase) -> None:
    for _ in range(3):
        submit(database)
        change(database, end(database, start(database)), log_bytes=1 << 40)
    limits = {"max_age_ms": 1 << 40, "max_jobs": 1 << 40, "log_cap": 1000, "seen_ms": -1000}
    assert Retention(database, max_bytes=3000, **limits).run() == 0
    assert Retention(database, max_bytes=2999, **limits).run() == 1


def test_a_batch_of_large_logs_is_a_small_one(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retention, "BATCH_BYTES", 250)
    for _ in range(4):
        submit(database)
        change(database, end(database, start(database)), log_bytes=100)
    retention = Retention(database, max_age_ms=1 << 40, max_jobs=0, max_bytes=1 << 40, seen_ms=-1000)
    assert [retention.run() for _ in range(3)] == [3, 1, 0]


def test_nobody_waits_for_a_worker_without_a_free_slot_nor_for_a_look_at_what_to_remove(database: OwnedDatabase) -> None:
    submit(database)
    start(database)
    submit(database)
    impatient = open_database(database.url, busy_seconds=0.01)
    retention = Retention(impatient, max_age_ms=1 << 40, max_jobs=1 << 40, max_bytes=1 << 40)

    def work(_: Connection) -> None:
        assert claim(impatient, worker_id="worker", host="here", queues=["default"], slots=1) == []
        assert retention.run() == 0
        with pytest.raises(Unavailable):
            claim(impatient, worker_id="worker", host="here", queues=["default"], slots=2)

    database.write(work)
    impatient.close()


def test_a_worker_that_was_not_seen_for_a_day_is_forgotten(database: OwnedDatabase) -> None:
    leases = Leases(database, make_engine(database.url))
    for name in ("gone", "away", "here"):
        leases.register_worker(worker_id=name, host="h", pid=1, slots=1, queues=["default"])
    for name, hours in (("gone", 25), ("away", 23)):
        seen = now_ms() - hours * 3600 * 1000
        query = update(workers).where(workers.c.id == name).values(heartbeat_at=seen)
        database.write(lambda connection, query=query: connection.execute(query))  # type: ignore[misc]
    leases.worker_alive("here")
    assert [(worker.id, worker.alive) for worker in Store(database, make_engine(database.url)).workers()] == [
        ("away", False),
        ("here", True),
    ]


def test_a_job_that_is_pending_again_says_nothing_of_its_lost_attempt(database: OwnedDatabase) -> None:
    submission = Submission(JobType.TASK, {"task": "any"}, max_attempts=2)
    job_id = Store(database, make_engine(database.url)).submit(NewJob(submission, "default", None, None, "tests"), max_pending=10).job.id
    leases, lease = Leases(database, make_engine(database.url)), start(database)
    leases.update(lease, progress_percent=40.0, progress_message="linking", ready_at=1, result={"url": "http://127.0.0.1:1"})
    (held,) = leases.held()
    assert leases.lose(held) is Status.PENDING
    job = Store(database, make_engine(database.url)).get(job_id)
    assert (job.progress, job.ready_at, job.result, job.started_at) == (Progress(), None, None, None)


def test_a_message_without_an_end_is_cut_off_whoever_sends_it(server: RunningServer) -> None:
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


def test_force_also_ends_what_outlives_its_command_in_the_grace_period(server: RunningServer, tmp_path: Path) -> None:
    script = (
        f"(trap '' TERM; echo ready; sleep 60 & wait; sleep 60) & trap 'touch {tmp_path}/left; exit' TERM; while :; do sleep 0.02; done"
    )
    job_id = server.submit({**task_submission("patient", script=script)})["id"]
    server.wait_for_log(job_id, "ready")
    server.call("POST", f"/jobs/{job_id}/cancel")
    eventually((tmp_path / "left").exists, "the command obeys")
    server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    began = time.monotonic()
    assert server.wait(job_id)["status"] == "cancelled"
    assert time.monotonic() - began < 3


class Still:
    """A store of which nobody waits for changes."""

    version = 0

    def wait(self, seen: int, timeout: float) -> None:
        raise AssertionError("nothing was to be waited for")


def make_service(database: OwnedDatabase, workspace: Path) -> Service:
    recipes = Recipes.load(workspace=workspace, tasks_file=None)
    store = Store(database, make_engine(database.url))
    return Service(store, Logs(database), recipes, Submissions(store, recipes, max_pending=10), Still())


def test_a_page_of_very_long_lines_ends_before_its_limit_and_goes_on_behind(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=64 << 20)
    for number in range(120):
        log(database, writer, b"%d%s\n" % (number, b"x" * 65000))
    end(database, lease)
    service = make_service(database, tmp_path)
    first = service.log_page(job_id, after_seq=0, limit=10_000, tail=None, stream=None)
    assert (len(first.lines) < 80, first.complete) == (True, False)
    second = service.log_page(job_id, after_seq=first.next_seq - 1, limit=10_000, tail=None, stream=None)
    assert [line.seq for line in (*first.lines, *second.lines)] == list(range(1, 121))
    assert second.complete


def lose_the_end(database: OwnedDatabase) -> str:
    """An ended job of three lines, of which the last two were dropped: there were such logs."""
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=1 << 20)
    for text in (b"one\n", b"two\n", b"three\n"):
        log(database, writer, text)
    end(database, lease)
    gone = delete(log_chunks).where(log_chunks.c.job_id == job_id, log_chunks.c.first_seq > 1)
    database.write(lambda connection: connection.execute(gone))
    change(database, job_id, dropped_first=2, dropped_last=3)
    return job_id


def test_a_log_whose_end_was_dropped_says_so_and_is_complete(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = lose_the_end(database)
    service = make_service(database, tmp_path)
    page = service.log_page(job_id, after_seq=0, limit=10, tail=None, stream=None)
    assert ([line.seq for line in page.lines], page.next_seq, page.complete, page.dropped) == ([1], 4, True, (2, 3))
    for follow in (False, True):
        whole = b"".join(service.raw_log(job_id, after_seq=0, tail=None, stream=None, follow=follow))
        assert whole == b"one\n[runcast: lines 2 to 3 were dropped, the log was too long]\n"


def test_a_subscriber_of_a_log_whose_end_was_dropped_gets_the_rest_and_the_end(database: OwnedDatabase) -> None:
    job_id = lose_the_end(database)
    feed = database.feed()
    caster = Caster(Store(database, make_engine(database.url)), Logs(database), GeventChanges(feed), Sent)
    wire = RecordingTransport()
    caster.connect("client", wire)
    caster.subscriber("client").subscribe(job_id, 0)
    with gevent.Timeout(10):
        while not wire.payloads("complete") and not wire.payloads("error"):
            gevent.sleep(0.01)
    caster.disconnect("client")
    feed.close()
    assert [sent.event for sent in wire.sent] == ["log", "complete"]
    assert wire.payloads("log")[0]["lines"] == ["one"]


def test_what_was_not_read_of_an_ended_log_is_not_taken_for_dropped(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, other = submit(database), submit(database)
    logs = FailingLogs(database)
    feed = database.feed()
    caster = Caster(Store(database, make_engine(database.url)), logs, GeventChanges(feed), Sent)
    monkeypatch.setattr(caster, "_reading", True)  # so that no greenlet reads what is new
    wires = [RecordingTransport(), RecordingTransport()]
    for name, wire in zip(("first", "second"), wires, strict=True):
        caster.connect(name, wire)
    caster.subscriber("first").subscribe(job_id, 0)
    lease = start(database)
    log(database, LogWriter(lease, cap=1 << 20), b"line\n")
    end(database, lease)
    with pytest.raises(Unavailable):
        caster.subscriber("second").subscribe(job_id, 0)
    caster.subscriber("second").subscribe(other, 0)
    with gevent.Timeout(10):
        while not wires[1].payloads("complete") and not wires[1].payloads("error"):
            gevent.sleep(0.01)
    for name in ("first", "second"):
        caster.disconnect(name)
    feed.close()
    assert [sent.event for sent in wires[1].sent] == ["log", "complete"]


@pytest.mark.parametrize("begun", [False, True])
def test_who_watches_a_job_whose_rows_vanished_is_told(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """As when the API stood still for longer than they were kept."""
    monkeypatch.setattr("handlers.events.caster.MISSING_JOBS_POLL_INTERVAL_SECONDS", 0.0)
    gone, there = submit(database), submit(database)
    if begun:
        start(database)
    feed = database.feed()
    caster = Caster(Store(database, make_engine(database.url)), Logs(database), GeventChanges(feed), Sent)
    wire = RecordingTransport()
    caster.connect("client", wire)
    for job_id in (gone, there):
        caster.subscriber("client").subscribe(job_id, 0)
    database.write(lambda connection: connection.execute(delete(jobs).where(jobs.c.id == gone)))
    with gevent.Timeout(10):
        while not wire.payloads("error"):
            gevent.sleep(0.01)
    end(database, start(database, slots=2))
    with gevent.Timeout(10):
        while not wire.payloads("complete"):
            gevent.sleep(0.01)
    caster.disconnect("client")
    feed.close()
    assert [(payload["job_id"], payload["problem"]["type"]) for payload in wire.payloads("error")] == [
        (gone, "urn:runcast:problem:job-not-found")
    ]
    assert [payload["job_id"] for payload in wire.payloads("complete")] == [there]


def test_a_log_that_grows_faster_than_it_is_read_comes_to_its_end_unless_it_is_followed(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    writer = LogWriter(start(database), cap=64 << 20)
    line = b"x" * (1 << 20) + b"\n"
    log(database, writer, line)
    parts = make_service(database, tmp_path).raw_log(job_id, after_seq=0, tail=None, stream=None, follow=False)
    for number, _ in enumerate(parts):
        assert number < 10
        log(database, writer, line)


def test_a_token_file_without_a_token_is_refused_in_words(database: OwnedDatabase, tmp_path: Path) -> None:
    file = tmp_path / "admin-token"
    for damage in (b"", b"\xff\xfe"):
        file.write_bytes(damage)
        with pytest.raises(OperatorError, match="token file"):
            provide_admin_token(Tokens(database), given=None, file=file)
    file.unlink()
    provide_admin_token(Tokens(database), given=None, file=file)
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text().strip()
    provide_admin_token(Tokens(database), given=None, file=file)
    assert Tokens(database).authenticate(token).name == "admin"
    assert [path.name for path in tmp_path.iterdir() if "token" in path.name] == ["admin-token"]


def test_another_secret_is_another_token_and_the_same_one_is_the_same(database: OwnedDatabase) -> None:
    tokens = Tokens(database)
    for secret in ("one", "one", "two"):
        tokens.add("admin", secret, frozenset({Scope.ADMIN}))
    tokens.add("reader", "three", frozenset({Scope.READ}))
    first = tokens.authenticate("two")
    tokens.add("admin", "two", frozenset({Scope.ADMIN}))
    Tokens(database).check(first)
    tokens.add("admin", "three", frozenset({Scope.ADMIN}))  # which was the reader's
    with pytest.raises(Unauthenticated):
        Tokens(database).check(first)
    assert [token.name for token in tokens.list()] == ["admin"]
    assert Tokens(database).authenticate("three").scopes == {Scope.ADMIN}


def test_a_server_under_nohup_outlives_its_terminal_and_keeps_its_database_to_itself(
    make_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    data = tmp_path / "open" / "data"
    data.mkdir(parents=True, mode=0o755)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
    try:
        server = make_server(data.parent, migrated=False)
    finally:
        signal.signal(signal.SIGHUP, before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.glob("runcast.db*")}
    assert modes.keys() >= {"runcast.db", "runcast.db-wal"}
    assert set(modes.values()) == {0o600}
    server.process.send_signal(signal.SIGHUP)
    assert server.wait(server.run("true"))["status"] == "completed"
    assert server.process.poll() is None


class CountingStore(Store):
    def __init__(self, database: OwnedDatabase) -> None:
        super().__init__(database, make_engine(database.url))
        self.gets = 0

    def get(self, job_id: str) -> Job:
        self.gets += 1
        return super().get(job_id)


class Scripted:
    """A store that changes whenever somebody waits for it."""

    def __init__(self, changes: Iterator[None]) -> None:
        self.version = 0
        self._changes = changes

    def wait(self, seen: int, timeout: float) -> None:
        next(self._changes)
        self.version += 1


def test_who_waits_for_a_job_reads_it_again_only_when_some_status_changed(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=1 << 20)

    def changes() -> Iterator[None]:
        for _ in range(50):
            log(database, writer, b"line\n")
            yield
        end(database, lease)
        yield

    store = CountingStore(database)
    recipes = Recipes.load(workspace=tmp_path, tasks_file=None)
    service = Service(store, Logs(database), recipes, Submissions(store, recipes, max_pending=10), Scripted(changes()))
    job = service.get(job_id, wait=60)
    assert (job.status, job.log.lines) == ("completed", 50)
    assert store.gets == 2


@pytest.mark.parametrize("before", [b"x\n", b"x\n" * 30_000, b""], ids=["one line", "many", "none"])
def test_a_flood_of_empty_lines_makes_events_that_the_contract_allows(database: OwnedDatabase, before: bytes) -> None:
    """What waits together is bounded in bytes, and in lines as well."""
    job_id = submit(database)
    log = JobLog(database, start(database), recipe=Recipe(argv=("x",), cwd=Path("/")), cap=64 << 20, clock=SteadyClock())
    for data in (before, b"\n" * 200_000):
        log.feed(Stream.STDOUT, data)
    log.end(Stream.STDOUT)
    log.flush(last=True)
    chunks = Logs(database).chunks(job_id, max_bytes=1 << 30)
    assert sum(chunk.lines for chunk in chunks) == before.count(b"\n") + 200_000
    for chunk in chunks:
        assert Contract.load().event_violations("log", log_payload(chunk)) == []
