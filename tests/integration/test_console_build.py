"""The pages are built with the wheel and are in it; without a registry there is a wheel without them; what is built is not built again."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.console import CONSOLE, ROOT, built

PARTS = ("console", "handlers", "jobs", "openapi", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE")
NOT_SOURCES = shutil.ignore_patterns("node_modules", "dist", "generated", "__pycache__", "console")  # the last one is what is built

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the packages


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The sources alone, as in a fresh clone."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, clone / part, ignore=NOT_SOURCES)
        else:
            shutil.copy(ROOT / part, clone)
    return clone


def wheel(clone: Path, **environment: str) -> tuple[set[str], str]:
    """The names of the files in the wheel, and what was said while it was made."""
    target = clone.parent / "wheel"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--verbose",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(target),
        str(clone),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()), done.stdout


def test_a_wheel_has_the_pages_and_nothing_that_they_were_made_of(clone: Path) -> None:
    built()
    (clone / "console" / "node_modules").symlink_to(CONSOLE / "node_modules")
    names, _ = wheel(clone)
    assert {"handlers/console/index.html", "handlers/console/.built", "handlers/console/LICENSES.md"} <= names
    assert any(name.startswith("handlers/console/assets/") and name.endswith(".js.gz") for name in names)
    assert not [name for name in names if name.startswith("console/") or "node_modules" in name or "released" in name]
    index = clone / "handlers" / "console" / "index.html"
    made = index.stat().st_mtime_ns
    subprocess.run([sys.executable, str(clone / "console" / "build.py")], check=True)
    assert index.stat().st_mtime_ns == made, "what has not changed is not built again"


def test_without_a_registry_there_is_a_wheel_without_pages_and_a_warning(clone: Path, tmp_path: Path) -> None:
    nowhere = {"npm_config_registry": "http://127.0.0.1:1/", "npm_config_cache": str(tmp_path / "empty")}
    names, said = wheel(clone, **nowhere)
    assert "WARNING: runcast is installed without its pages; / leads to Swagger UI." in said
    assert "handlers/server/app.py" in names
    assert not [name for name in names if name.startswith("handlers/console/")]


def test_every_source_counts(clone: Path) -> None:
    """For whether the pages are built again."""
    names = runpy.run_path(str(clone / "console" / "build.py"))
    sources = {path.relative_to(clone).as_posix() for path in names["_sources"]()}
    assert {"console/src/page.css", "console/client/src/watch.ts", "console/package-lock.json", "openapi/jobs.asyncapi.yaml"} <= sources
    before = names["_digest"](names["_sources"]())
    (clone / "console" / "src" / "new.ts").write_text("")
    assert names["_digest"](names["_sources"]()) != before


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((CONSOLE / "package-lock.json").read_text())["packages"]
    addresses = {package["resolved"] for package in packages.values() if "resolved" in package}
    assert addresses == {"client"}  # a folder of this repository
    assert all("integrity" in package for name, package in packages.items() if name.startswith("node_modules/") and not package.get("link"))
