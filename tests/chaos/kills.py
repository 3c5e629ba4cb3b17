"""`kill -9` at a random moment, of any process that the service consists of, and of jobs, while it is busy."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median

import psutil

from chaos.invariants import (
    hold_all,
    hold_api,
    hold_at_rest,
    hold_calm,
    hold_leases,
    hold_no_processes,
    hold_nothing_left,
    opened,
    stored_lines,
)
from chaos.load import Load, hold_load, insist, losses, status_of
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from support.server import ENDED, RunningServer, task_submission
from support.waiting import eventually

RECOVERY_SECONDS = 20.0
LEASE_SECONDS = 2
NOTICE_SECONDS = 2 * LEASE_SECONDS + 1.0
"""After so long, a supervisor that was lost has been noticed."""
SLOTS = 4
WITNESSES = 4


@dataclass
class Victims:
    """Finds what to kill, in the service as it is now, and kills it. `lost` are the jobs whose supervisor was killed, each with how many of
    its lines were stored then; `leaders` those whose leader was."""

    server: RunningServer
    rng: Random
    lost: dict[str, int] = field(default_factory=dict)
    leaders: set[str] = field(default_factory=set)

    @property
    def database(self) -> Path:
        return self.server.folder / "data" / "runcast.db"

    def api_worker(self) -> list[psutil.Process]:
        return self._part("handlers.server.api", children=True)

    def arbiter(self) -> list[psutil.Process]:
        return self._part("handlers.server.api")

    def worker(self) -> list[psutil.Process]:
        return self._part("handlers.server.worker")

    def dispatcher(self) -> list[psutil.Process]:
        return [child for child in self._part("handlers.server.worker", children=True) if not leads_session(child)]

    def spares(self) -> list[psutil.Process]:
        """Supervisors that have no job now; one may be given one at this very moment."""
        busy = {running.supervisor for running in self._running()}
        return [child for child in self._part("handlers.server.worker", children=True) if leads_session(child) and child.pid not in busy]

    def supervisor(self) -> list[psutil.Process]:
        return self._one_of([running.supervisor for running in self._running()])

    def leader(self) -> list[psutil.Process]:
        return self._one_of([running.group for running in self._running() if running.group is not None])

    def found(self, targets: Sequence[Target], *, at_least: int) -> list[psutil.Process]:
        """The processes of the targets as they are now; none unless there are some of so many of them."""
        found = [target(self) for target in targets]
        return [process for one in found for process in one] if sum(map(bool, found)) >= at_least else []

    def kill(self, processes: Sequence[psutil.Process]) -> set[str]:
        """Kill them at once; gives the jobs that lost their supervisor or their leader by that.

        They are stopped first, so that what is read in between is what they have done.
        """
        stop(processes)
        pids = {process.pid for process in processes}
        running = self._running()
        lost = {one.job_id: one.lines for one in running if one.supervisor in pids}
        leaders = {one.job_id for one in running if one.group in pids}
        kill(processes)
        self.lost |= lost
        self.leaders |= leaders
        return leaders | set(lost)

    def ended(self, job_ids: Collection[str]) -> bool:
        with opened(self.database) as connection:
            unended = {row["id"] for row in connection.execute("SELECT id FROM jobs WHERE ended_at IS NULL")}
        return not unended & set(job_ids)

    def _one_of(self, pids: Sequence[int]) -> list[psutil.Process]:
        process = found(self.rng.choice(pids)) if pids else None
        return [process] if process is not None else []

    def _running(self) -> list[Running]:
        query = "SELECT id, supervisor, process_group, log_lines FROM jobs WHERE status = 'running' AND supervisor IS NOT NULL"
        with opened(self.database) as connection:
            return [
                Running(row["id"], json.loads(row["supervisor"])["pid"], row["process_group"], row["log_lines"])
                for row in connection.execute(query)
            ]

    def _part(self, module: str, *, children: bool = False) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            parts = [part for part in psutil.Process(self.server.pid).children() if module in part.cmdline()]
            return [child for part in parts for child in part.children()] if children else parts
        return []


@dataclass(frozen=True)
class Running:
    """A supervised job: its supervisor's pid, its process group, and how many of its lines are stored."""

    job_id: str
    supervisor: int
    group: int | None
    lines: int


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


def stop(processes: Sequence[psutil.Process]) -> None:
    """As SIGSTOP does; when this returns they do nothing any more."""
    halted = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            eventually(lambda: process.status() in halted, f"process {process.pid} stops")  # noqa: B023  # called at once


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


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
    parts = Victims(server, Random())
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
    with surroundings.serve(slots=SLOTS, lease_seconds=LEASE_SECONDS) as server, ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(WITNESSES)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses))
        victims = Victims(server, rng)
        alone: dict[str, list[float]] = {}
        for targets in plan(dose, rng):
            seconds = _strike(findings, victims, targets)
            hold_leases(findings, surroundings, seconds=NOTICE_SECONDS)
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
        hold_at_rest(findings, server, surroundings)
    findings.notes.append(f"{len(victims.lost)} jobs lost their supervisor, {len(victims.leaders)} their leader")
    hold_lost(findings, surroundings.database, victims.lost)
    hold_load(findings, load, lost_at_most=len(victims.lost), stored=victims.lost, killed=victims.leaders)
    hold_all(findings, surroundings, accepted=accepted)
    hold_nothing_left(findings, surroundings)
    hold_calm(findings, server)
    return findings.outcome()


def hold_lost(findings: Findings, database: Path, killed: Collection[str]) -> None:
    """Those jobs lost their supervisor whose supervisor was killed, and no others."""
    lost = losses(database)
    findings.broken += [f"job {job_id} lost its supervisor, which nobody had killed" for job_id in lost if job_id not in killed]
    findings.broken += [f"nobody noticed that the supervisor of job {job_id} was killed" for job_id in killed if job_id not in lost]


def _strike(findings: Findings, victims: Victims, targets: Sequence[Target]) -> float:
    """Kill what there is of the targets at a random moment; gives the seconds until the service is well again and the jobs that were hit
    have ended."""
    time.sleep(victims.rng.uniform(0.0, 0.3))  # the moment is the dose
    names = ", ".join(target.__name__ for target in targets)
    hit = victims.kill(_choose(victims, targets, names))
    started = time.monotonic()
    findings.done += 1
    try:
        recover(victims.server)
        eventually(lambda: victims.ended(hit), "the jobs that were hit have ended", seconds=RECOVERY_SECONDS)
    except AssertionError as error:
        findings.broken.append(f"after the death of {names}: {error}")
        return math.inf
    seconds = time.monotonic() - started
    findings.recoveries.append(seconds)
    findings.survived += findings.hold(seconds < RECOVERY_SECONDS, f"recovery took {seconds:.1f} s")
    return seconds


def _choose(victims: Victims, targets: Sequence[Target], names: str) -> list[psutil.Process]:
    """Some of each target, once there are: one may be missing for a moment, because it is just being started again. Supervisors without a
    job are rare under load; the others do not wait for them for long."""
    with suppress(AssertionError):
        return eventually(lambda: victims.found(targets, at_least=len(targets)), f"there is something to kill: {names}", seconds=5)
    return eventually(lambda: victims.found(targets, at_least=min(2, len(targets))), f"there is something to kill: {names}")


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
