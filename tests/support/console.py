"""The sources of `console/`, built for tests that run what they become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "console"
CLIENT = CONSOLE / "client"


def built() -> None:
    """See to it that the build is that of the sources; skips the test where its packages cannot be had."""
    done = subprocess.run([sys.executable, str(CONSOLE / "build.py")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    if "WARNING" in done.stdout:
        pytest.skip("the packages of console/ cannot be had here: " + done.stdout)
