"""Gives pending jobs to supervisors, and sweeps up after those that were lost. Runs no job itself and has no threads.

All that it knows is in the store, so that it may be killed and started again at any moment: what runs is what the store says is running.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from jobs.clock import SteadyClock
from jobs.errors import Unavailable
from jobs.execution.engines import Engine
from jobs.execution.process import Identity, boot_id, end_strays, pid_namespace
from jobs.execution.signals import FORCE_SIGNAL, OURS, STOP_SIGNALS
from jobs.execution.worker_lock import is_unlocked
from jobs.fault_points import reached
from jobs.settings import Settings
from jobs.store.database import Database
from jobs.store.leases import HeldLease, Lease, Leases
from jobs.store.retention import Retention

T = TypeVar("T")
logger = logging.getLogger("runcast.worker")

POLL_SECONDS = 0.005
CLAIM_SECONDS = 1.0
"""A look for pending jobs even when the feed was silent."""
HEARTBEAT_SECONDS = 4.0
SWEEP_SECONDS = 1.0
RETENTION_SECONDS = 10.0
PATIENCE_SECONDS = 20.0
"""Who stops waits for a store that does not answer, but not for ever."""
UNTAKEN_SECONDS = 3.0
"""A lease is taken within milliseconds of its claim, unless who was to take it has died; who is late after all loses only that."""
DAY_MS = 24 * 3600 * 1000


class Dispatcher:
    """One worker's loop. `hand_over` gives a lease to a fresh supervisor."""

    def __init__(
        self, settings: Settings, *, database: Database, engine: Engine, hand_over: Callable[[Lease], None], channel: socket.socket
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._database = database
        self._engine = engine
        self._leases = Leases(database, engine)
        self._hand_over = hand_over
        self._feed = database.feed()
        self._watch = LostJobDetector(settings.lease_seconds, worker_id=settings.worker_id)
        self._retention = Retention(
            database,
            max_age_ms=int(settings.retain_days * DAY_MS),
            max_jobs=settings.retain_jobs,
            max_bytes=settings.retain_bytes,
            log_cap=settings.log_cap,
        )
        self._stopping = False
        self._forced = False
        self._abandoned = False
        self._ending: set[str] = set()
        """The leases of the jobs that end with us."""
        self._written = time.monotonic()
        self._claiming = PeriodicTask(CLAIM_SECONDS, self._claim)
        self._forgetting = PeriodicTask(RETENTION_SECONDS, self._forget_old)
        # At least as often as supervisors do: when they cannot write, we shall know.
        self._showing_life = PeriodicTask(min(HEARTBEAT_SECONDS, settings.lease_seconds / 4), self._show_life)
        self._duties = [self._claiming, PeriodicTask(SWEEP_SECONDS, self._sweep), self._showing_life, self._forgetting]
        self._clock = SteadyClock()

    def run(self) -> bool:
        """Until told to stop; then, unless jobs are to be kept, until the running ones have ended. False when the store did not answer, so
        that nobody knows what runs on."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._stop)
        signal.signal(FORCE_SIGNAL, self._force)
        # Whoever forked us held them back until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)
        registered = False
        while not registered and not self._stopping and not self._abandoned:
            registered = self._try(self._register)
        while not self._stopping and not self._abandoned:
            self._tick()
        try:
            if not self._settings.keep_jobs and not self._abandoned:
                self._end_jobs()
            with suppress(Unavailable):  # without a sign of life it counts as gone soon
                self._insist(lambda: self._leases.worker_gone(self._settings.worker_id))
        except Unavailable as error:
            logger.error("%s What runs was not ended; the next start finds it.", error)
            return False
        return True

    def _stop(self, _signum: int, _frame: object) -> None:
        self._stopping = True

    def _force(self, _signum: int, _frame: object) -> None:
        self._stopping = self._forced = True

    def _end_jobs(self) -> None:
        """Raises Unavailable when the store takes nothing any more: then no job can say that it has ended."""
        forced = self._forced
        self._insist(lambda: self._cancel(force=forced))
        self._written = time.monotonic()
        if (count := self._running()) and not forced:
            logger.warning("Stopping: what runs (%d) has its grace to end; a second signal ends it at once.", count)
        while not self._abandoned and self._running():
            if self._forced and not forced:
                forced = True
                self._insist(lambda: self._cancel(force=True))
            self._tick()
            if time.monotonic() > self._written + PATIENCE_SECONDS:
                raise Unavailable("The store takes nothing any more.")

    def _cancel(self, *, force: bool) -> None:
        heirless = {self._settings.worker_id, *self._crashed()}
        self._ending = {held.lease for held in self._leases.held() if held.worker_id in heirless}
        self._leases.cancel_all(self._ending, force=force)

    def _crashed(self) -> set[str]:
        """Workers of this data folder, with other queues, that have died with all that could start them again, and left jobs behind. Those
        that were told to keep their jobs have said goodbye, and come back."""
        signed_on = self._leases.worker_ids()
        here = {held.worker_id for held in self._leases.held() if held.host == host_id()} - {self._settings.worker_id}
        return {worker_id for worker_id in here & signed_on if is_unlocked(self._settings.data_dir, worker_id)}

    def _tick(self) -> None:
        freed = self._listen(POLL_SECONDS)
        if self._abandoned:
            return
        try:
            if self._feed.changed() or freed:
                self._claiming.due = 0.0
            if self._clock.is_off():
                # The machine's clock was set, and by the new time our last sign of life is old.
                self._clock = SteadyClock()
                self._showing_life.due = 0.0
            for duty in self._duties:
                duty.do_when_due()
        except Unavailable as error:
            logger.warning("%s Trying on.", error)
            self._watch.forget()
            self._feed.reopen()
            time.sleep(0.5)

    def _listen(self, seconds: float) -> bool:
        """Whether slots became free meanwhile."""
        readable, _, _ = select.select([self._channel], [], [], seconds)
        freed = bool(readable) and bool(receive(self._channel))
        if readable and not freed:
            # Whoever forks the supervisors is gone; it will be started again, and we with it.
            self._abandoned = True
        return freed

    def _register(self) -> None:
        settings = self._settings
        self._leases.register_worker(
            worker_id=settings.worker_id, host=socket.gethostname(), pid=os.getppid(), slots=settings.slots, queues=settings.queue
        )

    def _claim(self) -> None:
        if self._stopping:
            return
        settings = self._settings
        leases = self._engine.claim(
            self._database, worker_id=settings.worker_id, host=host_id(), queues=settings.queue, slots=settings.slots
        )
        for lease in leases:
            reached("claim.committed")
            try:
                self._hand_over(lease)
                reached("claim.handed_over")
            except ConnectionError:  # whoever forks is gone; nobody takes the lease, so the job will be pending again
                self._abandoned = True

    def _running(self) -> int:
        """How many of the jobs that end with us still run."""
        return self._insist(lambda: self._leases.running(self._ending)) or 0

    def _show_life(self) -> None:
        self._leases.worker_alive(self._settings.worker_id)
        self._written = time.monotonic()

    def _forget_old(self) -> None:
        if self._retention.run():
            self._forgetting.due = 0.0  # there may be more, but other duties come in between

    def _sweep(self) -> None:
        for held in self._watch.lost(self._leases.held()):
            ended = _end_all_of(held)
            reached("sweep.ended")
            status = self._leases.lose(held)
            reached("sweep.committed")
            if status is not None:  # else it had just ended by itself
                logger.warning(
                    "The supervisor of job %s was lost; %d processes of it were ended; the job is %s.", held.job_id, ended, status
                )

    def _insist(self, work: Callable[[], T]) -> T | None:
        """Until it is done, or abandoned (None): what comes after us speaks for this worker then. Raises Unavailable when the store has not
        answered for long, or when somebody is in a hurry."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._abandoned:
            try:
                return work()
            except Unavailable as error:
                if self._forced or time.monotonic() > deadline:
                    raise
                self._wait_for_store(error)
        return None

    def _try(self, work: Callable[[], None]) -> bool:
        """Whether it is done."""
        try:
            work()
        except Unavailable as error:
            self._wait_for_store(error)
            return False
        return True

    def _wait_for_store(self, error: Unavailable) -> None:
        logger.warning("%s Trying on.", error)
        if self._listen(0.5):
            self._claiming.due = 0.0


def receive(channel: socket.socket) -> bytes:
    """What the process at the other end says; nothing when it is gone, whether or not it has read all that it was told."""
    try:
        return channel.recv(1 << 16)
    except ConnectionResetError:
        return b""


@dataclass
class PeriodicTask:
    """Something to be done every so many seconds, and at once when `due` is set back."""

    every: float
    action: Callable[[], None]
    due: float = 0.0

    def do_when_due(self) -> None:
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.every
            self.action()


class LostJobDetector:
    """Tells which running jobs have lost their supervisor.

    On this host a dead process is proof at once. Otherwise a supervisor that gave no sign for the length of a lease, measured by our own
    monotonic clock from look to look, is lost: no two clocks are ever compared. A lease that was never taken is given up sooner, because
    nothing was started under it. Time in which we were held up ourselves, by the store or by the machine, hardly counts: it will have held
    up the supervisor, too.
    """

    def __init__(self, lease_seconds: float, *, worker_id: str) -> None:
        self._lease_seconds = lease_seconds
        self._worker_id = worker_id
        self._looked = time.monotonic()
        self._silent: dict[tuple[str, str], tuple[int, float]] = {}

    def lost(self, running: list[HeldLease]) -> list[HeldLease]:
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * SWEEP_SECONDS), now
        before, self._silent = self._silent, {}
        lost = []
        for held in running:
            heartbeat, silence = before.get((held.job_id, held.lease), (None, 0.0))
            silence = silence + passed if heartbeat == held.heartbeat else 0.0
            self._silent[held.job_id, held.lease] = (held.heartbeat, silence)
            if self._known_dead(held) or silence > self._patience(held):
                _end_supervisor(held)
                lost.append(held)
        return lost

    def _known_dead(self, held: HeldLease) -> bool:
        if held.supervisor is None:
            return False
        identity = Identity(**held.supervisor)
        if held.host == host_id():
            return not identity.alive()
        # It was ours, and one worker at a time has our name: it ran before the machine was started anew.
        return held.worker_id == self._worker_id and identity.boot_id != boot_id()

    def _patience(self, held: HeldLease) -> float:
        return self._lease_seconds if held.supervisor is not None else min(self._lease_seconds, UNTAKEN_SECONDS)

    def forget(self) -> None:
        """The store took no writes, so nobody could give a sign: all silence counts from now."""
        self._silent = {}


def _end_all_of(held: HeldLease) -> int:
    """End what a lost supervisor left on this host, and remove its temporary folders, also those that were left before a new start; gives
    how many processes that were."""
    if held.supervisor is None:  # nothing was started, unless it is being taken at this moment
        return 0
    ended = end_strays(marker=held.taken.marker, group=held.process_group) if held.host == host_id() else 0
    for folder in Path(gettempdir()).glob(f"{held.taken.folder}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def _end_supervisor(held: HeldLease) -> None:
    """One that hangs or was stopped must not wake up again."""
    if held.host == host_id() and held.supervisor is not None and (identity := Identity(**held.supervisor)).alive():
        os.kill(identity.pid, signal.SIGKILL)


def host_id() -> str:
    """Where a pid means what it means here: on this machine since it was started, whatever it is called, and in this container."""
    return f"{boot_id()}{pid_namespace()}"
