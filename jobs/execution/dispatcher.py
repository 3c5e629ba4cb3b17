"""The dispatcher of one worker: gives pending jobs to supervisors, and ends or requeues the jobs of supervisors that were lost.

It runs no job itself and has no threads. All that it knows is in the store, so it may be killed and started again at any moment: a job
runs when the store says so.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from jobs.clock import SteadyClock
from jobs.errors import Unavailable
from jobs.execution.engines import Engine
from jobs.execution.lost_jobs import SWEEP_INTERVAL_SECONDS, LostJobDetector, end_remains
from jobs.execution.process_table import host_id
from jobs.execution.signals import FORCE_SIGNAL, OURS, STOP_SIGNALS
from jobs.execution.worker_lock import is_unlocked
from jobs.fault_points import reached
from jobs.settings import Settings
from jobs.store.database import Database
from jobs.store.leases import Lease, Leases
from jobs.store.retention import Retention

T = TypeVar("T")
logger = logging.getLogger("runcast.worker")

FEED_POLL_INTERVAL_SECONDS = 0.005
CLAIM_INTERVAL_SECONDS = 1.0
"""How often pending jobs are looked for when the feed tells of nothing new."""
HEARTBEAT_INTERVAL_SECONDS = 4.0
RETENTION_INTERVAL_SECONDS = 10.0
STORE_RETRY_SECONDS = 0.5
STORE_TIMEOUT_SECONDS = 20.0
"""How long a dispatcher that stops waits for a store that does not answer."""
DAY_MS = 24 * 3600 * 1000


class Dispatcher:
    """The loop of one worker. `hand_over` gives a lease to a supervisor; `channel` leads to the process that forks supervisors."""

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
        self._detector = LostJobDetector(settings.lease_seconds, worker_id=settings.worker_id)
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
        """The leases of the jobs that we have asked to end."""
        self._heartbeat_at = time.monotonic()
        self._claim_task = PeriodicTask(CLAIM_INTERVAL_SECONDS, self._claim)
        self._retention_task = PeriodicTask(RETENTION_INTERVAL_SECONDS, self._apply_retention)
        # At least as often as supervisors: when they cannot write, we notice it, too.
        self._heartbeat_task = PeriodicTask(min(HEARTBEAT_INTERVAL_SECONDS, settings.lease_seconds / 4), self._send_heartbeat)
        self._tasks = [self._claim_task, PeriodicTask(SWEEP_INTERVAL_SECONDS, self._sweep), self._heartbeat_task, self._retention_task]
        self._clock = SteadyClock()

    def run(self) -> bool:
        """Until told to stop; then, unless jobs are to be kept, until the running ones have ended.

        False when the store did not answer, so that some jobs may still run.
        """
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._stop)
        signal.signal(FORCE_SIGNAL, self._force)
        # The worker that forked us has blocked them until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)
        registered = False
        while not registered and not self._stopping and not self._abandoned:
            registered = self._try(self._register)
        while not self._stopping and not self._abandoned:
            self._tick()
        try:
            if not self._settings.keep_jobs and not self._abandoned:
                self._end_jobs()
            with suppress(Unavailable):  # a worker without a heartbeat counts as gone soon
                self._retry_until_stored(lambda: self._leases.worker_gone(self._settings.worker_id))
        except Unavailable as error:
            logger.error("%s What runs was not ended; the next start finds it.", error)
            return False
        return True

    def _stop(self, _signum: int, _frame: object) -> None:
        self._stopping = True

    def _force(self, _signum: int, _frame: object) -> None:
        self._stopping = self._forced = True

    def _end_jobs(self) -> None:
        """Raises Unavailable when the store accepts nothing any more: then no job can say that it has ended."""
        forced = self._forced
        self._retry_until_stored(lambda: self._cancel(force=forced))
        self._heartbeat_at = time.monotonic()
        if (count := self._running()) and not forced:
            logger.warning("Stopping: running jobs (%d) have their grace period to end; a second signal ends them at once.", count)
        while not self._abandoned and self._running():
            if self._forced and not forced:
                forced = True
                self._retry_until_stored(lambda: self._cancel(force=True))
            self._tick()
            if time.monotonic() > self._heartbeat_at + STORE_TIMEOUT_SECONDS:
                raise Unavailable("The store accepts nothing any more.")

    def _cancel(self, *, force: bool) -> None:
        orphaned = {self._settings.worker_id, *self._crashed_workers()}
        self._ending = {held.lease for held in self._leases.held() if held.worker_id in orphaned}
        self._leases.cancel_all(self._ending, force=force)

    def _crashed_workers(self) -> set[str]:
        """Workers of this data folder, with other queues, that left jobs behind and whose process is gone for good.

        A worker that was told to keep its jobs has signed off and is not among them: it comes back.
        """
        signed_on = self._leases.worker_ids()
        here = {held.worker_id for held in self._leases.held() if held.host == host_id()} - {self._settings.worker_id}
        return {worker_id for worker_id in here & signed_on if is_unlocked(self._settings.data_dir, worker_id)}

    def _tick(self) -> None:
        freed = self._listen(FEED_POLL_INTERVAL_SECONDS)
        if self._abandoned:
            return
        try:
            if self._feed.changed() or freed:
                self._claim_task.due = 0.0
            if self._clock.is_off():
                # The machine's clock was set, and by the new time our last heartbeat is old.
                self._clock = SteadyClock()
                self._heartbeat_task.due = 0.0
            for task in self._tasks:
                task.do_when_due()
        except Unavailable as error:
            logger.warning("%s Retrying.", error)
            self._detector.reset()
            self._feed.reopen()
            time.sleep(STORE_RETRY_SECONDS)

    def _listen(self, seconds: float) -> bool:
        """Wait for so long, or until the worker says something. Returns whether slots became free."""
        readable, _, _ = select.select([self._channel], [], [], seconds)
        freed = bool(readable) and bool(receive(self._channel))
        if readable and not freed:
            # The process that forks supervisors is gone. It will be started again, and a new dispatcher with it.
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
            except ConnectionError:  # the forking process is gone; nobody takes the lease, so the job will be pending again
                self._abandoned = True

    def _running(self) -> int:
        """How many of the jobs that we have asked to end still run."""
        return self._retry_until_stored(lambda: self._leases.running(self._ending)) or 0

    def _send_heartbeat(self) -> None:
        self._leases.worker_alive(self._settings.worker_id)
        self._heartbeat_at = time.monotonic()

    def _apply_retention(self) -> None:
        if self._retention.run():
            self._retention_task.due = 0.0  # there may be more, but other tasks come in between

    def _sweep(self) -> None:
        for held in self._detector.find_lost(self._leases.held()):
            ended = end_remains(held)
            reached("sweep.ended")
            status = self._leases.lose(held)
            reached("sweep.committed")
            if status is not None:  # otherwise it has just ended by itself
                logger.warning(
                    "The supervisor of job %s was lost; %d processes of it were ended; the job is %s.", held.job_id, ended, status
                )

    def _retry_until_stored(self, work: Callable[[], T]) -> T | None:
        """Do `work`, and do it again as long as the store does not answer. None when we were abandoned: our successor does it then.

        Raises Unavailable when the store has not answered for long, or when the operator has asked twice to stop.
        """
        deadline = time.monotonic() + STORE_TIMEOUT_SECONDS
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
        logger.warning("%s Retrying.", error)
        if self._listen(STORE_RETRY_SECONDS):
            self._claim_task.due = 0.0


def receive(channel: socket.socket) -> bytes:
    """What the process at the other end has sent; nothing when it is gone, whether or not it has read all that was sent to it."""
    try:
        return channel.recv(1 << 16)
    except ConnectionResetError:
        return b""


@dataclass
class PeriodicTask:
    """Something that is done every `every` seconds, and at once when `due` is set to 0."""

    every: float
    action: Callable[[], None]
    due: float = 0.0

    def do_when_due(self) -> None:
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.every
            self.action()
