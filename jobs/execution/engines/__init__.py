"""Engines: what gives pending jobs to workers. One file each; the protocol is what a worker needs of them."""

from __future__ import annotations

from typing import Protocol

from jobs.store.leases import Lease


class Engine(Protocol):
    def claim(self) -> list[Lease]:
        """Pending jobs that this worker is to start now, each claimed for it: at most as many as it has free slots."""
