"""The time of day, for what people read. Never for measuring: deadlines and leases use `time.monotonic`."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def to_rfc3339(ms: int) -> str:
    """`2026-11-23T09:00:00.250Z`."""
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest:03d}Z"  # `strftime` writes the year 999 with three digits


def from_rfc3339(text: str) -> int:
    """The reverse, for any offset. Raises ValueError for a time outside the years 1 to 9999."""
    # A leap second has no Unix time of its own; it counts as the next one, like everywhere.
    leap = text[17:19] == "60"
    text = text.upper().replace("Z", "+00:00")
    moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text)
    return round((moment - _EPOCH).total_seconds() * 1000) + (1000 if leap else 0)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
