"""Faults that were found by reading the code, each held by what would show it again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from handlers.auth import Gate
from jobs.database import Database
from jobs.errors import OriginRefused
from jobs.store import Store
from support.server import RunningServer


@pytest.mark.parametrize("origin", ["http://[", "http://a]b", "null", "", "localhost:8000", "http://localhost:8000@evil.example"])
def test_whatever_an_origin_looks_like_it_is_refused_and_nothing_breaks(origin: str) -> None:
    with pytest.raises(OriginRefused):
        Gate(hosts=["localhost"], origins=["https://jobs.example.com"]).check(host="localhost:8000", origin=origin)


def test_stopping_cancels_the_jobs_even_when_the_dispatcher_was_just_killed(make_server: Callable[..., RunningServer]) -> None:
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
    store = Store(Database(f"sqlite:///{server.folder / 'data' / 'runcast.db'}"))
    job = store.get(job_id)
    store.database.close()
    assert (job.status, job.reason) == ("cancelled", "server_shutdown")
