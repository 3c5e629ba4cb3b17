"""Where a long line of output may be cut. Pure; shared by what reads output and what stores it."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r?(?:\n|\Z)")


def piece_end(text: bytes, start: int, size: int) -> int:
    """Where to cut a line of at least `size` bytes, 4 or more: behind its line end if it has just that length, never within a character."""
    end = start + size
    if line_end := _LINE_END.match(text, end):
        return line_end.end()
    return next((end - back for back in range(4) if text[end - back] & 0xC0 != 0x80), end)
