"""Every log line passes once and in order, whatever the connections bring."""

from __future__ import annotations

from handlers.follow import Event, _Lines


def log(first_seq: int, *lines: str) -> Event:
    return Event("log", {"job_id": "j", "first_seq": first_seq, "at": "", "stream": "stdout", "lines": list(lines)})


def passed(events: list[Event], *, after_seq: int = 0) -> list[tuple[str, object]]:
    lines = _Lines(after_seq)
    out = [event for given in events for event in lines.take(given)]
    return [(event.name, (event.data["first_seq"], event.data.get("lines", event.data.get("last_seq")))) for event in out]


def test_lines_that_were_seen_are_left_out() -> None:
    assert passed([log(1, "a", "b"), log(1, "a", "b", "c"), log(2, "b")]) == [("log", (1, ["a", "b"])), ("log", (3, ["c"]))]


def test_the_first_line_is_the_one_after_what_was_seen_before() -> None:
    assert passed([log(1, "a", "b", "c")], after_seq=2) == [("log", (3, ["c"]))]


def test_a_hole_is_named() -> None:
    assert passed([log(1, "a"), log(5, "e")]) == [("log", (1, ["a"])), ("gap", (2, 4)), ("log", (5, ["e"]))]


def test_other_events_pass_as_they_are() -> None:
    tick = Event("tick")
    assert list(_Lines(0).take(tick)) == [tick]
