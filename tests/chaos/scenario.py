"""What a scenario is: a fault that is done to a real service so many times, and what came of it. Knows no service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Outcome:
    """What came of one scenario. `broken` has a sentence for each thing that should have been true and was not."""

    done: int
    """How many of the dose were done: faults, races, attacks."""
    survived: int
    """After how many of them all was well again."""
    recoveries: Sequence[float] = ()
    """Seconds from a fault until the service did again what it is for."""
    lost_lines: int = 0
    left_processes: int = 0
    attacks: int = 0
    refused: int = 0
    notes: str = ""
    """Figures of this scenario alone, in a few words."""
    broken: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        unharmed = self.survived == self.done > 0 and not self.lost_lines and not self.left_processes
        return unharmed and self.refused == self.attacks and not self.broken


Run = Callable[[int, Random, Path], Outcome]
"""Does it: how many times, what decides by chance, and an empty folder for everything that it writes."""


@dataclass(frozen=True)
class Scenario:
    """One row of the table. `unit` is what the dose counts; `small` is for every test run, `full` for `make chaos`."""

    name: str
    fault: str
    unit: str
    small: int
    full: int
    run: Run
    lacking: str | None = None
    """What this machine has not got, without which there is nothing to show."""

    def dose(self, name: str) -> int:
        return {"small": self.small, "full": self.full}[name]


@dataclass
class Findings:
    """Collects what a scenario sees on its way to an `Outcome`."""

    done: int = 0
    survived: int = 0
    recoveries: list[float] = field(default_factory=list)
    lost_lines: int = 0
    left_processes: int = 0
    attacks: int = 0
    refused: int = 0
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def hold(self, holds: object, otherwise: str) -> bool:
        """Note what is broken unless it holds; gives whether it does."""
        if not holds:
            self.broken.append(otherwise)
        return bool(holds)

    def outcome(self) -> Outcome:
        return Outcome(
            self.done,
            self.survived,
            tuple(self.recoveries),
            self.lost_lines,
            self.left_processes,
            self.attacks,
            self.refused,
            ", ".join(self.notes),
            tuple(self.broken),
        )
