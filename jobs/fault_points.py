"""The places at which tests let a process of the service crash: between any two steps of a job's way through it.

Nothing happens at them unless `RUNCAST_FAULT_POINTS` named a folder when the process started; then a file there, with the name of a point,
arms it: the process that comes by and can remove the file is killed, as by `kill -9`. No request, recipe or job can set the variable of a
process of ours, and jobs do not see it. Nothing but tests may use it.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "RUNCAST_FAULT_POINTS"
POINTS = frozenset(
    {
        # the API
        "submit.stored",  # in the transaction
        "submit.committed",  # not answered yet
        # the worker: its dispatcher, and the process that forks
        "claim.stored",
        "claim.committed",
        "claim.handed_over",
        "lease.received",
        "lease.passed",
        "sweep.ended",  # what a lost supervisor left is ended
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
    """Whoever gets here dies if the point is armed."""
    if _FOLDER is not None:
        _die_if_armed(point, _FOLDER)


def _die_if_armed(point: str, folder: str) -> None:
    assert point in POINTS, point
    try:
        os.unlink(f"{folder}/{point}")  # noqa: PTH108  # one of many may do it, and this is the whole of it
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
