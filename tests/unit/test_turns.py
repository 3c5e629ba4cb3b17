"""What one client is sent at a time, and how long that keeps others waiting."""

from __future__ import annotations

from handlers.events.socketio_patches import EncodedPacket
from handlers.events.topic import IN_FLIGHT_BYTES


def event(lines: int, width: int) -> EncodedPacket:
    payload = {"job_id": "x", "first_seq": 1, "at": "2026-11-23T09:00:00.000Z", "stream": "stdout", "lines": ["y" * width] * lines}
    return EncodedPacket("log", payload)


def test_a_subscriber_gets_few_small_events_at_a_time() -> None:
    assert IN_FLIGHT_BYTES // event(1, 20).size < 300


def test_large_events_count_for_about_their_size() -> None:
    assert event(1000, 80).size < 1000 * 90


def test_an_event_is_a_text_packet_of_socket_io() -> None:
    assert EncodedPacket("progress", {"percent": 5}).engine.encode() == '42["progress",{"percent":5}]'
