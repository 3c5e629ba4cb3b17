"""`runcast demo`, complete and interrupted: it runs every step and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from handlers.cli.demo import DemoFailed, _interrupts_deferred, _server
from support.waiting import eventually

pytestmark = pytest.mark.slow

DEADLINE = 60.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The demo with its temporary files in `folder`, by which the test also recognises its processes."""
    with (folder.parent / "said").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "handlers.cli.main", "demo"],
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def processes_of(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _belongs(process, str(folder))]


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        return folder in process.environ().get("TMPDIR", "") or folder in " ".join(process.cmdline()) or process.cwd().startswith(folder)
    except psutil.Error:
        return False


def test_the_demo_runs_all_steps_and_leaves_nothing(folder: Path) -> None:
    demo = start(folder)
    assert demo.wait(DEADLINE) == 0
    said = (folder.parent / "said").read_text()
    assert [line[:6] for line in said.splitlines() if re.match(r"\d of 3", line)] == ["1 of 3", "2 of 3", "3 of 3"]
    assert re.search(r"^\[\d+/\d+\] ", said, re.MULTILINE)
    assert re.search(r"^GET http://127\.0\.0\.1:\d+/ gives 200, the page “My Editor”", said, re.MULTILINE)
    assert "/api/docs" in said
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("signum", "when"), [(signal.SIGINT, b"[1/"), (signal.SIGTERM, b"is ready")])
def test_an_interrupted_demo_leaves_nothing(folder: Path, signum: signal.Signals, when: bytes) -> None:
    demo = start(folder)
    eventually(lambda: when in (folder.parent / "said").read_bytes(), "the demo is under way", seconds=DEADLINE)
    assert len(processes_of(folder)) > 1
    demo.send_signal(signum)
    assert demo.wait(DEADLINE) == 130
    assert b"Traceback" not in (folder.parent / "said").read_bytes()
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


def test_a_failed_demo_prints_the_server_s_log(folder: Path) -> None:
    with pytest.raises(DemoFailed, match=r"(?s)^It does not work\.\nThe server's log:\nruncast is ready at http"), _server(folder):
        raise DemoFailed("It does not work.")
    assert processes_of(folder) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_during_cleanup_counts_once_cleanup_is_over(signum: signal.Signals) -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), _interrupts_deferred():
        signal.raise_signal(signum)
        steps.append("cleaned up")
    assert steps == ["cleaned up"]


def test_an_interrupt_during_cleanup_does_not_hide_an_error() -> None:
    with pytest.raises(DemoFailed):
        try:
            raise DemoFailed("It does not work.")
        finally:
            with _interrupts_deferred():
                signal.raise_signal(signal.SIGINT)
