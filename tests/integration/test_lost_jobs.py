"""Which running jobs have lost their supervisor, and what is ended of them."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from jobs.errors import LeaseLost
from jobs.execution.lost_jobs import LostJobDetector, end_remains
from jobs.execution.process_table import Identity, boot_id, host_id, pid_namespace
from jobs.model import MARKER, Status
from support.stores import SUPERVISOR, StoreHarness


def make_detector(seconds: float, *, worker_id: str = "w") -> LostJobDetector:
    return LostJobDetector(seconds, worker_id=worker_id)


class Clock:
    """Stands in for `time` where a lease is measured."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("jobs.execution.lost_jobs.time", clock)
    return clock


def test_a_job_claimed_but_never_started_loses_no_attempt(harness: StoreHarness, clock: Clock) -> None:
    job_id = harness.submit()
    (lease,) = harness.claim()
    assert harness.store.get(job_id).attempt == 1
    detector = make_detector(10)
    assert detector.find_lost(harness.leases.held()) == [], "a worker that has just claimed it may be about to start it"
    for _ in range(3):
        clock.now += 1
        assert detector.find_lost(harness.leases.held()) == []
    clock.now += 1
    (held,) = detector.find_lost(harness.leases.held())
    assert harness.leases.lose(held) is Status.PENDING
    job = harness.store.get(job_id)
    assert (job.attempt, job.started_at) == (0, None)
    with pytest.raises(LeaseLost):
        harness.leases.take(lease, supervisor=SUPERVISOR)
    (again,) = harness.claim()
    assert (again.job_id, again.attempt) == (job_id, 1)
    assert "never started" in harness.store.events(job_id)[-2].cause


def test_renewals_keep_a_lease_and_a_dead_supervisor_is_known_at_once(harness: StoreHarness, clock: Clock) -> None:
    lease = harness.running()
    child = subprocess.Popen(["sleep", "600"])
    try:
        harness.set(lease.job_id, supervisor=Identity.of(child.pid).__dict__)
        detector = make_detector(10)
        for _ in range(4):
            assert detector.find_lost(harness.leases.held()) == []
            clock.now += 6
            harness.leases.update(lease)
    finally:
        child.kill()
        child.wait()
    assert [held.job_id for held in detector.find_lost(harness.leases.held())] == [lease.job_id]


def test_time_in_which_nobody_could_renew_does_not_count(harness: StoreHarness, clock: Clock) -> None:
    harness.set(harness.running().job_id, host="elsewhere")
    detector = make_detector(10, worker_id="another")
    for _ in range(2):
        # The watcher itself was held up: by a locked store, or because the machine slept.
        assert detector.find_lost(harness.leases.held()) == []
        clock.now += 3600
    for _ in range(5):
        clock.now += 1
        assert detector.find_lost(harness.leases.held()) == []
    detector.reset()  # the store took no writes
    for _ in range(11):
        assert detector.find_lost(harness.leases.held()) == []
        clock.now += 1
    assert len(detector.find_lost(harness.leases.held())) == 1


def test_a_renamed_machine_still_knows_its_supervisors(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = harness.running()
    harness.set(lease.job_id, supervisor={**Identity.of(1).__dict__, "start_time": -1.0})
    monkeypatch.setattr("socket.gethostname", lambda: "renamed")
    assert [held.job_id for held in make_detector(60).find_lost(harness.leases.held())] == [lease.job_id]


def test_a_recycled_pid_is_not_the_supervisor(harness: StoreHarness) -> None:
    lease = harness.running()
    own = Identity.of(1)
    harness.set(lease.job_id, supervisor={**own.__dict__, "start_time": own.start_time + 1})
    assert [held.job_id for held in make_detector(60).find_lost(harness.leases.held())] == [lease.job_id]
    for machine in (boot_id(), f"{boot_id()}pid:[1]", socket.gethostname()):
        harness.set(lease.job_id, supervisor=own.__dict__, host=machine)
        assert make_detector(60).find_lost(harness.leases.held()) == [], "nor does a pid of another container, on the same machine"
    harness.set(lease.job_id, supervisor=own.__dict__, host="elsewhere")
    assert make_detector(60).find_lost(harness.leases.held()) == [], "a pid of another machine says nothing here"


def test_a_supervisor_of_an_earlier_boot_is_lost(harness: StoreHarness) -> None:
    lease = harness.running()
    before = {**Identity.of(1).__dict__, "boot_id": "another"}
    harness.set(lease.job_id, supervisor=before, host=f"another{pid_namespace()}")
    assert make_detector(60, worker_id="another").find_lost(harness.leases.held()) == [], (
        "a worker of another name may be on another machine"
    )
    assert [held.job_id for held in make_detector(60).find_lost(harness.leases.held())] == [lease.job_id]


def test_a_silent_supervisor_is_killed(harness: StoreHarness, clock: Clock) -> None:
    """It hangs, and must not wake up again."""
    lease = harness.running()
    child = subprocess.Popen(["sleep", "600"])
    try:
        harness.set(lease.job_id, supervisor=Identity.of(child.pid).__dict__)
        detector = make_detector(1)
        assert detector.find_lost(harness.leases.held()) == []
        clock.now += 0.9
        assert detector.find_lost(harness.leases.held()) == []
        assert child.poll() is None
        clock.now += 0.9
        assert [held.job_id for held in detector.find_lost(harness.leases.held())] == [lease.job_id]
        assert child.wait(10) == -9
    finally:
        child.kill()
        child.wait()


def test_remains_of_a_lost_supervisor_are_ended_on_its_host_only(
    harness: StoreHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.execution.lost_jobs.gettempdir", lambda: str(tmp_path))
    lease = harness.running()
    mine, other = tmp_path / f"{lease.folder}x", tmp_path / "runcast-job-of-another-lease"
    for folder in (mine, other):
        folder.mkdir()
        (folder / "file").touch()
    left = subprocess.Popen(["sleep", "600"], start_new_session=True, env={"PATH": os.environ["PATH"], MARKER: lease.marker})
    try:
        harness.set(lease.job_id, host="elsewhere")
        assert end_remains(harness.leases.held()[0]) == 0
        assert left.poll() is None, "a process of this host does not belong to a job of another"
        harness.set(lease.job_id, host=host_id())
        assert end_remains(harness.leases.held()[0]) == 1
        assert left.wait(10) == -9
    finally:
        left.kill()
        left.wait()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [other.name]


def test_nothing_is_ended_under_an_untaken_lease(harness: StoreHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be taken at this very moment."""
    monkeypatch.setattr("jobs.execution.lost_jobs.gettempdir", lambda: str(tmp_path))
    harness.submit()
    (lease,) = harness.claim()
    (folder := tmp_path / f"{lease.folder}x").mkdir()
    assert end_remains(harness.leases.held()[0]) == 0
    assert folder.exists()
