"""The real store and service, driven through any order of calls beside a simple model of what they promise.

Each run has an SQLite file of its own. What clients, workers, supervisors and the sweep may do is a rule each; after every step what the
store says of all jobs must be what the model says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from jobs.bootstrap import make_engine, make_service, open_database
from jobs.errors import IdempotencyConflict, JobActive, JobEnded, JobNotFound, LeaseLost, QueueFull
from jobs.model import ENDED, TRANSITIONS, Caller, Reason, Scope, Status, Stream
from jobs.recipes.workspace import SHIPPED
from jobs.settings import Settings
from jobs.store.jobs import Store
from jobs.store.leases import Lease, Leases, Outcome
from jobs.store.listing import JobFilter
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.store.retention import Retention
from support.logs import append
from support.server import TASKS

pytestmark = pytest.mark.slow

MAX_PENDING = 6
MAX_RESTARTS = 2
"""Each costs more than many calls: all statements are compiled anew."""
CAP = 64 << 20
CALLERS = [Caller(name, frozenset({Scope.ADMIN})) for name in ("ann", "bob")]
WORKERS = {"one": ("default",), "two": ("gpu", "default")}
SUPERVISOR = {"pid": 1, "start_time": 0.0, "boot_id": "x"}

callers = st.sampled_from(CALLERS)
picks = st.integers(0, 99)
bodies = st.fixed_dictionaries(
    {"type": st.just("task"), "params": st.just({"task": "true"})},
    optional={
        "priority": st.integers(-2, 2),
        "queue": st.sampled_from(["default", "gpu"]),
        "concurrency_key": st.just("red"),
        "labels": st.lists(st.sampled_from(["x", "y"]), unique=True),
        "max_attempts": st.sampled_from([1, 5]),
    },
)
outcomes = st.sampled_from(
    [
        Outcome(Status.COMPLETED, "exited with code 0", exit_code=0),
        Outcome(Status.FAILED, "exited with code 1", Reason.EXIT_CODE, exit_code=1),
        Outcome(Status.FAILED, "was ended by SIGKILL", Reason.SIGNAL, signal="SIGKILL"),
        Outcome(Status.CANCELLED, "cancelled by ann", Reason.CANCELLED_BY_CLIENT, signal="SIGTERM"),
    ]
)
lines = st.lists(st.sampled_from([b"a\n", b"b c\n", b"\n", b"\xff\n", b"d\r\n"]), min_size=1, max_size=5)


@dataclass
class ModelJob:
    """What is promised of one job. A deleted one is hidden; its rows stay until they are pruned."""

    id: str
    body: dict[str, Any]
    status: Status = Status.PENDING
    attempt: int = 0
    lease: Lease | None = None
    writer: LogWriter | None = None
    taken: bool = False
    cancelled: bool = False
    asked: bool = False
    """By a client, and not by a server that stops."""
    forced: bool = False
    deleted: bool = False
    percent: float | None = None
    log: list[tuple[bytes, Stream]] = field(default_factory=list)
    moves: list[tuple[Status | None, Status]] = field(default_factory=lambda: [(None, Status.PENDING)])

    def move(self, status: Status) -> None:
        self.moves.append((self.status, status))
        self.status = status
        if status is not Status.RUNNING:
            self.lease, self.writer, self.taken = None, None, False

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def of(self, name: str, default: Any = None) -> Any:
        return self.body.get(name, default)

    @property
    def rank(self) -> tuple[int, str]:
        """What goes first."""
        return (-self.of("priority", 0), self.id)


class NeverChanges:
    """Nobody waits here."""

    version = 0

    def wait(self, seen: int, timeout: float) -> None:
        raise AssertionError("nobody waits here")


class StoreMachine(RuleBasedStateMachine):
    template: Path
    """A new database, made once."""

    @initialize(first=st.lists(bodies, min_size=3, max_size=MAX_PENDING))
    def start(self, first: list[dict[str, Any]]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="runcast-machine-"))
        self.generation = 0
        shutil.copytree(self.template, self.data_dir)
        self.jobs: dict[str, ModelJob] = {}
        self.keys: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self.stale: list[Lease] = []
        self.worker_of: dict[str, str] = {}
        self._open()
        for body in first:
            self.submit(body, CALLERS[0], None)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            for job in self.visible:
                self._check_job(job)
            self.database.close()
            shutil.rmtree(self.folder)

    @property
    def data_dir(self) -> Path:
        return self.folder / str(self.generation)

    @property
    def visible(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if not job.deleted]

    @property
    def running(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.status is Status.RUNNING]

    @property
    def taken(self) -> list[ModelJob]:
        return [job for job in self.running if job.taken]

    def _open(self) -> None:
        options = Settings(data_dir=self.data_dir, workspace=SHIPPED, tasks=TASKS, max_pending=MAX_PENDING)
        self.database = open_database(options.url)
        self.engine = make_engine(options.url)
        store = Store(self.database, self.engine)
        self.service = make_service(options, store=store, logs=Logs(self.database), changes=NeverChanges())
        self.leases = Leases(self.database, self.engine)

    # -- clients ------------------------------------------------------------------------------------------------------------

    @rule(body=bodies, caller=callers, key=st.none() | st.sampled_from(["k", "l"]))
    def submit(self, body: dict[str, Any], caller: Caller, key: str | None) -> None:
        known = self.keys.get((caller.name, key)) if key else None
        if known and known[1] != body:
            with pytest.raises(IdempotencyConflict):
                self.service.submit(body, caller=caller, idempotency_key=key)
        elif known:
            submitted = self.service.submit(body, caller=caller, idempotency_key=key)
            assert (submitted.replayed, submitted.job.id) == (True, known[0])
        elif sum(job.status is Status.PENDING for job in self.jobs.values()) >= MAX_PENDING:
            with pytest.raises(QueueFull):
                self.service.submit(body, caller=caller, idempotency_key=key)
        else:
            submitted = self.service.submit(body, caller=caller, idempotency_key=key)
            assert not submitted.replayed
            self._add(submitted.job.id, body)
            if key:
                self.keys[caller.name, key] = (submitted.job.id, body)

    @rule(several=st.lists(bodies, min_size=2, max_size=4), caller=callers)
    def submit_several(self, several: list[dict[str, Any]], caller: Caller) -> None:
        for body in several:
            self.submit(body, caller, None)

    def _add(self, job_id: str, body: dict[str, Any]) -> None:
        assert all(job_id > other for other in self.jobs), "ids are in the order of submission"
        self.jobs[job_id] = ModelJob(job_id, body)

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, caller=callers, force=st.booleans())
    def cancel(self, pick: int, caller: Caller, force: bool) -> None:
        job = self._any(pick)
        if job.deleted:
            with pytest.raises(JobNotFound):
                self.service.cancel(job.id, caller=caller, force=force)
        elif job.ended and job.status is not Status.CANCELLED:
            with pytest.raises(JobEnded):
                self.service.cancel(job.id, caller=caller, force=force)
        else:
            answer = self.service.cancel(job.id, caller=caller, force=force)
            self._cancelled(job, force=force)
            assert answer.status is job.status
            assert job.ended or answer.cancel_requested_at is not None

    def _cancelled(self, job: ModelJob, *, force: bool) -> None:
        if job.ended:
            return
        job.asked = True
        job.cancelled, job.forced = True, job.forced or force
        if job.status is Status.PENDING:
            job.move(Status.CANCELLED)

    @precondition(lambda self: len(self.jobs) > 4)
    @rule(pick=picks, caller=callers)
    def delete(self, pick: int, caller: Caller) -> None:
        job = self._any(pick)
        if job.deleted:
            with pytest.raises(JobNotFound):
                self.service.delete(job.id, caller=caller)
            return
        self.service.delete(job.id, caller=caller)
        self._cancelled(job, force=False)
        job.deleted = True
        self._forget_keys({job.id})

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, caller=callers)
    def retry(self, pick: int, caller: Caller) -> None:
        job = self._any(pick)
        if job.deleted or not job.ended:
            with pytest.raises(JobNotFound if job.deleted else JobActive):
                self.service.retry(job.id, caller=caller)
        elif sum(other.status is Status.PENDING for other in self.jobs.values()) >= MAX_PENDING:
            with pytest.raises(QueueFull):
                self.service.retry(job.id, caller=caller)
        else:
            new = self.service.retry(job.id, caller=caller)
            assert (new.retry_of, new.params, new.submitted_by) == (job.id, job.body["params"], caller.name)
            self._add(new.id, job.body)

    # -- workers ------------------------------------------------------------------------------------------------------------

    @rule(worker=st.sampled_from(sorted(WORKERS)), slots=st.sampled_from([1, 2, 10]))
    def claim(self, worker: str, slots: int) -> None:
        queues = WORKERS[worker]
        free = slots - sum(self.worker_of[job.id] == worker for job in self.running)
        claimed = self.engine.claim(self.database, worker_id=worker, host="here", queues=queues, slots=slots)
        assert len(claimed) <= max(0, free)
        for lease in claimed:
            job = self.jobs[lease.job_id]
            assert job.of("queue", "default") in queues
            self._check_turn(job, queues)
            job.move(Status.RUNNING)
            job.attempt += 1
            job.lease = lease
            self.worker_of[job.id] = worker
            assert lease.attempt == job.attempt
        if len(claimed) < free:
            assert not [job for job in self.jobs.values() if self._could_run(job, queues)]

    def _could_run(self, job: ModelJob, queues: tuple[str, ...]) -> bool:
        """Nothing stands in the way of this job, whatever a worker may still choose to wait for."""
        if job.status is not Status.PENDING or job.of("queue", "default") not in queues:
            return False
        key = job.of("concurrency_key")
        mates = [other for other in self.jobs.values() if key and other.of("concurrency_key") == key and other is not job]
        return not [mate for mate in mates if mate.status is Status.RUNNING or (mate.status is Status.PENDING and mate.id < job.id)]

    def _check_turn(self, job: ModelJob, queues: tuple[str, ...]) -> None:
        """Priority first, then age; jobs of one key one at a time, in the order of submission."""
        better = [other for other in self.jobs.values() if self._could_run(other, queues) and other.rank < job.rank]
        assert not better, "a job of higher priority, or an older one, could have run"
        key = job.of("concurrency_key")
        for mate in self.jobs.values():
            if key and mate.of("concurrency_key") == key and mate is not job:
                assert mate.status is not Status.RUNNING, "two jobs of one key at a time"
                same_queue = mate.of("queue", "default") == job.of("queue", "default")
                assert not (mate.status is Status.PENDING and mate.id < job.id and same_queue), "out of order"

    @precondition(lambda self: len(self.running) > 2)
    @rule(worker=st.sampled_from(sorted(WORKERS)), force=st.booleans())
    def stop(self, worker: str, force: bool) -> None:
        self.leases.cancel_all([held.lease for held in self.leases.held() if held.worker_id == worker], force=force)
        for job in self.running:
            if self.worker_of[job.id] == worker:
                job.cancelled, job.forced = True, job.forced or force

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        """The sweep finds that a supervisor is gone."""
        job = self.running[pick % len(self.running)]
        (held,) = [held for held in self.leases.held() if held.job_id == job.id]
        assert job.lease is not None and held.lease == job.lease.word
        self.stale.append(job.lease)
        if job.cancelled and (job.taken or job.asked):
            target = Status.CANCELLED
        else:
            target = Status.PENDING if not job.taken or job.attempt < job.of("max_attempts", 1) else Status.FAILED
        if target is Status.PENDING:
            job.cancelled = job.forced = False  # a server that stops asks for no end of what it never started
            job.attempt -= not job.taken
            job.percent = None
        assert self.leases.lose(held) is target
        job.move(target)
        assert self.leases.lose(held) is None, "what was lost is lost once"

    # -- supervisors --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def take(self, pick: int) -> None:
        job = self.running[pick % len(self.running)]
        assert job.lease is not None
        if job.taken:
            with pytest.raises(LeaseLost):
                self.leases.take(job.lease, supervisor=SUPERVISOR)
            return
        taken = self.leases.take(job.lease, supervisor=SUPERVISOR)
        assert taken.submission.to_json()["params"] == job.body["params"]
        job.taken = True
        job.writer = LogWriter(job.lease, cap=CAP)
        self.database.read(job.writer.resume)

    @precondition(lambda self: self.running)
    @rule(pick=picks, new=lines, stream=st.sampled_from(Stream))
    def log(self, pick: int, new: list[bytes], stream: Stream) -> None:
        if not self.taken:
            self.take(pick)
        job = self.taken[pick % len(self.taken)]
        assert job.writer is not None
        self._write(job.writer, new, stream)
        job.log += [(line, stream) for line in new]

    def _write(self, writer: LogWriter, new: list[bytes], stream: Stream) -> None:
        append(self.database, writer, b"".join(new), stream=stream)

    @precondition(lambda self: self.taken)
    @rule(pick=picks, percent=st.floats(0, 100))
    def progress(self, pick: int, percent: float) -> None:
        job = self.taken[pick % len(self.taken)]
        assert job.lease is not None
        self.leases.update(job.lease, progress_percent=percent)
        job.percent = percent

    @precondition(lambda self: self.taken)
    @rule(pick=picks)
    def look(self, pick: int) -> None:
        job = self.taken[pick % len(self.taken)]
        assert job.lease is not None
        request = self.leases.cancel_request(job.lease)
        assert (request is not None) == job.cancelled
        assert request is None or request.forced == job.forced

    @precondition(lambda self: self.running)
    @rule(pick=picks, outcome=outcomes)
    def end(self, pick: int, outcome: Outcome) -> None:
        job = self.running[pick % len(self.running)]
        assert job.lease is not None
        self.stale.append(job.lease)
        self.leases.end(job.lease, outcome)
        job.move(outcome.status)

    @precondition(lambda self: self.stale)
    @rule(pick=picks, outcome=outcomes)
    def come_back(self, pick: int, outcome: Outcome) -> None:
        """A supervisor that was given up, or has ended its job, can change nothing any more."""
        again = [lease for lease in self.stale if lease.job_id in {job.id for job in self.running}]
        lease = (again or self.stale)[pick % len(again or self.stale)]
        writer = LogWriter(lease, cap=CAP)
        attempts: list[Callable[[], Any]] = [
            lambda: self.leases.take(lease, supervisor=SUPERVISOR),
            lambda: self.leases.update(lease, progress_percent=1.0),
            lambda: self.leases.end(lease, outcome),
            lambda: self.leases.cancel_request(lease),
            lambda: self._write(writer, [b"too late\n"], Stream.STDOUT),
        ]
        for attempt in attempts:
            with pytest.raises(LeaseLost):
                attempt()

    # -- the store itself ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) > 6)
    @rule(keep=st.integers(0, 4))
    def prune(self, keep: int) -> None:
        """By number: the oldest of those that have ended go, and nothing active does. What was deleted is not counted."""
        ended = [job.id for job in self.visible if job.ended]
        surplus = ended[: max(0, len(ended) - keep)]
        assert self._retain(max_jobs=keep) == len(surplus)
        self._gone(surplus)

    @precondition(lambda self: len(self.jobs) > 6)
    @rule()
    def prune_by_age(self) -> None:
        ended = [job.id for job in self.jobs.values() if job.ended]
        assert self._retain(max_age_ms=-1000) == len(ended)
        self._gone(ended)

    def _retain(self, *, max_age_ms: int = 1 << 40, max_jobs: int = 1 << 40) -> int:
        return Retention(self.database, max_age_ms=max_age_ms, max_jobs=max_jobs, max_bytes=1 << 60, seen_ms=-1000).run()

    def _gone(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            del self.jobs[job_id]
        self._forget_keys(set(job_ids))

    def _forget_keys(self, job_ids: set[str]) -> None:
        self.keys = {key: known for key, known in self.keys.items() if known[0] not in job_ids}

    @precondition(lambda self: self.jobs and self.generation < MAX_RESTARTS)
    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """After a crash, what is in the files at this moment is all that there is."""
        before, database = self.data_dir, self.database
        if not crash:
            database.close()
        self.generation += 1
        shutil.copytree(before, self.data_dir)
        database.close()
        shutil.rmtree(before)
        self._open()

    # -- what always holds --------------------------------------------------------------------------------------------------

    def _any(self, pick: int) -> ModelJob:
        return list(self.jobs.values())[pick % len(self.jobs)]

    @invariant()
    def the_list_is_the_models(self) -> None:
        if not hasattr(self, "database"):
            return
        expected = [job.id for job in reversed(self.visible)]
        assert list(self._pages(limit=3)) == expected
        assert list(self._pages(limit=2, wanted=JobFilter(status=("running",), labels=("x",)))) == [
            job.id for job in reversed(self.visible) if job.status is Status.RUNNING and "x" in job.of("labels", [])
        ]

    def _pages(self, *, limit: int, wanted: JobFilter | None = None) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page = self.service.list_jobs(wanted or JobFilter(), limit=limit, cursor=cursor)
            for job in page.jobs:
                if wanted is None:
                    self._check_state(job)
                yield job.id
            if (cursor := page.next_cursor) is None:
                return
            assert len(page.jobs) == limit

    def _check_state(self, job: Any) -> None:
        model = self.jobs[job.id]
        assert (job.status, job.attempt, job.progress.percent) == (model.status, model.attempt, model.percent)
        assert job.ended == (job.ended_at is not None)
        assert job.log.lines == len(model.log)
        assert (job.cancel_requested_at is not None, job.cancel_forced) == (model.cancelled, model.forced)
        assert (job.waiting_for is not None) == (job.status is Status.PENDING)

    @invariant()
    def the_counts_are_the_models(self) -> None:
        if not hasattr(self, "database"):
            return
        counts = self.service.counts()
        assert counts.by_status == {str(status): sum(job.status is status for job in self.visible) for status in Status}
        assert counts.by_type == {"build": 0, "create": 0, "launch": 0, "task": len(self.visible)}

    @invariant()
    def histories_chain_legally(self) -> None:
        """Read as those who cast events read them: all jobs in one order."""
        if not hasattr(self, "database"):
            return
        events = self.service._store.events_after(0)
        assert [first.cursor < second.cursor for first, second in pairwise(events)] == [True] * max(0, len(events) - 1)
        moves: dict[str, list[tuple[Status | None, Status]]] = {job_id: [] for job_id in self.jobs}
        for event in events:
            moves[event.job_id].append((event.previous, event.status))
        assert moves == {job.id: job.moves for job in self.jobs.values()}
        for job_moves in moves.values():
            assert all(previous is None or status in TRANSITIONS[previous] for previous, status in job_moves)
            assert sum(status in ENDED for _, status in job_moves) == (job_moves[-1][1] in ENDED)

    @invariant()
    def one_at_a_time_of_each_key(self) -> None:
        if not hasattr(self, "database"):
            return
        keys = [job.of("concurrency_key") for job in self.running if job.of("concurrency_key")]
        assert len(keys) == len(set(keys))
        held = {held.job_id: held.lease for held in self.leases.held()}
        assert held == {job.id: job.lease.word for job in self.running if job.lease is not None}

    def _check_job(self, job: ModelJob) -> None:
        """Its log and its history, in every way to read them."""
        expected = [line.rstrip(b"\r\n").decode("utf-8", "replace") for line, _ in job.log]
        page = self.service.log_page(job.id, after_seq=0, limit=10_000, tail=None, stream=None)
        assert [(line.seq, line.text) for line in page.lines] == list(enumerate(expected, 1))
        assert page.complete == job.ended
        assert b"".join(self.service.raw_log(job.id, after_seq=0, tail=None, stream=None, follow=False)) == b"".join(
            line for line, _ in job.log
        )
        for stream in Stream:
            seq, seen = 0, []
            while (page := self.service.log_page(job.id, after_seq=seq, limit=2, tail=None, stream=stream)).lines:
                seen += [line.seq for line in page.lines]
                assert page.next_seq > seq + 1
                seq = page.next_seq - 1
            assert seen == [seq for seq, (_, wrote) in enumerate(job.log, 1) if wrote is stream]
        history = self.service.history(job.id)
        assert [(event.previous, event.status) for event in history] == job.moves


@contextmanager
def new_database() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="runcast-machine-") as folder:
        data_dir = Path(folder) / "template"
        data_dir.mkdir()
        database = open_database(Settings(data_dir=data_dir).url)
        database.migrate()
        database.close()
        yield data_dir


def test_the_store_keeps_its_invariants_for_any_order_of_calls() -> None:
    usual = settings()
    chosen = settings(
        max_examples=usual.max_examples // 5,  # each is a database of its own, and up to 50 calls
        stateful_step_count=usual.stateful_step_count,
        # To make a failing run short may take minutes; `--hypothesis-profile explore` does it.
        phases=[Phase.generate] if usual.derandomize else usual.phases,
    )
    with new_database() as template:
        run_state_machine_as_test(type("Machine", (StoreMachine,), {"template": template}), settings=chosen)
