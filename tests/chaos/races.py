"""Requests that contradict each other, at once: cancel against the end, cancel twice, delete, retry. One wins, and no answer is a lie."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

import requests

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_no_processes, hold_nothing_left, stored_lines
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from support.server import RunningServer
from support.waiting import eventually

AT_ONCE = 4
"""Races that are run beside each other."""
CANCELS = 50
MANY = 100
"""Of so many races that go either way, either side wins some."""
QUICK = "echo line 1; echo line 2; sleep {delay}"
LONG = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; sleep 0.01; done"


@dataclass
class Race:
    """One race on one job: `wrong` has a sentence for each answer that was not honest."""

    server: RunningServer
    witness: Witness
    delay: float
    wrong: list[str]
    jobs: list[str]
    deleted: list[str]
    winners: Counter[str]
    """Of those races that both sides can win."""

    def start(self, script: str, *, running: bool = True) -> str:
        job_id = self.server.shell(script)
        self.jobs.append(job_id)
        self.witness.watch(job_id)
        if running:
            # So it is subscribed, too: what is deleted before that, nobody can watch.
            eventually(lambda: self.witness.seen[job_id].lines, "the witness sees the job's first line")
        return job_id

    def expect(self, answer: requests.Response, *statuses: int) -> requests.Response:
        if answer.status_code not in statuses:
            self.wrong.append(f"{answer.request.method} {answer.request.path_url} gave {answer.status_code}: {answer.text[:200]}")
        return answer

    def cancel(self, job_id: str) -> requests.Response:
        return self.server.call("POST", f"/jobs/{job_id}/cancel")

    def ended_as(self, job_id: str, *statuses: str) -> dict[str, Any]:
        job = self.server.wait(job_id)
        if job["status"] not in statuses:
            self.wrong.append(f"job {job_id} is {job['status']}, not {' or '.join(statuses)}")
        return job


def cancel_against_the_end(race: Race) -> None:
    job_id = race.start(QUICK.format(delay=round(race.delay, 3)), running=False)
    time.sleep(race.delay)  # the moment of the cancel is the dose
    answer = race.expect(race.cancel(job_id), 202, 409)
    if answer.status_code == 409:
        race.ended_as(job_id, "completed")
        race.winners["end"] += 1
        return
    job = race.ended_as(job_id, "cancelled", "completed")
    race.winners["cancel" if job["status"] == "cancelled" else "end after an accepted cancel"] += 1
    if answer.json()["status"] not in ("pending", "running", "cancelled"):
        race.wrong.append(f"a cancel of job {job_id} was accepted when it was {answer.json()['status']}")
    if race.cancel(job_id).status_code != (202 if job["status"] == "cancelled" else 409):
        race.wrong.append(f"a second cancel of job {job_id}, which is {job['status']}, was answered otherwise")


def cancel_twice(race: Race) -> None:
    job_id = race.start(LONG)
    first, second = (race.expect(race.cancel(job_id), 202).json() for _ in range(2))
    if first["cancel_requested_at"] != second["cancel_requested_at"]:
        race.wrong.append(f"the second cancel of job {job_id} took the place of the first")
    race.ended_as(job_id, "cancelled")


def delete_while_running(race: Race) -> None:
    job_id = race.start(LONG)
    race.deleted.append(job_id)
    race.expect(race.server.call("DELETE", f"/jobs/{job_id}"), 204)
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        race.expect(race.server.call(method, f"/jobs/{job_id}{path}"), 404)


def delete_while_watched(race: Race) -> None:
    job_id = race.start(LONG)
    race.deleted.append(job_id)
    race.expect(race.server.call("DELETE", f"/jobs/{job_id}"), 204)
    seen = race.witness.seen[job_id]
    complete = eventually(lambda: seen.complete, "the witness sees the end of the deleted job")
    if complete["status"] != "cancelled":
        race.wrong.append(f"the deleted job {job_id} ended as {complete['status']}")


def retry_while_running(race: Race) -> None:
    job_id = race.start(QUICK.format(delay=round(race.delay, 3)))
    answer = race.expect(race.server.call("POST", f"/jobs/{job_id}/retry"), 202, 409)
    race.winners["retry refused" if answer.status_code == 409 else "retry"] += 1
    if answer.status_code == 202:
        race.jobs.append(again := answer.json()["id"])
        race.witness.watch(again)
        if answer.json()["retry_of"] != job_id:
            race.wrong.append(f"job {again} does not say that it repeats {job_id}")
        race.ended_as(again, "completed")
    race.ended_as(job_id, "completed")


def many_cancels_at_once(race: Race) -> None:
    job_id = race.start(LONG)

    def cancel(_: int) -> requests.Response:
        return requests.post(f"{race.server.url}/api/jobs/{job_id}/cancel", headers=dict(race.server.session.headers), timeout=20)

    with ThreadPoolExecutor(CANCELS) as pool:
        answers = [race.expect(answer, 202) for answer in pool.map(cancel, range(CANCELS))]
    if len({answer.json()["cancel_requested_at"] for answer in answers if answer.ok}) != 1:
        race.wrong.append(f"the cancels of job {job_id} count as more than one")
    race.ended_as(job_id, "cancelled")


KINDS: Sequence[Callable[[Race], None]] = (
    cancel_against_the_end,
    cancel_twice,
    delete_while_running,
    delete_while_watched,
    retry_while_running,
    many_cancels_at_once,
)


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    # The interesting moments are those around the end of a quick job.
    plan = [(kind, rng.uniform(0.0, 0.06)) for kind in islice(cycle(KINDS), dose)]
    with surroundings.serve(slots=AT_ONCE) as server:
        jobs, deleted = _run_all(plan, server, surroundings, findings)
        hold_api(findings, server, surroundings, accepted=jobs)
        hold_no_processes(findings, jobs)
        hold_at_rest(findings, server, surroundings)
        server.assert_clean()
    hold_all(findings, surroundings, accepted=jobs, deleted=deleted)
    hold_nothing_left(findings, surroundings)
    return findings.outcome()


def _run_all(
    plan: Sequence[tuple[Callable[[Race], None], float]], server: RunningServer, surroundings: Surroundings, findings: Findings
) -> tuple[list[str], list[str]]:
    """Gives the jobs of all races, and those of them that were deleted."""
    jobs: list[str] = []
    deleted: list[str] = []
    winners: Counter[str] = Counter()
    with ExitStack() as stack:
        free: SimpleQueue[tuple[RunningServer, Witness]] = SimpleQueue()
        for number in range(AT_ONCE):
            free.put((stack.enter_context(colleague(server)), stack.enter_context(Witness(server, f"witness {number}"))))

        def one(kind: Callable[[Race], None], delay: float) -> None:
            mine = free.get()
            race = Race(*mine, delay, [], [], [], winners)
            started = time.monotonic()
            try:
                kind(race)
            except Exception as error:
                race.wrong.append(f"{kind.__name__}: {type(error).__name__}: {error}")
            finally:
                free.put(mine)
            findings.recoveries.append(time.monotonic() - started)
            findings.done += 1
            findings.survived += not race.wrong
            findings.broken += race.wrong
            jobs.extend(race.jobs)
            deleted.extend(race.deleted)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda planned: one(*planned), plan))
        witnesses = [free.get()[1] for _ in range(AT_ONCE)]
        logs = {job_id: stored_lines(surroundings.database, job_id) for job_id in set(jobs) - set(deleted)}
        hold_witnesses(findings, witnesses, logs=logs)
    findings.notes += [f"{name} {count}" for name, count in sorted(winners.items())]
    if len(plan) >= MANY:
        findings.hold({"cancel", "end"} <= set(winners), f"one side won all races of a cancel against the end: {dict(winners)}")
    return jobs, deleted


SCENARIOS = (
    Scenario(
        name="races",
        fault="cancel against the end, cancel twice, delete while running and while watched, retry of a running job, 50 cancels at once",
        unit="races",
        small=12,
        full=500,
        run=run,
    ),
)
