"""Shows a job's events as they arrive: the log above a progress bar on a terminal, plain lines elsewhere, JSON lines on request.

Log lines go to standard output, notes about them to standard error. This module shows what it is given and calls no server.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from handlers.cli.terminal import STYLES, duration, job_title, output, print_json, print_note
from jobs.model import Json, Status

if TYPE_CHECKING:
    from handlers.cli.follow import Event

EXIT_CODES: Mapping[str, int] = {Status.COMPLETED: 0, Status.FAILED: 1, Status.CANCELLED: 130}
"""Exit code of a command that followed a job, by the job's final status."""

WAIT_REASONS: Mapping[str, str] = {
    "slot": "waiting for a free slot",
    "concurrency_key": "waiting for another job with the same key",
    "worker": "waiting for a worker of its queue; none is alive",
}


class View(Protocol):
    """Shows a job's events as they arrive."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
    def show(self, event: Event) -> None: ...


def view_for(*, as_json: bool = False, stream: str | None = None, console: Console | None = None) -> View:
    """JSON lines on request, a live display on a terminal, and plain lines anywhere else.

    While a live display is active, other output must be printed on the same console.
    """
    if as_json:
        return JsonLines()
    console = console or output()
    return LiveLog(console, stream=stream) if console.is_interactive else PlainLog(stream=stream)


def watch(events: Generator[Event, None, None], view: View) -> int:
    """Shows the events until the job has ended. Returns the exit code for its final status."""
    end: Mapping[str, Json] = {}
    problem: Mapping[str, Json] = {}
    with view, closing(events):
        for event in events:
            view.show(event)
            if event.name == "error":
                problem = event.data["problem"]
            elif event.name == "complete":
                end = event.data
    if not isinstance(view, JsonLines):
        for line in ending(end, problem=problem):
            print_note(line, colour=STYLES[end["status"]])
    return EXIT_CODES[end["status"]]


def ending(end: Mapping[str, Json], *, problem: Mapping[str, Json]) -> list[str]:
    """How the job ended, in words, from the event `complete` and the problem of a failed job."""
    took = f" after {duration(end['duration_seconds'])}" if end["duration_seconds"] is not None else ""
    cause = problem.get("detail") or (str(end["reason"]).replace("_", " ") if end["reason"] else "")
    lines = [f"Job {end['job_id']} {end['status']}{took}" + (f": {cause}" if cause else "")]
    if end["result"]:
        lines.append(f"Result: {json.dumps(end['result'], ensure_ascii=False)}")
    return lines


class JsonLines(AbstractContextManager["JsonLines"]):
    """One line per event of the contract."""

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: Event) -> None:
        if event.name not in ("tick", "lost"):
            print_json({"event": event.name, **event.data})


class PlainLog(AbstractContextManager["PlainLog"]):
    """Log lines as the job wrote them, and notes about other events on standard error."""

    def __init__(self, *, stream: str | None = None) -> None:
        self._stream = stream

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: Event) -> None:
        data = event.data
        if event.name == "log":
            if self._stream in (None, data["stream"]):
                sys.stdout.write("".join(f"{line}\n" for line in data["lines"]))
                sys.stdout.flush()
        elif event.name == "status" and data["status"] == Status.RUNNING:
            print_note(f"Job {data['job_id']} is running.")
        elif note := _note(event):
            print_note(note)


def _note(event: Event) -> str | None:
    """An interruption of the log, in words."""
    if event.name == "gap":
        return f"(Lines {event.data['first_seq']} to {event.data['last_seq']} were dropped: the log exceeded its cap.)"
    if event.name == "lost":
        return "(The connection was lost; reconnecting.)"
    return None


class LiveLog(AbstractContextManager["LiveLog"]):
    """The log as it arrives, above a progress bar."""

    def __init__(self, console: Console, *, stream: str | None = None) -> None:
        self._console = console
        self._stream = stream
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(text_format="{task.percentage:>3.0f}%", text_format_no_percentage=""),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._task = self._bar.add_task("connecting", total=None, message="")
        self._title = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        data = event.data
        if event.name == "log":
            if self._stream in (None, data["stream"]):
                self._console.print(_printable(data["lines"]), soft_wrap=True)
        elif event.name == "progress":
            self._show_progress(data["percent"], data["message"])
        elif event.name == "status":
            self._describe(data["status"])
            if data["status"] == Status.RUNNING:
                self._show_progress(None, None)  # clears why the job waited, and the progress of an earlier attempt
        elif event.name == "subscribed":
            self._show_job(data["job"])
        elif note := _note(event):
            self._console.print(f"[yellow]{escape(note)}[/]")

    def _show_job(self, job: Mapping[str, Json]) -> None:
        wait_reason = WAIT_REASONS.get(job["waiting_for"] or "")
        self._title = job_title(job)
        self._describe(job["status"])
        self._show_progress(job["progress"]["percent"], wait_reason or job["progress"]["message"])

    def _describe(self, status: str) -> None:
        self._bar.update(self._task, description=f"[bold]{escape(self._title)}[/] [{STYLES[status]}]{status}[/]")

    def _show_progress(self, percent: float | None, message: str | None) -> None:
        total = None if percent is None else 100
        self._bar.update(self._task, total=total, completed=percent or 0, message=_one_line(message))


def _one_line(message: str | None) -> str:
    return escape(" ".join((message or "").split())[:200])


def _printable(lines: Sequence[str]) -> Text:
    """Lines with their colours, but without other control sequences that a job may have printed."""
    text = "\n".join(lines)
    return Text.from_ansi(text) if "\x1b" in text else Text(text)
