"""A real service in surroundings of its own: its processes carry a mark, and its temporary files go to a folder that must end empty."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import requests

from support.server import RunningServer, start_server

MARK = "CHAOS_SERVICE"
"""Every process of the service has it in its environment; jobs do not, they get a minimal one."""


@dataclass
class Surroundings:
    """What outlives a start of the service: the folder with its data, its mark, its temporary files."""

    folder: Path
    mark: str

    @classmethod
    def make(cls, folder: Path) -> Surroundings:
        made = cls(folder, uuid.uuid4().hex)
        made.temporary.mkdir(parents=True)
        return made

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def database(self) -> Path:
        return self.folder / "data" / "runcast.db"

    @property
    def processes(self) -> list[psutil.Process]:
        return processes_with(MARK, self.mark)

    @contextmanager
    def serve(self, *, environment: dict[str, str] | None = None, **options: Any) -> Iterator[RunningServer]:
        """A server that is expected to complain: its log is not held against it here."""
        surroundings = {MARK: self.mark, "TMPDIR": str(self.temporary), **(environment or {})}
        with start_server(self.folder, check=False, environment=surroundings, **options) as server:
            yield server


@contextmanager
def colleague(server: RunningServer) -> Iterator[RunningServer]:
    """The same server with connections of its own, for another thread."""
    with requests.Session() as session:
        session.headers.update(server.session.headers)
        yield replace(server, session=session)


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Running processes in whose environment the variable has this value, or begins with it when it ends with a colon."""
    found = []
    for process in psutil.process_iter():
        try:
            given = process.environ().get(variable, "")
            if (given == value or (value.endswith(":") and given.startswith(value))) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # gone meanwhile
            continue
    return found
