"""The worker process: `python -m jobs.run_worker`, as `serve` starts it.

Settings and the lifeline's descriptor come in the environment. Puts the worker together; the API process never loads it.
"""

from __future__ import annotations

import json
import os
import sys

from jobs.bootstrap import make_engine, open_database
from jobs.errors import OperatorError
from jobs.execution import worker
from jobs.logging_setup import log_to_stderr
from jobs.recipes.expand import Recipes
from jobs.settings import Settings


def run_worker(settings: Settings, *, lifeline: int | None = None) -> int:
    """Until SIGTERM or SIGINT, of which a second one ends jobs at once; gives the exit status. Raises OperatorError.

    `lifeline` is a pipe whose end means that whoever started us is gone.
    """
    recipes = Recipes.load(workspace=settings.workspace_dir, tasks_file=settings.tasks)
    database = open_database(settings.url, busy_seconds=worker.BUSY_SECONDS)
    return worker.run(settings, recipes, database=database, engine=make_engine(settings.url), lifeline=lifeline)


def main() -> int:
    log_to_stderr()
    settings = Settings.from_json(json.loads(os.environ.pop("RUNCAST_SETTINGS")))
    lifeline = os.environ.pop("RUNCAST_LIFELINE", None)
    try:
        return run_worker(settings, lifeline=int(lifeline) if lifeline else None)
    except OperatorError as error:
        print(f"runcast: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
