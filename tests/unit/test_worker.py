"""What a worker does with the leases of a dispatcher that has died."""

from __future__ import annotations

import selectors
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from jobs.bootstrap import make_engine, open_database
from jobs.execution.worker import Worker
from jobs.recipes.expand import Recipes
from jobs.recipes.workspace import SHIPPED
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase

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
