"""Migrations: each one in the folder reaches every database, whoever forgets to mention it elsewhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

import jobs

PACKAGE = Path(jobs.__file__).parent
MIGRATIONS = Path("store", "migrations")
PREPARE = """
import sys
from pathlib import Path
from jobs import __file__ as package
from jobs.bootstrap import prepare
from jobs.settings import Settings

prepare(Settings(data_dir=Path(sys.argv[1])))
print(Path(package).parent, "alembic" in sys.modules)
"""
ADDED = """
from alembic import op

revision = "{revision}"
down_revision = "{head}"

def upgrade() -> None:
    op.execute("CREATE TABLE added (id INTEGER PRIMARY KEY)")
"""


@pytest.fixture
def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(PACKAGE / MIGRATIONS))


def prepare(data_dir: Path, *, package: Path = PACKAGE) -> bool:
    """Prepare a data folder in a process of its own, as `runcast serve` does; says whether Alembic was imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(data_dir)],
        cwd=data_dir.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    used, imported = done.stdout.split()
    assert Path(used) == package
    return imported == "True"


def tables_and_revision(data_dir: Path) -> tuple[set[str], str]:
    with closing(sqlite3.connect(data_dir / "runcast.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ((revision,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return tables, revision


def test_new_database_is_at_the_only_head(tmp_path: Path, scripts: ScriptDirectory) -> None:
    assert prepare(tmp_path / "data")
    assert [tables_and_revision(tmp_path / "data")[1]] == scripts.get_heads()


@pytest.mark.slow
def test_current_database_is_opened_without_alembic(tmp_path: Path) -> None:
    """Importing it costs more than all else at start. It also shows that what decides "up to date" is the head of the scripts."""
    prepare(tmp_path / "data")
    assert not prepare(tmp_path / "data")


@pytest.mark.slow
def test_added_migration_reaches_existing_database(tmp_path: Path, scripts: ScriptDirectory) -> None:
    """Only a file is added: nothing else in the package has to be touched."""
    prepare(tmp_path / "data")
    package = tmp_path / "changed" / "jobs"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (head,) = scripts.get_heads()
    revision = f"{int(head) + 1:04}"
    (package / MIGRATIONS / "versions" / f"{revision}_added.py").write_text(ADDED.format(revision=revision, head=head))
    prepare(tmp_path / "data", package=package)
    tables, found = tables_and_revision(tmp_path / "data")
    assert found == revision
    assert "added" in tables


def test_file_names_give_the_order_of_migrations(scripts: ScriptDirectory) -> None:
    """So that the newest one is known without reading them all: `0003_sizes.py` holds revision 0003, which follows 0002."""
    chain = list(reversed([(script.revision, script.down_revision) for script in scripts.walk_revisions()]))
    names = sorted(path.stem for path in (PACKAGE / MIGRATIONS / "versions").glob("*.py") if path.stem != "__init__")
    assert [revision for revision, _ in chain] == [name.partition("_")[0] for name in names]
    assert [before for _, before in chain] == [None, *(revision for revision, _ in chain[:-1])]
