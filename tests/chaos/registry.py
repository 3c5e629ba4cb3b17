"""Every scenario, in the order of the table: an explicit list, so that none is forgotten or found by accident."""

from __future__ import annotations

from collections.abc import Sequence

from chaos import children, clocks, crashes, kills, races, restarts, sizes, storage, subscribers
from chaos.attacks import bodies, browser, doors, injection, neighbours, paths, secrets, tokens
from chaos.scenario import Scenario

FAULTS: Sequence[Scenario] = (
    *kills.SCENARIOS,
    *crashes.SCENARIOS,
    *restarts.SCENARIOS,
    *storage.SCENARIOS,
    *clocks.SCENARIOS,
    *races.SCENARIOS,
    *children.SCENARIOS,
    *subscribers.SCENARIOS,
    *sizes.SCENARIOS,
)
ATTACKS: Sequence[Scenario] = (
    *tokens.SCENARIOS,
    *doors.SCENARIOS,
    *browser.SCENARIOS,
    *bodies.SCENARIOS,
    *paths.SCENARIOS,
    *injection.SCENARIOS,
    *secrets.SCENARIOS,
    *neighbours.SCENARIOS,
)
SCENARIOS = (*FAULTS, *ATTACKS)
