"""One connected client: what it subscribed to, what it was sent so far, and the greenlet that sends it the rest.

A client gets events as fast as it reads them and no faster. What it was sent is a few numbers, so a slow client costs little memory and
catches up from the store. This module knows neither the caster nor the library that carries the events: `Subscriptions` and `Transport`
say what it needs of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import gevent
from gevent.event import Event

from handlers.events.payloads import Encode, Packet, complete_payload
from handlers.events.recent import RecentProgress, RecentStatuses
from handlers.events.topic import IN_FLIGHT_BYTES, Topic
from handlers.problems import job_problem, problem
from jobs.errors import JobNotFound, Unavailable
from jobs.model import Job, Json, Progress
from jobs.store.jobs import Store
from jobs.store.logs import Logs

ANSWERS_IN_FLIGHT = 4
"""After so many answers the client must have read them before it gets more: one may be as large as what clients submit."""
SEND_RETRY_SECONDS = 0.5
"""The pause before another try when the store could not be read."""


class ClientDisconnected(Exception):
    """The client's connection was ended; it needs no answer."""


class Transport(Protocol):
    """A client's connection."""

    def send(self, packet: Packet) -> None:
        """Queue the packet, without waiting."""

    def drain(self) -> None:
        """Wait until the client has taken what was sent."""

    def limit_answers(self) -> None:
        """Keep unread answers from piling up: wait until the client has read them, or end the connection and raise
        ClientDisconnected."""

    def disconnect(self) -> None:
        """Tell the client that it is disconnected and end the connection, without waiting."""


class Subscriptions(Protocol):
    """The subscriptions of all clients together."""

    def add_subscription(self, cursor: int) -> None:
        """There is one more. Its client wants to know what happens after `cursor`."""

    def remove_subscription(self) -> None:
        """There is one less."""

    def topic(self, job_id: str) -> Topic:
        """The job's topic; a new one if there is none."""

    def drop_topic(self, topic: Topic) -> None:
        """No client watches it any more."""


@dataclass(frozen=True)
class Sources:
    """What every subscriber reads from."""

    store: Store
    logs: Logs
    encode: Encode
    statuses: RecentStatuses
    progress: RecentProgress


@dataclass
class Subscription:
    """What one client was sent of one job. `ended_before` is the job if it had ended when the client subscribed: the acknowledgement
    said so."""

    topic: Topic
    seq: int
    cursor: int
    ended_before: Job | None
    progress: Progress = field(default_factory=Progress)

    @property
    def ended(self) -> Job | None:
        """The job, if it has ended and all its status changes are known."""
        return self.ended_before or self.topic.ended

    def news(self) -> Iterator[Packet]:
        """What the client lacks, in order: status changes, log (at most about IN_FLIGHT_BYTES from the store), progress. The status
        change that ended the job waits until the whole log was sent."""
        yield from self._statuses(ended=False)
        topic = self.topic
        for chunk in topic.chunks_after(self.seq):
            self.seq = chunk.next_seq - 1
            yield chunk.packet
        if topic.progress_packet is not None and topic.progress != self.progress:
            self.progress = topic.progress
            yield topic.progress_packet

    def ending(self, encode: Encode) -> Iterator[Packet]:
        """The last events of the job, if it has ended and its whole log was sent."""
        job = self.ended
        if job is None or self.seq < job.log.lines:
            return
        yield from self._statuses(ended=True)
        if job.error is not None:
            yield encode("error", {"job_id": job.id, "problem": job_problem(job.error)})
        yield encode("complete", complete_payload(job))

    def _statuses(self, *, ended: bool) -> Iterator[Packet]:
        for change in self.topic.status_changes:
            if change.cursor > self.cursor and change.ended is ended:
                self.cursor = change.cursor
                yield change.packet


class Subscriber:
    """A connected client. It is a `topic.Watcher` of each job that it subscribed to."""

    def __init__(self, transport: Transport, sources: Sources, subscriptions: Subscriptions) -> None:
        self._transport = transport
        self._sources = sources
        self._subscriptions = subscriptions
        self._jobs: dict[str, Subscription] = {}
        self._all: tuple[int, int] | None = None
        """Cursor and serial number of the last status change and progress sent to a client that subscribed to all jobs."""
        self._woken = Event()
        self._unsent = 0
        self._answers = 0
        self._sender: gevent.Greenlet[[], None] | None = None

    # -- what the client asks for -----------------------------------------------------------------------------------------

    @property
    def watches_all(self) -> bool:
        return self._all is not None

    def subscribe(self, job_id: str, after_seq: int) -> tuple[Job, int]:
        """Send the job's log after line `after_seq`, and every other event of the job. Returns the job as it is now, and the number of
        the first line to come.

        Raises JobNotFound and Unavailable.
        """
        job, cursor = self._sources.store.get_with_cursor(job_id)
        if job_id not in self._jobs:
            self._subscriptions.add_subscription(cursor)
        topic = self._subscriptions.topic(job_id)
        if not topic.watchers:
            topic.start_after(job.log.lines)
        topic.watchers.add(self)
        after_seq = min(after_seq, job.log.lines)
        self._jobs[job_id] = Subscription(topic, seq=after_seq, cursor=cursor, ended_before=job if job.ended else None)
        topic.update(job)
        self._start()
        return job, after_seq + 1

    def subscribe_all(self) -> None:
        """Send every status change from now on, and the newest progress, of every job."""
        if self._all is None:
            cursor = self._sources.store.last_event()
            self._subscriptions.add_subscription(cursor)
            self._sources.progress.watchers += 1
            self._all = (cursor, self._sources.progress.last)
        self._start()

    def unsubscribe(self, job_id: str) -> None:
        subscription = self._jobs.pop(job_id, None)
        if subscription is not None:
            subscription.topic.watchers.discard(self)
            if not subscription.topic.watchers:
                self._subscriptions.drop_topic(subscription.topic)
            self._subscriptions.remove_subscription()

    def unsubscribe_all(self) -> None:
        if self._all is not None:
            self._all = None
            self._sources.progress.watchers -= 1
            self._subscriptions.remove_subscription()

    def limit_answers(self) -> None:
        """To be called before each answer, so that a client that asks and does not read cannot fill the memory. Raises
        ClientDisconnected."""
        self._answers += 1
        if self._answers % ANSWERS_IN_FLIGHT == 0:
            self._transport.limit_answers()

    def send(self, event: str, payload: Json) -> None:
        """Send an event that concerns this client only."""
        self._transport.send(self._sources.encode(event, payload))

    def disconnect(self, problem: Json) -> None:
        """Tell the client why it is disconnected, and end its connection."""
        self.send("error", {"job_id": None, "problem": problem})
        self._transport.disconnect()

    def close(self) -> None:
        """Release everything that is held for the client: its connection has ended."""
        for job_id in list(self._jobs):
            self.unsubscribe(job_id)
        self.unsubscribe_all()
        if self._sender is not None:
            self._sender.kill(block=False)

    # -- what the topics report -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._woken.set()

    def end_subscription(self, job_id: str, problem: Json) -> None:
        """Tell the client that it gets no more events of a job, and why."""
        self.unsubscribe(job_id)
        self.send("error", {"job_id": job_id, "problem": problem})

    def report_missing(self, job_id: str) -> None:
        """The job's rows were removed. A client that is to get the job's end still gets what is known, and then the end."""
        if self._jobs[job_id].ended is None:
            self.end_subscription(job_id, problem(JobNotFound(job_id)))

    # -- sending ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.wake()
        if self._sender is None:
            self._sender = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            try:
                while self._send_news():
                    pass
            except Unavailable:
                gevent.sleep(SEND_RETRY_SECONDS)
                self.wake()
            except Exception as error:  # whatever it is, the client learns that it gets no more events, and may subscribe again
                self._end_all(problem(error))

    def _end_all(self, why: Json) -> None:
        for job_id in list(self._jobs):
            self.end_subscription(job_id, why)
        if self.watches_all:
            self.unsubscribe_all()
            self.send("error", {"job_id": None, "problem": why})

    def _send_news(self) -> bool:
        """One round over all subscriptions. Returns whether anything was sent."""
        sent = self._send_all_news()
        for job_id, subscription in list(self._jobs.items()):
            if self._jobs.get(job_id) is subscription:
                sent = self._send_job_news(job_id, subscription) or sent
        return sent

    def _send_job_news(self, job_id: str, subscription: Subscription) -> bool:
        sent = False
        for packet in subscription.news():
            if self._jobs.get(job_id) is not subscription:  # it ended while news() let other greenlets run
                return True
            sent = True
            self._put(packet)
            if self._jobs.get(job_id) is not subscription:  # it ended, or was replaced, while _put waited for the client
                return True
        ending = list(subscription.ending(self._sources.encode))
        if ending:
            self.unsubscribe(job_id)
        elif not sent and (job := subscription.ended) is not None:
            return self._complete_log(job, subscription)
        for packet in ending:
            self._put(packet)
        return sent

    def _complete_log(self, job: Job, subscription: Subscription) -> bool:
        """The job has ended and its topic has nothing more to send, but the log was not sent to its end. Returns whether another round may
        send more."""
        topic = subscription.topic
        if topic.lines < job.log.lines:  # the topic did not read the log to its end
            topic.update(job)
            return True
        if self._sources.logs.states([job.id]):  # the last lines were dropped
            subscription.seq = job.log.lines
            return True
        self.end_subscription(job.id, problem(JobNotFound(job.id)))
        return False

    def _send_all_news(self) -> bool:
        sent = False
        while self._all is not None:
            cursor, serial = self._all
            statuses, progress = self._sources.statuses.after(cursor), self._sources.progress.after(serial)
            if not statuses and not progress:
                break
            # Before sending: _put may wait, and the client may unsubscribe and subscribe again meanwhile.
            self._all = (statuses[-1][0] if statuses else cursor, progress[-1][0] if progress else serial)
            for _, packet in (*progress, *statuses):
                self._put(packet)
            sent = True
        return sent

    def _put(self, packet: Packet) -> None:
        self._transport.send(packet)
        self._unsent += packet.size
        if self._unsent >= IN_FLIGHT_BYTES:
            self._transport.drain()
            self._unsent = 0
