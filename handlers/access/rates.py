"""How often somebody may do something: counted here, in this process, over a window that slides. Who it is and what it is, others know."""

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
    """So many a second, minute, hour or day (`100/minute`) for each who; `off` for no limit."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._item: RateLimitItem | None = None if text == OFF else parse(text)
        self._counts = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, who: str) -> bool:
        """Count one more, if there may be one more."""
        return self._item is None or self._counts.hit(self._item, who)

    def spent(self, who: str) -> bool:
        """Whether there may be no more; counts nothing."""
        return self._item is not None and not self._counts.test(self._item, who)

    def refusal(self, who: str, message: str) -> RateLimited:
        """The error that says so, and when there may be one more."""
        wait = 1.0 if self._item is None else self._counts.get_window_stats(self._item, who).reset_time - time.time()
        return RateLimited(message, retry_after=max(1, math.ceil(wait)))


def neighbourhood(address: str) -> str:
    """The address, of IPv6 its /64: who has one of those, has all of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address
