"""Subscribers that mean no good, all at once, while honest ones watch: those see every line, and soon; the server stays small and calm."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from chaos.crowd import Orders
from chaos.invariants import hold_all, hold_at_rest, hold_no_processes, hold_nothing_left
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings
from support.programs import program
from support.server import RunningServer
from support.waiting import eventually

TESTS = Path(__file__).parents[1]
HONEST = 20
MANY = 100
"""Hostile clients of each kind, from which on it is a full dose."""
MOST_DELAY_MS = 250.0
RETURNS = 0.1
"""So often a second, at least, each of those comes back that want to every 100 ms: they ask for more than a machine can give."""
MOST_EACH = 256 << 10
"""What one more client may cost the server at most, in bytes: what is in flight to it. And a bit for all together."""
MOST_SHARED = 28 << 20


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings, surroundings = Findings(done=dose), Surroundings.make(folder)
    seconds = 20.0 if dose >= MANY else 5.0
    gate = folder / "gate"
    with surroundings.serve(slots=2, rate_limit="off", validate_events=False, validate_answers=False) as server:
        guest = server.call("POST", "/tokens", json={"name": "crowd", "scopes": ["jobs:read"]}).json()["token"]
        watch = server.shell(program("timed_lines", "--seconds", seconds + 2, "--until", gate))
        flood = server.shell(program("numbered_lines", 2000 * round(seconds), "--rate", 2000, "--bytes", 500))
        port, until = int(server.url.rpartition(":")[2]), time.time() + seconds
        orders: dict[str, Any] = {"port": port, "watch": watch, "flood": flood, "until": until}
        with measured_memory(server) as memory, people(Orders(token=server.token, honest=HONEST, **orders)) as honest:
            mob = Orders(
                token=guest,
                silent=dose,
                returning=dose,
                subscribing=dose * 50,
                garbling=max(1, dose // 20),
                seed=rng.randrange(1 << 30),
                **orders,
            )
            with people(mob) as crowd:
                done = report_of(crowd, seconds + 150)
            gate.touch()
            seen = report_of(honest, 60)
        for job_id in (watch, flood):
            findings.hold(server.wait(job_id)["status"] == "completed", f"job {job_id} did not complete")
        hold_honest(findings, seen, strict=dose >= MANY, lines={job_id: server.job(job_id)["log"]["lines"] for job_id in (watch, flood)})
        hold_small(findings, memory, clients=2 * dose)
        hold_gone(findings, server)
        hold_crowd(findings, done, mob, seconds=seconds)
        hold_no_processes(findings, [watch, flood])
        hold_at_rest(findings, server, surroundings)
        server.assert_clean()
    hold_all(findings, surroundings, accepted=[watch, flood])
    hold_nothing_left(findings, surroundings)
    findings.survived = 0 if findings.broken else dose
    return findings.outcome()


@contextmanager
def people(orders: Orders) -> Iterator[subprocess.Popen[bytes]]:
    """A process of clients, once they set out."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "chaos.crowd"], stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        try:
            assert process.stdin and process.stderr
            process.stdin.write(json.dumps(asdict(orders)).encode())
            process.stdin.close()
            process.stdin = None
            assert process.stderr.readline() == b"here\n", process.stderr.read().decode()
            yield process
        finally:
            process.kill()


def report_of(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err.decode()[-2000:]
    return dict(json.loads(out))


@dataclass(frozen=True)
class Memory:
    """In bytes. What the system keeps for connections is that of the whole machine."""

    own: int
    connections: int


def memory_of_connections() -> int:
    sockstat = Path("/proc/net/sockstat")
    if not sockstat.exists():
        return 0
    return int(sockstat.read_text().partition("\nTCP:")[2].split("mem ")[1].split()[0]) * resource.getpagesize()


@contextmanager
def measured_memory(server: RunningServer) -> Iterator[list[Memory]]:
    """The server's private memory and what the system keeps for connections, again and again: the first is from before."""
    [process] = eventually(server.part("api").children, "the API serves")

    def look() -> Memory:
        return Memory(process.memory_full_info().uss, memory_of_connections())

    sizes = [look()]
    ended = threading.Event()

    def measure() -> None:
        while not ended.wait(0.1):
            sizes.append(look())

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def hold_honest(findings: Findings, seen: dict[str, Any], *, strict: bool, lines: dict[str, int]) -> None:
    findings.broken += seen["faults"]
    findings.hold(len(seen["lines"]) == HONEST, f"{len(seen['lines'])} of {HONEST} honest clients came to the end")
    findings.lost_lines += sum(max(0, lines[job_id] - count) for job_id, count in seen["lines"].values())
    delays, floor = percentiles(seen["delays"]), percentiles(seen["lateness"])
    findings.notes.append(f"{HONEST} honest clients: delay median {delays[0]:.0f} ms, p99 {delays[1]:.0f} ms, max {delays[2]:.0f} ms")
    findings.notes.append(f"a timer's p99 {floor[1]:.0f} ms")
    # A small dose is held against what the machine itself takes at that time, since other tests run beside it.
    most = MOST_DELAY_MS + (0 if strict else floor[1])
    findings.hold(delays[1] < most, f"p99 of the delay was {delays[1]:.0f} ms, of a mere timer {floor[1]:.0f} ms")


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """The median, the 99th and the last, in milliseconds."""
    times = sorted(second * 1000 for second in seconds)
    assert times, "nothing was timed"
    return times[len(times) // 2], times[len(times) * 99 // 100], times[-1]


def hold_small(findings: Findings, memory: list[Memory], *, clients: int) -> None:
    most = MOST_SHARED + clients * MOST_EACH
    for name, sizes in (("memory", [look.own for look in memory]), ("the system's for connections", [look.connections for look in memory])):
        findings.notes.append(f"{name} {sizes[0] >> 20} MiB, at most {max(sizes) >> 20} MiB, {sizes[-1] >> 20} MiB after")
        findings.hold(max(sizes) - sizes[0] < most, f"{name} grew by {(max(sizes) - sizes[0]) >> 20} MiB")


def hold_gone(findings: Findings, server: RunningServer) -> None:
    """Nothing is held for those who went."""

    def clients() -> float:
        text = server.session.get(f"{server.url}/metrics").text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("runcast_clients ")))

    try:
        eventually(lambda: clients() == 0, "nobody is connected", seconds=20)
    except AssertionError:
        findings.broken.append(f"{clients():.0f} clients are still connected")


def hold_crowd(findings: Findings, done: dict[str, Any], mob: Orders, *, seconds: float) -> None:
    """They did what they were to do; else nothing was shown."""
    findings.broken += done["faults"]
    connections: dict[str, int] = done["connections"]
    least = {"silent": mob.silent, "returning": round(mob.returning * seconds * RETURNS), "garbling": mob.garbling}
    for kind, count in least.items():
        findings.hold(connections.get(kind, 0) >= count, f"those {kind} connected {connections.get(kind, 0)} times, not {count}")
    findings.hold(done["subscriptions"] == mob.subscribing, f"one client subscribed only {done['subscriptions']} times")
    findings.hold(done["garbage"] > 20 * mob.garbling, f"only {done['garbage']} pieces of garbage were sent")
    findings.notes += [f"{count} connections {kind}" for kind, count in connections.items()]
    findings.notes.append(f"{done['subscriptions']} subscriptions by one, {done['garbage']} pieces of garbage")


SCENARIOS = (
    Scenario(
        name="subscribers",
        fault="at once: so many that stop reading, so many that reconnect every 100 ms, one that subscribes again and again, and garbage",
        unit="of each kind",
        small=20,
        full=200,
        run=run,
    ),
)
