"""The README is held to what is: its tour is run as it stands there, its programs are checked, its tables compared with the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from chaos.registry import ATTACKS
from handlers.cli.main import runcast
from handlers.cli.options import variable
from handlers.contract.document import Contract
from jobs.model import ENDED, TRANSITIONS, JobType, Status, WaitingFor
from jobs.recipes.tasks_file import load_tasks
from jobs.settings import Settings
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The code block under a marker, such as `<!-- tasks -->`."""
    found = re.findall(rf"^<!-- {re.escape(marker)} -->\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"README has {len(found)} blocks that are marked {marker!r}"
    return str(found[0])


def rows(header: str) -> list[list[str]]:
    """The rows of the table whose header begins so, without that."""
    table = re.search(rf"^\| {re.escape(header)} .*\n\| -.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert table, f"README has no table {header!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


# -- The tour ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tour:
    """What each block of the tour printed, and what is left of it all."""

    printed: dict[str, str]
    status: int
    home: Path

    def documents(self, name: str) -> list[Any]:
        """What a block printed as JSON, a line each."""
        return [json.loads(line) for line in self.printed[name].splitlines() if line.startswith("{")]


def tour_blocks() -> list[str]:
    return [name for name in re.findall(r"^<!-- tour: (\S+) -->$", README, re.MULTILINE) if not name.endswith(".py")]


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """The tour in a folder as a newcomer's clone is: with the environment in it, and nothing of runcast's in the user's folders.

    Only the port is another, since 8000 may be taken. One shell runs it all, and stops at the first command that fails.
    """
    folder = tmp_path_factory.mktemp("tour")
    home, here = folder / "home", str(free_port())
    home.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "live.py").write_text(block("tour: live.py").replace("8000", here))
    script = "".join(f"echo '=== {name}'\n{block(f'tour: {name}')}\n" for name in tour_blocks()).replace("8000", here)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "RUNCAST_PORT": here, "RUNCAST_URL": f"http://127.0.0.1:{here}"}
    with (folder / "printed").open("wb") as printed:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
        )
    try:
        status = shell.wait(150)
        text = (folder / "printed").read_text()
        parts = re.split(r"^=== (\S+)\n", text, flags=re.MULTILINE)
        yield Tour(dict(zip(parts[1::2], parts[2::2], strict=True)), status, home)
    finally:
        for process in processes_of(home):
            process.kill()
        shell.kill()
        shell.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(home: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _has_home(process, str(home))]


def _has_home(process: psutil.Process, home: str) -> bool:
    try:
        return process.environ().get("HOME") == home and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the tour uses curl")


@needs_curl
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tour_runs_to_its_end_and_leaves_nothing(tour: Tour) -> None:
    assert tour.status == 0, tour.printed
    assert list(tour.printed) == tour_blocks()
    eventually(lambda: not processes_of(tour.home), "everything of the tour has ended")
    assert [path.name for path in tour.home.iterdir()] == [".local"]
    assert "Traceback" not in "".join(tour.printed.values())
    assert " ERROR " not in "".join(tour.printed.values())


@needs_curl
def test_the_tour_shows_what_it_promises(tour: Tour) -> None:
    assert "runcast is ready at http://127.0.0.1:" in tour.printed["start"]
    assert [ready["status"] for ready in tour.documents("start")] == ["ok"]

    (created,) = tour.documents("create")
    assert (created["type"], created["status"]) == ("create", "pending")
    assert re.search(rf"^Job {created['id']} completed", tour.printed["create"], re.MULTILINE)

    assert re.search(r"^\[21/21\] ", tour.printed["build"], re.MULTILINE)
    assert re.search(r"^Job \S+ completed", tour.printed["build"], re.MULTILINE)

    (launched,) = tour.documents("launch")
    assert launched["status"] == "running"
    assert launched["result"]["url"].startswith("http://127.0.0.1:")

    lines, cancelled = tour.documents("cancel")
    assert [line["seq"] for line in lines["lines"]] == list(range(1, len(lines["lines"]) + 1))
    assert cancelled["cancel_requested_at"] is not None
    raw = tour.printed["cancel"]
    assert "\nlistening on http" in raw
    assert "\nMy Editor has stopped" in raw
    listed = [line.split() for line in raw.splitlines() if re.search(r"\b(create|build|launch)\b", line) and not line.startswith("{")]
    assert [next(word for word in words if word in set(Status)) for words in listed[-3:]] == ["cancelled", "completed", "completed"]


@needs_curl
def test_the_python_program_prints_the_log_and_the_progress_and_ends(tour: Tour) -> None:
    said = tour.printed["live"].splitlines()
    assert [line for line in said if re.match(r"\[\d+/21\] ", line)] == [line for line in said if line.startswith("[")]
    assert sum(line.startswith("[") for line in said) == 21
    assert any(re.match(r"100(\.0)? ", line) for line in said)
    assert "completed" in said


# -- Programs and files -----------------------------------------------------------------------------------------------------


@pytest.mark.builds
@pytest.mark.timeout(300)  # the first run on a machine installs the tools
def test_the_typescript_program_is_checked_against_the_contract(tmp_path: Path) -> None:
    (tmp_path / "submit.ts").write_text(block("typescript"))
    tools = [sys.executable, str(ROOT / "tests" / "node" / "run.py")]
    strict = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom"]
    assert "npx openapi-typescript openapi/jobs.yaml -o jobs.ts\n" in README
    generate = [*tools, "openapi-typescript", "openapi/jobs.yaml", "-o", str(tmp_path / "jobs.ts")]
    for command in (generate, [*tools, "tsc", *strict, str(tmp_path / "submit.ts")]):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


def test_the_tasks_file_loads(tmp_path: Path) -> None:
    (tmp_path / "tasks.toml").write_text(block("tasks"))
    assert set(load_tasks(tmp_path / "tasks.toml")) == {"lint"}
    (submission,) = re.findall(r'^`(\{"type": "task".*\})`, or `runcast submit task (.*)`', README, re.MULTILINE)
    params = json.loads(submission[0])["params"]
    assert Contract.load().body_violations("submit_job", json.loads(submission[0])) == []
    assert submission[1] == f"task={params['task']} " + " ".join(f"{key}={value}" for key, value in params["inputs"].items())


def test_every_target_of_make_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", README, re.MULTILINE))
    assert {"demo", "test", "serve", "check", "fuzz"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not re.match(r"https?:", link) and not (ROOT / link).exists()] == []


def test_every_folder_that_is_named_exists() -> None:
    tree = README.partition("## How it is built")[2]
    folders = re.findall(r"^(\w+/) ", tree, re.MULTILINE)
    assert len(folders) >= 4
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


# -- What it says of jobs ---------------------------------------------------------------------------------------------------


def test_the_state_diagram_is_the_state_machine() -> None:
    diagram = re.search(r"^```mermaid\nstateDiagram-v2\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert diagram
    arrows = re.findall(r"^\s+(\S+) --> ([a-z]+|\[\*\])(?:: .+)?$", diagram[1], re.MULTILINE)
    assert len(arrows) == len(diagram[1].splitlines())
    coded = [(str(source), str(target)) for source, targets in TRANSITIONS.items() for target in targets]
    assert sorted(arrows) == sorted([("[*]", "pending"), *coded, *((str(status), "[*]") for status in ENDED)])


def test_the_table_of_job_types_names_exactly_their_params() -> None:
    contract = Contract.load()
    table = {cells[0].strip("`"): cells[1] for cells in rows("type")}
    assert set(table) == set(JobType)
    for job_type, params in table.items():
        schema = contract.params_schema(job_type)
        required = set(schema["required"]) if "required" in schema else set()
        said = set(re.findall(r"`(\w+\??)`", re.sub(r"\([^)]*\)", "", params)))
        assert said == {name if name in required else f"{name}?" for name in schema["properties"]}
        for name, values in re.findall(r"`(\w+)\??` \(([^)]*)\)", params):
            assert re.findall(r"`(\w+)`", values) == schema["properties"][name]["enum"]


def test_every_word_that_a_pending_job_may_wait_for_is_named() -> None:
    (sentence,) = re.findall(r"`waiting_for` what a pending one waits for: (.*?)\.", README, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(WaitingFor)


# -- Settings and commands --------------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_the_settings() -> None:
    table = rows("option")
    assert [cells[1].strip("`") for cells in table] == [variable(item.name) for item in fields(Settings)]
    for (option, _, default, meaning), item in zip(table, fields(Settings), strict=True):
        secret = item.metadata.get("secret")
        assert option == ("" if secret else f"`--{item.name.replace('_', '-')}`")
        assert meaning == item.metadata["help"]
        plain = None if item.default is MISSING else item.default
        if plain is False:
            assert default == "off"
        elif plain in (None, ()):
            assert re.fullmatch(r"[^`]+", default)  # in words: nothing, or what it depends on
        else:
            values = plain if isinstance(plain, tuple) else (plain,)
            assert default == ", ".join(f"`{value:g}`" if isinstance(value, float) else f"`{value}`" for value in values)


def test_the_table_of_commands_is_the_commands() -> None:
    said = {cells[0].strip("`"): cells[1] for cells in rows("command")}
    assert said == {name: (command.help or "").splitlines()[0] for name, command in runcast.commands.items()}


def test_every_option_has_a_meaning() -> None:
    options = [
        (name, option) for name, command in runcast.commands.items() for option in command.params if isinstance(option, click.Option)
    ]
    assert len(options) > 50
    assert [f"{name} {option.opts[0]}" for name, option in options if not re.match(r"[A-Z][^[]*\w\.", option.help or "")] == []


def test_every_variable_is_documented() -> None:
    options = [option for command in runcast.commands.values() for option in command.params]
    variables = {option.envvar for option in options if isinstance(option.envvar, str)} | {variable(item.name) for item in fields(Settings)}
    assert {name for name in variables if f"`{name}`" not in README} == set()
    # and none that means nothing
    assert set(re.findall(r"\bRUNCAST_[A-Z_]+\b", README)) <= variables


def test_the_exit_codes_that_are_promised_are_those_of_the_code() -> None:
    from handlers.cli.connection import MISUSED, REFUSED
    from handlers.cli.live import EXIT_CODES

    (promised,) = re.findall(r"exit as the job ended: (.*?)\.", README)
    assert promised == ", ".join(f"{code} {status}" for status, code in EXIT_CODES.items())
    assert re.search(rf"the server refuses is {REFUSED}, a misused command {MISUSED}\.", " ".join(README.split()))


# -- Versions ---------------------------------------------------------------------------------------------------------------


def test_one_version_is_told_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    contract = Contract.load()
    assert contract.openapi["info"]["version"] == version
    assert contract.asyncapi["info"]["version"] == version
    released = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version


def test_the_changelog_is_kept_as_it_says() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", changelog, re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.*)", changelog, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert all(
        re.match(r"## (Unreleased|\d+\.\d+\.\d+( - \d{4}-\d\d-\d\d)?)$", line) for line in re.findall(r"^## .*", changelog, re.MULTILINE)
    )


def test_security_names_only_tests_that_there_are() -> None:
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = {scenario.name for scenario in ATTACKS}
    assert set(re.findall(r"`(attack-[a-z]+)`", security)) | {"attack-browser"} == rows | {"attack-browser"}
    named = re.findall(r"`(tests/[\w/.-]+)`", security)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
