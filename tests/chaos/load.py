"""A mix of jobs that never stops, from an honest client: what it submits it submits until that is answered, with a key so that it is once.

Every job notes each of its starts, and each line that it has written, in files beside the store; so what the store says can be held
against what happened.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import requests

from chaos.invariants import hold_numbered, opened, stored_lines
from chaos.scenario import Findings
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness
from support.server import ENDED, RunningServer, task_submission
from support.waiting import eventually

SETTLE_TIMEOUT_SECONDS = 40.0
LOST = "supervisor was lost"
Ending = tuple[str, str | None]
"""Status and reason."""

NOTE = "echo $$ >> {folder}/{name}.starts; say() {{ echo line $1; echo $1 >> {folder}/{name}.said; }}; "
NUMBERED = "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); say $i; [ $((i % 10)) = 0 ] && sleep 0.05; done; exit 0"
QUICK = "say 1; exit 0"
FAMILY = "for c in 1 2 3; do (sleep 600 & exec sleep 600) & done; " + NUMBERED
CREATE = "create"
"""A kind that needs a temporary folder, and whose lines are not its own."""
SCRIPTS = {"numbered": NUMBERED, "quick": QUICK, "family": FAMILY, "cancelled": NUMBERED}


@dataclass
class LoadJob:
    """A job of the load: what kind it is, and how many lines it writes if it is let run."""

    name: str
    kind: str
    lines: int
    max_attempts: int
    id: str | None = None
    cancel: bool = False


@dataclass
class Load:
    """Use as a context manager: it submits from a thread of its own until `stop`. `jobs` are those that were answered with 202."""

    server: RunningServer
    surroundings: Surroundings
    rng: Random
    witnesses: Sequence[Witness] = ()
    at_once: int = 6
    attempts: int = 1
    jobs: list[LoadJob] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.surroundings.folder / "notes"
        self.folder.mkdir(exist_ok=True)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(SETTLE_TIMEOUT_SECONDS + 10)

    def wait_until_all_ended(self, *, seconds: float = 40) -> None:
        """Every accepted job ends by itself, or because it was cancelled."""
        with colleague(self.server) as server:
            for job in self.jobs:
                assert job.id is not None
                eventually(lambda: status_of(server, job.id) in ENDED, f"job {job.id} ends", seconds=seconds)  # noqa: B023  # called at once

    def said(self, job: LoadJob) -> list[int]:
        """The numbers of the lines that a job has written, by itself."""
        return _numbers(self.folder / f"{job.name}.said")

    # -- its thread ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with colleague(self.server) as server:
                while not self._stopping.is_set():
                    if self._active(server) >= self.at_once:
                        self._stopping.wait(0.05)
                    else:
                        self._turn(server)
        except Exception as error:
            self.faults.append(f"the load ended: {type(error).__name__}: {error}")

    def _turn(self, server: RunningServer) -> None:
        kind = self.rng.choice([*SCRIPTS, *SCRIPTS, CREATE])
        lines = 1 if kind == "quick" else self.rng.randint(20, 120)
        job = LoadJob(f"{len(self.jobs)}-{kind}", kind, lines, self.attempts)
        job.id = self._submit(server, job)
        for witness in self.witnesses[len(self.jobs) % 2 :: 2]:
            witness.watch(job.id)
        self.jobs.append(job)
        if (due := self._to_cancel()) is not None:
            self._cancel(server, due)

    def _active(self, server: RunningServer) -> int:
        try:
            counts = server.call("GET", "/stats", timeout=5).json()["by_status"]
            return int(counts["pending"] + counts["running"])
        except (requests.RequestException, KeyError, ValueError):
            return self.at_once

    def _submit(self, server: RunningServer, job: LoadJob) -> str:
        submission = {**self._wanted(job), "max_attempts": job.max_attempts}
        key = uuid.UUID(int=self.rng.getrandbits(128)).hex
        answer = insist(server, "POST", "/jobs/submit", json=submission, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def _wanted(self, job: LoadJob) -> dict[str, Any]:
        if job.kind == CREATE:
            return {"type": "create", "params": {"template": "small_editor", "name": f"chaos.project{job.name.partition('-')[0]}"}}
        return task_submission("shell", script=(NOTE + SCRIPTS[job.kind]).format(folder=self.folder, name=job.name, lines=job.lines))

    def _to_cancel(self) -> LoadJob | None:
        """One of the last few that are to be cancelled, after it had the time to begin."""
        return next((job for job in self.jobs[-12:-2] if job.kind == "cancelled" and not job.cancel), None)

    def _cancel(self, server: RunningServer, job: LoadJob) -> None:
        job.cancel = True
        answer = insist(server, "POST", f"/jobs/{job.id}/cancel")
        if answer.status_code not in (202, 409):
            self.faults.append(f"a cancel of job {job.id} was answered with {answer.status_code}: {answer.text[:200]}")


def insist(server: RunningServer, method: str, path: str, **options: Any) -> requests.Response:
    """Until there is an answer that is neither a 5xx nor a broken connection. Use it with what may be repeated only."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    while True:
        with suppress(requests.RequestException):
            answer = server.call(method, path, timeout=15, **options)
            if answer.status_code not in (429, 500, 502, 503):
                return answer
            assert answer.status_code != 500, answer.text
        assert time.monotonic() < deadline, f"{method} {path} was not answered within {SETTLE_TIMEOUT_SECONDS:g} s"
        time.sleep(0.05)


def status_of(server: RunningServer, job_id: str | None) -> str | None:
    with suppress(requests.RequestException, KeyError, ValueError):
        # It does not wait longer than that for a server that is about to die.
        return str(server.call("GET", f"/jobs/{job_id}", params={"wait": 2}, timeout=5).json()["status"])
    return None


def losses(database: Path) -> list[str]:
    """The jobs that lost a supervisor, by their histories; one that lost two stands here twice."""
    with opened(database) as connection:
        return [row["job_id"] for row in connection.execute("SELECT job_id FROM job_events WHERE cause LIKE ?", (f"%{LOST}%",))]


def hold_load(
    findings: Findings,
    load: Load,
    *,
    lost_at_most: int,
    stored: Mapping[str, int] = MappingProxyType({}),
    killed: Collection[str] = (),
    ended_also: Collection[Ending] = (),
) -> None:
    """Hold the stored jobs of the load against what they noted: starts, lines, and how they may have ended.

    `lost_at_most` supervisors may have been lost; of those in `stored` so many lines were stored then. The leaders of the jobs in `killed`
    were killed; any may have ended as in `ended_also`.
    """
    findings.broken += load.faults
    findings.hold(load.jobs, "the load did nothing")
    with opened(load.surroundings.database) as connection:
        rows = {row["id"]: row for row in connection.execute("SELECT id, status, reason, attempt FROM jobs")}
    lost = losses(load.surroundings.database)
    findings.hold(len(lost) <= lost_at_most, f"{len(lost)} supervisors were lost, but only {lost_at_most} were killed")
    for job in load.jobs:
        if (row := rows.get(job.id or "")) is not None:
            also: set[Ending] = {("failed", "signal")} if job.id in killed else set()
            _hold_ending(findings, job, row, lost=job.id in lost, also=also | {*ended_also})
            _hold_lines(findings, load, job, row, at_least=stored.get(row["id"], 0) if job.id in lost else None)


def _hold_ending(findings: Findings, job: LoadJob, row: Any, *, lost: bool, also: set[Ending]) -> None:
    ending = (row["status"], row["reason"])
    expected = {("completed", None), *also}
    if job.cancel:
        expected.add(("cancelled", "cancelled_by_client"))
    if lost:
        expected.add(("failed", "worker_lost"))
    if job.kind == CREATE and lost:
        expected |= {("failed", "exit_code"), ("failed", "start_error")}  # what an earlier attempt made is there already
    findings.hold(ending in expected, f"job {job.id} ({job.name}) ended as {ending}")


def _hold_lines(findings: Findings, load: Load, job: LoadJob, row: Any, *, at_least: int | None) -> None:
    """Hold what a job noted against its log. `at_least` is given for one whose supervisor was lost, and with it what that had read and not
    yet stored: it says how much was stored at the time.

    A job that creates a project notes nothing; a second start of it would have failed, because the project is there.
    """
    if job.kind == CREATE:
        return
    starts, said = (_numbers(load.folder / f"{job.name}.{what}") for what in ("starts", "said"))
    allowed, completed = row["attempt"] if at_least is not None else 1, row["status"] == "completed"
    findings.hold(len(starts) <= allowed, f"job {job.id} was started {len(starts)} times in {row['attempt']} attempts")
    findings.hold(starts or not completed, f"job {job.id} completed and was never started")
    *earlier, last = by_attempt(stored_lines(load.surroundings.database, str(job.id)))
    findings.hold(len(earlier) < allowed, f"the log of job {job.id} has {len(earlier) + 1} beginnings in {row['attempt']} attempts")
    name = f"job {job.id} ({job.name})"
    for lines in earlier:
        hold_numbered(findings, lines, of=name, at_least=1)
    known = len(said) if at_least is None else 0 if earlier else at_least
    hold_numbered(findings, last, of=name, at_least=job.lines if completed else known)


def by_attempt(lines: Sequence[str]) -> list[Sequence[str]]:
    """A log of numbered lines, cut where the numbers begin anew; one empty piece for an empty log."""
    beginnings = [index for index, line in enumerate(lines) if index == 0 or line == "line 1"]
    return [lines[first:following] for first, following in pairwise([*beginnings, len(lines)])] or [[]]


def _numbers(file: Path) -> list[int]:
    """The whole lines of a file; none when it is not there."""
    if not file.exists():
        return []
    return [int(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n") and line.strip()]
