"""What tests share: real servers in temporary folders, clients for them, and the watch over what a test leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for `support`

from jobs.bootstrap import open_database
from jobs.store.database import OwnedDatabase
from support.server import RunningServer, start_server
from support.stores import StoreHarness
from support.waiting import eventually

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, also by what we start, and servers heed that
for name in [name for name in os.environ if name.startswith("RUNCAST_")]:
    del os.environ[name]  # the environment of whoever runs the tests must not decide what they show
# Many containers set it. Then each of the hundred servers, and each run of the tests, would compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples in every run, so that a failure is the fault of a change; `--hypothesis-profile explore` looks for new ones. Without
# deadlines, because the machine may be busy.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000, stateful_step_count=100, print_blob=True)
settings.load_profile("repeatable")


LONG_FIRST = ("chaos", "browser", "e2e", "contract", "property", "conformance", "integration", "unit")
"""Folders, the one with the longest files first: processes that share the tests by file then end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not {"make_server", "tour"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONG_FIRST.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Threads and child processes that a test starts end with it; the servers that several tests share are known."""
    threads, children = set(threading.enumerate()), _children()
    yield
    eventually(lambda: not (set(threading.enumerate()) - threads), "the test's threads end")
    eventually(lambda: not (_children() - children - START_UPS), "the test's processes end")


START_UPS: set[int] = set()
"""Processes of servers that outlive a test on purpose."""


def _children() -> set[int]:
    lists = list(Path("/proc/self/task").glob("*/children"))
    if not lists:  # elsewhere than on Linux
        return {child.pid for child in psutil.Process().children()}
    # A twentieth of the time that the whole process table takes; it is asked twice for each test.
    pids: set[int] = set()
    for file in lists:
        with suppress(OSError):  # the thread has ended
            pids.update(map(int, file.read_text().split()))
    return pids


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The URL of a database of the test's own, which is not there yet."""
    return f"sqlite:///{tmp_path / 'runcast.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[OwnedDatabase]:
    """A database of the test's own, with the current schema."""
    database = open_database(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def harness(database_url: str) -> Iterator[StoreHarness]:
    """A database of the test's own with what works on it."""
    harness = StoreHarness(database_url)
    harness.database.migrate()
    yield harness
    harness.database.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests that need nothing special of it: 2 slots, the shipped workspace, the tasks of `support/tasks.toml`."""
    with start_server(tmp_path_factory.mktemp("server"), migrated=False, slots=2) as running:
        START_UPS.add(running.pid)
        yield running
        START_UPS.discard(running.pid)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Servers of the test's own: `make_server(slots=1, keep_jobs=True)`; each in a folder of its own unless `folder` says which."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        count = 0

        def make(folder: Path | None = None, **options: Any) -> RunningServer:
            nonlocal count
            count += 1
            return stack.enter_context(start_server(folder or tmp_path / f"server-{count}", **options))

        yield make
