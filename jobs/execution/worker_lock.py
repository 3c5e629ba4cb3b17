"""One of a kind: a lock that a process holds as long as it lives, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from jobs.errors import OperatorError

PATIENCE_SECONDS = 3.0
"""Who held it before may just be ending."""


def lock_worker(data_dir: Path, worker_id: str) -> IO[bytes]:
    """Be the only worker of this name, for two would count, sweep and stop each other's jobs; until what is returned is closed.

    Raises OperatorError when another process is.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Whoever can read it could hold it as well, and so keep the worker from starting.
    lock = open(data_dir / f"{worker_id}.lock", "ab", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    os.fchmod(lock.fileno(), 0o600)  # one of an earlier version was for all to read
    while True:
        try:
            # Not `flock`: that would be held on by every fork, and so by the supervisors that outlive a worker.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                lock.close()
                place = f"Another worker serves these queues of the data folder {data_dir} already"
                raise OperatorError(f"{place}; stop it, or choose another --data-dir or --queue.") from None
            time.sleep(0.05)


def is_unlocked(data_dir: Path, worker_id: str) -> bool:
    """Whether the worker of this name was served from this folder, and nobody serves it any more. Not to be asked of one's own name: who
    looks lets go of what it holds."""
    try:
        lock = (data_dir / f"{worker_id}.lock").open("r+b")
    except OSError:  # it is of another folder
        return False
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
