"""Every attack, but for the few that take minutes: those are in `make chaos` only."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chaos.registry import ATTACKS
from chaos.scenario import Scenario
from chaos.table import cells


@pytest.mark.chaos
@pytest.mark.parametrize("scenario", ATTACKS, ids=lambda scenario: scenario.name)
def test_every_attack_is_refused(scenario: Scenario, tmp_path: Path) -> None:
    if scenario.lacking:
        pytest.skip(scenario.lacking)
    outcome = scenario.run(scenario.small, random.Random(scenario.name), tmp_path)
    assert outcome.ok, "\n".join([" | ".join(cells(scenario, outcome)), *outcome.broken[:50]])
