"""Schemathesis, as its makers ship it, finds nothing: every phase, every check, against a real server that also checks itself.

`make fuzz` is the same with as many examples as one likes.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.fuzz import CONFIG, command_line, environment, fuzzed_server

pytestmark = pytest.mark.slow

PHASES = ("examples", "coverage", "fuzzing", "stateful")
# One worker: with more, Python 3.11 loses count of its recursion in Hypothesis ("AST constructor recursion depth mismatch").
OPTIONS = ("--max-examples=6", "--seed=1", "--workers=1", "--continue-on-failure", "--generation-database=none", "--no-color")
SUBMIT = "POST /jobs/submit"


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    report, cases = tmp_path / "report.json", tmp_path / "cases.ndjson"
    with fuzzed_server(tmp_path / "server") as server:
        line = command_line(server, *OPTIONS, f"--report-json-path={report}", f"--report-ndjson-path={cases}")
        run = subprocess.run(line, env=environment(server), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(report.read_text())
    assert found["complete"]
    assert (found["failures"], found["errors"], found["test_cases"]["with_failures"], found["test_cases"]["errored"]) == ([], [], 0, 0)
    assert {name: about["status"] for name, about in found["phases"].items()} == dict.fromkeys(PHASES, "success")
    operations = found["operations"]
    assert operations["total"] == operations["tested"] == operations["selected"]
    assert not {kind: warnings for kind, warnings in found["warnings"].items() if warnings}
    assert_submissions_met_the_service(statuses(cases, SUBMIT))


def assert_submissions_met_the_service(answers: list[int]) -> None:
    """Jobs were taken, and others refused for what the workspace holds: not all of it ended at the contract."""
    assert answers.count(202) >= 50
    assert {400, 401, 404, 405, 409, 415} <= set(answers)


def statuses(cases: Path, operation: str) -> list[int]:
    finished = (json.loads(line).get("ScenarioFinished") for line in cases.read_text().splitlines())
    recorders = [scenario["recorder"] for scenario in finished if scenario and scenario["recorder"]["label"] == operation]
    interactions = [interaction for recorder in recorders for interaction in recorder.get("interactions", {}).values()]
    return [interaction["response"]["status_code"] for interaction in interactions if interaction.get("response")]


def test_the_configuration_disables_no_check() -> None:
    config: dict[str, Any] = tomllib.loads(CONFIG.read_text())
    assert set(config) == {"hooks", "auth", "warnings"}
    assert config["warnings"] == {"fail-on": True}
