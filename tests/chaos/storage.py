"""The store fails for a while: its disk is full, its folder cannot be written, another process holds its lock. Nothing that was accepted is
lost, callers are told to come back, and all goes on by itself."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median

import psutil
import requests

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_no_processes, hold_nothing_left, stored_lines
from chaos.kills import RECOVERY_SECONDS, Victims, kill, recover
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
        victims = Victims(server)
        kill([*victims.api_worker(), *victims.worker(), *victims.dispatcher()])
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
            hold_at_rest(findings, server)
        # What a job does on the same disk fails as well, which is its own fault, and it says so.
        hold_load(findings, load, lost_at_most=0, ended_also=[("failed", "exit_code"), ("failed", "signal")])
        hold_all(findings, surroundings, accepted=accepted)
        hold_nothing_left(findings, surroundings)
        findings.hold("Traceback" not in server.output, "the service lost its temper")
    return findings.outcome()


def _run_all(findings: Findings, surroundings: Surroundings, server: RunningServer, dose: int, rng: Random) -> tuple[list[str], Load]:
    """Gives the jobs that were accepted."""
    kinds = list(islice(cycle(rng.sample(faults(), len(faults()))), dose))
    seconds = 10.0 if dose > len(faults()) else 1.0  # a small dose is quick
    lines = round(TALK_RATE * (seconds + 1))
    took: dict[str, list[float]] = {}
    with ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(server, f"witness {number}")) for number in range(2)]
        load = stack.enter_context(Load(server, surroundings, rng, witnesses))
        talkers = []
        for kind in kinds:
            time.sleep(rng.uniform(0.0, 0.3))  # the moment is the dose
            talkers.append(talker := server.shell(program("numbered_lines", lines, "--rate", TALK_RATE), priority=10))
            witnesses[0].watch(talker)
            server.wait_for_log(talker, "line 1\n")
            took.setdefault(kind.__name__.replace("_", " "), []).append(_strike(findings, surroundings, server, kind, talker, seconds))
        load.stop()
        load.wait_until_all_ended()
        for talker in talkers:
            job = server.wait(talker, seconds=40)
            findings.hold(job["status"] == "completed", f"job {talker} is {job['status']} ({job['reason']})")
            findings.lost_lines += lines - len(stored_lines(surroundings.database, talker))
        accepted = [*talkers, *(job.id for job in load.jobs if job.id is not None)]
        logs = {job_id: stored_lines(surroundings.database, job_id) for job_id in accepted}
        hold_witnesses(findings, witnesses, logs=logs)
    findings.notes += [f"{name} {median(all_seconds):.1f} s" for name, all_seconds in took.items()]
    findings.notes.append(f"{len(accepted)} jobs, {sum(map(len, logs.values()))} lines")
    return accepted, load


def _strike(findings: Findings, surroundings: Surroundings, server: RunningServer, kind: Fault, talker: str, seconds: float) -> float:
    """Do one fault for so long, while a job talks; gives the seconds until the service was well again after it."""
    findings.done += 1
    with contextmanager(kind)(server, surroundings):
        _hold_answers(findings, server, talker, seconds)
    took = recover(server)
    findings.recoveries.append(took)
    findings.survived += findings.hold(took < RECOVERY_SECONDS, f"recovery took {took:.1f} s after {kind.__name__}")
    return took


def _hold_answers(findings: Findings, server: RunningServer, job_id: str, seconds: float) -> None:
    """While the fault lasts: reads are answered, writes are accepted (late) or refused with the time to come back."""
    until = time.monotonic() + seconds
    with colleague(server) as mine:
        while time.monotonic() < until:
            for method, path, body in (("GET", f"/jobs/{job_id}", None), ("POST", "/jobs/submit", task_submission("true"))):
                _hold_answer(findings, mine, method, path, body)
            time.sleep(0.1)


def _hold_answer(findings: Findings, server: RunningServer, method: str, path: str, body: object) -> None:
    started = time.monotonic()
    try:
        answer = server.call(method, path, json=body, timeout=ANSWER_SECONDS)
    except requests.ConnectionError:
        return  # it is just being started again
    except requests.RequestException as error:
        findings.broken.append(f"{method} {path} had no answer after {time.monotonic() - started:.0f} s: {type(error).__name__}")
        return
    refused = answer.status_code == 503 and answer.headers["Content-Type"] == "application/problem+json" and "Retry-After" in answer.headers
    findings.hold(answer.ok or refused, f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")


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
