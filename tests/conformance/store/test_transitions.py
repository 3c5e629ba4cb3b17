"""Transitions: only the legal ones happen, each with its row of the history in the same transaction."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import pytest
from sqlalchemy import Connection

from jobs.model import ENDED, TRANSITIONS, Reason, Status
from jobs.store.transitions import transition
from support.stores import StoreHarness


@pytest.mark.parametrize(("source", "target"), list(product(Status, Status)))
def test_every_transition(harness: StoreHarness, source: Status, target: Status) -> None:
    job_id = harness.submit()
    harness.set(job_id, status=source, attempt=1)
    before = harness.row(job_id), harness.store.events(job_id)

    def move(connection: Connection) -> bool:
        return transition(connection, job_id, target, scheduler=harness.engine, cause="a test", reason=Reason.TIMEOUT, exit_code=7)

    moved = harness.database.write(move)
    assert moved == (target in TRANSITIONS[source])
    if not moved:
        assert (harness.row(job_id), harness.store.events(job_id)) == before, "an illegal one changes nothing"
        return
    job = harness.store.get(job_id)
    assert (job.status, job.reason, job.exit_code) == (target, Reason.TIMEOUT, 7)
    event = harness.store.events(job_id)[-1]
    assert (event.previous, event.status, event.reason, event.attempt, event.cause) == (source, target, Reason.TIMEOUT, 1, "a test")


def test_a_transition_that_fails_halfway_leaves_no_trace(harness: StoreHarness) -> None:
    job_id = harness.submit()

    def work(connection: Connection) -> None:
        assert transition(connection, job_id, Status.CANCELLED, scheduler=harness.engine, cause="a test")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        harness.database.write(work)
    assert harness.store.get(job_id).status is Status.PENDING
    assert len(harness.store.events(job_id)) == 1


def test_the_history_has_every_status_change(harness: StoreHarness) -> None:
    job_id = harness.ended()
    events = harness.store.events(job_id)
    assert [(event.previous, event.status) for event in events] == [
        (None, Status.PENDING),
        (Status.PENDING, Status.RUNNING),
        (Status.RUNNING, Status.COMPLETED),
    ]
    assert [event.cause for event in events] == ["submitted by tester", "claimed by worker w", "exited with code 0"]
    assert harness.store.events_after(events[0].cursor) == events[1:]
    assert harness.store.last_event() == events[-1].cursor


def test_every_ended_status_is_final() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == ENDED
