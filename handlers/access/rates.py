"""Rate limits, counted in this process over a sliding window. What is counted, and for which key, is up to the caller."""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from handlers.errors import RateLimited
from jobs.settings import OFF


class Rate:
    """A limit for each key, such as `100/minute`, by second, minute, hour or day; `off` for no limit."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._item: RateLimitItem | None = None if text == OFF else parse(text)
        self._counts = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, key: str) -> bool:
        """Count one more. False, and nothing is counted, when the limit is reached."""
        return self._item is None or self._counts.hit(self._item, key)

    def spent(self, key: str) -> bool:
        """Whether the limit is reached; counts nothing."""
        return self._item is not None and not self._counts.test(self._item, key)

    def refusal(self, key: str, message: str) -> RateLimited:
        """The error with the time after which the key may try again."""
        wait = 1.0 if self._item is None else self._counts.get_window_stats(self._item, key).reset_time - time.time()
        return RateLimited(message, retry_after=max(1, math.ceil(wait)))


def network_of(address: str) -> str:
    """The key by which an address is counted: itself, or the /64 network of an IPv6 address, since one client often has a whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address
