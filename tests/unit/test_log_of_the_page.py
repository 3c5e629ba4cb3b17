"""The pure parts of the page's log, tested under Node in their own language: tests/node/log.test.ts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.builds

NODE_TOOLS = Path(__file__).parents[1] / "node" / "run.py"


@pytest.mark.timeout(300)  # the first run on a machine installs the tools
def test_the_page_code_for_lines_and_colours() -> None:
    command = [sys.executable, str(NODE_TOOLS), "node", "--test", str(NODE_TOOLS.with_name("log.test.ts"))]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "pass 6" in done.stdout
