"""Every message of the events contract, caught on the wire of a real server, matches it; and none of the contract's is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import socketio

from handlers.contract.document import Contract
from support.server import RunningServer
from support.waiting import eventually

NOWHERE = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"


class Transport:
    """Every message that goes over one server's wire in either direction, by the name that the contract gives it."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._contract = Contract.load()
        self.caught: dict[str, list[Any]] = {}
        self.faults: list[str] = []

    def note(self, message: str, payload: Any, faults: Sequence[Any] = ()) -> None:
        self.caught.setdefault(message, []).append(payload)
        self.faults += [f"{message}: {fault}" for fault in faults]

    def connect(self, auth: dict[str, Any]) -> socketio.Client:
        self.note("connect", auth, self._contract.message_violations("connect", auth))
        client = socketio.Client(reconnection=False)
        client.on("*", lambda event, payload: self.note(event, payload, self._contract.event_violations(event, payload)))
        client.on("connect_error", lambda payload: self.note("connect_error", payload, self._contract.ack_violations("connect", payload)))
        client.on("disconnect", lambda reason: self.note("disconnect", None))
        client.connect(self._server.url, auth=auth, transports=["websocket"])
        return client

    def call(self, client: socketio.Client, event: str, payload: Any) -> Any:
        self.note(event, payload, self._contract.message_violations(event, payload))
        answer = client.call(event, payload, timeout=20)
        self.note(f"{event}_ack", answer, self._contract.ack_violations(event, answer))
        return answer

    def came(self, event: str, job_id: str | None) -> bool:
        return any(payload["job_id"] == job_id for payload in self.caught.get(event, ()))


@pytest.fixture(scope="module")
def wire(server: RunningServer) -> Iterator[Transport]:
    """A wire over which every message went in each of its forms."""
    wire = Transport(server)
    with pytest.raises(socketio.exceptions.ConnectionError):
        wire.connect({"token": "wrong"})
    client = wire.connect({"token": server.token})
    assert wire.call(client, "subscribe", {"all": True})["ok"]
    good = server.shell("echo one; echo two >&2; echo '::progress 50 half'; sleep 0.2; echo '::result {\"url\": \"http://x\"}'")
    bad = server.shell("exit 3")
    killed = server.shell("echo up; exec sleep 60")
    for job_id in (good, bad, killed):
        assert wire.call(client, "subscribe", {"job_id": job_id, "after_seq": 0})["ok"]
    eventually(lambda: wire.came("log", killed), "the job runs")
    server.call("POST", f"/jobs/{killed}/cancel")
    for job_id in (good, bad, killed):
        eventually(lambda job_id=job_id: wire.came("complete", job_id), "the job ends")  # type: ignore[misc]
    assert not wire.call(client, "subscribe", {"job_id": NOWHERE})["ok"]
    assert wire.call(client, "unsubscribe", {"job_id": good})["ok"]
    assert wire.call(client, "unsubscribe", {"all": True})["ok"]
    client.emit("subscribe", {"job_id": 5})
    eventually(lambda: wire.came("error", None), "the broken message is answered")
    client.disconnect()
    eventually(lambda: "disconnect" in wire.caught, "the connection is closed")
    yield wire


def test_every_message_of_the_contract_is_recorded(wire: Transport) -> None:
    messages = {message["name"] for message in Contract.load().asyncapi["components"]["messages"].values()}
    assert set(wire.caught) == messages


def test_every_message_matches_the_contract(wire: Transport) -> None:
    assert wire.faults == []


def test_the_recorded_messages_differ(wire: Transport) -> None:
    """So that the check above holds each form of a message against the contract, and not one of them many times."""
    assert {payload["status"] for payload in wire.caught["complete"]} == {"completed", "failed", "cancelled"}
    assert {payload["previous"] for payload in wire.caught["status"]} == {None, "pending", "running"}
    assert {payload["stream"] for payload in wire.caught["log"]} == {"stdout", "stderr"}
    assert {payload["job_id"] is None for payload in wire.caught["error"]} == {True, False}
    assert {payload["percent"] for payload in wire.caught["progress"]} == {50}
    assert {"url": "http://x"} in [payload["result"] for payload in wire.caught["complete"]]
    assert {answer["ok"] for answer in wire.caught["subscribe_ack"]} == {True, False}


@pytest.mark.parametrize("message", ["log", "progress", "status", "complete", "error"])
def test_the_check_notices_a_difference(wire: Transport, message: str) -> None:
    contract = Contract.load()
    payload = wire.caught[message][0]
    assert contract.event_violations(message, {**payload, "more": 1})
    for name in payload:
        assert contract.event_violations(message, {key: value for key, value in payload.items() if key != name})
