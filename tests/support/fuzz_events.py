"""`make fuzz-events`: the events of the contract, valid and broken, and frames that are none, against a server of its own.

Schemathesis makes the payloads from the schemas of `jobs.asyncapi.yaml`, as it does those of HTTP; around them stand all the ways in which
an event, a packet or a frame can be wrong. Every answer is held against its message. A broken message gets an `error`, and an
acknowledgement that says so if one was asked for; it never closes the connection, and those who watch meanwhile notice nothing.
`test_event_fuzzing.py` does it with fewer examples. Run as `python -m support.fuzz_events [--examples 1000] [--seed 7]` with `tests` in the
path.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from handlers.contract.document import Contract
from support.lines import LINES, MESSAGE, SEPARATOR, Closed, Conversation, Frame, next_messages
from support.server import PROGRAMS, RunningServer, start_server
from support.waiting import eventually

NOWHERE = "019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"
INVALID, UNKNOWN_JOB = "urn:runcast:problem:invalid-request", "urn:runcast:problem:job-not-found"
EVENTS = ("subscribe", "unsubscribe")


class Expected(Enum):
    TAKEN = auto()
    """No complaint; the acknowledgement says yes, or that there is no such job."""
    REFUSED = auto()
    """An `error`, and an acknowledgement that says no."""
    UNANSWERED = auto()
    """Socket.IO's own, which the contract does not have."""
    EITHER = auto()
    """Whatever it happens to be; the rules for answers hold all the same."""


@dataclass(frozen=True)
class Message:
    """What is sent, and what is to come of it. `event` and `ack` name the acknowledgement that is asked for."""

    frame: Frame
    expected: Expected
    event: str | None = None
    ack: int | None = None


# -- what is sent ---------------------------------------------------------------------------------------------------------


def payloads(contract: Contract, event: str, *, valid: bool) -> st.SearchStrategy[Any]:
    """What the schema of an event's payload allows, or does not. As bytes: something that is not even JSON."""
    from schemathesis import GenerationMode, openapi  # takes a second, which every collection of the tests would pay

    schema = contract.asyncapi["components"]["messages"][event]["payload"]["schema"]
    body = {"required": True, "content": {"application/json": {"schema": json.loads(json.dumps(schema).replace("jobs.yaml#", "#"))}}}
    document = {
        "openapi": "3.0.3",
        "info": {"title": event, "version": "1"},
        "paths": {"/": {"post": {"requestBody": body, "responses": {"200": {"description": "taken"}}}}},
        "components": {"schemas": contract.openapi["components"]["schemas"]},
    }
    cases = openapi.from_dict(document)["/"]["POST"].as_strategy(
        generation_mode=GenerationMode.POSITIVE if valid else GenerationMode.NEGATIVE
    )
    return cases.map(lambda case: case.body).filter(lambda value: isinstance(value, dict | list | str | int | float | bytes | None))


acks = st.none() | st.integers(0, 10**9)


def event_frame(event: str, *arguments: str | bytes, ack: int | None) -> str:
    """`arguments` are JSON already, or what is none."""
    texts = [argument if isinstance(argument, str) else argument.decode("latin-1") for argument in arguments]
    return f"{MESSAGE}2{'' if ack is None else ack}[{','.join([json.dumps(event), *texts])}]"


def valid(contract: Contract, job_ids: Sequence[str]) -> st.SearchStrategy[Message]:
    def make(event: str, payload: Any, job_id: str | None, upper: bool, ack: int | None) -> Message:
        if job_id is not None and "job_id" in payload:
            payload = {**payload, "job_id": job_id.upper() if upper else job_id}
        return Message(event_frame(event, json.dumps(payload), ack=ack), Expected.TAKEN, event, ack)

    known = st.none() | st.sampled_from(job_ids)
    return st.one_of(
        [st.builds(make, st.just(event), payloads(contract, event, valid=True), known, st.booleans(), acks) for event in EVENTS]
    )


def broken(contract: Contract) -> st.SearchStrategy[Message]:
    """A payload that its schema does not allow."""

    def make(event: str, payload: Any, ack: int | None) -> Message:
        text = payload if isinstance(payload, bytes) else json.dumps(payload)
        is_json = not isinstance(payload, bytes)
        return Message(event_frame(event, text, ack=ack), Expected.REFUSED, event if is_json else None, ack if is_json else None)

    return st.one_of([st.builds(make, st.just(event), payloads(contract, event, valid=False), acks) for event in EVENTS])


def spoiled(contract: Contract) -> st.SearchStrategy[Message]:
    """A right payload in a wrong place: too many, too few, wrapped, written as text, huge, deep, as a binary attachment."""

    def arguments(text: str, how: str, much: int) -> list[str]:
        return {
            "none": [],
            "two": [text, text],
            "three": [text, "null", text],
            "in a list": [f"[{text}]"],
            "as text": [json.dumps(text)],
            "with more": [text[:-1] + ',"more":1}'],
            "with much": [text[:-1] + f',"more":"{"x" * much}"}}'],
            "deep": [text[:-1] + ',"more":' + "[" * much + "]" * much + "}"],
            "attached": ['{"_placeholder":true,"num":0}'],
        }[how]

    ways = ["none", "two", "three", "in a list", "as text", "with more", "with much", "deep", "attached"]

    def make(event: str, payload: Any, how: str, much: int, ack: int | None) -> Message:
        return Message(event_frame(event, *arguments(json.dumps(payload), how, much), ack=ack), Expected.REFUSED, event, ack)

    events, much = st.sampled_from(EVENTS), st.sampled_from([1, 100, 800, 100_000])
    right = payloads(contract, "subscribe", valid=True)
    return st.builds(make, events, right, st.sampled_from(ways), much, acks).filter(_parses)


def _parses(message: Message) -> bool:
    """Nested so deeply that it is no JSON to Python is no event, and gets no acknowledgement."""
    try:
        json.loads(str(message.frame)[str(message.frame).index("[") :])
    except RecursionError:
        return False
    return True


json_texts = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
).map(json.dumps)
names = st.one_of(
    st.sampled_from(["connect", "disconnect", "*", "malformed", "log", "complete", "error", "message", "connect_error", "__class__", ""]),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.just(100_000).map(lambda count: "x" * count),
).filter(lambda name: name not in EVENTS)


def unknown_events() -> st.SearchStrategy[Message]:
    def make(name: str, arguments: list[str], ack: int | None) -> Message:
        return Message(event_frame(name, *arguments, ack=ack), Expected.REFUSED, "subscribe", ack)

    return st.builds(make, names, st.lists(json_texts, max_size=3), acks)


no_events = [
    *("42", "42[]", "42[5]", "42[null]", "42{}", '42"subscribe"', "42[", "42[[]]", "4", "4x", "45", "46", "47", "49", "4-", "4é"),
    *('451-["subscribe",{"_placeholder":true,"num":0}]', '459999999999-["subscribe"]', "461-[]", '45["subscribe",{"all":true}]'),
    *("43", "431[]", '431[{"ok":true}]', "43x", "44", "44{}", '44{"message":"no"}', "431", '42/admin,["subscribe",{"all":true}]', "40{"),
    *("40", "40{}", '40{"token":"x"}', "40null", "40[", "42" + "9" * 200 + "[]", '42-1["subscribe",{"all":true}]'),
    *('421.5["subscribe",{"all":true}]', '42["subscribe",{"all":true}]]', '42["subscribe",{"all":true}', '42["subscribe",{"all":true},]'),
    *("0", '0{"sid":"x"}', "2", "2x", "6", "6x", "7", "9", "x", "é", "", "bö", "\x00", "[]", '["subscribe",{"all":true}]'),
]
"""No packet of the contract. What Socket.IO's own are: see `its_own`."""
its_own = ["3", "3x", "5", "41/admin,"]


def frames() -> st.SearchStrategy[Message]:
    """No event at all: packets of Socket.IO and Engine.IO at the wrong time, cut, mixed up, and noise."""
    deep = st.just(50_000).map(lambda count: "42" + "[" * count)
    known = st.one_of(st.sampled_from(no_events), deep).map(lambda text: Message(text, Expected.REFUSED))
    own = st.sampled_from(its_own).map(lambda text: Message(text, Expected.UNANSWERED))
    namespaces = st.sampled_from(["40/admin,", "40/admin,{}", "40/é,", "40//,", "40/" + "x" * 5000]).map(
        lambda text: Message(text, Expected.EITHER)
    )
    noise = (
        st.one_of(st.text('0123456789[]{}",:/-b ésubcrie', max_size=30), st.text("12", max_size=3).map(lambda text: f"42{text}[]"))
        .filter(lambda text: not text.startswith(("1", "41")))  # which ask for the end of the connection
        .map(lambda text: Message(text, Expected.EITHER))
    )
    binary = st.binary(max_size=60).map(lambda data: Message(data, Expected.REFUSED))
    return st.one_of(known, own, namespaces, noise, binary)


def messages(contract: Contract, job_ids: Sequence[str]) -> st.SearchStrategy[Message]:
    return st.one_of(valid(contract, job_ids), broken(contract), spoiled(contract), unknown_events(), frames())


# -- what comes of it -----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What the examples met, so that a run that met nothing is noticed."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, message: Message, packets: Sequence[str]) -> None:
        self.counts[message.expected.name.lower()] += 1
        self.counts.update({"events": sum(packet.startswith("42") for packet in packets)})
        self.counts.update({"acknowledgements": sum(packet.startswith("43") for packet in packets)})


def check(contract: Contract, message: Message, packets: Sequence[str]) -> None:
    """Fails when an answer breaks its message, or is not the one to expect."""
    told: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for packet in packets:
        kind, text = packet[:2], packet[packet.find("[") :]
        if kind == "42":
            event, payload = json.loads(text)
            assert contract.event_violations(event, payload) == []
            told += [payload["problem"]] if event == "error" and payload["job_id"] is None else []
        elif kind == "43":
            (answer,) = json.loads(text)
            assert contract.ack_violations(message.event or "subscribe", answer) == []
            answers.append(answer)
        else:
            assert packet.startswith("44/"), f"a packet that nobody knows: {packet!r}"
            assert contract.ack_violations("connect", json.loads(packet[packet.index("{") :])) == []
    _check_expected(message, told, answers)


def _check_expected(message: Message, told: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> None:
    if message.expected is Expected.EITHER:
        return
    assert len(answers) == (message.ack is not None), f"{len(answers)} acknowledgements"
    if message.expected is Expected.REFUSED:
        assert [problem["type"] for problem in told] == [INVALID]
        assert all(answer["ok"] is False and answer["problem"]["type"] == INVALID for answer in answers)
    else:
        assert not told
        assert all(answer["ok"] or answer["problem"]["type"] == UNKNOWN_JOB for answer in answers)


@contextmanager
def honest_watchers(server: RunningServer) -> Iterator[str]:
    """Clients of both transports that follow one job meanwhile; at the end they must have seen all of it. Gives the job's id."""
    gate = server.folder / f"gate-{random.getrandbits(32)}"
    numbered = f"{sys.executable} {PROGRAMS}/numbered_lines.py 1000000 --rate 200"
    job_id = server.shell(f"{numbered} & while ! [ -e {gate} ]; do sleep 0.02; done; kill $!; wait $! 2>/dev/null; exit 0")
    try:
        with server.connect(transport="websocket") as first, server.connect(transport="polling") as second:
            for watcher in (first, second):
                watcher.subscribe(job_id)
                watcher.wait("log", job_id)
            yield job_id
            gate.touch()
            for watcher in (first, second):
                complete = watcher.wait("complete", job_id)
                lines = watcher.lines(job_id)
                assert (complete["status"], complete["log_lines"]) == ("completed", len(lines))
                assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    finally:
        gate.touch()
        server.wait(job_id)


def talk(server: RunningServer, transport: str, *, chosen: settings, seeded: int | None = None) -> Tally:
    """Sends examples over one connection after the other, and checks what comes back."""
    contract, tally = Contract.load(), Tally()
    ended = [server.shell("echo one; echo two >&2; exit 3"), server.run("true")]
    for job_id in ended:
        server.wait(job_id)
    with honest_watchers(server) as running:
        conversation = Conversation(server, transport)

        @chosen
        @given(st.lists(messages(contract, [running, *ended]), min_size=2, max_size=6), st.booleans())
        def one_example(sent: list[Message], together: bool) -> None:
            """Each by itself; and then all at once, in one body if it can be."""
            nonlocal conversation
            try:
                for message in sent:
                    packets = conversation.say(message.frame)
                    tally.note(message, packets)
                    check(contract, message, packets)
                if together:
                    packets = conversation.say(*at_once(sent, transport))
                    told = sum('"error",{"job_id":null' in packet for packet in packets)
                    assert told >= sum(message.expected is Expected.REFUSED for message in sent)
            except Closed:
                conversation.line.close()
                conversation = Conversation(server, transport)
                raise AssertionError("the connection was closed") from None

        try:
            (one_example if seeded is None else seed(seeded)(one_example))()
        finally:
            conversation.line.close()
    return tally


def at_once(sent: Sequence[Message], transport: str) -> list[Frame]:
    texts = [message.frame for message in sent if isinstance(message.frame, str)]
    binaries = [message.frame for message in sent if isinstance(message.frame, bytes)]
    return [*([SEPARATOR.join(texts)] if transport == "polling" and texts else texts), *binaries]


NO_PAYLOAD = ("null", '""', "[]", "{}")
"""What the library takes for none, and so for no token."""


def knock(server: RunningServer, transport: str, *, chosen: settings, seeded: int | None = None) -> Tally:
    """Sends whatever may stand where a token should, after frames that came too early: it is refused as the contract has it."""
    contract, tally = Contract.load(), Tally()
    right = payloads(contract, "connect", valid=True).map(json.dumps)
    # A number would be the packet's own, the place of which it takes.
    wrong = payloads(contract, "connect", valid=False).filter(lambda value: not isinstance(value, bytes | int | float))
    too_early = st.lists(frames() | unknown_events(), max_size=3)

    @chosen
    @given(st.one_of(right.map(lambda text: (text, False)), wrong.map(lambda value: (json.dumps(value), True))), too_early)
    def one_example(auth: tuple[str, bool], early: list[Message]) -> None:
        text, is_broken = auth
        line = LINES[transport](server)
        try:
            for message in early:
                if not (isinstance(message.frame, str) and message.frame.startswith("40")):
                    line.send(message.frame)
            line.send(f"{MESSAGE}0{text}")
            answer = next_messages(line)[0]
            assert answer.startswith("44"), answer
            refusal = json.loads(answer[2:])
            assert contract.ack_violations("connect", refusal) == []
            kind = refusal["data"]["type"].rpartition(":")[2]
            assert kind == ("invalid-request" if is_broken and text not in NO_PAYLOAD else "unauthenticated")
            tally.counts[kind] += 1
        finally:
            line.close()

    (one_example if seeded is None else seed(seeded)(one_example))()
    return tally


@contextmanager
def talking_server(folder: Path) -> Iterator[RunningServer]:
    """Without the limits that so many messages, and so many wrong tokens, would meet."""
    with start_server(folder, slots=2, rate_limit="off", failure_limit="off") as server:
        yield server
        # Whoever sends nonsense leaves nothing behind.
        eventually(
            lambda: "\nruncast_clients 0.0" in server.session.get(f"{server.url}/metrics", timeout=20).text,
            "all clients are gone",
            seconds=60,
        )


def _metrics(server: RunningServer) -> str:
    return server.session.get(f"{server.url}/metrics", timeout=20).text


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-events")
    parser.add_argument("--examples", type=int, default=1000, help="conversations of up to 6 messages over each transport")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    # Each example is a talk with a server over the network, and such data are slow to make.
    chosen = settings(max_examples=arguments.examples, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    with tempfile.TemporaryDirectory(prefix="runcast-fuzz-") as folder, talking_server(Path(folder)) as server:
        for transport in LINES:
            for work in (talk, knock):
                tally = work(server, transport, chosen=chosen, seeded=arguments.seed)
                print(f"{transport}: {', '.join(f'{count} {name}' for name, count in sorted(tally.counts.items()))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
