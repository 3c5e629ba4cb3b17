"""The places at which tests let a process crash are a closed set, and cost nothing unless a test asks for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import fault_points
from jobs.fault_points import POINTS, VARIABLE, reached

ROOT = Path(__file__).parents[2]


def test_the_code_reaches_each_fault_point_in_one_place() -> None:
    sources = [path.read_text() for package in ("jobs", "handlers") for path in (ROOT / package).rglob("*.py")]
    named = [name for source in sources for name in re.findall(r'\breached\("([^"]*)"\)', source)]
    calls = sum(len(re.findall(r"(?<!def )\breached\(", source)) for source in sources)
    assert sorted(named) == sorted(POINTS)
    assert calls == len(named), "a point is not named where it is"


def test_without_a_folder_a_fault_point_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_points, "_FOLDER", None)
    monkeypatch.setattr(fault_points, "_kill_if_armed", lambda *_: pytest.fail("it looked"))
    reached("end.committed")


def test_an_armed_fault_point_kills_only_the_first_process(tmp_path: Path) -> None:
    (tmp_path / "end.committed").touch()
    script = "from jobs.fault_points import reached; reached('end.stored'); reached('end.committed'); print('alive')"
    endings = [
        subprocess.run(
            [sys.executable, "-c", script], env={VARIABLE: str(tmp_path), "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
        )
        for _ in range(2)
    ]
    assert [ending.returncode for ending in endings] == [-9, 0]
    assert [ending.stdout for ending in endings] == [b"", b"alive\n"]
    assert not list(tmp_path.iterdir())
