"""The commands that start processes of the service: `serve`, `worker` and `demo`."""

from __future__ import annotations

from typing import Any

import click

from handlers.cli.options import settings_from, settings_options

NOT_FOR_WORKERS = (
    "token",  # only the API authenticates clients
    *("host", "port", "no_worker", "allow_origin", "allow_host", "max_pending", "token_max_pending", "token_max_log_bytes"),
    *("rate_limit", "failure_limit", "body_seconds", "silent_seconds", "validate_events", "validate_answers"),
)


@click.command(epilog="The variable RUNCAST_TOKEN sets the admin token, in place of the one in the data folder.")
@settings_options()
def serve(**given: Any) -> int:
    """Start the server: the API and, by default, a worker."""
    settings = settings_from(given)
    from handlers.server.serve import serve

    return serve(settings)


@click.command()
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


@click.command()
def demo() -> int:
    """Create, build and launch a project on a temporary server, then remove everything."""
    from handlers.cli.demo import run

    return run()
