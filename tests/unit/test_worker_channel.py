"""What worker and dispatcher do with the channel between them when the other one has died."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.bootstrap import make_engine, open_database
from jobs.execution.dispatcher import Dispatcher
from jobs.execution.signals import OURS
from jobs.execution.worker import Worker
from jobs.model import JobType, Submission
from jobs.recipes.expand import Recipes
from jobs.recipes.workspace import SHIPPED
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases
from support.stores import claim

MANY = 1000
LEASE = b'{"job_id": "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11", "word": "0123456789abcdef", "attempt": 1}'


class Observed(Worker):
    """Without processes: what would be handed to supervisors, and when the next dispatcher would be started."""

    def __init__(self, settings: Settings, database: OwnedDatabase) -> None:
        recipes = Recipes.load(workspace=SHIPPED, tasks_file=None)
        super().__init__(settings, recipes, database=database, engine=make_engine(settings.url), lifeline=None)
        self.events: list[bytes] = []

    def _hand_over(self, lease: bytes) -> None:
        self.events.append(lease)

    def _start_dispatcher(self) -> None:
        self.events.append(b"started")


@pytest.mark.parametrize("cut", [b"", LEASE[:20]], ids=["whole", "cut"])
def test_all_handed_over_jobs_are_passed_on_before_the_next_start(tmp_path: Path, cut: bytes) -> None:
    """More than one read gives; half a line is of a dispatcher that died in the midst of it, and that claim is given up by the sweep."""
    settings = Settings(data_dir=tmp_path)
    worker = Observed(settings, open_database(settings.url))
    ours, theirs = socket.socketpair()
    with closing(ours), closing(worker._selector):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        worker._channel = ours
        worker._selector.register(ours, selectors.EVENT_READ, worker._on_dispatcher_message)
        theirs.sendall((LEASE + b"\n") * MANY + cut)
        theirs.close()
        worker._restart_dispatcher(signal.SIGKILL)
        assert worker.events == [LEASE] * MANY + [b"started"]
        assert vars(worker)["_channel"] is None
        assert not worker._selector.get_map()


@pytest.fixture
def own_signals() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in OURS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("unread", [b"", LEASE + b"\n"], ids=["read", "unread"])
def test_a_dispatcher_without_its_worker_exits_and_leaves_jobs_alone(
    tmp_path: Path, own_signals: None, caplog: pytest.LogCaptureFixture, unread: bytes
) -> None:
    """Whether or not the worker had still read what it was told, which the system says in another way."""
    settings = Settings(data_dir=tmp_path)
    database = open_database(settings.url)
    database.migrate()
    Store(database, make_engine(database.url)).submit(
        NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=1
    )
    (lease,) = claim(database, worker_id=settings.worker_id, host="here", queues=["default"], slots=1)
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(database):
        theirs.sendall(unread)
        ours.close()
        Dispatcher(settings, database=database, engine=make_engine(settings.url), hand_over=lambda lease: None, channel=theirs).run()
        assert Leases(database, make_engine(database.url)).cancel_request(lease) is None
    assert not [record for record in caplog.records if "Stopping" in record.message]
