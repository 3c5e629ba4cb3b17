"""The service on a store without a server: pages of logs, raw logs, and the wait for the end of a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.bootstrap import make_engine
from jobs.model import Job
from jobs.recipes.expand import Recipes
from jobs.service import Service
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import Store
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs
from jobs.submission import Submissions
from support.jobs import end, log, lose_the_end, start, submit


class Still:
    """A store of which nobody waits for changes."""

    version = 0

    def wait(self, seen: int, timeout: float) -> None:
        raise AssertionError("nothing was to be waited for")


def make_service(database: OwnedDatabase, workspace: Path) -> Service:
    recipes = Recipes.load(workspace=workspace, tasks_file=None)
    store = Store(database, make_engine(database.url))
    return Service(store, Logs(database), recipes, Submissions(store, recipes, max_pending=10), Still())


def test_a_page_of_very_long_lines_ends_early_and_the_next_continues(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=64 << 20)
    for number in range(120):
        log(database, writer, b"%d%s\n" % (number, b"x" * 65000))
    end(database, lease)
    service = make_service(database, tmp_path)
    first = service.log_page(job_id, after_seq=0, limit=10_000, tail=None, stream=None)
    assert (len(first.lines) < 80, first.complete) == (True, False)
    second = service.log_page(job_id, after_seq=first.next_seq - 1, limit=10_000, tail=None, stream=None)
    assert [line.seq for line in (*first.lines, *second.lines)] == list(range(1, 121))
    assert second.complete


def test_a_log_whose_end_was_dropped_marks_it_and_is_complete(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = lose_the_end(database)
    service = make_service(database, tmp_path)
    page = service.log_page(job_id, after_seq=0, limit=10, tail=None, stream=None)
    assert ([line.seq for line in page.lines], page.next_seq, page.complete, page.dropped) == ([1], 4, True, (2, 3))
    for follow in (False, True):
        whole = b"".join(service.raw_log(job_id, after_seq=0, tail=None, stream=None, follow=follow))
        assert whole == b"one\n[runcast: lines 2 to 3 were dropped, the log was too long]\n"


def test_an_unfollowed_raw_log_ends_although_the_log_still_grows(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    writer = LogWriter(start(database), cap=64 << 20)
    line = b"x" * (1 << 20) + b"\n"
    log(database, writer, line)
    parts = make_service(database, tmp_path).raw_log(job_id, after_seq=0, tail=None, stream=None, follow=False)
    for number, _ in enumerate(parts):
        assert number < 10
        log(database, writer, line)


class CountingStore(Store):
    def __init__(self, database: OwnedDatabase) -> None:
        super().__init__(database, make_engine(database.url))
        self.gets = 0

    def get(self, job_id: str) -> Job:
        self.gets += 1
        return super().get(job_id)


class Scripted:
    """A store that changes whenever somebody waits for it."""

    def __init__(self, changes: Iterator[None]) -> None:
        self.version = 0
        self._changes = changes

    def wait(self, seen: int, timeout: float) -> None:
        next(self._changes)
        self.version += 1


def test_waiting_for_a_job_reads_it_again_only_after_a_status_change(database: OwnedDatabase, tmp_path: Path) -> None:
    job_id = submit(database)
    lease = start(database)
    writer = LogWriter(lease, cap=1 << 20)

    def changes() -> Iterator[None]:
        for _ in range(50):
            log(database, writer, b"line\n")
            yield
        end(database, lease)
        yield

    store = CountingStore(database)
    recipes = Recipes.load(workspace=tmp_path, tasks_file=None)
    service = Service(store, Logs(database), recipes, Submissions(store, recipes, max_pending=10), Scripted(changes()))
    job = service.get(job_id, wait=60)
    assert (job.status, job.log.lines) == ("completed", 50)
    assert store.gets == 2
