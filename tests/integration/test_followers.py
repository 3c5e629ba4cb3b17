"""Who follows a raw log gets all of it, costs nothing while there is nothing new, and is let go when it leaves."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from jobs.bootstrap import make_engine
from jobs.log_states import LogStates
from jobs.model import JobType, LogChunk, Status, Stream, Submission
from jobs.service import Service
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases, Outcome
from jobs.store.log_writer import LogWriter
from jobs.store.logs import Logs, LogState
from support.logs import append
from support.server import RunningServer
from support.stores import claim
from support.waiting import eventually

pytestmark = pytest.mark.slow


@contextmanager
def following(server: RunningServer, job_id: str, *, token: str | None = None) -> Iterator[requests.Response]:
    """A connection of its own, on which the log comes."""
    headers = {"Accept": "text/plain", "Authorization": f"Bearer {token or server.token}"}
    url = f"{server.url}/api/jobs/{job_id}/log?follow=true"
    with requests.Session() as session, session.get(url, headers=headers, stream=True, timeout=30) as answer:
        yield answer


def peers(server: RunningServer) -> set[int]:
    """The ports of all whose connection the server holds, whether they are still there or not."""
    (api,) = server.part("api").children()
    return {line.raddr.port for line in psutil.Process(api.pid).net_connections() if line.raddr}


def come_and_go(server: RunningServer, job_id: str) -> None:
    """Follow a silent job, leave it, and see that the server lets go although nothing more is said."""
    headers = {"Accept": "text/plain", "Authorization": f"Bearer {server.token}"}
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)) as connection:
        connection.request("GET", f"/api/jobs/{job_id}/log?follow=true", headers=headers)
        port = connection.sock.getsockname()[1]
        with connection.getresponse() as answer:
            assert answer.readline() == b"begun\n"
            # Asked again, because the system's list may miss one while others come and go.
            eventually(lambda: port in peers(server), "the server holds the connection")
    eventually(lambda: port not in peers(server), "the server lets go")


def test_follower_that_leaves_a_silent_job_is_released(server: RunningServer) -> None:
    job_id = server.shell("echo begun; exec sleep 60")
    come_and_go(server, job_id)
    assert server.job(job_id)["status"] == "running"
    server.call("POST", f"/jobs/{job_id}/cancel")
    server.wait(job_id)


def test_a_follower_of_a_silent_job_stays(server: RunningServer, tmp_path: Path) -> None:
    job_id = server.shell(f"echo begun; while ! [ -e {tmp_path}/go ]; do sleep 0.02; done; echo end")
    try:
        with following(server, job_id) as answer:
            pieces = answer.iter_content(None)
            assert next(pieces) == b"begun\n"
            come_and_go(server, job_id)  # so the silence was long enough to be looked at
            (tmp_path / "go").touch()
            assert b"".join(pieces) == b"end\n"
    finally:
        (tmp_path / "go").touch()  # whatever was seen: other tests need the slot
    server.wait(job_id)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_follower_of_a_silent_job_is_answered_at_once(server: RunningServer, version: str) -> None:
    job_id = server.shell("exec sleep 60")
    place = urlsplit(server.url)
    head = f"GET /api/jobs/{job_id}/log?follow=true HTTP/{version}\r\nHost: {place.netloc}\r\nAccept: text/plain\r\n"
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(f"{head}Authorization: Bearer {server.token}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers.get_content_type()) == (200, "text/plain")
        assert server.job(job_id)["log"]["lines"] == 0
        server.call("POST", f"/jobs/{job_id}/cancel")
        assert answer.read() == b""
    server.wait(job_id)


def test_a_follower_of_a_silent_job_ends_with_its_token(server: RunningServer) -> None:
    made = server.call("POST", "/tokens", json={"name": "follower", "scopes": ["jobs:read"]}).json()
    job_id = server.shell("echo begun; exec sleep 60")
    with following(server, job_id, token=made["token"]) as answer:
        pieces = answer.iter_content(None)
        assert next(pieces) == b"begun\n"
        assert server.call("DELETE", f"/tokens/{made['id']}").status_code == 204
        assert b"[runcast: " in b"".join(pieces)
    server.call("POST", f"/jobs/{job_id}/cancel")
    server.wait(job_id)


class CountingLogs(Logs):
    def __init__(self, database: OwnedDatabase) -> None:
        super().__init__(database)
        self.asked = 0

    def states(self, job_ids: Sequence[str]) -> dict[str, LogState]:
        self.asked += 1
        return super().states(job_ids)

    def chunks(self, job_id: str, *, after_seq: int = 0, max_bytes: int = 1 << 20, stream: Stream | None = None) -> list[LogChunk]:
        self.asked += 1
        return super().chunks(job_id, after_seq=after_seq, max_bytes=max_bytes, stream=stream)


class Busy:
    """A store in which other jobs say something all the time, `count` times; then `at_last` happens."""

    def __init__(self, count: int, at_last: Outcome, *, leases: Leases) -> None:
        self.version = 0
        self._count = count
        self._at_last = at_last
        self._leases = leases
        store = Store(leases.database, make_engine(leases.database.url))
        for _ in range(2):
            store.submit(NewJob(Submission(JobType.TASK, {"task": "x"}), "default", None, None, "tester"), max_pending=9)
        self.followed, busy = claim(leases.database, worker_id="w", host="here", queues=["default"], slots=2)
        for lease in (self.followed, busy):
            leases.take(lease, supervisor={})
        self._writers = {lease: LogWriter(lease, cap=1 << 20) for lease in (self.followed, busy)}
        self._busy = busy

    def wait(self, seen: int, timeout: float) -> None:
        self.version += 1
        if self.version < self._count:
            self._write(self._writers[self._busy])
        elif self.version == self._count:
            self._write(self._writers[self.followed])
        else:
            self._leases.end(self.followed, self._at_last)

    def _write(self, writer: LogWriter) -> None:
        append(self._leases.database, writer, b"x\n")


def test_followers_share_one_look_at_other_jobs(database: OwnedDatabase) -> None:
    changes = Busy(50, Outcome(Status.COMPLETED, "a test"), leases=Leases(database, make_engine(database.url)))
    logs = CountingLogs(database)
    shared = LogStates(logs)
    with shared.job(changes.followed.job_id), shared.job("another"):
        for version in range(10):
            for _ in range(20):  # as many followers look at each change
                assert shared.state(changes.followed.job_id, version=version).lines == 0
    assert logs.asked == 10


def test_a_follower_reads_only_its_own_log(database: OwnedDatabase) -> None:
    changes = Busy(50, Outcome(Status.COMPLETED, "a test"), leases=Leases(database, make_engine(database.url)))
    logs = CountingLogs(database)
    service = Service(Store(database, make_engine(database.url)), logs, None, None, changes)  # type: ignore[arg-type]  # nothing is submitted
    assert b"".join(service.raw_log(changes.followed.job_id, after_seq=0, tail=None, stream=None, follow=True)) == b"x\n"
    # A look at each change, one for the first answer, and a single read of lines.
    assert logs.asked <= changes.version + 3
