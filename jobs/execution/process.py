"""Starts one operating system process, reads what it writes, and ends it with everything that it started.

It knows no job, no store and no time limits. It must run in a single-threaded process with a session of its own that has no other
children: a supervisor. On Linux that process is a child subreaper, so whatever the command leaves behind becomes its child instead of
being lost, and "no children" means exactly "nothing runs on". Elsewhere the process table and the marker variable have to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Self

from jobs.errors import StartFailed
from jobs.execution.process_table import Entry, carriers, descendants, kill, read_table
from jobs.model import MARKER, Stream
from jobs.nofollow import open_folder

COLUMNS, ROWS = 120, 40
_LINUX = sys.platform == "linux"
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_OFLAG, _LFLAG = 1, 3  # indexes into what tcgetattr returns
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
        which is `/` afterwards. With a pty all three streams of the command are a terminal on which nobody types.
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
        """The non-blocking descriptors to read from until their end. A terminal is one descriptor, `stdout`. It ends only after `poll`
        has returned the command's exit."""
        return MappingProxyType(self._outputs)

    def read(self, fd: int, size: int = 1 << 18) -> bytes | None:
        """What the command wrote: at most `size` bytes, `b""` when nothing is there yet, None at the end (`fd` is closed then)."""
        parts: list[bytes] = []
        try:
            # A terminal gives 4 KiB at a time. Gathered here, the later stages cost the same as for a pipe.
            while size > 0 and (data := os.read(fd, size)):
                parts.append(data)
                size -= len(data)
        except BlockingIOError:
            return b"".join(parts)
        except OSError as error:
            if error.errno != errno.EIO:  # on Linux the end of a terminal that nobody holds open any more
                raise
        if parts:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        del self._outputs[fd]
        os.close(fd)
        return None

    def poll(self) -> Exit | None:
        """How the command itself ended, None while it runs. Also reaps every orphan that became our child."""
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
        """Kills what still runs. True once nothing is left; until then the caller calls again."""
        self._reap()
        for entry in self._tree():
            kill(entry)
        self._reap()
        return self._childless if self._subreaper else not self._tree()

    def close(self) -> None:
        """Closes the outputs. A process that still runs gets SIGPIPE or EIO at its next write."""
        self._close_terminal()
        while self._outputs:
            os.close(self._outputs.popitem()[0])

    def _close_terminal(self) -> None:
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
                self._close_terminal()

    def _tree(self) -> list[Entry]:
        if self._subreaper:
            return [] if self._childless else descendants(read_table(), of={os.getpid()})
        table = read_table()
        own = {self.pid} if self._exit is None else set()
        mates = [entry for entry in table.values() if entry.running and self.pid in (entry.group, entry.session)]
        marked = carriers(table, self._marker) if self._marker else []
        return list({entry.pid: entry for entry in (*mates, *marked, *descendants(table, of=own))}.values())


# -- starting -------------------------------------------------------------------------------------------------------------


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
        os.chdir("/")  # the supervisor of a long job must keep no folder of the workspace busy


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
    """Also gives our own end of the terminal. If the command closes its streams, nobody else holds the terminal open: it would seem to
    be at its end, and closing it would hang up on the command."""
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
    """Descriptors that runcast inherited must not reach the command. Those that Python opened never do."""
    for fd in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # the listing's own is gone by now
            if fd > 2:
                os.set_inheritable(fd, False)
