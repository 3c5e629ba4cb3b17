"""The real command against a real server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO

import pytest

from jobs.model import Json
from support.server import PROGRAMS, RunningServer, start_server

pytestmark = pytest.mark.slow

DEADLINE = 30.0
NOTHING: Mapping[str, str] = MappingProxyType({})

TASKS = f"""
[tasks.lines]
title = "Print numbered lines"
argv = ["{sys.executable}", "{PROGRAMS}/numbered_lines.py", "{{lines}}", "--rate", "{{rate}}", "--flush"]
pty = false
inputs.type = "object"
inputs.required = ["lines"]
inputs.properties = {{ lines = {{ type = "integer" }}, rate = {{ type = "integer", default = 0 }} }}

[tasks.exits]
title = "Exit with a code"
argv = ["{sys.executable}", "{PROGRAMS}/exits_with.py", "{{code}}", "--say", "{{say}}"]
inputs = {{ type = "object", properties = {{ code = {{ type = "integer" }}, say = {{ type = "string", default = "leaving" }} }} }}

[tasks.waits]
title = "Wait for a file"
argv = ["{sys.executable}", "{PROGRAMS}/waits_for_file.py", "{{file}}"]
inputs = {{ type = "object", required = ["file"], properties = {{ file = {{ type = "string" }} }} }}

[tasks.streams]
title = "Print on both streams"
argv = ["{sys.executable}", "{PROGRAMS}/two_streams.py", "--lines", "3"]
pty = false

[tasks.steps]
title = "Show progress"
argv = ["{sys.executable}", "{PROGRAMS}/progress.py", "--steps", "10", "--delay", "0.05"]
"""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Runs commands on one server's machine, as the user who has started it."""

    server: RunningServer

    @property
    def data(self) -> Path:
        return self.server.folder / "data"

    def start(
        self, *arguments: str, stdout: int = subprocess.PIPE, more: Mapping[str, str] = NOTHING, where: str = ""
    ) -> subprocess.Popen[str]:
        """`where` is a redirection, as a shell has it."""
        environment = {**os.environ, "RUNCAST_URL": self.server.url, "RUNCAST_DATA_DIR": str(self.data), **more}
        line = ["sh", "-c", f'exec "$0" "$@" {where}', sys.executable, "-m", "handlers.cli.main", *arguments]
        return subprocess.Popen(line, env=environment, text=True, stdout=stdout, stderr=subprocess.PIPE)

    def __call__(self, *arguments: str, more: Mapping[str, str] = NOTHING, where: str = "") -> Said:
        with self.start(*arguments, more=more, where=where) as command:
            out, err = command.communicate(timeout=DEADLINE)
        assert "Traceback" not in err
        return Said(command.returncode, out, err)

    def submit(self, task: str, **inputs: Json) -> str:
        """Set-up that a test is not about: submits without the command, which takes half a second to start."""
        return self.server.run(task, **inputs)

    def ended(self, task: str, **inputs: Json) -> str:
        return str(self.server.wait(self.submit(task, **inputs))["id"])

    def last(self) -> Json:
        return self.server.call("GET", "/jobs", params={"limit": 1}).json()["jobs"][0]


@pytest.fixture(scope="module")
def runcast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tasks.toml").write_text(TASKS)
    with start_server(folder, tasks=folder / "tasks.toml", slots=4) as server:
        yield Shell(server)


def rest_of(stream: IO[str] | None) -> str:
    """The rest of a stream that was already read from; communicate() would omit what is in its buffer."""
    assert stream
    return stream.read()


def test_submit_prints_only_the_id(runcast: Shell) -> None:
    said = runcast("submit", "task", "task=exits", "code=0", "--label", "one", "--priority", "3", "--timeout", "60")
    job = runcast.last()
    assert (said.status, said.out, said.err) == (0, f"{job['id']}\n", "")
    assert (job["labels"], job["priority"], job["timeout_seconds"]) == (["one"], 3, 60)
    assert job["params"] == {"task": "exits", "inputs": {"code": 0}}


def test_following_prints_the_log_and_exits_with_the_job_s_result(runcast: Shell) -> None:
    good = runcast("submit", "task", "task=lines", "lines=100", "--follow")
    assert good.out == "".join(f"line {number}\n" for number in range(1, 101))
    assert good.status == 0
    assert "completed after" in good.err
    bad = runcast("submit", "task", "task=exits", "code=3", "say=no luck", "--follow")
    assert (bad.out, bad.status) == ("no luck\n", 1)
    assert "failed after" in bad.err


def test_a_followed_job_that_is_cancelled_exits_with_130(runcast: Shell, tmp_path: Path) -> None:
    job_id = runcast.submit("waits", file=str(tmp_path / "never"))
    with runcast.start("logs", "-f", job_id) as following:
        assert following.stdout
        assert following.stdout.readline() == "waiting\n"
        assert runcast("cancel", job_id).status == 0
        assert "cancelled after" in rest_of(following.stderr)
    assert following.returncode == 130


def test_ctrl_c_stops_watching_and_not_the_job(runcast: Shell, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    with runcast.start("submit", "task", "task=waits", f"file={go_on}", "-f") as following:
        assert following.stdout
        assert following.stdout.readline() == "waiting\n"
        following.send_signal(signal.SIGINT)
        said = rest_of(following.stderr)
    job = runcast.last()
    assert following.returncode == 130
    assert f"runcast cancel {job['id']}" in said
    assert job["status"] == "running"
    go_on.touch()
    assert runcast("logs", "-f", str(job["id"])).out == "waiting\nseen\n"


def test_a_killed_api_loses_and_repeats_no_line_of_a_follower(runcast: Shell) -> None:
    lines = 300
    with runcast.start("submit", "task", "task=lines", f"lines={lines}", "rate=100", "-f") as following:
        assert following.stdout
        assert following.stdout.readline() == "line 1\n"
        for process in (api := runcast.server.part("api")).children(recursive=True):
            process.kill()
        api.kill()
        out, err = rest_of(following.stdout), rest_of(following.stderr)
    assert "connection was lost" in err
    assert out == "".join(f"line {number}\n" for number in range(2, lines + 1))
    assert following.returncode == 0


def test_following_with_json_prints_the_job_s_events(runcast: Shell) -> None:
    said = runcast("submit", "task", "task=streams", "-f", "--json")
    events = [json.loads(line) for line in said.out.splitlines()]
    assert events[0]["event"] == "subscribed"
    assert events[-1]["event"] == "complete"
    assert sum(len(event["lines"]) for event in events if event["event"] == "log") == 6
    assert said.err == ""


def test_logs_raw_followed_by_tail_and_as_json(runcast: Shell) -> None:
    job_id = runcast.submit("lines", lines=25000)
    whole = "".join(f"line {number}\n" for number in range(1, 25001))
    assert runcast("logs", "-f", "--raw", job_id).out == whole
    assert runcast("logs", job_id).out == whole
    assert runcast("logs", "--tail", "2", job_id).out == "line 24999\nline 25000\n"
    assert runcast("logs", "-f", "--tail", "2", job_id).out == "line 24999\nline 25000\n"
    line = json.loads(runcast("logs", "--tail", "1", "--json", job_id).out)
    assert (line["seq"], line["stream"], line["text"]) == (25000, "stdout", "line 25000")


def test_logs_of_one_stream(runcast: Shell) -> None:
    job_id = runcast.submit("streams")
    assert runcast("logs", "-f", "--stream", "stderr", job_id).out == "err 1\nerr 2\nerr 3\n"
    assert runcast("logs", "--stream", "stdout", job_id).out == "out 1\nout 2\nout 3\n"


def test_a_closed_pipe_is_not_reported_as_an_error(runcast: Shell) -> None:
    job_id = runcast.ended("lines", lines=25000)
    with runcast.start("logs", job_id) as printing:
        assert printing.stdout
        assert printing.stdout.readline() == "line 1\n"
        printing.stdout.close()
        assert rest_of(printing.stderr) == ""


def test_a_terminal_shows_a_bar_and_the_log(runcast: Shell) -> None:
    ours, theirs = pty.openpty()
    with runcast.start("submit", "task", "task=steps", "-f", stdout=theirs, more={"TERM": "xterm-256color", "COLUMNS": "100"}) as following:
        os.close(theirs)
        drawn = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        said = rest_of(following.stderr)
    screen = drawn.decode()
    assert "task steps" in screen
    assert "━" in screen
    assert "%" in screen
    assert "completed after" in said
    assert following.returncode == 0


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other end of a terminal is closed
        return b""


def test_jobs_are_found_by_a_part_of_their_id(runcast: Shell) -> None:
    job_id = runcast.ended("exits", code=0)
    for name in ("last", job_id.upper(), job_id.rpartition("-")[2], job_id[:30]):
        assert json.loads(runcast("show", name, "--json").out)["id"] == job_id
    assert runcast.submit("exits", code=0)
    unknown = runcast("show", "ffffffff")
    assert (unknown.status, unknown.out) == (2, "")
    several = runcast("show", job_id[:4])
    assert several.status == 2
    assert "matches" in several.err


def test_list_filters_jobs(runcast: Shell) -> None:
    assert runcast("submit", "task", "task=exits", "code=4", "--label", "odd", "--label", "even", "-f").status == 1
    job_id = runcast.last()["id"]
    found = json.loads(runcast("list", "--label", "odd", "--label", "even", "--status", "failed", "--since", "1h", "--json").out)
    assert [job["id"] for job in found["jobs"]] == [job_id]
    assert runcast("list", "--until", "1h", "--json").out == '{"jobs": []}\n'
    table = runcast("list", "--label", "odd").out.splitlines()
    assert table[0].split() == ["JOB", "STATUS", "TYPE", "PROGRESS", "CREATED", "DURATION"]
    assert table[1].split()[:4] == [job_id, "failed", "task", "exits"]


def test_show_prints_a_job_with_its_history(runcast: Shell) -> None:
    job_id = runcast.ended("exits", code=0)
    shown = runcast("show", job_id).out
    assert job_id in shown
    assert "pending: submitted by" in shown
    history = json.loads(runcast("show", job_id, "--json").out)["history"]
    assert [event["status"] for event in history] == ["pending", "running", "completed"]


def test_cancel_continues_after_a_refusal(runcast: Shell, tmp_path: Path) -> None:
    ended = runcast.ended("exits", code=0)
    active = runcast.submit("waits", file=str(tmp_path / "never"))
    said = runcast("cancel", "--force", ended, active)
    assert said.status == 1
    assert "already ended" in said.err
    assert said.out.startswith(active)
    assert runcast.server.wait(active)["status"] == "cancelled"


def test_retry_and_delete(runcast: Shell) -> None:
    first = runcast.ended("exits", code=0, say="again")
    assert runcast("retry", first, "--follow").out == "again\n"
    second = runcast.last()
    assert second["retry_of"] == first
    assert runcast("delete", first, str(second["id"])).status == 0
    gone = runcast("show", first)
    assert gone.status == 1
    assert "There is no job" in gone.err


@pytest.mark.parametrize("command", ["delete", "cancel"])
def test_duplicate_job_ids_are_used_once_and_last_is_resolved_first(runcast: Shell, command: str, tmp_path: Path) -> None:
    older = runcast.submit("waits", file=str(tmp_path / "never"))
    last = runcast.submit("waits", file=str(tmp_path / "never"))
    said = runcast(command, "last", last, "last", last.upper())
    assert (said.status, said.err) == (0, "")
    assert [line.partition(" ")[0] for line in said.out.splitlines()] == [last]
    assert runcast.server.job(older)["status"] in ("pending", "running")
    assert runcast("cancel", "--force", older).status == 0


def test_unwritable_output_gives_one_line(runcast: Shell) -> None:
    job_id = runcast.ended("lines", lines=25000)
    for arguments in (("list",), ("list", "--json"), ("logs", job_id), ("logs", "--raw", job_id), ("logs", "-f", job_id), ("--help",)):
        for where, why in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
            said = runcast(*arguments, where=where)
            assert (said.status, said.err) == (1, f"runcast: The output cannot be written: {why}.\n")
    assert runcast("list", "--no-such-option", where="2>&-").status == 2


def test_the_same_idempotency_key_gives_the_same_job(runcast: Shell) -> None:
    submit = ("submit", "task", "task=exits", "--idempotency-key", "once-only-1")
    first = runcast(*submit, "code=0")
    assert runcast(*submit, "code=0").out == first.out
    other = runcast(*submit, "code=1")
    assert (other.status, other.out) == (1, "")


def test_a_refusal_names_the_invalid_places(runcast: Shell) -> None:
    said = runcast("submit", "build", "config=fast")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("runcast: ")
    assert "body #/params/config: " in said.err
    task = runcast("submit", "task", "task=lines", "lines=many")
    assert task.status == 1
    assert "body #/params/inputs/lines: " in task.err


def test_params_as_one_object(runcast: Shell) -> None:
    assert runcast("submit", "task", "--params", '{"task": "exits", "inputs": {"code": 0, "say": "x"}}', "say=3").status == 0
    assert runcast.last()["params"] == {"task": "exits", "inputs": {"code": 0, "say": "3"}}


def test_token_prints_the_token_and_its_name(runcast: Shell) -> None:
    file = runcast.data / "admin-token"
    assert runcast("token").out.strip() == file.read_text().strip()
    who = json.loads(runcast("token", "--whoami", "--json").out)
    assert (who["source"], who["scopes"]) == (str(file), ["admin"])


def test_tokens_are_created_listed_and_revoked(runcast: Shell) -> None:
    made = runcast("token", "create", "visitor", "--scope", "jobs:read", "--expires", "2h")
    token = made.out.strip()
    assert (made.status, "not shown again" in made.err, token in made.err) == (0, True, False)
    mine = {"RUNCAST_TOKEN": token}
    who = json.loads(runcast("token", "--whoami", "--json", more=mine).out)
    assert (who["name"], who["scopes"]) == ("visitor", ["jobs:read"])
    left = datetime.fromisoformat(who["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=55) < left <= timedelta(hours=2)
    assert runcast("list", more=mine).status == 0
    assert runcast("token", "list", more=mine).status == 1  # it is no admin's
    listed = runcast("token", "list")
    assert "visitor" in listed.out and "jobs:read" in listed.out and token not in listed.out
    again = runcast("token", "create", "visitor", "--scope", "admin")
    assert (again.status, "Token exists" in again.err) == (1, True)
    assert runcast("token", "revoke", "visitor").out == "visitor is revoked\n"
    assert runcast("list", more=mine).status == 1
    assert "visitor" not in runcast("token", "list").out
    unknown = runcast("token", "revoke", "visitor")
    assert (unknown.status, "no token 'visitor'" in unknown.err) == (2, True)
    assert runcast("token", "revoke", "admin").status == 1


def test_misplaced_options_and_invalid_durations_are_reported(runcast: Shell) -> None:
    assert runcast("token", "create", "x", "--scope", "admin", "--expires", "soon").status == 2
    assert runcast("token", "create", "x").status == 2
    misplaced = runcast("token", "--json", "list")
    assert (misplaced.status, "must come after 'list'" in misplaced.err) == (2, True)


def test_a_rejected_token_is_reported_with_its_source(runcast: Shell, tmp_path: Path) -> None:
    wrong = {"RUNCAST_TOKEN": "nobody-s"}
    said = runcast("list", more=wrong)
    assert said.status == 1
    assert "RUNCAST_TOKEN" in said.err
    assert "nobody-s" not in said.err
    missing = runcast("list", more={"RUNCAST_DATA_DIR": str(tmp_path)})
    assert missing.status == 1
    assert str(tmp_path) in missing.err
    assert runcast("list", "--token-file", str(tmp_path / "none")).status == 2
    assert runcast("list", "--token-file", str(runcast.data / "admin-token"), more=wrong).status == 0


@pytest.mark.parametrize("command", [["list"], ["submit", "build", "-f"], ["logs", "-f", "last"]])
def test_an_unreachable_server_gives_one_line(runcast: Shell, command: list[str]) -> None:
    said = runcast(*command, more={"RUNCAST_URL": "http://127.0.0.1:1"})
    assert (said.status, said.out) == (2, "")
    assert said.err == "runcast: No server answers at http://127.0.0.1:1. Is `runcast serve` running?\n"
