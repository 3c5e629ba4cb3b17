"""The store fails for a while: its disk is full, its folder cannot be written, another process holds its lock. Nothing that was accepted is
lost, callers are told to come back, and all goes on by itself."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import psutil
import requests

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_calm, hold_no_processes, hold_nothing_left, stored_lines
from chaos.kills import RECOVERY_SECONDS, Victims, recover
from chaos.load import Load, hold_load
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from support.programs import program
from support.server import RunningServer, task_submission
from support.waiting import eventually

TMPFS_BYTES = 24 << 20
TALK_RATE = 250
ANSWER_SECONDS = 12.0
"""Nobody waits longer for an answer, whatever the store does."""
SHOWN_SECONDS = 15.0
"""So long after its time a fault must have shown."""
Fault = Callable[[RunningServer, Surroundings], Iterator[None]]


def locked(_server: RunningServer, surroundings: Surroundings) -> Iterator[None]:
    """Another process is in the midst of a write and does not come to its end."""
    with closing(sqlite3.connect(surroundings.database, timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def full(_server: RunningServer, surroundings: Surroundings) -> Iterator[None]:
    """Something else has filled the disk that the data folder is on."""
    ballast = surroundings.folder / "data" / "ballast"
    with ballast.open("wb", buffering=0) as out, suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while out.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        ballast.unlink()


def unwritable(_server: RunningServer, surroundings: Surroundings) -> Iterator[None]:
    """Every write to a file fails for every process of the service, as on a broken disk, also to files that are open."""
    limited = {process.pid: process.rlimit(resource.RLIMIT_FSIZE) for process in surroundings.processes}
    _limit_files({pid: (0, hard) for pid, (_, hard) in limited.items()})
    try:
        yield
    finally:
        # Those that were forked meanwhile, too.
        _limit_files({process.pid: (resource.RLIM_INFINITY, resource.RLIM_INFINITY) for process in surroundings.processes})


def read_only(server: RunningServer, surroundings: Surroundings) -> Iterator[None]:
    """The data folder is mounted anew, read-only; what has it open is started again."""
    data = surroundings.folder / "data"
    # A process that has just started may open a file for writing between the two steps of a mount: then it stays writable.
    eventually(lambda: _mount_read_only(data), "the data folder is read-only")
    try:
        victims = Victims(server, Random())
        victims.kill([*victims.api_worker(), *victims.worker(), *victims.dispatcher()])
        yield
    finally:
        _unmount(data)


def _mount_read_only(folder: Path) -> bool:
    _mount("--bind", str(folder), str(folder))
    if subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=False, capture_output=True).returncode == 0:
        return True
    _unmount(folder)
    return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _limit_files(limits: dict[int, tuple[int, int]]) -> None:
    for pid, limit in limits.items():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, limit)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def may_mount() -> bool:
    return os.geteuid() == 0 and sys.platform == "linux"


@contextmanager
def small_disk(surroundings: Surroundings) -> Iterator[None]:
    """The data folder on a disk of its own."""
    (data := surroundings.folder / "data").mkdir()
    _mount("-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=700", "none", str(data))
    try:
        yield
    finally:
        # What must hold is read from a copy: the disk goes.
        _unmount(data)


def faults() -> Sequence[Fault]:
    """Those that can be done here."""
    return (locked, unwritable, full, read_only) if may_mount() else (locked, unwritable)


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings = Findings()
    surroundings = Surroundings.make(folder)
    with ExitStack() as stack:
        if may_mount():
            stack.enter_context(small_disk(surroundings))
        with surroundings.serve(slots=4, lease_seconds=2) as server:
            accepted, load = _run_all(findings, surroundings, server, dose, rng)
            hold_api(findings, server, surroundings, accepted=accepted)
            hold_no_processes(findings, accepted)
            hold_at_rest(findings, server, surroundings)
        # What a job does on the same disk fails as well, which is its own fault, and it says so.
        hold_load(findings, load, lost_at_most=0, ended_also=[("failed", "exit_code"), ("failed", "signal")])
        hold_all(findings, surroundings, accepted=accepted)
        hold_nothing_left(findings, surroundings)
        hold_calm(findings, server)
    return findings.outcome()


def _run_all(findings: Findings, surroundings: Surroundings, server: RunningServer, dose: int, rng: Random) -> tuple[list[str], Load]:
    """Gives the jobs that were accepted."""
    kinds = list(islice(cycle(rng.sample(faults(), len(faults()))), dose))
    seconds = 10.0 if dose > len(faults()) else 1.0  # a small dose is quick
    lines = round(TALK_RATE * (seconds + 1))
    took: dict[str, list[float]] = {}
    answers: Counter[str] = Counter()
    with ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(2)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses))
        talkers, meanwhile = [], []
        for kind in kinds:
            time.sleep(rng.uniform(0.0, 0.3))  # the moment is the dose
            talkers.append(talker := server.shell(program("numbered_lines", lines, "--rate", TALK_RATE), priority=10))
            witnesses[0].watch(talker)
            server.wait_for_log(talker, "line 1\n")
            strike = Strike(kind.__name__.replace("_", " "), server, talker)
            took.setdefault(strike.name, []).append(_strike(findings, surroundings, strike, kind, seconds))
            meanwhile += strike.accepted
            answers += strike.answers
        load.stop()
        load.wait_until_all_ended()
        for job_id in (*talkers, *meanwhile):
            job = server.wait(job_id, seconds=40)
            findings.hold(job["status"] == "completed", f"job {job_id} is {job['status']} ({job['reason']})")
        findings.lost_lines += sum(lines - len(stored_lines(surroundings.database, talker)) for talker in talkers)
        accepted = [*talkers, *meanwhile, *(job.id for job in load.jobs if job.id is not None)]
        logs = {job_id: stored_lines(surroundings.database, job_id) for job_id in accepted}
        hold_witnesses(findings, witnesses, logs=logs)
    findings.notes += [f"{name} {median(all_seconds):.1f} s" for name, all_seconds in took.items()]
    findings.notes += [f"{count} {what}" for what, count in sorted(answers.items())]
    findings.notes.append(f"{len(accepted)} jobs, {sum(map(len, logs.values()))} lines")
    if not may_mount():
        findings.notes.append("a full disk and a read-only folder left out: only root may mount")
    return accepted, load


def _strike(findings: Findings, surroundings: Surroundings, strike: Strike, kind: Fault, seconds: float) -> float:
    """Do one fault for so long, while a job talks; gives the seconds until the service was well again after it."""
    findings.done += 1
    with contextmanager(kind)(strike.server, surroundings):
        strike.last(seconds, may_break=kind is read_only)
    findings.broken += strike.faults
    took = recover(strike.server)
    findings.recoveries.append(took)
    findings.survived += findings.hold(took < RECOVERY_SECONDS, f"recovery took {took:.1f} s after {strike.name}")
    return took


@dataclass
class Strike:
    """What clients are told while one fault lasts: reads are answered, writes are accepted or refused with the time to come back, and each
    soon. `accepted` are the jobs that were answered with 202 meanwhile; the talker is a job that talks."""

    name: str
    server: RunningServer
    talker: str
    accepted: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def last(self, seconds: float, *, may_break: bool) -> None:
        """For so long, and until it has shown: a submission was refused, a read was answered. With `may_break` connections break before
        that, because what serves them is being started again."""
        until = time.monotonic() + seconds
        with colleague(self.server) as mine:
            while time.monotonic() < until or not (self.answers["refused"] and self.answers["read"]):
                may_break = may_break and not self.answers["read"]
                self._ask(mine, "read", "GET", f"/jobs/{self.talker}", may_break=may_break)
                self._ask(mine, "accepted", "POST", "/jobs/submit", may_break=may_break, json=task_submission("true"))
                if time.monotonic() > until + SHOWN_SECONDS:
                    self.faults.append(f"{self.name} did not show: {dict(self.answers)}")
                    return
                time.sleep(0.1)

    def _ask(self, server: RunningServer, good: str, method: str, path: str, *, may_break: bool, **options: Any) -> None:
        started = time.monotonic()
        try:
            answer = server.call(method, path, timeout=ANSWER_SECONDS, **options)
        except requests.RequestException as error:
            if not (may_break and isinstance(error, requests.ConnectionError)):
                seconds = time.monotonic() - started
                self.faults.append(f"{method} {path} had no answer after {seconds:.0f} s of {self.name}: {type(error).__name__}")
            return
        self.answers[self._judge(answer, good, f"{method} {path}")] += 1

    def _judge(self, answer: requests.Response, good: str, what: str) -> str:
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
        if answer.ok:
            return good
        problem = answer.headers["Content-Type"] == "application/problem+json" and "Retry-After" in answer.headers
        if answer.status_code != 503 or not problem:
            self.faults.append(f"{what} was answered with {answer.status_code} while {self.name}: {answer.text[:300]}")
        return "refused" if good == "accepted" else "not read"


SCENARIOS = (
    Scenario(
        name="storage",
        fault="for 10 s each: the disk is full, its folder read-only, every write fails, another process holds the lock",
        unit="faults",
        small=4,
        full=12,
        run=run,
    ),
)
