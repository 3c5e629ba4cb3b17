"""Finds what is new in the store (log lines, progress, status changes) and wakes the clients that subscribed to it.

The store is the truth, and what is kept here only saves reading it again for each client. One greenlet, the caster's, reads what is new,
once for all clients. It must not send anything itself: each client has a greenlet of its own for that (`subscriber.py`), so that a slow
client delays nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet

import gevent
from gevent.lock import BoundedSemaphore

from handlers.events.payloads import Encode
from handlers.events.recent import RecentProgress, RecentStatuses
from handlers.events.subscriber import Sources, Subscriber, Transport
from handlers.events.topic import Topic
from handlers.problems import problem
from jobs.errors import Unavailable
from jobs.model import ENDED, Job, JobEvent
from jobs.service import Changes
from jobs.store.jobs import Store
from jobs.store.logs import Logs

logger = logging.getLogger("runcast.cast")

STORE_POLL_INTERVAL_SECONDS = 30.0
"""The store is read this often even if no change is reported."""
READ_RETRY_SECONDS = 0.5
"""The pause before another try when the store could not be read."""
MISSING_JOBS_POLL_INTERVAL_SECONDS = 5.0
"""How often, at most, the caster checks whether the watched jobs are still in the store."""
MISSING_JOBS_BATCH = 1000


class Caster:
    """Knows all connected clients and all watched jobs."""

    def __init__(self, store: Store, logs: Logs, changes: Changes, encode: Encode) -> None:
        self._store = store
        self._logs = logs
        self._encode = encode
        self._changes = changes
        self._statuses = RecentStatuses(store, encode)
        self._progress = RecentProgress(encode)
        self._sources = Sources(store, logs, encode, self._statuses, self._progress)
        self._subscribers: dict[str, Subscriber] = {}
        self._topics: dict[str, Topic] = {}
        self._catch_up_lock = BoundedSemaphore()
        self._subscriptions = 0
        self._reading = False
        self._cursor = 0
        self._checked_missing_at = 0.0

    # -- the clients ------------------------------------------------------------------------------------------------------

    def connect(self, sid: str, transport: Transport) -> None:
        self._subscribers[sid] = Subscriber(transport, self._sources, self)

    def disconnect(self, sid: str) -> None:
        if (subscriber := self._subscribers.pop(sid, None)) is not None:
            subscriber.close()

    def subscriber(self, sid: str) -> Subscriber:
        return self._subscribers[sid]

    @property
    def client_count(self) -> int:
        return len(self._subscribers)

    # -- their subscriptions (`subscriber.Subscriptions`) -----------------------------------------------------------------

    def add_subscription(self, cursor: int) -> None:
        self._subscriptions += 1
        if not self._reading:
            self._reading = True
            self._cursor = cursor
            self._statuses.restart(cursor)
            gevent.spawn(self._run)

    def remove_subscription(self) -> None:
        self._subscriptions -= 1

    def topic(self, job_id: str) -> Topic:
        if job_id not in self._topics:
            self._topics[job_id] = Topic(job_id, logs=self._logs, encode=self._encode, catch_up_lock=self._catch_up_lock)
        return self._topics[job_id]

    def drop_topic(self, topic: Topic) -> None:
        self._topics.pop(topic.job_id, None)

    # -- what is new in the store -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._subscriptions:
                seen = self._changes.version
                try:
                    self._read()
                except Unavailable as error:
                    # Do not wait for the next change: the one that could not be read is there already.
                    logger.warning("%s Retrying.", error)
                    gevent.sleep(READ_RETRY_SECONDS)
                    continue
                except Exception:  # whatever it is, this greenlet must go on: the events of all clients depend on it
                    logger.exception("The changes could not be read from the store.")
                    gevent.sleep(READ_RETRY_SECONDS)
                self._changes.wait(seen, STORE_POLL_INTERVAL_SECONDS)
        finally:
            self._reading = False

    def _read(self) -> None:
        # The running jobs first: if a job ends between the two reads, its last progress is still read together with its end.
        running = self._store.active()
        for job in running:
            self._update(job)
        while events := self._store.events_after(self._cursor):
            for event in events:
                before, self._cursor = self._cursor, event.cursor
                try:
                    self._update_ended(event)
                except Unavailable:
                    self._cursor = before  # this event must be read again
                    raise
                self._add_status(event)
        self._report_missing_jobs({job.id for job in running})

    def _update(self, job: Job) -> None:
        self._progress.offer(job.id, job.progress)
        topic = self._topics.get(job.id)
        if topic is None:
            return
        try:
            topic.update(job)
            topic.ended = job if job.ended else None
        except Unavailable:
            raise
        except Exception as error:  # whatever it is, it must not delay the events of other jobs
            topic.end_subscriptions(problem(error))

    def _update_ended(self, event: JobEvent) -> None:
        watched = event.job_id in self._topics or self._progress.watchers
        if event.status in ENDED and watched and (job := self._store.find(event.job_id)):
            self._update(job)

    def _add_status(self, event: JobEvent) -> None:
        topic = self._topics.get(event.job_id)
        self._statuses.add(event)
        if topic is not None:
            topic.add_status(event)
        for subscriber in self._subscribers.values():
            if subscriber.watches_all:
                subscriber.wake()

    def _report_missing_jobs(self, running: AbstractSet[str]) -> None:
        """Find watched jobs whose rows were removed before their end was read here: no event reports that."""
        now = time.monotonic()
        if now < self._checked_missing_at + MISSING_JOBS_POLL_INTERVAL_SECONDS:
            return
        watched = [job_id for job_id, topic in self._topics.items() if topic.ended is None and job_id not in running]
        for start in range(0, len(watched), MISSING_JOBS_BATCH):
            batch = watched[start : start + MISSING_JOBS_BATCH]
            stored = self._logs.states(batch)
            for job_id in batch:
                topic = self._topics.get(job_id)
                if topic is not None and job_id not in stored:
                    topic.report_missing()
        self._checked_missing_at = now
