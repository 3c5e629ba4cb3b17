"""The programs of `tests/programs` as jobs run them, and what of a job still runs."""

from __future__ import annotations

import shlex
import sys

import psutil

from support.server import PROGRAMS


def program(name: str, *arguments: object) -> str:
    """A shell script that becomes `tests/programs/NAME.py`."""
    return f"exec {shlex.join([sys.executable, str(PROGRAMS / f'{name}.py'), *map(str, arguments)])}"


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def processes_of(job_id: str) -> list[int]:
    """Every process that carries the marker of a job."""
    return [process.pid for process in psutil.process_iter() if _marker(process).startswith(f"{job_id}:")]


def _marker(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("RUNCAST_JOB", ""))
    except (psutil.Error, OSError):  # gone meanwhile
        return ""
