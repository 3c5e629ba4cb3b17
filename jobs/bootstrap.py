"""Puts the parts of `jobs` together from the settings, and prepares the data folder before anything starts."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import make_url

from jobs.errors import OperatorError
from jobs.execution.engines import Engine
from jobs.execution.engines.local import LocalEngine
from jobs.recipes.expand import Recipes
from jobs.recipes.workspace import copy_workspace
from jobs.service import Changes, Service
from jobs.settings import Settings
from jobs.store.database import OwnedDatabase
from jobs.store.jobs import Store
from jobs.store.logs import Logs
from jobs.store.quotas import Quotas
from jobs.store.sqlite import BUSY_SECONDS, SqliteDatabase
from jobs.store.tokens import Tokens, provide_admin_token
from jobs.submission import Submissions

logger = logging.getLogger("runcast.serve")


def prepare(settings: Settings) -> None:
    """Create the data folder, the default workspace and the schema, before the first process needs them. Raises OperatorError.

    Changes nothing for a server that runs already on this folder: the caller may still be refused.
    """
    _make_data_dir(settings.data_dir)
    if settings.workspace is None:
        copy_workspace(settings.workspace_dir)
    Recipes.load(workspace=settings.workspace_dir, tasks_file=settings.tasks)
    _make_database_file(settings.url)
    database = open_database(settings.url)
    try:
        database.migrate()
    finally:
        database.close()


def provide_tokens(settings: Settings) -> None:
    """Store the admin token, after `prepare`. Only for a server that is about to run: it replaces another token. Raises OperatorError."""
    database = open_database(settings.url)
    try:
        provide_admin_token(Tokens(database), given=settings.token, file=settings.token_file)
    finally:
        database.close()


def open_database(url: str, *, busy_seconds: float = BUSY_SECONDS) -> OwnedDatabase:
    """The database that the SQLAlchemy URL names. `busy_seconds` is how long a call waits for other processes' writes."""
    return SqliteDatabase(url, busy_seconds=busy_seconds)


def make_engine(url: str) -> Engine:
    """What gives the pending jobs of that database to workers."""
    return LocalEngine()


def make_service(settings: Settings, *, store: Store, logs: Logs, changes: Changes) -> Service:
    recipes = Recipes.load(workspace=settings.workspace_dir, tasks_file=settings.tasks)
    quotas = Quotas(max_pending=settings.token_max_pending, max_log_bytes=settings.token_max_log_bytes, log_cap=settings.log_cap)
    submissions = Submissions(store, recipes, max_pending=settings.max_pending, quotas=quotas)
    return Service(store, logs, recipes, submissions, changes)


def _make_database_file(url: str) -> None:
    """Create the file with mode 0600: SQLite gives its other files the same mode, and logs are private. An existing file keeps its mode."""
    file = make_url(url).database
    if file and file != ":memory:" and Path(file).parent.is_dir():
        with suppress(OSError):  # the database reports what is wrong better
            Path(file).touch(mode=0o600)


def _make_data_dir(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"The data folder {folder} cannot be created: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OperatorError(f"The data folder {folder} is not writable.")
    if folder.stat().st_mode & 0o077:
        logger.warning("The data folder %s can be read by others; its content should be private to its owner.", folder)
