"""One supervisor with one job: the lease is kept until the end of the job is stored, however long that takes, and its loss ends the job."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.bootstrap import make_engine, open_database
from jobs.errors import LeaseLost, Unavailable
from jobs.execution.supervisor import _take, supervise
from jobs.model import Reason, Status, Submission
from jobs.recipes.expand import Recipe, Recipes
from jobs.recipes.workspace import Workspace
from jobs.settings import Settings
from jobs.store.leases import Lease, Leases
from jobs.store.log_writer import LogWriter
from support.programs import processes_of, program
from support.stores import StoreHarness
from support.waiting import eventually

LEASE_LOST = 3
QUARTERS = 6
"""So many renewals are seen: more than a lease lasts."""


class OneRecipe(Recipes):
    """Whatever is submitted, this is run."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(workspace=Workspace(recipe.cwd), tasks={})
        self._recipe = recipe

    def expand(self, submission: Submission) -> Recipe:
        return self._recipe


class Gate:
    """Holds up the supervisor, which is another process, until the test opens it."""

    def __init__(self, folder: Path) -> None:
        self._reached, self._open = folder / "reached", folder / "open"

    def pass_through(self) -> None:
        self._reached.touch()
        eventually(self._open.exists, "the test opens the gate", seconds=60)

    @property
    def is_open(self) -> bool:
        """For what fails instead of waiting."""
        self._reached.touch()
        return self._open.exists()

    def wait_until_reached(self) -> None:
        eventually(self._reached.exists, "the supervisor gets there")

    def open(self) -> None:
        self._open.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (folder := tmp_path / "gate").mkdir()
    return Gate(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, lease_seconds=1, log_cap=65536)


def sh(script: str, folder: Path, **options: Any) -> Recipe:
    return Recipe(argv=("sh", "-c", script), cwd=folder, pty=False, **options)


@contextmanager
def supervisor(
    harness: StoreHarness, settings: Settings, recipe: Recipe, *, patch: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Lease]]:
    """A supervisor in a process of its own, in which `patch` is called first; gives its pid and the lease of its job."""
    harness.submit()
    (lease,) = harness.claim()
    harness.database.close()  # connections must not be carried across a fork
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            patch()
            database = open_database(settings.url, busy_seconds=0.2)
            supervise(settings, OneRecipe(recipe), lease, leases=Leases(database, make_engine(settings.url)))
            status = 0
        except LeaseLost:
            status = LEASE_LOST
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        yield pid, lease
    finally:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def end_of(pid: int) -> int:
    """The exit status of a supervisor that ends by itself. It stays to be waited for."""
    eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "the supervisor ends")
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert result is not None and result.si_code == os.CLD_EXITED
    return result.si_status


def wait_for_renewals(harness: StoreHarness) -> None:
    def heartbeat() -> int:
        (held,) = harness.leases.held()
        return held.heartbeat

    before = heartbeat()
    eventually(lambda: heartbeat() >= before + QUARTERS, "the lease is renewed")


# -- the lease is kept until the end --------------------------------------------------------------------------------------


def slow_removal(gate: Gate) -> Callable[[], None]:
    remove = shutil.rmtree

    def removal(*arguments: Any, **options: Any) -> None:
        gate.pass_through()
        remove(*arguments, **options)

    return lambda: setattr(shutil, "rmtree", removal)


@pytest.mark.slow
def test_the_lease_is_renewed_while_a_large_folder_is_removed(
    harness: StoreHarness, settings: Settings, gate: Gate, tmp_path: Path
) -> None:
    recipe = Recipe(argv=("cat", "{file:input}"), cwd=tmp_path, pty=False, files={"input": "text\n"})
    with supervisor(harness, settings, recipe, patch=slow_removal(gate)) as (pid, lease):
        gate.wait_until_reached()
        wait_for_renewals(harness)
        gate.open()
        assert end_of(pid) == 0
    assert harness.store.get(lease.job_id).status is Status.COMPLETED
    assert harness.raw_log(lease.job_id) == b"text\n"


@pytest.mark.slow
def test_the_lease_is_renewed_while_the_last_lines_wait(harness: StoreHarness, settings: Settings, tmp_path: Path) -> None:
    """A log over its cap is cut when it ends, but not before clients had the time to read what is dropped."""
    with supervisor(harness, settings, sh("seq 40000", tmp_path), patch=lambda: setattr(LogWriter, "READ_SECONDS", 3600.0)) as (_, lease):
        eventually(lambda: harness.store.get(lease.job_id).log.lines == 40000, "all lines are stored")
        eventually(lambda: not processes_of(lease.job_id), "the command has ended")
        wait_for_renewals(harness)
        assert harness.logs.state(lease.job_id).dropped is None


def refuse_until_open(owner: type, name: str, gate: Gate) -> Callable[[], None]:
    """The store does not take this, as when the disk is full."""
    work = getattr(owner, name)

    def refused(*arguments: Any, **options: Any) -> Any:
        if not gate.is_open:
            raise Unavailable("The store does not answer: the disk is full.")
        return work(*arguments, **options)

    return lambda: setattr(owner, name, refused)


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "name"), [(LogWriter, "_store"), (Leases, "end")], ids=["the log", "the end"])
def test_the_lease_is_renewed_while_the_store_refuses(
    harness: StoreHarness, settings: Settings, gate: Gate, tmp_path: Path, owner: type, name: str
) -> None:
    with supervisor(harness, settings, sh("echo line", tmp_path), patch=refuse_until_open(owner, name, gate)) as (pid, lease):
        gate.wait_until_reached()
        wait_for_renewals(harness)
        gate.open()
        assert end_of(pid) == 0
    assert harness.store.get(lease.job_id).status is Status.COMPLETED
    assert harness.raw_log(lease.job_id) == b"line\n"


@pytest.mark.slow
def test_a_timeout_is_kept_while_the_store_refuses_the_log(harness: StoreHarness, settings: Settings, gate: Gate, tmp_path: Path) -> None:
    recipe = sh("echo line; exec sleep 600", tmp_path, timeout=1.0, stop_grace=0.1)
    with supervisor(harness, settings, recipe, patch=refuse_until_open(LogWriter, "_store", gate)) as (pid, lease):
        gate.wait_until_reached()
        eventually(lambda: not processes_of(lease.job_id), "the command is ended")
        gate.open()
        assert end_of(pid) == 0
    job = harness.store.get(lease.job_id)
    assert (job.status, job.reason) == (Status.FAILED, Reason.TIMEOUT)


# -- a lease that is lost ---------------------------------------------------------------------------------------------------


def test_a_supervisor_that_lost_its_lease_ends_what_it_runs(harness: StoreHarness, settings: Settings, tmp_path: Path) -> None:
    recipe = sh(program("ignores_sigterm"), tmp_path)
    with supervisor(harness, settings, recipe) as (pid, lease):
        eventually(lambda: harness.raw_log(lease.job_id), "the command runs")
        assert harness.leases.lose(harness.leases.held()[0]) is Status.FAILED
        assert end_of(pid) == LEASE_LOST
        assert processes_of(lease.job_id) == []
    assert harness.store.get(lease.job_id).reason is Reason.WORKER_LOST


def test_a_lease_lost_at_the_very_end_leaves_no_temporary_folder(
    harness: StoreHarness, settings: Settings, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    recipe = sh("exit 0", tmp_path, files={"input": "text\n"})
    with supervisor(harness, settings, recipe, patch=slow_removal(gate)) as (pid, _):
        gate.wait_until_reached()
        assert len(list(temporary.iterdir())) == 1
        assert harness.leases.lose(harness.leases.held()[0]) is Status.FAILED
        gate.open()
        assert end_of(pid) == LEASE_LOST
    assert list(temporary.iterdir()) == []


def test_a_supervisor_does_not_try_to_take_a_lease_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.execution.supervisor.TAKE_TIMEOUT_SECONDS", 0.2)
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "runcast.db").write_bytes(b"x" * 5000)
    with closing(open_database(settings.url)) as database, pytest.raises(LeaseLost, match="could not be taken"):
        _take(Leases(database, make_engine(database.url)), Lease("019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11", "word", 1))
