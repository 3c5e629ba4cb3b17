"""What a person sees."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from handlers.cli.follow import Event
from handlers.cli.live import JsonLines, LiveLog, PlainLog, ending, watch
from handlers.cli.terminal import duration, table_of_job, table_of_jobs

JOB = {
    "id": "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11",
    "type": "build",
    "params": {"project": "demo", "config": "release"},
    "status": "running",
    "reason": None,
    "waiting_for": None,
    "progress": {"percent": 25, "message": "Compiling [bold]x"},
    "labels": ["nightly"],
    "created_at": "2026-11-23T09:00:00.000Z",
    "started_at": "2026-11-23T09:00:01.000Z",
    "ended_at": "2026-11-23T09:00:03.500Z",
}
END = {
    "job_id": JOB["id"],
    "status": "failed",
    "reason": "exit_code",
    "exit_code": 2,
    "duration_seconds": 2.5,
    "log_lines": 2,
    "result": None,
}
EVENTS = [
    Event("subscribed", {"job": JOB}),
    Event("log", {"job_id": JOB["id"], "first_seq": 1, "at": "", "stream": "stdout", "lines": ["\x1b[31mred\x1b[0m", "[bold]plain[/]"]}),
    Event("tick"),
    Event("lost"),
    Event("gap", {"first_seq": 3, "last_seq": 9}),
    Event("log", {"job_id": JOB["id"], "first_seq": 10, "at": "", "stream": "stderr", "lines": ["\x1b]52;c;ZXZpbA==\x07late"]}),
    Event("progress", {"job_id": JOB["id"], "percent": 50, "message": "half\nway", "at": ""}),
    Event("status", {"job_id": JOB["id"], "status": "failed", "previous": "running", "reason": "exit_code", "at": ""}),
    Event("error", {"job_id": JOB["id"], "problem": {"title": "Job failed", "detail": "The command exited with 2."}}),
    Event("complete", END),
]


def terminal() -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=True, width=100, color_system="standard", legacy_windows=False), screen


def test_a_plain_log_is_only_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch((event for event in EVENTS), PlainLog()) == 1
    said = capsys.readouterr()
    assert said.out == "\x1b[31mred\x1b[0m\n[bold]plain[/]\n\x1b]52;c;ZXZpbA==\x07late\n"
    assert "Lines 3 to 9 were dropped" in said.err
    assert "connection was lost" in said.err
    assert f"Job {JOB['id']} failed after 2.50 s: The command exited with 2." in said.err


def test_a_log_can_be_limited_to_one_stream(capsys: pytest.CaptureFixture[str]) -> None:
    watch((event for event in EVENTS), PlainLog(stream="stdout"))
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n[bold]plain[/]\n"


def test_json_lines_are_the_events_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch((event for event in EVENTS), JsonLines()) == 1
    said = capsys.readouterr()
    documents = [json.loads(line) for line in said.out.splitlines()]
    assert [document["event"] for document in documents] == ["subscribed", "log", "gap", "log", "progress", "status", "error", "complete"]
    assert documents[-1] == {"event": "complete", **END}
    assert said.err == ""


def test_a_terminal_gets_colours_and_a_bar_but_no_control_sequences() -> None:
    console, screen = terminal()
    watch((event for event in EVENTS), LiveLog(console))
    drawn = screen.getvalue()
    assert "\x1b[31mred" in drawn
    assert "[bold]plain[/]" in drawn
    assert "late" in drawn
    assert "\x1b]52" not in drawn
    assert "50%" in drawn
    assert "half way" in drawn


def test_the_end_of_a_job_is_shown_with_its_reason() -> None:
    assert ending({**END, "duration_seconds": None, "reason": "timeout"}, problem={}) == [f"Job {JOB['id']} failed: timeout"]
    result = ending({**END, "status": "completed", "reason": None, "result": {"url": "http://x/"}}, problem={})
    assert result == [f"Job {JOB['id']} completed after 2.50 s", 'Result: {"url": "http://x/"}']


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.42 s"), (12.34, "12.3 s"), (187, "3 min 7 s"), (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_readable(seconds: float, words: str) -> None:
    assert duration(seconds) == words
    assert duration(seconds, rough=True).split()[0] == words.split()[0].partition(".")[0]


def test_narrow_tables_show_the_part_of_an_id_that_commands_accept() -> None:
    narrow, wide = (Console(file=io.StringIO(), width=width, record=True) for width in (80, 140))
    for console in (narrow, wide):
        console.print(table_of_jobs([JOB], console=console))
    assert "0f6a7d3b9e11  running  build demo" in narrow.export_text()
    assert wide.export_text().splitlines()[1].split()[:5] == [JOB["id"], "running", "build", "demo", "25%"]


def test_the_details_of_one_job() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)
    history = [{"at": JOB["created_at"], "status": "pending", "cause": "submitted by admin"}]
    console.print(table_of_job(JOB, history=history))
    text = console.export_text()
    assert "25% Compiling [bold]x" in text
    assert '["nightly"]' in text
    assert "pending: submitted by admin" in text
