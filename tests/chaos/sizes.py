"""A store as full as it gets: a long history, a long log, a full queue. Every answer comes as fast as from an empty one.

History and log are put into the file by the store's own code; the queue is filled, and everything asked, through the API.
"""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import requests

from chaos.invariants import hold_all, hold_nothing_left, opened
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from jobs.bootstrap import make_engine, open_database
from jobs.clock import now_ms, to_rfc3339
from jobs.model import ENDED, JobType, Status, Submission
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases
from jobs.store.leases import Outcome as End
from support.history import Past, fill_history, fill_log
from support.server import RunningServer, task_submission
from support.stores import claim

MOST_MS = 50.0
MANY = 10_000
"""Jobs of a history that is a full dose."""
START_MS = 250.0
SLOTS = 2
ROOM = 20
"""Places in the queue that are kept free at first, for jobs that run while it is nearly full."""
HOUR_MS = 3_600_000
Parameters = dict[str, Any]


@dataclass
class Large:
    """The service with its full store, and what is asked of it."""

    server: RunningServer
    count: int
    lines: int
    log_id: str
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def questions(self) -> list[tuple[str, str, Parameters]]:
        """(what it is, path, parameters): all that is promised to be quick."""
        listed = [("list", "/jobs", wanted) for wanted in self.filters()]
        logs = [("log page", f"/jobs/{self.log_id}/log", wanted) for wanted in self.pages()]
        return [
            *listed,
            *logs,
            ("stats", "/stats", {}),
            ("workers", "/workers", {}),
            ("metrics", "/metrics", {}),
            ("floor", "/health/live", {}),
        ]

    def filters(self) -> list[Parameters]:
        now = now_ms()
        long_ago, lately = to_rfc3339(now - 19 * 24 * HOUR_MS), to_rfc3339(now - 24 * HOUR_MS)
        middle = self.server.call("GET", "/jobs", params={"limit": 1, "until": to_rfc3339(now - 10 * 24 * HOUR_MS)}).json()["jobs"][0]["id"]
        alone: list[Parameters] = [
            {},
            {"limit": 200},
            *({"status": status} for status in Status),
            *({"type": kind} for kind in JobType),
            {"project": "project_1"},
            {"project": "rare"},
            {"project": "nobody"},
            {"label": "all"},
            {"label": "rare"},
            {"label": ["all", "even"]},
            {"since": lately},
            {"since": long_ago},
            {"until": long_ago},
            {"since": long_ago, "until": lately},
        ]
        combined: list[Parameters] = [
            {"status": ["completed", "failed", "cancelled"]},
            {"status": ["pending", "running"], "type": ["task", "create"]},
            {"status": "completed", "type": "create"},
            {"status": "cancelled", "type": ["launch", "build"]},
            {"project": "project_2", "status": "cancelled"},
            {"label": "all", "status": "cancelled"},
            {"label": "even", "type": "create"},
            {"label": "even", "project": "rare"},
            {"label": "rare", "since": lately},
            {"status": "failed", "until": long_ago},
            {"label": "all", "project": "project_1", "status": ["failed", "completed"], "since": long_ago, "until": lately},
        ]
        return [*alone, *combined, *({**wanted, "cursor": middle} for wanted in alone)]

    def pages(self) -> list[Parameters]:
        near_the_end = self.lines - 100
        places: list[Parameters] = [{}, {"after_seq": self.lines // 2}, {"after_seq": near_the_end}, {"tail": 200}]
        return [*places, *({**place, "stream": stream} for place in places for stream in ("stdout", "stderr"))]

    def ask(self, kind: str, path: str, parameters: Parameters) -> requests.Response:
        url = self.server.url + (path if path == "/metrics" else f"/api{path}")
        started = time.perf_counter()
        answer = self.server.session.get(url, params=parameters, timeout=20)
        self.times[kind].append((time.perf_counter() - started) * 1000)
        assert answer.status_code == 200, f"{answer.url}: {answer.text[:300]}"
        return answer


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings, surroundings = Findings(done=dose), Surroundings.make(folder)
    lines, pending = dose * 10, max(40, dose // 10)
    log_id = fill(surroundings.database, dose, lines)
    with surroundings.serve(slots=SLOTS, max_pending=pending, validate_events=False, validate_answers=False) as server:
        large = Large(server, dose, lines, log_id)
        accepted = fill_queue(server, pending - ROOM, findings)
        accepted += run_beside(server, findings)
        accepted += reach_the_limit(server, pending, findings)
        right_answers(large, surroundings, findings)
        rounds = 20 if dose >= MANY else 2
        # Once to warm up: what is compiled for each kind of question is kept.
        for number in range(rounds + 1):
            if number == 1:
                large.times.clear()
            for question in rng.sample(questions := large.questions(), len(questions)):
                large.ask(*question)
        hold_quick(large, findings)
        server.assert_clean()
    with opened(surroundings.database) as connection:
        most = most_at_once(connection)
    findings.hold(most <= SLOTS, f"{most} jobs ran at once on {SLOTS} slots")
    hold_all(findings, surroundings, accepted=[log_id, *accepted])
    hold_nothing_left(findings, surroundings)
    findings.survived = 0 if findings.broken else dose
    return findings.outcome()


def fill(path: Path, count: int, lines: int) -> str:
    """Gives the job with the long log."""
    path.parent.mkdir(mode=0o700)
    database = open_database(f"sqlite:///{path}")
    database.migrate()
    fill_history(database, Past(count))
    store, leases = Store(database, make_engine(database.url)), Leases(database, make_engine(database.url))
    submission = Submission(JobType.TASK, {"task": "true", "inputs": {}})
    log_id = store.submit(NewJob(submission, "default", None, None, "admin"), max_pending=1).job.id
    [lease] = claim(leases.database, worker_id="past", host="past", queues=["default"], slots=1)
    fill_log(database, lease, lines)
    leases.end(lease, End(Status.COMPLETED, "exited with code 0", exit_code=0))
    database.close()
    return log_id


def fill_queue(server: RunningServer, count: int, findings: Findings) -> list[str]:
    """Pending jobs: half of them in a queue without a worker, half behind a running job of their key."""
    holder = server.shell("echo held; exec sleep 600", concurrency_key="one")
    server.wait_for_log(holder, "held")
    waiting = [
        {**task_submission("true"), **({"queue": "nobody"} if number % 2 else {"concurrency_key": "one"})} for number in range(count)
    ]

    def submit(part: Sequence[dict[str, Any]]) -> list[str]:
        with colleague(server) as mine:
            return [mine.submit(submission)["id"] for submission in part]

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        jobs = [holder, *chain.from_iterable(pool.map(submit, (waiting[part::4] for part in range(4))))]
    findings.notes.append(f"{count / (time.monotonic() - started):.0f} submissions/s")
    return jobs


def run_beside(server: RunningServer, findings: Findings) -> list[str]:
    """Jobs that need not wait start at once, though so many others wait."""
    jobs, delays = [], []
    for _ in range(10):
        jobs.append(job_id := server.run("true"))
        delays.append(start_delay(server.wait(job_id)))
    findings.notes.append(f"a free job starts after {median(delays):.0f} ms")
    findings.hold(median(delays) < START_MS, f"a job that need not wait started after {median(delays):.0f} ms")
    together = [server.shell("sleep 0.2") for _ in range(4)]
    for job_id in together:
        findings.hold(server.wait(job_id)["status"] == "completed", f"job {job_id} has not completed")
    return jobs + together


def start_delay(job: dict[str, Any]) -> float:
    """Milliseconds from the submission to the start."""
    return (datetime.fromisoformat(job["started_at"]) - datetime.fromisoformat(job["created_at"])).total_seconds() * 1000


def reach_the_limit(server: RunningServer, limit: int, findings: Findings) -> list[str]:
    """The last place is given, the next one is refused, and there is one again when somebody leaves."""
    body = {**task_submission("true"), "queue": "nobody"}
    jobs = [server.submit(body)["id"] for _ in range(limit - server.call("GET", "/stats").json()["by_status"]["pending"])]
    refused = server.call("POST", "/jobs/submit", json=body)
    told = (refused.status_code, refused.json()["type"], int(refused.headers.get("Retry-After", 0)) > 0)
    findings.hold(told == (429, "urn:runcast:problem:queue-full", True), f"a full queue was answered with {told}")
    server.call("POST", f"/jobs/{jobs[-1]}/cancel")
    jobs.append(server.submit(body)["id"])
    refused = server.call("POST", "/jobs/submit", json=body)
    findings.hold(refused.status_code == 429, f"a queue that is full again was answered with {refused.status_code}")
    findings.notes.append(f"queue full at {limit}")
    return jobs


def right_answers(large: Large, surroundings: Surroundings, findings: Findings) -> None:
    """Quick answers are worth nothing when they are wrong."""
    with opened(surroundings.database) as connection:
        stored = dict(connection.execute("SELECT status, count(*) FROM jobs WHERE deleted_at IS NULL GROUP BY status").fetchall())
    told = {status: count for status, count in large.ask("stats", "/stats", {}).json()["by_status"].items() if count}
    findings.hold(told == stored, f"the statistics say {told}, the store has {stored}")
    path = f"/jobs/{large.log_id}/log"
    tail = large.ask("log page", path, {"tail": 200}).json()
    expected = [f"line {number}" for number in range(large.lines - 199, large.lines + 1)]
    findings.hold([line["text"] for line in tail["lines"]] == expected and tail["complete"], "the tail of the log is not its end")
    errors = large.ask("log page", path, {"tail": 200, "stream": "stderr"}).json()["lines"]
    last = max(number for number in range(1, large.lines + 1) if (number - 1) // 1000 % 10 == 9)
    wanted = list(range(last - 199, last + 1))
    findings.hold([line["seq"] for line in errors] == wanted, f"the tail of stderr begins at {errors[0]['seq'] if errors else None}")
    middle = large.ask("log page", path, {"after_seq": large.lines // 2}).json()
    findings.hold(middle["lines"][0]["text"] == f"line {large.lines // 2 + 1}", "the middle of the log is elsewhere")
    for wanted_filter in ({"label": "rare"}, {"project": "rare"}, {"type": "create"}):
        found = large.ask("list", "/jobs", wanted_filter).json()["jobs"]
        findings.hold(len(found) == 10, f"{len(found)} of 10 jobs were found by {wanted_filter}")


def hold_quick(large: Large, findings: Findings) -> None:
    """A small store is held against the floor, too: what a busy machine takes at the same time for an answer that reads nothing."""
    floor = p99(large.times["floor"])
    most = MOST_MS if large.count >= MANY else MOST_MS + floor
    for kind, times in sorted(large.times.items()):
        if kind == "floor":
            continue
        findings.notes.append(f"{kind} p99 {p99(times):.0f} ms (median {median(times):.0f})")
        findings.hold(p99(times) < most, f"p99 of {kind} is {p99(times):.0f} ms, the floor {floor:.0f} ms")
    findings.notes.append(f"floor p99 {floor:.0f} ms")


def p99(times: Sequence[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def most_at_once(connection: sqlite3.Connection) -> int:
    """How many jobs of this service ran at the same time, by the order of what happened."""
    running, most = 0, 0
    ours = "SELECT id FROM jobs WHERE coalesce(worker_id, '') != 'past'"
    steps = f"SELECT status, previous FROM job_events WHERE job_id IN ({ours}) ORDER BY cursor"
    for status, previous in connection.execute(steps):
        running += (status == Status.RUNNING) - (previous == Status.RUNNING and (status in ENDED or status == Status.PENDING))
        most = max(most, running)
    return most


SCENARIOS = (
    Scenario(
        name="sizes",
        fault="a long history, a log of ten times as many lines, a full queue of a tenth: limits hold, answers stay quick",
        unit="jobs of history",
        small=1_000,
        full=100_000,
        run=run,
    ),
)
