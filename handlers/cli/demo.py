"""`runcast demo`: creates, builds and launches a project over HTTP, on a temporary server that is removed afterwards.

It uses only what every client can use, and starts the server as a user does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import requests
from rich.console import Console
from rich.markup import escape

from handlers.cli.client import Client, read_token
from handlers.cli.follow import Event, follow
from handlers.cli.live import view_for, watch
from handlers.cli.terminal import output
from jobs.errors import OperatorError, RuncastError
from jobs.model import Json, Status
from jobs.settings import ENV_PREFIX

READY_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0
LAUNCH_TIMEOUT_SECONDS = 60.0
SERVER_LOG_LINES = 40
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY_URL = re.compile(r"^runcast is ready at (https?://\S+)", re.MULTILINE)
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)

PREFERRED_TEMPLATE = "small_editor"
PROJECT = "my_company.my_editor"


class DemoFailed(RuncastError):
    """A step of the demo failed."""


def run() -> int:
    """Runs the whole demo; returns 0 when every step worked. Leaves no process and no folder, even when it is interrupted."""
    console = output()
    with _signals_as_interrupts(), _temporary_folder() as folder, _server(folder) as url:
        token = read_token(folder / "data" / "admin-token")
        client = Client(url, token=token.value if token else None)
        with closing(client):
            console.print(f"A temporary server is ready at [bold]{url}[/].")
            _create(client, console)
            _build(client, console)
            _launch(client, console)
    _print_next_steps(console)
    return 0


def _create(client: Client, console: Console) -> None:
    creatable = [template["name"] for template in client.templates() if template["creatable"]]
    if not creatable:
        raise DemoFailed("The workspace has no template to create a project from.")
    template = PREFERRED_TEMPLATE if PREFERRED_TEMPLATE in creatable else creatable[0]
    _headline(console, 1, f"create {PROJECT} from the template {template}")
    _run_job(client, {"type": "create", "params": {"template": template, "name": PROJECT, "display_name": "My Editor"}}, console)


def _build(client: Client, console: Console) -> None:
    _headline(console, 2, f"build {PROJECT}")
    _run_job(client, {"type": "build", "params": {"project": PROJECT, "config": "release"}}, console)


def _launch(client: Client, console: Console) -> None:
    _headline(console, 3, f"launch {PROJECT}, open its page, and cancel the job")
    job = client.submit({"type": "launch", "params": {"app": f"{PROJECT}.kit"}})
    watch(_open_and_cancel(client, job["id"], console), view_for(console=console))
    ended = client.job(job["id"])
    if ended["status"] != Status.CANCELLED or not (ended["result"] or {}).get("url"):
        raise DemoFailed(f"The application could not be opened: its job has the status {ended['status']}.")


def _run_job(client: Client, submission: Mapping[str, Json], console: Console) -> None:
    """Submits a job and shows it until it ends. Raises DemoFailed when it did not complete."""
    job = client.submit(submission)
    if watch(follow(client, job["id"]), view_for(console=console)) != 0:
        raise DemoFailed(f"The {submission['type']} job did not complete.")


def _open_and_cancel(client: Client, job_id: str, console: Console) -> Generator[Event, None, None]:
    """The job's events. Once the application has reported its URL, opens its page and cancels the job."""
    deadline = time.monotonic() + LAUNCH_TIMEOUT_SECONDS
    opened = False
    for event in follow(client, job_id):
        yield event
        if opened or event.name == "complete":
            continue
        if url := (client.job(job_id)["result"] or {}).get("url"):
            console.print(_open_page(url))
            client.cancel(job_id)
            opened = True
        elif time.monotonic() > deadline:
            client.cancel(job_id)
            raise DemoFailed(f"The application did not report its URL within {LAUNCH_TIMEOUT_SECONDS:.0f} seconds.")


def _open_page(url: str) -> str:
    """Fetches the page of the launched application. Returns a line that describes the answer."""
    with requests.Session() as session:
        session.trust_env = False  # the application is on this machine, so proxies of the environment do not apply
        try:
            answer = session.get(url, timeout=10)
        except requests.RequestException as error:
            raise DemoFailed(f"The launched application does not answer at {url}.") from error
    if not answer.ok:
        raise DemoFailed(f"The launched application answers {answer.status_code} at {url}.")
    title = TITLE.search(answer.text)
    page = f", the page “{escape(title[1].strip())}”" if title else ""
    return f"[green]GET {url} gives {answer.status_code}{page}, {len(answer.content)} bytes.[/] Now the job is cancelled."


def _headline(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number} of 3[/] [bold]{escape(text)}[/]")


def _print_next_steps(console: Console) -> None:
    console.print("\n[bold green]Everything works[/], and everything that the demo started has been stopped. Next steps:")
    console.print("  make serve                      start a permanent server at http://127.0.0.1:8000")
    console.print("  http://127.0.0.1:8000/api/docs  try every call (Swagger UI; press Authorize first)")
    console.print("  .venv/bin/runcast token         print the token to authorize with")
    console.print("  .venv/bin/runcast --help        the same calls from the command line")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = tempfile.TemporaryDirectory(prefix="runcast-demo-")
    try:
        yield Path(folder.name)
    finally:
        with _interrupts_deferred():
            folder.cleanup()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Starts a server that keeps everything in `folder`, yields its URL, and stops it at the end of the context."""
    log = folder / "server.log"
    command = [sys.executable, "-P", "-m", "handlers.cli.main", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches only the demo, which then stops the server in order.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        url = _ready_url(server, log)
        try:
            yield url
        except RuncastError as error:
            # The folder is about to be removed, and the cause may be recorded only in the server's log.
            raise DemoFailed(f"{error}\nThe server's log:\n{_last_lines(log)}") from error
    finally:
        _stop(server)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-SERVER_LOG_LINES:])


def _ready_url(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8", errors="replace")
        if ready := READY_URL.search(text):
            return ready[1]
        if server.poll() is not None:
            raise OperatorError(f"The server exited before it was ready:\n{text.strip()}")
        time.sleep(0.02)
    raise OperatorError(f"The server was not ready within {READY_TIMEOUT_SECONDS:.0f} seconds:\n{log.read_text(errors='replace').strip()}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stops the server. Kills it, and every process that it started, if that takes too long."""
    with _interrupts_deferred():
        try:
            children = psutil.Process(server.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        _, alive = psutil.wait_procs(children, timeout=1)
        for process in alive:
            process.kill()


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) interrupt as Ctrl-C does, so that the cleanup runs."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Keeps signals away from a cleanup, which they would leave half done. One that arrived interrupts when the cleanup is over."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and sys.exception() is None:  # an error that is on its way says more
        raise KeyboardInterrupt
