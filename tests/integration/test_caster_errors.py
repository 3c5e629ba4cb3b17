"""The caster when the store fails, when a packet cannot be encoded, and when lines or rows have vanished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from sqlalchemy import delete

from handlers.events.caster import Caster
from handlers.server.gevent_store import GeventChanges
from jobs.bootstrap import make_engine
from jobs.errors import Unavailable
from jobs.model import Job, Json, LogChunk, Status, Stream
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import Store
from jobs.store.leases import Leases, Outcome
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.store.schema import jobs
from support.jobs import end, log, lose_the_end, start, submit


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


def test_subscribers_get_everything_when_reads_of_the_store_fail(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_job_that_cannot_be_cast_does_not_stop_the_others(database: OwnedDatabase) -> None:
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


def test_a_log_whose_end_was_dropped_is_cast_up_to_complete(database: OwnedDatabase) -> None:
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


def test_unread_lines_of_an_ended_log_are_not_taken_for_dropped(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_subscribers_of_a_vanished_job_get_an_error(database: OwnedDatabase, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
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
