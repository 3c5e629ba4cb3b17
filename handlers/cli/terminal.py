"""How answers look to a person: tables of jobs and tokens, all details of one job, durations in words.

Answers go to standard output, notes about them to standard error. This module formats what it is given and calls no server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.model import Json, Status

STYLES: Mapping[str, str] = {
    Status.PENDING: "yellow",
    Status.RUNNING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
WIDE = 120
"""Terminals of at least this many columns show whole ids; narrower ones show their last group, which commands accept as well."""
WIDTH_OF_FILES = 400
"""Files and pipes have no width; nothing is cut for them."""


def output() -> Console:
    """The console of standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_OF_FILES)


def print_note(message: str, *, colour: str | None = None) -> None:
    """A line for the user on standard error, apart from the output. It is coloured only on a terminal."""
    click.secho(escape_controls(message), fg=colour, err=True)


def escape_controls(text: str) -> str:
    """A text from elsewhere, with control characters and changes of writing direction escaped, so that a terminal does not obey them."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text)


def print_json(document: Json) -> None:
    # JSON itself escapes the other control characters.
    text = json.dumps(document, ensure_ascii=False)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)


def job_title(job: Mapping[str, Json]) -> str:
    """A job's type and its subject, such as `task lint`."""
    params = job["params"]
    subject = params.get("task") or params.get("app") or params.get("name") or params.get("project") or ""
    return f"{job['type']} {subject}".strip()


def table_of_jobs(jobs: Sequence[Mapping[str, Json]], *, console: Console) -> Table:
    """One row per job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("JOB", "STATUS", "TYPE", "PROGRESS", "CREATED", "DURATION"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", justify="right" if heading in ("PROGRESS", "DURATION") else "left")
    for job in jobs:
        job_id = job["id"] if console.width >= WIDE else job["id"].rpartition("-")[2]
        status = Text(job["status"], style=STYLES[job["status"]])
        table.add_row(job_id, status, Text(escape_controls(job_title(job))), _percent(job), age(job["created_at"]), _job_duration(job))
    return table


def table_of_tokens(tokens: Sequence[Mapping[str, Json]]) -> Table:
    """One row per token."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAME", "SCOPES", "CREATED", "EXPIRES", "ID"):
        table.add_column(heading, no_wrap=True)
    for token in tokens:
        end = token["expires_at"]
        ended = end and datetime.fromisoformat(end) <= datetime.now(UTC)
        when = Text("expired", style="red") if ended else Text(local_time(end) if end else "never")
        table.add_row(Text(escape_controls(token["name"])), Text(" ".join(token["scopes"])), age(token["created_at"]), when, token["id"])
    return table


def table_of_job(job: Mapping[str, Json], *, history: Sequence[Mapping[str, Json]]) -> Table:
    """All details of one job, then its history."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(job):
        table.add_row(name, Text(escape_controls(value), style=STYLES.get(value, "") if name == "status" else ""))
    table.add_row()
    for event in history:
        table.add_row(local_time(event["at"]), Text(escape_controls(f"{event['status']}: {event['cause']}")))
    return table


def _facts(job: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Name and value of each property that is not empty, in the order of the contract."""
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


def _job_duration(job: Mapping[str, Json]) -> str:
    if not job["started_at"]:
        return ""
    end = datetime.fromisoformat(job["ended_at"]) if job["ended_at"] else datetime.now(UTC)
    return duration(max(0.0, (end - datetime.fromisoformat(job["started_at"])).total_seconds()))


def local_time(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().isoformat(" ", "milliseconds")


def age(at: str) -> str:
    """A rough age, such as `3 min ago`."""
    return f"{duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()), rough=True)} ago"


def duration(seconds: float, *, rough: bool = False) -> str:
    """`0.42 s`, `12.3 s`, `3 min 7 s`, `2 h 5 min`. When `rough`: only the first part, and whole seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s" if rough else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d", f"{hours} h"] if days else [f"{hours} h", f"{minutes} min"] if hours else [f"{minutes} min", f"{rest} s"]
    return parts[0] if rough else " ".join(parts)
