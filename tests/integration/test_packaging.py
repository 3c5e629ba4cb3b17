"""Distributions: wheels hold the built pages, or none where npm's registry cannot be reached; what is unchanged is not built again; a
source distribution is enough to build, install and run runcast, with nothing of the repository around it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from support.console import CONSOLE, ROOT, built
from support.server import RunningServer, start_server

PARTS = ("console", "handlers", "jobs", "openapi", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE")
NOT_SOURCES = shutil.ignore_patterns("node_modules", "dist", "generated", "__pycache__", "console")  # the last one is what is built
NOT_PACKAGED = frozenset({"__pycache__", "released"})

pytestmark = [pytest.mark.builds, pytest.mark.timeout(300)]  # the first run on a machine installs the packages


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


@dataclass(frozen=True)
class Distributions:
    """A source distribution of the repository and what follows from it: a wheel, and an environment with nothing else of runcast."""

    source: Path
    wheel: Path
    environment: Path

    @property
    def program(self) -> Path:
        return self.environment / "bin" / "runcast"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    built()
    folder = tmp_path_factory.mktemp("distributions")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder), cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    wheel, _ = build_wheel(source, folder / "wheel", **unreachable_registry(folder))
    return Distributions(source, wheel, install(wheel, folder / "environment"))


def build_wheel(source: Path, target: Path, **environment: str) -> tuple[Path, str]:
    """A wheel of a folder or a source distribution, and what was said while it was made."""
    options = ["--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    said = run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=source.parent, **environment)
    (path,) = target.glob("*.whl")
    return path, said


def install(wheel: Path, environment: Path) -> Path:
    """Into an environment of its own, which has the dependencies of the one that runs the tests, and runcast from the wheel only."""
    run(sys.executable, "-m", "venv", "--without-pip", str(environment), cwd=wheel.parent)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    # A folder that a .pth file names is searched last, and its own .pth files, such as the one of an editable runcast, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", str(environment), "install", "--no-deps", "--no-index", str(wheel), cwd=wheel.parent)
    return environment


def run(*command: str, cwd: Path, **environment: str) -> str:
    """What it prints; it must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout
    return done.stdout


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def unreachable_registry(folder: Path) -> dict[str, str]:
    return {"npm_config_registry": "http://127.0.0.1:1/", "npm_config_cache": str(folder / "empty")}


def test_wheel_has_the_pages_and_none_of_their_sources(clone: Path) -> None:
    built()
    (clone / "console" / "node_modules").symlink_to(CONSOLE / "node_modules")
    names = names_in(build_wheel(clone, clone.parent / "wheel")[0])
    assert {"handlers/console/index.html", "handlers/console/.built", "handlers/console/LICENSES.md"} <= names
    assert any(name.startswith("handlers/console/assets/") and name.endswith(".js.gz") for name in names)
    assert not [name for name in names if name.startswith("console/") or "node_modules" in name or "released" in name]
    index = clone / "handlers" / "console" / "index.html"
    made = index.stat().st_mtime_ns
    subprocess.run([sys.executable, str(clone / "console" / "build.py")], check=True)
    assert index.stat().st_mtime_ns == made, "what has not changed is not built again"


def test_wheel_is_built_without_pages_when_registry_is_unreachable(clone: Path, tmp_path: Path) -> None:
    wheel, said = build_wheel(clone, tmp_path / "wheel", **unreachable_registry(tmp_path))
    names = names_in(wheel)
    assert "WARNING: runcast is installed without its pages; / leads to Swagger UI." in said
    assert "handlers/server/app.py" in names
    assert not [name for name in names if name.startswith("handlers/console/")]


def test_pages_are_built_again_when_any_source_changes(clone: Path) -> None:
    names = runpy.run_path(str(clone / "console" / "build.py"))
    sources = {path.relative_to(clone).as_posix() for path in names["_sources"]()}
    assert {"console/src/page.css", "console/client/src/watch.ts", "console/package-lock.json", "openapi/jobs.asyncapi.yaml"} <= sources
    before = names["_digest"](names["_sources"]())
    (clone / "console" / "src" / "new.ts").write_text("")
    assert names["_digest"](names["_sources"]()) != before


def test_lock_file_of_npm_names_no_registry() -> None:
    packages = json.loads((CONSOLE / "package-lock.json").read_text())["packages"]
    addresses = {package["resolved"] for package in packages.values() if "resolved" in package}
    assert addresses == {"client"}  # a folder of this repository
    assert all("integrity" in package for name, package in packages.items() if name.startswith("node_modules/") and not package.get("link"))


def test_source_distribution_has_all_sources_and_the_built_pages(distributions: Distributions) -> None:
    with tarfile.open(distributions.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in runpy.run_path(str(CONSOLE / "build.py"))["_sources"]()} <= names
    assert {"LICENSE", "Makefile", "hatch_build.py", "pyproject.toml", "requirements.lock", "PKG-INFO"} <= names
    assert {"console/client/LICENSE", "docs/pictures/log.png", "openapi/released/0.1.0/jobs.yaml", "tests/conftest.py"} <= names
    assert {"handlers/console/index.html", "handlers/console/LICENSES.md", "console/client/dist/index.js"} <= names
    assert not [name for name in names if {"node_modules", "__pycache__", ".venv"} & set(name.split("/"))]


def test_wheel_of_source_distribution_has_every_file_of_the_packages(distributions: Distributions) -> None:
    """The pages too, though npm's registry could not be reached when the wheel was built."""
    names = names_in(distributions.wheel)
    files = [
        path.relative_to(ROOT) for package in ("handlers", "jobs", "openapi") for path in (ROOT / package).rglob("*") if path.is_file()
    ]
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == {path.as_posix() for path in files if not NOT_PACKAGED & set(path.parts)}
    assert "handlers/console/index.html" in packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_installed_wheel_is_imported_from_its_own_environment(distributions: Distributions, tmp_path: Path) -> None:
    python = str(distributions.environment / "bin" / "python")
    found = run(python, "-c", "import handlers, jobs, openapi; print(handlers.__file__, jobs.__file__, openapi.__file__)", cwd=tmp_path)
    assert all(Path(file).is_relative_to(distributions.environment) for file in found.split())
    assert (
        run(str(distributions.program), "--version", cwd=tmp_path).strip() == f"runcast, version {distributions.wheel.name.split('-')[1]}"
    )


@pytest.fixture(scope="module")
def installed_server(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("installed")
    with start_server(folder / "server", program=distributions.program, cwd=folder) as running:
        yield running


def test_installed_wheel_runs_jobs_of_the_shipped_workspace(installed_server: RunningServer) -> None:
    created = installed_server.submit({"type": "create", "params": {"template": "small_service", "name": "my_company.tried"}})
    assert installed_server.wait(created["id"])["status"] == "completed", installed_server.raw_log(created["id"])
    shell = installed_server.shell("echo from a task")
    assert installed_server.wait(shell)["status"] == "completed"
    assert "from a task" in installed_server.raw_log(shell)


@pytest.mark.parametrize("path", ["/", "/api/docs"])
def test_installed_wheel_serves_pages_with_all_their_files(installed_server: RunningServer, path: str) -> None:
    page = requests.get(installed_server.url + path, timeout=20, allow_redirects=False)
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href)="([^"#]+\.(?:js|css))"', page.text)
    assert linked
    for name in linked:
        assert requests.get(urljoin(installed_server.url + path, name), timeout=20).status_code == 200, name
