"""What tests do with a store as a worker does."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.bootstrap import make_engine
from jobs.store.database import Database
from jobs.store.leases import Lease


def claim(database: Database, *, worker_id: str, host: str, queues: Sequence[str], slots: int) -> list[Lease]:
    """The jobs that a worker is to start now, by the engine of this database."""
    return make_engine(database.url).claim(database, worker_id=worker_id, host=host, queues=queues, slots=slots)
