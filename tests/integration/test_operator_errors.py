"""An operator's mistakes: one clear line on standard error, exit status 2, no traceback, and no process left behind."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import websocket

from jobs.bootstrap import open_database
from jobs.errors import Unauthenticated
from jobs.settings import Settings
from jobs.store.tokens import ADMIN, Tokens
from support.raw_socket import raw_socket
from support.server import RunningServer, command, start_server
from support.waiting import eventually

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """Where the operator works. `make` gives the path of a new file."""

    folder: Path
    taken_port: int

    def make(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Mistake:
    options: Callable[[Place], dict[str, object]]
    says: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def tasks(text: str) -> Callable[[Place], dict[str, object]]:
    return lambda place: {"tasks": place.make("tasks.toml", text)}


def _newer_database(place: Place) -> dict[str, object]:
    database = open_database(f"sqlite:///{place.folder / 'runcast.db'}")
    database.migrate()
    database.close()
    with closing(sqlite3.connect(place.folder / "runcast.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return {"data_dir": place.folder}


def _database_that_is_none(place: Place) -> dict[str, object]:
    (place.folder / "runcast.db").write_bytes(b"this is no database, whatever its name says" * 100)
    return {"data_dir": place.folder}


def _token_file_of_two_lines(place: Place) -> dict[str, object]:
    place.make("admin-token", "one\ntwo\n")
    return {"data_dir": place.folder}


LINT = '[tasks.lint]\nargv = ["ruff", "check"]\n'
MISTAKES: dict[str, Mistake] = {
    "an unknown key in a task": Mistake(tasks(LINT + 'colour = "red"'), ("tasks.toml", "lint", "colour")),
    "a recipe without argv": Mistake(tasks("[tasks.lint]\ntitle = 'Lint'"), ("tasks.toml", "lint", "argv")),
    "an invalid JSON Schema": Mistake(tasks(LINT + '[tasks.lint.inputs]\ntype = "objekt"'), ("lint", "inputs")),
    "a folder outside the workspace": Mistake(tasks(LINT + 'cwd = "../.."'), ("lint", "cwd")),
    "broken TOML": Mistake(tasks("[tasks.lint\nargv = 1"), ("tasks.toml", "line 1")),
    "a tasks file that is missing": Mistake(lambda place: {"tasks": place.folder / "none.toml"}, ("none.toml",)),
    "a workspace that does not exist": Mistake(lambda place: {"workspace": place.folder / "nowhere"}, ("workspace", "nowhere")),
    "a port in use": Mistake(lambda place: {"port": place.taken_port}, ("port", "in use")),
    "an address that is not ours": Mistake(lambda _: {"host": "203.0.113.7", "allow_host": "x"}, ("203.0.113.7",)),
    "a data folder under a file": Mistake(lambda place: {"data_dir": place.make("file", "") / "data"}, ("data folder", "file/data")),
    "a data folder that is a file": Mistake(lambda place: {"data_dir": place.make("file", "")}, ("data folder", "file")),
    "a data folder that cannot be made": Mistake(lambda _: {"data_dir": "/proc/runcast"}, ("data folder", "/proc/runcast")),
    "a data folder that is not writable": Mistake(lambda _: {"data_dir": "/proc/1"}, ("data folder", "/proc/1")),
    "a database of a newer version": Mistake(_newer_database, ("newer version", "9999")),
    "a database that is none": Mistake(_database_that_is_none, ("database",)),
    "a database URL that is none": Mistake(lambda _: {"database_url": "nonsense"}, ("--database-url",)),
    "a database that no other process sees": Mistake(lambda _: {"database_url": "sqlite://"}, ("--database-url", "file")),
    "a token that is a space": Mistake(lambda _: {}, ("RUNCAST_TOKEN",), environment={"RUNCAST_TOKEN": " "}),
    "a token of two lines": Mistake(lambda _: {}, ("RUNCAST_TOKEN",), environment={"RUNCAST_TOKEN": "two\nlines"}),
    "a token file of two lines": Mistake(_token_file_of_two_lines, ("token file", "admin-token")),
    "all addresses without saying the hosts": Mistake(lambda _: {"host": "0.0.0.0"}, ("0.0.0.0", "--allow-host")),
    "no slots": Mistake(lambda _: {"slots": 0}, ("--slots",)),
    "a port that there cannot be": Mistake(lambda _: {"port": 70000}, ("--port",)),
    "a number that is none": Mistake(lambda _: {"slots": "many"}, ("--slots", "many")),
    "a variable with nothing but a comma": Mistake(lambda _: {}, ("RUNCAST_QUEUE", "','"), environment={"RUNCAST_QUEUE": ","}),
    "a queue without a name": Mistake(lambda _: {"queue": ""}, ("--queue",)),
    "two queues as one": Mistake(lambda _: {"queue": "a,b"}, ("--queue", "a,b")),
    "a variable that makes no sense": Mistake(lambda _: {}, ("slots", "many"), environment={"RUNCAST_SLOTS": "many"}),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Place(tmp_path, listener.getsockname()[1])


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_an_operator_error_is_one_clear_line(mistake: Mistake, place: Place) -> None:
    options = {"port": 0, "data_dir": place.folder / "data", **mistake.options(place)}
    before = set(psutil.pids())
    environment = {**os.environ, **mistake.environment, "COLUMNS": "200"}
    ended = subprocess.run(command("serve", **options), capture_output=True, text=True, timeout=50, env=environment)
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if not USAGE.match(line)]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    for part in mistake.says:
        assert part.lower() in lines[0].lower()
    assert ended.returncode == 2
    assert not [pid for pid in set(psutil.pids()) - before if _mentions(pid, str(place.folder))]


USAGE = re.compile(r"Usage: |Try 'runcast serve |$")
"""What the command line adds when an option itself is wrong."""


def _mentions(pid: int, folder: str) -> bool:
    try:
        process = psutil.Process(pid)
        return folder in " ".join(process.cmdline()) or folder in process.environ().get("RUNCAST_SETTINGS", "")
    except (psutil.Error, OSError):
        return False


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose data folder others want too. They are refused, so that it stays as it is."""
    with start_server(tmp_path_factory.mktemp("serving"), slots=1) as server:
        (server.folder / "link").symlink_to("data")
        yield server


@pytest.mark.parametrize("data_dir", ["data", "{folder}/data", "link"])
@pytest.mark.parametrize("name", ["serve", "worker"])
def test_a_second_worker_on_one_data_folder_is_refused(serving: RunningServer, name: str, data_dir: str) -> None:
    server = serving
    options = {"data_dir": data_dir.format(folder=server.folder), **({"port": 0} if name == "serve" else {})}
    line, environment = command(name, **options), {**os.environ, "RUNCAST_TOKEN": "another-token"}
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, cwd=server.folder, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"runcast: Another worker serves these queues of the data folder \S+ already; .*\n", done.stderr)
    assert _admin_token_is(server, server.token)
    assert server.wait(server.shell("true"))["status"] == "completed"
    assert server.call("GET", "/health/ready").status_code == 200


@pytest.fixture(scope="module")
def with_given_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    environment = {"RUNCAST_TOKEN": "the-operators-token"}
    with start_server(tmp_path_factory.mktemp("given"), slots=1, environment=environment) as server:
        yield server


@pytest.mark.parametrize(
    ("queue", "environment"),
    [("gpu-1", {}), ("gpu-2", {"RUNCAST_TOKEN": "another-token"})],
    ids=["no token", "another token"],
)
def test_a_worker_of_another_queue_leaves_the_token_unchanged(
    with_given_token: RunningServer, queue: str, environment: dict[str, str]
) -> None:
    server = with_given_token
    line = command("worker", data_dir=server.folder / "data", queue=queue)
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}) as worker:
        try:
            eventually(lambda: queue in server.call("GET", "/workers").text, "the worker serves its queue")
            assert _admin_token_is(server, "the-operators-token")
            assert not (server.folder / "data" / "admin-token").exists()
        finally:
            worker.terminate()


def test_a_second_server_without_a_worker_replaces_the_token(
    make_server: Callable[..., RunningServer],
) -> None:
    server = make_server(slots=1)
    with raw_socket(server) as watcher:
        watcher.send("subscribe", {"all": True})
        assert watcher.wait("ack") == [{"ok": True}]
        second = make_server(data_dir=server.folder / "data", no_worker=True, environment={"RUNCAST_TOKEN": "another-token"})
        assert second.wait(second.shell("true"))["status"] == "completed"
        assert watcher.wait("error")["problem"]["status"] == 401
        with pytest.raises((websocket.WebSocketException, AssertionError)):  # closed
            watcher.receive()
    eventually(lambda: server.call("GET", "/whoami").status_code == 401, "the old token is refused")
    server.session.headers["Authorization"] = "Bearer another-token"
    assert server.call("GET", "/whoami").status_code == 200


def _admin_token_is(server: RunningServer, token: str) -> bool:
    """As the store has it, which a server may remember otherwise for a moment."""
    database = open_database(Settings(data_dir=server.folder / "data").url)
    try:
        return Tokens(database).authenticate(token).name == ADMIN
    except Unauthenticated:
        return False
    finally:
        database.close()
