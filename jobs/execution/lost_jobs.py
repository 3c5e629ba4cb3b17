"""Finds running jobs that have lost their supervisor, and ends what such a supervisor left on this host.

The dispatcher asks, and decides with the store what becomes of the job. Nothing here writes to the store.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir

from jobs.execution.process_table import Identity, boot_id, end_strays, host_id
from jobs.store.leases import HeldLease

SWEEP_INTERVAL_SECONDS = 1.0
"""How often the dispatcher looks for lost jobs."""
UNTAKEN_LEASE_SECONDS = 3.0
"""A lease is taken within milliseconds of its claim, unless the supervisor has died. A supervisor that is late only loses the lease."""


class LostJobDetector:
    """Tells which running jobs have lost their supervisor.

    A dead process on this host is proof at once. Otherwise a supervisor is lost when it gave no sign for the length of a lease, measured
    from look to look by our own monotonic clock: no two clocks are ever compared. A lease that was never taken is given up sooner, because
    nothing was started under it. Time in which we were held up ourselves, by the store or by the machine, hardly counts: it will have held
    up the supervisor, too.
    """

    def __init__(self, lease_seconds: float, *, worker_id: str) -> None:
        self._lease_seconds = lease_seconds
        self._worker_id = worker_id
        self._looked_at = time.monotonic()
        self._silent: dict[tuple[str, str], tuple[int, float]] = {}
        """By job and lease: the newest heartbeat, and for how long it has been the newest."""

    def find_lost(self, running: Sequence[HeldLease]) -> list[HeldLease]:
        """The lost ones of all running jobs. Their supervisors are dead when this returns, if they were on this host."""
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, 2 * SWEEP_INTERVAL_SECONDS), now
        before, self._silent = self._silent, {}
        lost = []
        for held in running:
            heartbeat, silence = before.get((held.job_id, held.lease), (None, 0.0))
            silence = silence + passed if heartbeat == held.heartbeat else 0.0
            self._silent[held.job_id, held.lease] = (held.heartbeat, silence)
            if self._is_known_dead(held) or silence > self._allowed_silence(held):
                _kill_supervisor(held)
                lost.append(held)
        return lost

    def reset(self) -> None:
        """The store accepted no writes, so no supervisor could give a sign: all silence counts from now."""
        self._silent = {}

    def _is_known_dead(self, held: HeldLease) -> bool:
        if held.supervisor is None:
            return False
        identity = Identity(**held.supervisor)
        if held.host == host_id():
            return not identity.alive()
        # It was one of ours, and only one worker at a time has our name: so it ran before the machine was started again.
        return held.worker_id == self._worker_id and identity.boot_id != boot_id()

    def _allowed_silence(self, held: HeldLease) -> float:
        return self._lease_seconds if held.supervisor is not None else min(self._lease_seconds, UNTAKEN_LEASE_SECONDS)


def end_remains(held: HeldLease) -> int:
    """End the processes that a lost supervisor left on this host, and remove its temporary folders, also those of an earlier boot.

    Returns how many processes that were.
    """
    if held.supervisor is None:  # nothing was started, unless the lease is being taken at this moment
        return 0
    ended = end_strays(marker=held.taken.marker, group=held.process_group) if held.host == host_id() else 0
    for folder in Path(gettempdir()).glob(f"{held.taken.folder}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def _kill_supervisor(held: HeldLease) -> None:
    """A supervisor that hangs or was stopped must not wake up again."""
    if held.host == host_id() and held.supervisor is not None and (identity := Identity(**held.supervisor)).alive():
        os.kill(identity.pid, signal.SIGKILL)
