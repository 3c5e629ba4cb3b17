"""Whatever a job prints, what is told of its progress, its result and its readiness is bounded, never goes back, and fits the contract."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from handlers.contract.document import Contract
from handlers.events.payloads import progress_payload
from jobs.execution.output import BLOCK_BYTES, RESULT_DEPTH, OutputScanner
from jobs.execution.progress import MESSAGE_CHARACTERS, ProgressParser, ProgressTracker
from jobs.model import Progress
from support.streams import cuts, in_writes, output, raw, stored

JOB = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"

numbers = st.one_of(st.integers(0, 120).map(str), st.from_regex(r"\d{1,20}(\.\d{1,10})?", fullmatch=True), st.just("٣"), st.just("1e400"))
marks = st.sampled_from(
    ["[", "]", "/", "%", " ", "[===>  ]", "━━━", "step ", "Downloading ", "done", "::progress ", "\r", "\n", "\x1b[32m", "é"]
)
talk = st.lists(st.one_of(numbers, marks), max_size=30).map("".join).map(str.encode)
"""Much that looks like progress."""
anything = st.one_of(talk, output(b"::progress 7 x\n", b"::progress 3\n", b"::result {}\n"), st.binary(max_size=200))

PATTERNS = [
    r"(?P<percent>\S+)%",
    r"(?P<done>\S+)/(?P<total>\S+)",
    r"(?P<done>[-\d.e]+) of (?P<total>[-\d.e]+) (?P<message>.*)",
    r"(?:(?P<percent>\d+)|x)(?P<message>.*)?",
]
patterns = st.lists(st.sampled_from(PATTERNS), max_size=2)


def check(progress: Progress) -> None:
    assert progress.percent is None or (math.isfinite(progress.percent) and 0 <= progress.percent <= 100)
    if progress.message is not None:
        assert 0 < len(progress.message) <= MESSAGE_CHARACTERS
        assert progress.message.isprintable() or not any(ord(character) < 32 for character in progress.message)
    json.dumps(progress.message, ensure_ascii=False).encode()
    assert Contract.load().event_violations("progress", progress_payload(JOB, progress)) == []


@given(anything, patterns, st.booleans())
@example(b"nan% inf% -5%\n", [PATTERNS[0]], False)
@example(b"1e308/1e-308\n", [PATTERNS[1]], False)
@example(b"-1/-0\n", [PATTERNS[1]], False)
def test_found_progress_is_bounded(data: bytes, declared: list[str], unfinished: bool) -> None:
    progress = ProgressParser(declared).parse(data, unfinished=unfinished)
    if progress is not None:
        check(progress)


@given(st.lists(anything, max_size=6), patterns, cuts)
def test_progress_never_decreases_however_output_is_split(parts: list[bytes], declared: list[str], at: list[int]) -> None:
    scanner = OutputScanner(patterns=declared, ready=r"(?P<a>\d+)|(?P<b>x)")
    tracker, percent = ProgressTracker(), None
    for write in in_writes(b"".join(parts), at):
        stored([write], scanner=scanner)
        said = scanner.take_findings()
        latest = tracker.offer(said.progress) if said.progress else None
        if latest is not None:
            check(latest)
            assert percent is None or (latest.percent is not None and latest.percent >= percent)
            percent = latest.percent


@given(st.lists(st.builds(Progress, st.none() | st.floats(-10, 110), st.none() | st.text(max_size=3)), max_size=20))
def test_the_tracker_only_advances_and_reports_only_changes(offers: list[Progress]) -> None:
    tracker, known = ProgressTracker(), Progress()
    for offer in offers:
        latest = tracker.offer(offer)
        if latest is None:
            continue
        assert latest != known
        assert (latest.percent or 0) >= (known.percent or 0)
        assert latest.message == (offer.message or known.message)
        known = latest
    percents = [min(100.0, max(0.0, offer.percent)) for offer in offers if offer.percent is not None]
    assert known.percent == max(percents, default=None)


FORMATS = {
    "ninja": "[{done}/{total}] Building x.o\n",
    "BuildKit": "#7 [{done}/{total}] RUN make\n",
    "docker": "Step {done}/{total} : RUN make\n",
    "cargo": "   Building [====>      ] {done}/{total}: serde\n",
    "make": "[{percent:3d}%] Building C object x.o\n",
    "pytest": "tests/test_x.py ........ [{percent:3d}%]\n",
    "git": "Receiving objects: {percent:3d}% (5/11), 1.2 MiB\r",
    "wget": "{percent:3d}%[====>    ] 1,234\r",
    "own": "::progress {percent} building\n",
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
@given(
    total=st.integers(2, 99_999),
    share=st.floats(0, 1),
    colour=st.sampled_from(["", "\x1b[1;32m"]),
    before=st.sampled_from(["", "plain\n"]),
)
def test_progress_of_common_tools_is_understood(form: str, total: int, share: float, colour: str, before: str) -> None:
    done, percent = int(total * share), int(100 * share)
    assume(not (colour and form.startswith("::")))  # a directive begins its line
    text = before + colour + form.format(done=done, total=total, percent=percent)
    scanner = OutputScanner()
    stored([text.encode()], scanner=scanner)
    progress = scanner.take_findings().progress
    assert progress is not None, text
    assert progress.percent == (round(100 * done / total, 1) if "done" in form else percent)


texts = st.text(st.characters(exclude_categories=()), max_size=20)
"""Halves of surrogate pairs among them."""
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12)


def is_result(line: bytes) -> Any:
    """The plain definition: a JSON object in UTF-8, which any client can read again as it was meant."""
    try:
        value = json.loads(line.decode("utf-8"), parse_int=lambda digits: int(digits) if math.isfinite(float(digits)) else math.nan)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@given(values, st.booleans(), st.sampled_from(["\n", "\r\n", ""]), cuts)
@example({"a": 10**308}, True, "\n", [])
@example({"a": 10**400}, True, "\n", [])
@example({"a": [-(10**400)]}, True, "\n", [])
@example({"a": "\ud83d"}, True, "\n", [])
def test_a_result_is_taken_entirely_or_left_in_the_log(value: Any, ascii_only: bool, end: str, at: list[int]) -> None:
    argument = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    line = b"::result " + argument + end.encode()
    scanner = OutputScanner()
    log = raw(stored(in_writes(line, at), scanner=scanner))
    result = scanner.take_findings().result
    assert result == is_result(argument)
    assert log == (line if result is None else b"")
    if result is not None:
        assert Contract.load().event_violations("complete", _complete(result)) == []


@given(st.integers(1, 2 * RESULT_DEPTH), st.sampled_from(["[]", '{"k":}']), st.integers(0, 2 * BLOCK_BYTES))
def test_a_result_is_bounded_in_depth_and_length(levels: int, bracket: str, filler: int) -> None:
    nested = bracket[:-1] * levels + ("" if bracket == "[]" else "1") + bracket[-1] * levels
    line = f'::result {{"a": {nested}, "b": "{"x" * filler}"}}\n'.encode()
    scanner = OutputScanner()
    log = raw(stored([line], scanner=scanner))
    result = scanner.take_findings().result
    assert (result is not None) == (levels < RESULT_DEPTH and len(line) <= BLOCK_BYTES)
    assert log == (b"" if result is not None else line)


@given(st.binary(max_size=100).filter(lambda data: b"\n" not in data and b"\r" not in data))
def test_a_forged_directive_causes_no_error(argument: bytes) -> None:
    for word in (b"::result ", b"::progress "):
        scanner = OutputScanner()
        log = raw(stored([word + argument + b"\n"], scanner=scanner))
        said = scanner.take_findings()
        assert (log == b"") == (said.result is not None or log != word + argument + b"\n")
        if said.progress is not None:
            check(said.progress)


def _complete(result: Any) -> dict[str, Any]:
    ended = {"status": "completed", "reason": None, "exit_code": 0, "duration_seconds": 1.0, "log_lines": 0}
    return {"job_id": JOB, **ended, "result": result}
