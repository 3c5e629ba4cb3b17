"""`kill -9` at a random moment, of any process that the service consists of, and of jobs, while it is busy."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median

import psutil

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_no_processes, hold_nothing_left, opened, stored_lines
from chaos.load import Load, hold_load, insist, status_of
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from support.server import ENDED, RunningServer, task_submission
from support.waiting import eventually

RECOVERY_SECONDS = 20.0
SLOTS = 4
WITNESSES = 4


@dataclass
class Victims:
    """Finds what to kill, in the service as it is now."""

    server: RunningServer
    supervisors_killed: int = 0
    leaders_killed: set[str] = field(default_factory=set)

    def api_worker(self) -> list[psutil.Process]:
        return self._part("handlers.api", children=True)

    def arbiter(self) -> list[psutil.Process]:
        return self._part("handlers.api")

    def worker(self) -> list[psutil.Process]:
        return self._part("jobs.worker")

    def dispatcher(self) -> list[psutil.Process]:
        return [child for child in self._part("jobs.worker", children=True) if not leads_session(child)]

    def spares(self) -> list[psutil.Process]:
        """Supervisors that have no job now; one may be given one at this very moment."""
        busy = {pid for _, pid, _ in self._running()}
        spares = [child for child in self._part("jobs.worker", children=True) if leads_session(child) and child.pid not in busy]
        self.supervisors_killed += len(spares)
        return spares

    def supervisor(self) -> list[psutil.Process]:
        running = self._running()[:1]
        self.supervisors_killed += len(running)
        return [process for _, pid, _ in running if (process := found(pid)) is not None]

    def leader(self) -> list[psutil.Process]:
        running = [(job_id, group) for job_id, _, group in self._running() if group is not None][:1]
        self.leaders_killed |= {job_id for job_id, _ in running}
        return [process for _, group in running if (process := found(group)) is not None]

    def _running(self) -> list[tuple[str, int, int | None]]:
        """Job, supervisor and process group of what runs, the newest first."""
        query = "SELECT id, supervisor, process_group FROM jobs WHERE status = 'running' AND supervisor IS NOT NULL ORDER BY id DESC"
        with opened(self.server.folder / "data" / "runcast.db") as connection:
            return [(row["id"], json.loads(row["supervisor"])["pid"], row["process_group"]) for row in connection.execute(query)]

    def _part(self, module: str, *, children: bool = False) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            parts = [part for part in psutil.Process(self.server.pid).children() if module in part.cmdline()]
            return [child for part in parts for child in part.children()] if children else parts
        return []


Target = Callable[[Victims], list[psutil.Process]]
TARGETS: Sequence[Target] = (
    Victims.api_worker,
    Victims.arbiter,
    Victims.worker,
    Victims.dispatcher,
    Victims.spares,
    Victims.supervisor,
    Victims.leader,
)


def found(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def leads_session(process: psutil.Process) -> bool:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == process.pid
    return True


def kill(victims: Sequence[psutil.Process]) -> int:
    """Gives how many there were to be killed."""
    killed = 0
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            killed += 1
    return killed


def recover(server: RunningServer) -> float:
    """Seconds until a job that is submitted from now on has been run, by a service that has all of its parts."""
    started = time.monotonic()
    with colleague(server) as mine:
        job_id = insist(mine, "POST", "/jobs/submit", json={**task_submission("true"), "priority": 10}).json()["id"]
        eventually(lambda: status_of(mine, job_id) in ENDED, f"the job {job_id} after the fault ends", seconds=2 * RECOVERY_SECONDS)
    eventually(lambda: whole(server), "the service has all of its parts", seconds=RECOVERY_SECONDS)
    return time.monotonic() - started


def whole(server: RunningServer) -> bool:
    """Whether each process that the service consists of is there."""
    parts = Victims(server)
    return len(parts.api_worker()) == 1 and len(parts.dispatcher()) == 1


def plan(dose: int, rng: Random) -> list[list[Target]]:
    """Which processes die together: each alone in turn, and every fourth time several at once."""

    def rounds() -> Iterator[list[Target]]:
        while True:
            yield from ([target] for target in rng.sample(TARGETS, len(TARGETS)))
            yield rng.sample(TARGETS, rng.randint(2, 4))
            yield rng.sample(TARGETS, rng.randint(2, 4))

    return list(islice(rounds(), dose))


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    with surroundings.serve(slots=SLOTS, lease_seconds=2) as server, ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(WITNESSES)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses))
        victims = Victims(server)
        alone: dict[str, list[float]] = {}
        for targets in plan(dose, rng):
            seconds = _strike(findings, victims, targets, rng)
            if len(targets) == 1:
                alone.setdefault(targets[0].__name__, []).append(seconds)
        findings.notes += [f"{name.replace('_', ' ')} {median(all_seconds):.1f} s" for name, all_seconds in alone.items()]
        load.stop()
        load.wait_until_all_ended()
        accepted = [job.id for job in load.jobs if job.id is not None]
        logs = {job_id: stored_lines(surroundings.database, job_id) for job_id in accepted}
        hold_witnesses(findings, witnesses, logs=logs)
        findings.notes.append(f"{len(accepted)} jobs, {sum(map(len, logs.values()))} lines")
        findings.notes.append(f"{sum(witness.reconnects for witness in witnesses)} reconnects")
        hold_api(findings, server, surroundings, accepted=accepted)
        hold_no_processes(findings, accepted)
        stack.close()
        hold_at_rest(findings, server)
    hold_load(findings, load, lost_at_most=victims.supervisors_killed, killed=victims.leaders_killed)
    hold_all(findings, surroundings, accepted=accepted)
    hold_nothing_left(findings, surroundings)
    return findings.outcome()


def _strike(findings: Findings, victims: Victims, targets: Sequence[Target], rng: Random) -> float:
    """Kill what there is of the targets at a random moment; gives the seconds until the service is well again."""
    time.sleep(rng.uniform(0.0, 0.3))  # the moment is the dose
    # A target may be missing for a moment, because it is just being started again.
    chosen = eventually(lambda: [victim for target in targets for victim in target(victims)], f"there is something to kill: {targets}")
    findings.done += kill(chosen) > 0
    try:
        seconds = recover(victims.server)
    except AssertionError as error:
        findings.broken.append(f"after the death of {[target.__name__ for target in targets]}: {error}")
        return math.inf
    findings.recoveries.append(seconds)
    findings.survived += findings.hold(seconds < RECOVERY_SECONDS, f"recovery took {seconds:.1f} s")
    return seconds


SCENARIOS = (
    Scenario(
        name="kills",
        fault="kill -9 of API worker, arbiter, worker, dispatcher, idle supervisors, a job's supervisor, a job's leader; alone and at once",
        unit="kills",
        small=5,
        full=200,
        run=run,
    ),
)
