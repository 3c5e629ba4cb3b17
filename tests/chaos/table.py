"""Shows what came of the scenarios, one row each. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from chaos.scenario import Outcome, Scenario

Row = tuple[Scenario, Outcome | None]
"""Without an outcome when the machine lacks something, so that there is nothing to show."""
COLUMNS = ("fault", "dose", "survived", "recovery (median / max)", "lost lines", "left processes", "refused attacks", "figures")


def make_table(rows: Sequence[Row], *, seed: int) -> Table:
    table = Table(title=f"runcast under faults (seed {seed})", show_lines=True)
    for name in COLUMNS:
        table.add_column(name)
    for scenario, outcome in rows:
        if outcome is None:
            table.add_row(scenario.fault, f"left out: {scenario.lacking}", *["–"] * (len(COLUMNS) - 2), style="yellow")
        else:
            table.add_row(*cells(scenario, outcome), style=None if outcome.ok else "bold red")
    return table


def cells(scenario: Scenario, outcome: Outcome) -> tuple[str, ...]:
    return (
        scenario.fault,
        f"{outcome.done} {scenario.unit}",
        f"{outcome.survived} of {outcome.done}",
        recovery(outcome.recoveries),
        str(outcome.lost_lines),
        str(outcome.left_processes),
        f"{outcome.refused} of {outcome.attacks}" if outcome.attacks else "–",
        outcome.notes or "–",
    )


def recovery(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s / {max(seconds):.2f} s" if seconds else "–"
