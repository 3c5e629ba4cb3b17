"""The state of each followed log, read from the store once after each change for all followers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jobs.errors import JobNotFound
from jobs.store.logs import Logs, LogState


class LogStates:
    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._followed: Counter[str] = Counter()
        self._seen: tuple[int, Mapping[str, LogState]] = (-1, {})

    @contextmanager
    def job(self, job_id: str) -> Iterator[None]:
        """Follow this job's log inside the block."""
        self._followed[job_id] += 1
        try:
            yield
        finally:
            self._followed[job_id] -= 1
            if not self._followed[job_id]:
                del self._followed[job_id]

    def state(self, job_id: str, *, version: int) -> LogState:
        """The state of a followed log when the store became `version`, or later. Raises JobNotFound."""
        if self._seen[0] != version or job_id not in self._seen[1]:
            self._seen = (version, self._logs.states(list(self._followed)))
        if job_id not in self._seen[1]:
            raise JobNotFound(job_id)
        return self._seen[1][job_id]
