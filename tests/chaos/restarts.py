"""`serve` is stopped and started again under load: told to keep its jobs, told nothing, or killed as a whole."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from random import Random

import psutil

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_calm, hold_no_processes, hold_nothing_left, opened, stored_lines
from chaos.kills import RECOVERY_SECONDS, recover
from chaos.load import Load, hold_load
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings
from chaos.witnesses import Witness, hold_witnesses
from support.programs import runs
from support.server import RunningServer
from support.waiting import eventually

SLOTS = 4
WAYS = ("stopped", "kept", "killed")
GRACE_SECONDS = 1.0
"""`stop_grace` of the task that the load runs."""
STOP_SECONDS = GRACE_SECONDS + 5.0
"""What a stop may take: the grace of the jobs, and the end of our own processes on a busy machine."""


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    ways = list(islice(cycle(rng.sample(WAYS, len(WAYS))), dose))
    with ExitStack() as stack:
        server = _start(surroundings, stack, port=0, way=ways[0])
        port = int(server.url.rpartition(":")[2])
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(2)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses, at_once=8))
        for way, following in zip(ways, [*ways[1:], "kept"], strict=True):
            eventually(lambda: _running(surroundings), "the load runs", seconds=RECOVERY_SECONDS)
            time.sleep(rng.uniform(0.0, 0.5))  # the moment is the dose
            _end(findings, surroundings, load, server, way)
            findings.done += 1
            started = time.monotonic()
            server = _start(surroundings, stack, port=port, way=following)
            load.server = server
            recover(server)
            seconds = time.monotonic() - started
            findings.recoveries.append(seconds)
            findings.survived += findings.hold(seconds < RECOVERY_SECONDS, f"recovery took {seconds:.1f} s")
        load.stop()
        load.wait_until_all_ended()
        accepted = [job.id for job in load.jobs if job.id is not None]
        hold_witnesses(findings, witnesses, logs={job_id: stored_lines(surroundings.database, job_id) for job_id in accepted})
        hold_api(findings, server, surroundings, accepted=accepted)
        hold_no_processes(findings, accepted)
        for witness in witnesses:
            witness.stop()
        hold_at_rest(findings, server, surroundings)
        server.stop()
    findings.notes.append(f"{len(accepted)} jobs")
    hold_load(findings, load, lost_at_most=0, ended_also=[("cancelled", "server_shutdown")])
    hold_all(findings, surroundings, accepted=accepted)
    hold_nothing_left(findings, surroundings)
    hold_calm(findings, server)
    return findings.outcome()


def _start(surroundings: Surroundings, stack: ExitStack, *, port: int, way: str) -> RunningServer:
    return stack.enter_context(surroundings.serve(slots=SLOTS, lease_seconds=3, port=port, keep_jobs=way == "kept"))


def _running(surroundings: Surroundings) -> list[str]:
    query = "SELECT id FROM jobs WHERE status = 'running' AND supervisor IS NOT NULL"
    with opened(surroundings.database) as connection:
        return [row["id"] for row in connection.execute(query)]


def _end(findings: Findings, surroundings: Surroundings, load: Load, server: RunningServer, way: str) -> None:
    parts = psutil.Process(server.pid).children()
    before = set(_running(surroundings))
    started = time.monotonic()
    if way == "killed":
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(runs(part.pid) for part in parts), "the parts of a killed server end by themselves")
        return
    status = server.stop()
    seconds = time.monotonic() - started
    findings.hold(status == 0, f"serve ended with {status}")
    findings.hold(seconds < STOP_SECONDS, f"it took {seconds:.1f} s to stop")
    if way == "stopped":
        running = set(_running(surroundings))
        findings.hold(not running, f"{len(running)} jobs run on after a stop")
        hold_no_processes(findings, before)
    else:
        _hold_kept(findings, surroundings, load, before)


def _hold_kept(findings: Findings, surroundings: Surroundings, load: Load, before: Collection[str]) -> None:
    """None of them was ended by the stop; while there is no service, those that run go on until they end."""
    talking = [job for job in load.jobs if job.id in before and job.kind == "numbered"]
    said = {job.name: load.said(job) for job in talking}
    goes_on = [job for job in talking if len(said[job.name]) < job.lines]
    try:
        eventually(lambda: all(len(load.said(job)) > len(said[job.name]) for job in goes_on), "the kept jobs go on")
    except AssertionError as error:
        findings.broken.append(str(error))
    query = "SELECT id FROM jobs WHERE reason = 'server_shutdown'"
    with opened(surroundings.database) as connection:
        shut_down = {row["id"] for row in connection.execute(query)}
    findings.hold(not shut_down & set(before), "a stop with --keep-jobs cancelled jobs")


SCENARIOS = (
    Scenario(
        name="restarts",
        fault="serve stopped, stopped with --keep-jobs, or killed, under load, and started again",
        unit="restarts",
        small=len(WAYS),
        full=20 * len(WAYS),
        run=run,
    ),
)
