"""Reads from what a job prints how far the job is. Pure: text in, `Progress` out; no I/O and no time.

What counts when a recipe declares no patterns of its own:

* a step count that begins a line, `[12/345] Building x` (ninja), `#5 [2/5] RUN x` (BuildKit), `Step 2/5 : RUN x`, `3/10 Test` (ctest),
  or that follows a bar, `[===>  ] 12/345` (cargo), `━━━━ 1.2/2.4 MB` (pip);
* a percentage in brackets anywhere: `[ 45%] Building x` (make, CMake), `tests/test_x.py ... [ 45%]` (pytest);
* any percentage or count on a line that is being redrawn, with a bare `\\r` at one of its ends: git, rsync, wget, curl;
* on other lines a percentage that begins the line, follows a bar, dots, the word "progress" or what is being done ("Downloading",
  "Receiving objects:"), or stands before "done" or "complete".

A percentage that measures something else is not progress: `coverage: 85%`, `TOTAL 120 12 90%`, `CPU 93%`, `a%20b`. Neither is `[1/1]`,
which says nothing, nor what the other side of a git connection counts before the transfer begins (`remote: …`): progress never goes back,
so both would stay at 100 from then on. Some prose is still taken for progress ("Checking coverage: 85%"). When a recipe declares patterns
of its own, only those are used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from jobs.model import Progress

TAIL_BYTES = 4096
"""How much of the end of a text is looked at: progress is about now, and what is further up in the same read is past."""
CANDIDATES = 16
"""How many lines of that are looked at closely when each has numbers like those of progress."""
MESSAGE_CHARACTERS = 200

_HINT = re.compile(r"\d ?%|\d/\d")
_BREAK = re.compile(rb"[\r\n]")
_TEXT = re.compile(r"(?P<before>(?<=\r))?(?P<text>[^\r\n]+)(?P<after>\r(?!\r*\n))?")
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


_COUNTS = _rules(
    r"^\s*(?:#\d+ +|=> +)?\[ *(?:[\w-]+ +)?(?P<done>\d+)/(?P<total>\d+)\]\s*(?P<message>.*)",
    r"^\s*(?:step|task)\s+(?P<done>\d+) ?/ ?(?P<total>\d+)\b[\s:]*(?P<message>.*)",
    r"^\s*(?P<done>\d+)/(?P<total>\d+)\s+test\b",
    rf"{_BAR}(?P<done>{_NUMBER})/(?P<total>{_NUMBER})(?![\w/.])",
)
_PERCENTAGES = _rules(
    r"\[ *(?P<percent>\d{1,3}(?:\.\d+)?) ?%\]\s*(?P<message>.*)",
    rf"^\s*{_PERCENT}(?!\s*(?:faster|slower|smaller|larger|less|more|coverage|packet|used|free|cpu|memory))\s*(?P<message>[^\W\d_].*)?",
    rf"{_BAR}{_PERCENT}",
    rf"(?:\bprogress\b|{_DOING})[^%\d]{{0,60}}{_PERCENT}",
    rf"{_PERCENT}\s*(?:done|complete)",
)
_ORDINARY = (_COUNTS, _PERCENTAGES)
_REDRAWN = (
    (*_COUNTS, *_rules(rf"^[^%]*(?<![\w./:\-])(?P<done>{_NUMBER})/(?P<total>{_NUMBER})(?![\w./:])(?!.*\d ?%)")),
    (*_PERCENTAGES, *_rules(_PERCENT)),
)


class ProgressParser:
    """Finds the newest progress in a piece of output: by `patterns` alone if there are any, by those of common tools otherwise.

    A pattern has groups named `done` and `total`, or `percent`, and perhaps `message`; it is searched for in each line, without
    its colours. Raises ValueError when one is not a regular expression or names no such groups.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._declared = tuple(_declared(pattern) for pattern in patterns)

    def parse(self, data: bytes, *, unfinished: bool = False) -> Progress | None:
        """`data` is whole lines or rewrites of one, or (`unfinished`) the newest rewrite, of which more may come.

        A bar is often left as it is until there is more to tell, so that waiting for the whole text would always be one step late.
        A declared pattern has to wait all the same: it could take the half of a number for the whole.
        """
        if unfinished:
            found = None if self._declared else _built_in(data.rstrip(b"0123456789."))
            return Progress(percent=found.percent) if found else None
        tail = _tail(data)
        if not self._declared:
            return _built_in(tail)
        candidates = (_first(self._declared, text, clamp=True) for text, _ in _newest_first(tail))
        return next(filter(None, candidates), None)


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


def _tail(data: bytes) -> bytes:
    if len(data) <= TAIL_BYTES:
        return data
    line_end = _BREAK.search(data, len(data) - TAIL_BYTES)  # a text that begins further up would be cut, perhaps within a number
    return data[line_end.start() :] if line_end else b""


def _newest_first(tail: bytes) -> Iterator[tuple[str, bool]]:
    """The texts of `tail`, each with whether it is being redrawn."""
    for found in reversed(list(_TEXT.finditer(tail.decode("utf-8", "replace")))):
        yield plain(found["text"]), found["before"] is not None or found["after"] is not None


def _built_in(tail: bytes) -> Progress | None:
    if b"%" not in tail and b"/" not in tail:  # costs next to nothing, and most output ends here
        return None
    candidates = ((text, redrawn) for text, redrawn in _newest_first(tail) if _is_candidate(text))
    for text, redrawn in islice(candidates, CANDIDATES):
        counts, percentages = _REDRAWN if redrawn else _ORDINARY
        rules = (*counts, *percentages) if "%" in text else counts
        if progress := _first(rules, text, clamp=False):
            return progress
    return None


def _is_candidate(text: str) -> bool:
    return ("%" in text or "/" in text) and _HINT.search(text) is not None and not text.startswith("remote:")


def _first(rules: Sequence[re.Pattern[str]], text: str, *, clamp: bool) -> Progress | None:
    """What the first of `rules` that finds progress in `text` finds."""
    for rule in rules:
        if (found := rule.search(text)) and (progress := _progress(found, clamp=clamp)):
            return progress
    return None


def _progress(found: re.Match[str], *, clamp: bool) -> Progress | None:
    groups = found.groupdict()
    percent = _percentage(groups)
    if percent is None or not math.isfinite(percent) or not (clamp or (percent <= 100 and groups.get("total") != "1")):
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
