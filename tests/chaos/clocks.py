"""The clock is set an hour forwards, and back, while jobs run and wait. A file steps it for the service, not for the machine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_calm, hold_no_processes, hold_nothing_left, listed, stored_lines
from chaos.kills import RECOVERY_SECONDS, recover
from chaos.load import Load, hold_load
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from jobs.clock import OFFSET_VARIABLE
from support.programs import program
from support.server import RunningServer, task_submission

HOUR_MS = 3_600_000
TALK_LINES, TALK_RATE = 150, 100
TIMEOUT_SECONDS = 1
SLACK_SECONDS = 3.0
"""What a busy machine may add to a time."""


@dataclass(frozen=True)
class Marked:
    """Jobs that are there when the clock is stepped."""

    talker: str
    timed: str
    queued: list[str]
    started: float


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    offset = folder / "offset"
    _step(offset, 0)
    with surroundings.serve(slots=6, environment={OFFSET_VARIABLE: str(offset)}) as server, ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(2)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses, at_once=3))
        marked = []
        hours = [rng.choice((1, -1))]
        while len(hours) < dose:
            hours.append(0 if hours[-1] else -hours[-2] if len(hours) > 1 else 1)
        for number, hour in enumerate(hours):
            marked.append(_begin(server, folder / f"order-{number}", witnesses[0]))
            time.sleep(rng.uniform(0.0, 0.5))  # the moment is the dose
            _step(offset, hour * HOUR_MS)
            findings.done += 1
            findings.hold(server.call("GET", "/health/ready").status_code == 200 or _soon_ready(server), "the worker counts as gone")
            marked[-1].queued.extend(_queue(server, folder / f"order-{number}", first=3))
            took = recover(server)
            findings.recoveries.append(took)
            findings.survived += findings.hold(took < RECOVERY_SECONDS, f"recovery took {took:.1f} s")
            _hold_marked(findings, server, marked[-1], folder / f"order-{number}", witnesses[0])
        load.stop()
        load.wait_until_all_ended()
        own = [job_id for one in marked for job_id in (one.talker, one.timed, *one.queued)]
        accepted = [*own, *(job.id for job in load.jobs if job.id is not None)]
        hold_witnesses(findings, witnesses, logs={job_id: stored_lines(surroundings.database, job_id) for job_id in accepted})
        shown = [job_id for job_id in listed(server) if job_id in own]
        findings.hold(shown == _newest_first(marked), "the list is not in the order of submission")
        hold_api(findings, server, surroundings, accepted=accepted)
        hold_no_processes(findings, accepted)
        stack.close()
        hold_at_rest(findings, server, surroundings)
    hold_load(findings, load, lost_at_most=0)
    hold_all(findings, surroundings, accepted=accepted)
    hold_nothing_left(findings, surroundings)
    hold_calm(findings, server)
    return findings.outcome()


def _step(offset: Path, milliseconds: int) -> None:
    """At once and whole, as a clock is set."""
    (new := offset.with_suffix(".new")).write_text(str(milliseconds))
    new.replace(offset)


def _soon_ready(server: RunningServer) -> bool:
    """By the new time the worker's last sign of life is old, until it notices; which may be a matter of milliseconds."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if server.call("GET", "/health/ready").status_code == 200:
            return True
    return False


def _begin(server: RunningServer, order: Path, witness: Witness) -> Marked:
    """One that talks, one that runs into its time limit, and some that wait for each other."""
    started = time.monotonic()
    talker = server.shell(program("numbered_lines", TALK_LINES, "--rate", TALK_RATE))
    timed = server.shell("exec sleep 600", timeout_seconds=TIMEOUT_SECONDS)
    for job_id in (talker, timed):
        witness.watch(job_id)
    server.wait_for_log(talker, "line 1\n")
    return Marked(talker, timed, _queue(server, order, first=0), started)


def _queue(server: RunningServer, order: Path, *, first: int) -> list[str]:
    """Jobs of one concurrency key, which note the order in which they ran."""
    scripts = [f"echo {number} >> {order}; sleep 0.2" for number in range(first, first + 3)]
    return [str(server.submit(task_submission("keyed", key=order.name, script=script))["id"]) for script in scripts]


def _hold_marked(findings: Findings, server: RunningServer, marked: Marked, order: Path, witness: Witness) -> None:
    with colleague(server) as mine:
        talker, timed = mine.wait(marked.talker), mine.wait(marked.timed)
        for job_id in marked.queued:
            mine.wait(job_id)
    findings.hold(talker["status"] == "completed", f"the job that talked is {talker['status']} ({talker['reason']})")
    findings.hold((timed["status"], timed["reason"]) == ("failed", "timeout"), f"the job that was to time out is {timed['status']}")
    findings.hold(order.read_text().split() == [str(number) for number in range(6)], "jobs of one key did not run in order of submission")
    passed = time.monotonic() - marked.started
    _hold_duration(findings, witness, marked.talker, at_least=TALK_LINES / TALK_RATE, at_most=passed)
    _hold_duration(findings, witness, marked.timed, at_least=TIMEOUT_SECONDS, at_most=TIMEOUT_SECONDS + SLACK_SECONDS)


def _hold_duration(findings: Findings, witness: Witness, job_id: str, *, at_least: float, at_most: float) -> None:
    complete = witness.wait(job_id)
    seconds = complete["duration_seconds"]
    findings.hold(at_least - 0.1 <= seconds <= at_most, f"job {job_id} took {seconds} s, it says, not {at_least:g} to {at_most:g}")


def _newest_first(marked: list[Marked]) -> list[str]:
    submitted = [job_id for one in marked for job_id in (one.talker, one.timed, *one.queued)]
    return submitted[::-1]


SCENARIOS = (
    Scenario(
        name="clocks",
        fault="the clock is set 1 h forwards or back while jobs run, wait and run into their time limit",
        unit="steps",
        small=2,
        full=12,
        run=run,
    ),
)
