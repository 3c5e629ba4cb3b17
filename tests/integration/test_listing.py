"""What lists, counts, pages and claims are read from: right whatever is asked for, and never found by looking at every row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text

from jobs.bootstrap import make_engine, open_database
from jobs.clock import now_ms
from jobs.model import JobType, Reason, Status, Stream, Submission, WaitingFor
from jobs.store import listing
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases, Outcome
from jobs.store.listing import JobFilter, created_ms, first_id
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.store.retention import Retention
from jobs.store.schema import job_counts, job_labels, jobs
from support.history import Past, fill_history, fill_log
from support.logs import append
from support.stores import claim

HOUR_MS = 3_600_000


@pytest.fixture
def store(database: OwnedDatabase) -> Store:
    return Store(database, make_engine(database.url))


@pytest.fixture
def leases(database: OwnedDatabase) -> Leases:
    return Leases(database, make_engine(database.url))


def submit(store: Store, *, key: str | None = None, queue: str = "default", project: str | None = None, **options: Any) -> str:
    submission = Submission(JobType.TASK, {"task": "x", "inputs": {}}, **options)
    return store.submit(NewJob(submission, queue, key, project, "tester"), max_pending=1 << 30).job.id


def claimed(leases: Leases, *queues: str, slots: int = 100) -> list[str]:
    return [lease.job_id for lease in claim(leases.database, worker_id="w", host="h", queues=queues or ("default",), slots=slots)]


def serve(leases: Leases, *queues: str) -> None:
    leases.register_worker(worker_id=f"serves {queues}", host="h", pid=1, slots=1, queues=queues)


# -- right ----------------------------------------------------------------------------------------------------------------


def test_every_combination_of_filters_matches_a_full_scan(database: OwnedDatabase, store: Store) -> None:
    fill_history(database, Past(200, days=2))
    choice = random.Random(7)
    everything = store.list_jobs(JobFilter(), limit=1000)
    assert [job.id for job in everything] == sorted((job.id for job in everything), reverse=True)
    hidden = {job.id for job in choice.sample(everything, 20)}
    for job_id in hidden:
        store.delete(job_id, by="tester")

    def maybe(values: Any) -> Any:
        return choice.choice([None, *values])

    for _ in range(300):
        wanted = JobFilter(
            status=choice.sample([str(status) for status in Status], choice.randint(0, 3)),
            type=choice.sample([str(kind) for kind in JobType], choice.randint(0, 2)),
            project=maybe(["rare", "project_1", "nowhere"]),
            labels=choice.sample(["all", "even", "rare", "none"], choice.choice([0, 0, 1, 1, 2])),
            since=maybe([now_ms() - 30 * HOUR_MS, everything[50].created_at]),
            until=maybe([now_ms() - 10 * HOUR_MS, everything[20].created_at]),
        )
        cursor, limit = maybe([everything[30].id, everything[150].id]), choice.choice([1, 7, 50, 1000])
        expected = [
            job.id
            for job in everything
            if job.id not in hidden
            and (not wanted.status or job.status in wanted.status)
            and (not wanted.type or job.type in wanted.type)
            and (wanted.project is None or job.project == wanted.project)
            and set(wanted.labels) <= set(job.labels)
            and (wanted.since is None or job.created_at >= wanted.since)
            and (wanted.until is None or job.created_at < wanted.until)
            and (cursor is None or job.id < cursor)
        ]
        shown = store.list_jobs(wanted, limit=limit, cursor=cursor)
        assert [job.id for job in shown] == expected[:limit], (wanted, cursor, limit)


def test_created_at_is_the_time_in_the_job_id(store: Store) -> None:
    before = now_ms()
    job = store.get(submit(store))
    assert before <= job.created_at == created_ms(job.id) <= now_ms()
    assert first_id(job.created_at) < job.id < first_id(job.created_at + 1)
    assert first_id(-5) < job.id < first_id(1 << 60)


def test_counts_and_labels_follow_every_change(database: OwnedDatabase, store: Store, leases: Leases) -> None:
    for number in range(12):
        submit(store, labels=("a", "b") if number % 2 else ())
    held = claim(leases.database, worker_id="w", host="h", queues=["default"], slots=6)
    leases.end(held[0], Outcome(Status.COMPLETED, "done"))
    leases.end(held[1], Outcome(Status.FAILED, "failed", Reason.EXIT_CODE))
    leases.lose(leases.held()[0])
    everything = store.list_jobs(JobFilter(), limit=100)
    store.request_cancel(everything[0].id, by="tester", force=False)
    for job in everything[1:9]:  # pending, running and ended ones
        store.delete(job.id, by="tester")
    for lease in held[3:]:
        leases.end(lease, Outcome(Status.CANCELLED, "cancelled", Reason.CANCELLED_BY_CLIENT))
    hold_together(database, store)
    Retention(database, max_age_ms=1 << 40, max_jobs=0, max_bytes=1 << 40, seen_ms=-1000).run()
    hold_together(database, store)
    assert store.counts().by_status["completed"] == 0


def hold_together(database: OwnedDatabase, store: Store) -> None:
    """Counts and labels are those of the jobs that are there."""

    def look(connection: Any) -> Any:
        rows = connection.execute(select(jobs).where(jobs.c.deleted_at.is_(None))).all()
        counted = {(row.status, row.type): row.jobs for row in connection.execute(select(job_counts)) if row.jobs}
        labelled = {tuple(row) for row in connection.execute(select(job_labels))}
        return rows, counted, labelled

    rows, counted, labelled = database.read(look)
    assert counted == Counter((row.status, row.type) for row in rows)
    assert labelled == {(label, row.id, row.status, row.type, row.project) for row in rows for label in row.labels}
    counts = store.counts()
    assert {name: count for name, count in counts.by_status.items() if count} == Counter(row.status for row in rows)
    assert {name: count for name, count in counts.by_type.items() if count} == Counter(row.type for row in rows)
    assert counts.oldest_pending_ms == min((row.created_at for row in rows if row.status == "pending"), default=None)


def test_the_migration_counts_and_labels_existing_jobs(tmp_path: Path) -> None:
    from alembic import command, config

    database = open_database(f"sqlite:///{tmp_path / 'old.db'}")
    settings = config.Config()
    settings.set_main_option("script_location", str(Path(listing.__file__).parent / "migrations"))

    def to_0002(connection: Any) -> None:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0002")
        for number, deleted in enumerate((None, None, 5)):
            connection.execute(
                text(
                    "INSERT INTO jobs (id, type, submission, status, max_attempts, priority, queue, labels, project, submitted_by, "
                    "created_at, deleted_at) VALUES (:id, 'build', '{}', 'completed', 1, 0, 'default', '[\"a\"]', 'p', 'x', 1, :deleted)"
                ),
                {"id": str(number), "deleted": deleted},
            )
            connection.execute(text("INSERT INTO job_labels VALUES ('a', :id)"), {"id": str(number)})

    database.write(to_0002)
    database.migrate()
    hold_together(database, Store(database, make_engine(database.url)))
    database.close()


# -- who waits for whom ---------------------------------------------------------------------------------------------------


def test_a_job_that_no_worker_serves_does_not_block_its_key(store: Store, leases: Leases) -> None:
    serve(leases, "default")
    first = submit(store, key="k", queue="gpu")
    second, third = submit(store, key="k"), submit(store, key="k")
    assert [store.get(job_id).waiting_for for job_id in (first, second, third)] == [
        WaitingFor.WORKER,
        WaitingFor.SLOT,
        WaitingFor.CONCURRENCY_KEY,
    ]
    assert claimed(leases) == [second]
    # And when somebody can run it, it still runs alone.
    serve(leases, "gpu")
    assert claimed(leases, "gpu") == []
    assert store.get(first).waiting_for == WaitingFor.CONCURRENCY_KEY


def test_a_job_that_another_worker_serves_keeps_its_turn(store: Store, leases: Leases) -> None:
    serve(leases, "default")
    serve(leases, "gpu", "cpu")
    first = submit(store, key="k", queue="gpu")
    second = submit(store, key="k")
    assert claimed(leases) == []
    assert store.get(second).waiting_for == WaitingFor.CONCURRENCY_KEY
    assert claimed(leases, "gpu") == [first]


def test_queue_names_are_matched_literally(store: Store, leases: Leases) -> None:
    serve(leases, "axb")
    assert store.get(submit(store, queue="a_b")).waiting_for == WaitingFor.WORKER
    assert store.get(submit(store, queue="axb")).waiting_for == WaitingFor.SLOT
    assert store.get(submit(store, queue="ax")).waiting_for == WaitingFor.WORKER


def test_the_best_job_of_several_queues_comes_first(store: Store, leases: Leases) -> None:
    low, high, middle = submit(store, queue="a"), submit(store, queue="b", priority=3), submit(store, queue="a", priority=1)
    assert claimed(leases, "a", "b") == [high, middle, low]


# -- logs -----------------------------------------------------------------------------------------------------------------


def log_of(store: Store, leases: Leases, database: OwnedDatabase, *parts: tuple[Stream, int]) -> str:
    """A log of numbered lines, so many of each stream in turn."""
    submit(store)
    [lease] = claim(leases.database, worker_id="w", host="h", queues=["default"], slots=1)
    writer = LogWriter(lease, cap=1 << 30)
    for stream, count in parts:
        data = b"".join(b"line %d\n" % (writer.next_seq + number) for number in range(count))
        append(database, writer, data, stream=stream)
    return lease.job_id


@pytest.mark.parametrize(("count", "first"), [(1, 9), (2, 6), (3, 5), (4, 2), (5, 1), (50, 1)])
def test_the_tail_of_a_stream_has_lines_of_that_stream_only(
    store: Store, leases: Leases, database: OwnedDatabase, count: int, first: int
) -> None:
    err, out = Stream.STDERR, Stream.STDOUT
    job_id = log_of(store, leases, database, (err, 2), (out, 2), (err, 2), (out, 2), (err, 1), (out, 3))
    logs = Logs(database)
    after = logs.tail(job_id, count, stream=err)
    lines = [text for chunk in logs.chunks(job_id, after_seq=after, stream=err) for text in chunk.texts()]
    assert lines == ["line 1", "line 2", "line 5", "line 6", "line 9"][-count:]
    assert lines[0] == f"line {first}"


def test_a_stream_without_output_has_no_tail(store: Store, leases: Leases, database: OwnedDatabase) -> None:
    job_id = log_of(store, leases, database, (Stream.STDOUT, 5))
    assert Logs(database).chunks(job_id, after_seq=Logs(database).tail(job_id, 3, stream=Stream.STDERR), stream=Stream.STDERR) == []


# -- never by a look at every row -----------------------------------------------------------------------------------------


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Everything that is asked of any database."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plan(database: OwnedDatabase, statement: str, parameters: Any) -> list[str]:
    return database.read(
        lambda connection: [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    )


def looks_at_all(step: str) -> bool:
    """A step of SQLite's plan that reads a whole table or sorts; small ones, and the few running jobs, may be read whole."""
    small = ("SCAN job_counts", "SCAN workers", "jobs_running", "SCAN anon_1")
    return ("SCAN" in step or "TEMP B-TREE" in step) and not any(name in step for name in small)


@dataclass(frozen=True)
class House:
    """A store with all that asks it, and a running job in it."""

    store: Store
    leases: Leases
    logs: Logs
    job_id: str


def page(**wanted: Any) -> Callable[[House], Any]:
    return lambda house: house.store.list_jobs(JobFilter(**wanted), limit=50, cursor=house.job_id)


LISTED, OF_PROJECT = "jobs_listed (status=? AND type=? AND id<?)", "jobs_of_project (project=? AND status=? AND type=? AND id<?)"
WITH_LABEL = "job_labels_listed (label=? AND status=? AND type=? AND job_id<?)"
ANY_TIME = {"since": 1, "until": 1 << 41}
QUESTIONS: dict[str, tuple[str, Callable[[House], Any]]] = {
    "list": ("sqlite_autoindex_jobs_1 (id<?)", page()),
    "list by status": (LISTED, page(status=["failed"])),
    "list by several statuses and types": (LISTED, page(status=["failed", "completed"], type=["build", "task"])),
    "list by type": (LISTED, page(type=["create"])),
    "list by project": (OF_PROJECT, page(project="project_1")),
    "list by project and status": (OF_PROJECT, page(project="project_1", status=["failed"])),
    "list by label": ("sqlite_autoindex_job_labels_1 (label=? AND job_id<?)", page(labels=["all"])),
    "list by labels and status": (WITH_LABEL, page(labels=["all", "rare"], status=["completed"])),
    "list by label and project": (
        "job_labels_of_project (label=? AND project=? AND status=? AND type=? AND job_id<?)",
        page(labels=["all"], project="project_1"),
    ),
    "list by time": ("sqlite_autoindex_jobs_1 (id>? AND id<?)", page(**ANY_TIME)),
    "list by all at once": (
        "job_labels_of_project (label=? AND project=? AND status=? AND type=? AND job_id>? AND job_id<?)",
        page(labels=["all"], project="project_1", status=["failed"], type=["build"], **ANY_TIME),
    ),
    "job": ("sqlite_autoindex_jobs_1 (id=?)", lambda h: h.store.get(h.job_id)),
    "history": ("job_events_by_job (job_id=?)", lambda h: h.store.events(h.job_id)),
    "what is new": ("INTEGER PRIMARY KEY (rowid>?)", lambda h: (h.store.events_after(5), h.store.last_event())),
    "what runs": ("jobs_running", lambda h: (h.store.active(), h.leases.held())),
    "counts": ("jobs_listed (status=? AND type=?)", lambda h: h.store.counts()),
    "workers": ("jobs_running (worker_id=?)", lambda h: h.store.workers()),
    "cancel all": ("jobs_running", lambda h: h.leases.cancel_all(["word"])),
    "those that are to end": ("jobs_running", lambda h: h.leases.running(["word"])),
    "claim": ("jobs_to_claim (queue=?)", lambda h: claim(h.leases.database, worker_id="w", host="h", queues=["default", "gpu"], slots=3)),
    "who waits": ("jobs_by_key (concurrency_key=? AND queue=? AND id<?)", lambda h: h.store.get(submit(h.store, key="k"))),
    "submit": ("sqlite_autoindex_job_counts_1 (status=?)", lambda h: submit(h.store, labels=("a",))),
    "delete": ("job_labels_by_job (job_id=?)", lambda h: h.store.delete(h.job_id, by="tester")),
    "log": ("sqlite_autoindex_log_chunks_1 (job_id=? AND first_seq>?)", lambda h: h.logs.chunks(h.job_id, after_seq=500)),
    "log of a stream": (
        "log_chunks_by_stream (job_id=? AND stream=? AND first_seq>?)",
        lambda h: h.logs.chunks(h.job_id, after_seq=500, stream=Stream.STDERR),
    ),
    "tail": ("COVERING INDEX log_chunks_by_stream (job_id=? AND stream=?)", lambda h: h.logs.tail(h.job_id, 5, stream=Stream.STDERR)),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_query_scans_every_row(question: str, database: OwnedDatabase, store: Store, leases: Leases) -> None:
    fill_history(database, Past(40))
    serve(leases, "default", "gpu")
    for _ in range(3):
        submit(store, key="k")
    [lease] = claim(leases.database, worker_id="w", host="h", queues=["default"], slots=1)
    fill_log(database, lease, 3000)
    through, ask = QUESTIONS[question]
    with statements() as asked:
        ask(House(store, leases, Logs(database), lease.job_id))
    told = [(statement, parameters) for statement, parameters in asked if statement.split()[0] in ("SELECT", "UPDATE", "DELETE")]
    steps = [step for statement, parameters in told for step in plan(database, statement, parameters)]
    assert any(through in step for step in steps), steps
    assert not [step for step in steps if looks_at_all(step)]


def test_a_generated_log_equals_a_written_one(database: OwnedDatabase, store: Store, leases: Leases) -> None:
    submit(store)
    [lease] = claim(leases.database, worker_id="w", host="h", queues=["default"], slots=1)
    fill_log(database, lease, 12_345)
    logs, texts, after = Logs(database), list[str](), 0
    while chunks := logs.chunks(lease.job_id, after_seq=after):
        texts += [line for chunk in chunks for line in chunk.texts()]
        after = chunks[-1].next_seq - 1
    assert texts == [f"line {number}" for number in range(1, 12_346)]
    assert logs.state(lease.job_id).lines == 12_345
