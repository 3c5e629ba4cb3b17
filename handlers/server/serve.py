"""`runcast serve`: one process that starts the API and the worker, starts again what dies, and stops all of it in order.

Does no work of its own and loads none of the service, so that it stays small and has nothing that could fail.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import NoReturn

from jobs.errors import OperatorError, RuncastError
from jobs.execution.signals import FORCE_SIGNAL, OURS, REPEAT_SECONDS
from jobs.execution.worker_lock import lock_worker
from jobs.logging_setup import log_to_stderr
from jobs.settings import Settings

logger = logging.getLogger("runcast.serve")

READY_SECONDS = 30.0
STOP_API_SECONDS = 10.0
FORCED_SECONDS = 10.0
"""For jobs to end that have no grace any more. The worker is killed then; what it leaves is found at the next start."""
RESTART_SECONDS = 0.2
FAILING_SECONDS = 5.0
"""A process that ends sooner than this has failed to start; it is started again more and more slowly."""
GO, DONE = b"\1", b"\0"
SETTINGS, LIFELINE, LISTENER = "RUNCAST_SETTINGS", "RUNCAST_LIFELINE", "RUNCAST_LISTENER"


def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT, of which a second one ends jobs at once; gives the exit status. Raises OperatorError."""
    log_to_stderr()
    with listen(settings) as listener, closing(Fork(_prepare, _provide_tokens, settings=settings)) as fork:
        fork.do_next()
        with nullcontext() if settings.no_worker else lock_worker(settings.data_dir, settings.worker_id):
            # Not before, for it replaces the token of a server that serves this folder already.
            fork.do_next()
            fork.close()
            return Server(replace(settings, port=listener.getsockname()[1]), listener).run()


@contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """The socket, bound here so that the API can be started again on it. Raises OperatorError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(2048)
        except OSError as error:
            raise OperatorError(f"Port {settings.port} of {settings.host} cannot be listened on: {error.strerror}.") from error
        yield listener


Step = Callable[[Settings], None]


class Fork:
    """A process of its own, so that what the steps import does not stay here, and is imported once. It takes each when it is told to."""

    def __init__(self, *steps: Step, settings: Settings) -> None:
        self._channel, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._channel.close()
            _take_steps(theirs, steps, settings)
        theirs.close()

    def do_next(self) -> None:
        """Raises OperatorError with what it said."""
        said = b""
        with suppress(OSError):  # it is gone, and has said so
            self._channel.sendall(GO)
            while not said.endswith(DONE) and (piece := self._channel.recv(4096)):
                said += piece
        if said != DONE:
            raise OperatorError(said.decode() or "The server could not be prepared; see above.")

    def close(self) -> None:
        """Ends it, once it has done what it does."""
        if self._channel.fileno() >= 0:
            self._channel.close()
            os.waitpid(self._pid, 0)


def _take_steps(channel: socket.socket, steps: Iterable[Step], settings: Settings) -> NoReturn:
    """Until all are taken, one fails, or nobody tells us any more."""
    try:
        for step in steps:
            if not _told(channel):
                break
            step(settings)
            with suppress(OSError):  # who told us may be gone; the next look says so
                channel.sendall(DONE)
    except RuncastError as error:
        channel.sendall(str(error).encode(errors="backslashreplace"))
    except BaseException:
        logger.exception("The start failed.")
    finally:
        sys.stderr.flush()
        os._exit(0)


def _told(channel: socket.socket) -> bool:
    with suppress(OSError):
        return channel.recv(1) == GO
    return False


def _prepare(settings: Settings) -> None:
    from handlers.contract.document import Contract
    from handlers.server.agreement import check_agreement
    from jobs.bootstrap import prepare

    # The API checks it again, but here it is said once, before anything runs or is written.
    check_agreement(Contract.load())
    prepare(settings)


def _provide_tokens(settings: Settings) -> None:
    from jobs.bootstrap import provide_tokens

    provide_tokens(settings)


class Part:
    """One of our processes, started again whenever it ends."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self._due = 0.0
        self.refused = False

    def keep_running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._note_end(self._process.returncode)
        if self._process is None and time.monotonic() >= self._due:
            self._process, self._started = self._start(), time.monotonic()

    def _note_end(self, status: int) -> None:
        failed = time.monotonic() - self._started < FAILING_SECONDS
        self._failures = self._failures + 1 if failed else 0
        self.refused = status == 2
        wait = min(10.0, RESTART_SECONDS * 2**self._failures)
        self._due = time.monotonic() + wait
        self._process = None
        logger.warning("The %s ended (%s); starting it again in %.1f s.", self.name, status, wait)

    def ask_to_stop(self, signum: int = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def wait(self, until: Callable[[], float]) -> bool:
        """Until it has ended by itself, or is killed at the time (monotonic) that `until` gives, which may change meanwhile. Whether it was
        there, and has done all that it had to do."""
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > until():
                logger.warning("The %s did not stop in time; killing it.", self.name)
                self._process.kill()
                self._process.wait()
                return False
            time.sleep(0.01)
        return self._process is not None and self._process.returncode == 0


class Server:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._stop_signal: int | None = None
        self._told_at = 0.0
        self._jobs_left = False
        self._patience = math.inf  # until when the worker is waited for
        # Our children hold one end; it closes when we die, however we die.
        self._lifeline, self._lifeline_ours = os.pipe()
        self._api = Part("API", self._start_api)
        self._worker = None if settings.no_worker else Part("worker", self._start_worker)

    @property
    def _parts(self) -> list[Part]:
        return [part for part in (self._worker, self._api) if part is not None]

    def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, self._stop)
        try:
            started = self._start()
            while started and self._stop_signal is None:
                for part in self._parts:
                    part.keep_running()
                time.sleep(0.1)
        finally:
            self._stop_parts()
        return 0 if self._stop_signal is not None and not self._jobs_left else 1

    def _stop(self, signum: int, _frame: object) -> None:
        now = time.monotonic()
        if self._stop_signal is None:
            self._stop_signal, self._told_at = signum, now
        # A terminal that closes may send its signal twice.
        elif signum != signal.SIGHUP and now > self._told_at + REPEAT_SECONDS and math.isinf(self._patience):
            self._patience = now + FORCED_SECONDS
            if self._worker is not None:
                self._worker.ask_to_stop(FORCE_SIGNAL)

    def _start(self) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        while self._stop_signal is None:
            for part in self._parts:
                part.keep_running()
            if any(part.refused for part in self._parts):
                return False
            if self._ready():
                self._announce()
                return True
            if time.monotonic() > deadline:
                logger.error("The server was not ready within %d s.", READY_SECONDS)
                return False
            time.sleep(0.02)
        return False

    def _ready(self) -> bool:
        """Asks as any client would."""
        import http.client

        path = "/api/health/live" if self._settings.no_worker else "/api/health/ready"
        host = _reachable(self._settings.host)
        connection = http.client.HTTPConnection(host, self._settings.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _announce(self) -> None:
        host = _reachable(self._settings.host)
        url = f"http://[{host}]" if ":" in host else f"http://{host}"
        url = f"{url}:{self._settings.port}"
        where = "RUNCAST_TOKEN" if self._settings.token else str(self._settings.token_file)
        print(f"runcast is ready at {url} (docs: {url}/api/docs, admin token: {where})", flush=True)

    def _stop_parts(self) -> None:
        """The worker first: clients shall see how their jobs end. A second signal ends those at once."""
        if self._worker is not None:
            self._worker.ask_to_stop(signal.SIGTERM if math.isinf(self._patience) else FORCE_SIGNAL)
            done = self._worker.wait(lambda: self._patience)
            self._jobs_left = not done and not self._settings.keep_jobs and not self._worker.refused
            if self._jobs_left:
                logger.warning("What runs was not ended; the next start finds it.")
        self._api.ask_to_stop()
        deadline = time.monotonic() + STOP_API_SECONDS
        self._api.wait(lambda: deadline)

    # -- starting the parts -------------------------------------------------------------------------------------------------

    def _start_api(self) -> subprocess.Popen[bytes]:
        return self._spawn("handlers.server.api", {LISTENER: str(self._listener.fileno())}, keep=[self._listener.fileno()])

    def _start_worker(self) -> subprocess.Popen[bytes]:
        # A stop that comes before it can hear it is held back until then, and does not end it with its jobs still running.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        try:
            return self._spawn("jobs.run_worker", {}, keep=[])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _spawn(self, module: str, extra: dict[str, str], *, keep: list[int]) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            SETTINGS: json.dumps(self._settings.to_json()),
            LIFELINE: str(self._lifeline),
            **extra,
        }
        return subprocess.Popen(
            # Without -P, a folder called `jobs` where we were started would be taken for the package.
            [sys.executable, "-P", "-m", module],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[self._lifeline, *keep],
            # Ctrl-C is for us; we tell the parts in order.
            start_new_session=True,
        )


def _reachable(host: str) -> str:
    """An address of ours that clients here can use."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return "::1" if host == "::" else host
