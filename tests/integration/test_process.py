"""Real processes that misbehave, each scenario in a forked process that is to them what a supervisor is."""

from __future__ import annotations

import os
import pickle
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest

from jobs.errors import StartFailed
from jobs.execution import process as module
from jobs.execution.process import Command, Exit, Process, become_subreaper
from jobs.execution.process_table import Identity, boot_id, end_strays
from jobs.model import MARKER, Stream

PROGRAMS = Path(__file__).parents[1] / "programs"
NO_TERMINAL = "There is no terminal left for the command: too many open files."
SECONDS = 20.0
T = TypeVar("T")


def until(predicate: Callable[[], T | None], *, seconds: float = SECONDS) -> T:
    """What `predicate` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
    return value


def supervised(scenario: Callable[[], T]) -> T:
    """Runs `scenario` as a supervisor would run it, and insists that it leaves no process and no descriptor behind."""
    result, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: tuple[bool, object] = (False, "nothing")
        try:
            os.setsid()
            become_subreaper()
            before = len(list(Path("/dev/fd").iterdir()))
            answer = (True, scenario())
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            assert len(list(Path("/dev/fd").iterdir())) == before
        except BaseException:
            answer = (False, traceback.format_exc())
        finally:
            os.write(tell, pickle.dumps(answer))
            os._exit(0)
    os.close(tell)
    try:
        answered = select.select([result], [], [], 2 * SECONDS)[0]
        value = pickle.loads(os.read(result, 1 << 16)) if answered else (False, "it hangs")
    finally:
        os.close(result)
        if not answered:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert value[0], value[1]
    return cast(T, value[1])


def program(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", str(PROGRAMS / name), *map(str, arguments))


def command(*argv: str, cwd: Path = Path("/"), pty: bool = False, marker: str | None = None, **env: str) -> Command:
    marked = {MARKER: marker} if marker else {}
    return Command(argv=argv, cwd=cwd, env={"PATH": os.environ["PATH"], **marked, **env}, pty=pty)


def read_all(process: Process) -> dict[Stream, bytes]:
    """Everything that it writes, up to the end of every output."""
    data = dict.fromkeys(process.outputs.values(), b"")
    while process.outputs:
        process.poll()  # a terminal ends when it is known that the command has
        for fd in select.select(list(process.outputs), [], [], 0.05)[0]:
            stream = process.outputs[fd]
            data[stream] += process.read(fd) or b""
    return data


def read_until(process: Process, text: bytes) -> bytes:
    data = b""
    while text not in data:
        data += b"".join(process.read(fd) or b"" for fd in select.select(list(process.outputs), [], [], SECONDS)[0])
    return data


def run(*argv: str, cwd: Path = Path("/"), pty: bool = False, **env: str) -> tuple[Exit, dict[Stream, bytes]]:
    """Starts, reads to the end, reaps and sweeps."""
    process = Process.start(command(*argv, cwd=cwd, pty=pty, **env))
    data = read_all(process)
    ended = until(process.poll)
    until(process.sweep)
    return ended, data


def stdout(*argv: str, cwd: Path = Path("/"), pty: bool = False, **env: str) -> str:
    return supervised(lambda: run(*argv, cwd=cwd, pty=pty, **env))[1][Stream.STDOUT].decode()


def sweep(process: Process) -> None:
    until(process.sweep)
    process.close()
    assert process.remaining() == []


# Starting


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize("code", [0, 1, 255])
def test_the_exit_code_is_reported(code: int, pty: bool) -> None:
    assert supervised(lambda: run(*program("exits_with.py", code), pty=pty))[0] == Exit(code=code, signal=None)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGHUP"])
def test_signals_have_names(name: str) -> None:
    assert supervised(lambda: run(*program("killed_by.py", name)))[0] == Exit(code=None, signal=name)


@pytest.mark.skipif(sys.platform != "linux", reason="real-time signals")
def test_a_real_time_signal_has_a_name_too() -> None:
    ended, _ = supervised(lambda: run("sh", "-c", f"kill -{signal.SIGRTMIN + 3} $$"))
    assert ended == Exit(code=None, signal="SIGRTMIN+3")


def test_pipes_keep_the_streams_apart() -> None:
    _, data = supervised(lambda: run(*program("two_streams.py", "--lines", 3)))
    assert data == {Stream.STDOUT: b"out 1\nout 2\nout 3\n", Stream.STDERR: b"err 1\nerr 2\nerr 3\n"}


def test_a_terminal_is_one_stream() -> None:
    _, data = supervised(lambda: run(*program("two_streams.py", "--lines", 2), pty=True))
    assert data == {Stream.STDOUT: b"out 1\nerr 1\nout 2\nerr 2\n"}


def test_a_command_on_a_terminal_sees_a_terminal() -> None:
    expected = "stdin terminal\nstdout terminal\nstderr terminal\nsize 120x40\ncontrolling terminal yes\n"
    assert stdout(*program("tty.py"), pty=True) == expected


def test_a_command_on_pipes_sees_no_terminal() -> None:
    assert stdout(*program("tty.py")) == "stdin other\nstdout other\nstderr other\ncontrolling terminal no\n"
    assert stdout("sh", "-c", "cat; echo end") == "end\n"


def test_the_supervisor_gets_no_terminal_of_its_own() -> None:
    def scenario() -> bool:
        run("true", pty=True)
        with pytest.raises(OSError):
            os.open("/dev/tty", os.O_RDWR)
        return True

    assert supervised(scenario)


def test_a_command_leads_a_group_and_a_session() -> None:
    def scenario() -> tuple[int, int, int]:
        process = Process.start(command("sleep", "600"))
        ids = process.pid, os.getpgid(process.pid), os.getsid(process.pid)
        sweep(process)
        return ids

    assert len(set(supervised(scenario))) == 1


def test_a_command_sees_only_its_own_environment() -> None:
    assert stdout("env", PATH=os.environ["PATH"], A="ü") == f"PATH={os.environ['PATH']}\nA=ü\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("pty", [False, True])
def test_signal_handlers_of_a_command_are_the_defaults(pty: bool) -> None:
    def scenario() -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
        return run("cat", "/proc/self/status", pty=pty)[1][Stream.STDOUT].decode()

    masks = {name: int(mask, 16) for name, mask in re.findall(r"^Sig(Blk|Ign):\s+(\w+)", supervised(scenario), re.MULTILINE)}
    own_of_the_c_library = 1 << 31 | 1 << 32  # glibc's posix_spawn ignores its two internal signals
    assert masks["Blk"] == 0
    assert masks["Ign"] & ~own_of_the_c_library == 0


@pytest.mark.parametrize("pty", [False, True])
def test_no_descriptor_leaks_into_the_command(pty: bool) -> None:
    def scenario() -> bytes:
        inheritable = [os.dup(0) for _ in range(3)]
        for fd in inheritable:
            os.set_inheritable(fd, True)
        listed = run("ls", "/dev/fd/", pty=pty)[1][Stream.STDOUT]
        for fd in inheritable:
            os.close(fd)
        return listed

    assert supervised(scenario).split() == [b"0", b"1", b"2", b"3"]  # the last is the listing itself


def test_an_ignored_child_signal_does_not_lose_the_exit_status() -> None:
    def scenario() -> Exit:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return run(*program("exits_with.py", 7))[0]

    assert supervised(scenario).code == 7


def test_a_command_is_looked_up_in_its_own_path(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "not-executable").mkdir()
    (tmp_path / "not-executable" / "tool").write_text("no")
    (tools / "tool").write_text("#!/bin/sh\npwd\n")
    (tools / "tool").chmod(0o755)
    shutil.copy(tools / "tool", tmp_path / "tool")
    for argv, path in [
        ("./tool", "/nowhere"),
        ("tools/tool", "/nowhere"),
        (str(tools / "tool"), "/nowhere"),
        ("tool", f"/nowhere:{tmp_path}/not-executable:{tools}"),
        ("tool", "tools"),
        ("tool", "/nowhere:"),
    ]:
        assert stdout(argv, cwd=tmp_path, PATH=path) == f"{tmp_path}\n", (argv, path)


def test_the_working_directory_is_not_kept_open(tmp_path: Path) -> None:
    def scenario() -> str:
        run("true", cwd=tmp_path)
        return os.getcwd()  # noqa: PTH109

    assert supervised(scenario) == "/"


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "The command is empty."),
        (("",), "The command is empty."),
        (("no-such-tool",), "There is no command 'no-such-tool' on the job's PATH."),
        (("./missing",), "'./missing' cannot be started: no such file or directory."),
        (("./missing/x",), "'./missing/x' cannot be started: no such file or directory."),
        (("./folder",), "'./folder' cannot be started: it is a folder."),
        (("./plain",), "'./plain' cannot be started: it is not executable."),
        (("./plain/x",), "'./plain/x' cannot be started: not a directory."),
        (("./noshebang",), "'./noshebang' cannot be started: it is neither a program of this machine nor a script with a #! line."),
        (("./nointerpreter",), "'./nointerpreter' cannot be started: the interpreter that it names does not exist."),
        (("plain",), "'plain' cannot be started: it is not executable."),
        (("true", "a\0b"), "'true' cannot be started: embedded null byte."),
        (("true", "x" * (1 << 23)), "'true' cannot be started: argument list too long."),
    ],
)
def test_a_command_that_cannot_start_says_why(argv: tuple[str, ...], message: str, pty: bool, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("no")
    for name, text in (("noshebang", "echo no\n"), ("nointerpreter", "#!/no/such/shell\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def scenario() -> str:
        with pytest.raises(StartFailed) as failure:
            Process.start(command(*argv, cwd=tmp_path, pty=pty, PATH=f"{os.environ['PATH']}:{tmp_path}"))
        assert os.getcwd() == "/"  # noqa: PTH109
        return str(failure.value)

    assert supervised(scenario) == message


def test_a_missing_working_directory_is_a_start_error(tmp_path: Path) -> None:
    gone, file = tmp_path / "gone", tmp_path / "file"
    file.touch()

    def scenario() -> list[str]:
        messages = []
        for cwd in (gone, file):
            with pytest.raises(StartFailed) as failure:
                Process.start(command("true", cwd=cwd))
            messages.append(str(failure.value))
        return messages

    assert supervised(scenario) == [
        f"The working directory {str(gone)!r} cannot be entered: no such file or directory.",
        f"The working directory {str(file)!r} cannot be entered: not a directory.",
    ]


@pytest.mark.parametrize("pty", [False, True])
def test_no_descriptor_is_left_open(pty: bool) -> None:
    def scenario() -> list[str]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        taken: list[int] = []
        with pytest.raises(OSError):
            while True:
                taken.append(os.dup(0))
        messages = []
        for _ in range(2):  # with none and with one left the command cannot have what it needs
            with pytest.raises(StartFailed) as failure:
                Process.start(command("true", pty=pty))
            messages.append(str(failure.value))
            os.close(taken.pop())
        for fd in taken:
            os.close(fd)
        return messages

    first = "The command's output cannot be connected: too many open files."
    assert supervised(scenario) == [first, NO_TERMINAL if pty else first]


# Reading


@pytest.mark.parametrize("pty", [False, True])
def test_all_output_of_a_command_is_read(pty: bool) -> None:
    def scenario() -> bool:
        data = run(*program("numbered_lines.py", 50_000), pty=pty)[1][Stream.STDOUT]
        return data == b"".join(b"line %d\n" % number for number in range(1, 50_001))

    assert supervised(scenario)


@pytest.mark.parametrize("pty", [False, True])
def test_output_before_the_exit_is_read_after_it(pty: bool) -> None:
    def scenario() -> bytes:
        process = Process.start(command(*program("numbered_lines.py", 300), pty=pty))
        assert until(process.poll) == Exit(code=0, signal=None)
        data = read_all(process)[Stream.STDOUT]
        sweep(process)
        return data

    assert supervised(scenario) == b"".join(b"line %d\n" % number for number in range(1, 301))


@pytest.mark.parametrize("pty", [False, True])
def test_reading_does_not_block_and_reports_the_end(pty: bool) -> None:
    def scenario() -> bool:
        process = Process.start(command("sh", "-c", "printf 0123456789; exec sleep 600", pty=pty))
        (fd,) = (fd for fd, stream in process.outputs.items() if stream is Stream.STDOUT)
        select.select([fd], [], [], SECONDS)
        assert process.read(fd, 4) == b"0123"
        assert process.read(fd) == b"456789"
        assert process.read(fd) == b""
        process.signal(signal.SIGKILL)
        until(process.poll)
        until(lambda: process.read(fd) is None)
        assert fd not in process.outputs
        with pytest.raises(OSError):
            os.fstat(fd)
        sweep(process)
        return True

    assert supervised(scenario)


def test_a_command_may_close_and_reopen_its_terminal() -> None:
    def scenario() -> bytes:
        script = "exec <&- >&- 2>&-; sleep 0.2; echo still here > /dev/tty; exit 7"
        ended, data = run("sh", "-c", script, pty=True)
        assert ended == Exit(code=7, signal=None)
        return data[Stream.STDOUT]

    assert supervised(scenario) == b"still here\n"


def test_output_bytes_are_unchanged() -> None:
    for pty in (False, True):
        data = supervised(lambda pty=pty: run(*program("invalid_utf8.py"), pty=pty))[1][Stream.STDOUT]  # type: ignore[misc]
        assert data.splitlines()[1:3] == [b"lone \x80 byte", b"cut \xe2\x82"]
        assert b"\r" not in data


@pytest.mark.parametrize("pty", [False, True])
def test_a_grandchild_with_the_output_delays_neither_exit_nor_sweep(pty: bool) -> None:
    def scenario() -> bytes:
        process = Process.start(command(*program("holds_pipe.py", "--own-session"), pty=pty))
        assert until(process.poll) == Exit(code=0, signal=None)
        assert process.outputs
        assert len(process.remaining()) == 1
        until(process.sweep)
        data = read_all(process)[Stream.STDOUT]  # ends, now that nobody holds it any more
        sweep(process)
        return data

    assert supervised(scenario) == b"leaving\n"


def test_closed_outputs_end_a_command_that_writes() -> None:
    def scenario() -> Exit:
        process = Process.start(command("yes"))
        process.close()
        process.close()
        ended = until(process.poll)
        sweep(process)
        return ended

    assert supervised(scenario) == Exit(code=None, signal="SIGPIPE")


# Signals and the tree


def test_a_signal_reaches_the_whole_group() -> None:
    def scenario() -> Exit:
        process = Process.start(command("sh", "-c", "sleep 600 & echo ready; wait"))
        read_until(process, b"ready\n")
        assert len(process.remaining()) == 2
        process.signal(signal.SIGTERM)
        ended = until(process.poll)
        until(lambda: not process.remaining())
        process.signal(signal.SIGTERM)  # nobody is there to get it
        sweep(process)
        return ended

    assert supervised(scenario) == Exit(code=None, signal="SIGTERM")


def test_a_signal_reaches_the_group_after_its_leader_ended() -> None:
    def scenario() -> bool:
        process = Process.start(command("sh", "-c", "sleep 600 & exit 3"))
        assert until(process.poll) == Exit(code=3, signal=None)
        assert len(process.remaining()) == 1
        process.signal(signal.SIGTERM)
        until(lambda: not process.remaining())
        sweep(process)
        return True

    assert supervised(scenario)


def test_a_foreign_group_is_not_signalled() -> None:
    def scenario() -> Exit:
        process = Process.start(command(*program("setsid_grandchild.py")))
        until(process.poll)
        assert process.remaining()  # so that there is a tree, but nobody in the group
        stranger = os.posix_spawnp("sleep", ["sleep", "600"], os.environ, setsid=True)
        process.pid = stranger  # as if the number had been given away
        own, tree = process.remaining, process._tree()
        process._tree = lambda: [entry for entry in tree if entry.pid != stranger]  # type: ignore[method-assign]
        process.signal(signal.SIGKILL)
        del process._tree
        assert stranger in own()
        sweep(process)
        return process.poll() or Exit(None, None)

    assert supervised(scenario).signal == "SIGKILL"


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize("options", [(), ("--ignore-sigterm",), ("--clean-env",), ("--stay", "--ignore-sigterm")])
def test_nothing_survives_a_sweep(options: tuple[str, ...], pty: bool, tmp_path: Path) -> None:
    def scenario() -> bool:
        pid_file = tmp_path / "pid"
        process = Process.start(command(*program("setsid_grandchild.py", "--pid-file", pid_file, *options), pty=pty))
        until(pid_file.exists)
        grandchild = Identity.of(int(pid_file.read_text()))
        if "--stay" not in options:
            until(process.poll)
        assert grandchild.pid in process.remaining()
        sweep(process)
        return grandchild.alive()

    assert supervised(scenario) is False


def test_a_whole_tree_is_found_and_ended() -> None:
    def scenario() -> tuple[bool, int]:
        process = Process.start(command(*program("spawns_children.py", "--children", 3, "--depth", 2)))
        data = b""
        while data.count(b"\n") < 13:
            data += read_until(process, b"\n")
        found = set(process.remaining()) == {int(pid) for pid in data.split()}
        sweep(process)
        return found, len(data.split())

    assert supervised(scenario) == (True, 13)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_a_process_that_leaves_the_group_is_found() -> None:
    def scenario() -> bool:
        process = Process.start(command(*program("runaway.py")))
        read_until(process, b"running\n")
        until(process.poll)
        sweep(process)
        return True

    assert supervised(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_the_process_table_is_not_read_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario() -> bool:
        process = Process.start(command("true"))
        until(process.poll)
        monkeypatch.setattr(module, "read_table", lambda: pytest.fail("it was read"))
        process.signal(signal.SIGTERM)
        assert process.remaining() == []
        assert process.sweep()
        process.close()
        return True

    assert supervised(scenario)


def test_without_a_subreaper_the_marker_finds_detached_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_is_subreaper", lambda: False)

    def scenario() -> bool:
        pid_file = tmp_path / "pid"
        process = Process.start(command(*program("setsid_grandchild.py", "--pid-file", pid_file), marker=f"{tmp_path}:1"))
        until(process.poll)
        grandchild = Identity.of(int(pid_file.read_text()))
        assert process.remaining() == [grandchild.pid]
        sweep(process)
        return grandchild.alive()

    assert supervised(scenario) is False


# Identity


def test_an_identity_is_one_process_in_one_boot() -> None:
    own = Identity.of(os.getpid())
    assert own.alive()
    assert own.boot_id == boot_id()
    assert not Identity(own.pid, own.start_time + 0.01, own.boot_id).alive()
    assert not Identity(own.pid, own.start_time, "another boot").alive()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["sleep", "600"])
    identity = Identity.of(child.pid)
    assert identity.alive()
    child.kill()
    until(lambda: not identity.alive())
    assert Identity.of(child.pid) == identity  # still in the table
    child.wait()
    assert not identity.alive()
    with pytest.raises(ProcessLookupError):
        Identity.of(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process is no zombie")
def test_a_process_whose_main_thread_ended_is_alive() -> None:
    code = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
        "print('up', flush=True); ctypes.PyDLL(None).pthread_exit(None)"
    )

    def scenario() -> bool:
        process = Process.start(command("python3", "-c", code))
        read_until(process, b"up\n")
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z")
        alive = Identity.of(process.pid).alive() and process.remaining() == [process.pid]
        sweep(process)
        return alive

    assert supervised(scenario)


# After a supervisor was lost


def lose_supervisor(*argv: str, marker: str, pids: Path) -> list[Identity]:
    """Starts a command whose supervisor is killed once nothing but the processes in the file `pids` runs on. Returns those."""
    settled = pids.with_suffix(".settled")
    supervisor = os.fork()
    if supervisor == 0:
        try:
            os.setsid()
            become_subreaper()
            process = Process.start(command(*argv, marker=marker))
            until(lambda: pids.exists() and sorted(process.remaining()) == sorted(int(pid) for pid in pids.read_text().split()))
            settled.touch()
            signal.pause()
        finally:
            os._exit(1)
    try:
        until(settled.exists)
    finally:
        os.kill(supervisor, signal.SIGKILL)
        os.waitpid(supervisor, 0)
    return [Identity.of(int(pid)) for pid in pids.read_text().split()]


def test_strays_are_found_by_their_marker(tmp_path: Path) -> None:
    marker, pid_file = f"{tmp_path}:3", tmp_path / "pid"
    (stray,) = lose_supervisor(*program("setsid_grandchild.py", "--pid-file", pid_file), marker=marker, pids=pid_file)
    for other in (f"{tmp_path}:", f"{tmp_path}:33", f"{tmp_path}:4"):
        assert end_strays(marker=other, group=None) == 0
    assert stray.alive()
    assert end_strays(marker=marker, group=None) == 1
    assert not stray.alive()
    assert end_strays(marker=marker, group=None) == 0


def test_strays_without_a_marker_are_found_by_group_and_parent(tmp_path: Path) -> None:
    marker, pids = f"{tmp_path}:1", tmp_path / "pids"
    # The leader carries the marker. An orphan in its group does not, nor does a child that made a session of its own.
    code = (
        f"first=$(env -i sleep 600 > /dev/null & echo $!); env -i setsid sleep 600 & second=$!; "
        f"echo $$ $first $second > {pids}.partial; mv {pids}.partial {pids}; wait"
    )
    strays = lose_supervisor("sh", "-c", code, marker=marker, pids=pids)
    assert all(stray.alive() for stray in strays)
    assert end_strays(marker=marker, group=strays[0].pid) == 3
    assert not any(stray.alive() for stray in strays)


def test_a_recycled_group_id_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True, env={"PATH": os.environ["PATH"], MARKER: "another:1"})
    try:
        assert end_strays(marker=f"{tmp_path}:1", group=stranger.pid) == 0
        marker, pid_file = f"{tmp_path}:2", tmp_path / "pid"
        lose_supervisor(*program("setsid_grandchild.py", "--pid-file", pid_file), marker=marker, pids=pid_file)
        assert end_strays(marker=marker, group=stranger.pid) == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
