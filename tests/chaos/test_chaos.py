"""A small dose of every fault; of the attacks in `test_attacks.py`. The seed is in what a failure prints.

`make chaos` gives the full dose.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chaos.registry import FAULTS, SCENARIOS
from chaos.scenario import Outcome, Scenario
from chaos.table import cells


@pytest.mark.chaos
@pytest.mark.parametrize("scenario", FAULTS, ids=lambda scenario: scenario.name)
def test_the_service_survives(scenario: Scenario, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    outcome = scenario.run(scenario.small, random.Random(f"{seed}:{scenario.name}"), tmp_path)
    assert outcome.ok, "\n".join([" | ".join(cells(scenario, outcome)), *outcome.broken[:50]])


def test_names_are_unique_and_doses_grow() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert all(0 < scenario.small <= scenario.full for scenario in SCENARIOS)


def test_whatever_is_broken_is_not_ok() -> None:
    assert Outcome(done=1, survived=1).ok
    assert Outcome(done=1, survived=1, attacks=2, refused=2).ok
    for broken in (
        Outcome(done=0, survived=0),
        Outcome(done=2, survived=1),
        Outcome(done=1, survived=1, lost_lines=1),
        Outcome(done=1, survived=1, left_processes=1),
        Outcome(done=1, survived=1, attacks=2, refused=1),
        Outcome(done=1, survived=1, broken=["it is"]),
    ):
        assert not broken.ok
