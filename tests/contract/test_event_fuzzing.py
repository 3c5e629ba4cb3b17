"""The events of the contract, valid and broken, and frames that are none: no answer breaks its message, and nobody else notices.

`make fuzz-events` is the same with as many examples as one likes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.fuzz_events import knock, talk, talking_server
from support.lines import LINES, SEPARATOR, Closed, Conversation, Refused
from support.raw_socket import raw_socket
from support.server import PROGRAMS, RunningServer
from support.waiting import eventually

pytestmark = pytest.mark.slow

TOO_MUCH = (1 << 20) + 1
UNREAD_ANSWERS = 5000


@pytest.fixture(scope="module")
def talked_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with talking_server(tmp_path_factory.mktemp("events")) as server:
        yield server


def chosen(examples: int) -> settings:
    # Such data are slow to make, and each example is a talk over the network.
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("transport", LINES)
def test_any_message_is_answered_as_the_contract_says(talked_to: RunningServer, transport: str) -> None:
    counts = talk(talked_to, transport, chosen=chosen(60)).counts
    for met in ("taken", "refused", "unanswered", "either", "acknowledgements", "events"):
        assert counts[met] >= 3, counts


@pytest.mark.parametrize("transport", LINES)
def test_any_wrong_token_is_refused_as_the_contract_says(talked_to: RunningServer, transport: str) -> None:
    counts = knock(talked_to, transport, chosen=chosen(30)).counts
    assert counts["invalid-request"] >= 5 and counts["unauthenticated"] >= 5, counts


@pytest.mark.parametrize("frame", ["1", "41", "x" * TOO_MUCH, b"x" * TOO_MUCH], ids=["bye", "disconnect", "huge", "huge and binary"])
@pytest.mark.parametrize("transport", LINES)
def test_a_violation_ends_only_its_own_connection(talked_to: RunningServer, transport: str, frame: str | bytes) -> None:
    with Conversation(talked_to, transport) as ended, Conversation(talked_to, transport) as other:
        if frame == "41":
            ended.line.send(frame)  # after which nothing is answered
        elif transport == "polling" and len(frame) > 1:
            with pytest.raises(Refused, match="413"):
                ended.line.send(frame)
            assert ended.say() == [], "the body was refused, and the connection is as it was"
        else:
            with pytest.raises(Closed):
                ended.say(frame)
        assert len(other.say("42[]")) == 1


def test_a_client_that_sends_and_never_polls_is_disconnected_at_once(talked_to: RunningServer) -> None:
    questions = SEPARATOR.join(['421["subscribe",{}]'] * 1000)
    with Conversation(talked_to, "polling") as conversation:
        for _ in range(UNREAD_ANSWERS // 2000):  # each question is answered by an event and an acknowledgement
            conversation.line.send(questions)
        with pytest.raises(Closed):
            for _ in range(2):
                begun = time.monotonic()
                conversation.line.send(questions)
                assert time.monotonic() - begun < 10, "nothing waits for a client that does not read"


def test_silent_clients_are_disconnected_and_active_ones_stay(make_server: Callable[..., RunningServer]) -> None:
    server = make_server(silent_seconds=3)
    job_id = server.shell(f"{sys.executable} {PROGRAMS}/numbered_lines.py 5000 --bytes 200; exec sleep 60")
    with server.connect() as honest, raw_socket(server) as silent, raw_socket(server) as idle:
        honest.call("subscribe", {"all": True})
        silent.subscribe(job_id)  # and reads nothing of it, until nothing more can be sent
        assert idle  # which has nothing to read but pings, and answers none
        eventually(lambda: clients_of(server) == 1, "those that were silent are let go", seconds=15)
        assert honest.call("subscribe", {"job_id": job_id, "after_seq": 2**50})["ok"]
        server.call("POST", f"/jobs/{job_id}/cancel")
        honest.wait("complete", job_id)


def clients_of(server: RunningServer) -> int:
    text = server.session.get(f"{server.url}/metrics", timeout=20).text
    return int(float(text.split("\nruncast_clients ")[1].split("\n")[0]))
