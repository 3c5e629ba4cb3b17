"""Points at which tests crash a process of the service: between any two steps in the life of a job.

They do nothing unless `RUNCAST_FAULT_POINTS` names a folder when the process starts. A file there with the name of a point arms the point:
the first process that reaches it and removes the file is killed, as by `kill -9`. Only tests may use this: no request, recipe or job can
set the variable for a process of the service, and jobs do not see it.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "RUNCAST_FAULT_POINTS"
POINTS = frozenset(
    {
        # the API
        "submit.stored",  # in the transaction
        "submit.committed",  # before the answer
        # the worker: its dispatcher, and the process that forks
        "claim.stored",
        "claim.committed",
        "claim.handed_over",
        "lease.received",
        "lease.passed",
        "sweep.ended",  # the processes of a lost supervisor are ended
        "sweep.stored",
        "sweep.committed",
        # a supervisor
        "start.received",
        "start.taken",
        "start.spawned",
        "chunk.read",
        "chunk.stored",
        "chunk.committed",
        "end.exited",
        "end.swept",
        "end.flushed",
        "end.stored",
        "end.committed",
    }
)
_FOLDER = os.environ.get(VARIABLE)


def reached(point: str) -> None:
    """Kills the process if the point is armed."""
    if _FOLDER is not None:
        _kill_if_armed(point, _FOLDER)


def _kill_if_armed(point: str, folder: str) -> None:
    assert point in POINTS, point
    try:
        os.unlink(f"{folder}/{point}")  # noqa: PTH108  # atomic: one of several processes succeeds
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
