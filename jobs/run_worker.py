"""Puts the worker together; the API process never imports this."""

from __future__ import annotations

from jobs.bootstrap import make_engine, open_database
from jobs.execution import worker
from jobs.recipes.expand import Recipes
from jobs.settings import Settings


def run_worker(settings: Settings, *, lifeline: int | None = None) -> int:
    """Run until SIGTERM or SIGINT; a second one ends the jobs at once. Returns the exit status. Raises OperatorError.

    `lifeline` is a pipe whose end means that the process which started the worker is gone.
    """
    recipes = Recipes.load(workspace=settings.workspace_dir, tasks_file=settings.tasks)
    database = open_database(settings.url, busy_seconds=worker.BUSY_SECONDS)
    return worker.run(settings, recipes, database=database, engine=make_engine(settings.url), lifeline=lifeline)
