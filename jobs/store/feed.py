"""The feed: tells that the store has changed, quickly and cheaply. It does not say what: whoever follows it reads that from the store."""

from __future__ import annotations

from typing import Protocol


class Feed(Protocol):
    """All methods are called from one thread only."""

    def changed(self) -> bool:
        """Whether another connection has committed since the last call. True at the first call, and when the feed cannot know."""

    def reopen(self) -> None:
        """Drop the connection, because the store was in trouble; the next call of `changed` opens a new one."""

    def close(self) -> None: ...
