"""The newest status changes and progress of all jobs, encoded, for the clients that subscribed to all jobs.

This is only a cache: older status changes are read from the store, and older progress is of no use. This module knows no client.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from handlers.events.payloads import Encode, Packet, progress_payload, status_payload
from jobs.model import JobEvent, Progress
from jobs.store.jobs import Store

RECENT_STATUSES = 1000
RECENT_PROGRESSES = 1000


class RecentStatuses:
    """The newest status changes. Clients that are further behind get theirs from the store."""

    def __init__(self, store: Store, encode: Encode) -> None:
        self._store = store
        self._encode = encode
        self._recent: deque[tuple[int, Packet]] = deque(maxlen=RECENT_STATUSES)
        self._floor = 0

    def restart(self, cursor: int) -> None:
        """Forget everything; changes after `cursor` will be added, without a gap."""
        self._recent.clear()
        self._floor = cursor

    def add(self, event: JobEvent) -> None:
        if len(self._recent) == RECENT_STATUSES:
            self._floor = self._recent[0][0]
        self._recent.append((event.cursor, self._encode("status", status_payload(event))))

    def after(self, cursor: int) -> list[tuple[int, Packet]]:
        """The changes after `cursor`, oldest first, each with its own cursor."""
        if cursor >= self._floor:
            last = self._recent[-1][0] if self._recent else self._floor
            return [recent for recent in self._recent if recent[0] > cursor] if cursor < last else []
        return [(event.cursor, self._encode("status", status_payload(event))) for event in self._store.events_after(cursor)]


class RecentProgress:
    """The newest progress of each running job. A client that missed an older one has no use for it."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self.watchers = 0
        """How many clients want the progress of every job. While there are none, nothing is encoded."""
        self.last = 0
        """The serial number of the newest."""
        self._recent: OrderedDict[str, tuple[Progress, int, Packet]] = OrderedDict()

    def offer(self, job_id: str, progress: Progress) -> None:
        """Take in a job's progress, if it is news to anybody."""
        if not self.watchers or progress == Progress():
            return
        recent = self._recent.get(job_id)
        if recent is not None and recent[0] == progress:
            return
        self.last += 1
        self._recent[job_id] = (progress, self.last, self._encode("progress", progress_payload(job_id, progress)))
        self._recent.move_to_end(job_id)
        while len(self._recent) > RECENT_PROGRESSES:
            self._recent.popitem(last=False)

    def after(self, serial: int) -> list[tuple[int, Packet]]:
        """The progress after the one with this serial number, oldest first, each with its own serial number."""
        newer: list[tuple[int, Packet]] = []
        for _, number, packet in reversed(self._recent.values()):
            if number <= serial:
                break
            newer.append((number, packet))
        return newer[::-1]
