"""One operating system process and everything that it starts. Knows no job, no store and no time limits.

A supervisor uses it: a single-threaded process with a session of its own that runs one command and has no other children.
On Linux it is a child subreaper, so that whatever the command leaves behind becomes its child instead of being lost; there
"no children" means "nothing runs on", exactly. Elsewhere the process table and the marker variable have to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psutil

from jobs.errors import StartFailed
from jobs.model import MARKER, Stream
from jobs.nofollow import open_folder

COLUMNS, ROWS = 120, 40
STRAYS_SECONDS = 5.0
_LINUX = sys.platform == "linux"
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_OFLAG, _LFLAG = 1, 3  # places in what tcgetattr returns
_DEFAULTS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


@dataclass(frozen=True)
class Command:
    """What to run. `argv[0]` with a slash is a path from `cwd`; without, it is looked up in `PATH` of `env`. Never a shell.

    With `root`, which `cwd` is or lies below, no link between the two is followed.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    pty: bool
    root: Path | None = None


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code`, or the name of the `signal` that ended it. Never both."""

    code: int | None
    signal: str | None

    @classmethod
    def of(cls, status: int) -> Self:
        code = os.waitstatus_to_exitcode(status)
        return cls(code=code, signal=None) if code >= 0 else cls(code=None, signal=_signal_name(-code))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals have no names of their own
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


@dataclass(frozen=True)
class Identity:
    """A process for sure: pids are recycled, so one only counts together with its start time and the boot it was seen in."""

    pid: int
    start_time: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Raises ProcessLookupError when there is no such process."""
        entry = _entry(pid)
        if entry is None:
            raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
        return cls(pid=pid, start_time=entry.started, boot_id=boot_id())

    def alive(self) -> bool:
        """Whether this very process still runs. A zombie does not."""
        if self.boot_id != boot_id():
            return False
        entry = _entry(self.pid)
        return entry is not None and entry.running and entry.started == self.start_time


@cache
def boot_id() -> str:
    """What changes whenever the machine starts anew."""
    if _LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    value, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0) == 0:
        return value.value.decode("ascii")
    return str(round(psutil.boot_time()))


@cache
def pid_namespace() -> str:
    """What tells the pids of one container from those of another, on one machine; empty where there is no such thing."""
    return str(Path("/proc/self/ns/pid").readlink()) if _LINUX else ""


def become_subreaper() -> bool:
    """Makes orphans among this process's descendants its children. False where the system cannot."""
    return _LINUX and _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1)) == 0


def _is_subreaper() -> bool:
    # Asked of the kernel and not remembered, because a fork does not inherit it.
    flag = ctypes.c_int(0)
    return _LINUX and _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag)) == 0 and flag.value == 1


def _prctl(option: int, argument: object) -> int:
    zero = ctypes.c_ulong(0)
    return int(_system().prctl(option, argument, zero, zero, zero))


@cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Process:
    """A started command, leader of a process group and session of its own, and whatever it starts."""

    def __init__(self, pid: int, *, outputs: Mapping[int, Stream], terminal: int | None, marker: str | None) -> None:
        self.pid = pid
        self._outputs = dict(outputs)
        self._terminal = terminal
        self._marker = marker
        self._exit: Exit | None = None
        self._subreaper = _is_subreaper()
        self._childless = False

    @classmethod
    def start(cls, command: Command) -> Self:
        """Starts `command`; raises StartFailed with a sentence for a person.

        The standard streams of the calling process must be open, and nothing else in it may depend on its working directory,
        which is `/` afterwards. With a pty all three streams of the command are the terminal, on which nobody ever types.
        """
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # inherited: the kernel would throw the exit status away
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with _directory(command.cwd, command.root):
            program = _program(command)
            start = _start_on_terminal if command.pty else _start_on_pipes
            pid, outputs, terminal = start(command, program)
        return cls(pid, outputs=outputs, terminal=terminal, marker=command.env.get(MARKER))

    @property
    def outputs(self) -> Mapping[int, Stream]:
        """The non-blocking descriptors to read from, until their end. A terminal is one, `stdout`; it does not end before the command,
        and then only when `poll` has told of that."""
        return MappingProxyType(self._outputs)

    def read(self, fd: int, size: int = 1 << 18) -> bytes | None:
        """What the command wrote: at most `size` bytes, `b""` when there is nothing now, None at the end (`fd` is closed then)."""
        parts: list[bytes] = []
        try:
            # A terminal gives 4 KiB at a time; gathered here, what follows costs the same as for a pipe.
            while size > 0 and (data := os.read(fd, size)):
                parts.append(data)
                size -= len(data)
        except BlockingIOError:
            return b"".join(parts)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux's end of a terminal that nobody holds open any more
                raise
        if parts:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        del self._outputs[fd]
        os.close(fd)
        return None

    def poll(self) -> Exit | None:
        """How the command itself ended, None while it runs. Also reaps every orphan that came to us."""
        self._reap()
        return self._exit

    def signal(self, signum: int) -> None:
        """Sends a signal to the command's process group; does nothing when that is gone."""
        # Once the leader is reaped, only a living member keeps the group's number from being given to somebody else.
        if self.poll() is None or any(entry.group == self.pid for entry in self._tree()):
            with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when only zombies are left
                os.killpg(self.pid, signum)

    def remaining(self) -> list[int]:
        """The processes that still run: the command, and all that came from it. Costs one system call when there are none."""
        self._reap()
        return [entry.pid for entry in self._tree()]

    def sweep(self) -> bool:
        """Kills what still runs. True once nothing is left; until then the caller calls again, for as long as it cares to."""
        self._reap()
        for entry in self._tree():
            _kill(entry)
        self._reap()
        return self._childless if self._subreaper else not self._tree()

    def close(self) -> None:
        """Closes the outputs. What runs on gets SIGPIPE, or EIO, at its next write."""
        self._let_go_of_terminal()
        while self._outputs:
            os.close(self._outputs.popitem()[0])

    def _let_go_of_terminal(self) -> None:
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def _reap(self) -> None:
        while not self._childless:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self.pid:
                self._exit = Exit.of(status)
                self._let_go_of_terminal()

    def _tree(self) -> list[_Entry]:
        if self._subreaper:
            return [] if self._childless else _descendants(_table(), of={os.getpid()})
        table = _table()
        own = {self.pid} if self._exit is None else set()
        mates = [entry for entry in table.values() if entry.running and self.pid in (entry.group, entry.session)]
        carriers = _carriers(table, self._marker) if self._marker else []
        return list({entry.pid: entry for entry in (*mates, *carriers, *_descendants(table, of=own))}.values())


def end_strays(*, marker: str, group: int | None) -> int:
    """Kills what a lost supervisor left running and returns how many processes that were.

    These are the processes that carry `marker`, what they started, and `group` with its session when a carrier is in it; the number
    alone proves nothing, because it may have been recycled. Repeated until none is left, for at most `STRAYS_SECONDS`.
    """
    ended: set[_Entry] = set()
    deadline = time.monotonic() + STRAYS_SECONDS
    while strays := _strays(marker, group):
        for entry in strays:
            _kill(entry)
        ended.update(strays)
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return len({(entry.pid, entry.started) for entry in ended})


def _strays(marker: str, group: int | None) -> set[_Entry]:
    table = _table()
    carriers = _carriers(table, marker)
    strays = {*carriers, *_descendants(table, of={entry.pid for entry in carriers})}
    if group is not None and any(group in (entry.group, entry.session) for entry in carriers):
        strays.update(entry for entry in table.values() if entry.running and group in (entry.group, entry.session))
    return {entry for entry in strays if entry.pid != os.getpid()}


# Starting


@contextmanager
def _directory(path: Path, root: Path | None) -> Iterator[None]:
    try:
        if root is None:
            os.chdir(path)
        else:
            folder = open_folder(path, root=root)
            try:
                os.fchdir(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise StartFailed(f"The working directory {str(path)!r} cannot be entered: {_reason(error)}.") from error
    try:
        yield
    finally:
        os.chdir("/")  # so that the supervisor of a long job holds no folder of the workspace


def _program(command: Command) -> str:
    if not command.argv or not command.argv[0]:
        raise StartFailed("The command is empty.")
    name = command.argv[0]
    if "/" in name:
        return name
    found = [Path(folder or ".", name) for folder in command.env.get("PATH", os.defpath).split(":")]
    found = [path for path in found if path.is_file()]
    if not found:
        raise StartFailed(f"There is no command {name!r} on the job's PATH.")
    return str(next((path for path in found if os.access(path, os.X_OK)), found[0]))


def _start_on_pipes(command: Command, program: str) -> tuple[int, dict[int, Stream], None]:
    with _descriptors() as opened:
        opened += (out := os.pipe())
        opened += (err := os.pipe())
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out[1], 1),
            (os.POSIX_SPAWN_DUP2, err[1], 2),
        ]
        pid = _spawn(command, program, actions)
        return pid, _keep(opened, {out[0]: Stream.STDOUT, err[0]: Stream.STDERR}), None


def _start_on_terminal(command: Command, program: str) -> tuple[int, dict[int, Stream], int]:
    """Also gives our own end of the terminal: when nobody else holds that open any more (the command closed its streams), the terminal
    would seem to be over, and to let go of it would hang up on the command."""
    with _descriptors() as opened:
        try:
            opened += (ends := os.openpty())
        except OSError as error:
            raise StartFailed(f"There is no terminal left for the command: {_reason(error)}.") from error
        reader, terminal = ends
        _set_up(terminal)
        # Opened by name, and by the command itself once it leads its session: so it becomes the controlling terminal.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.ttyname(terminal), os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        pid = _spawn(command, program, actions)
        outputs = _keep(opened, {reader: Stream.STDOUT})
        opened.remove(terminal)
        return pid, outputs, terminal


def _set_up(terminal: int) -> None:
    attributes = termios.tcgetattr(terminal)
    attributes[_OFLAG] &= ~termios.OPOST  # lines end as the command wrote them, without a \r of the terminal's
    attributes[_LFLAG] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    termios.tcsetwinsize(terminal, (ROWS, COLUMNS))


def _spawn(command: Command, program: str, actions: Sequence[tuple[int | str, ...]]) -> int:
    try:
        return os.posix_spawn(program, command.argv, command.env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS)
    except ValueError as error:  # a null byte, or text that no system encoding can carry
        raise StartFailed(f"{command.argv[0]!r} cannot be started: {error}.") from error
    except OSError as error:
        raise StartFailed(f"{command.argv[0]!r} cannot be started: {_refusal(program, error)}.") from error


def _refusal(program: str, error: OSError) -> str:
    """Why the system did not run `program`, where its own words would mislead."""
    path = Path(program)
    if error.errno == errno.ENOENT and path.is_file():
        return "the interpreter that it names does not exist"
    if error.errno == errno.EACCES and path.is_dir():
        return "it is a folder"
    if error.errno == errno.EACCES and path.is_file() and not os.access(path, os.X_OK):
        return "it is not executable"
    if error.errno == errno.ENOEXEC:
        return "it is neither a program of this machine nor a script with a #! line"
    return _reason(error)


def _reason(error: OSError) -> str:
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]


@contextmanager
def _descriptors() -> Iterator[list[int]]:
    """A list for opened descriptors; those that are still in it at the end are closed."""
    opened: list[int] = []
    try:
        _close_on_exec()
        yield opened
    except OSError as error:
        raise StartFailed(f"The command's output cannot be connected: {_reason(error)}.") from error
    finally:
        for fd in opened:
            os.close(fd)


def _keep(opened: list[int], readers: dict[int, Stream]) -> dict[int, Stream]:
    for fd in readers:
        os.set_blocking(fd, False)
        opened.remove(fd)
    return readers


def _close_on_exec() -> None:
    """Keeps what whoever started runcast left open from reaching the command; Python's own descriptors never do."""
    for fd in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # the listing's own is gone by now
            if fd > 2:
                os.set_inheritable(fd, False)


# The process table


@dataclass(frozen=True)
class _Entry:
    pid: int
    parent: int
    group: int
    session: int
    started: float
    running: bool


def _table() -> dict[int, _Entry]:
    return {pid: entry for pid in psutil.pids() if (entry := _entry(pid)) is not None}


def _entry(pid: int) -> _Entry | None:
    """A process as the table has it now. Zombies are in it, but do not run."""
    if not _LINUX:
        return _entry_elsewhere(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, parent, group, session, *rest = stat[stat.rindex(b")") + 2 :].split()
    # The main thread of a process may end before the others: the process is shown as a zombie then, and still runs.
    running = state not in b"ZX" or int(rest[13]) > 1
    return _Entry(pid, int(parent), int(group), int(session), float(rest[15]), running)


def _entry_elsewhere(pid: int) -> _Entry | None:
    try:
        process = psutil.Process(pid)
        running = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return _Entry(pid, process.ppid(), os.getpgid(pid), os.getsid(pid), process.create_time(), running)
    except (psutil.Error, OSError):
        return None


def _descendants(table: Mapping[int, _Entry], *, of: set[int]) -> list[_Entry]:
    children: dict[int, list[_Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[_Entry] = []
    parents = list(of)
    while parents:
        born = children.get(parents.pop(), [])
        found += born
        parents += [entry.pid for entry in born]
    return [entry for entry in found if entry.running]


def _carriers(table: Mapping[int, _Entry], marker: str) -> list[_Entry]:
    return [entry for entry in table.values() if entry.running and _carries(entry.pid, marker)]


def _carries(pid: int, marker: str) -> bool:
    try:
        if not _LINUX:
            return psutil.Process(pid).environ().get(MARKER) == marker
        return f"{MARKER}={marker}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (psutil.Error, OSError):  # gone, or not ours to look into
        return False


def _kill(entry: _Entry) -> None:
    # Looked up again right before, because the pid may have been recycled since the table was read.
    now = _entry(entry.pid)
    if now is not None and now.started == entry.started:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(entry.pid, signal.SIGKILL)
