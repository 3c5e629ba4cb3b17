"""The API process: gunicorn with one gevent worker around `handlers.server.app`.

Started by `handlers.server.serve`, on a socket that is already open.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.workers.ggevent import GeventWorker

from handlers.server.startup import GATE, GO, LIFELINE, LISTENER, SETTINGS
from jobs.errors import RuncastError
from jobs.logging_setup import log_to_stderr
from jobs.settings import Settings

DRAIN_POLL_INTERVAL_SECONDS = 0.02
SEND_BUFFER_BYTES = 256 << 10
"""How much the operating system buffers for one client that does not read. Its default would be some megabytes."""


class GunicornWorker(GeventWorker):  # type: ignore[misc]
    """Stops at once when no request is being answered. gunicorn's own checks once a second, and waits for idle connections, too:
    https://github.com/benoitc/gunicorn/issues/3227"""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stop_requested = Event()
        self._open_requests = 0

    def load_wsgi(self) -> None:
        self.app.import_app()
        while (gate := self.app.look_at_gate()) is None:
            self.notify()  # or the parent process would take this one for stuck, and kill it
        if gate != GO:  # the server has ended before the store was prepared
            _stop_parent_of(self)
            sys.exit(0)
        self.app.close_gate()
        super().load_wsgi()

    def run(self) -> None:
        for listener in self.sockets:  # accepted connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        servers = [
            StreamServer(listener, handle=partial(self.handle, listener), spawn=Pool(self.worker_connections)) for listener in self.sockets
        ]
        for server in servers:
            # Accept one connection, not 100, in each round of the loop: new clients wait rather than connected ones.
            server.max_accept = 1
            server.start()
        while self.alive:
            self.notify()
            self._stop_requested.wait(1.0)
        for server in servers:
            server.close()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self._open_requests and time.monotonic() < deadline:
            gevent.sleep(DRAIN_POLL_INTERVAL_SECONDS)
        # The end of the process closes the remaining connections.

    def handle_exit(self, sig: int, frame: object) -> None:
        if not self.booted:
            sys.exit(0)
        super().handle_exit(sig, frame)
        self._stop_requested.set()

    def handle_request(self, *arguments: Any) -> Any:
        self._open_requests += 1
        try:
            return super().handle_request(*arguments)
        finally:
            self._open_requests -= 1


class Api(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured. `listener`, `lifeline` and `gate` are file descriptors from `handlers.server.serve`."""

    def __init__(self, settings: Settings, *, listener: int, lifeline: int, gate: int) -> None:
        self._settings = settings
        self._listener = listener
        self._lifeline = lifeline
        self._gate = gate
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": [f"fd://{self._listener}"],
            "worker_class": GunicornWorker,
            "workers": 1,
            "worker_connections": 10_000,
            # Without a sign of life of the loop, which never blocks for long. Clients may hold a connection for ever.
            "timeout": 60,
            # For open requests and for the last events to subscribers, whose requests end only with their connection.
            "graceful_timeout": 2,
            "keepalive": 75,
            "loglevel": "warning",
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
            "limit_request_line": 8190,
            "control_socket_disable": True,
            "post_worker_init": self._begin,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def import_app(self) -> None:
        """Import everything that `load` needs. The store need not be prepared for it."""
        # Where aiohttp is installed, Connexion and engineio import it for parts that Flask does not need. It takes a seventh of the start.
        sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]
        import handlers.server.app  # noqa: F401

    def look_at_gate(self) -> bytes | None:
        """GO when the store is prepared, nothing when the server has ended before; None after a second without either."""
        with socket.socket(fileno=os.dup(self._gate)) as gate:
            gate.settimeout(1.0)
            with suppress(TimeoutError):
                return gate.recv(1, socket.MSG_PEEK)
        return None

    def close_gate(self) -> None:
        """The parent process keeps its own descriptor, for a process that takes the place of this one."""
        os.close(self._gate)

    def load(self) -> Any:
        from handlers.server.app import create_app
        from handlers.web.gateway import malformed_request_answer

        # gunicorn's own answer is an HTML page without the security headers, and has no option to change it:
        # https://github.com/benoitc/gunicorn/issues/993
        util.write_error = lambda client, *what: util.write_nonblock(client, malformed_request_answer(*what))
        try:
            return create_app(self._settings)
        except RuncastError as error:
            print(f"runcast: {error}", file=sys.stderr, flush=True)
            # For gunicorn, this status means that the application cannot be loaded: it ends, too, instead of trying again for ever.
            sys.exit(4)

    def _begin(self, worker: GunicornWorker) -> None:
        # Everything loaded so far stays, so that the garbage collector need not examine it again and again.
        gc.collect()
        gc.freeze()
        self._watch_lifeline(worker)

    def _watch_lifeline(self, worker: GunicornWorker) -> None:
        from gevent.os import tp_read

        def watch() -> None:
            tp_read(self._lifeline, 1)
            _stop_parent_of(worker)

        gevent.spawn(watch)


def _stop_parent_of(worker: GunicornWorker) -> None:
    # When the parent was killed too, another process has taken its place, perhaps the first process of the machine.
    if os.getppid() == worker.ppid:
        os.kill(worker.ppid, signal.SIGTERM)


def main() -> int:
    log_to_stderr()
    settings = Settings.from_json(json.loads(os.environ.pop(SETTINGS)))
    listener, lifeline, gate = (int(os.environ.pop(name)) for name in (LISTENER, LIFELINE, GATE))
    try:
        Api(settings, listener=listener, lifeline=lifeline, gate=gate).run()
    except SystemExit as error:
        return 2 if error.code in (3, 4) else int(error.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
