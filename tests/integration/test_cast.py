"""The caster on a real store, step by step: what a client is sent does not depend on who reads the store first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
import pytest
from gevent.event import Event

from handlers.events.caster import Caster
from handlers.events.payloads import Packet
from handlers.events.subscriber import Subscriber
from jobs.bootstrap import make_engine
from jobs.model import JobType, Json, Status, Submission
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.logs import Logs
from support.stores import claim

TURNS = 20


@dataclass
class Sent:
    event: str
    payload: Json
    size: int = 1000


@dataclass
class Transport:
    """Takes everything at once."""

    sent: list[Sent] = field(default_factory=list)

    def send(self, packet: Packet) -> None:
        assert isinstance(packet, Sent)
        self.sent.append(packet)

    def drain(self) -> None: ...
    def limit_answers(self) -> None: ...
    def disconnect(self) -> None: ...

    @property
    def told(self) -> list[str]:
        return [sent.payload["status"] if sent.event == "status" else sent.event for sent in self.sent]


class Changes:
    """Changes are noticed when the test says so."""

    def __init__(self) -> None:
        self.version = 0
        self._noticed = Event()

    def wait(self, seen: int, timeout: float) -> None:
        if self.version == seen:
            self._noticed.wait()

    def notice(self) -> None:
        self.version += 1
        noticed, self._noticed = self._noticed, Event()
        noticed.set()
        give_turns()


def give_turns() -> None:
    """Let the other greenlets run."""
    for _ in range(TURNS):
        gevent.sleep(0)


@dataclass
class System:
    caster: Caster
    changes: Changes
    store: Store
    leases: Leases

    def run_job(self) -> Lease:
        self.store.submit(NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=10)
        (lease,) = claim(self.leases.database, worker_id="w", host="here", queues=["default"], slots=10)
        self.leases.take(lease, supervisor={"pid": 1})
        return lease

    def connect(self, name: str) -> tuple[Subscriber, Transport]:
        transport = Transport()
        self.caster.connect(name, transport)
        return self.caster.subscriber(name), transport

    def end(self, lease: Lease) -> None:
        self.leases.end(lease, Outcome(Status.COMPLETED, "exited with code 0", exit_code=0))


@pytest.fixture
def system(database: OwnedDatabase) -> Iterator[System]:
    store, changes = Store(database, make_engine(database.url)), Changes()
    caster = Caster(store, Logs(database), changes, Sent)
    yield System(caster, changes, store, Leases(database, make_engine(database.url)))
    for name in list(caster._subscribers):
        caster.disconnect(name)
    changes.notice()


def test_last_status_comes_before_the_end_despite_other_subscribers(system: System) -> None:
    lease = system.run_job()
    first, seen = system.connect("first")
    first.subscribe(lease.job_id, 0)
    give_turns()
    system.end(lease)
    second, seen_later = system.connect("second")
    job, _ = second.subscribe(lease.job_id, 0)
    give_turns()
    assert (job.status, seen_later.told) == (Status.COMPLETED, ["complete"])
    assert seen.told == []  # the end is known, but not yet the status change that led to it
    system.changes.notice()
    assert seen.told == ["completed", "complete"]
    assert seen_later.told == ["complete"]


def test_change_after_the_subscription_is_sent_once(system: System) -> None:
    lease = system.run_job()
    clients = [system.connect(f"client {number}") for number in range(3)]
    for client, _ in clients:
        client.subscribe(lease.job_id, 0)
        client.subscribe(lease.job_id, 0)
    system.changes.notice()
    system.end(lease)
    system.changes.notice()
    system.changes.notice()
    assert [transport.told for _, transport in clients] == [["completed", "complete"]] * 3
