"""Tells that the store has changed, quickly and cheaply. It does not say what: whoever listens reads that from the store."""

from __future__ import annotations

import os
import sqlite3
from typing import Protocol
from urllib.parse import quote

from sqlalchemy import make_url


class Feed(Protocol):
    """All may be called from one thread only."""

    def changed(self) -> bool:
        """Whether another connection has committed since the last call; the first call says yes."""

    def doubt(self) -> None:
        """The store was in trouble: open it anew. What was opened in a folder that could only be read would keep others from writing."""

    def close(self) -> None: ...


class SqliteFeed:
    """Asks SQLite's own change counter, which costs about 5 µs: nothing is read and no lock is taken."""

    def __init__(self, url: str) -> None:
        # Absolute, because who runs a job has left the folder that it was started in.
        self._path = os.path.abspath(make_url(url).database or "")  # noqa: PTH100  # links stay as they are
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None

    def changed(self) -> bool:
        try:
            if self._connection is None:
                # Never in place of one that is gone.
                self._connection = sqlite3.connect(f"file:{quote(self._path)}?mode=rw", uri=True, isolation_level=None)
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return True  # what is wrong is for the store to say, which is asked next
        changed = version != self._version
        self._version = version
        return bool(changed)

    def doubt(self) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._version = None


def open_feed(url: str) -> Feed:
    return SqliteFeed(url)
