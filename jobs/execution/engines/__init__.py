"""Engines: what gives pending jobs to workers. One file each; `jobs.bootstrap` chooses one. Each passes `tests/conformance/engine/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jobs.store.database import Database
from jobs.store.leases import Lease
from jobs.store.scheduling import Scheduler


class Engine(Scheduler, Protocol):
    """A scheduler that also hands out jobs. The lease is the truth: an engine's own records follow it."""

    def claim(self, database: Database, *, worker_id: str, host: str, queues: Sequence[str], slots: int) -> list[Lease]:
        """The jobs that this worker is to start now, each claimed for it: at most as many as it has free slots.

        Higher priority first, then the oldest; of each concurrency key one at a time, in the order of submission.
        """
