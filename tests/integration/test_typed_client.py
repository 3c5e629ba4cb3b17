"""The typed client as its users run it: compiled, under Node, against a real server that is killed and behind a line that is cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from support.console import built
from support.cut import cut_between
from support.server import RunningServer
from support.waiting import eventually

NODE_TOOLS = Path(__file__).parents[1] / "node" / "run.py"
UNKNOWN_JOB = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "polling"])

pytestmark = [pytest.mark.builds, pytest.mark.timeout(300)]  # the first run on a machine installs the packages


class Watch:
    """A running watch-job.ts and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def events(self) -> list[dict[str, Any]]:
        text = self._output.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["type"] == kind]

    def states(self) -> list[str]:
        return [state for state, _ in groupby(event["state"] for event in self.of("connection"))]

    def end(self) -> int:
        return self.process.wait(60)

    def numbered(self, *, after_seq: int = 0) -> list[str]:
        """The lines as they came; fails on a gap that was not told, a repeat or a wrong order."""
        lines: list[str] = []
        seen = after_seq
        for event in self.events():
            if event["type"] == "gap":
                assert event["first_seq"] == seen + 1
                seen = event["last_seq"]
            elif event["type"] == "log":
                assert event["first_seq"] == seen + 1
                seen += len(event["lines"])
                lines += event["lines"]
        return lines


@pytest.fixture(scope="module", autouse=True)
def client() -> None:
    built()


@pytest.fixture
def watch(server: RunningServer, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """Start watch-job.ts: `watch(job_id, "--after-seq", "5", url=…, token=…)`."""
    watches: list[Watch] = []

    def start(job_id: str, *options: str, url: str | None = None, token: str | None = None) -> Watch:
        output = tmp_path / f"watch-{len(watches)}"
        program = NODE_TOOLS.with_name("watch-job.ts")
        command = [sys.executable, str(NODE_TOOLS), "node", str(program), url or server.url, job_id, *options]
        environment = {**os.environ, "RUNCAST_TOKEN": token or server.token}
        with output.open("wb") as stream:
            watches.append(Watch(subprocess.Popen(command, stdout=stream, env=environment), output))
        return watches[-1]

    yield start
    for started in watches:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


def gated(gate: Path, script: str) -> str:
    return f"while [ ! -e '{gate}' ]; do sleep 0.01; done; {script}"


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


@TRANSPORTS
def test_a_job_is_watched_to_its_end(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path, transport: str) -> None:
    gate = tmp_path / "gate"
    script = "echo '::progress 40 counting'; seq 1 3000; echo '::result {\"answer\": 42}'; exit 3"
    job_id = server.shell(gated(gate, script))
    seen = watch(job_id, "--transport", transport)
    eventually(lambda: seen.states() == ["connecting", "live"], "the client is live")
    gate.touch()
    assert seen.end() == 0
    assert seen.numbered() == numbers(1, 3000)
    assert [event["job"]["status"] for event in seen.of("job")] == ["running"]
    assert {"percent": 40, "message": "counting"}.items() <= seen.of("progress")[0].items()
    assert [event["status"] for event in seen.of("status")] == ["failed"]
    assert [event["problem"]["type"] for event in seen.of("error")] == ["urn:runcast:problem:job-failed"]
    (end,) = seen.of("end")
    assert (end["status"], end["exit_code"], end["log_lines"], end["result"]) == ("failed", 3, 3000, {"answer": 42})
    assert seen.events()[-1] == end


@TRANSPORTS
def test_no_line_is_lost_or_repeated_when_the_api_is_killed(
    server: RunningServer, watch: Callable[..., Watch], tmp_path: Path, transport: str
) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"for i in $(seq 1 3000); do echo $i; done; {gated(gate, 'seq 3001 6000')}")
    seen = watch(job_id, "--transport", transport)
    eventually(lambda: seen.of("log"), "the client gets the first lines")
    api = server.part("api")
    for process in (*api.children(), api):
        process.kill()
    eventually(lambda: "lost" in seen.states(), "the client tells that the connection is lost")
    gate.touch()
    assert seen.end() == 0
    assert seen.numbered() == numbers(1, 6000)
    assert seen.states()[-2:] == ["catching-up", "live"]
    assert all(event["reason"] for event in seen.of("connection") if event["state"] == "lost")
    assert len(seen.of("job")) >= 2
    assert [end["log_lines"] for end in seen.of("end")] == [6000]
    eventually(lambda: answers(server), "the API is back")


def answers(server: RunningServer) -> bool:
    try:
        return server.call("GET", "/health/ready").ok
    except requests.ConnectionError:
        return False


@TRANSPORTS
def test_no_line_is_lost_or_repeated_across_lost_connections(server: RunningServer, watch: Callable[..., Watch], transport: str) -> None:
    job_id = server.shell("for i in $(seq 0 99); do seq $((i * 100 + 1)) $((i * 100 + 100)); sleep 0.02; done")
    with cut_between(urlsplit(server.url).port or 0) as line:
        seen = watch(job_id, "--transport", transport, url=f"http://127.0.0.1:{line.port}")
        for times in range(1, 4):
            eventually(lambda times=times: len(seen.of("job")) >= times and seen.of("log"), "it is connected")  # type: ignore[misc]
            line.cut()
            eventually(lambda times=times: seen.states().count("lost") >= times, "the loss is told")  # type: ignore[misc]
            line.mend()
        assert seen.end() == 0
    assert seen.numbered() == numbers(1, 10000)
    assert len(seen.of("end")) == 1


def test_a_slow_reader_fills_no_memory_and_misses_nothing(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path) -> None:
    awake = tmp_path / "awake"
    text = "x" * 1000
    job_id = server.shell(f"yes {text} | head -n 60000")  # 60 MB
    server.wait(job_id)
    with cut_between(urlsplit(server.url).port or 0) as line:
        url = f"http://127.0.0.1:{line.port}"
        seen = watch(job_id, "--sleep-after", "1", "--sleep-until", str(awake), "--transport", "websocket", url=url)
        eventually(lambda: line.carried > 10_000_000, "it reads ahead")
        carried = steady(lambda: line.carried)
        awake.touch()
        assert seen.end() == 0
    assert carried < 40_000_000
    assert seen.of("awake")[0]["memory"] < 60_000_000
    assert seen.numbered() == [text] * 60_000
    assert seen.states() == ["connecting", "catching-up", "live"]


def steady(value: Callable[[], int]) -> int:
    """The value once it has not changed for some time."""
    seen: list[int] = []

    def rests() -> bool:
        seen.append(value())
        return len(seen) > 50 and len(set(seen[-50:])) == 1

    eventually(rests, "nothing more comes")
    return seen[-1]


def test_a_gap_made_by_the_cap_is_reported(make_server: Callable[..., RunningServer], watch: Callable[..., Watch]) -> None:
    server = make_server(log_cap=100_000)
    job_id = server.shell("seq 1 100000")
    server.wait(job_id)
    dropped = eventually(lambda: server.job(job_id)["log"]["dropped_lines"], "the log is cut")
    seen = watch(job_id, url=server.url, token=server.token)
    assert seen.end() == 0
    (gap,) = seen.of("gap")
    assert gap["last_seq"] - gap["first_seq"] + 1 == dropped
    assert seen.numbered() == numbers(1, gap["first_seq"] - 1) + numbers(gap["last_seq"] + 1, 100_000)


def test_a_watch_starts_after_the_given_line_and_can_be_left(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"seq 1 100; {gated(gate, 'true')}")
    server.wait_for_log(job_id, "100")
    seen = watch(job_id, "--after-seq", "40", "--stop-after", "60")
    assert seen.end() == 0  # nothing holds the process, though the job runs
    assert seen.numbered(after_seq=40) == numbers(41, 100)
    assert seen.of("end") == []
    gate.touch()


def test_a_refusal_ends_the_watch(watch: Callable[..., Watch]) -> None:
    watches = [watch(UNKNOWN_JOB), watch(UNKNOWN_JOB, token="wrong")]
    assert [seen.end() for seen in watches] == [1, 1]
    refusals = [seen.events()[-1]["problem"]["type"] for seen in watches]
    assert refusals == ["urn:runcast:problem:job-not-found", "urn:runcast:problem:unauthenticated"]


def test_the_watch_of_a_deleted_job_ends(server: RunningServer, watch: Callable[..., Watch], tmp_path: Path) -> None:
    job_id = server.shell(f"echo on; {gated(tmp_path / 'gate', 'true')}")
    seen = watch(job_id)
    eventually(lambda: seen.of("log"), "the job is watched")
    assert server.call("DELETE", f"/jobs/{job_id}").status_code == 204
    assert seen.end() == 0
    assert [end["status"] for end in seen.of("end")] == ["cancelled"]
