"""Runs one job: starts its command, stores what it prints, obeys cancel and timeout, and ends it, tree and all.

A supervisor is a process of its own, forked for one job. It talks to the store only, outlives whoever started it, and writes under its
lease: when that is gone, so is its job, and it ends what it runs without a word. It never talks to a client and never starts a second
command.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from sqlalchemy import Connection

from jobs.clock import SteadyClock
from jobs.errors import LeaseLost, RuncastError, StoreReplaced, Unavailable
from jobs.execution.engines import Engine
from jobs.execution.output import Block, Masker, OutputPipeline, Watcher, forms_of
from jobs.execution.process import Command, Exit, Identity, Process, become_subreaper
from jobs.execution.progress import ProgressTracker
from jobs.fault_points import reached
from jobs.model import JobType, LogChunk, Progress, Reason, Status, Stream, Submission
from jobs.recipes.expand import Recipe, Recipes, job_environment
from jobs.settings import Settings
from jobs.store.database import Database, OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import CancelRequest, Lease, Leases, Outcome, TakenJob, failure
from jobs.store.logs import LogWriter, Step

T = TypeVar("T")
logger = logging.getLogger("runcast.supervisor")

FLUSH_SECONDS = 0.02
FLUSH_BYTES = 1 << 18
CHUNK_BYTES = 1 << 16
"""Reads that wait together become one chunk, and so one event, up to about this size."""
CHUNK_LINES = 1 << 16
"""What an event may hold at most, by openapi/jobs.asyncapi.yaml."""
PROGRESS_SECONDS = 0.1
LOOK_SECONDS = 0.05
"""How often the store is asked whether somebody wants the job to end."""
RETRY_SECONDS = 0.5
TAKE_SECONDS = 30.0
"""For so long it is tried to take a lease while the store does not answer."""
DRAIN_SECONDS = 2.0
"""How long the output is read on after the command's end while some descendant holds it open."""


@dataclass(frozen=True)
class Ending:
    """Why the job is being ended before its time, and when it is killed."""

    status: Status
    reason: Reason
    cause: str
    kill_at: float


def rehearse(database: OwnedDatabase, engine: Engine) -> None:
    """Do once, without effect, what every supervisor does with the store, so that the forks need not compile its statements anew."""
    task = Submission(JobType.TASK, {"task": "rehearsal"})
    with database.dry_run():
        leases = Leases(database, engine)
        Store(database, engine).submit(NewJob(task, "rehearsal", None, None, "rehearsal"), max_pending=1 << 30)
        (lease,) = engine.claim(database, worker_id="rehearsal", host="", queues=["rehearsal"], slots=1)
        leases.take(lease, supervisor={})
        leases.update(lease, process_group=0)
        leases.cancel_request(lease)
        writer = LogWriter(lease, cap=1 << 20)
        progress = {"progress_percent": 1.0, "progress_message": ""}
        for values in ({}, progress):
            step = writer.step(writer.chunks(lines=1, at=0, stream=Stream.STDOUT, data=b"\n"))
            database.write(lambda connection, step=step, values=values: writer.write(connection, step, values))  # type: ignore[misc]
        leases.end(lease, Outcome(Status.COMPLETED, "rehearsal"))


def supervise(settings: Settings, recipes: Recipes, lease: Lease, *, leases: Leases) -> None:
    """One job from its lease to its end. The process must have no children, and a session of its own."""
    become_subreaper()
    taken = _take(leases, lease)
    reached("start.taken")
    clock = SteadyClock(not_before=taken.started_at)
    with ExitStack() as resources:
        # Let go before the end is written: who sees the end finds nothing left.
        outcome = _run(settings, recipes, lease, taken.submission, leases=leases, clock=clock, resources=resources)
    ended_at = clock.now_ms()
    reached("end.flushed")
    _insist(lambda: leases.end(lease, outcome, at=ended_at))
    reached("end.committed")


def _take(leases: Leases, lease: Lease) -> TakenJob:
    """Raises LeaseLost, also when the store does not answer for long: nothing was started under the lease, and others will give it up."""
    deadline = time.monotonic() + TAKE_SECONDS
    while True:
        try:
            return leases.take(lease, supervisor=Identity.of(os.getpid()).__dict__)
        except Unavailable as error:
            if isinstance(error, StoreReplaced) or time.monotonic() > deadline:
                raise LeaseLost(f"The lease of job {lease.job_id} could not be taken. {error}") from error
            time.sleep(RETRY_SECONDS)


def _run(
    settings: Settings, recipes: Recipes, lease: Lease, submission: Submission, *, leases: Leases, clock: SteadyClock, resources: ExitStack
) -> Outcome:
    try:
        recipe = recipes.expand(submission)
        environment = job_environment(os.environ, recipe=recipe, marker=lease.marker)
        log = JobLog(leases.database, lease, recipe=recipe, cap=settings.log_cap, clock=clock)
        process = Process.start(Command(_argv(recipe, lease, resources), recipe.cwd, environment, recipe.pty, root=recipes.workspace.root))
    except (RuncastError, OSError) as error:
        return Outcome(Status.FAILED, "the command could not be started", Reason.START_ERROR, error=failure(str(error)))
    reached("start.spawned")
    log.note(process_group=process.pid)
    run = Run(settings, lease, leases=leases, recipe=recipe, process=process, log=log)
    resources.callback(run.leave_nothing)
    return run.until_end()


def _argv(recipe: Recipe, lease: Lease, resources: ExitStack) -> tuple[str, ...]:
    if not recipe.files:
        return recipe.argv
    folder = resources.enter_context(TemporaryDirectory(prefix=lease.folder, ignore_cleanup_errors=True))
    return recipe.command(Path(folder))


@dataclass
class Waiting:
    """Consecutive blocks of one stream that are not stored yet. `at` is when the first of them came."""

    stream: Stream
    at: int
    blocks: list[Block] = field(default_factory=list)
    bytes: int = 0
    lines: int = 0

    def takes(self, stream: Stream, block: Block) -> bool:
        """Whether the next block may join: not after a piece without a line end, which would run into it."""
        fits = self.bytes < CHUNK_BYTES and self.lines + block.lines <= CHUNK_LINES
        return stream is self.stream and fits and self.blocks[-1].data.endswith(b"\n")

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.bytes += len(block.data)
        self.lines += block.lines


class JobLog:
    """What the job prints, on its way to the store: masked, cut into lines, batched, with the progress that is read from it."""

    def __init__(self, database: Database, lease: Lease, *, recipe: Recipe, cap: int, clock: SteadyClock) -> None:
        self._clock = clock
        self._database = database
        self._writer = LogWriter(lease, cap=cap)
        if lease.attempt > 1:
            _insist(lambda: database.read(self._writer.resume))
        self._watcher = Watcher(patterns=recipe.progress, ready=recipe.ready)
        self._tracker = ProgressTracker()
        self._secrets = [form for name in recipe.secrets for form in forms_of(os.environ[name].encode())]
        self._pipelines: dict[Stream, OutputPipeline] = {}
        self._waiting: list[Waiting] = []
        self._values: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._noted = 0.0
        self._pending_bytes = 0
        self._flushed = 0.0
        self._progress: Progress | None = None
        self._progress_written = 0.0
        self.meanwhile: Callable[[], None] = _nothing
        """What there is to do while the store does not answer."""

    def feed(self, stream: Stream, data: bytes) -> None:
        self._add(stream, self._pipeline(stream).feed(data))
        if self._pending_bytes >= FLUSH_BYTES:
            self.flush()

    def end(self, stream: Stream) -> None:
        self._add(stream, self._pipeline(stream).end())

    def note(self, **values: Any) -> None:
        """Columns that matter while the job runs only, so that a short one need not store them."""
        self._notes, self._noted = values, time.monotonic()

    def due(self) -> float | None:
        """When something waits to be stored (monotonic time); None while nothing does. Output after a pause is due at once."""
        if self._waiting or self._values:
            return self._flushed + FLUSH_SECONDS
        if self._progress is not None:
            return self._progress_written + PROGRESS_SECONDS
        return self._noted + FLUSH_SECONDS if self._notes else None

    def flush(self, *, last: bool = False) -> None:
        """Store what waits. Raises LeaseLost."""
        now = time.monotonic()
        values = self._values if last else {**self._notes, **self._values}
        if self._progress is not None and (last or now >= self._progress_written + PROGRESS_SECONDS):
            values = {**values, "progress_percent": self._progress.percent, "progress_message": self._progress.message}
            self._progress, self._progress_written = None, now
        self._store(self._writer.step(self._numbered()), values)
        if last:
            self._store(self._writer.step((), last=True), {})
        self._waiting, self._values, self._notes, self._pending_bytes = [], {}, {}, 0
        self._flushed = time.monotonic()

    def _store(self, step: Step, values: Mapping[str, Any]) -> None:
        if step.chunks or step.doomed or values:
            time.sleep(step.wait)
            _insist(lambda: self._database.write(lambda connection: self._write(connection, step, values), durable=False), self.meanwhile)
            reached("chunk.committed")
            self._writer.written(step)

    def _write(self, connection: Connection, step: Step, values: Mapping[str, Any]) -> None:
        self._writer.write(connection, step, values)
        reached("chunk.stored")

    def _numbered(self) -> list[LogChunk]:
        return [
            chunk
            for waiting in self._waiting
            for chunk in self._writer.chunks(
                lines=waiting.lines,
                at=waiting.at,
                stream=waiting.stream,
                data=b"".join(block.data for block in waiting.blocks),
            )
        ]

    def _pipeline(self, stream: Stream) -> OutputPipeline:
        if stream not in self._pipelines:
            self._pipelines[stream] = OutputPipeline(stream=stream, masker=Masker(self._secrets), watcher=self._watcher)
        return self._pipelines[stream]

    def _add(self, stream: Stream, blocks: list[Block]) -> None:
        at = self._clock.now_ms()
        for block in blocks:
            if not (self._waiting and self._waiting[-1].takes(stream, block)):
                self._waiting.append(Waiting(stream, at))
            self._waiting[-1].add(block)
            self._pending_bytes += len(block.data)
        seen = self._watcher.take()
        if seen.progress is not None:
            self._progress = self._tracker.offer(seen.progress) or self._progress
        if seen.ready is not None:
            self._values["ready_at"] = at
            # So that those who watch learn of it: a job that is ready has no event of its own.
            self._progress = self._tracker.offer(Progress(message="ready")) or self._progress
            if seen.ready:
                self._values["result"] = dict(seen.ready)
        if seen.result is not None:
            self._values["result"] = seen.result


class Run:
    """One running command, until it and all that came from it are gone."""

    def __init__(self, settings: Settings, lease: Lease, *, leases: Leases, recipe: Recipe, process: Process, log: JobLog) -> None:
        self._lease = lease
        self._leases = leases
        self._recipe = recipe
        self._process = process
        self._log = log
        self._started = time.monotonic()
        self._sign_every = settings.lease_seconds / 4
        self._signed = self._started
        self._looked = self._started
        self._feed = leases.database.feed()
        self._ending: Ending | None = None
        self._killed = False
        self._exit: Exit | None = None
        self._exited = 0.0
        self._selector = selectors.DefaultSelector()
        for fd, stream in process.outputs.items():
            self._selector.register(fd, selectors.EVENT_READ, stream)
        self._wakeup = _wake_on_child(self._selector)
        log.meanwhile = self._keep_time

    def until_end(self) -> Outcome:
        """Raises LeaseLost."""
        while not self._over():
            self._read(self._timeout())
            self._notice_exit()
            self._sign()
            self._look()
            self._keep_time()
            due = self._log.due()
            if due is not None and time.monotonic() >= due:
                self._log.flush()
        reached("end.exited")
        self._sweep()
        reached("end.swept")
        self._log.flush(last=True)
        return self._outcome()

    def leave_nothing(self) -> None:
        """Whatever happened: end all that still runs, and let go of everything. Without the store: the lease may be lost."""
        while not self._process.sweep():
            time.sleep(0.002)
        self._process.close()
        self._feed.close()
        self._selector.close()
        _forget_wakeup(self._wakeup)

    # -- the steps of the loop ------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        if self._exit is None:
            return False
        if self._ending is not None:
            # The command has obeyed; what it had started gets the rest of the grace period, too.
            return self._killed or not self._process.remaining()
        # Output that a descendant holds open is read on for a while, but not for ever.
        drained = not self._process.outputs or time.monotonic() > self._exited + DRAIN_SECONDS
        return drained or not self._process.remaining()

    def _timeout(self) -> float:
        moments = [self._signed + self._sign_every, self._looked + LOOK_SECONDS]
        if (due := self._log.due()) is not None:
            moments.append(due)
        if self._ending is not None and not self._killed:
            moments.append(self._ending.kill_at)
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
            self._exit, self._exited = ended, time.monotonic()

    def _sign(self) -> None:
        now = time.monotonic()
        if now >= self._signed + self._sign_every:
            self._signed = now
            _insist(lambda: self._leases.update(self._lease), self._keep_time)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        if self._feed.changed() and (request := _insist(lambda: self._leases.cancel_request(self._lease), self._keep_time)) is not None:
            self._begin_cancel(request)

    def _keep_time(self) -> None:
        """Times are kept whatever the store does: the job's own, and the grace of its end."""
        now, timeout = time.monotonic(), self._recipe.timeout
        self._notice_exit()
        if timeout is not None and now >= self._started + timeout and self._exit is None:
            self._begin(Ending(Status.FAILED, Reason.TIMEOUT, f"timed out after {timeout:g} seconds", now + self._recipe.stop_grace))
        if self._ending is not None and not self._killed and now >= self._ending.kill_at:
            self._kill()

    def _begin_cancel(self, request: CancelRequest) -> None:
        by = request.by or "the stopping server"
        now = time.monotonic()
        self._begin(Ending(Status.CANCELLED, request.reason, f"cancelled by {by}", now + self._recipe.stop_grace))
        # Also when the command has obeyed already, and what it had started is given the rest of its grace period.
        if request.forced and self._ending is not None and not self._killed:
            self._kill()

    def _begin(self, ending: Ending) -> None:
        if self._ending is None and self._exit is None:
            self._ending = ending
            self._process.signal(signal.Signals[self._recipe.stop_signal])
            # One that was stopped (SIGSTOP, or by its terminal) could not obey otherwise.
            self._process.signal(signal.SIGCONT)

    def _kill(self) -> None:
        self._killed = True
        self._process.signal(signal.SIGKILL)

    # -- the end --------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End what is left of the tree, then read what it had still written."""
        while not self._process.sweep():
            self._sign()
            time.sleep(0.002)
        self._notice_exit()
        for fd, stream in list(self._process.outputs.items()):
            while self._read_output(fd, stream):
                pass
            if fd in self._process.outputs:
                # Nobody is left who could write, and nothing is left to read.
                self._selector.unregister(fd)
                self._log.end(stream)
        self._process.close()

    def _outcome(self) -> Outcome:
        ended = self._exit
        assert ended is not None
        facts: Mapping[str, Any] = {"exit_code": ended.code, "signal": ended.signal}
        if self._ending is not None:
            error = failure(f"The job {self._ending.cause}.") if self._ending.status is Status.FAILED else None
            return Outcome(self._ending.status, self._ending.cause, self._ending.reason, error=error, **facts)
        if ended.code == 0:
            return Outcome(Status.COMPLETED, "exited with code 0", **facts)
        if ended.code is not None:
            cause = f"exited with code {ended.code}"
            return Outcome(Status.FAILED, cause, Reason.EXIT_CODE, error=failure(f"The command {cause}."), **facts)
        cause = f"was ended by {ended.signal}"
        return Outcome(Status.FAILED, cause, Reason.SIGNAL, error=failure(f"The command {cause}."), **facts)


def _nothing() -> None:
    pass


def _insist(work: Callable[[], T], meanwhile: Callable[[], None] = _nothing) -> T:
    """Do it, and again while the store does not answer: a job must not suffer from that, and no line is lost. Nothing more is read
    meanwhile: the job's pipes fill up, and it waits."""
    warned = False
    while True:
        try:
            return work()
        except StoreReplaced as error:  # the one that knew of the lease does not come back
            raise LeaseLost(str(error)) from error
        except Unavailable as error:
            if not warned:
                logger.warning("%s Trying on.", error)
                warned = True
            meanwhile()
            time.sleep(RETRY_SECONDS)


def _wake_on_child(selector: selectors.BaseSelector) -> tuple[int, int]:
    """Make the end of a child end `select`."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    selector.register(reader, selectors.EVENT_READ, None)
    return reader, writer


def _forget_wakeup(pipe: tuple[int, int]) -> None:
    signal.set_wakeup_fd(-1)
    for fd in pipe:
        os.close(fd)
