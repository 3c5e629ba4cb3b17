"""The worker: a small single-threaded process with everything imported, from which the dispatcher and every supervisor are forked.

It keeps no database open and does no work of its own, so a fork of it is clean. A supervisor outlives it as long as its job runs; the
dispatcher does not.

What a fork costs is the memory that it touches for the first time: about 15 ms of a processor until its first job has ended, and 3 ms
for every further one. So a supervisor that has done its job stays for the next, if few others do.
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
from jobs.execution.supervisor import rehearse, supervise
from jobs.fault_points import reached
from jobs.recipes.expand import Recipes
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase
from jobs.store.leases import Lease, Leases

logger = logging.getLogger("runcast.worker")

RESTART_SECONDS = 1.0
GAVE_UP = 3
"""How a dispatcher ends that could not end what runs."""
MOST_FAILURES = 3
"""A dispatcher that has failed so often while we stop is not started again."""
BUSY_SECONDS = 2.0
"""A supervisor does not wait longer for the store at a time, so that it sees to its job in between."""
SPARES = 2
"""Supervisors without a job that are kept; one is there from the start."""
JOBS_EACH = 500
"""A supervisor makes room for a fresh one after so many jobs."""


@dataclass(frozen=True)
class Supervisor:
    """A forked process that supervises one job after the other, and the channel by which it gets them."""

    pid: int
    channel: socket.socket


def run(settings: Settings, recipes: Recipes, *, database: OwnedDatabase, engine: Engine, lifeline: int | None = None) -> int:
    """Until SIGTERM or SIGINT, of which a second one ends jobs at once; gives the exit status.

    `lifeline` is a pipe whose end means that whoever started us is gone.
    """
    try:
        rehearse(database, engine)
    except Unavailable as error:  # it will be there again, and nothing depends on a rehearsal
        logger.warning("%s Starting without it.", error)
    # What is there now stays there for all forks: the collector need not look at it again, nor copy its pages.
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
        self._told_at = 0.0
        self._failures = 0
        self._gave_up = False
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
            self._selector.register(self._lifeline, selectors.EVENT_READ, self._let_go)
        self._start_dispatcher()
        self._idle.append(self._start_supervisor(spare=True))
        while self._dispatcher or not self._stopping:
            for key, _ in self._selector.select():
                key.data()
            self._reap()
        self._dismiss_idle()
        return 1 if self._gave_up else 0

    def _stop(self, *_: object) -> None:
        now = time.monotonic()
        # Under a server it is the server that counts: besides what it passes on, we may get what was sent to it.
        again = self._stopping and self._lifeline is None and now > self._told_at + REPEAT_SECONDS
        self._forced = self._forced or again
        self._told_at = self._told_at if self._stopping else now
        self._stopping = True
        self._tell_to_stop()

    def _force(self, *_: object) -> None:
        self._stopping = self._forced = True
        self._tell_to_stop()

    def _tell_to_stop(self) -> None:
        if self._dispatcher:
            os.kill(self._dispatcher, FORCE_SIGNAL if self._forced else signal.SIGTERM)

    def _let_go(self) -> None:
        """Whoever started us was killed: leave the jobs as they are; the next start finds them."""
        logger.warning("The server that started this worker is gone; its jobs run on.")
        sys.stderr.flush()
        os._exit(1)

    def _drain_wakeup(self) -> None:
        self._wakeup.recv(4096)

    # -- the dispatcher ---------------------------------------------------------------------------------------------------

    def _start_dispatcher(self) -> None:
        ours, theirs = socket.socketpair()
        # A stop that comes meanwhile waits: before the fork there is nobody to be told, and right after it the child could not understand.
        signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        self._dispatcher = self._fork(lambda: self._dispatch(theirs), keep=theirs, drop=ours)
        theirs.close()
        self._channel = ours
        self._received = b""
        self._selector.register(ours, selectors.EVENT_READ, self._hear)
        if self._stopping:
            self._tell_to_stop()
        # Also what whoever started us held back until there was somebody to hear it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)

    def _dispatch(self, channel: socket.socket) -> int:
        def hand_over(lease: Lease) -> None:
            channel.sendall(json.dumps(lease.__dict__).encode() + b"\n")

        # Of the same file as the supervisors': one of them that writes elsewhere could not take what the other claims.
        database = self._database.sibling()
        dispatcher = Dispatcher(self._settings, database=database, engine=self._engine, hand_over=hand_over, channel=channel)
        return 0 if dispatcher.run() else GAVE_UP

    def _hear(self) -> None:
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
            self._hear()  # what it had still handed over, to the end: the next one has a channel of its own
        code = os.waitstatus_to_exitcode(status)
        self._failures += self._stopping and code > 0
        if self._stopping and (code in (0, GAVE_UP) or self._failures >= MOST_FAILURES):
            self._gave_up = code != 0
            return
        # One that was killed, or has failed, has not done what there is to do before we stop.
        logger.warning("The dispatcher ended (%s); starting it again.", code)
        if code > 0:
            time.sleep(RESTART_SECONDS)
        self._start_dispatcher()

    # -- supervisors ------------------------------------------------------------------------------------------------------

    def _hand_over(self, lease: bytes) -> None:
        """Give a lease to a supervisor that is free. One that dies before it takes the lease leaves a claimed job that was never
        started, which the dispatcher notices."""
        while True:
            supervisor = self._idle.pop() if self._idle else self._start_supervisor()
            try:
                supervisor.channel.sendall(lease)
            except OSError:  # it has died
                continue
            return

    def _start_supervisor(self, *, spare: bool = False) -> Supervisor:
        ours, theirs = socket.socketpair()
        pid = self._fork(lambda: self._supervise(theirs, spare=spare), keep=theirs, drop=ours)
        theirs.close()
        supervisor = Supervisor(pid, ours)
        self._supervisors.append(supervisor)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear_supervisor(supervisor))
        return supervisor

    def _hear_supervisor(self, supervisor: Supervisor) -> None:
        """It has done its job, or is gone."""
        done = receive(supervisor.channel)
        self._tell_of_free_slot()
        if done and len(self._idle) < SPARES:
            self._idle.append(supervisor)
            return
        if supervisor in self._idle:
            self._idle.remove(supervisor)
        self._supervisors.remove(supervisor)
        self._selector.unregister(supervisor.channel)
        supervisor.channel.close()

    def _tell_of_free_slot(self) -> None:
        """So that the dispatcher need not find out by itself."""
        if self._channel is not None:
            with suppress(OSError):  # it is gone, or has been told often enough
                self._channel.send(b".", socket.MSG_DONTWAIT)

    def _dismiss_idle(self) -> None:
        """Those with a job learn that we are gone when they have done it."""
        for supervisor in self._idle:
            supervisor.channel.close()
            with suppress(ChildProcessError):
                os.waitpid(supervisor.pid, 0)

    def _supervise(self, channel: socket.socket, *, spare: bool) -> int:
        os.setsid()
        if spare:
            with suppress(Unavailable):  # it touches what the first job will touch; nothing depends on it
                rehearse(self._database, self._engine)
        for number in range(1, JOBS_EACH + 1):
            line = receive(channel)
            if not line:
                break
            reached("start.received")
            try:
                supervise(self._settings, self._recipes, Lease(**json.loads(line)), leases=Leases(self._database, self._engine))
            except LeaseLost as error:
                logger.warning("%s", error)
            if number < JOBS_EACH:
                with suppress(OSError):  # the worker is gone, which the next `recv` tells
                    channel.send(b".")
        return 0

    # -- forks ------------------------------------------------------------------------------------------------------------

    def _fork(self, main: Callable[[], int], *, keep: socket.socket | None = None, drop: socket.socket | None = None) -> int:
        """A child that does `main`, and ends with what it gives."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            self._become_child(keep, drop)
            status = main()
        except BaseException:
            logger.exception("A process of the worker failed.")
        finally:
            with suppress(OSError):  # what takes our messages may be full; in no case may the child go on as its parent
                sys.stderr.flush()
            os._exit(status)

    def _become_child(self, keep: socket.socket | None, drop: socket.socket | None) -> None:
        signal.set_wakeup_fd(-1)
        for signum in (*OURS, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        self._selector.close()
        self._wakeup.close()
        for end in (self._channel, drop, *(supervisor.channel for supervisor in self._supervisors)):
            if end is not None and end is not keep:
                end.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
