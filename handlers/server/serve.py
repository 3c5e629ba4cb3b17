"""`runcast serve`: one process that starts the API and the worker, restarts whichever of them dies, and stops both in order.

It does no work of its own and imports none of the service, so it stays small and little in it can fail. The order of a start:

1. The first worker process checks the contracts against the code.
2. The API process starts and imports its modules. Meanwhile the worker process makes the data folder and migrates the schema.
3. This process locks the worker's name. A second server on the same data folder is refused here and has changed nothing.
4. The worker process provides the admin token and starts to work; the API process opens the store and begins to answer.
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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace

from handlers.server.startup import GATE, GO, LIFELINE, LISTENER, SETTINGS, STEP_DONE, STEPS
from jobs.errors import OperatorError
from jobs.execution.signals import FORCE_SIGNAL, OURS, REPEAT_SECONDS
from jobs.execution.worker_lock import lock_worker
from jobs.logging_setup import log_to_stderr
from jobs.settings import Settings

logger = logging.getLogger("runcast.serve")

READY_TIMEOUT_SECONDS = 30.0
READY_POLL_INTERVAL_SECONDS = 0.02
STOP_API_TIMEOUT_SECONDS = 10.0
FORCED_STOP_TIMEOUT_SECONDS = 10.0
"""How long jobs may take to end after a second signal. Then the worker is killed; the next start finds the jobs that it leaves."""
RESTART_SECONDS = 0.2
FAILING_SECONDS = 5.0
"""A process that ends sooner than this has failed to start; the wait before its next start doubles each time."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; a second one ends the jobs at once. Returns the exit status. Raises OperatorError."""
    log_to_stderr()
    with listen(settings) as listener, closing(Server(replace(settings, port=listener.getsockname()[1]), listener)) as server:
        server.prepare()
        with nullcontext() if settings.no_worker else lock_worker(settings.data_dir, settings.worker_id):
            # Only under the lock: it replaces the token of a server that uses this data folder already.
            server.provide_tokens()
            return server.run()


@contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """The socket, bound here so that a restarted API gets it too. Raises OperatorError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(2048)
        except OSError as error:
            raise OperatorError(f"Port {settings.port} of {settings.host} cannot be listened on: {error.strerror}.") from error
        yield listener


class Preparation:
    """The steps before the store may be opened. The first worker process takes each one when it is told to."""

    def __init__(self) -> None:
        self._channel, self._worker_end = socket.socketpair()

    def begin(self) -> socket.socket | None:
        """The worker process's end of the channel; None for every process but the first."""
        return self._worker_end if self._worker_end.fileno() >= 0 else None

    def take_next_step(self) -> None:
        """Raises OperatorError with the reason that the worker process gives."""
        self._worker_end.close()  # only now, so that the end of the process is seen
        answer = b""
        with suppress(OSError):  # the process has ended; its answer, if any, was read
            self._channel.sendall(GO)
            while not answer.endswith(STEP_DONE) and (piece := self._channel.recv(4096)):
                answer += piece
        if answer != STEP_DONE:
            raise OperatorError(answer.decode() or "The server could not be prepared; see above.")

    def close(self) -> None:
        """The worker process takes no further step."""
        self._channel.close()
        self._worker_end.close()


class ManagedProcess:
    """The API or the worker, restarted whenever it ends."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._restart_at = 0.0
        self.configuration_refused = False
        """The process ended with the status of an OperatorError: starting it again would not help."""

    def keep_running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._note_end(self._process.returncode)
        if self._process is None and time.monotonic() >= self._restart_at:
            self._process, self._started_at = self._start(), time.monotonic()

    def _note_end(self, status: int) -> None:
        failed = time.monotonic() - self._started_at < FAILING_SECONDS
        self._failures = self._failures + 1 if failed else 0
        self.configuration_refused = status == 2
        wait = min(10.0, RESTART_SECONDS * 2**self._failures)
        self._restart_at = time.monotonic() + wait
        self._process = None
        logger.warning("The %s ended (%s); starting it again in %.1f s.", self.name, status, wait)

    def send_signal(self, signum: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def wait(self, deadline: Callable[[], float]) -> bool:
        """Wait until the process ends; kill it at `deadline()` (monotonic time, may change meanwhile).

        Returns whether there was a process and it ended with status 0.
        """
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > deadline():
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
        self._stopped_at = 0.0
        self._jobs_left = False
        self._worker_deadline = math.inf
        # Our processes hold the reading end; it is closed when this process ends in any way.
        self._lifeline, self._our_lifeline = os.pipe()
        # Kept open here, so that a restarted API finds the byte too.
        self._our_gate, self._gate = socket.socketpair()
        self._preparation = Preparation()
        self._api = ManagedProcess("API", self._start_api)
        self._worker = ManagedProcess("worker", self._start_worker)

    @property
    def _processes(self) -> list[ManagedProcess]:
        return [self._api] if self._settings.no_worker else [self._worker, self._api]

    # -- before the store may be opened -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start both processes, and prepare the data folder and the store. Raises OperatorError."""
        self._worker.keep_running()  # also with `no_worker`: this process prepares, and ends then
        self._preparation.take_next_step()
        self._api.keep_running()
        self._preparation.take_next_step()

    def provide_tokens(self) -> None:
        """Provide the admin token. From then on both processes open the store. Raises OperatorError."""
        self._preparation.take_next_step()
        self._preparation.close()
        if self._settings.no_worker:
            self._worker.wait(lambda: math.inf)  # it ends now; unless it is waited for, it stays as a zombie
        self._our_gate.sendall(GO)

    def close(self) -> None:
        """Leave no process behind, also when the server was refused before it ran."""
        self._preparation.close()
        self._stop_api()
        # It ends by itself: it has been stopped, or it learns that there are no more steps.
        self._worker.wait(lambda: math.inf)
        for end in (self._gate, self._our_gate):
            end.close()
        for descriptor in (self._lifeline, self._our_lifeline):
            os.close(descriptor)

    # -- running ------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, self._stop)
        try:
            started = self._wait_until_ready()
            while started and self._stop_signal is None:
                for process in self._processes:
                    process.keep_running()
                time.sleep(0.1)
        finally:
            self._stop_processes()
        return 0 if self._stop_signal is not None and not self._jobs_left else 1

    def _stop(self, signum: int, _frame: object) -> None:
        now = time.monotonic()
        if self._stop_signal is None:
            self._stop_signal, self._stopped_at = signum, now
        # A terminal that closes may send its signal twice.
        elif signum != signal.SIGHUP and now > self._stopped_at + REPEAT_SECONDS and math.isinf(self._worker_deadline):
            self._worker_deadline = now + FORCED_STOP_TIMEOUT_SECONDS
            if not self._settings.no_worker:
                self._worker.send_signal(FORCE_SIGNAL)

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while self._stop_signal is None:
            for process in self._processes:
                process.keep_running()
            if any(process.configuration_refused for process in self._processes):
                return False
            if self._is_ready():
                self._announce()
                return True
            if time.monotonic() > deadline:
                logger.error("The server was not ready within %d s.", READY_TIMEOUT_SECONDS)
                return False
            time.sleep(READY_POLL_INTERVAL_SECONDS)
        return False

    def _is_ready(self) -> bool:
        """Asks over HTTP, as any client would."""
        import http.client

        path = "/api/health/live" if self._settings.no_worker else "/api/health/ready"
        host = _local_address(self._settings.host)
        connection = http.client.HTTPConnection(host, self._settings.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _announce(self) -> None:
        host = _local_address(self._settings.host)
        url = f"http://[{host}]" if ":" in host else f"http://{host}"
        url = f"{url}:{self._settings.port}"
        where = "RUNCAST_TOKEN" if self._settings.token else str(self._settings.token_file)
        print(f"runcast is ready at {url} (docs: {url}/api/docs, admin token: {where})", flush=True)

    def _stop_processes(self) -> None:
        """Stops the worker first, so that clients see how their jobs end. A second signal ends the jobs at once."""
        if not self._settings.no_worker:
            self._worker.send_signal(signal.SIGTERM if math.isinf(self._worker_deadline) else FORCE_SIGNAL)
            done = self._worker.wait(lambda: self._worker_deadline)
            self._jobs_left = not done and not self._settings.keep_jobs and not self._worker.configuration_refused
            if self._jobs_left:
                logger.warning("What runs was not ended; the next start finds it.")
        self._stop_api()

    def _stop_api(self) -> None:
        self._api.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_API_TIMEOUT_SECONDS
        self._api.wait(lambda: deadline)

    # -- starting the processes ---------------------------------------------------------------------------------------------

    def _start_api(self) -> subprocess.Popen[bytes]:
        return self._spawn("handlers.server.api", {LISTENER: self._listener.fileno(), GATE: self._gate.fileno()})

    def _start_worker(self) -> subprocess.Popen[bytes]:
        channel = self._preparation.begin()
        # A stop signal that comes before the worker can handle it is held back, and does not end it with its jobs still running.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        try:
            return self._spawn("handlers.server.worker", {} if channel is None else {STEPS: channel.fileno()})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _spawn(self, module: str, inherited: dict[str, int]) -> subprocess.Popen[bytes]:
        """Start a module in a process that inherits these descriptors, and finds their numbers in its environment."""
        descriptors = {LIFELINE: self._lifeline, **inherited}
        environment = {
            **os.environ,
            SETTINGS: json.dumps(self._settings.to_json()),
            **{name: str(descriptor) for name, descriptor in descriptors.items()},
        }
        return subprocess.Popen(
            # Without -P, a folder called `jobs` in the current folder would be taken for the package.
            [sys.executable, "-P", "-m", module],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=list(descriptors.values()),
            # Ctrl-C is for this process, which stops the others in order.
            start_new_session=True,
        )


def _local_address(host: str) -> str:
    """An address by which clients on this machine reach the server."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return "::1" if host == "::" else host
