"""Casts what is new in the store to the clients that watch. The store is the truth; what is kept here only saves reading it again for
each client.

Nobody is pushed to. One greenlet reads what is new, once for all; then each client has a greenlet of its own that sends it what it lacks,
as fast as that client reads and no faster. What a client has had is a few numbers, so a slow one costs what was last sent to it, and
catches up from the store.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from handlers.problems import problem
from jobs.clock import now_ms, to_rfc3339
from jobs.errors import JobNotFound, Unavailable
from jobs.model import ENDED, Job, JobEvent, Json, LogChunk, Progress
from jobs.service import Changes
from jobs.store.jobs import Store
from jobs.store.logs import Logs, cut

logger = logging.getLogger("runcast.cast")

IN_FLIGHT_BYTES = 256 << 10
"""A client gets no more than this before it has taken what it got before."""
ANSWERS_IN_FLIGHT = 4
"""Answers may be as large as what clients submit."""
TURN_CHUNKS = 50
"""So many, of a log of single lines, are encoded before others have their turn; it takes about 2 ms."""
KEPT_BYTES = 1 << 20
"""What is kept of each watched log, encoded, for those who are nearly up to date."""
KEPT_EVENTS = 1000
LOOK_SECONDS = 30.0
PAUSE_SECONDS = 0.5
GONE_SECONDS = 5.0
"""It is looked no oftener than this whether jobs that are watched are still there."""
GONE_JOBS = 1000


class Packet(Protocol):
    """An event, encoded once for everybody."""

    @property
    def size(self) -> int:
        """What it costs to hold and to send it, in bytes."""


Encode = Callable[[str, Json], Packet]


class Transport(Protocol):
    """One client's connection."""

    def send(self, packet: Packet) -> None:
        """Without waiting."""

    def drain(self) -> None:
        """Wait until the client has taken what was sent."""

    def pace(self) -> None:
        """See that answers to the client do not pile up: wait until it has read, or end the connection and raise Gone."""

    def hang_up(self) -> None:
        """Say goodbye and end the connection, without waiting."""


class Gone(Exception):
    """The client's connection was ended; nothing need be answered."""


class Caster:
    """Knows who watches what."""

    def __init__(self, store: Store, logs: Logs, changes: Changes, encode: Encode) -> None:
        self.store = store
        self.logs = logs
        self.encode = encode
        self._changes = changes
        self._clients: dict[str, Client] = {}
        self._topics: dict[str, Topic] = {}
        self._watchers = 0
        self._looking = False
        self._cursor = 0
        self._looked_for_gone = 0.0
        self.catching_up = BoundedSemaphore()
        self.statuses = Statuses(self)
        self.progresses = Progresses()

    def connect(self, sid: str, wire: Transport) -> None:
        self._clients[sid] = Client(self, wire)

    def disconnect(self, sid: str) -> None:
        if (client := self._clients.pop(sid, None)) is not None:
            client.close()

    def client(self, sid: str) -> Client:
        return self._clients[sid]

    @property
    def client_count(self) -> int:
        return len(self._clients)

    def topic(self, job_id: str) -> Topic:
        """What is kept of a job's log; there is one while somebody watches the job."""
        if job_id not in self._topics:
            self._topics[job_id] = Topic(self, job_id)
        return self._topics[job_id]

    def watch(self, cursor: int) -> None:
        """Somebody watches, and wants to know what happens after `cursor`."""
        self._watchers += 1
        if not self._looking:
            self._looking = True
            self._cursor = self.statuses.start(cursor)
            gevent.spawn(self._look)

    def unwatch(self) -> None:
        self._watchers -= 1

    def forget(self, topic: Topic) -> None:
        self._topics.pop(topic.job_id, None)

    # -- what is new ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            while self._watchers:
                seen = self._changes.version
                try:
                    self._read()
                except Unavailable as error:
                    # Without a wait for the next change: what was not read is there already.
                    logger.warning("%s Trying on.", error)
                    gevent.sleep(PAUSE_SECONDS)
                    continue
                except Exception:  # whatever it is, everybody's events depend on this greenlet
                    logger.exception("What is new could not be read.")
                    gevent.sleep(PAUSE_SECONDS)
                self._changes.wait(seen, LOOK_SECONDS)
        finally:
            self._looking = False

    def _read(self) -> None:
        # The running jobs first: a job that ends in between then still has its last progress read when its end is.
        running = self.store.active()
        for job in running:
            self._notice(job)
        while events := self.store.events_after(self._cursor):
            for event in events:
                before, self._cursor = self._cursor, event.cursor
                try:
                    self._notice_end(event)
                except Unavailable:
                    self._cursor = before  # the event is still to come
                    raise
                self._notice_event(event)
        self._give_up_what_is_gone({job.id for job in running})

    def _notice(self, job: Job) -> None:
        self.progresses.offer(job.id, job.progress, self.encode)
        topic = self._topics.get(job.id)
        try:
            if topic is not None:
                topic.notice(job)
                topic.ended = job if job.ended else None
        except Unavailable:
            raise
        except Exception as error:  # whatever it is, it must not keep other jobs' events back
            for client in list(topic.watchers if topic else ()):
                client.give_up(job.id, problem(error))

    def _give_up_what_is_gone(self, running: AbstractSet[str]) -> None:
        """The rows of a job may have been removed before its end was read here, and nothing tells of that."""
        now = time.monotonic()
        if now < self._looked_for_gone + GONE_SECONDS:
            return
        watched = [job_id for job_id, topic in self._topics.items() if topic.ended is None and job_id not in running]
        for start in range(0, len(watched), GONE_JOBS):
            some = watched[start : start + GONE_JOBS]
            there = self.logs.states(some)
            for job_id in some:
                topic = self._topics.get(job_id)
                for client in list(topic.watchers if topic and job_id not in there else ()):
                    client.lose(job_id)
        self._looked_for_gone = now

    def _notice_end(self, event: JobEvent) -> None:
        watched = event.job_id in self._topics or self.progresses.watched
        if event.status in ENDED and watched and (job := self.store.find(event.job_id)):
            self._notice(job)

    def _notice_event(self, event: JobEvent) -> None:
        topic = self._topics.get(event.job_id)
        self.statuses.add(event)
        if topic is not None:
            topic.add_event(event)
        self._wake_all_watchers()

    def _wake_all_watchers(self) -> None:
        for client in self._clients.values():
            if client.watches_all:
                client.wake()


def status_payload(event: JobEvent) -> dict[str, Json]:
    return {
        "job_id": event.job_id,
        "status": event.status,
        "previous": event.previous,
        "reason": event.reason,
        "at": to_rfc3339(event.at),
    }


def progress_payload(job_id: str, progress: Progress) -> dict[str, Json]:
    return {"job_id": job_id, "percent": progress.percent, "message": progress.message, "at": to_rfc3339(now_ms())}


def log_payload(chunk: LogChunk) -> dict[str, Json]:
    return {
        "job_id": chunk.job_id,
        "first_seq": chunk.first_seq,
        "at": to_rfc3339(chunk.at),
        "stream": chunk.stream,
        "lines": chunk.texts(),
    }


def complete_payload(job: Job) -> dict[str, Json]:
    return {
        "job_id": job.id,
        "status": job.status,
        "reason": job.reason,
        "exit_code": job.exit_code,
        "duration_seconds": job.duration_seconds,
        "log_lines": job.log.lines,
        "result": job.result,
    }


class Statuses:
    """The newest status changes of all jobs, for those who watch everything."""

    def __init__(self, caster: Caster) -> None:
        self._caster = caster
        self._kept: deque[tuple[int, Packet]] = deque(maxlen=KEPT_EVENTS)
        self._floor = 0

    def start(self, cursor: int) -> int:
        """Nothing up to `cursor` is kept."""
        self._kept.clear()
        self._floor = cursor
        return cursor

    def add(self, event: JobEvent) -> None:
        if len(self._kept) == KEPT_EVENTS:
            self._floor = self._kept[0][0]
        self._kept.append((event.cursor, self._caster.encode("status", status_payload(event))))

    @property
    def last(self) -> int:
        return self._kept[-1][0] if self._kept else self._floor

    def after(self, cursor: int) -> list[tuple[int, Packet]]:
        if cursor >= self._floor:
            return [kept for kept in self._kept if kept[0] > cursor] if cursor < self.last else []
        events = self._caster.store.events_after(cursor)
        return [(event.cursor, self._caster.encode("status", status_payload(event))) for event in events]


class Progresses:
    """The newest progress of each running job; one that a client missed is of no use to it."""

    KEPT = 1000

    def __init__(self) -> None:
        self.watched = 0
        self._serial = 0
        self._kept: OrderedDict[str, tuple[Progress, int, Packet]] = OrderedDict()

    @property
    def last(self) -> int:
        return self._serial

    def offer(self, job_id: str, progress: Progress, encode: Encode) -> None:
        if not self.watched or progress == Progress():
            return
        kept = self._kept.get(job_id)
        if kept is not None and kept[0] == progress:
            return
        self._serial += 1
        self._kept[job_id] = (progress, self._serial, encode("progress", progress_payload(job_id, progress)))
        self._kept.move_to_end(job_id)
        while len(self._kept) > self.KEPT:
            self._kept.popitem(last=False)

    def after(self, serial: int) -> list[tuple[int, Packet]]:
        newer: list[tuple[int, Packet]] = []
        for _, number, packet in reversed(self._kept.values()):
            if number <= serial:
                break
            newer.append((number, packet))
        return newer[::-1]


@dataclass(frozen=True)
class StatusChange:
    cursor: int
    ended: bool
    packet: Packet


@dataclass(frozen=True)
class KeptChunk:
    first_seq: int
    next_seq: int
    packet: Packet


class Topic:
    """One watched job: the newest of its log and its status changes, and who watches it."""

    def __init__(self, caster: Caster, job_id: str) -> None:
        self._caster = caster
        self.job_id = job_id
        self.watchers: set[Client] = set()
        self.progress = Progress()
        self.progress_packet: Packet | None = None
        self.ended: Job | None = None
        """The job once its end was read among the status changes: then all of them are at hand."""
        self.events: list[StatusChange] = []
        self.lines = 0
        self._kept: list[KeptChunk] = []
        self._kept_bytes = 0

    def notice(self, job: Job) -> None:
        """Take in how far the job is now, and tell the watchers if that is news."""
        news = job.ended
        if job.progress not in (self.progress, Progress()):
            self.progress = job.progress
            self.progress_packet = self._caster.encode("progress", progress_payload(job.id, job.progress))
            news = True
        if job.log.lines > self.lines:
            self._keep_new(job.log.lines)
            news = True
        if news:
            self._wake()

    def add_event(self, event: JobEvent) -> None:
        self.events.append(StatusChange(event.cursor, event.status in ENDED, self._caster.encode("status", status_payload(event))))
        self._wake()

    def packets_after(self, seq: int) -> Iterator[KeptChunk]:
        """The log after line `seq`, from what is kept if that reaches back so far, else from the store; at most about a flight of the
        latter."""
        if not self._kept or seq + 1 < self._kept[0].first_seq:
            if seq < self.lines:
                yield from self._stored_after(seq, up_to=None)
            return
        place = bisect_right(self._kept, seq, key=lambda kept: kept.first_seq)
        # A copy, because more may be kept, and some forgotten, while what follows is sent.
        newer = self._kept[place:]
        if place and self._kept[place - 1].next_seq > seq + 1:
            yield from self._stored_after(seq, up_to=self._kept[place - 1].next_seq)
        yield from newer

    def _stored_after(self, seq: int, *, up_to: int | None) -> Iterator[KeptChunk]:
        # However many catch up, one of them has its turn, and then those who are up to date.
        with self._caster.catching_up:
            chunks = self._caster.logs.chunks(self.job_id, after_seq=seq, max_bytes=IN_FLIGHT_BYTES)
            flight: list[KeptChunk] = []
            for chunk in chunks:
                if up_to is not None and chunk.first_seq >= up_to:
                    break
                flight.append(self._encoded(cut(chunk, seq)))
                if len(flight) % TURN_CHUNKS == 0:
                    gevent.sleep(0)
            gevent.sleep(0)
        yield from flight

    def _keep_new(self, lines: int) -> None:
        while self.lines < lines and (chunks := self._caster.logs.chunks(self.job_id, after_seq=self.lines, max_bytes=KEPT_BYTES)):
            for chunk in chunks:
                kept = self._encoded(chunk)
                # At once, because the next look at the store may fail, and what is kept already must not be kept again.
                self.lines = kept.next_seq - 1
                self._kept.append(kept)
                self._kept_bytes += kept.packet.size
        self.lines = max(self.lines, lines)
        if self._kept_bytes > 2 * KEPT_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        surplus = self._kept_bytes - KEPT_BYTES
        count = 0
        while surplus > 0:
            surplus -= self._kept[count].packet.size
            count += 1
        self._kept_bytes = KEPT_BYTES + surplus
        del self._kept[:count]

    def skip_to(self, lines: int) -> None:
        """What was logged before somebody watched is not kept."""
        self.lines = lines

    def _encoded(self, chunk: LogChunk) -> KeptChunk:
        return KeptChunk(chunk.first_seq, chunk.next_seq, self._caster.encode("log", log_payload(chunk)))

    def _wake(self) -> None:
        for client in self.watchers:
            client.wake()


@dataclass
class Subscription:
    """What one client has had of one job. `ended_before` is the job if it had ended already, so that the client was told of that."""

    topic: Topic
    seq: int
    cursor: int
    ended_before: Job | None
    progress: Progress = field(default_factory=Progress)

    @property
    def ended(self) -> Job | None:
        """The job, when nothing more will happen to it but what is at hand."""
        return self.ended_before or self.topic.ended

    def news(self) -> Iterator[Packet]:
        """What the client lacks, in order, about a flight at most: status changes, log, progress, and the end when all else was sent."""
        yield from self._statuses(ended=False)
        topic = self.topic
        for kept in topic.packets_after(self.seq):
            self.seq = kept.next_seq - 1
            yield kept.packet
        if topic.progress_packet is not None and topic.progress != self.progress:
            self.progress = topic.progress
            yield topic.progress_packet

    def ending(self, caster: Caster) -> Iterator[Packet]:
        """The end, once the whole log was sent; nothing before."""
        job = self.ended
        if job is None or self.seq < job.log.lines:
            return
        yield from self._statuses(ended=True)
        if job.error is not None:
            yield caster.encode("error", {"job_id": job.id, "problem": job.error})
        yield caster.encode("complete", complete_payload(job))

    def _statuses(self, *, ended: bool) -> Iterator[Packet]:
        for change in self.topic.events:
            if change.cursor > self.cursor and change.ended is ended:
                self.cursor = change.cursor
                yield change.packet


class Client:
    """One connected client: what it watches, and the greenlet that sends to it."""

    def __init__(self, caster: Caster, wire: Transport) -> None:
        self._caster = caster
        self._wire = wire
        self._jobs: dict[str, Subscription] = {}
        self._all: tuple[int, int] | None = None
        self._news = Event()
        self._unsent = 0
        self._answers = 0
        self._sender: gevent.Greenlet[[], None] | None = None

    @property
    def watches_all(self) -> bool:
        return self._all is not None

    def wake(self) -> None:
        self._news.set()

    def subscribe(self, job_id: str, after_seq: int) -> tuple[Job, int]:
        """Send the job's log after line `after_seq`, and all that happens to it; gives the job as it is, and the number of the first
        line to come.

        Raises JobNotFound.
        """
        job, cursor = self._caster.store.get_with_cursor(job_id)
        if job_id not in self._jobs:
            self._caster.watch(cursor)
        topic = self._caster.topic(job_id)
        if not topic.watchers:
            topic.skip_to(job.log.lines)
        topic.watchers.add(self)
        after_seq = min(after_seq, job.log.lines)
        self._jobs[job_id] = Subscription(topic, seq=after_seq, cursor=cursor, ended_before=job if job.ended else None)
        topic.notice(job)
        self._start()
        return job, after_seq + 1

    def subscribe_all(self) -> None:
        """Send every status change from now on, and the newest progress, of every job."""
        if self._all is None:
            cursor = self._caster.store.last_event()
            self._caster.watch(cursor)
            self._caster.progresses.watched += 1
            self._all = (cursor, self._caster.progresses.last)
        self._start()

    def unsubscribe(self, job_id: str) -> None:
        subscription = self._jobs.pop(job_id, None)
        if subscription is not None:
            subscription.topic.watchers.discard(self)
            if not subscription.topic.watchers:
                self._caster.forget(subscription.topic)
            self._caster.unwatch()

    def unsubscribe_all(self) -> None:
        if self._all is not None:
            self._all = None
            self._caster.progresses.watched -= 1
            self._caster.unwatch()

    def close(self) -> None:
        for job_id in list(self._jobs):
            self.unsubscribe(job_id)
        self.unsubscribe_all()
        if self._sender is not None:
            self._sender.kill(block=False)

    def pace(self) -> None:
        """Before each answer: who asks and asks and does not read must not fill our memory. Raises Gone."""
        self._answers += 1
        if self._answers % ANSWERS_IN_FLIGHT == 0:
            self._wire.pace()

    def give_up(self, job_id: str, why: Json) -> None:
        """End the subscription to a job whose events cannot be had."""
        self.unsubscribe(job_id)
        self.send("error", {"job_id": job_id, "problem": why})

    def lose(self, job_id: str) -> None:
        """The job's rows are gone. Who knows of its end gets what is at hand, and then the end."""
        if self._jobs[job_id].ended is None:
            self.give_up(job_id, problem(JobNotFound(job_id)))

    def dismiss(self, why: Json) -> None:
        """Tell the client why it has to go, and end its connection."""
        self.send("error", {"job_id": None, "problem": why})
        self._wire.hang_up()

    def send(self, event: str, payload: Json) -> None:
        """Send an event that concerns this client only."""
        self._wire.send(self._caster.encode(event, payload))

    # -- sending ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.wake()
        if self._sender is None:
            self._sender = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            try:
                while self._send_news():
                    pass
            except Unavailable:
                gevent.sleep(PAUSE_SECONDS)
                self.wake()
            except Exception as error:  # whatever it is, the client is told that it hears no more, and may subscribe again
                why = problem(error)
                for job_id in list(self._jobs):
                    self.give_up(job_id, why)
                if self.watches_all:
                    self.unsubscribe_all()
                    self.send("error", {"job_id": None, "problem": why})

    def _send_news(self) -> bool:
        """One round over all that the client watches; whether there was anything to send."""
        sent = self._send_all_news()
        for job_id, subscription in list(self._jobs.items()):
            if self._jobs.get(job_id) is subscription:
                sent = self._send_job_news(job_id, subscription) or sent
        return sent

    def _send_job_news(self, job_id: str, subscription: Subscription) -> bool:
        sent = False
        for packet in subscription.news():
            if self._jobs.get(job_id) is not subscription:  # as below, while others had their turn
                return True
            sent = True
            self._put(packet)
            if self._jobs.get(job_id) is not subscription:  # unsubscribed, or subscribed anew, while we waited
                return True
        ended = list(subscription.ending(self._caster))
        if ended:
            self.unsubscribe(job_id)
        elif not sent and (job := subscription.ended) is not None:
            # The job has ended, the log is not all sent, and yet nothing more is at hand: it was not read to its end, or the rest was
            # dropped, or all its rows are gone.
            if subscription.topic.lines < job.log.lines:
                subscription.topic.notice(job)
                return True
            if self._caster.logs.states([job_id]):
                subscription.seq = job.log.lines
                return True
            self.give_up(job_id, problem(JobNotFound(job_id)))
        for packet in ended:
            self._put(packet)
        return sent

    def _send_all_news(self) -> bool:
        sent = False
        while self._all is not None:
            cursor, serial = self._all
            statuses, progresses = self._caster.statuses.after(cursor), self._caster.progresses.after(serial)
            if not statuses and not progresses:
                break
            # Before anything is sent, because sending may wait and another round begin from here.
            self._all = (statuses[-1][0] if statuses else cursor, progresses[-1][0] if progresses else serial)
            for _, packet in (*progresses, *statuses):
                self._put(packet)
            sent = True
        return sent

    def _put(self, packet: Packet) -> None:
        self._wire.send(packet)
        self._unsent += packet.size
        if self._unsent >= IN_FLIGHT_BYTES:
            self._wire.drain()
            self._unsent = 0
