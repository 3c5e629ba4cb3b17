"""Following a job: every log line passes once and in order, and a subscription that brings nothing more ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from handlers.cli.client import Client, Refused, Unreachable
from handlers.cli.follow import Event, _Connection, _ConnectionLost, _Lines, follow


def log(first_seq: int, *lines: str) -> Event:
    return Event("log", {"job_id": "j", "first_seq": first_seq, "at": "", "stream": "stdout", "lines": list(lines)})


def passed(events: list[Event], *, after_seq: int = 0) -> list[tuple[str, object]]:
    lines = _Lines(after_seq)
    out = [event for given in events for event in lines.take(given)]
    return [(event.name, (event.data["first_seq"], event.data.get("lines", event.data.get("last_seq")))) for event in out]


def test_lines_that_were_seen_are_not_repeated() -> None:
    assert passed([log(1, "a", "b"), log(1, "a", "b", "c"), log(2, "b")]) == [("log", (1, ["a", "b"])), ("log", (3, ["c"]))]


def test_the_first_line_follows_the_last_line_seen() -> None:
    assert passed([log(1, "a", "b", "c")], after_seq=2) == [("log", (3, ["c"]))]


def test_missing_lines_are_reported_as_a_gap() -> None:
    assert passed([log(1, "a"), log(5, "e")]) == [("log", (1, ["a"])), ("gap", (2, 4)), ("log", (5, ["e"]))]


def test_missing_lines_at_the_end_are_reported_as_a_gap() -> None:
    complete = Event("complete", {"job_id": "j", "log_lines": 3})
    lines = _Lines(0)
    assert [event.name for given in (log(1, "a"), complete) for event in lines.take(given)] == ["log", "gap", "complete"]
    assert list(_Lines(3).take(complete)) == [complete]


def test_other_events_pass_unchanged() -> None:
    tick = Event("tick")
    assert list(_Lines(0).take(tick)) == [tick]


# -- the end of following -------------------------------------------------------------------------------------------------


class Connections:
    """Scripted events for each connection of a follower; the last script repeats. Each connection is lost at its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *connections: list[Event]) -> None:
        self._connections = list(connections)
        monkeypatch.setattr("handlers.cli.follow._watch", self._watch)
        monkeypatch.setattr("handlers.cli.follow.TICK_SECONDS", 0.001)

    def _watch(self, client: Client, job_id: str, *, after_seq: int) -> Iterator[Event]:
        yield from self._connections.pop(0) if len(self._connections) > 1 else self._connections[0]
        raise _ConnectionLost


def subscribed(status: str) -> Event:
    return Event("subscribed", {"job": {"status": status}})


def error(job_id: str | None, kind: str) -> Event:
    problem = {"type": f"urn:runcast:problem:{kind}", "title": kind, "status": 500, "detail": f"It is {kind}."}
    return Event("error", {"job_id": job_id, "problem": problem})


@pytest.mark.parametrize("kind", ["job-not-found", "internal-error"])
def test_an_ended_subscription_ends_following_with_the_reason(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    Connections(monkeypatch, [subscribed("completed"), log(1, "a"), error("j", kind)])
    events = follow(Client("http://localhost"), "j")
    with pytest.raises(Refused, match=kind):
        list(events)


def test_a_failed_job_or_a_problem_of_no_job_does_not_end_following(monkeypatch: pytest.MonkeyPatch) -> None:
    complete = Event("complete", {"job_id": "j", "log_lines": 0})
    Connections(monkeypatch, [subscribed("running"), error(None, "rate-limited"), error("j", "job-failed"), complete])
    assert list(follow(Client("http://localhost"), "j"))[-1] == complete


def test_following_a_silent_ended_job_stops_after_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    Connections(monkeypatch, [subscribed("running")], [subscribed("completed")])
    with pytest.raises(Unreachable):
        list(follow(Client("http://localhost"), "j", reconnect_timeout=0.02))


# -- interrupts -----------------------------------------------------------------------------------------------------------


def test_an_interrupt_while_a_connection_closes_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = threading.Event()

    def close_as_websocket_client_does() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.wait(10)
        except BaseException:
            pass

    connection = _Connection(Client("http://localhost"))
    monkeypatch.setattr(connection._socket, "shutdown", close_as_websocket_client_does)
    with pytest.raises(KeyboardInterrupt):
        connection.close()
    interrupted.set()
