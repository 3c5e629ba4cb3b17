"""Other users of the machine: what they can read of the service, and what command lines, environments and logs tell them."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from chaos.attacks.row import Attack, Row, Target
from support.server import command, start_server

NOBODY = 65534
GIVEN = "rc_given-by-the-operator-Hq3Zt8"
"""An admin token that the operator chose, by RUNCAST_TOKEN."""


def prepare(target: Target) -> None:
    """Everybody may enter what the data folders lie in, so that nothing else than their own modes keeps others out."""
    target.surroundings.folder.chmod(0o755)
    start_second(target)
    target.secrets.append(GIVEN)
    target.server.wait(target.server.shell("echo something private"))
    target.things["token"] = target.token("ci", "jobs:read", "jobs:write")["token"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def private_folder(target: Target) -> None:
    assert mode(target.surroundings.database.parent) == 0o700


def private_files(target: Target) -> None:
    """Also where the folder is not: the database's own files, those beside it, and the token."""
    data = target.surroundings.database.parent
    files = {path.name: mode(path) for path in data.iterdir() if path.is_file()}
    assert {"runcast.db", "runcast.db-wal", "runcast.db-shm", "admin-token"} <= set(files), files
    assert set(files.values()) == {0o600}, files


def as_somebody_else(what: Callable[[Target], Path]) -> Callable[[Target], None]:
    """As another user, really; only root can become one, so that elsewhere the modes have to do."""

    def run(target: Target) -> None:
        path = what(target)
        if os.geteuid() == 0:
            assert not read_as_nobody(target, path), f"another user can read {path.name}"
        assert not mode(path) & 0o077

    return run


def read_as_nobody(target: Target, path: Path) -> bytes:
    """What another user gets of a file or folder. A file that everybody may read, and which lies beside the data folder, is one it gets."""
    beside = target.surroundings.folder / "for-everybody"
    beside.write_text("for everybody")
    beside.chmod(0o644)
    assert _as_nobody(target, "cat", beside) == b"for everybody"
    return _as_nobody(target, "ls" if path.is_dir() else "cat", path)


def _as_nobody(target: Target, reader: str, path: Path) -> bytes:
    # From within the folder, because others cannot enter those above it: they belong to whoever runs the tests.
    folder = target.surroundings.folder
    line = [reader, os.path.relpath(path, folder)] if path.is_relative_to(folder) else [reader, str(path)]
    return subprocess.run(line, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, cwd=folder, check=False).stdout


def start_second(target: Target) -> None:
    """A server whose data folder was there before, and open to everybody; with a database elsewhere, and a token that the operator gave."""
    folder, elsewhere = target.surroundings.folder / "second", target.surroundings.folder / "elsewhere"
    (folder / "data").mkdir(mode=0o755, parents=True)
    elsewhere.mkdir(mode=0o755)
    stack = target.things["stack"] = ExitStack()
    options: dict[str, Any] = {"database_url": f"sqlite:///{elsewhere / 'jobs.db'}", "environment": {"RUNCAST_TOKEN": GIVEN}}
    (folder / "data" / "admin-token").write_text(GIVEN)  # the tests look for it there; the server does not
    (folder / "data" / "admin-token").chmod(0o600)
    server = target.things["second"] = stack.enter_context(start_server(folder, check=False, **options))
    server.wait(server.run("true"))


def end_second(target: Target) -> None:
    target.things["stack"].close()


def database_elsewhere(target: Target) -> None:
    """A folder that everybody may enter; the database in it is still the server's alone."""
    folder = target.surroundings.folder / "elsewhere"
    files = {path.name: mode(path) for path in folder.iterdir()}
    assert files == dict.fromkeys(["jobs.db", "jobs.db-wal", "jobs.db-shm"], 0o600), files
    if os.geteuid() == 0:
        assert b"jobs.db" in read_as_nobody(target, folder)
        assert not [name for name in files if read_as_nobody(target, folder / name)]


def open_folder(target: Target) -> None:
    """It keeps its mode, the operator is told, and what the server puts into it is private all the same."""
    data = target.things["second"].folder / "data"
    assert mode(data) == 0o755
    assert "can be read by others" in target.things["second"].output
    private = {path.name: mode(path) for path in data.iterdir()}
    assert private.keys() >= {"workspace"} and not [name for name in private if private[name] & 0o077], private
    if os.geteuid() == 0:
        assert b"workspace" in read_as_nobody(target, data)
        assert not [name for name in private if read_as_nobody(target, data / name)]


COMMANDS = (
    ["list"],
    ["submit", "task", "task=shell", "script=sleep 0.2", "--follow"],
    ["token", "create", "x", "--scope", "admin"],
)


def command_lines(target: Target) -> None:
    """Of every process on the machine, while the service works and somebody uses its command line."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for process in psutil.process_iter():
                with suppress(psutil.Error):  # gone meanwhile
                    seen.add(" ".join(process.cmdline()))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        environment = {"PATH": os.environ["PATH"], "RUNCAST_TOKEN": target.server.token, "HOME": str(target.server.folder)}
        for line in COMMANDS:
            said = subprocess.run(
                [*command(line[0]), *line[1:], "--url", target.server.url], env=environment, capture_output=True, check=False
            )
            assert said.returncode == 0, said.stderr
        target.secrets.append(said.stdout.decode().strip())
    finally:
        over.set()
        looker.join()
    for part in (*(" ".join(line) for line in COMMANDS), "sleep 0.2"):
        assert [line for line in seen if part in line], f"{part!r} was not looked at"
    assert not [line for line in seen if any(secret in line for secret in target.secrets)], "a token is on a command line"


def environments_of_jobs(target: Target) -> None:
    job_id = target.server.shell("cat /proc/$$/environ | tr '\\0' '\\n'; env")
    target.server.wait(job_id)
    log = target.server.raw_log(job_id)
    assert "PATH=" in log
    assert not [secret for secret in target.secrets if secret in log]
    assert [line for line in log.splitlines() if line.startswith("RUNCAST_") and not line.startswith("RUNCAST_JOB=")] == []


def descriptors_of_jobs(target: Target) -> None:
    """A job inherits nothing that is open: no database, no socket, no lifeline."""
    job_id = target.server.shell("ls -l /proc/$$/fd | sed 's/.* -> //'")
    target.server.wait(job_id)
    opened = [line for line in target.server.raw_log(job_id).splitlines() if "/" in line or ":" in line]
    assert {line.partition(":")[0].partition("[")[0] for line in opened if line != "/dev/null"} == {"pipe"}, opened


def token_given_by_the_operator(target: Target) -> None:
    """It is in the environment of the service, which others cannot read, and nowhere else."""
    server = target.things["second"]
    job_id = server.shell("env; cat /proc/$$/environ")
    server.wait(job_id)
    assert GIVEN not in server.raw_log(job_id)
    assert not [process for process in psutil.process_iter(["cmdline"]) if GIVEN in " ".join(process.info["cmdline"] or ())]
    assert GIVEN not in server.output
    assert GIVEN.encode() not in b"".join(path.read_bytes() for path in (target.surroundings.folder / "elsewhere").iterdir())
    if os.geteuid() == 0:
        about = Path(f"/proc/{server.part('api').pid}")
        assert read_as_nobody(target, about / "cmdline")
        assert not read_as_nobody(target, about / "environ")


def attacks() -> Iterator[Attack]:
    yield Attack("look into the data folder", private_folder)
    yield Attack("read files that are opened beside it", private_files)
    places: dict[str, Callable[[Target], Path]] = {
        "the data folder": lambda target: target.surroundings.database.parent,
        "the token's file": lambda target: target.surroundings.database.parent / "admin-token",
        "the database": lambda target: target.surroundings.database,
        "the database's log": lambda target: target.surroundings.database.with_name("runcast.db-wal"),
    }
    for name, what in places.items():
        yield Attack(f"read {name} as another user", as_somebody_else(what))
    yield Attack("read a database in an open folder", database_elsewhere)
    yield Attack("read a data folder that was open before", open_folder)
    yield Attack("find a token on a command line", command_lines, changes=True)
    yield Attack("find a token in the environment of a job", environments_of_jobs, changes=True)
    yield Attack("use what a job inherited", descriptors_of_jobs, changes=True)
    yield Attack("find the operator's token", token_given_by_the_operator)


SCENARIOS = (
    Row(
        name="attack-neighbours",
        fault="other users of the machine: files, command lines, environments, logs",
        attacks=list(attacks()),
        prepare=prepare,
        options={"slots": 2},
        check=end_second,
    ).scenario(),
)
