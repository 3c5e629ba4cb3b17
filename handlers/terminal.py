"""What a person sees: tables of jobs, one job in full, and a job's live log under a progress bar.

Log lines and answers go to standard output, everything said about them to standard error. It draws what it is given and calls no server.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from handlers.follow import Event
from jobs.model import Json, Status

EXIT_CODES: Mapping[str, int] = {Status.COMPLETED: 0, Status.FAILED: 1, Status.CANCELLED: 130}
"""A job's result as the result of the command that followed it."""

STYLES: Mapping[str, str] = {
    Status.PENDING: "yellow",
    Status.RUNNING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}
WAITS: Mapping[str, str] = {
    "slot": "for a free slot",
    "concurrency_key": "for another job with the same key",
    "worker": "for a worker of its queue; none is alive",
}
WIDE = 120
"""Columns from which whole ids are shown; below it, their last group, which commands take as well."""
WIDTH_OF_FILES = 400
"""A file or a pipe has no width, and nothing is cut for it."""


def output() -> Console:
    """The console of standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_OF_FILES)


def say(message: str) -> None:
    """A line for the person, apart from the output."""
    print(message, file=sys.stderr, flush=True)


def print_json(document: Json) -> None:
    print(json.dumps(document, ensure_ascii=False), flush=True)


class View(Protocol):
    """Shows a job's events as they come."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
    def show(self, event: Event) -> None: ...


def view_for(*, as_json: bool, stream: str | None = None) -> View:
    """JSON lines if asked for, a live display on a terminal, and plain lines anywhere else."""
    if as_json:
        return JsonLines()
    console = output()
    return LiveLog(console, stream=stream) if console.is_interactive else PlainLog(stream=stream)


def watch(events: Generator[Event, None, None], view: View) -> int:
    """Shows the events until the job has ended; the exit code that says how it did."""
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
            say(line)
    return EXIT_CODES[end["status"]]


def ending(end: Mapping[str, Json], *, problem: Mapping[str, Json]) -> list[str]:
    """How the job ended, in words: what `complete` said, and the problem of one that failed."""
    took = f" after {duration(end['duration_seconds'])}" if end["duration_seconds"] is not None else ""
    why = problem.get("detail") or (str(end["reason"]).replace("_", " ") if end["reason"] else "")
    lines = [f"Job {end['job_id']} {end['status']}{took}" + (f": {why}" if why else "")]
    if end["result"]:
        lines.append(f"Result: {json.dumps(end['result'], ensure_ascii=False)}")
    return lines


class JsonLines(AbstractContextManager["JsonLines"]):
    """One event of the contract a line."""

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: Event) -> None:
        if event.name not in ("tick", "lost"):
            print_json({"event": event.name, **event.data})


class PlainLog(AbstractContextManager["PlainLog"]):
    """Log lines as the job wrote them, and what else happens on standard error."""

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
            say(f"Job {data['job_id']} is running.")
        elif remark := _remark(event):
            say(remark)


def _remark(event: Event) -> str | None:
    """What interrupts a log, in words."""
    if event.name == "gap":
        return f"(Lines {event.data['first_seq']} to {event.data['last_seq']} are gone: the log is over its cap.)"
    if event.name == "lost":
        return "(The connection was lost; trying again.)"
    return None


class LiveLog(AbstractContextManager["LiveLog"]):
    """The log as it comes, above a bar that says how far the job is."""

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
        self._task = self._bar.add_task("", total=None, message="")
        self._what = ""

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
                self._show_progress(None, None)  # what it waited for is no longer true, nor how far an attempt before came
        elif event.name == "subscribed":
            self._show_job(data["job"])
        elif remark := _remark(event):
            self._console.print(f"[yellow]{escape(remark)}[/]")

    def _show_job(self, job: Mapping[str, Json]) -> None:
        waits = WAITS.get(job["waiting_for"] or "")
        self._what = what(job)
        self._describe(job["status"])
        self._show_progress(job["progress"]["percent"], f"waits {waits}" if waits else job["progress"]["message"])

    def _describe(self, status: str) -> None:
        self._bar.update(self._task, description=f"[bold]{escape(self._what)}[/] [{STYLES[status]}]{status}[/]")

    def _show_progress(self, percent: float | None, message: str | None) -> None:
        total = None if percent is None else 100
        self._bar.update(self._task, total=total, completed=percent or 0, message=_one_line(message))


def _one_line(message: str | None) -> str:
    return escape(" ".join((message or "").split())[:200])


def _printable(lines: Sequence[str]) -> Text:
    """Lines with their colours, but without whatever else a job may send to a terminal."""
    text = "\n".join(lines)
    return Text.from_ansi(text) if "\x1b" in text else Text(text)


def what(job: Mapping[str, Json]) -> str:
    """What a job does, in a word or two."""
    params = job["params"]
    subject = params.get("task") or params.get("app") or params.get("name") or params.get("project") or ""
    return f"{job['type']} {subject}".strip()


def table_of_jobs(jobs: Sequence[Mapping[str, Json]], *, console: Console) -> Table:
    """One line a job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("JOB", "STATUS", "WHAT", "PROGRESS", "CREATED", "TOOK"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", justify="right" if heading in ("PROGRESS", "TOOK") else "left")
    for job in jobs:
        job_id = job["id"] if console.width >= WIDE else job["id"].rpartition("-")[2]
        status = Text(job["status"], style=STYLES[job["status"]])
        table.add_row(job_id, status, Text(what(job)), _percent(job), age(job["created_at"]), _took(job))
    return table


def table_of_job(job: Mapping[str, Json], *, history: Sequence[Mapping[str, Json]]) -> Table:
    """Everything that is known of one job, and how it came about."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(job):
        table.add_row(name, Text(value, style=STYLES.get(value, "") if name == "status" else ""))
    table.add_row()
    for event in history:
        table.add_row(local_time(event["at"]), Text(f"{event['status']}: {event['cause']}"))
    return table


def _facts(job: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Name and value of what is not null, in the order of the contract."""
    facts: list[tuple[str, str]] = []
    for name, value in job.items():
        if name.endswith("_at") and value:
            facts.append((name, local_time(value)))
        elif name == "progress":
            facts += [("progress", f"{_percent(job)} {value['message'] or ''}".strip())] if value["percent"] is not None else []
        elif name == "error" and value:
            facts.append(("error", value["detail"]))
        elif value not in (None, [], {}):
            facts.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return facts


def _percent(job: Mapping[str, Json]) -> str:
    percent = job["progress"]["percent"]
    return "" if percent is None else f"{percent:.0f}%"


def _took(job: Mapping[str, Json]) -> str:
    if not job["started_at"]:
        return ""
    end = datetime.fromisoformat(job["ended_at"]) if job["ended_at"] else datetime.now(UTC)
    return duration(max(0.0, (end - datetime.fromisoformat(job["started_at"])).total_seconds()))


def local_time(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().isoformat(" ", "milliseconds")


def age(at: str) -> str:
    """How long ago, roughly."""
    return f"{duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()), rough=True)} ago"


def duration(seconds: float, *, rough: bool = False) -> str:
    """`0.42 s`, `12.3 s`, `3 min 7 s`, `2 h 5 min`; only the first part, and whole seconds, when rough."""
    if seconds < 60:
        return f"{seconds:.0f} s" if rough else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d", f"{hours} h"] if days else [f"{hours} h", f"{minutes} min"] if hours else [f"{minutes} min", f"{rest} s"]
    return parts[0] if rough else " ".join(parts)
