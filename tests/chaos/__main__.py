"""`make chaos`: runs the scenarios one after the other and prints one table; its exit status is 1 when anything was broken.

A scenario for which this machine lacks something is a row as well, which says why it was left out.

`python -m chaos [--dose small|full] [--only NAME]... [--seed N] [--keep]` with `tests` in the path.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from chaos.registry import SCENARIOS
from chaos.scenario import Outcome, Scenario
from chaos.table import Row, make_table


def run(scenario: Scenario, dose: str, *, seed: int, folder: Path) -> Outcome:
    """One scenario. Whatever it raises is what it found broken; the same seed makes the same choices."""
    try:
        return scenario.run(scenario.dose(dose), random.Random(f"{seed}:{scenario.name}"), folder)
    except Exception as error:
        traceback.print_exc()
        return Outcome(done=scenario.dose(dose), survived=0, broken=[f"{type(error).__name__}: {error}"])


def options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="chaos", description="Do faults to a real service, and show what came of it.")
    parser.add_argument("--dose", choices=["small", "full"], default="full")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}; may be repeated")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="makes the same choices again")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the services, to look into them")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    for name in [name for name in os.environ if name.startswith("RUNCAST_")]:
        del os.environ[name]
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    progress.print(f"seed {chosen.seed}")
    rows: list[Row] = []
    root = Path(tempfile.mkdtemp(prefix="runcast-chaos-"))
    try:
        for scenario in SCENARIOS:
            if chosen.only is not None and scenario.name not in chosen.only:
                continue
            if scenario.lacking:
                progress.print(f"{scenario.name}: left out: {scenario.lacking}")
                rows.append((scenario, None))
            else:
                (folder := root / scenario.name).mkdir()
                started = time.monotonic()
                outcome = run(scenario, chosen.dose, seed=chosen.seed, folder=folder)
                progress.print(f"{scenario.name}: {'survived' if outcome.ok else 'BROKEN'} after {time.monotonic() - started:.0f} s")
                rows.append((scenario, outcome))
    finally:
        if chosen.keep:
            progress.print(f"The folders are kept in {root}.")
        else:
            shutil.rmtree(root, ignore_errors=True)
    console.print(make_table(rows, seed=chosen.seed))
    outcomes = [(scenario, outcome) for scenario, outcome in rows if outcome is not None]
    for scenario, outcome in outcomes:
        for sentence in outcome.broken:
            console.print(f"{scenario.name}: {sentence}", style="red", markup=False)
    if left_out := [scenario.name for scenario, outcome in rows if outcome is None]:
        console.print(f"Left out, and so not survived: {', '.join(left_out)}.", style="yellow", markup=False)
    return 0 if all(outcome.ok for _, outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
