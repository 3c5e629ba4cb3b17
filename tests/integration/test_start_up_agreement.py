"""What only the contract or only the code knows stops the server before anything runs, with one line that says what."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.server import start_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("handlers", "jobs", "openapi")
PROGRAM = "import sys; from handlers.cli.main import main; sys.exit(main())"  # the command itself would find the packages as they are
OPENAPI, ASYNCAPI = "openapi/jobs.yaml", "openapi/jobs.asyncapi.yaml"
PROBLEMS, MODEL, SOCKETS = "handlers/problems.py", "jobs/model.py", "handlers/events/sockets.py"
JOBS, SERVICE = "handlers/operations/jobs.py", "handlers/operations/service.py"


class Difference(NamedTuple):
    """One change to one file: `old`, which is there once, becomes `new`. `line` is all that the operator reads."""

    file: str
    old: str
    new: str
    line: str

    def __str__(self) -> str:
        return self.line.replace("/", ":")


def unknown(kind: str, name: str, *, to: str, of: str) -> str:
    return f"{of} has the {kind} {name}, but {to} does not"


def tag(name: str) -> str:
    return f"the tag {name} of {OPENAPI}"


URN = "urn:runcast:problem"
LAST_TYPE = f"        - {URN}:unavailable\n"
STATS_TAGS = re.findall(r"operationId: get_stats\n(?:.*\n)+?      tags: \[service\]\n", (ROOT / OPENAPI).read_text(encoding="utf-8"))[0]
STATUSES = "enum: [pending, running, completed, failed, cancelled"

DIFFERENCES = [
    # Operations and their functions
    Difference(
        OPENAPI, "operationId: get_stats\n", "operationId: get_sums\n", unknown("operation", "get_sums", of=tag("service"), to=SERVICE)
    ),
    Difference(SERVICE, "def get_stats(", "def get_sums(", unknown("operation", "get_stats", of=tag("service"), to=SERVICE)),
    Difference(
        JOBS,
        "def _location(",
        "def pause_job() -> None: ...\n\n\ndef _location(",
        unknown("operation", "pause_job", of=JOBS, to=tag("jobs")),
    ),
    Difference(
        JOBS,
        "def _location(",
        "def get_stats() -> None: ...\n\n\ndef _location(",
        unknown("operation", "get_stats", of=JOBS, to=tag("jobs")),
    ),
    Difference(
        OPENAPI, STATS_TAGS, STATS_TAGS.replace("[service]", "[tokens]"), unknown("operation", "get_stats", of=SERVICE, to=tag("service"))
    ),
    Difference(
        OPENAPI,
        STATS_TAGS,
        STATS_TAGS.replace("[service]", "[key-figures]"),
        f"{OPENAPI} has the tag key-figures, but handlers/operations/key_figures.py does not exist",
    ),
    Difference(OPENAPI, STATS_TAGS, STATS_TAGS.replace("[service]", "[service, jobs]"), f"{OPENAPI}: get_stats needs exactly one tag"),
    Difference(OPENAPI, STATS_TAGS, STATS_TAGS.replace("[service]", "[]"), f"{OPENAPI}: get_stats needs exactly one tag"),
    Difference(
        OPENAPI,
        "      x-scope: jobs:write\n      summary: Submit",
        "      summary: Submit",
        f"{OPENAPI}: submit_job needs an x-scope, or `security: []` when it needs no token",
    ),
    # Events
    Difference(ASYNCAPI, "      name: progress\n", "      name: pace\n", unknown("event to clients", "pace", of=ASYNCAPI, to=SOCKETS)),
    Difference(
        ASYNCAPI, "      name: unsubscribe\n", "      name: leave\n", unknown("event from clients", "leave", of=ASYNCAPI, to=SOCKETS)
    ),
    Difference(SOCKETS, '"complete", "error"}', '"complete", "error", "oh"}', unknown("event to clients", "oh", of=SOCKETS, to=ASYNCAPI)),
    # Kinds of errors
    Difference(PROBLEMS, 'Kind("queue-full"', 'Kind("full"', unknown("problem type", f"{URN}:queue-full", of=OPENAPI, to=PROBLEMS)),
    Difference(OPENAPI, LAST_TYPE, f"{LAST_TYPE}        - {URN}:tired\n", unknown("problem type", f"{URN}:tired", of=OPENAPI, to=PROBLEMS)),
    # The words of the domain
    Difference(MODEL, 'CANCELLED = "cancelled"\n', 'CANCELLED = "over"\n', unknown("status", "cancelled", of=OPENAPI, to=MODEL)),
    Difference(OPENAPI, f"{STATUSES}]", f"{STATUSES}, paused]", unknown("status", "paused", of=OPENAPI, to=MODEL)),
    Difference(OPENAPI, "server_shutdown, null]", "server_shutdown, boredom, null]", unknown("reason", "boredom", of=OPENAPI, to=MODEL)),
    Difference(MODEL, 'LAUNCH = "launch"\n', 'LAUNCH = "launch"\n    REST = "rest"\n', unknown("job type", "rest", of=MODEL, to=OPENAPI)),
    Difference(OPENAPI, "enum: [stdout, stderr]", "enum: [stdout, stderr, both]", unknown("stream", "both", of=OPENAPI, to=MODEL)),
    Difference(
        OPENAPI, "enum: [jobs:read, jobs:write, admin]", "enum: [jobs:read, jobs:write]", unknown("scope", "admin", of=MODEL, to=OPENAPI)
    ),
    # References
    Difference(
        OPENAPI, "schemas/WorkerList'", "schemas/Workers'", f"{OPENAPI} refers to #/components/schemas/Workers, which does not exist"
    ),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as they are, so that each test may change its copy."""
    folder = tmp_path_factory.mktemp("original")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("_build", ".*"))
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[f"{number} {difference}" for number, difference in enumerate(DIFFERENCES)])
def test_a_difference_stops_the_server_with_one_line(copy: Path, difference: Difference) -> None:
    file = copy / difference.file
    text = file.read_text(encoding="utf-8")
    assert text.count(difference.old) == 1
    file.write_text(text.replace(difference.old, difference.new), encoding="utf-8")
    assert_refused(copy, difference.line)


def test_a_contract_that_is_not_yaml_stops_the_server_with_one_line(copy: Path) -> None:
    (copy / ASYNCAPI).write_text("asyncapi: [3.0.0\n")
    assert_refused(copy, f"{ASYNCAPI} is not YAML: ", whole=False)


def test_a_contract_that_is_missing_stops_the_server_with_one_line(copy: Path) -> None:
    (copy / OPENAPI).unlink()
    assert_refused(copy, f"{OPENAPI} cannot be read: ", whole=False)


def test_packages_in_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('not ours')\n")
    with start_server(tmp_path / "server", cwd=tmp_path) as server:
        assert server.wait(server.run("true"))["status"] == "completed"


def assert_refused(copy: Path, line: str, *, whole: bool = True) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from handlers.cli.main import main; sys.exit(main())",
            "serve",
            "--port=0",
            f"--data-dir={copy / 'data'}",
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    said = run.stdout + run.stderr
    assert run.returncode == 2, said
    assert said.count("\n") == 1, said
    assert said.removeprefix("runcast: ").rstrip("\n") == line if whole else line in said
    assert not (copy / "data").exists(), "something was written before the refusal"
