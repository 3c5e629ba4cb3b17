"""What the frontend team does: types from the contract, and a program that is checked against them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "node"
STRICT = ("--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom")

pytestmark = [pytest.mark.builds, pytest.mark.timeout(300)]  # the first run on a machine installs the tools


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(NODE / "run.py"), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the types, as `jobs.ts`."""
    folder = tmp_path_factory.mktemp("typescript")
    done = run("openapi-typescript", ROOT / "openapi" / "jobs.yaml", "-o", folder / "jobs.ts")
    assert done.returncode == 0, done.stdout
    return folder


def check(*programs: Path) -> subprocess.CompletedProcess[str]:
    return run("tsc", *STRICT, *programs)


def test_a_program_type_checks_against_the_types_of_the_contract(folder: Path) -> None:
    program = folder / "client.ts"
    program.write_text((NODE / "client.ts").read_text(encoding="utf-8"))
    done = check(program)
    assert done.returncode == 0, done.stdout


def test_programs_that_break_the_contract_do_not_type_check(folder: Path) -> None:
    right = (NODE / "client.ts").read_text(encoding="utf-8")
    changes = {
        "value": ("config: 'release'", "config: 'fast'", "'\"fast\"' is not assignable"),
        "params": ("type: 'build'", "type: 'launch'", "is not assignable"),
        "field": ("job.progress.percent ?? 0", "job.progres", "Property 'progres' does not exist"),
        "null": ("job.progress.percent ?? 0", "job.progress.percent.toFixed(1)", "is possibly 'null'"),
    }
    for name, (old, new, _) in changes.items():
        assert old in right
        (folder / f"wrong_{name}.ts").write_text(right.replace(old, new))
    done = check(*(folder / f"wrong_{name}.ts" for name in changes))
    assert done.returncode != 0
    for name, (_, _, said) in changes.items():
        assert any(f"wrong_{name}.ts" in line and said in line for line in done.stdout.splitlines()), (name, done.stdout)
