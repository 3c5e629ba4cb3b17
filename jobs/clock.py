"""The time of day, for people to read. Never measure with it: deadlines and leases use `time.monotonic`.

Only tests may shift it: the file named by `RUNCAST_CLOCK_OFFSET_FILE` when the process starts holds the milliseconds to add.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

OFFSET_VARIABLE = "RUNCAST_CLOCK_OFFSET_FILE"
_OFFSET_FILE = os.environ.get(OFFSET_VARIABLE)
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""CLOCK_BOOTTIME, where it exists, also counts the time during which the machine slept."""


def now_ms() -> int:
    """Unix time in milliseconds. It steps forwards or backwards when the machine's clock is set."""
    now = time.time_ns() // 1_000_000
    return now if _OFFSET_FILE is None else now + int(Path(_OFFSET_FILE).read_text(encoding="ascii"))


class SteadyClock:
    """The time of day at its creation plus the time that has passed since. It never steps, so its times may be subtracted."""

    def __init__(self, *, not_before: int = 0) -> None:
        self._origin = max(now_ms(), not_before) - _since_boot_ms()

    def now_ms(self) -> int:
        return self._origin + _since_boot_ms()

    def is_off(self) -> bool:
        """Whether the machine's clock has been set since this one was created."""
        return abs(now_ms() - self.now_ms()) > 1000


def _since_boot_ms() -> int:
    return time.clock_gettime_ns(_SINCE_BOOT) // 1_000_000


def to_rfc3339(ms: int) -> str:
    """`2026-11-23T09:00:00.250Z`."""
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest:03d}Z"  # `strftime` writes the year 999 with three digits


def from_rfc3339(text: str) -> int:
    """Unix time in milliseconds of a time with any UTC offset. Raises ValueError for a time outside the years 1 to 9999."""
    # A leap second has no Unix time of its own. By convention it counts as the second after it.
    leap = text[17:19] == "60"
    text = text.upper().replace("Z", "+00:00")
    moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text)
    return round((moment - _EPOCH).total_seconds() * 1000) + (1000 if leap else 0)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
