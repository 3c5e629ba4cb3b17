"""Honest subscribers: each watches jobs over one raw WebSocket, reconnects whenever that breaks, and goes on after the last line it saw."""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import websocket

from chaos.scenario import Findings
from support.raw_socket import RawSocket, raw_socket
from support.server import RunningServer
from support.waiting import eventually

RETRY_SECONDS = 0.05


@dataclass
class Seen:
    """What a witness saw of one job, over all its connections."""

    lines: list[str] = field(default_factory=list)
    complete: dict[str, Any] | None = None


class Witness:
    """Use as a context manager. `faults` has a sentence for every gap, repeat, wrong order or refusal."""

    def __init__(self, server: RunningServer, name: str) -> None:
        self.server = server
        self.name = name
        self.seen: dict[str, Seen] = {}
        self.faults: list[str] = []
        self.reconnects = -1
        self._lock = threading.Lock()
        self._socket: RawSocket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"witness {name}")

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        self.cut()
        self._thread.join(20)

    def watch(self, job_id: str) -> None:
        with self._lock:
            self.seen[job_id] = Seen()
            if self._socket is not None:
                with suppress(OSError, websocket.WebSocketException):  # broken just now: the next connection subscribes to all
                    self._socket.subscribe(job_id)

    def cut(self) -> None:
        """Break the connection, without a goodbye."""
        with self._lock:
            if self._socket is not None:
                self._socket.hang_up()

    def wait(self, job_id: str) -> dict[str, Any]:
        """The end of a watched job, when it has seen it."""
        return eventually(lambda: self.seen[job_id].complete, f"{self.name} sees the end of job {job_id}")

    def missing(self, job_ids: Collection[str] | None = None) -> list[str]:
        """The watched jobs whose end it has not seen."""
        return [job_id for job_id, seen in list(self.seen.items()) if seen.complete is None and (job_ids is None or job_id in job_ids)]

    # -- its thread ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError, websocket.WebSocketException, AssertionError), raw_socket(self.server) as connection:
                self._begin(connection)
                while not self._ended.is_set():
                    self._take(*connection.receive())
            with self._lock:
                self._socket = None
            self._ended.wait(RETRY_SECONDS)

    def _begin(self, connection: RawSocket) -> None:
        with self._lock:
            self._socket = connection
            self.reconnects += 1
            for job_id, seen in self.seen.items():
                if seen.complete is None:
                    connection.subscribe(job_id, after_seq=len(seen.lines))

    def _take(self, event: str, payload: Any) -> None:
        if event == "ack" and not payload[0]["ok"]:
            problem = payload[0]["problem"]
            if problem["status"] == 503:
                raise OSError("try again")
            self.faults.append(f"{self.name} was refused: {problem['detail']}")
        elif event == "log":
            self._take_lines(payload)
        elif event == "complete":
            self._take_end(payload)

    def _take_lines(self, payload: Any) -> None:
        seen = self.seen[payload["job_id"]]
        if seen.complete is not None:
            self.faults.append(f"{self.name} saw lines of job {payload['job_id']} after its end")
        if payload["first_seq"] != len(seen.lines) + 1:
            self.faults.append(f"{self.name} saw line {payload['first_seq']} of job {payload['job_id']} after line {len(seen.lines)}")
        seen.lines += payload["lines"]

    def _take_end(self, payload: Any) -> None:
        seen = self.seen[payload["job_id"]]
        if seen.complete is not None:
            self.faults.append(f"{self.name} saw the end of job {payload['job_id']} twice")
        if payload["log_lines"] != len(seen.lines):
            self.faults.append(f"{self.name} saw {len(seen.lines)} of {payload['log_lines']} lines of job {payload['job_id']}")
        seen.complete = payload


def hold_witnesses(findings: Findings, witnesses: Collection[Witness], *, logs: dict[str, list[str]], seconds: float = 20) -> None:
    """Every witness sees the end of every job that it watches, and saw exactly the lines that are stored."""
    for witness in witnesses:
        with suppress(AssertionError):
            eventually(lambda: not witness.missing(), "it has seen every end", seconds=seconds)  # noqa: B023  # called at once
        findings.broken += [f"{witness.name} never saw the end of job {job_id}" for job_id in witness.missing()]
        findings.broken += witness.faults
        for job_id, seen in witness.seen.items():
            if job_id in logs and seen.complete is not None and seen.lines != logs[job_id]:
                findings.broken.append(f"{witness.name} saw other lines of job {job_id} than are stored")
                findings.lost_lines += max(0, len(logs[job_id]) - len(seen.lines))
