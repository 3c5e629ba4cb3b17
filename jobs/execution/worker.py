"""The worker: a small single-threaded process with everything imported, from which the dispatcher and every supervisor are forked.

It keeps no database open and does nothing but fork and pass leases on, so that a fork of it is clean. A supervisor outlives the worker as
long as its job runs; the dispatcher does not.

The cost of a fork is the memory that it touches for the first time: about 15 ms of a processor until its first job has ended, and 3 ms for
every further job. So a supervisor that has done its job stays for the next one, unless enough others are idle.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from jobs.errors import LeaseLost, Unavailable
from jobs.execution.dispatcher import Dispatcher, receive
from jobs.execution.engines import Engine
from jobs.execution.signals import FORCE_SIGNAL, OURS, REPEAT_SECONDS, STOP_SIGNALS
from jobs.execution.supervisor import supervise, warm_up
from jobs.fault_points import reached
from jobs.recipes.expand import Recipes
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase
from jobs.store.leases import Lease, Leases

logger = logging.getLogger("runcast.worker")

RESTART_SECONDS = 1.0
EXIT_JOBS_LEFT = 3
"""The exit status of a dispatcher that could not end the running jobs."""
MAX_FAILURES = 3
"""A dispatcher that has failed so often while the worker stops is not started again."""
BUSY_SECONDS = 2.0
"""How long a supervisor waits for a busy store at a time. In between it looks after its job."""
MAX_IDLE_SUPERVISORS = 2
"""Supervisors without a job that are kept. One is there from the start."""
JOBS_PER_SUPERVISOR = 500
"""A supervisor ends after so many jobs, and a fresh one takes its place."""


@dataclass(frozen=True)
class Supervisor:
    """A forked process that supervises one job after the other, and the channel on which it gets their leases."""

    pid: int
    channel: socket.socket


def run(settings: Settings, recipes: Recipes, *, database: OwnedDatabase, engine: Engine, lifeline: int | None = None) -> int:
    """Runs until SIGTERM or SIGINT; a second one ends jobs at once. Returns the exit status.

    `lifeline` is a pipe that closes when the process that started us is gone.
    """
    try:
        warm_up(database, engine)
    except Unavailable as error:  # it will be there again, and nothing depends on the warm-up
        logger.warning("%s Starting without a warm-up.", error)
    # All forks keep what exists now: the collector need not look at it again, nor copy its pages.
    gc.collect()
    gc.freeze()
    return Worker(settings, recipes, database=database, engine=engine, lifeline=lifeline).run()


class Worker:
    def __init__(self, settings: Settings, recipes: Recipes, *, database: OwnedDatabase, engine: Engine, lifeline: int | None) -> None:
        self._settings = settings
        self._database = database
        self._engine = engine
        self._recipes = recipes
        self._lifeline = lifeline
        self._channel: socket.socket | None = None
        self._dispatcher = 0
        self._stopping = False
        self._forced = False
        self._first_stop_at = 0.0
        self._failures = 0
        self._jobs_left = False
        self._selector = selectors.DefaultSelector()
        self._received = b""
        self._supervisors: list[Supervisor] = []
        self._idle: list[Supervisor] = []

    def run(self) -> int:
        self._wakeup, writer = socket.socketpair()
        self._wakeup.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._stop)
        signal.signal(FORCE_SIGNAL, self._force)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._drain_wakeup)
        if self._lifeline is not None:
            self._selector.register(self._lifeline, selectors.EVENT_READ, self._on_lifeline_closed)
        self._start_dispatcher()
        self._idle.append(self._start_supervisor(warm=True))
        while self._dispatcher or not self._stopping:
            for key, _ in self._selector.select():
                key.data()
            self._reap()
        self._end_idle_supervisors()
        return 1 if self._jobs_left else 0

    def _stop(self, *_: object) -> None:
        now = time.monotonic()
        # Under a server, the server counts: we may get the signals that were sent to it, besides those that it passes on.
        again = self._stopping and self._lifeline is None and now > self._first_stop_at + REPEAT_SECONDS
        self._forced = self._forced or again
        self._first_stop_at = self._first_stop_at if self._stopping else now
        self._stopping = True
        self._signal_dispatcher()

    def _force(self, *_: object) -> None:
        self._stopping = self._forced = True
        self._signal_dispatcher()

    def _signal_dispatcher(self) -> None:
        if self._dispatcher:
            os.kill(self._dispatcher, FORCE_SIGNAL if self._forced else signal.SIGTERM)

    def _on_lifeline_closed(self) -> None:
        """The process that started us was killed. Leave the jobs as they are: the next start finds them."""
        logger.warning("The server that started this worker is gone; its jobs run on.")
        sys.stderr.flush()
        os._exit(1)

    def _drain_wakeup(self) -> None:
        self._wakeup.recv(4096)

    # -- the dispatcher ---------------------------------------------------------------------------------------------------

    def _start_dispatcher(self) -> None:
        ours, theirs = socket.socketpair()
        # A stop signal that comes now has to wait: before the fork nobody could be told, and right after it the child has no handler yet.
        signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        self._dispatcher = self._fork(lambda: self._dispatch(theirs), keep=theirs, close=ours)
        theirs.close()
        self._channel = ours
        self._received = b""
        self._selector.register(ours, selectors.EVENT_READ, self._on_dispatcher_message)
        if self._stopping:
            self._signal_dispatcher()
        # The process that started us may have blocked them, too, until there was a handler.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)

    def _dispatch(self, channel: socket.socket) -> int:
        def hand_over(lease: Lease) -> None:
            channel.sendall(json.dumps(lease.__dict__).encode() + b"\n")

        # For the same file as the supervisors: otherwise they could not take the leases that the dispatcher claims.
        database = self._database.sibling()
        dispatcher = Dispatcher(self._settings, database=database, engine=self._engine, hand_over=hand_over, channel=channel)
        return 0 if dispatcher.run() else EXIT_JOBS_LEFT

    def _on_dispatcher_message(self) -> None:
        assert self._channel is not None
        data = receive(self._channel)
        if not data:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            reached("lease.received")
            self._hand_over(line)
            reached("lease.passed")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._dispatcher:
                self._dispatcher = 0
                self._restart_dispatcher(status)

    def _restart_dispatcher(self, status: int) -> None:
        while self._channel is not None:
            self._on_dispatcher_message()  # read all that it had handed over: the next dispatcher has a channel of its own
        code = os.waitstatus_to_exitcode(status)
        self._failures += self._stopping and code > 0
        if self._stopping and (code in (0, EXIT_JOBS_LEFT) or self._failures >= MAX_FAILURES):
            self._jobs_left = code != 0
            return
        # A dispatcher that was killed or has failed has not done what must be done before we stop.
        logger.warning("The dispatcher ended (%s); starting it again.", code)
        if code > 0:
            time.sleep(RESTART_SECONDS)
        self._start_dispatcher()

    # -- supervisors ------------------------------------------------------------------------------------------------------

    def _hand_over(self, lease: bytes) -> None:
        """Give a lease to an idle supervisor. If that dies before it takes the lease, the dispatcher finds the claimed job that was never
        started."""
        while True:
            supervisor = self._idle.pop() if self._idle else self._start_supervisor()
            try:
                supervisor.channel.sendall(lease)
            except OSError:  # it has died
                continue
            return

    def _start_supervisor(self, *, warm: bool = False) -> Supervisor:
        ours, theirs = socket.socketpair()
        pid = self._fork(lambda: self._supervise(theirs, warm=warm), keep=theirs, close=ours)
        theirs.close()
        supervisor = Supervisor(pid, ours)
        self._supervisors.append(supervisor)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_supervisor_message(supervisor))
        return supervisor

    def _on_supervisor_message(self, supervisor: Supervisor) -> None:
        """The supervisor has done its job, or is gone."""
        done = receive(supervisor.channel)
        self._report_free_slot()
        if done and len(self._idle) < MAX_IDLE_SUPERVISORS:
            self._idle.append(supervisor)
            return
        if supervisor in self._idle:
            self._idle.remove(supervisor)
        self._supervisors.remove(supervisor)
        self._selector.unregister(supervisor.channel)
        supervisor.channel.close()

    def _report_free_slot(self) -> None:
        """The dispatcher then claims at once, instead of at its next look."""
        if self._channel is not None:
            with suppress(OSError):  # it is gone, or has many unread reports already
                self._channel.send(b".", socket.MSG_DONTWAIT)

    def _end_idle_supervisors(self) -> None:
        """Supervisors with a job notice that we are gone when the job has ended."""
        for supervisor in self._idle:
            supervisor.channel.close()
            with suppress(ChildProcessError):
                os.waitpid(supervisor.pid, 0)

    def _supervise(self, channel: socket.socket, *, warm: bool) -> int:
        os.setsid()
        if warm:
            with suppress(Unavailable):  # it touches the memory that the first job will need; nothing depends on it
                warm_up(self._database, self._engine)
        for number in range(1, JOBS_PER_SUPERVISOR + 1):
            line = receive(channel)
            if not line:
                break
            reached("start.received")
            try:
                supervise(self._settings, self._recipes, Lease(**json.loads(line)), leases=Leases(self._database, self._engine))
            except LeaseLost as error:
                logger.warning("%s", error)
            if number < JOBS_PER_SUPERVISOR:
                with suppress(OSError):  # the worker is gone, as the next `receive` shows
                    channel.send(b".")
        return 0

    # -- forks ------------------------------------------------------------------------------------------------------------

    def _fork(self, main: Callable[[], int], *, keep: socket.socket | None = None, close: socket.socket | None = None) -> int:
        """A child that runs `main` and exits with its result."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            self._become_child(keep, close)
            status = main()
        except BaseException:
            logger.exception("A process of the worker failed.")
        finally:
            with suppress(OSError):  # standard error may be full; in no case may the child go on as if it were the parent
                sys.stderr.flush()
            os._exit(status)

    def _become_child(self, keep: socket.socket | None, close: socket.socket | None) -> None:
        signal.set_wakeup_fd(-1)
        for signum in (*OURS, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        self._selector.close()
        self._wakeup.close()
        for end in (self._channel, close, *(supervisor.channel for supervisor in self._supervisors)):
            if end is not None and end is not keep:
                end.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
