"""A client that stops reading: what it costs the server, what it costs the others, and what it gets in the end."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.raw_socket import RawSocket, raw_socket
from support.server import PROGRAMS, RunningServer
from support.waiting import eventually

pytestmark = pytest.mark.slow

LINE_BYTES = 200
LINES = 300_000  # 60 MB, below the cap of a log
MOST = 8 << 20


@dataclass
class Load:
    """What one run of the load showed."""

    job_id: str
    growth: int
    gaps: list[float]

    @property
    def p99_gap(self) -> float:
        return sorted(self.gaps)[len(self.gaps) * 99 // 100]


def private_memory(server: RunningServer) -> int:
    """Of the process that serves clients, which is a child of the one that watches over it."""
    [process] = eventually(server.part("api").children, "the API serves")
    return int(psutil.Process(process.pid).memory_full_info().uss)


def read_all(client: RawSocket, job_id: str, times: list[float]) -> int:
    """Everything, to the end; gives the number of lines."""
    lines = 0
    for payload in client.log(job_id):
        times.append(time.monotonic())
        lines += len(payload["lines"])
    return lines


def run_load(server: RunningServer, gate: Path, *, reading: RawSocket, idle: list[RawSocket]) -> Load:
    """60 MB of log in about two seconds, for a client that reads and for those that do not."""
    numbered = f"{sys.executable} {PROGRAMS}/numbered_lines.py"
    parts = [f"{numbered} {LINES // 30} --bytes {LINE_BYTES} --first {LINES // 30 * part + 1}" for part in range(30)]
    job_id = server.shell(f"while ! [ -e {gate} ]; do sleep 0.01; done; {'; '.join(parts)}")
    for client in (reading, *idle):
        client.subscribe(job_id)
    before = private_memory(server)
    times: list[float] = []
    most = 0
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(read_all, reading, job_id, times)
        gate.touch()
        while not whole.done():
            most = max(most, private_memory(server))
            time.sleep(0.02)  # between two measurements
        assert whole.result() == LINES
    assert server.wait(job_id)["status"] == "completed"
    return Load(job_id, max(most, private_memory(server)) - before, [after - start for start, after in itertools.pairwise(times)])


@pytest.fixture
def sockets(server: RunningServer) -> Iterator[Callable[[], RawSocket]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(raw_socket(server))


def test_slow_client_costs_little_delays_nobody_and_gets_everything(
    server: RunningServer, sockets: Callable[[], RawSocket], tmp_path: Path
) -> None:
    alone = run_load(server, tmp_path / "alone", reading=sockets(), idle=[])
    slow, vanishing = sockets(), sockets()
    beside = run_load(server, tmp_path / "beside", reading=sockets(), idle=[slow, vanishing])

    # For the two of them together, and for what the one that reads costs as well.
    assert beside.growth < MOST, f"{beside.growth >> 10} KiB; {alone.growth >> 10} KiB without them"
    assert beside.p99_gap < max(2 * alone.p99_gap, alone.p99_gap + 0.05), f"{beside.p99_gap:.4f} s; {alone.p99_gap:.4f} s without them"

    # One reads on; the other comes back by a new connection.
    assert read_all(slow, beside.job_id, []) == LINES
    seen = 0
    for payload in vanishing.log(beside.job_id):
        seen += len(payload["lines"])
        if seen > LINES // 3:
            break
    vanishing.cut()
    back = sockets()
    back.subscribe(beside.job_id, seen)
    assert sum(len(payload["lines"]) for payload in back.log(beside.job_id, after_seq=seen)) == LINES - seen
