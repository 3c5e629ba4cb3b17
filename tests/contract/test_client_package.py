"""The typed client as a frontend developer gets it: packed, installed, and used by the lines of README.md, which compile and work."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.console import CONSOLE, ROOT, built
from support.server import RunningServer

NODE = [sys.executable, str(ROOT / "tests" / "node" / "run.py")]
STRICT = ("--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom")

pytestmark = [pytest.mark.builds, pytest.mark.timeout(300)]  # the first run on a machine installs the packages


def readme() -> str:
    (lines,) = re.findall(r"^<!-- typed client -->\n```ts\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the package installed; what that needs is taken from the console's own packages."""
    built()
    folder = tmp_path_factory.mktemp("frontend")
    done = subprocess.run([sys.executable, str(CONSOLE / "build.py"), "pack"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = folder / "node_modules" / "@runcast"
    home.mkdir(parents=True)
    with tarfile.open(done.stdout.strip()) as package:
        package.extractall(home, filter="data")
    (home / "package").rename(home / "client")
    for name in ("openapi-fetch", "openapi-typescript-helpers", "socket.io-client", "@types/node", "undici-types"):
        link = folder / "node_modules" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(CONSOLE / "node_modules" / name)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def compiled(*programs: Path) -> subprocess.CompletedProcess[str]:
    command = [*NODE, "tsc", *STRICT, "--types", "node", *map(str, programs)]
    return subprocess.run(command, cwd=programs[0].parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_program_of_the_readme_compiles_and_shows_a_whole_log(folder: Path, server: RunningServer) -> None:
    lines = readme()
    assert len(lines.strip().splitlines()) <= 7, "an import, an empty line and five more"
    assert "'http://127.0.0.1:8000'" in lines
    program = folder / "watch.ts"
    program.write_text(lines.replace("'http://127.0.0.1:8000'", f"'{server.url}'"))
    checked = compiled(program)
    assert checked.returncode == 0, checked.stdout
    command = [*NODE, "node", str(program)]
    done = subprocess.run(command, env={"RUNCAST_TOKEN": server.token}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (job,) = server.call("GET", "/jobs", params={"type": "build", "limit": 1}).json()["jobs"]
    assert done.stdout.splitlines() == [re.sub(r"\r$", "", line) for line in server.raw_log(job["id"]).splitlines()]


def test_a_program_that_breaks_the_contract_does_not_compile(folder: Path) -> None:
    changes = {
        "value": ("config: 'release'", "config: 'fast'", "'\"fast\"' is not assignable"),
        "path": ("'/jobs/submit'", "'/job/submit'", "is not assignable"),
        "event": ("event.type === 'log'", "event.type === 'lines'", "have no overlap"),
        "payload": ("event.lines", "event.text", "Property 'text' does not exist"),
        "unchecked": ("if (error) throw new Error(error.detail)\n", "", "is possibly 'undefined'"),
    }
    for name, (old, new, _) in changes.items():
        assert old in readme()
        (folder / f"wrong_{name}.ts").write_text(readme().replace(old, new))
    done = compiled(*(folder / f"wrong_{name}.ts" for name in changes))
    for name, (_, _, said) in changes.items():
        assert any(f"wrong_{name}.ts" in line and said in line for line in done.stdout.splitlines()), (name, done.stdout)


def test_the_package_holds_compiled_files_only(folder: Path) -> None:
    home = folder / "node_modules" / "@runcast" / "client"
    files = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert {"package.json", "dist/index.js", "dist/index.d.ts", "dist/generated/jobs.d.ts", "dist/generated/events.d.ts"} <= files
    assert all(name == "package.json" or name.startswith("dist/") or name in ("README.md", "LICENSE") for name in files), files
