"""The command `runcast`: what each subcommand accepts, and what it calls.

`serve` and `worker` start the service. All others are clients, which know a server's URL and a token and nothing else of it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from handlers.cli.connection import REFUSED, Access, client_command, complain, tell
from handlers.cli.options import (
    Command,
    HeaderWord,
    read_duration,
    read_object,
    read_time,
    settings_from,
    settings_options,
    split_pairs,
    typed,
)
from jobs.errors import OperatorError, RuncastError
from jobs.model import JobType, Json, Scope, Status, Stream

if TYPE_CHECKING:
    from handlers.cli.client import Client

# The client, rich and the server are imported by the commands that need them: `runcast --help` and a shell's completion answer at once.

MISUSED, INTERRUPTED = 2, 130
OUTPUT_FAILS = frozenset({errno.EPIPE, errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What nothing but writing to standard output gets here with."""
NOT_FOR_WORKERS = (
    "token",  # tokens are the business of who lets clients in
    *("host", "port", "no_worker", "allow_origin", "allow_host", "max_pending", "token_max_pending", "token_max_log_bytes"),
    *("rate_limit", "failure_limit", "body_seconds", "silent_seconds", "validate_events", "validate_answers"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; every failure that a user can cause is a line or two on standard error and an exit status."""
    _open_streams()
    try:
        status = int(runcast.main(arguments, prog_name="runcast", standalone_mode=False) or 0)
        sys.stdout.flush()  # what cannot be written is to be told here, and not by the interpreter when it ends
        return status
    except click.BadParameter as error:
        complain(_bad_value(error))
        return MISUSED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OperatorError as error:
        complain(str(error))
        return MISUSED
    except RuncastError as error:
        complain(str(error))
        return REFUSED
    except OSError as error:
        if error.errno not in OUTPUT_FAILS:
            raise
        # What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # who read it has read enough
            complain(f"The output cannot be written: {error.strerror}.")
        return REFUSED


def _open_streams() -> None:
    """Standard streams that were closed are there again, since the next file that is opened would take their place. Output fails then."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # of errors nobody wants to be told
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a log may hold what the terminal cannot show


def _bad_value(error: click.BadParameter) -> str:
    """One line, which names the variable that the value is from: one that was set long ago is easily overlooked."""
    message = " ".join(error.format_message().split())
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx and error.param and error.param.name else None
    # A variable that cannot even be taken apart has no source yet.
    from_variable = source is ParameterSource.ENVIRONMENT or (source is None and error.ctx is not None)
    return f"{error.param.envvar}: {message}" if error.param and error.param.envvar and from_variable else message


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="runcast")
def runcast() -> None:
    """Run long operations as jobs, and watch them live."""


@runcast.command(epilog="The variable RUNCAST_TOKEN sets the admin token, in place of the one in the data folder.")
@settings_options()
def serve(**given: Any) -> int:
    """Start the server: the API and, unless told otherwise, a worker."""
    settings = settings_from(given)
    from handlers.server.serve import serve

    return serve(settings)


@runcast.command()
@settings_options(leave_out=NOT_FOR_WORKERS)
def worker(**given: Any) -> int:
    """Start a worker, which runs jobs for servers on the same database."""
    settings = settings_from(given, leave_out=NOT_FOR_WORKERS)
    from jobs.bootstrap import prepare
    from jobs.execution.worker_lock import lock_worker
    from jobs.logging_setup import log_to_stderr
    from jobs.run_worker import run_worker

    log_to_stderr()
    prepare(settings)
    with lock_worker(settings.data_dir, settings.worker_id):
        return run_worker(settings)


follow_option: Callable[[Command], Command] = click.option(
    "-f", "--follow", is_flag=True, help="Show the live log until the job ends; exit as it did."
)


@runcast.command()
@click.argument("job_type", metavar="TYPE", type=click.Choice([str(job_type) for job_type in JobType]))
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@follow_option
@click.option("--params", "params_json", metavar="JSON", help="All params as one JSON object, for what key=value cannot say.")
@click.option("--priority", type=click.IntRange(-10, 10), help="Higher goes first.")
@click.option("--queue", help="Which workers may take the job.")
@click.option("--label", "labels", multiple=True, help="A word to find the job by.")
@click.option("--timeout", "timeout_seconds", type=click.IntRange(min=1), metavar="SECONDS", help="End the job after so long.")
@click.option("--max-attempts", type=click.IntRange(1, 10), help="How often it may be started when its supervisor is lost.")
@click.option("--concurrency-key", help="Jobs with the same key run one at a time.")
@click.option("--idempotency-key", type=HeaderWord(), metavar="KEY", help="The same key and job again give the same job, not a second one.")
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

    For a task, every key but `task` is one of its inputs.
    """
    texts = split_pairs(pairs)
    params = read_object(params_json) if params_json else {}
    with access.client() as client:
        params = _params(client, job_type, texts, given=params)
        chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value not in (None, ())}
        job = client.submit({"type": job_type, "params": params, **chosen}, idempotency_key=idempotency_key)
        return _accepted(client, job, follow=follow, as_json=as_json)


def _params(client: Client, job_type: str, texts: dict[str, str], *, given: dict[str, Json]) -> dict[str, Json]:
    """The params that the pairs mean. The server says which of them are texts and which are not."""
    if not texts:
        return given
    task = texts.pop("task", given.get("task")) if job_type == JobType.TASK else None
    schemas = {(info["type"], info["task"]): info["schema"] for info in client.job_types()} if texts else {}
    values = typed(texts, schemas.get((job_type, task)))
    if job_type != JobType.TASK:
        return {**given, **values}
    inputs = {**given.get("inputs", {}), **values}
    return {**given, **({"task": task} if task else {}), **({"inputs": inputs} if inputs else {})}


def _accepted(client: Client, job: Json, *, follow: bool, as_json: bool) -> int:
    """Prints the id, or follows the job."""
    from handlers.cli.terminal import print_json, say

    if follow:
        return _follow(client, job["id"], as_json=as_json)
    if as_json:
        print_json(job)
        return 0
    click.echo(job["id"])
    if sys.stdout.isatty():
        say("Watch it: runcast logs -f last")
    return 0


def _follow(client: Client, job_id: str, *, as_json: bool, after_seq: int = 0, stream: str | None = None) -> int:
    """Watches the job to its end. Ctrl-C ends the watching and not the job, which others may be waiting for."""
    from handlers.cli.follow import follow
    from handlers.cli.live import view_for, watch
    from handlers.cli.terminal import say

    try:
        return watch(follow(client, job_id, after_seq=after_seq), view_for(as_json=as_json, stream=stream))
    except KeyboardInterrupt:
        say(f"No longer watching job {job_id}, which goes on. To end it: runcast cancel {job_id}")
        return INTERRUPTED


@runcast.command("list")
@click.option("--status", multiple=True, type=click.Choice([str(status) for status in Status]), help="Only jobs in this status.")
@click.option("--type", multiple=True, type=click.Choice([str(job_type) for job_type in JobType]), help="Only jobs of this type.")
@click.option("--project", help="Only jobs of this project.")
@click.option("--label", multiple=True, help="Only jobs with this label; of several, with all.")
@click.option("--since", metavar="TIME", help="Only jobs created since: a time in RFC 3339, or an age such as 90m or 2d.")
@click.option("--until", metavar="TIME", help="Only jobs created before.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many jobs.")
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


job_argument: Callable[[Command], Command] = click.argument("job", metavar="JOB")
jobs_argument: Callable[[Command], Command] = click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
WHICH_JOB = "A JOB is an id, at least 4 characters of its beginning or end, or `last`."


@runcast.command(epilog=WHICH_JOB)
@job_argument
@client_command
def show(access: Access, *, job: str, as_json: bool) -> None:
    """Show all that is known of a job, and its history."""
    with access.client() as client:
        job_id = client.find_job(job)
        found, history = client.job(job_id), client.history(job_id)
    from handlers.cli.terminal import output, print_json, table_of_job

    if as_json:
        print_json({**found, "history": history})
        return
    output().print(table_of_job(found, history=history))


@runcast.command(epilog=WHICH_JOB)
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, and exit as it did.")
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), help="Begin with the last so many lines.")
@click.option("--stream", type=click.Choice([str(stream) for stream in Stream]), help="Only what the job wrote there.")
@click.option("--raw", is_flag=True, help="Byte for byte as the job wrote it.")
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
    """The number of the line before the last `tail` ones."""
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


@runcast.command(epilog=WHICH_JOB)
@jobs_argument
@click.option("--force", is_flag=True, help="Kill it at once, without a grace period.")
@client_command
def cancel(access: Access, *, jobs: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Cancel jobs, with everything that they have started."""

    def cancel_one(client: Client, job_id: str) -> tuple[Json, str]:
        job = client.cancel(job_id, force=force)
        return job, "is cancelled" if job["status"] == Status.CANCELLED else "is being cancelled"

    return _each(access, jobs, cancel_one, as_json=as_json)


@runcast.command(epilog=WHICH_JOB)
@job_argument
@follow_option
@client_command
def retry(access: Access, *, job: str, follow: bool, as_json: bool) -> int:
    """Submit a job that has ended once more, as a new job."""
    with access.client() as client:
        return _accepted(client, client.retry(client.find_job(job)), follow=follow, as_json=as_json)


@runcast.command(epilog=WHICH_JOB)
@jobs_argument
@client_command
def delete(access: Access, *, jobs: tuple[str, ...], as_json: bool) -> int:
    """Delete jobs and their logs; one that is active is cancelled first."""

    def delete_one(client: Client, job_id: str) -> tuple[Json, str]:
        client.delete(job_id)
        return {"id": job_id, "deleted": True}, "is deleted"

    return _each(access, jobs, delete_one, as_json=as_json)


def _each(access: Access, jobs: tuple[str, ...], act: Callable[[Client, str], tuple[Json, str]], *, as_json: bool) -> int:
    """Acts once on each job, also when one before it was refused; the exit code is then that of a refusal."""
    failures: list[int] = []
    documents: list[Json] = []
    job_ids: dict[str, None] = {}  # in their order, each once
    with access.client() as client:
        # All names before anything is done: `last` means another job once the last one is deleted.
        for name in jobs:
            with _going_on(failures):
                job_ids[client.find_job(name)] = None
        for job_id in job_ids:
            with _going_on(failures):
                document, outcome = act(client, job_id)
                documents.append(document)
                if not as_json:
                    click.echo(f"{job_id} {outcome}")
    if as_json:
        from handlers.cli.terminal import print_json

        print_json(documents)
    return max(failures, default=0)


@contextmanager
def _going_on(failures: list[int]) -> Iterator[None]:
    """Tells why one of several jobs could not be had, and notes the exit code for it. Without a good token there is no going on."""
    from handlers.cli.client import Refused, UnclearJob

    try:
        yield
    except UnclearJob as error:
        complain(str(error))
        failures.append(MISUSED)
    except Refused as refusal:
        if refusal.status == 401:
            raise
        tell(refusal.problem)
        failures.append(REFUSED)


@runcast.group(invoke_without_command=True, epilog="Without a subcommand: print the token that the other commands use.")
@click.option("--whoami", is_flag=True, help="Ask the server whose token it is, and what it may do.")
@client_command
def token(access: Access, *, whoami: bool, as_json: bool) -> None:
    """Print the token that the other commands use; make, list and revoke tokens."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        _print_token(access, whoami=whoami, as_json=as_json)
    elif misplaced := [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        raise click.UsageError(f"--{misplaced[0].replace('as_', '').replace('_', '-')} goes behind {context.invoked_subcommand!r}.")


def _print_token(access: Access, *, whoami: bool, as_json: bool) -> None:
    from handlers.cli.terminal import local_time, print_json, say

    found = access.token()
    if found is None:
        raise OperatorError(access.no_token())
    caller: Json = {}
    if whoami:
        with access.client() as client:
            caller = client.whoami()
    if as_json:
        print_json({"token": found.value, "source": found.source, **caller})
        return
    click.echo(found.value)
    say(f"From {found.source}.")
    if caller:
        end = f" until {local_time(caller['expires_at'])}" if caller["expires_at"] else ""
        say(f"It is {caller['name']!r} and may use {', '.join(caller['scopes'])}{end}.")


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice([str(scope) for scope in Scope]), help="What it may do.")
@click.option("--expires", metavar="DURATION", help="When it ends, such as 12h or 30d from now; never, unless given.")
@client_command
def create_token(access: Access, *, name: str, scopes: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make a token, and print it: this once, for nobody can show it again."""
    from handlers.cli.terminal import print_json, say

    lasting = {"expires_in_seconds": read_duration(expires)} if expires else {}
    with access.client() as client:
        made = client.create_token({"name": name, "scopes": sorted(set(scopes)), **lasting})
    if as_json:
        print_json(made)
        return
    click.echo(made["token"])
    say(f"It is {name!r}; keep it, it is not shown again. To end it: runcast token revoke {name}")


@token.command("list")
@client_command
def list_tokens(access: Access, *, as_json: bool) -> None:
    """List tokens, without their secrets."""
    with access.client() as client:
        tokens = client.tokens()
    from handlers.cli.terminal import output, print_json, table_of_tokens

    if as_json:
        print_json({"tokens": tokens})
        return
    output().print(table_of_tokens(tokens))


@token.command("revoke")
@click.argument("name", metavar="NAME_OR_ID")
@client_command
def revoke_token(access: Access, *, name: str, as_json: bool) -> None:
    """Revoke a token: it is refused from then on, and its connections are closed."""
    from handlers.cli.terminal import print_json

    with access.client() as client:
        found = next((one for one in client.tokens() if name in (one["name"], one["id"])), None)
        if found is None:
            raise OperatorError(f"There is no token {name!r}; see `runcast token list`.")
        client.revoke_token(found["id"])
    if as_json:
        print_json({**found, "revoked": True})
        return
    click.echo(f"{found['name']} is revoked")


@runcast.command()
def demo() -> int:
    """Create, build and launch a project on a server of its own, and clear it all away."""
    from handlers.cli.demo import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
