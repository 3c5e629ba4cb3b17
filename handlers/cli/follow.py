"""Follows one job over Socket.IO until it ends: every log line once and in order, however often the connection is lost.

The only state is the sequence number of the last line seen. Every connection is a new one that subscribes to the lines after that number,
so events of an old connection cannot interfere.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import engineio
import socketio

from handlers.cli.client import Client, Refused, Unreachable
from handlers.problems import JOB_FAILED, PREFIX
from jobs.model import ENDED, Json

TICK_SECONDS = 0.25
SILENCE_SECONDS = 10.0
"""After this long without an event, the job is looked up: it may have been deleted."""
RECONNECT_SECONDS = 300.0
"""How long to try to restore a lost connection."""
MAX_PAUSE_SECONDS = 5.0
ACK_TIMEOUT_SECONDS = 30.0

_silent = logging.getLogger("runcast.follow.socket")
_silent.disabled = True  # the libraries log every event; what matters arrives here as an exception or an event


@dataclass(frozen=True)
class Event:
    """Something that happened to the job.

    Events of the contract keep their names and payloads. Added here: `subscribed` (with `job` as it is now), `tick` (nothing happened for
    a moment), `gap` (the log's cap dropped lines `first_seq` to `last_seq`) and `lost` (the connection was lost and is being restored).
    """

    name: str
    data: Mapping[str, Json] = field(default_factory=dict)


class _ConnectionLost(Exception):
    """The connection was lost, or could not be made."""


def follow(
    client: Client, job_id: str, *, after_seq: int = 0, reconnect_timeout: float = RECONNECT_SECONDS
) -> Generator[Event, None, None]:
    """The job's events up to and including `complete`; log lines start after `after_seq`.

    Raises Unreachable when no server answers, or none for `reconnect_timeout` seconds after the connection was lost; and Refused when the
    server refuses the subscription or ends it.
    """
    lines = _Lines(after_seq)
    connected_before = False
    retries = _Retries(reconnect_timeout)
    while True:
        try:
            for event in _watch(client, job_id, after_seq=lines.last_seq):
                connected_before = connected_before or event.name == "subscribed"
                if _is_sign_of_life(event):
                    retries = _Retries(reconnect_timeout)
                yield from lines.take(event)
                if _ends_subscription(event):
                    raise Refused(event.data["problem"])
                if event.name == "complete":
                    return
        except _ConnectionLost:
            if not connected_before:
                client.job(job_id)  # reports the cause better than a failed handshake
            if retries.exhausted():
                raise Unreachable(f"The live events of {client.url} were not available for {reconnect_timeout:.0f} seconds.") from None
            yield Event("lost")
            retries.wait()


def _is_sign_of_life(event: Event) -> bool:
    """Whether the event shows that the subscription works. For a job that has ended, `subscribed` alone does not: its log must follow."""
    if event.name == "subscribed":
        return event.data["job"]["status"] not in ENDED
    return event.name != "tick"


def _ends_subscription(event: Event) -> bool:
    """Whether the server has ended the subscription: any error about the job does, except the job's own failure."""
    return event.name == "error" and event.data["job_id"] is not None and event.data["problem"].get("type") != PREFIX + JOB_FAILED.name


class _Retries:
    """When to reconnect: soon at first, then at growing intervals, until the timeout."""

    def __init__(self, reconnect_timeout: float) -> None:
        self._timeout = reconnect_timeout
        self._began: float | None = None
        self._pause = TICK_SECONDS

    def exhausted(self) -> bool:
        self._began = self._began or time.monotonic()
        return time.monotonic() - self._began > self._timeout

    def wait(self) -> None:
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)


class _Lines:
    """Passes every log line on once, and reports missing lines as gaps."""

    def __init__(self, last_seq: int) -> None:
        self.last_seq = last_seq

    def take(self, event: Event) -> Iterator[Event]:
        if event.name != "log":
            if event.name == "complete" and event.data["log_lines"] > self.last_seq:
                yield Event("gap", {"first_seq": self.last_seq + 1, "last_seq": event.data["log_lines"]})
            yield event
            return
        first, texts = int(event.data["first_seq"]), list(event.data["lines"])
        if first > self.last_seq + 1:
            yield Event("gap", {"first_seq": self.last_seq + 1, "last_seq": first - 1})
        seen = max(0, self.last_seq + 1 - first)
        if len(texts) > seen:
            self.last_seq = first + len(texts) - 1
            yield Event("log", {**event.data, "first_seq": first + seen, "lines": texts[seen:]})


def _watch(client: Client, job_id: str, *, after_seq: int) -> Iterator[Event]:
    """The events of one connection, `subscribed` first. Raises _ConnectionLost when it ends before the job does."""
    connection = _Connection(client)
    try:
        connection.open()
        connection.subscribe(job_id, after_seq=after_seq)
        last_heard = time.monotonic()
        while True:
            event = connection.next_event()
            yield event
            if event.name != "tick":
                last_heard = time.monotonic()
            elif time.monotonic() - last_heard > SILENCE_SECONDS:
                last_heard = time.monotonic()
                _look_up(client, job_id)
    finally:
        connection.close()


def _look_up(client: Client, job_id: str) -> None:
    """Raises Refused when the job was deleted, _ConnectionLost when the job has ended or no server answers."""
    try:
        ended = client.job(job_id)["status"] in ENDED
    except Unreachable as error:
        raise _ConnectionLost from error
    if ended:
        raise _ConnectionLost


class _Engine(engineio.Client):  # type: ignore[misc]  # it has no types
    """Delivers messages in order. engineio's own client starts a thread per message, so that one can overtake another."""

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **how: Any) -> Any:
        return super()._trigger_event(event, *args, run_async=False, **how)

    def disconnect(self, abort: bool = False, reason: str | None = None) -> None:
        # A message that ends the connection is handled by the very thread that disconnect() would wait for.
        super().disconnect(abort=abort or threading.current_thread() is self.read_loop_task, reason=reason)


class _Socket(socketio.Client):  # type: ignore[misc]  # it has no types
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _Engine


class _Connection:
    """One Socket.IO connection, which queues its events. Used once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._job_id: str | None = None
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._refusal: Mapping[str, Json] | None = None
        self._http = client.new_session()
        self._socket = _Socket(reconnection=False, handle_sigint=False, logger=_silent, engineio_logger=_silent, http_session=self._http)
        self._socket.on("*", self._on_event)
        self._socket.on("connect_error", self._on_refusal)
        self._socket.on("disconnect", lambda *_: self._inbox.put(Event("disconnect")))

    def open(self) -> None:
        prefix = urlsplit(self._client.url).path
        try:
            self._socket.connect(
                self._client.url,
                auth={"token": self._client.token} if self._client.token else {},
                socketio_path=f"{prefix}/socket.io",
                namespaces=["/"],
                wait_timeout=10,
            )
        except (socketio.exceptions.SocketIOError, engineio.exceptions.EngineIOError, OSError, ValueError) as error:
            if self._refusal:
                raise Refused(self._refusal) from error
            raise _ConnectionLost from error

    def subscribe(self, job_id: str, *, after_seq: int) -> None:
        """Subscribes to the job. The acknowledgement arrives as the event `subscribed`, in order with the others."""
        self._job_id = job_id
        self._deadline = time.monotonic() + ACK_TIMEOUT_SECONDS
        request = {"job_id": job_id, "after_seq": after_seq}
        try:
            self._socket.emit("subscribe", request, callback=lambda ack=None, *_: self._inbox.put(Event("ack", ack or {})))
        except socketio.exceptions.SocketIOError as error:
            raise _ConnectionLost from error

    def next_event(self) -> Event:
        try:
            event = self._inbox.get(timeout=TICK_SECONDS)
        except queue.Empty:
            if time.monotonic() > self._deadline:
                raise _ConnectionLost from None
            return Event("tick")
        if event.name == "disconnect":
            raise _ConnectionLost
        if event.name == "ack":
            return self._subscribed(event.data)
        return event

    def _subscribed(self, ack: Mapping[str, Json]) -> Event:
        self._deadline = float("inf")
        if not ack.get("ok"):
            raise Refused(ack.get("problem") or {})
        return Event("subscribed", {"job": ack["job"]})

    def close(self) -> None:
        # In a thread of its own: websocket-client's close() waits for the server and swallows every exception meanwhile. Python raises the
        # KeyboardInterrupt of Ctrl-C in the main thread, where it would be lost.
        closing = threading.Thread(target=self._socket.shutdown, daemon=True)
        closing.start()
        try:
            closing.join()
        finally:
            self._http.close()

    def _on_event(self, name: str, data: Json = None, *_: Any) -> None:
        if isinstance(data, dict) and data.get("job_id") in (self._job_id, None):
            self._inbox.put(Event(name, data))

    def _on_refusal(self, data: Json = None, *_: Any) -> None:
        if isinstance(data, dict):
            problem = data.get("data", data)
            self._refusal = problem if isinstance(problem, dict) else {"detail": str(data.get("message", data))}
