"""A small dose of every fault; of the attacks in `test_attacks.py`. The seed is in what a failure prints.

`make chaos` gives the full dose.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from chaos.registry import ATTACKS, FAULTS, SCENARIOS
from chaos.scenario import Outcome, Scenario
from chaos.table import cells

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"^\| `([a-z-]+)`: [^|]* \| ([\d,]+) [^|]*\| ([\d,]+) ", re.MULTILINE)
"""A row of the table in docs/robustness.md: which scenario, its dose, what was survived."""


@pytest.mark.chaos
@pytest.mark.parametrize("scenario", FAULTS, ids=lambda scenario: scenario.name)
def test_the_service_survives_each_fault(scenario: Scenario, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    outcome = scenario.run(scenario.small, random.Random(f"{seed}:{scenario.name}"), tmp_path)
    assert outcome.ok, "\n".join([" | ".join(cells(scenario, outcome)), *outcome.broken[:50]])


def test_names_are_unique_and_doses_grow() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert all(0 < scenario.small <= scenario.full for scenario in SCENARIOS)


def test_the_documents_quote_every_scenario_at_its_full_dose() -> None:
    robustness, security = (ROOT / "docs/robustness.md").read_text(), (ROOT / "SECURITY.md").read_text()
    rows = {name: [int(number.replace(",", "")) for number in numbers] for name, *numbers in QUOTED.findall(robustness)}
    assert list(rows) == [scenario.name for scenario in SCENARIOS]
    for scenario in SCENARIOS:
        dose, survived = rows[scenario.name]
        assert survived == dose >= scenario.full
    for scenario in ATTACKS:
        assert f"{scenario.name.removeprefix('attack-')} {scenario.full}" in security.replace("\n", " ")
    attacks = sum(scenario.full for scenario in ATTACKS)
    assert f"{attacks} of {attacks}" in robustness and f"{attacks} of {attacks}" in security


def test_an_outcome_with_anything_broken_is_not_ok() -> None:
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
