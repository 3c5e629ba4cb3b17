"""Runs one job: starts its command, passes on what it prints, obeys cancel requests and the timeout, and ends the whole process tree.

A supervisor is a process of its own that runs one job at a time. It outlives the worker that forked it. It talks only to the store, and
writes under its lease: when the lease is lost, it ends what it runs and stores nothing more. It never talks to a client, and it never
starts a second command for a job.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.clock import SteadyClock
from jobs.errors import LeaseLost, RuncastError, StoreReplaced, Unavailable
from jobs.execution.engines import Engine
from jobs.execution.job_log import JobLog
from jobs.execution.lease_renewal import PAUSE_STEP_SECONDS, RETRY_SECONDS, LeaseRenewal, retry_until_stored
from jobs.execution.process import Command, Exit, Process, become_subreaper
from jobs.execution.process_table import Identity
from jobs.fault_points import reached
from jobs.model import JobType, Reason, Status, Stream, Submission
from jobs.recipes.expand import Recipe, Recipes, job_environment
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import CancelRequest, Lease, Leases, Outcome, TakenJob
from jobs.store.log_writer import LogBlock, LogWriter

CANCEL_POLL_INTERVAL_SECONDS = 0.05
"""How often the store is asked whether somebody wants the job to end."""
TAKE_TIMEOUT_SECONDS = 30.0
"""How long a supervisor tries to take its lease while the store does not answer."""
DRAIN_SECONDS = 2.0
"""How long output is read after the command's end while some descendant holds it open."""


@dataclass(frozen=True)
class Termination:
    """Why the job is ended before its command ends by itself, and when it is killed."""

    status: Status
    reason: Reason
    cause: str
    kill_at: float


def warm_up(database: OwnedDatabase, engine: Engine) -> None:
    """Do once, in a transaction that is undone, what every supervisor does with the store. Forks then inherit the compiled statements."""
    task = Submission(JobType.TASK, {"task": "warm-up"})
    with database.dry_run():
        leases = Leases(database, engine)
        Store(database, engine).submit(NewJob(task, "warm-up", None, None, "warm-up"), max_pending=1 << 30)
        (lease,) = engine.claim(database, worker_id="warm-up", host="", queues=["warm-up"], slots=1)
        leases.take(lease, supervisor={})
        leases.update(lease, process_group=0)
        leases.cancel_request(lease)
        writer = LogWriter(lease, cap=1 << 20)
        for values in ({}, {"progress_percent": 1.0, "progress_message": ""}):
            writer.append(database.write, [LogBlock(Stream.STDOUT, at=0, lines=1, data=b"\n")], values)
        leases.end(lease, Outcome(Status.COMPLETED, "warm-up"))


def supervise(settings: Settings, recipes: Recipes, lease: Lease, *, leases: Leases) -> None:
    """Runs one job from its lease to its stored end. Raises LeaseLost.

    The calling process must have no children, and a session of its own.
    """
    become_subreaper()
    taken = _take(leases, lease)
    reached("start.taken")
    clock = SteadyClock(not_before=taken.started_at)
    renewal = LeaseRenewal(leases, lease, lease_seconds=settings.lease_seconds)
    with ExitStack() as resources:
        # Released before the end is stored: whoever sees the end finds nothing left of the job.
        outcome = _run(settings, recipes, lease, taken.submission, leases=leases, renewal=renewal, clock=clock, resources=resources)
    ended_at = clock.now_ms()
    reached("end.flushed")
    retry_until_stored(lambda: leases.end(lease, outcome, at=ended_at), renewal.try_when_due)
    reached("end.committed")


def _take(leases: Leases, lease: Lease) -> TakenJob:
    """Raises LeaseLost, also when the store does not answer for long: nothing was started under the lease, so a worker gives it up."""
    deadline = time.monotonic() + TAKE_TIMEOUT_SECONDS
    while True:
        try:
            return leases.take(lease, supervisor=Identity.of(os.getpid()).__dict__)
        except Unavailable as error:
            if isinstance(error, StoreReplaced) or time.monotonic() > deadline:
                raise LeaseLost(f"The lease of job {lease.job_id} could not be taken. {error}") from error
            time.sleep(RETRY_SECONDS)


def _run(
    settings: Settings,
    recipes: Recipes,
    lease: Lease,
    submission: Submission,
    *,
    leases: Leases,
    renewal: LeaseRenewal,
    clock: SteadyClock,
    resources: ExitStack,
) -> Outcome:
    try:
        recipe = recipes.expand(submission)
        environment = job_environment(os.environ, recipe=recipe, marker=lease.marker)
        log = JobLog(leases.database, lease, recipe=recipe, cap=settings.log_cap, clock=clock, pause=renewal.pause)
        argv = _argv(recipe, lease, renewal, resources)
        process = Process.start(Command(argv, recipe.cwd, environment, recipe.pty, root=recipes.workspace.root))
    except (RuncastError, OSError) as error:
        return Outcome(Status.FAILED, "the command could not be started", Reason.START_ERROR, error=str(error))
    reached("start.spawned")
    log.note(process_group=process.pid)
    command = RunningCommand(lease, leases=leases, renewal=renewal, recipe=recipe, process=process, log=log)
    resources.callback(command.release)
    return command.run_until_end()


def _argv(recipe: Recipe, lease: Lease, renewal: LeaseRenewal, resources: ExitStack) -> tuple[str, ...]:
    if not recipe.files:
        return recipe.argv
    folder = TemporaryDirectory(prefix=lease.folder, ignore_cleanup_errors=True)
    resources.callback(_remove, folder, renewal)
    return recipe.command(Path(folder.name))


def _remove(folder: TemporaryDirectory[str], renewal: LeaseRenewal) -> None:
    """In a thread, because a large folder takes long to remove, and the lease has to be renewed in that time."""
    remover = threading.Thread(target=folder.cleanup)
    remover.start()
    try:
        while remover.is_alive():
            renewal.try_when_due()
            remover.join(PAUSE_STEP_SECONDS)
    finally:
        remover.join()


class RunningCommand:
    """A job's command, from its start until it and everything that it started are gone."""

    def __init__(self, lease: Lease, *, leases: Leases, renewal: LeaseRenewal, recipe: Recipe, process: Process, log: JobLog) -> None:
        self._lease = lease
        self._leases = leases
        self._renewal = renewal
        self._recipe = recipe
        self._process = process
        self._log = log
        self._started_at = time.monotonic()
        self._polled_at = self._started_at
        self._feed = leases.database.feed()
        self._termination: Termination | None = None
        self._killed = False
        self._exit: Exit | None = None
        self._exited_at = 0.0
        self._selector = selectors.DefaultSelector()
        for fd, stream in process.outputs.items():
            self._selector.register(fd, selectors.EVENT_READ, stream)
        self._wakeup = _wake_on_child(self._selector)
        log.meanwhile = self._wait_for_store

    def run_until_end(self) -> Outcome:
        """Raises LeaseLost."""
        while not self._is_over():
            self._read(self._seconds_to_wait())
            self._notice_exit()
            self._renewal.renew_when_due(self._enforce_limits)
            self._obey_cancel_request()
            self._enforce_limits()
            due = self._log.due()
            if due is not None and time.monotonic() >= due:
                self._log.flush()
        reached("end.exited")
        self._end_tree()
        reached("end.swept")
        self._log.flush(last=True)
        return self._outcome()

    def release(self) -> None:
        """Whatever happened, end all that still runs, and close everything. Not through the store: the lease may be lost."""
        while not self._process.sweep():
            time.sleep(0.002)
        self._process.close()
        self._feed.close()
        self._selector.close()
        _stop_wakeup(self._wakeup)

    # -- the steps of the loop ------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if self._exit is None:
            return False
        if self._termination is not None:
            # The command has ended. What it had started gets the rest of the grace period, too.
            return self._killed or not self._process.remaining()
        # Output that a descendant holds open is read for a while, but not for ever.
        drained = not self._process.outputs or time.monotonic() > self._exited_at + DRAIN_SECONDS
        return drained or not self._process.remaining()

    def _seconds_to_wait(self) -> float:
        moments = [self._renewal.due, self._polled_at + CANCEL_POLL_INTERVAL_SECONDS]
        if (due := self._log.due()) is not None:
            moments.append(due)
        if self._termination is not None and not self._killed:
            moments.append(self._termination.kill_at)
        return max(0.0, min(moments) - time.monotonic())

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fd == self._wakeup[0]:
                os.read(key.fd, 4096)
            else:
                self._read_output(key.fd, key.data)

    def _read_output(self, fd: int, stream: Stream) -> bool:
        data = self._process.read(fd)
        if data is None:
            self._selector.unregister(fd)
            self._log.end(stream)
            return False
        if data:
            reached("chunk.read")
            self._log.feed(stream, data)
        return bool(data)

    def _notice_exit(self) -> None:
        if self._exit is None and (ended := self._process.poll()) is not None:
            self._exit, self._exited_at = ended, time.monotonic()

    def _obey_cancel_request(self) -> None:
        now = time.monotonic()
        if now < self._polled_at + CANCEL_POLL_INTERVAL_SECONDS:
            return
        self._polled_at = now
        if not self._feed.changed():
            return
        if (request := retry_until_stored(lambda: self._leases.cancel_request(self._lease), self._wait_for_store)) is not None:
            self._cancel(request)

    def _wait_for_store(self) -> None:
        """Called again and again while the store does not answer."""
        self._enforce_limits()
        # What is to be stored may be too large for a full disk, while the renewal is not.
        self._renewal.try_when_due()
        self._enforce_limits()  # the try may have taken long

    def _enforce_limits(self) -> None:
        """The job's timeout and its grace period hold, whatever the store does."""
        now, timeout = time.monotonic(), self._recipe.timeout
        self._notice_exit()
        if timeout is not None and now >= self._started_at + timeout and self._exit is None:
            cause = f"timed out after {timeout:g} seconds"
            self._terminate(Termination(Status.FAILED, Reason.TIMEOUT, cause, now + self._recipe.stop_grace))
        if self._termination is not None and not self._killed and now >= self._termination.kill_at:
            self._kill()

    def _cancel(self, request: CancelRequest) -> None:
        cause = f"cancelled by {request.by or 'the stopping server'}"
        kill_at = time.monotonic() + self._recipe.stop_grace
        self._terminate(Termination(Status.CANCELLED, request.reason, cause, kill_at))
        # Also when the command has ended already, and what it had started is in the rest of its grace period.
        if request.forced and self._termination is not None and not self._killed:
            self._kill()

    def _terminate(self, termination: Termination) -> None:
        if self._termination is None and self._exit is None:
            self._termination = termination
            self._process.signal(signal.Signals[self._recipe.stop_signal])
            # A process that was stopped (SIGSTOP, or by its terminal) could not react otherwise.
            self._process.signal(signal.SIGCONT)

    def _kill(self) -> None:
        self._killed = True
        self._process.signal(signal.SIGKILL)

    # -- the end --------------------------------------------------------------------------------------------------------

    def _end_tree(self) -> None:
        """End what is left of the process tree, then read what it had still written."""
        while not self._process.sweep():
            self._renewal.renew_when_due(self._enforce_limits)
            time.sleep(0.002)
        self._notice_exit()
        for fd, stream in list(self._process.outputs.items()):
            while self._read_output(fd, stream):
                pass
            if fd in self._process.outputs:
                # No process is left that could write, and nothing is left to read.
                self._selector.unregister(fd)
                self._log.end(stream)
        self._process.close()

    def _outcome(self) -> Outcome:
        ended = self._exit
        assert ended is not None
        facts: Mapping[str, Any] = {"exit_code": ended.code, "signal": ended.signal}
        if self._termination is not None:
            error = f"The job {self._termination.cause}." if self._termination.status is Status.FAILED else None
            return Outcome(self._termination.status, self._termination.cause, self._termination.reason, error=error, **facts)
        if ended.code == 0:
            return Outcome(Status.COMPLETED, "exited with code 0", **facts)
        if ended.code is not None:
            cause = f"exited with code {ended.code}"
            return Outcome(Status.FAILED, cause, Reason.EXIT_CODE, error=f"The command {cause}.", **facts)
        cause = f"was ended by {ended.signal}"
        return Outcome(Status.FAILED, cause, Reason.SIGNAL, error=f"The command {cause}.", **facts)


def _wake_on_child(selector: selectors.BaseSelector) -> tuple[int, int]:
    """The end of a child then ends `select`."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    selector.register(reader, selectors.EVENT_READ, None)
    return reader, writer


def _stop_wakeup(pipe: tuple[int, int]) -> None:
    signal.set_wakeup_fd(-1)
    for fd in pipe:
        os.close(fd)
