"""A crash between any two steps of a job's way through the service: each of `jobs.fault_points` in turn, those of different processes at
once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_calm, hold_leases, hold_no_processes, hold_nothing_left, stored_lines
from chaos.kills import LEASE_SECONDS, NOTICE_SECONDS, RECOVERY_SECONDS, recover
from chaos.load import Load, hold_load
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings
from chaos.witnesses import Witness, hold_witnesses
from jobs.fault_points import POINTS, VARIABLE
from support.server import RunningServer
from support.waiting import eventually

PROCESSES = {"submit": "api", "claim": "dispatcher", "sweep": "dispatcher", "lease": "worker"}
"""Which process a point is in, by the first part of its name; the others are in a supervisor."""
AT_ONCE = {"api": 1, "worker": 1, "dispatcher": 2, "supervisor": 3}
LOSS = "start.taken"
"""There is something to sweep after it."""
HARMLESS = {"start.received", "end.committed"}
"""Of those in a supervisor: it has no job yet, or no more."""


def process_of(point: str) -> str:
    return PROCESSES.get(point.partition(".")[0], "supervisor")


def waves(rng: Random) -> Iterator[Sequence[str]]:
    """All points, by chance, in as few waves as let each process die no more often at a time than there are of it."""
    left = rng.sample(sorted(POINTS), len(POINTS))
    while left:
        room = dict(AT_ONCE)
        wave = []
        for point in list(left):
            if room[process_of(point)]:
                room[process_of(point)] -= 1
                left.remove(point)
                wave.append(point)
        yield wave if LOSS in wave or not any(point.startswith("sweep.") for point in wave) else [*wave, LOSS]


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    (armed := folder / "armed").mkdir()
    hit: list[str] = []
    with surroundings.serve(slots=8, lease_seconds=LEASE_SECONDS, environment={VARIABLE: str(armed)}) as server, ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(2)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses, at_once=10, attempts=2))
        while len(hit) < dose:
            for points in waves(rng):
                hit += _strike(findings, server, points, armed)
                hold_leases(findings, surroundings, seconds=NOTICE_SECONDS)
        load.stop()
        load.wait_until_all_ended()
        accepted = [job.id for job in load.jobs if job.id is not None]
        hold_witnesses(findings, witnesses, logs={job_id: stored_lines(surroundings.database, job_id) for job_id in accepted})
        findings.notes.append(f"{len(set(hit))} points, {len(accepted)} jobs")
        hold_api(findings, server, surroundings, accepted=accepted)
        hold_no_processes(findings, accepted)
        stack.close()
        hold_at_rest(findings, server, surroundings)
    findings.hold(set(hit) == POINTS, f"these points were never reached: {sorted(POINTS - set(hit))}")
    hold_load(findings, load, lost_at_most=sum(process_of(point) == "supervisor" and point not in HARMLESS for point in hit))
    hold_all(findings, surroundings, accepted=accepted)
    hold_nothing_left(findings, surroundings)
    hold_calm(findings, server)
    return findings.outcome()


def _strike(findings: Findings, server: RunningServer, points: Sequence[str], armed: Path) -> list[str]:
    """Arm the points, and wait until each was hit and the service is well again; gives those that were. It recovers from the last one."""
    for point in points:
        (armed / point).touch()
    try:
        eventually(lambda: not any(armed.iterdir()), f"{points} are reached", seconds=2 * RECOVERY_SECONDS)
    except AssertionError as error:
        findings.broken.append(str(error))
    hit = [point for point in points if not (armed / point).exists()]
    for point in points:
        (armed / point).unlink(missing_ok=True)
    findings.done += len(points)
    seconds = recover(server)
    findings.recoveries.append(seconds)
    findings.survived += len(hit) if findings.hold(seconds < RECOVERY_SECONDS, f"recovery from {points} took {seconds:.1f} s") else 0
    return hit


SCENARIOS = (
    Scenario(
        name="crashes",
        fault="crash between any two steps of submit, claim, start, chunk, end and sweep",
        unit="crashes",
        small=len(POINTS),
        full=5 * len(POINTS),
        run=run,
    ),
)
