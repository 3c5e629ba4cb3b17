"""The events as npm's `socket.io-client` sees them: a client that nobody here wrote, over both transports, and across lost connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from handlers.contract.document import Contract
from support.server import RunningServer
from support.waiting import eventually

NODE_TOOLS = Path(__file__).parents[1] / "node" / "run.py"
PROGRAMS = NODE_TOOLS.parents[2] / "console" / "src" / "events" / "contract" / "programs"
PUBLISHED_URL = "http://127.0.0.1:8000"  # the console shows the address of its own server instead
UNKNOWN_JOB = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
OWN = ("connect", "disconnect", "connect_error", "ack")  # what watch.ts prints besides the events of the contract

pytestmark = [pytest.mark.builds, pytest.mark.timeout(300)]  # the first run on a machine installs the client


class Watch:
    """A running watch.ts and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def of(self, event: str) -> list[Any]:
        text = self._output.read_text(encoding="utf-8")
        printed = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [entry["payload"] for entry in printed if entry["event"] == event]

    def names(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._output.read_text(encoding="utf-8").splitlines()]

    def end(self) -> int:
        return self.process.wait(30)

    def lines(self, *, after_seq: int = 0) -> list[str]:
        """The log as it came; fails on a gap, a repeat or a wrong order."""
        lines: list[str] = []
        for payload in self.of("log"):
            assert payload["first_seq"] == after_seq + len(lines) + 1
            lines += payload["lines"]
        return lines

    def check(self) -> None:
        """Everything that came matches the contract."""
        contract = Contract.load()
        for line in self._output.read_text(encoding="utf-8").splitlines():
            event, payload = json.loads(line).values()
            if event == "ack":
                assert contract.ack_violations("subscribe", payload) == []
            elif event == "connect_error":
                assert contract.ack_violations("connect", payload) == []
            elif event not in OWN:
                assert contract.event_violations(event, payload) == []


@pytest.fixture
def watch(server: RunningServer, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """Start watch.ts: `watch(job_id, after_seq=0, transport="polling", options=["--all"], token="…")`."""
    watches: list[Watch] = []

    def start(
        job_id: str, *, after_seq: int = 0, transport: str = "websocket", options: tuple[str, ...] = (), token: str | None = None
    ) -> Watch:
        output = tmp_path / f"watch-{len(watches)}"
        program = NODE_TOOLS.with_name("watch.ts")
        command = [sys.executable, str(NODE_TOOLS), "node", str(program), server.url, job_id, str(after_seq), transport, *options]
        environment = {**os.environ, "RUNCAST_TOKEN": server.token if token is None else token}
        with output.open("wb") as stream:
            watches.append(Watch(subprocess.Popen(command, stdout=stream, env=environment), output))
        return watches[-1]

    yield start
    for started in watches:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        started.check()


def gated(gate: Path, script: str) -> str:
    """A script that waits for a file in its middle, so that a client can be there in time."""
    return f"while [ ! -e '{gate}' ]; do sleep 0.01; done; {script}"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_job_is_watched_from_beginning_to_end(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path, transport: str) -> None:
    gate = tmp_path / "gate"
    script = "echo '::progress 40 counting'; seq 1 3000; echo oops >&2; echo '::result {\"answer\": 42}'"
    job_id = server.shell(f"echo early; {gated(gate, script)}")
    seen = watch(job_id, transport=transport)
    eventually(lambda: seen.of("log"), "the client gets the first line")
    gate.touch()
    assert seen.end() == 0
    assert seen.of("connect") == [{"transport": transport}]
    assert sorted(seen.lines()) == sorted(["early", *map(str, range(1, 3001)), "oops"])
    assert {payload["stream"] for payload in seen.of("log")} == {"stdout", "stderr"}
    assert {"percent": 40, "message": "counting"}.items() <= seen.of("progress")[0].items()
    assert seen.of("status")[-1]["status"] == "completed"
    assert [(end["status"], end["log_lines"], end["result"]) for end in seen.of("complete")] == [("completed", 3002, {"answer": 42})]
    assert [name for name in seen.names() if name not in OWN][-1] == "complete"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_no_line_is_lost_or_repeated_across_lost_connections(server: RunningServer, watch: Callable[..., Watch], transport: str) -> None:
    job_id = server.shell("for i in $(seq 0 59); do seq $((i * 100 + 1)) $((i * 100 + 100)); sleep 0.02; done")
    seen = watch(job_id, transport=transport, options=("--drop-after", "700"))
    assert seen.end() == 0
    assert len(seen.of("connect")) >= 4
    assert seen.lines() == [str(number) for number in range(1, 6001)]
    assert len(seen.of("complete")) == 1


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_no_line_is_lost_or_repeated_when_the_api_is_killed(
    server: RunningServer, watch: Callable[..., Watch], tmp_path: Path, transport: str
) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"for i in $(seq 1 3000); do echo $i; done; {gated(gate, 'seq 3001 6000')}")
    seen = watch(job_id, transport=transport)
    eventually(lambda: seen.of("log"), "the client gets the first lines")
    api = server.part("api")
    for process in (*api.children(), api) if transport == "websocket" else api.children():
        process.kill()
    gate.touch()
    assert seen.end() == 0
    assert len(seen.of("connect")) >= 2
    assert seen.lines() == [str(number) for number in range(1, 6001)]
    assert [end["log_lines"] for end in seen.of("complete")] == [6000]
    eventually(lambda: server.part("api").is_running() and ready(server), "the API is back")


def ready(server: RunningServer) -> bool:
    try:
        return server.call("GET", "/health/ready").ok
    except requests.ConnectionError:
        return False


def test_the_log_of_an_ended_job_is_replayed_from_the_clients_line(server: RunningServer, watch: Callable[..., Watch]) -> None:
    job_id = server.shell("seq 1 50000")
    server.wait(job_id)
    seen = watch(job_id, after_seq=123)
    assert seen.end() == 0
    assert seen.of("ack")[0]["next_seq"] == 124
    assert seen.of("ack")[0]["job"]["status"] == "completed"
    assert seen.lines(after_seq=123) == [str(number) for number in range(124, 50001)]


def test_a_subscriber_of_all_jobs_sees_the_status_of_others(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    watched = server.shell(gated(gate, "true"))
    seen = watch(watched, options=("--all",))
    eventually(lambda: len(seen.of("ack")) == 2, "both subscriptions are acknowledged")
    other = server.shell("echo nobody reads this")
    server.wait(other)
    eventually(
        lambda: [s["status"] for s in seen.of("status") if s["job_id"] == other][-1:] == ["completed"], "the other job is seen to end"
    )
    gate.touch()
    assert seen.end() == 0
    assert [s["status"] for s in seen.of("status") if s["job_id"] == other] == ["pending", "running", "completed"]
    assert not [payload for event in ("log", "complete") for payload in seen.of(event) if payload["job_id"] == other]


@pytest.mark.parametrize("language", ["JavaScript", "Python"])
def test_connect_programs_of_the_console_run(server: RunningServer, tmp_path: Path, language: str) -> None:
    source = PROGRAMS / ("watch.mjs" if language == "JavaScript" else "watch.py")
    program = tmp_path / source.name
    text = source.read_text(encoding="utf-8")
    assert text.count(PUBLISHED_URL) == 1
    program.write_text(text.replace(PUBLISHED_URL, server.url), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(NODE_TOOLS.with_name("node_modules"))
    command = [sys.executable, str(NODE_TOOLS), "node"] if language == "JavaScript" else [sys.executable]
    job_id = server.shell("seq 1 10")
    done = subprocess.run([*command, str(program), server.token, job_id], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*map(str, range(1, 11)), "completed"]


def test_a_wrong_token_is_refused_with_a_problem(watch: Callable[..., Watch]) -> None:
    seen = watch(UNKNOWN_JOB, token="wrong")
    assert seen.end() == 1
    assert [refusal["data"]["type"] for refusal in seen.of("connect_error")] == ["urn:runcast:problem:unauthenticated"]
    assert seen.of("connect") == []


def test_an_unknown_job_is_refused_and_the_connection_stays(watch: Callable[..., Watch]) -> None:
    seen = watch(UNKNOWN_JOB)
    assert seen.end() == 1
    assert [answer["problem"]["type"] for answer in seen.of("ack")] == ["urn:runcast:problem:job-not-found"]
    assert seen.of("disconnect") == [{"reason": "io client disconnect"}]
