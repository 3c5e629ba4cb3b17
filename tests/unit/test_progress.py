"""What counts as progress, on recorded output of real tools, and what must not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.execution.progress import MESSAGE_CHARACTERS, TAIL_BYTES, ProgressParser, ProgressTracker
from jobs.model import Progress

RECORDED = Path(__file__).parents[1] / "data" / "progress"


def found(recording: str) -> list[float | None]:
    """The different percentages that are found when every text of a recording arrives by itself, in order."""
    parser, tracker = ProgressParser(), ProgressTracker()
    percents: list[float | None] = []
    for text in re.findall(rb"\r?[^\r\n]+(?:\r?\n)?", (RECORDED / recording).read_bytes()):
        progress = parser.parse(text)
        latest = tracker.offer(progress) if progress else None
        if latest and latest.percent not in percents[-1:]:
            percents.append(latest.percent)
    return percents


@pytest.mark.parametrize(
    ("recording", "percents"),
    [
        ("ninja.txt", [14.3, 28.6, 42.9, 57.1, 71.4, 85.7, 100.0]),
        ("ninja_terminal.txt", [0.0, 14.3, 28.6, 42.9, 57.1, 71.4, 85.7, 100.0]),
        ("make.txt", [14.0, 28.0, 42.0, 57.0, 71.0, 85.0, 100.0]),
        ("ctest.txt", [33.3, 66.7, 100.0]),
        ("pytest.txt", [33.0, 66.0, 100.0]),
        ("pip.txt", [0.0, 100.0]),
        ("wget_bar.txt", [0.0, 21.0, 42.0, 63.0, 84.0, 100.0]),
        ("wget_dots.txt", [5.0, 18.0, 32.0, 46.0, 59.0, 73.0, 87.0, 100.0]),
        ("curl_bar.txt", [100.0]),
        ("npm.txt", []),
    ],
)
def test_progress_of_recorded_tools(recording: str, percents: list[float]) -> None:
    assert found(recording) == percents


def test_git_counts_from_the_transfer_on() -> None:
    percents = found("git_clone.txt")
    assert len(percents) > 10
    assert percents[0] is not None and percents[0] < 10
    assert percents[-1] == 100.0


@pytest.mark.parametrize(
    ("line", "percent", "message"),
    [
        (b"[12/345] Building CXX object a.o\n", 3.5, "Building CXX object a.o"),
        (b"\x1b[32m[12/48]\x1b[0m \x1b[1mLinking\x1b[0m app\n", 25.0, "Linking app"),
        (b"[ 45%] Building C object x.o\n", 45.0, "Building C object x.o"),
        (b"#7 [build 2/5] RUN make\n", 40.0, "RUN make"),
        (b"Step 2/5 : RUN make\n", 40.0, "RUN make"),
        (b"   Building [=====>             ] 12/48: serde, syn\n", 25.0, None),
        (b"45%\n", 45.0, None),
        (b"45% building modules\r\n", 45.0, "building modules"),
        (b"45.5 %\n", 45.5, None),
        (b"progress: 45%\n", 45.0, None),
        (b"Downloading core 45%\n", 45.0, None),
        (b"Receiving objects:  45% (5/11)\n", 45.0, None),
        (b"core ... 45%\n", 45.0, None),
        ("████████░░░░ 45%\n".encode(), 45.0, None),
        (b"about 45% done\n", 45.0, None),
        (b"tests/test_x.py ........  [ 45%]\n", 45.0, None),
        (b"  1,234,567  45%   12.3MB/s    0:00:12\r", 45.0, None),
        (b"\rcompiled 12/48 files", 25.0, None),
        (b"first\rcompiled 12/48 files\n", 25.0, None),
        (b"0%\n", 0.0, None),
    ],
)
def test_text_that_is_progress(line: bytes, percent: float, message: str | None) -> None:
    assert ProgressParser().parse(line) == Progress(percent=percent, message=message)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"no numbers\n",
        b"coverage: 85%\n",
        b"TOTAL                  500     20    96%\n",
        b"jobs/execution/process.py        120     12    90%   45-47\n",
        b"CPU 93% MEM 12%\n",
        b"now 30% faster than before\n",
        b"30% faster\n",
        b"GET /a%20b%20c HTTP/1.1\n",
        b"width: 45%;\n",
        b"format '%d%%' used 45%d\n",
        b"2024/12/24 10:00:00 starting 3/4\n",
        b"12/24 10:00:00 starting\n",
        b"cc -c src/1/2.c -o out/12/34.o\n",
        b"[1/1] Cleaning\n",
        b"[12/3] more than all\n",
        b"[0/0] nothing\n",
        b"[ 145%] too much\n",
        b"remote: Counting objects: 100% (77/77), done.\n",
        b"remote: Compressing objects:  45% (33/73)\r",
        b"ratio 3/4 of it\n",
    ],
)
def test_text_that_is_not_progress(line: bytes) -> None:
    assert ProgressParser().parse(line) is None


def test_the_newest_progress_counts() -> None:
    assert ProgressParser().parse(b"[1/4] a\n[2/4] b\nplain\n[3/4] c\nplain\n") == Progress(75.0, "c")
    assert ProgressParser().parse(b"10%\r20%\r30%\r\nplain\n") == Progress(30.0, None)


def test_only_the_end_of_a_large_block_is_read_and_no_number_cut() -> None:
    parser = ProgressParser()
    assert parser.parse(b"[1/4] a\n" + b"plain\n" * TAIL_BYTES) is None
    assert parser.parse(b"plain\n" * TAIL_BYTES + b"[3/4] c\n") == Progress(75.0, "c")
    for cut in range(1, 8):
        assert parser.parse(b"[3/4] 45%\n" + b"x" * (TAIL_BYTES - cut) + b"\n") is None


def test_an_incomplete_rewrite_is_read_without_half_numbers() -> None:
    parser = ProgressParser()
    assert parser.parse(b"\r[ 45%] Buil", unfinished=True) == Progress(45.0, None)
    assert parser.parse(b"\r45", unfinished=True) is None
    assert parser.parse(b"\rfiles 1/2", unfinished=True) is None
    assert parser.parse(b"\rfiles 1/25 ", unfinished=True) == Progress(4.0, None)
    assert ProgressParser([r"(?P<percent>\d+)"]).parse(b"\r45", unfinished=True) is None


def test_declared_patterns_replace_the_built_in_ones() -> None:
    parser = ProgressParser([r"part (?P<done>\d+) of (?P<total>[\d,]+)(?:: (?P<message>\w+))?", r"at (?P<percent>[\d.,]+) percent"])
    assert parser.parse(b"[3/4] 45%\n") is None
    assert parser.parse(b"part 250 of 1,000: linking now\n") == Progress(25.0, "linking")
    assert parser.parse(b"part 3 of 4\nat 12,5 percent\n") == Progress(12.5, None)
    assert parser.parse(b"\x1b[1mpart 9\x1b[0m of 4\n") == Progress(100.0, None)
    assert parser.parse(b"part 3 of 0\nnothing\n") is None


def test_declared_patterns_match_within_one_line() -> None:
    assert ProgressParser([r"^at\s+(?P<percent>\d+)$"]).parse(b"at\n7\nat 8\r\nmore\n") == Progress(8.0, None)
    assert ProgressParser([r"^at\s+(?P<percent>\d+)$"]).parse(b"at\n7\n") is None


@pytest.mark.parametrize(
    ("text", "percent"), [("nan", None), ("inf", None), ("1e999", None), ("", None), (".", None), ("-1", 0.0), ("101", 100.0)]
)
def test_nonsense_found_by_declared_patterns_is_ignored(text: str, percent: float | None) -> None:
    progress = ProgressParser([r"at (?P<percent>.*)"]).parse(f"at {text}\n".encode())
    assert progress == (None if percent is None else Progress(percent))


@pytest.mark.parametrize("pattern", ["(", r"\d+", "(?P<done>x)", "(?P<total>x)", "(?P<message>x)"])
def test_unusable_progress_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="the progress pattern"):
        ProgressParser([pattern])


def test_a_message_is_short_plain_and_on_one_line() -> None:
    progress = ProgressParser().parse(b"[1/4] \x1b[31ma\tb\x00c\x1b[0m  " + b"x" * 1000 + b"\n")
    assert progress and progress.message
    assert progress.message.startswith("a b c  xxx")
    assert len(progress.message) == MESSAGE_CHARACTERS


def test_progress_never_decreases_but_the_message_changes() -> None:
    tracker = ProgressTracker()
    assert tracker.offer(Progress(10.0, "a")) == Progress(10.0, "a")
    assert tracker.offer(Progress(10.0, "a")) is None
    assert tracker.offer(Progress(5.0, "a")) is None
    assert tracker.offer(Progress(5.0, None)) is None
    assert tracker.offer(Progress(20.0, None)) == Progress(20.0, "a")
    assert tracker.offer(Progress(20.0, "b")) == Progress(20.0, "b")
    assert tracker.offer(Progress(3.0, "second phase")) == Progress(20.0, "second phase")
    assert tracker.offer(Progress(None, "c")) == Progress(20.0, "c")
    assert tracker.offer(Progress(250.0, None)) == Progress(100.0, "c")


def test_unknown_progress_is_not_zero() -> None:
    tracker = ProgressTracker()
    assert tracker.offer(Progress()) is None
    assert tracker.offer(Progress(None, "a")) == Progress(None, "a")
    assert tracker.offer(Progress(0.0)) == Progress(0.0, "a")


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(min_value=-50, max_value=150), max_size=30))
def test_percentages_only_rise_and_stay_in_bounds(offered: list[float]) -> None:
    tracker = ProgressTracker()
    latest = [progress.percent for percent in offered if (progress := tracker.offer(Progress(percent)))]
    assert all(percent is not None and 0 <= percent <= 100 for percent in latest)
    assert latest == sorted(set(latest), key=lambda percent: percent or 0.0)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_progress_accepts_any_bytes(data: bytes) -> None:
    for parser in (ProgressParser(), ProgressParser([r"(?P<done>\d+).(?P<total>\d+)"])):
        for unfinished in (False, True):
            progress = parser.parse(data, unfinished=unfinished)
            assert progress is None or (progress.percent is not None and 0 <= progress.percent <= 100)
