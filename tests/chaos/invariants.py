"""What must hold whatever happened, read from the SQLite file, the API and the process table. Each check gives a sentence a fault.

Nothing here waits but `nothing_left`, and nothing here changes anything.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from chaos.scenario import Findings
from chaos.service import Surroundings
from jobs.execution.process_table import Identity
from jobs.model import ENDED, MARKER, TRANSITIONS, Status
from support.server import RunningServer
from support.waiting import eventually

SETTLE_TIMEOUT_SECONDS = 10.0
"""How long what is about to end may take."""


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """A look from beside: one consistent view, nothing written."""
    with closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection


def hold_all(findings: Findings, service: Surroundings, *, accepted: Collection[str], deleted: Collection[str] = ()) -> None:
    """Everything that the store must show for the submissions that were answered with 202; those that were deleted may be gone."""
    with opened(service.database) as connection:
        kept = set(accepted) - set(deleted)
        stored = {row["id"] for row in connection.execute("SELECT id FROM jobs")}
        findings.broken += [f"job {job_id} was accepted and is not there" for job_id in sorted(kept - stored)]
        for check in (legal_histories, ends, leases, whole_logs):
            findings.broken += list(check(connection))


def legal_histories(connection: sqlite3.Connection) -> Iterator[str]:
    """Each history begins with `pending`, every step follows from the last and is legal, and the last is what the job is now."""
    histories: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute("SELECT * FROM job_events ORDER BY cursor"):
        histories.setdefault(row["job_id"], []).append(row)
    for job in connection.execute("SELECT id, status FROM jobs"):
        history = histories.get(job["id"], [])
        steps = [row["status"] for row in history]
        if not steps or (history[0]["previous"], steps[0]) != (None, Status.PENDING):
            yield f"the history of job {job['id']} does not begin with its submission: {steps}"
            continue
        for before, after in pairwise(history):
            if after["previous"] != before["status"] or Status(after["status"]) not in TRANSITIONS[Status(before["status"])]:
                yield f"the history of job {job['id']} has an illegal step: {steps}"
        if steps[-1] != job["status"]:
            yield f"job {job['id']} is {job['status']}, but its history ends with {steps[-1]}"
        if sum(step in ENDED for step in steps) != (job["status"] in ENDED):
            yield f"job {job['id']} has ended more than once: {steps}"


def ends(connection: sqlite3.Connection) -> Iterator[str]:
    """What has ended has a time of its end and belongs to nobody any more; a time is never before the one that it follows."""
    for job in connection.execute("SELECT * FROM jobs"):
        ended = job["status"] in ENDED
        if ended != (job["ended_at"] is not None):
            yield f"job {job['id']} is {job['status']} and its end is at {job['ended_at']}"
        times = [job[name] for name in ("created_at", "started_at", "ended_at") if job[name] is not None]
        if times != sorted(times):
            yield f"the times of job {job['id']} are not in order: {times}"
        if ended and (job["lease"] or job["supervisor"]):
            yield f"job {job['id']} has ended and still belongs to a supervisor"


def leases(connection: sqlite3.Connection) -> Iterator[str]:
    """What runs is supervised: by a process that lives, or by one that is just being given the job."""
    for job in connection.execute("SELECT id, lease, supervisor FROM jobs WHERE status = 'running'"):
        if not job["lease"]:
            yield f"job {job['id']} is running without a lease"
        elif job["supervisor"] and not Identity(**json.loads(job["supervisor"])).alive():
            yield f"job {job['id']} is running without a supervisor"


def whole_logs(connection: sqlite3.Connection) -> Iterator[str]:
    """Chunks follow each other without gap or overlap (but for the lines that the cap removed), and the job counts what is there."""
    dropped = {row["id"]: (row["dropped_first"], row["dropped_last"]) for row in connection.execute("SELECT * FROM jobs")}
    after: dict[str, int] = {}
    for chunk in connection.execute("SELECT * FROM log_chunks ORDER BY job_id, first_seq"):
        job_id, first = chunk["job_id"], chunk["first_seq"]
        wanted = after.get(job_id, 1)
        if first != wanted and dropped[job_id] != (wanted, first - 1):
            yield f"the log of job {job_id} has line {first} where {wanted} should be"
        data = chunk["data"]
        if data.count(b"\n") + (not data.endswith(b"\n")) != chunk["lines"]:
            yield f"a chunk of job {job_id} has other lines than it says"
        after[job_id] = first + chunk["lines"]
    for job in connection.execute("SELECT id, log_lines, dropped_last FROM jobs"):
        if max(after.get(job["id"], 1) - 1, job["dropped_last"] or 0) != job["log_lines"]:
            yield f"job {job['id']} counts {job['log_lines']} lines, its log has {after.get(job['id'], 1) - 1}"


def stored_lines(database: Path, job_id: str) -> list[str]:
    """A job's log as the store has it."""
    with opened(database) as connection:
        chunks = [
            bytes(row["data"]) for row in connection.execute("SELECT data FROM log_chunks WHERE job_id = ? ORDER BY first_seq", (job_id,))
        ]
    return b"".join(chunks).decode(errors="replace").splitlines()


def hold_numbered(findings: Findings, lines: Sequence[str], *, of: str, at_least: int) -> None:
    """Lines of a program that numbers them from 1 (`line 1`): once, in order, and not fewer than it is known to have written."""
    expected = [f"line {number}" for number in range(1, len(lines) + 1)]
    findings.hold(list(lines) == expected, f"the lines of {of} are not once and in order: {_first_difference(lines, expected)}")
    findings.lost_lines += max(0, at_least - len(lines))


def _first_difference(lines: Sequence[str], expected: Sequence[str]) -> str:
    return next((f"{line!r} where {wanted!r} should be" for line, wanted in zip(lines, expected, strict=True) if line != wanted), "")


def hold_api(findings: Findings, server: RunningServer, service: Surroundings, *, accepted: Collection[str]) -> None:
    """The API says of every job what the store says."""
    with opened(service.database) as connection:
        stored = {row["id"]: row["status"] for row in connection.execute("SELECT id, status FROM jobs WHERE deleted_at IS NULL")}
    shown = listed(server)
    findings.broken += [f"job {job_id} is not in the list" for job_id in accepted if job_id in stored and job_id not in shown]
    findings.broken += [
        f"job {job_id} is {job['status']} to clients and {stored.get(job_id)} in the store"
        for job_id, job in shown.items()
        if job["status"] != stored.get(job_id)
    ]


def listed(server: RunningServer) -> Mapping[str, Mapping[str, Any]]:
    """Every job in the list of the API, page by page."""
    jobs: dict[str, Mapping[str, Any]] = {}
    cursor: str | None = None
    while True:
        page = server.call("GET", "/jobs", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        jobs.update((job["id"], job) for job in page["jobs"])
        if (cursor := page["next_cursor"]) is None:
            return jobs


def left_of_jobs(job_ids: Collection[str]) -> list[psutil.Process]:
    """Running processes of jobs, by the marker in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARKER, "").partition(":")[0] in job_ids
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def hold_no_processes(findings: Findings, job_ids: Collection[str]) -> None:
    """Nothing of jobs that have ended runs on."""
    left = left_of_jobs(job_ids)
    findings.left_processes += len(left)
    findings.broken += [f"process {process.pid} of an ended job runs on" for process in left]


def hold_nothing_left(findings: Findings, service: Surroundings) -> None:
    """The service was stopped: no process of it, no temporary file, no socket and no lock-like leftover remains."""
    try:
        eventually(lambda: not service.processes, "the processes of the service end", seconds=SETTLE_TIMEOUT_SECONDS)
    except AssertionError:
        left = service.processes
        findings.left_processes += len(left)
        findings.broken += [f"process {process.pid} of the service runs on" for process in left]
    findings.broken += [f"the temporary file {path.name} was left" for path in service.temporary.iterdir()]
    findings.broken += [f"the socket {path} was left" for path in service.folder.rglob("*") if path.is_socket()]


def hold_leases(findings: Findings, service: Surroundings, *, seconds: float) -> None:
    """While jobs run: what is running without somebody who supervises it is noticed within so many seconds."""

    def unsupervised() -> list[str]:
        with opened(service.database) as connection:
            return list(leases(connection))

    try:
        eventually(lambda: not unsupervised(), "every running job has a supervisor", seconds=seconds)
    except AssertionError:
        findings.broken += unsupervised()


def hold_calm(findings: Findings, server: RunningServer) -> None:
    """Whatever happened was foreseen: there is no exception in its log."""
    _, found, told = server.output.partition("Traceback")
    findings.hold(not found, f"the service lost its temper: {told[:4000]}")


@dataclass(frozen=True)
class Most:
    """What a process of the service may have when there is nothing to do."""

    threads: int
    sockets: int
    descriptors: int


API = Most(threads=4, sockets=1, descriptors=24)
"""It listens, and nobody is connected. Threads: its loop's, the one that writes, the one that waits for the end of `serve`."""
WORKER = Most(threads=1, sockets=5, descriptors=12)
"""Two sockets to be woken by, one to the dispatcher, one to each supervisor in reserve."""
DISPATCHER = Most(threads=1, sockets=2, descriptors=12)
SUPERVISOR = Most(threads=1, sockets=2, descriptors=12)


def hold_at_rest(findings: Findings, server: RunningServer, service: Surroundings) -> None:
    """Nobody is connected and nothing runs any more: no process of the service has a connection, thread, descriptor, child or temporary
    file that it had for a job or a client."""
    server.session.close()
    gc.collect()  # urllib3 leaves the connections of a closed session to it, and what was raised in one holds on to them
    try:
        eventually(lambda: not left_at_rest(server, service), "nothing is left", seconds=SETTLE_TIMEOUT_SECONDS)
    except AssertionError:
        findings.broken += [f"at rest {what}" for what in left_at_rest(server, service)]


def left_at_rest(server: RunningServer, service: Surroundings) -> list[str]:
    """A sentence for each thing that should be gone."""
    left = [f"there is the temporary file {path.name}" for path in service.temporary.glob("runcast-job-*")]
    with suppress(psutil.NoSuchProcess):
        (api,), worker = server.part("api").children(), server.part("worker")
        left += beyond(API, api, "the API")
        left += beyond(WORKER, worker, "the worker")
        for child in worker.children():
            if os.getsid(child.pid) == child.pid:
                left += beyond(SUPERVISOR, child, "a supervisor in reserve")
                left += [f"a supervisor in reserve holds {what}" for what in (*child.children(), *job_descriptors(child.pid))]
            else:
                left += beyond(DISPATCHER, child, "the dispatcher")
    return left


def beyond(most: Most, process: psutil.Process, name: str) -> list[str]:
    """A sentence for each number of things that a process has more of than it may, or for its being a zombie."""
    if process.status() == psutil.STATUS_ZOMBIE:
        return [f"{name} is a zombie"]
    found = descriptors(process.pid)
    has = Most(process.num_threads(), sum(target.startswith("socket:") for target in found), len(found))
    return [
        f"{name} has {number} {what}, {allowed} at most: {found}"
        for what, number, allowed in zip(asdict(most), astuple(has), astuple(most), strict=True)
        if number > allowed
    ]


def descriptors(pid: int) -> list[str]:
    """What a process has open; nothing where the system does not show it."""
    folder = Path(f"/proc/{pid}/fd")
    targets = []
    for link in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # closed meanwhile
            targets.append(f"{link.readlink()}")
    return targets


def job_descriptors(pid: int) -> list[str]:
    """Terminals and pipes that a process has open; supervisors have none of their own but, perhaps, for their standard streams."""
    standard = [f"{link.readlink()}" for number in (0, 1, 2) if (link := Path(f"/proc/{pid}/fd/{number}")).is_symlink()]
    return [target for target in descriptors(pid) if target.startswith(("/dev/ptmx", "/dev/pts", "pipe:")) and target not in standard]
