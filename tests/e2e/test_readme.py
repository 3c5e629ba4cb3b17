"""The tour of the README and the programs of the documents run as they stand there. The rest is in `tests/unit/test_documentation.py`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.model import Status
from support.documents import FOR_USERS, ROOT, block, document
from support.waiting import eventually

BLOCKS = {
    "start": "README.md",
    "create": "README.md",
    "build": "README.md",
    "launch": "README.md",
    "cancel": "README.md",
    "live": "docs/clients.md",
    "tokens": "docs/deployment.md",
    "stop": "README.md",
}
"""The blocks of the tour in the order in which they are run, and the document of each."""
ACTIVATE = 'PATH="$PWD/.venv/bin:$PATH"\n'
"""The pages under docs/ write `runcast` for `.venv/bin/runcast`, and say so."""


# -- The tour ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tour:
    """What each block of the tour printed, and what is left of it all."""

    printed: dict[str, str]
    status: int
    home: Path

    def answers(self, name: str) -> list[Any]:
        """What a block printed as JSON, a line each."""
        return [json.loads(line) for line in self.printed[name].splitlines() if line.startswith("{")]


def script() -> str:
    """All blocks as one script, which says where each begins."""
    parts = [(name, ("" if page == "README.md" else ACTIVATE) + block(page, f"tour: {name}")) for name, page in BLOCKS.items()]
    return "".join(f"echo '=== {name}'\n{text}\n" for name, text in parts)


def test_every_block_of_the_tour_is_run() -> None:
    marked = {(name, page) for page in FOR_USERS for name in re.findall(r"^<!-- tour: (\S+) -->$", document(page), re.MULTILINE)}
    assert marked == {*BLOCKS.items(), ("live.py", "docs/clients.md")}
    readme = [name for name, page in BLOCKS.items() if page == "README.md"]
    assert re.findall(r"^<!-- tour: (\S+) -->$", document("README.md"), re.MULTILINE) == readme


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """The tour in a folder as a newcomer's clone is: with the environment in it, and nothing of runcast's in the user's folders.

    Only the port is another, since 8000 may be taken. One shell runs it all, and stops at the first command that fails.
    """
    folder = tmp_path_factory.mktemp("tour")
    home, here = folder / "home", str(free_port())
    home.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "live.py").write_text(block("docs/clients.md", "tour: live.py").replace("8000", here))
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "RUNCAST_PORT": here, "RUNCAST_URL": f"http://127.0.0.1:{here}"}
    with (folder / "printed").open("wb") as printed:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", script().replace("8000", here)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
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
    assert list(tour.printed) == list(BLOCKS)
    eventually(lambda: not processes_of(tour.home), "everything of the tour has ended")
    assert [path.name for path in tour.home.iterdir()] == [".local"]
    assert "Traceback" not in "".join(tour.printed.values())
    assert " ERROR " not in "".join(tour.printed.values())


@needs_curl
def test_the_tour_shows_what_it_promises(tour: Tour) -> None:
    assert "runcast is ready at http://127.0.0.1:" in tour.printed["start"]
    assert [ready["status"] for ready in tour.answers("start")] == ["ok"]

    (created,) = tour.answers("create")
    assert (created["type"], created["status"]) == ("create", "pending")
    assert re.search(rf"^Job {created['id']} completed", tour.printed["create"], re.MULTILINE)

    assert re.search(r"^\[21/21\] ", tour.printed["build"], re.MULTILINE)
    assert re.search(r"^Job \S+ completed", tour.printed["build"], re.MULTILINE)

    (launched,) = tour.answers("launch")
    assert launched["status"] == "running"
    assert launched["result"]["url"].startswith("http://127.0.0.1:")

    lines, cancelled = tour.answers("cancel")
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
    (tmp_path / "submit.ts").write_text(block("docs/clients.md", "typescript"))
    tools = [sys.executable, str(ROOT / "tests" / "node" / "run.py")]
    strict = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom"]
    assert "npx openapi-typescript openapi/jobs.yaml -o jobs.ts\n" in document("docs/clients.md")
    generate = [*tools, "openapi-typescript", "openapi/jobs.yaml", "-o", str(tmp_path / "jobs.ts")]
    for command in (generate, [*tools, "tsc", *strict, str(tmp_path / "submit.ts")]):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


@needs_curl
def test_tokens_are_created_listed_and_revoked(tour: Tour) -> None:
    created, *rest = [line for line in tour.printed["tokens"].splitlines() if " runcast.audit " not in line]
    assert re.fullmatch(r"[!-~]{20,}", created)
    assert any(re.search(r"\bci\b.*jobs:read.*jobs:write", line) for line in rest)
