"""The commands that submit, show and end jobs. Each is a call or two of the HTTP contract, and what it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from handlers.cli.connection import INTERRUPTED, MISUSED, REFUSED, Access, client_command, print_error, print_problem
from handlers.cli.options import Command, HeaderWord, read_object, read_time, split_pairs, typed
from jobs.model import JobType, Json, Status, Stream

if TYPE_CHECKING:
    from handlers.cli.client import Client

JOB_SYNTAX = "A JOB is an id, at least 4 characters of the beginning or end of one, or `last`."

job_argument: Callable[[Command], Command] = click.argument("job", metavar="JOB")
jobs_argument: Callable[[Command], Command] = click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
follow_option: Callable[[Command], Command] = click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Show the live log until the job ends; exit 0 if it completed, 1 if it failed, 130 if it was cancelled.",
)


@click.command()
@click.argument("job_type", metavar="TYPE", type=click.Choice([str(job_type) for job_type in JobType]))
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@follow_option
@click.option("--params", "params_json", metavar="JSON", help="All params as one JSON object, for values that KEY=VALUE cannot express.")
@click.option("--priority", type=click.IntRange(-10, 10), help="Jobs with a higher priority start first.")
@click.option("--queue", help="Queue of the job; only workers that serve it run the job.")
@click.option("--label", "labels", multiple=True, help="Label to find the job by; may be given several times.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Stop the job after this many seconds; the job then fails with the reason timeout.",
)
@click.option("--max-attempts", type=click.IntRange(1, 10), help="Maximum number of starts when the job's supervisor is lost.")
@click.option("--concurrency-key", help="Jobs with the same key run one at a time.")
@click.option(
    "--idempotency-key", type=HeaderWord(), metavar="KEY", help="Submitting the same job with the same KEY again returns the first job."
)
@client_command
def submit(
    access: Access,
    *,
    job_type: str,
    pairs: tuple[str, ...],
    params_json: str | None,
    idempotency_key: str | None,
    follow: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Submit a job.

    \b
    runcast submit create template=small_editor name=my_company.my_editor
    runcast submit build config=debug clean=true --follow
    runcast submit launch app=my_company.my_editor.kit args='["--title", "Hello"]'
    runcast submit task task=lint path=source

    For a task, every key except `task` is one of its inputs.
    """
    texts = split_pairs(pairs)
    params = read_object(params_json) if params_json else {}
    with access.client() as client:
        params = _params(client, job_type, texts, given=params)
        chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value not in (None, ())}
        job = client.submit({"type": job_type, "params": params, **chosen}, idempotency_key=idempotency_key)
        return _print_submitted(client, job, follow=follow, as_json=as_json)


def _params(client: Client, job_type: str, texts: dict[str, str], *, given: dict[str, Json]) -> dict[str, Json]:
    """The params of a submission. The server's schemas decide which of the texts are strings and which are other JSON values."""
    if not texts:
        return given
    task = texts.pop("task", given.get("task")) if job_type == JobType.TASK else None
    schemas = {(info["type"], info["task"]): info["schema"] for info in client.job_types()} if texts else {}
    values = typed(texts, schemas.get((job_type, task)))
    if job_type != JobType.TASK:
        return {**given, **values}
    inputs = {**given.get("inputs", {}), **values}
    return {**given, **({"task": task} if task else {}), **({"inputs": inputs} if inputs else {})}


def _print_submitted(client: Client, job: Json, *, follow: bool, as_json: bool) -> int:
    """Prints the new job's id, or follows the job."""
    from handlers.cli.terminal import print_json, print_note

    if follow:
        return _follow(client, job["id"], as_json=as_json)
    if as_json:
        print_json(job)
        return 0
    click.echo(job["id"])
    if sys.stdout.isatty():
        print_note("Watch it: runcast logs -f last")
    return 0


def _follow(client: Client, job_id: str, *, as_json: bool, after_seq: int = 0, stream: str | None = None) -> int:
    """Watches the job until it ends. Ctrl-C stops watching; the job goes on, since others may be waiting for it."""
    from handlers.cli.follow import follow
    from handlers.cli.live import view_for, watch
    from handlers.cli.terminal import print_note

    try:
        return watch(follow(client, job_id, after_seq=after_seq), view_for(as_json=as_json, stream=stream))
    except KeyboardInterrupt:
        print_note(f"Stopped watching job {job_id}; the job goes on. To cancel it: runcast cancel {job_id}")
        return INTERRUPTED


@click.command("list")
@click.option("--status", multiple=True, type=click.Choice([str(status) for status in Status]), help="Only jobs in this status.")
@click.option("--type", multiple=True, type=click.Choice([str(job_type) for job_type in JobType]), help="Only jobs of this type.")
@click.option("--project", help="Only jobs of this project.")
@click.option("--label", multiple=True, help="Only jobs with this label; if given several times, with all of them.")
@click.option("--since", metavar="TIME", help="Only jobs created at TIME or later: a time in RFC 3339, or an age such as 90m or 2d.")
@click.option("--until", metavar="TIME", help="Only jobs created before TIME.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Maximum number of jobs to list.")
@client_command
def list_jobs(access: Access, *, limit: int, since: str | None, until: str | None, as_json: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    times = {"since": read_time(since) if since else None, "until": read_time(until) if until else None}
    with access.client() as client:
        jobs = client.jobs(limit=limit, filters={**filters, **times})
    from handlers.cli.terminal import output, print_json, table_of_jobs

    if as_json:
        print_json({"jobs": jobs})
        return
    console = output()
    console.print(table_of_jobs(jobs, console=console))


@click.command(epilog=JOB_SYNTAX)
@job_argument
@client_command
def show(access: Access, *, job: str, as_json: bool) -> None:
    """Show all details of a job, and its history."""
    with access.client() as client:
        job_id = client.find_job(job)
        found, history = client.job(job_id), client.history(job_id)
    from handlers.cli.terminal import output, print_json, table_of_job

    if as_json:
        print_json({**found, "history": history})
        return
    output().print(table_of_job(found, history=history))


@click.command(epilog=JOB_SYNTAX)
@job_argument
@follow_option
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), metavar="LINES", help="Begin with the last LINES lines.")
@click.option("--stream", type=click.Choice([str(stream) for stream in Stream]), help="Only lines that the job wrote to this stream.")
@click.option("--raw", is_flag=True, help="Print the log byte for byte as the job wrote it.")
@client_command
def logs(access: Access, *, job: str, follow: bool, tail: int | None, stream: str | None, raw: bool, as_json: bool) -> int:
    """Print a job's log."""
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    with access.client() as client:
        job_id = client.find_job(job)
        if raw:
            return _raw_log(client, job_id, follow=follow, tail=tail, stream=stream)
        if follow:
            after_seq = _seq_before_tail(client, job_id, tail)
            return _follow(client, job_id, as_json=as_json, after_seq=after_seq, stream=stream)
        for line in client.log_lines(job_id, tail=tail, stream=stream):
            click.echo(json.dumps(line, ensure_ascii=False) if as_json else line["text"])
        return 0


def _seq_before_tail(client: Client, job_id: str, tail: int | None) -> int:
    """The sequence number of the line before the last `tail` lines."""
    if tail is None:
        return 0
    lines = client.log_page(job_id, tail=tail)["lines"]
    return int(lines[0]["seq"]) - 1 if lines else 0


def _raw_log(client: Client, job_id: str, *, follow: bool, tail: int | None, stream: str | None) -> int:
    from handlers.cli.live import EXIT_CODES

    for piece in client.raw_log(job_id, follow=follow, tail=tail, stream=stream):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return EXIT_CODES[client.job(job_id, wait=9)["status"]] if follow else 0


@click.command(epilog=JOB_SYNTAX)
@jobs_argument
@click.option("--force", is_flag=True, help="Kill the job at once, without its grace period.")
@client_command
def cancel(access: Access, *, jobs: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Cancel jobs and end every process that they started."""

    def cancel_one(client: Client, job_id: str) -> tuple[Json, str]:
        job = client.cancel(job_id, force=force)
        return job, "is cancelled" if job["status"] == Status.CANCELLED else "is being cancelled"

    return _each(access, jobs, cancel_one, as_json=as_json)


@click.command(epilog=JOB_SYNTAX)
@job_argument
@follow_option
@client_command
def retry(access: Access, *, job: str, follow: bool, as_json: bool) -> int:
    """Submit a job that has ended again, as a new job."""
    with access.client() as client:
        return _print_submitted(client, client.retry(client.find_job(job)), follow=follow, as_json=as_json)


@click.command(epilog=JOB_SYNTAX)
@jobs_argument
@client_command
def delete(access: Access, *, jobs: tuple[str, ...], as_json: bool) -> int:
    """Delete jobs and their logs; active jobs are cancelled first."""

    def delete_one(client: Client, job_id: str) -> tuple[Json, str]:
        client.delete(job_id)
        return {"id": job_id, "deleted": True}, "is deleted"

    return _each(access, jobs, delete_one, as_json=as_json)


def _each(access: Access, jobs: tuple[str, ...], act: Callable[[Client, str], tuple[Json, str]], *, as_json: bool) -> int:
    """Acts once on each job, and goes on when the server refuses one. The exit code is then that of the worst refusal."""
    failures: list[int] = []
    documents: list[Json] = []
    job_ids: dict[str, None] = {}  # an ordered set
    with access.client() as client:
        # All names are resolved first: `last` means another job once the last one is deleted.
        for name in jobs:
            with _refusal_recorded(failures):
                job_ids[client.find_job(name)] = None
        for job_id in job_ids:
            with _refusal_recorded(failures):
                document, outcome = act(client, job_id)
                documents.append(document)
                if not as_json:
                    click.echo(f"{job_id} {outcome}")
    if as_json:
        from handlers.cli.terminal import print_json

        print_json(documents)
    return max(failures, default=0)


@contextmanager
def _refusal_recorded(failures: list[int]) -> Iterator[None]:
    """Prints why one of several jobs was refused, and records the exit code. A bad token is raised: it fails for every job."""
    from handlers.cli.client import JobNotIdentified, Refused

    try:
        yield
    except JobNotIdentified as error:
        print_error(str(error))
        failures.append(MISUSED)
    except Refused as refusal:
        if refusal.status == 401:
            raise
        print_problem(refusal.problem)
        failures.append(REFUSED)
