"""Brings the schema of a database up to date with Alembic. The revisions are the files of `migrations/versions/`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, exc, text

from jobs.errors import OperatorError

FOLDER = Path(__file__).parent / "migrations"


def head_revision(folder: Path = FOLDER) -> str:
    """The newest revision, by file name: `0003_sizes.py` is revision 0003.

    Read from the names because importing Alembic would double the time of a start, and needs nobody to keep a constant up to date.
    """
    return max(path.name.partition("_")[0] for path in (folder / "versions").glob("[0-9]*_*.py"))


def revision(connection: Connection) -> str | None:
    """The schema's revision. Raises DatabaseError for a database without one."""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(engine: Engine, *, found: str | None, folder: Path = FOLDER) -> None:
    """Apply the revisions after `found`. Raises OperatorError."""
    if found == head_revision(folder):
        return
    from alembic import command, config, script, util

    settings = config.Config()
    settings.set_main_option("script_location", str(folder))
    known = {revision.revision for revision in script.ScriptDirectory.from_config(settings).walk_revisions()}
    if found is not None and found not in known:
        newest = head_revision(folder)
        raise OperatorError(f"The database belongs to a newer version of runcast (its schema is {found}, this version knows {newest}).")
    try:
        with engine.connect() as connection:
            settings.attributes["connection"] = connection.execution_options(writes=True)
            command.upgrade(settings, "head")
            connection.commit()
    except (exc.DatabaseError, util.CommandError) as error:
        raise OperatorError(f"The database cannot be brought up to date: {getattr(error, 'orig', error)}.") from error
