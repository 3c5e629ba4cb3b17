"""How long a stop takes is the operator's choice: the first signal leaves jobs their grace, a second one ends them at once."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from jobs.bootstrap import make_engine, open_database
from jobs.execution.signals import REPEAT_SECONDS
from jobs.store.jobs import Store
from support.programs import processes_of, program, runs
from support.server import TASKS, RunningServer, command, task_submission
from support.waiting import eventually

pytestmark = pytest.mark.slow

WAITS = "Stopping: running jobs (1) have their grace period to end; a second signal ends them at once."
GRACE_SECONDS = 30  # of the task `patient`


def stubborn(server: RunningServer) -> str:
    """A job that does not obey, and has long to do it."""
    job_id = str(server.submit(task_submission("patient", script=program("ignores_sigterm")))["id"])
    server.wait_for_log(job_id, "ready")
    return job_id


def stored(server: RunningServer, query: str) -> tuple[object, ...]:
    """What the store says, also when nobody serves it any more."""
    with closing(sqlite3.connect(server.folder / "data" / "runcast.db")) as connection:
        return tuple(connection.execute(query).fetchone())


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)])
def test_a_second_signal_ends_the_jobs_of_a_server_at_once(
    first: signal.Signals, second: signal.Signals, make_server: Callable[..., RunningServer]
) -> None:
    server = make_server(slots=1)
    job_id = stubborn(server)
    server.session.close()
    os.kill(server.pid, first)
    eventually(lambda: WAITS in server.output, "it says what it waits for")
    assert processes_of(job_id), "the job has its grace"
    begun = time.monotonic()
    assert insist(server.process, second) == 0
    assert time.monotonic() - begun < GRACE_SECONDS / 3
    assert processes_of(job_id) == []
    assert stored(server, "SELECT status, reason FROM jobs") == ("cancelled", "server_shutdown")


def insist(process: subprocess.Popen[bytes], signum: signal.Signals) -> int:
    """Signal once more, late enough not to be taken for a part of the first; gives the status."""
    due = time.monotonic() + REPEAT_SECONDS
    eventually(lambda: time.monotonic() > due, "it is late enough")
    process.send_signal(signum)
    return process.wait(15)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT])
def test_one_signal_to_every_process_counts_once(signum: signal.Signals, make_server: Callable[..., RunningServer]) -> None:
    """As from what stops services, from a terminal that closes, or from a launcher that passes on what the terminal sent to both."""
    server = make_server(slots=1, lease_seconds=1)
    job_id = stubborn(server)
    server.session.close()
    worker_main = server.part("worker")
    leading = os.getsid(worker_main.pid)
    ours = [worker_main, *(child for child in worker_main.children() if os.getsid(child.pid) == leading)]
    for process in (psutil.Process(server.pid), psutil.Process(server.pid), *ours):
        process.send_signal(signum if process.pid == server.pid else signal.SIGTERM)
    eventually(lambda: WAITS in server.output, "it stops")
    before = stored(server, "SELECT heartbeat_at FROM workers")
    eventually(lambda: stored(server, "SELECT heartbeat_at FROM workers") > before, "the dispatcher has heard all of them")
    assert stored(server, "SELECT cancel_forced FROM jobs") == (0,)
    assert processes_of(job_id), "the job still has its grace"
    assert insist(server.process, signal.SIGINT) == 0


def test_a_second_signal_ends_the_jobs_of_a_worker_at_once(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(slots=1, no_worker=True)
    with worker(server) as process:
        job_id = stubborn(server)
        # Ctrl-C is for the whole foreground: the worker, and its dispatcher.
        os.killpg(process.pid, signal.SIGINT)
        eventually(lambda: WAITS in (server.folder / "worker").read_text(), "it says what it waits for")
        assert processes_of(job_id), "the job has its grace"
        assert insist(process, signal.SIGINT) == 0
    assert server.job(job_id)["reason"] == "server_shutdown"
    assert processes_of(job_id) == []


@contextmanager
def worker(server: RunningServer) -> Iterator[subprocess.Popen[bytes]]:
    """In a process group of its own, as a shell would start it."""
    line = command("worker", data_dir=server.folder / "data", tasks=TASKS, slots=1)
    with (server.folder / "worker").open("ab") as output:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
    try:
        yield process
    finally:
        if process.poll() is None:
            insist(process, signal.SIGTERM)


# -- whose jobs end ---------------------------------------------------------------------------------------------------------


def crash(server: RunningServer) -> None:
    """All of it, but for what supervises jobs."""
    parts = psutil.Process(server.pid).children()
    server.session.close()
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(runs(part.pid) for part in parts), "the parts of a killed server end by themselves")


def test_a_stop_ends_jobs_of_other_queues_that_a_crash_left(make_server: Callable[..., RunningServer]) -> None:
    first = make_server(slots=1)
    job_id = first.shell("exec sleep 600")
    eventually(lambda: processes_of(job_id), "the job runs")
    crash(first)
    assert processes_of(job_id)
    second = make_server(folder=first.folder, slots=1, queue=["default", "gpu"])
    assert second.stop() == 0
    assert processes_of(job_id) == []
    assert stored(second, "SELECT status, reason FROM jobs") == ("cancelled", "server_shutdown")


def test_a_stop_leaves_jobs_that_another_worker_keeps(make_server: Callable[..., RunningServer]) -> None:
    first = make_server(slots=1, keep_jobs=True)
    job_id = first.shell("exec sleep 600")
    eventually(lambda: processes_of(job_id), "the job runs")
    assert first.stop() == 0
    second = make_server(folder=first.folder, slots=1, queue=["default", "gpu"])
    assert second.stop() == 0
    assert processes_of(job_id), "it is kept"
    third = make_server(folder=first.folder, slots=1)
    assert third.stop() == 0
    assert processes_of(job_id) == []


def test_a_server_without_its_worker_reports_jobs_that_it_leaves(make_server: Callable[..., RunningServer]) -> None:
    """Whether the worker is there again when the stop comes is a matter of milliseconds; what is said is true either way."""
    server = make_server(slots=1)
    job_id = server.shell("exec sleep 600")
    eventually(lambda: processes_of(job_id), "the job runs")
    server.part("worker").kill()
    eventually(lambda: "The worker ended (-9)" in server.output, "it is noticed")
    status = server.stop()
    left = processes_of(job_id)
    assert (status, "What runs was not ended" in server.output) == ((1, True) if left else (0, False))
    if left:
        make_server(folder=server.folder, slots=1).stop()
    assert processes_of(job_id) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_a_stop_while_the_worker_starts_ends_the_jobs(make_server: Callable[..., RunningServer], delay: float) -> None:
    first = make_server(slots=1)
    job_id = first.shell("exec sleep 600")
    eventually(lambda: processes_of(job_id), "the job runs")
    crash(first)
    with starting(first.folder) as process:
        worker = eventually(lambda: worker_of(process), "it starts")
        due = time.monotonic() + delay
        eventually(lambda: time.monotonic() >= due, "the moment has come")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not runs(worker) and processes_of(job_id) == []


@contextmanager
def starting(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is not waited for."""
    with (folder / "output").open("ab") as output:
        line = command("serve", data_dir=folder / "data", tasks=TASKS, slots=1, port=0)
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def worker_of(process: subprocess.Popen[bytes]) -> int | None:
    """The worker of a server that handles signals already, as it does from the moment when its worker begins to work."""
    if not catches(process.pid, signal.SIGTERM):
        return None
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):
            if "handlers.server.worker" in child.cmdline():
                return child.pid
    return None


def catches(pid: int, signum: int) -> bool:
    mask = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return mask is not None and bool(int(mask[1], 16) >> (signum - 1) & 1)


def test_a_stop_cancels_jobs_although_the_dispatcher_was_just_killed(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(slots=1)
    job_id = server.shell("echo started; exec sleep 60")
    server.wait_for_log(job_id, "started")
    worker = server.part("worker")
    # A supervisor leads a session of its own, the dispatcher does not.
    dispatcher = next(child for child in worker.children() if os.getsid(child.pid) == os.getsid(worker.pid))
    server.session.close()
    worker.suspend()
    dispatcher.kill()
    worker.terminate()
    server.process.send_signal(signal.SIGTERM)
    worker.resume()
    server.process.wait(20)
    store = Store(open_database(server.database_url), make_engine(server.database_url))
    job = store.get(job_id)
    store.database.close()
    assert (job.status, job.reason) == ("cancelled", "server_shutdown")


def test_a_server_under_nohup_ignores_sighup_and_its_database_is_private(make_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    data = tmp_path / "open" / "data"
    data.mkdir(parents=True, mode=0o755)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
    try:
        server = make_server(data.parent, migrated=False)
    finally:
        signal.signal(signal.SIGHUP, before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.glob("runcast.db*")}
    assert modes.keys() >= {"runcast.db", "runcast.db-wal"}
    assert set(modes.values()) == {0o600}
    server.process.send_signal(signal.SIGHUP)
    assert server.wait(server.run("true"))["status"] == "completed"
    assert server.process.poll() is None
