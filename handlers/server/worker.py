"""The worker process of a server, started by `handlers.server.serve`.

The first one also prepares the data folder and the store, because it needs the same imports. It does so in a fork, so that what only the
preparation imports (the contract, the migrations) does not stay in the worker, from which every supervisor is forked.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from handlers.server.startup import GO, LIFELINE, SETTINGS, STEP_DONE, STEPS, Step
from jobs.bootstrap import prepare, provide_tokens
from jobs.errors import OperatorError, RuncastError
from jobs.logging_setup import log_to_stderr
from jobs.run_worker import run_worker
from jobs.settings import Settings

logger = logging.getLogger("runcast.serve")


def main() -> int:
    log_to_stderr()
    settings = Settings.from_json(json.loads(os.environ.pop(SETTINGS)))
    lifeline, steps = int(os.environ.pop(LIFELINE)), os.environ.pop(STEPS, None)
    if steps is not None and not _prepare_in_fork(socket.socket(fileno=int(steps)), settings):
        return 2
    if settings.no_worker:
        return 0
    try:
        return run_worker(settings, lifeline=lifeline)
    except OperatorError as error:
        print(f"runcast: {error}", file=sys.stderr)
        return 2


def _prepare_in_fork(channel: socket.socket, settings: Settings) -> bool:
    """Returns whether every step succeeded."""
    pid = os.fork()
    if pid == 0:
        _take_steps(channel, (_check_contract, prepare, provide_tokens), settings)
    channel.close()
    return os.waitpid(pid, 0)[1] == 0


def _take_steps(channel: socket.socket, steps: Iterable[Step], settings: Settings) -> NoReturn:
    """Take each step when the server says so. Ends early when a step fails or the server is gone."""
    status = 1
    try:
        for step in steps:
            if not _receive_go(channel):
                break
            step(settings)
            with suppress(OSError):  # the server may be gone; the next `_receive_go` notices
                channel.sendall(STEP_DONE)
        else:
            status = 0
    except RuncastError as error:
        channel.sendall(str(error).encode(errors="backslashreplace"))
    except BaseException:
        logger.exception("The start failed.")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _receive_go(channel: socket.socket) -> bool:
    with suppress(OSError):
        return channel.recv(1) == GO
    return False


def _check_contract(_settings: Settings) -> None:
    from handlers.contract.document import Contract
    from handlers.server.agreement import check_agreement

    # The API process checks this again. Here it is checked before anything is written, and reported once.
    check_agreement(Contract.load())


if __name__ == "__main__":
    sys.exit(main())
