"""A recording Socket.IO client: every event that any test catches is held against its message in the contract."""

from __future__ import annotations

import threading
import time
from typing import Any

import engineio
import socketio

from handlers.contract.document import Contract


class _InOrder(engineio.Client):  # type: ignore[misc]  # it has no types
    """Handles messages one after another; the library gives each a thread of its own, in which one may overtake another."""

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **how: Any) -> Any:
        return super()._trigger_event(event, *args, run_async=False, **how)


class OrderedClient(socketio.Client):  # type: ignore[misc]  # it has no types
    """python-socketio's client, which tells events in the order in which they came."""

    def _engineio_client_class(self) -> type[engineio.Client]:
        return _InOrder


class EventLog:
    """The events of one client, in the order in which they came. Every payload and every acknowledgement is checked."""

    def __init__(self, client: socketio.Client) -> None:
        self.client = client
        self.events: list[tuple[str, Any]] = []
        self.faults: list[str] = []
        self._contract = Contract.load()
        self._news = threading.Condition()
        client.on("*", self._record)

    def _record(self, event: str, *arguments: Any) -> None:
        payload = arguments[0] if len(arguments) == 1 else arguments
        with self._news:
            self.faults += self._contract.event_violations(event, payload)
            self.events.append((event, payload))
            self._news.notify_all()

    def call(self, event: str, payload: Any) -> Any:
        """Send an event and give its acknowledgement."""
        answer = self.client.call(event, payload, timeout=20)
        self.faults += self._contract.ack_violations(event, answer)
        return answer

    def subscribe(self, job_id: str, after_seq: int = 0) -> Any:
        answer = self.call("subscribe", {"job_id": job_id, "after_seq": after_seq})
        assert answer["ok"], answer
        return answer

    def of(self, event: str, job_id: str | None = None) -> list[Any]:
        return [payload for name, payload in list(self.events) if name == event and (job_id is None or payload["job_id"] == job_id)]

    def wait(self, event: str, job_id: str | None = None, *, count: int = 1, seconds: float = 20) -> Any:
        """The `count`th event of that name, when it has come."""
        deadline = time.monotonic() + seconds
        with self._news:
            while len(found := self.of(event, job_id)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {event} within {seconds:g} s; came: {[name for name, _ in self.events][-50:]}"
                self._news.wait(left)
        return found[count - 1]

    def lines(self, job_id: str) -> list[str]:
        """The job's lines as they came; fails on a gap, a repeat or a wrong order."""
        lines: list[str] = []
        first: int | None = None
        for payload in self.of("log", job_id):
            first = payload["first_seq"] if first is None else first
            assert payload["first_seq"] == first + len(lines), "a gap or a repeat in the log"
            lines += payload["lines"]
        return lines

    def close(self) -> None:
        assert not self.faults, self.faults
