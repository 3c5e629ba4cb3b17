"""A real `runcast serve` in a folder of its own, and what tests do with one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import requests

from jobs.bootstrap import open_database
from support.events import EventLog, OrderedClient
from support.waiting import eventually

TASKS = Path(__file__).with_name("tasks.toml")
PROGRAMS = Path(__file__).parents[1] / "programs"
READY = re.compile(r"^runcast is ready at (?P<url>\S+)", re.MULTILINE)
RUNCAST = Path(sys.executable).with_name("runcast")
ENDED = ("completed", "failed", "cancelled")


@dataclass
class RunningServer:
    """A server as its clients see it, and as its operator does."""

    folder: Path
    process: subprocess.Popen[bytes]
    url: str
    token: str
    session: requests.Session = field(default_factory=requests.Session)
    allowed_errors: list[str] = field(default_factory=list)
    """Parts of log lines at level ERROR that the test provokes."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.folder / 'data' / 'runcast.db'}"

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    # -- HTTP -------------------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request with the admin token; `path` starts after `/api`."""
        options.setdefault("timeout", 20)
        return self.session.request(method, f"{self.url}/api{path}", **options)

    def submit(self, submission: dict[str, Any], **options: Any) -> dict[str, Any]:
        answer = self.call("POST", "/jobs/submit", json=submission, **options)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def run(self, task: str, **inputs: Any) -> str:
        """Submit a task and give the job's id."""
        return str(self.submit(task_submission(task, **inputs))["id"])

    def shell(self, script: str, **options: Any) -> str:
        """Submit a shell script (on pipes) and give the job's id; `options` are of the submission."""
        return str(self.submit({**task_submission("shell", script=script), **options})["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(self, job_id: str, *, seconds: float = 20) -> dict[str, Any]:
        """The job once it has ended."""

        def ended() -> dict[str, Any] | None:
            job = self.call("GET", f"/jobs/{job_id}", params={"wait": 5}).json()
            return job if job["status"] in ENDED else None

        return eventually(ended, f"job {job_id} ends", seconds=seconds)

    def wait_for_log(self, job_id: str, text: str, *, seconds: float = 15) -> None:
        eventually(lambda: text in self.raw_log(job_id), f"{text!r} is in the log of {job_id}", seconds=seconds)

    def raw_log(self, job_id: str) -> str:
        return self.call("GET", f"/jobs/{job_id}/log", headers={"Accept": "text/plain"}).content.decode(errors="replace")

    # -- events -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def connect(self, *, transport: str = "websocket", token: str | None = None, **options: Any) -> Iterator[EventLog]:
        """A python-socketio client that records, and checks against the contract, every event that it gets."""
        client = OrderedClient(reconnection=False, **options)
        events = EventLog(client)
        client.connect(self.url, auth={"token": token or self.token}, transports=[transport])
        try:
            yield events
        finally:
            # While it still sends something, the library forgets to say goodbye, and a long poll waits for the next ping.
            engine = client.eio
            eventually(lambda: engine.state != "connected" or not engine.queue.unfinished_tasks, "the client has sent everything")
            client.disconnect()
            events.close()

    # -- processes --------------------------------------------------------------------------------------------------------

    def part(self, module: str) -> psutil.Process:
        """The main process of the `api` or the `worker`."""
        name = {"api": "handlers.server.api", "worker": "handlers.server.worker"}[module]
        return eventually(lambda: next((c for c in psutil.Process(self.pid).children() if _runs(c, name)), None), f"{name} runs")

    def stop(self, *, signum: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask it to stop; gives its exit status."""
        self.session.close()  # it would wait a while for the connection's next request
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(seconds)

    def assert_clean(self) -> None:
        """It said nothing of an error that nobody provoked, and never lost its temper."""
        lines = [line for line in self.output.splitlines() if " ERROR " in line or "Traceback" in line or "Warning" in line]
        surprises = [line for line in lines if not any(allowed in line for allowed in self.allowed_errors)]
        assert not surprises, self.output[-8000:]


def task_submission(task: str, **inputs: Any) -> dict[str, Any]:
    return {"type": "task", "params": {"task": task, "inputs": inputs}}


@cache
def empty_database() -> bytes:
    """A file with the current schema, made once by the real migration."""
    with TemporaryDirectory() as folder, closing(open_database(f"sqlite:///{folder}/runcast.db")) as database:
        database.migrate()
        database.close()
        return (Path(folder) / "runcast.db").read_bytes()


def provide_empty_database(data: Path) -> None:
    """As a start leaves it, so that the next one has nothing to migrate."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (file := data / "runcast.db").exists():
        file.touch(mode=0o600)
        file.write_bytes(empty_database())


@contextmanager
def start_server(
    folder: Path,
    *,
    check: bool = True,
    migrated: bool = True,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    program: Path = RUNCAST,
    **options: Any,
) -> Iterator[RunningServer]:
    """Start `runcast serve` on a free port and stop it at the end, with everything that it started.

    Unless `migrated` is false, it finds an empty database with the current schema in a new data folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if migrated and "database_url" not in options:
        provide_empty_database(Path(options.get("data_dir", folder / "data")))
    options = {"port": 0, "data_dir": folder / "data", "tasks": TASKS, "validate_events": True, "validate_answers": True, **options}
    # Its own session: what it starts is found by it, and Ctrl-C in the terminal of the tests is not for it.
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            [str(program), *command("serve", **options)[1:]],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PROGRAMS": str(PROGRAMS), **(environment or {})},
            cwd=cwd,
        )
    started = (folder / "output").stat().st_size
    try:
        match = eventually(lambda: _ready(folder, process, started), "the server is ready", seconds=30)
        token = (environment or {}).get("RUNCAST_TOKEN") or (Path(str(options["data_dir"])) / "admin-token").read_text().strip()
        running = RunningServer(folder, process, match["url"], token)
        running.session.headers["Authorization"] = f"Bearer {token}"
        with running.session:
            yield running
        running.stop()
        if check:
            running.assert_clean()
    finally:
        _end(process)


def command(name: str, **options: Any) -> list[str]:
    """The command line; `keep_jobs=True` is `--keep-jobs`, a list repeats the option, None leaves it out."""
    line = [str(RUNCAST), name]
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        values = value if isinstance(value, list | tuple) else [value]
        line += [part for one in values for part in ([flag] if one is True else [] if one is None or one is False else [flag, str(one)])]
    return line


def _ready(folder: Path, process: subprocess.Popen[bytes], started: int) -> re.Match[str] | None:
    text = (folder / "output").read_text(errors="replace")[started:]
    assert process.poll() is None, f"the server ended:\n{text}"
    return READY.search(text)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False
