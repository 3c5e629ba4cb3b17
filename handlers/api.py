"""The API process: gunicorn with one gevent worker around `handlers.app`. Started by `handlers.server`, on a socket that is already
open."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from jobs.diagnostics import log_to_stderr
from jobs.errors import RuncastError
from jobs.settings import Settings


class Api(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, *, listener: int, lifeline: int) -> None:
        self._settings = settings
        self._listener = listener
        self._lifeline = lifeline
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": [f"fd://{self._listener}"],
            "worker_class": "gevent",
            "workers": 1,
            "worker_connections": 10_000,
            # The loop never blocks for long, and clients may hold a connection for ever.
            "timeout": 60,
            "graceful_timeout": 3,
            "keepalive": 75,
            "loglevel": "warning",
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
            "limit_request_line": 8190,
            "control_socket_disable": True,
            "post_worker_init": self._watch_lifeline,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from handlers.app import create_app

        try:
            return create_app(self._settings)
        except RuncastError as error:
            print(f"runcast: {error}", file=sys.stderr, flush=True)
            # What gunicorn takes for "the application cannot be loaded": it ends with it instead of trying for ever.
            sys.exit(4)

    def _watch_lifeline(self, worker: Any) -> None:
        import gevent
        from gevent.os import tp_read

        def watch() -> None:
            tp_read(self._lifeline, 1)
            # When the arbiter was killed too, our parent is somebody else by now, perhaps the first process of the machine.
            if os.getppid() == worker.ppid:
                os.kill(worker.ppid, signal.SIGTERM)

        gevent.spawn(watch)


def main() -> int:
    log_to_stderr()
    settings = Settings.from_json(json.loads(os.environ.pop("RUNCAST_SETTINGS")))
    listener, lifeline = int(os.environ.pop("RUNCAST_LISTENER")), int(os.environ.pop("RUNCAST_LIFELINE"))
    try:
        Api(settings, listener=listener, lifeline=lifeline).run()
    except SystemExit as error:
        return 2 if error.code in (3, 4) else int(error.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
