"""The local engine: workers take pending jobs straight from the store. One machine."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.store.leases import Lease, Leases


class LocalEngine:
    def __init__(self, leases: Leases, *, worker_id: str, host: str, queues: Sequence[str], slots: int) -> None:
        self._leases = leases
        self._worker_id = worker_id
        self._host = host
        self._queues = queues
        self._slots = slots

    def claim(self) -> list[Lease]:
        return self._leases.claim(worker_id=self._worker_id, host=self._host, queues=self._queues, slots=self._slots)
