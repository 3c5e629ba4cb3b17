"""Keeps a supervisor's lease alive, and repeats what the store did not accept.

A supervisor that gives no sign for the length of its lease counts as lost: it is killed, and its job fails. So the lease is renewed from
the start of the job until its end is stored, also in every wait in between. Nothing here knows what the job does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.errors import LeaseLost, StoreReplaced, Unavailable
from jobs.store.leases import Lease, Leases

T = TypeVar("T")
logger = logging.getLogger("runcast.supervisor")

RETRY_SECONDS = 0.5
PAUSE_STEP_SECONDS = 0.05
"""How often a wait looks whether the lease has to be renewed."""


class LeaseRenewal:
    """Renews one lease four times in its length. Every method raises LeaseLost when others hold the lease by now."""

    def __init__(self, leases: Leases, lease: Lease, *, lease_seconds: float) -> None:
        self._leases = leases
        self._lease = lease
        self._interval = lease_seconds / 4
        self._renewed_at = time.monotonic()

    @property
    def due(self) -> float:
        """When the lease has to be renewed next (monotonic time)."""
        return self._renewed_at + self._interval

    def renew_when_due(self, meanwhile: Callable[[], None]) -> None:
        """Renew, and try again until the store accepts it; `meanwhile` is called between two tries."""
        if time.monotonic() >= self.due:
            retry_until_stored(self._renew, meanwhile)

    def try_when_due(self) -> None:
        """Renew once. A store that does not answer is ignored: who calls this is waiting for it, or will try again soon."""
        if time.monotonic() >= self.due:
            try:
                self._renew()
            except StoreReplaced as error:
                raise LeaseLost(str(error)) from error
            except Unavailable:
                pass

    def pause(self, seconds: float) -> None:
        """Sleep, and renew the lease meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.try_when_due()
            time.sleep(min(left, PAUSE_STEP_SECONDS))

    def _renew(self) -> None:
        self._renewed_at = time.monotonic()
        self._leases.update(self._lease)


def do_nothing() -> None:
    """For `meanwhile`."""


def retry_until_stored(work: Callable[[], T], meanwhile: Callable[[], None] = do_nothing) -> T:
    """Do `work`, and do it again as long as the store does not answer. `meanwhile` is called between two tries.

    A job must not suffer from a store that is away, and no line of its log may be lost. No output is read in that time: the pipes of the
    job fill up, and the job waits. Raises LeaseLost when the database was replaced, because the new one does not know the lease.
    """
    warned = False
    while True:
        try:
            return work()
        except StoreReplaced as error:
            raise LeaseLost(str(error)) from error
        except Unavailable as error:
            if not warned:
                logger.warning("%s Retrying.", error)
                warned = True
            meanwhile()
            time.sleep(RETRY_SECONDS)
