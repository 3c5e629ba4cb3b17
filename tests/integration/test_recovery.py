"""Processes of the service are killed, hang, or are stopped while a job runs: it is started once, and what is said of it is true."""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from jobs.execution.process import become_subreaper
from jobs.fault_points import VARIABLE
from support.programs import processes_of, program, runs
from support.server import RunningServer, start_server, task_submission
from support.waiting import eventually

pytestmark = pytest.mark.slow

MakeServer = Callable[..., RunningServer]
PR_SET_CHILD_SUBREAPER = 36
LOSSES = ["is gone; its jobs run on", "ended (-9)", "was lost", "dispatcher ended", "The lease of job"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose parts may be killed, as they are started again."""
    with start_server(tmp_path_factory.mktemp("recovery"), slots=4, lease_seconds=2) as server:
        yield server


class Counted:
    """A job that says numbered lines, and notes each start in a file. It ends when it is told to: all else happens while it runs."""

    def __init__(self, server: RunningServer, folder: Path, **options: object) -> None:
        self.starts_file, self.gate = folder / "starts", folder / "gate"
        number = program("numbered_lines", 100_000, "--rate", 250).removeprefix("exec ")
        script = (
            f"echo $$ >> {self.starts_file}; {number} & while ! [ -e {self.gate} ]; do sleep 0.02; done; kill $!; wait $! 2>/dev/null; "
            """echo '::result {"made": true}'; echo end; exit 0"""
        )
        self.id = server.shell(script, **options)
        server.wait_for_log(self.id, "line 20\n")

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in self.starts_file.read_text().split()]

    def lines(self, server: RunningServer) -> int:
        return int(server.job(self.id)["log"]["lines"])

    def goes_on(self, server: RunningServer) -> None:
        """It was not disturbed: it says more than it had said by now."""
        before = self.lines(server)
        eventually(lambda: self.lines(server) > before + 20, "the job goes on")

    def finish(self, server: RunningServer) -> None:
        """Let it end, and hold everything about it against what it did."""
        self.gate.touch()
        job = server.wait(self.id)
        assert (job["status"], job["exit_code"], job["result"], job["attempt"]) == ("completed", 0, {"made": True}, 1)
        assert len(self.starts) == 1, "it was started more than once"
        *numbered, last = server.raw_log(self.id).splitlines()
        assert last == "end"
        assert numbered == [f"line {number}" for number in range(1, len(numbered) + 1)]
        assert job["log"]["lines"] == len(numbered) + 1
        history = server.call("GET", f"/jobs/{self.id}/events").json()["events"]
        assert [event["status"] for event in history] == ["pending", "running", "completed"]
        assert processes_of(self.id) == []


def kill_api(server: RunningServer) -> None:
    main = server.part("api")
    kill(*main.children(), main)


def kill_arbiter(server: RunningServer) -> None:
    main = server.part("api")
    orphans = main.children()
    kill(main)
    eventually(lambda: not any(runs(orphan.pid) for orphan in orphans), "its worker ends by itself")


def kill_api_worker(server: RunningServer) -> None:
    kill(*server.part("api").children())


def kill_worker(server: RunningServer) -> None:
    main = server.part("worker")
    kill(dispatcher(server), main)


def kill_worker_main(server: RunningServer) -> None:
    kill(server.part("worker"))


def kill_dispatcher(server: RunningServer) -> None:
    kill(dispatcher(server))


def kill_both(server: RunningServer) -> None:
    kill_worker(server)
    kill_api(server)


def dispatcher(server: RunningServer) -> psutil.Process:
    """The worker's child that leads no session of its own."""
    main = server.part("worker")
    return eventually(lambda: next((c for c in main.children() if os.getsid(c.pid) != c.pid), None), "the dispatcher runs")


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # the end of another was its own
            process.kill()
    eventually(lambda: not any(runs(process.pid) for process in processes), "they are gone")


def serves(server: RunningServer) -> bool:
    try:
        return server.call("GET", "/health/ready").status_code == 200
    except OSError:
        return False


def workers_of(server: RunningServer) -> int:
    family = psutil.Process(server.pid).children(recursive=True)
    return len([child for child in family if "handlers.server.worker" in " ".join(child.cmdline())])


@pytest.mark.parametrize(
    "crash",
    [kill_arbiter, kill_api_worker, kill_worker, kill_worker_main, kill_dispatcher, kill_both],
    ids=lambda crash: crash.__name__,
)
def test_a_job_survives_a_crash_of(crash: Callable[[RunningServer], None], shared: RunningServer, tmp_path: Path) -> None:
    shared.allowed_errors += LOSSES
    job = Counted(shared, tmp_path)
    crash(shared)
    eventually(lambda: serves(shared), "it serves again")
    job.goes_on(shared)
    # Work is taken on again, while the job that was running still counts as a taken slot.
    assert shared.wait(shared.shell("exit 0"))["status"] == "completed"
    job.finish(shared)


def test_a_job_survives_the_death_of_the_whole_service(make_server: MakeServer, tmp_path: Path) -> None:
    first = make_server(tmp_path / "server", check=False, slots=2)
    job = Counted(first, tmp_path)
    parts = psutil.Process(first.pid).children()
    first.process.kill()
    first.process.wait()
    eventually(lambda: not any(runs(part.pid) for part in parts), "the parts end when the server is gone")
    assert len(processes_of(job.id)) >= 2, "the job runs on"
    second = make_server(tmp_path / "server", slots=2)
    job.goes_on(second)
    (worker,) = second.call("GET", "/workers").json()["workers"]
    assert (worker["slots"], worker["busy_slots"]) == (2, 1)
    job.finish(second)


def test_a_job_and_its_supervisor_survive_the_death_of_all_others(make_server: MakeServer, tmp_path: Path) -> None:
    first = make_server(tmp_path / "server", check=False, slots=2)
    job = Counted(first, tmp_path)
    supervisor = supervisor_of(first, job.id)
    # In this order, so that what the job starts in between is in neither.
    family = psutil.Process(first.pid).children(recursive=True)
    spared = {supervisor, *(child.pid for child in psutil.Process(supervisor).children(recursive=True))}
    kill(psutil.Process(first.pid), *(process for process in family if process.pid not in spared))
    first.process.wait()
    second = make_server(tmp_path / "server", slots=2)
    job.goes_on(second)
    job.finish(second)


# -- a supervisor that is lost --------------------------------------------------------------------------------------------


def supervisor_of(server: RunningServer, job_id: str) -> int:
    """Read from the store, because no client learns of it."""

    def found() -> int | None:
        with closing(sqlite3.connect(server.folder / "data" / "runcast.db")) as connection:
            (pid,) = connection.execute("SELECT json_extract(supervisor, '$.pid') FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return pid  # type: ignore[no-any-return]

    return eventually(found, "the job has a supervisor")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_lost_supervisor_fails_its_job_and_nothing_runs_on(how: signal.Signals, shared: RunningServer, tmp_path: Path) -> None:
    shared.allowed_errors += LOSSES
    pid_file = tmp_path / "pid"
    with shared.connect() as events:
        stray = program("setsid_grandchild", "--pid-file", pid_file, "--ignore-sigterm").removeprefix("exec ")
        job_id = shared.shell(f"{stray}; {program('ignores_sigterm')}")
        shared.wait_for_log(job_id, "ready")
        events.subscribe(job_id)
        supervisor = supervisor_of(shared, job_id)
        os.kill(supervisor, how)
        complete = events.wait("complete", job_id, seconds=20)
    assert processes_of(job_id) == []
    assert not runs(int(pid_file.read_text()))
    assert not runs(supervisor)
    assert (complete["status"], complete["reason"]) == ("failed", "worker_lost")
    job = shared.job(job_id)
    assert job["error"]["type"] == "urn:runcast:problem:job-failed"
    assert shared.raw_log(job_id) == "started\nready\n"
    assert shared.wait(shared.shell("exit 0"))["status"] == "completed", "its slot is free again"


def test_a_lost_job_is_run_again_while_it_has_attempts(shared: RunningServer, tmp_path: Path) -> None:
    shared.allowed_errors += LOSSES
    script = f"echo start; if [ -e {tmp_path}/second ]; then echo '::result {{}}'; exit 0; fi; touch {tmp_path}/second; sleep 600"
    job_id = shared.shell(script, max_attempts=2)
    eventually((tmp_path / "second").exists, "the first attempt runs")
    shared.wait_for_log(job_id, "start")
    os.kill(supervisor_of(shared, job_id), signal.SIGKILL)
    job = shared.wait(job_id)
    assert (job["status"], job["attempt"], job["max_attempts"], job["result"]) == ("completed", 2, 2, {})
    assert shared.raw_log(job_id) == "start\nstart\n", "the log of the lost attempt is kept, and goes on"
    history = shared.call("GET", f"/jobs/{job_id}/events").json()["events"]
    assert [(event["status"], event["attempt"]) for event in history] == [
        ("pending", 0),
        ("running", 1),
        ("pending", 1),
        ("running", 2),
        ("completed", 2),
    ]
    assert "supervisor was lost" in history[2]["cause"]


def test_a_lost_last_attempt_fails_the_job(shared: RunningServer) -> None:
    shared.allowed_errors += LOSSES
    job_id = shared.shell("echo $$; sleep 600", max_attempts=2)
    for attempt in (1, 2):
        eventually(lambda: shared.job(job_id)["log"]["lines"] == attempt, "the attempt runs")  # noqa: B023  # called before the next turn
        os.kill(supervisor_of(shared, job_id), signal.SIGKILL)
    job = shared.wait(job_id)
    assert (job["status"], job["reason"], job["attempt"]) == ("failed", "worker_lost", 2)
    assert processes_of(job_id) == []


def test_a_lost_job_with_a_cancel_request_is_not_run_again(shared: RunningServer) -> None:
    shared.allowed_errors += LOSSES
    job_id = shared.submit({**task_submission("patient", script=program("ignores_sigterm")), "max_attempts": 3})["id"]
    shared.wait_for_log(job_id, "ready")
    assert shared.call("POST", f"/jobs/{job_id}/cancel").status_code == 202
    os.kill(supervisor_of(shared, job_id), signal.SIGKILL)
    job = shared.wait(job_id)
    assert (job["status"], job["reason"], job["attempt"]) == ("cancelled", "cancelled_by_client", 1)
    assert processes_of(job_id) == []


def test_a_supervisor_lost_without_a_worker_is_noticed_later(make_server: MakeServer, tmp_path: Path) -> None:
    """The next start finds a job that nobody supervises, and ends what is left of it."""
    first = make_server(tmp_path / "server", check=False, keep_jobs=True, slots=1)
    job_id = first.shell(program("ignores_sigterm"))
    first.wait_for_log(job_id, "ready")
    supervisor = supervisor_of(first, job_id)
    assert first.stop() == 0
    os.kill(supervisor, signal.SIGKILL)
    assert processes_of(job_id) != []
    second = make_server(tmp_path / "server", slots=1)
    second.allowed_errors += LOSSES
    job = second.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "worker_lost")
    assert processes_of(job_id) == []


def test_an_untaken_claim_ends_long_before_a_lease(make_server: MakeServer, tmp_path: Path) -> None:
    """Nothing was started under it, so that nothing is to be waited for."""
    points = tmp_path / "points"
    points.mkdir()
    server = make_server(slots=2, lease_seconds=600, environment={VARIABLE: str(points)})
    server.allowed_errors += LOSSES
    for point in ("claim.committed", "start.received"):  # the dispatcher dies, or the supervisor before it has taken the lease
        (points / point).touch()
    job_ids = [server.shell(program("appends_line", tmp_path / f"starts-{number}")) for number in range(3)]
    for number, job_id in enumerate(job_ids):
        job = server.wait(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1)
        assert len((tmp_path / f"starts-{number}").read_text().splitlines()) == 1, "it was started more than once"
    assert list(points.iterdir()) == [], "both have died"


def test_an_orphaned_api_does_not_signal_its_new_parent(make_server: MakeServer) -> None:
    """The API ends with the server, and tells its parent to: which is by then whoever adopts orphans here, often the first process."""
    server = make_server(check=False, no_worker=True)
    arbiter = server.part("api")
    (api,) = arbiter.children()
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _frame: told.append(signum))
    try:
        with adopting_orphans():
            api.suspend()  # until both are gone
            for parent in (arbiter, psutil.Process(server.pid)):
                parent.kill()
            server.process.wait()
            eventually(lambda: api.ppid() == os.getpid(), "we adopt it")
            api.resume()
            eventually(lambda: not runs(api.pid), "it ends by itself")
            for orphan in (api, arbiter):
                with suppress(ChildProcessError):
                    os.waitpid(orphan.pid, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == []


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """We are what the first process of a machine is to others, for what our children leave behind."""
    assert become_subreaper()
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(0), *[ctypes.c_ulong(0)] * 3)


# -- stopping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_cancels_running_jobs_within_their_grace(signum: signal.Signals, make_server: MakeServer, tmp_path: Path) -> None:
    first = make_server(tmp_path / "server", slots=2)
    polite = first.shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    stubborn = first.shell(program("ignores_sigterm"))
    pending = first.shell("echo ran")
    for job_id in (polite, stubborn):
        first.wait_for_log(job_id, "ready")
    with first.connect() as events:
        for job_id in (polite, stubborn):
            events.subscribe(job_id)
        family = psutil.Process(first.pid).children(recursive=True)
        assert first.stop(signum=signum) == 0
        assert not any(runs(process.pid) for process in family)
        for job_id in (polite, stubborn):
            assert processes_of(job_id) == []
            # Clients see how their jobs end before the connection does.
            assert events.wait("complete", job_id)["reason"] == "server_shutdown"
    if signum is signal.SIGINT:
        return  # the rest is the same
    second = make_server(tmp_path / "server", slots=2)
    for job_id in (polite, stubborn):
        job = second.job(job_id)
        assert (job["status"], job["reason"]) == ("cancelled", "server_shutdown")
    assert "bye" in second.raw_log(polite)
    assert second.wait(pending)["status"] == "completed", "what was pending stays so, and runs after the next start"
    assert len(second.call("GET", f"/jobs/{pending}/events").json()["events"]) == 3


def test_keep_jobs_lets_jobs_run_on_and_the_next_start_finds_them(make_server: MakeServer, tmp_path: Path) -> None:
    first = make_server(tmp_path / "server", slots=2, keep_jobs=True)
    folders = [tmp_path / "stays", tmp_path / "ends"]
    for folder in folders:
        folder.mkdir()
    stays, ends = (Counted(first, folder) for folder in folders)
    before = stays.lines(first)
    assert first.stop() == 0
    assert len(processes_of(stays.id)) >= 2
    assert eventually(lambda: stored_lines(first, stays.id) > before + 50, "its log grows while no server is there")
    ends.gate.touch()
    eventually(lambda: not processes_of(ends.id), "the other job ends while no server is there")
    second = make_server(tmp_path / "server", slots=2)
    ends.finish(second)
    stays.goes_on(second)
    stays.finish(second)


def stored_lines(server: RunningServer, job_id: str) -> int:
    with closing(sqlite3.connect(server.folder / "data" / "runcast.db")) as connection:
        return int(connection.execute("SELECT log_lines FROM jobs WHERE id = ?", (job_id,)).fetchone()[0])
