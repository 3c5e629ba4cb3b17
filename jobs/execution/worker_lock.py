"""The lock that makes a worker the only one of its name in a data folder. The system releases it when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from jobs.errors import OperatorError

LOCK_TIMEOUT_SECONDS = 3.0
"""The process that held the lock before may just be ending."""


def lock_worker(data_dir: Path, worker_id: str) -> IO[bytes]:
    """Become the only worker of this name, until the returned file is closed. Two would count, sweep and stop each other's jobs.

    Raises OperatorError when another process holds the lock.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    # A process that can read the file could lock it as well, and so keep the worker from starting.
    lock = open(data_dir / f"{worker_id}.lock", "ab", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    os.fchmod(lock.fileno(), 0o600)  # the file of an earlier version was readable by everybody
    while True:
        try:
            # Not `flock`: every fork would hold it, and so the supervisors that outlive the worker.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                lock.close()
                place = f"Another worker serves these queues of the data folder {data_dir} already"
                raise OperatorError(f"{place}; stop it, or choose another --data-dir or --queue.") from None
            time.sleep(0.05)


def is_unlocked(data_dir: Path, worker_id: str) -> bool:
    """Whether a worker of this name has run in this folder, and runs no more.

    Never ask for one's own name: closing the file would release the lock that this process holds.
    """
    try:
        lock = (data_dir / f"{worker_id}.lock").open("r+b")
    except OSError:  # it belongs to another folder
        return False
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
