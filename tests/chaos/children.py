"""Children that misbehave in every way we know, each to its end, cancelled and timed out, on a terminal and on pipes.

Each runs in a folder of its own: whatever it does to its name, its environment and its session, what came from it is found by that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

import psutil

from chaos.invariants import hold_all, hold_api, hold_at_rest, hold_no_processes, hold_nothing_left, stored_lines
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings, colleague
from chaos.witnesses import Witness, hold_witnesses
from support.programs import program
from support.server import RunningServer
from support.waiting import eventually

TASKS = Path(__file__).with_name("tasks.toml")
AT_ONCE = 4
PIECE = 64 << 10
"""Where a line is split that is too long; see section 6 of the design."""
LOG_CAP = 24 << 20
STOP_SECONDS = 1.0 + 5.0
"""What an end may take that a client asks for: the grace of these tasks, and what a busy machine needs."""
TO_THE_END, CANCEL, FORCE, TIMEOUT = "to the end", "cancelled", "cancelled by force", "timed out"
SIGNALS = (
    *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2"),
    *("PIPE", "ALRM", "TERM", "XCPU", "XFSZ", "VTALRM", "PROF", "SYS"),
)

Says = Callable[[bytes, dict[str, Any]], str | None]
"""What is wrong with a raw log and its job, in a few words; nothing when all is well."""


def exactly(expected: bytes) -> Says:
    return lambda raw, _: None if raw == expected else f"the log is not what was written ({len(raw)} of {len(expected)} bytes)"


def begins(expected: bytes) -> Says:
    return lambda raw, _: None if raw.startswith(expected) else f"the log begins with {raw[:60]!r}"


def any_log(_raw: bytes, _job: dict[str, Any]) -> str | None:
    return None


@dataclass(frozen=True)
class Child:
    """One way to misbehave. `ends` runs to its end by itself, `stays` has to be ended, after `text` is in its log.

    `result` is (status, reason, exit code, signal) of the former; `says` holds for the log of both.
    """

    name: str
    ends: str | None
    stays: str | None
    text: str = ""
    result: tuple[str, str | None, int | None, str | None] = ("completed", None, 0, None)
    says: Says = any_log
    stays_says: Says = any_log
    flood: bool = False
    """It writes more than a log keeps, and than a witness in Python reads as fast as it comes."""
    heavy: bool = False
    """Only for `make chaos`."""

    def said(self, log: bytes) -> bool:
        """Whether `text` is in it; line ends alone are a number of lines."""
        return self.text.encode() in log if self.text.strip() else log.count(b"\n") >= len(self.text)


def number_after_number(raw: bytes, _job: dict[str, Any]) -> str | None:
    lines = raw.decode().split("\n")
    whole = lines[:-1]
    wrong = whole != [f"line {number}" for number in range(1, len(whole) + 1)] or not f"line {len(whole) + 1}".startswith(lines[-1])
    return "lines are missing, or out of order" if wrong or not whole else None


def one_endless_line(raw: bytes, job: dict[str, Any]) -> str | None:
    if raw.strip(b"x"):
        return "something else than the line was logged"
    return None if job["log"]["lines"] == ceil(len(raw) / PIECE) else f"{len(raw)} bytes were split into {job['log']['lines']} lines"


def split_long_line(length: int) -> Says:
    pattern = b"0123456789abcdef"
    whole = b"before\n" + (pattern * (length // len(pattern) + 1))[:length] + b"\nafter\n"

    def says(raw: bytes, job: dict[str, Any]) -> str | None:
        if raw != whole:
            return f"the log is not what was written ({len(raw)} of {len(whole)} bytes)"
        return None if job["log"]["lines"] == 2 + ceil(length / PIECE) else f"it was split into {job['log']['lines']} lines"

    return says


def head_and_tail(raw: bytes, job: dict[str, Any]) -> str | None:
    """A log of numbered lines, perhaps over its cap: head and tail are kept whole, in between a gap that the log tells of. Its last line
    may be cut."""
    head, told, tail = raw.partition(b"[runcast: lines ")
    whole = head + tail.partition(b"\n")[2]
    *lines, cut = whole.split(b"\n")
    count = job["log"]["lines"] - bool(cut)
    first, last = (int(word) for word in tail.split(b" were dropped")[0].split(b" to ")) if told else (count + 1, count)
    expected = [*range(1, first), *range(last + 1, count + 1)]
    if not lines or [int(line.split()[1]) for line in lines] != expected:
        return f"the log has other lines than 1 to {count} without {first} to {last}"
    if job["log"]["dropped_lines"] != last - first + 1:
        return f"the job counts {job['log']}, its log says {first} to {last}"
    if told and len(head) < LOG_CAP // 4:
        return f"{len(head)} bytes are kept of the head"
    return None if len(whole) <= LOG_CAP else f"{len(whole)} bytes are kept"


def in_number(lines: int) -> Says:
    """So many lines were written, more than a log keeps."""

    def says(raw: bytes, job: dict[str, Any]) -> str | None:
        if job["log"]["lines"] != lines or not job["log"]["dropped_lines"]:
            return f"the job counts {job['log']}, not {lines} lines with a gap"
        return head_and_tail(raw, job)

    return says


def pids(at_most: int) -> Says:
    """One number a line, none twice."""

    def says(raw: bytes, _job: dict[str, Any]) -> str | None:
        numbers = raw.split()
        well = all(number.isdigit() for number in numbers) and len(set(numbers)) == len(numbers) == raw.count(b"\n") <= at_most
        return None if well else f"{len(numbers)} pids, {len(set(numbers))} of them different, in {raw.count(chr(10).encode())} lines"

    return says


def then_stay(script: str) -> str:
    """Without `exec`, so that the shell runs on, and says so."""
    return f"{script.removeprefix('exec ')}; echo; echo staying; sleep 600"


BYTES = b"before\nlone \x80 byte\ncut \xe2\x82\noverlong \xc0\xaf\nsurrogate \xed\xa0\x80\nnull \x00 byte\nafter \xc3\xbc\n"
BIG_LINES, BIG_WIDTH = 1_000_000, 200
CHILDREN: Sequence[Child] = (
    Child(
        "fork storm",
        program("multiplies", "--processes", 80, "--leave"),
        program("multiplies", "--processes", 80),
        text="\n" * 60,
        says=pids(80),
        stays_says=pids(80),
    ),
    Child(
        "double fork with setsid",
        program("setsid_grandchild"),
        program("setsid_grandchild", "--stay", "--ignore-sigterm"),
        "started",
        says=exactly(b"started\n"),
        stays_says=exactly(b"started\n"),
    ),
    Child(
        "daemon with an empty environment",
        program("setsid_grandchild", "--clean-env"),
        program("setsid_grandchild", "--clean-env", "--stay"),
        "started",
        says=exactly(b"started\n"),
        stays_says=exactly(b"started\n"),
    ),
    Child(
        "SIGTERM ignored",
        program("ignores_sigterm", "--seconds", 0.3),
        program("ignores_sigterm"),
        "ready",
        says=exactly(b"ready\n"),
        stays_says=exactly(b"ready\n"),
    ),
    Child(
        "SIGSTOPped",
        program("stops_itself", "--continue"),
        program("stops_itself"),
        "stopping",
        says=exactly(b"stopping\ngoing on\n"),
        stays_says=begins(b"stopping\n"),
    ),
    Child(
        "closed stdout",
        program("closes_output", "--code", 3),
        program("closes_output", "--stay"),
        "closing",
        result=("failed", "exit_code", 3, None),
        says=exactly(b"closing\n"),
        stays_says=exactly(b"closing\n"),
    ),
    Child(
        "10 MB line",
        program("long_line", "--bytes", 10_000_000),
        then_stay(program("long_line", "--bytes", 10_000_000)),
        "staying",
        says=split_long_line(10_000_000),
        stays_says=begins(b"before\n0123456789"),
    ),
    Child(
        "no newline ever",
        program("no_newline_ever", "--bytes", 1_000_000),
        program("no_newline_ever", "--bytes", 1 << 40, "--pause", 0.002),
        "xxxx",
        says=one_endless_line,
        stays_says=one_endless_line,
    ),
    Child(
        "NUL and invalid UTF-8",
        program("invalid_utf8"),
        then_stay(program("invalid_utf8")),
        "staying",
        says=exactly(BYTES),
        stays_says=begins(BYTES),
    ),
    Child(
        "zombie maker",
        program("makes_zombies"),
        program("makes_zombies", "--stay"),
        "made",
        says=exactly(b"made\n"),
        stays_says=exactly(b"made\n"),
    ),
    Child(
        "writes after exit through an inherited pipe",
        program("writes_after_exit"),
        program("writes_after_exit", "--stay"),
        "line 20",
        says=number_after_number,
        stays_says=number_after_number,
    ),
    Child(
        "changes its title and environment",
        program("hides"),
        program("hides", "--stay"),
        "hidden",
        says=exactly(b"hidden\n"),
        stays_says=exactly(b"hidden\n"),
    ),
    Child(
        "hides and ignores SIGTERM",
        program("hides", "--ignore-sigterm"),
        program("hides", "--stay", "--ignore-sigterm"),
        "hidden",
        says=exactly(b"hidden\n"),
        stays_says=exactly(b"hidden\n"),
    ),
    Child("runs away from process to process", program("runaway"), None, says=exactly(b"running\n")),
    *(
        Child(f"ends by SIG{name}", program("killed_by", f"SIG{name}"), None, result=("failed", "signal", None, f"SIG{name}"))
        for name in SIGNALS
    ),
    Child(
        "200 MB of output",
        program("numbered_lines", BIG_LINES, "--bytes", BIG_WIDTH),
        then_stay(program("numbered_lines", BIG_LINES, "--bytes", BIG_WIDTH)),
        "staying",
        says=in_number(BIG_LINES),
        flood=True,
        heavy=True,
    ),
    Child(
        "output without an end",
        None,
        program("numbered_lines", 1000 * BIG_LINES, "--bytes", BIG_WIDTH),
        "line",
        stays_says=head_and_tail,
        flood=True,
    ),
)


@dataclass(frozen=True)
class Case:
    child: Child
    ending: str
    task: str

    @property
    def name(self) -> str:
        return f"{self.child.name}, {self.ending}, on {'a terminal' if self.task == 'terminal' else 'pipes'}"


def cases() -> list[Case]:
    """Every child in every way."""
    return [
        Case(child, ending, task)
        for child, ending, task in product(CHILDREN, (TO_THE_END, CANCEL, FORCE, TIMEOUT), ("pipes", "terminal"))
        if (child.ends if ending == TO_THE_END else child.stays) is not None
    ]


def chosen(dose: int, rng: Random) -> list[Case]:
    """So many cases; of few, each child is one, but for those that ends by signals, which are alike, and the heavy ones."""
    every = cases()
    rng.shuffle(every)
    if dose >= len(every):
        return every
    light = [case for case in every if not case.child.heavy]
    first = {("signal" if case.child.result[1] == "signal" else case.child.name): case for case in light}
    rest = [case for case in light if case not in first.values()]
    return [*first.values(), *rest][:dose]


def run(dose: int, rng: Random, folder: Path) -> Outcome:
    findings, surroundings = Findings(), Surroundings.make(folder)
    workspace = folder / "workspace"
    workspace.mkdir()
    plan = chosen(dose, rng)
    jobs: list[str] = []
    took: dict[str, list[float]] = {}

    def one(number: int, case: Case) -> None:
        place = workspace / f"case-{number}"
        place.mkdir()
        findings.done += 1
        with colleague(server) as mine:
            try:
                faults = misbehave(mine, case, place, jobs, witness=witness, took=took.setdefault(case.ending, []))
            except Exception as error:
                faults = [f"{type(error).__name__}: {error}"]
        findings.survived += not faults
        findings.broken += [f"{case.name}: {fault}" for fault in faults]

    with surroundings.serve(slots=AT_ONCE, tasks=TASKS, workspace=workspace, log_cap=LOG_CAP) as server:
        with Witness(server, "the witness") as witness:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(one, range(len(plan)), plan))
            hold_witnesses(findings, [witness], logs={})
            hold_seen(findings, witness, surroundings)
        hold_api(findings, server, surroundings, accepted=jobs)
        hold_no_processes(findings, jobs)
        hold_at_rest(findings, server, surroundings)
        server.assert_clean()
    findings.recoveries += [*took.get(CANCEL, ()), *took.get(FORCE, ())]
    hold_all(findings, surroundings, accepted=jobs)
    hold_nothing_left(findings, surroundings)
    findings.left_processes += len(left_in(workspace))
    return findings.outcome()


def hold_seen(findings: Findings, witness: Witness, surroundings: Surroundings) -> None:
    """It saw what is stored: all of it together, because lines that are too long are stored in pieces."""
    findings.hold(witness.seen, "nobody watched")
    for job_id, seen in witness.seen.items():
        same = "".join(seen.lines) == "".join(stored_lines(surroundings.database, job_id))
        findings.hold(same, f"{witness.name} saw something else of job {job_id} than is stored")


def misbehave(server: RunningServer, case: Case, place: Path, jobs: list[str], *, witness: Witness, took: list[float]) -> list[str]:
    """Run one child in its folder and end it; gives what is wrong. `took` gets the seconds from a cancel to the end of all."""
    child, ending = case.child, case.ending
    script = child.ends if ending == TO_THE_END else child.stays
    timeout = {"timeout_seconds": 2} if ending == TIMEOUT else {}
    params = {"task": case.task, "inputs": {"folder": place.name, "script": script}}
    job_id = server.submit({"type": "task", "params": params, **timeout})["id"]
    jobs.append(job_id)
    if not child.flood:
        witness.watch(job_id)
    if ending in (CANCEL, FORCE):
        wait_until_said(server, job_id, child)
        assert server.call("POST", f"/jobs/{job_id}/cancel", json={"force": ending == FORCE}).status_code == 202
    cancelled = time.monotonic()
    job = server.wait(job_id, seconds=120)
    took.append(time.monotonic() - cancelled)
    left = left_in(place)  # at once: who sees the end finds nothing left
    faults = [f"process {process.pid} was left" for process in left]
    faults += wrong_end(job, child, ending)
    if ending in (CANCEL, FORCE) and took[-1] > STOP_SECONDS:
        faults.append(f"it took {took[-1]:.1f} s to end")
    raw = server.call("GET", f"/jobs/{job_id}/log", headers={"Accept": "text/plain"}, timeout=60).content
    # What was timed out may not have come so far.
    says = child.says if ending == TO_THE_END else child.stays_says if child.said(raw) else any_log
    if fault := says(raw, job):
        faults.append(fault)
    return faults


def wrong_end(job: dict[str, Any], child: Child, ending: str) -> list[str]:
    told = (job["status"], job["reason"])
    expected = {CANCEL: ("cancelled", "cancelled_by_client"), TIMEOUT: ("failed", "timeout")}
    expected[FORCE] = expected[CANCEL]
    if ending != TO_THE_END:
        return [] if told == expected[ending] else [f"it is {told}"]
    all_told = (*told, job["exit_code"], job["signal"])
    return [] if all_told == child.result else [f"it ended as {all_told}"]


def wait_until_said(server: RunningServer, job_id: str, child: Child) -> None:
    def said() -> bool:
        lines = server.call("GET", f"/jobs/{job_id}/log", params={"tail": max(20, child.text.count("\n") + 1)}).json()["lines"]
        return child.said("".join(line["text"] + "\n" for line in lines).encode(errors="replace"))

    eventually(said, f"{child.text[:20]!r} is in the log", seconds=60)


def left_in(folder: Path) -> list[psutil.Process]:
    """The running processes whose working directory is in a folder: by what they cannot hide, unless they go elsewhere."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


SCENARIOS = (
    Scenario(
        name="children",
        fault="children that misbehave: to the end, with cancel, by force, with timeout, on a terminal and on pipes",
        unit="children",
        small=16,
        full=len(cases()),
        run=run,
    ),
)
