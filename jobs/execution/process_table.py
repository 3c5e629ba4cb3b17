"""The machine's process table: which processes exist, which belong to a job, and which one is the same as before.

Used by the supervisor for the tree of its own job, and by the dispatcher for what a lost supervisor left behind. It starts nothing, reads
no output, and knows no store.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

from jobs.model import MARKER

END_STRAYS_TIMEOUT_SECONDS = 5.0
_LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Entry:
    """One process as the table had it. `started` is in the unit of the system; compare it, do not compute with it."""

    pid: int
    parent: int
    group: int
    session: int
    started: float
    running: bool


@dataclass(frozen=True)
class Identity:
    """Names one process for good. Pids are recycled, so a pid only counts together with its start time and the boot it was seen in."""

    pid: int
    start_time: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Raises ProcessLookupError when there is no such process."""
        entry = read_entry(pid)
        if entry is None:
            raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
        return cls(pid=pid, start_time=entry.started, boot_id=boot_id())

    def alive(self) -> bool:
        """Whether this very process still runs. A zombie does not."""
        if self.boot_id != boot_id():
            return False
        entry = read_entry(self.pid)
        return entry is not None and entry.running and entry.started == self.start_time


# -- this machine ---------------------------------------------------------------------------------------------------------


@cache
def boot_id() -> str:
    """An id that is new whenever the machine starts."""
    if _LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    value, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0) == 0:
        return value.value.decode("ascii")
    return str(round(psutil.boot_time()))


@cache
def pid_namespace() -> str:
    """Tells the pids of one container from those of another on the same machine. Empty where the system has no such thing."""
    return str(Path("/proc/self/ns/pid").readlink()) if _LINUX else ""


def host_id() -> str:
    """The scope in which a pid means the same process: this machine since it was started, whatever its name, and this container."""
    return f"{boot_id()}{pid_namespace()}"


# -- reading the table ----------------------------------------------------------------------------------------------------


def read_table() -> dict[int, Entry]:
    return {pid: entry for pid in psutil.pids() if (entry := read_entry(pid)) is not None}


def read_entry(pid: int) -> Entry | None:
    """A process as the table has it now. Zombies are in it, but do not run."""
    if not _LINUX:
        return _read_entry_elsewhere(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, parent, group, session, *rest = stat[stat.rindex(b")") + 2 :].split()
    # The main thread of a process may end before the others: the process is shown as a zombie then, and still runs.
    running = state not in b"ZX" or int(rest[13]) > 1
    return Entry(pid, int(parent), int(group), int(session), float(rest[15]), running)


def _read_entry_elsewhere(pid: int) -> Entry | None:
    try:
        process = psutil.Process(pid)
        running = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return Entry(pid, process.ppid(), os.getpgid(pid), os.getsid(pid), process.create_time(), running)
    except (psutil.Error, OSError):
        return None


def descendants(table: Mapping[int, Entry], *, of: set[int]) -> list[Entry]:
    """The running processes that these pids started, directly or not. They themselves are not among them."""
    children: dict[int, list[Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    parents = list(of)
    while parents:
        born = children.get(parents.pop(), [])
        found += born
        parents += [entry.pid for entry in born]
    return [entry for entry in found if entry.running]


def carriers(table: Mapping[int, Entry], marker: str) -> list[Entry]:
    """The running processes that carry a job's marker in their environment."""
    return [entry for entry in table.values() if entry.running and _carries(entry.pid, marker)]


def _carries(pid: int, marker: str) -> bool:
    try:
        if not _LINUX:
            return psutil.Process(pid).environ().get(MARKER) == marker
        return f"{MARKER}={marker}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (psutil.Error, OSError):  # gone, or not ours to look into
        return False


# -- ending processes -----------------------------------------------------------------------------------------------------


def kill(entry: Entry) -> None:
    """Kills this very process; does nothing when it is gone."""
    # Looked up again right before, because the pid may have been recycled since the table was read.
    now = read_entry(entry.pid)
    if now is not None and now.started == entry.started:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(entry.pid, signal.SIGKILL)


def end_strays(*, marker: str, group: int | None) -> int:
    """Kills what a lost supervisor left running, and returns how many processes that were.

    These are the processes that carry `marker`, what they started, and `group` with its session when a carrier is in it. The number of
    a group alone proves nothing, because it may have been recycled. Repeated until none is left, for at most
    `END_STRAYS_TIMEOUT_SECONDS`.
    """
    ended: set[Entry] = set()
    deadline = time.monotonic() + END_STRAYS_TIMEOUT_SECONDS
    while strays := _strays(marker, group):
        for entry in strays:
            kill(entry)
        ended.update(strays)
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return len({(entry.pid, entry.started) for entry in ended})


def _strays(marker: str, group: int | None) -> set[Entry]:
    table = read_table()
    marked = carriers(table, marker)
    strays = {*marked, *descendants(table, of={entry.pid for entry in marked})}
    if group is not None and any(group in (entry.group, entry.session) for entry in marked):
        strays.update(entry for entry in table.values() if entry.running and group in (entry.group, entry.session))
    return {entry for entry in strays if entry.pid != os.getpid()}
