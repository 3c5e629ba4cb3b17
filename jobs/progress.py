"""How far a job is, read from what it prints. Pure: text in, `Progress` out; no I/O and no time.

What counts when a recipe declares no patterns of its own:

* a step count that begins a line, `[12/345] Building x` (ninja), `#5 [2/5] RUN x` (BuildKit), `Step 2/5 : RUN x`, `3/10 Test` (ctest),
  or that follows a bar, `[===>  ] 12/345` (cargo), `━━━━ 1.2/2.4 MB` (pip);
* a percentage in brackets anywhere: `[ 45%] Building x` (make, CMake), `tests/test_x.py ... [ 45%]` (pytest);
* any percentage or count on a line that is being redrawn, with a bare `\\r` at one of its ends: git, rsync, wget, curl;
* on other lines a percentage that begins the line, follows a bar, dots, the word "progress" or what is being done ("Downloading",
  "Receiving objects:"), or stands before "done" or "complete".

A percentage that measures something else is no progress: `coverage: 85%`, `TOTAL 120 12 90%`, `CPU 93%`, `a%20b`. Some prose slips
through ("Checking coverage: 85%"). A recipe that declares patterns is free of all this: only its own are used then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from jobs.model import Progress

TAIL_BYTES = 8192
"""How much of a block's end is looked at: progress is about now, and what is further up in the same read is past."""
MESSAGE_CHARACTERS = 200

_HINT = re.compile(rb"[0-9] ?%|[0-9](?:/| of )[0-9]")
_BREAK = re.compile(rb"[\r\n]")
_TEXT = re.compile(r"(?P<before>\r?)(?P<text>[^\r\n]+)(?P<after>\r(?!\r*\n))?")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_NUMBER = r"\d{1,12}(?:\.\d{1,6})?"
_BAR = r"(?:\[[=#*>.\- ]{3,}\]|[━╸╺█▓▒░▏▎▍▌▋▊▉]{2,}|[.=#]{3,}>?)\s*"
_PERCENT = rf"(?<![\w.,%+/=~\-])(?P<percent>{_NUMBER}) ?%(?![\w%;'\"])"
_DOING = (
    r"\b(?:(?:down|up)?load|install|build|compil|link|copy|process|writ|read|updat|extract|(?:un)?pack|fetch|receiv|resolv|count|compress"
    r"|check|clon|generat|render|convert|encod|index|prepar|transfer|bundl|configur|optimi[sz]|sync|push|pull|cook|stag)\w*ing\b"
)


def _rules(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


_ORDINARY = _rules(
    r"^\s*(?:#\d+ +|=> +)?\[ *(?:[\w-]+ +)?(?P<done>\d+)/(?P<total>\d+)\]\s*(?P<message>.*)",
    r"^\s*(?:step|task)\s+(?P<done>\d+) ?/ ?(?P<total>\d+)\b[\s:]*(?P<message>.*)",
    r"^\s*(?P<done>\d+)/(?P<total>\d+)\s+test\b",
    r"\[ *(?P<percent>\d{1,3}(?:\.\d+)?) ?%\]\s*(?P<message>.*)",
    rf"^\s*{_PERCENT}(?!\s*(?:faster|slower|smaller|larger|less|more|coverage|packet|used|free|cpu|memory))\s*(?P<message>[^\W\d_].*)?",
    rf"{_BAR}{_PERCENT}",
    rf"{_BAR}(?P<done>{_NUMBER})/(?P<total>{_NUMBER})(?![\w/.])",
    rf"(?:\bprogress\b|{_DOING})[^%\d]{{0,60}}{_PERCENT}",
    rf"{_PERCENT}\s*(?:done|complete)",
)
_REDRAWN = (
    *_ORDINARY,
    *_rules(_PERCENT, rf"(?<![\w./:\-])(?P<done>{_NUMBER})(?:/| of )(?P<total>{_NUMBER})(?![\w./:])"),
)


class ProgressParser:
    """Finds the newest progress in a piece of output: by `patterns` alone if there are any, by those of common tools otherwise.

    A pattern has groups named `done` and `total`, or `percent`, and perhaps `message`; it is searched for in each line, without
    its colours. Raises ValueError when one is not a regular expression or names no such groups.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._declared = tuple(_declared(pattern) for pattern in patterns)

    def parse(self, data: bytes, *, unfinished: bool = False) -> Progress | None:
        """`data` is whole lines or rewrites of one, or (`unfinished`) the beginning of a line of which more will come.

        Built-in patterns cannot read a number before its last digit is there. A declared one could, so that it has to wait.
        """
        if self._declared:
            return None if unfinished else self._search(data)
        return self._search(data) if _HINT.search(data, max(0, len(data) - TAIL_BYTES)) else None

    def _search(self, data: bytes) -> Progress | None:
        for text, redrawn in _newest_first(data):
            rules = self._declared or (_REDRAWN if redrawn else _ORDINARY)
            for rule in rules:
                if (found := rule.search(text)) and (progress := _progress(found, clamp=bool(self._declared))):
                    return progress
        return None


class ProgressTracker:
    """What a job's progress is, over all that was found. The percentage never goes back; the message is always the newest."""

    def __init__(self) -> None:
        self._current = Progress()

    def offer(self, progress: Progress) -> Progress | None:
        """The progress as it is now if `progress` changed it. What it leaves open (None) stays as it was."""
        known, offered = self._current.percent, progress.percent
        percent = known if offered is None else max(known or 0.0, min(100.0, max(0.0, offered)))
        latest = Progress(percent=percent, message=progress.message or self._current.message)
        if latest == self._current:
            return None
        self._current = latest
        return latest


def plain(text: str) -> str:
    """`text` without colours and cursor movements."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def tidy(message: str) -> str | None:
    """A message fit to be shown: one line, no colours, not too long. None when nothing is left of it."""
    return _CONTROL.sub(" ", plain(message)).strip()[:MESSAGE_CHARACTERS] or None


def _declared(pattern: str) -> re.Pattern[str]:
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the progress pattern {pattern!r} is not a regular expression: {error}") from error
    if not {"done", "total"} <= rule.groupindex.keys() and "percent" not in rule.groupindex:
        raise ValueError(f"the progress pattern {pattern!r} needs groups named 'done' and 'total', or 'percent'")
    return rule


def _newest_first(data: bytes) -> Iterator[tuple[str, bool]]:
    """The texts at the end of `data`, each with whether it is being redrawn."""
    start = len(data) - TAIL_BYTES
    if start > 0:
        line_end = _BREAK.search(data, start)  # a text that begins before the tail could be cut within a number
        start = line_end.start() if line_end else len(data)
    tail = data[max(0, start) :].decode("utf-8", "replace")
    for found in reversed(list(_TEXT.finditer(tail))):
        yield plain(found["text"]), bool(found["before"] or found["after"])


def _progress(found: re.Match[str], *, clamp: bool) -> Progress | None:
    groups = found.groupdict()
    percent = _percentage(groups)
    if percent is None or math.isnan(percent) or not (clamp or 0 <= percent <= 100):
        return None
    return Progress(percent=min(100.0, max(0.0, percent)), message=tidy(groups.get("message") or ""))


def _percentage(groups: dict[str, str | None]) -> float | None:
    """With one decimal: more would be a change, and an event, for every file of a large build."""
    try:
        if percent := groups.get("percent"):
            return round(float(percent.replace(",", ".")), 1)
        done, total = (float((groups.get(name) or "").replace(",", "")) for name in ("done", "total"))
        return round(100 * done / total, 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
