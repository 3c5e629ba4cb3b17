"""Turns the raw bytes of one output stream into what is stored of it: masks secrets, splits lines, takes directives out, cuts blocks.

It does no I/O and knows no time: the caller decides when to feed. Every byte that jobs print passes here, so the common case, plain lines,
uses bytes methods only. Secrets, rewritten lines, directives and over-long lines are looked at only where their mark is found.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote_from_bytes

from jobs.execution.progress import ProgressParser, ProgressTracker, plain, tidy
from jobs.lines import piece_end
from jobs.model import Json, Progress

BLOCK_BYTES = 64 * 1024
"""A block's size, and the longest line that is not split (its line end not counted, so that such a block is 2 bytes longer at most)."""
RESULT_DEPTH = 20
MASK = b"***"
ENCODED_BYTES = 8
"""Secrets of at least so many bytes are masked in other forms, too."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")

_REWRITTEN = re.compile(rb"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)  # up to the last \r of a line that more text follows
_RETURNS = re.compile(rb"\r{2,}")
_TEXT_END = re.compile(rb"\r(?!\n)|\n")
_DIRECTIVE = re.compile(rb"^::(progress|result) ([^\n]*)(?:\n|\Z)", re.MULTILINE)
_PROGRESS = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?)%?(?:\s+(.*))?")
_BREAKS = re.compile(r"[\r\n]+")
_GLANCE_BYTES = 512


@dataclass(frozen=True)
class Block:
    """Consecutive lines as they were written. Each ends in `\\n`, except perhaps the last: a piece of a long line, or the output's end."""

    lines: int
    data: bytes


@dataclass(frozen=True)
class Findings:
    """What the output said about the job since the last question. `ready` has the named groups of the pattern that matched."""

    progress: Progress | None = None
    result: Mapping[str, Json] | None = None
    ready: Mapping[str, str] | None = None


class Masker:
    """Replaces every secret by `***`, however the output is cut into feeds. One for each stream.

    Of several secrets that begin at the same place, the longest counts. Each line of a secret with several lines is a secret, too, when it
    is at least 8 bytes long: programs indent and quote such things. Only what may be the beginning of a secret is held back.
    """

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        whole = {secret.strip(b"\r\n") for secret in secrets}
        lines = {line for secret in whole for line in secret.splitlines() if len(line) >= 8}
        self._secrets = sorted((secret for secret in whole | lines if secret.strip()), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        return self._mask(data, ended=False) if self._secrets else data

    def end(self) -> bytes:
        return self._mask(b"", ended=True) if self._held else b""

    def _mask(self, data: bytes, *, ended: bool) -> bytes:
        data = self._held + data
        present = any(secret in data for secret in self._secrets)
        masked: list[bytes] = []
        start = 0
        # From left to right, because masked text can no longer begin another secret.
        while True:
            found = self._pattern.search(data, start) if present else None
            held = len(data) if ended else self._held_from(data, start)
            if found is None or held <= found.start():
                break
            masked += (data[start : found.start()], MASK)
            start = found.end()
        self._held = data[held:]
        return b"".join((*masked, data[start:held]))

    def _held_from(self, data: bytes, start: int) -> int:
        """Where the longest suffix of `data` starts that is the beginning of a secret."""
        first = len(data)
        for secret in self._secrets:
            at = data.find(secret[:1], max(start, len(data) - len(secret) + 1), first)
            while at >= 0 and not secret.startswith(data[at:]):
                at = data.find(secret[:1], at + 1, first)
            if at >= 0:
                first = at
        return first


def forms_of(secret: bytes) -> set[bytes]:
    """A secret as it is, and as programs often print one: in base64 (also within a longer text, such as `user:secret`), in a URL, in JSON.

    A short secret only as it is: too much else would look like its other forms.
    """
    forms = {secret}
    if len(secret) < ENCODED_BYTES:
        return forms
    for before in range(3):
        # The bytes before and behind it share its first and last characters, which are left out.
        encoded = base64.b64encode(b"\0" * before + secret)
        inner = encoded[(0, 2, 3)[before] : (len(secret) + before) * 8 // 6]
        forms |= {inner, inner.translate(_URL_SAFE)}
    forms |= {quote_from_bytes(secret, safe="").encode(), quote_from_bytes(secret).encode()}
    text = secret.decode("utf-8", "replace")
    return forms | {json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "replace") for ascii_only in (True, False)}


@dataclass(frozen=True)
class Split:
    """What one feed completed: whole lines, pieces of a line that is too long, and all texts that were shown, rewritten ones included.

    `unfinished` is the beginning of the newest rewrite.
    """

    lines: bytes = b""
    pieces: tuple[bytes, ...] = ()
    shown: bytes = b""
    unfinished: bytes = b""


class LineSplitter:
    """Returns whole lines and keeps the rest until its end comes.

    A line ends at `\\n` or `\\r\\n`. A bare `\\r` goes back to its beginning: the next text, if there is any, replaces the one before.
    A text that grows over `BLOCK_BYTES` is returned in pieces while it grows. Only what is left of it can still be replaced.
    """

    def __init__(self) -> None:
        self._partial = b""  # may begin with a \r, which says that the line is being redrawn, and end with one, still to be understood

    def parts(self, data: bytes) -> list[bytes]:
        """`data` in the parts that have to be fed one after another. The pieces of a text that is too long must come before the text that
        rewrites it, also when both arrive together."""
        if data.count(b"\r") == data.count(b"\r\n") or len(self._partial) + len(data) <= BLOCK_BYTES:
            return [data]
        parts, start = [], 0
        begin = 0 if self._partial.endswith(b"\r") else -len(self._partial.removeprefix(b"\r"))
        for found in _TEXT_END.finditer(data):
            if found[0] == b"\r" and found.start() - begin > BLOCK_BYTES:
                parts.append(data[start : found.start()])
                start = found.start()
            begin = found.end()
        return [*parts, data[start:]]

    def feed(self, data: bytes) -> Split:
        text = self._partial + data
        cut = text.rfind(b"\n") + 1
        if b"\r" in text:
            return self._feed_rewrites(text, cut)
        self._partial = text[cut:]
        lines = text[:cut]
        return Split(lines, self._overflow(), shown=lines)

    def end(self) -> Split:
        text, self._partial = self._partial, b""
        last = _REWRITTEN.sub(b"", text)
        return Split(last if last.strip(b"\r") else b"", shown=text)

    def _feed_rewrites(self, text: bytes, cut: int) -> Split:
        lines, rest = text[:cut], text[cut:]
        if lines.count(b"\r") != lines.count(b"\r\n"):
            lines = _RETURNS.sub(b"\r", _REWRITTEN.sub(b"", lines))
        self._partial = _RETURNS.sub(b"\r", _REWRITTEN.sub(b"\r", rest))
        shown = text[: max(cut, text.rfind(b"\r") + 1)]
        unfinished = self._partial[:_GLANCE_BYTES] if self._partial.startswith(b"\r") else b""
        return Split(lines, self._overflow(), shown=shown, unfinished=unfinished)

    def _overflow(self) -> tuple[bytes, ...]:
        if len(self._partial) <= BLOCK_BYTES:
            return ()
        text, start = self._partial.removeprefix(b"\r"), 0
        pieces = []
        # Only when more than a line end follows, so that no piece is followed by an empty one.
        while len(text) - start - text.endswith(b"\r") > BLOCK_BYTES:
            end = piece_end(text, start, BLOCK_BYTES)
            pieces.append(text[start:end])
            start = end
        self._partial = text[start:]
        return tuple(pieces)


def blocks(text: bytes) -> list[Block]:
    """Cuts whole lines into blocks, and lines that are too long into pieces, each the last of its block."""
    cut = []
    start = 0
    while start < len(text):
        end = _block_end(text, start)
        data = text[start:end]
        cut.append(Block(data.count(b"\n") + (not data.endswith(b"\n")), data))
        start = end
    return cut


def _block_end(text: bytes, start: int) -> int:
    if len(text) - start <= BLOCK_BYTES:
        return len(text)
    return text.rfind(b"\n", start, start + BLOCK_BYTES) + 1 or piece_end(text, start, BLOCK_BYTES)


class OutputScanner:
    """Finds what the output of a job, all streams together, says about the job: its progress, its result, that it is ready.

    Raises ValueError when a pattern cannot be used. Once a job reports its own progress, no other text counts as progress.
    """

    def __init__(self, *, patterns: Sequence[str] = (), ready: str | None = None) -> None:
        self._parser: ProgressParser | None = ProgressParser(patterns)
        self._tracker = ProgressTracker()
        self._ready = _compiled(ready) if ready else None
        self._findings = Findings()

    def take_findings(self) -> Findings:
        """What is new since the last call."""
        findings, self._findings = self._findings, Findings()
        return findings

    def scan(self, shown: bytes, *, unfinished: bytes = b"") -> None:
        """Scans the texts of a feed, rewritten ones included, and the beginning of the newest rewrite."""
        if self._ready and shown:
            self._look_for_ready(shown)
        if self._parser is None:
            return
        progress = self._parser.parse(unfinished, unfinished=True) if unfinished else None
        if progress or (progress := self._parser.parse(shown)):
            self._offer(progress)

    def accept_directive(self, directive: bytes, argument: bytes) -> bool:
        """Takes a directive that the job printed. False when it is malformed: then it is an ordinary line."""
        try:
            text = argument.decode("utf-8").strip()
            if directive == b"progress":
                progress = _directed(text)
                self._parser = None
                self._offer(progress)
            else:
                self._findings = replace(self._findings, result=_result(text))
        except (ValueError, RecursionError):
            return False
        return True

    def _offer(self, progress: Progress) -> None:
        if latest := self._tracker.offer(progress):
            self._findings = replace(self._findings, progress=latest)

    def _look_for_ready(self, shown: bytes) -> None:
        assert self._ready
        for line in _BREAKS.split(plain(shown.decode("utf-8", "replace"))):
            if found := self._ready.search(line):
                self._findings = replace(self._findings, ready={name: text or "" for name, text in found.groupdict().items()})
                self._ready = None
                return


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the ready pattern {pattern!r} is not a regular expression: {error}") from error


def _directed(text: str) -> Progress:
    found = _PROGRESS.fullmatch(text)
    if not found or float(found[1]) > 100:
        raise ValueError("not a percentage")
    return Progress(percent=float(found[1]), message=tidy(found[2] or ""))


def _result(text: str) -> dict[str, Json]:
    """A result is a JSON object that every client can read again: no NaN, no number too large for a double, no half characters."""
    value = json.loads(text, parse_int=_integer)
    if not isinstance(value, dict) or _depth(value) > RESULT_DEPTH:
        raise ValueError("not a JSON object, or nested too deeply")
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return value


def _integer(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError("too large for a double")
    return int(digits)


def _depth(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


class OutputPipeline:
    """All stages of one stream. `feed` and `end` return what is to be stored; what the output says about the job goes to its scanner."""

    def __init__(self, *, masker: Masker, scanner: OutputScanner) -> None:
        self._masker = masker
        self._splitter = LineSplitter()
        self._scanner = scanner
        self._within_line = False  # the last block was a piece, so that what comes next does not begin a line

    def feed(self, data: bytes) -> list[Block]:
        return self._split(self._masker.feed(data))

    def end(self) -> list[Block]:
        return self._split(self._masker.end()) + self._pass(self._splitter.end())

    def _split(self, masked: bytes) -> list[Block]:
        return [block for part in self._splitter.parts(masked) for block in self._pass(self._splitter.feed(part))]

    def _pass(self, split: Split) -> list[Block]:
        # Directives first: when a job reports its own progress, nothing else in the same text counts.
        lines = self._take_out_directives(split.lines)
        self._scanner.scan(split.shown, unfinished=split.unfinished)
        if split.lines or split.pieces:
            self._within_line = bool(split.pieces)
        return blocks(lines) + [Block(1, piece) for piece in split.pieces]

    def _take_out_directives(self, lines: bytes) -> bytes:
        """The lines without those that were directives."""
        if b"::progress " not in lines and b"::result " not in lines:
            return lines
        kept, start = [], 0
        for found in _DIRECTIVE.finditer(lines):
            begins_line = found.start() > 0 or not self._within_line
            if begins_line and len(found[0]) <= BLOCK_BYTES and self._scanner.accept_directive(found[1], found[2]):
                kept.append(lines[start : found.start()])
                start = found.end()
        return b"".join((*kept, lines[start:]))
