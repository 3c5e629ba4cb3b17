"""`make fuzz`: Schemathesis against a server of its own, whose jobs nobody misses. `test_schemathesis.py` runs it with fewer examples.

All phases and all stock checks; the server holds each of its answers against the contract as well. Run as
`python -m support.fuzz [OPTION...]` with `tests` in the path; the options are those of `schemathesis run`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.server import RunningServer, start_server

TESTS = Path(__file__).parents[1]
CONFIG = TESTS / "contract" / "schemathesis.toml"
EXAMPLE_PROJECT = {"template": "small_editor", "name": "my_company.my_editor"}
"""What the contract's examples build and launch."""


@contextmanager
def fuzzed_server(folder: Path) -> Iterator[RunningServer]:
    """A server with a bounded queue, on which the contract's examples find what they name."""
    # Wrong tokens are a part of it, and each is to be told so.
    with start_server(folder, slots=2, max_pending=400, failure_limit="off") as server:
        created = server.submit({"type": "create", "params": EXAMPLE_PROJECT})
        assert server.wait(created["id"])["status"] == "completed"
        yield server


def command_line(server: RunningServer, *options: str) -> list[str]:
    """The token is not in it: other users can read it."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    return [program, "--config-file", str(CONFIG), "run", f"{server.url}/api/openapi.json", "--checks", "all", *options]


def environment(server: RunningServer) -> dict[str, str]:
    return {**os.environ, "RUNCAST_TOKEN": server.token, "PYTHONPATH": str(TESTS)}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="runcast-fuzz-") as folder, fuzzed_server(Path(folder)) as server:
        return subprocess.run(command_line(server, *sys.argv[1:]), env=environment(server), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
