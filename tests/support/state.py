"""All that a request could change of a service: what tests compare before and after one that must change nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.server import RunningServer

WRITES = ("jobs", "job_events", "job_labels", "idempotency_keys", "log_chunks", "tokens")
SIGNS_OF_LIFE = {"heartbeat", "process_group"}
"""Columns that a running job changes by itself."""


def state(server: RunningServer) -> Any:
    """All that a request could change: the store but for signs of life, and the workspace."""
    data = server.folder / "data"
    connection = sqlite3.connect(f"file:{data / 'runcast.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        rows = {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")] for table in WRITES}
    finally:
        connection.close()
    stored = {table: [{name: row[name] for name in row if name not in SIGNS_OF_LIFE} for row in found] for table, found in rows.items()}
    return stored, sorted(tree(data / "workspace"))


def tree(folder: Path) -> Iterator[tuple[str, int, int]]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent) / name
            about = path.lstat()
            yield str(path.relative_to(folder)), about.st_size, about.st_mtime_ns
