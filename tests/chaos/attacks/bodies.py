"""Requests that are too large, too deep, too slow, or one to one reader and two to another: a 4xx problem, or a closed connection."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import websocket

from chaos.attacks.row import HONEST_SECONDS, Attack, Heard, Row, Target, refused, talk, turned_away
from support.raw_socket import raw_socket
from support.server import task_submission

BODY_SECONDS = 1.0
SLOW_CLIENTS = 150
SLOW_READERS = 30
HEADER_SECONDS = 75
DEEP = b'{"type":"task","params":{"task":"true","inputs":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}}"
SUBMISSION = json.dumps(task_submission("true")).encode()
ZEROS = b" " * (64 << 20)
BODIES = {
    "10,000-deep objects": DEEP,
    "10,000-deep lists": b"[" * 10_000 + b"]" * 10_000,
    "100,000-deep lists without an end": b"[" * 100_000,
    "a key twice": b'{"type":"build","type":"task","params":{"task":"true"}}',
    "a key twice, deep inside": b'{"type":"task","params":{"task":"shell","inputs":{"script":"true","script":"false"}}}',
    "NaN": b'{"type":"build","params":{},"priority":NaN}',
    "Infinity": b'{"type":"build","params":{},"priority":-Infinity}',
    "a number beyond all doubles": b'{"type":"build","params":{},"priority":1e999}',
    "a huge integer": b'{"type":"build","params":{},"priority":' + b"9" * 4000 + b"}",
    "an integer that takes long to read": b'{"type":"build","params":{},"priority":' + b"9" * 900_000 + b"}",
    "UTF-8 that is none": b'{"type":"build","params":{},"queue":"\xff\xfe\xc0\xaf"}',
    "UTF-16": '{"type":"build","params":{},"queue":"ä"}'.encode("utf-16"),
    "half a character": b'{"type":"build","params":{},"queue":"\\ud800"}',
    "80,000 keys": b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}",
    "two documents": SUBMISSION + SUBMISSION,
    "a comment": b"/* */" + SUBMISSION,
    "nothing but brackets": b"{}{}{}",
}
# A fault that the contract names would be 400, one that the task's own schema names 409.
REFUSALS = (400, 409)
ENCODINGS = {
    "gzip": gzip.compress(ZEROS, 9),
    "deflate": zlib.compress(ZEROS, 9),
    "br": b"\x5b\xff\xff\x03" + b"\x00" * 100,
    "gzip, gzip": gzip.compress(gzip.compress(ZEROS, 9), 9),
}


def submit_body(data: bytes) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        headers = {"Content-Type": "application/json"}
        refused(target.call("POST", "/api/jobs/submit", token=target.server.token, data=data, headers=headers), *REFUSALS)

    return run


def encoded(encoding: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        (worker,) = target.server.part("api").children()
        before = worker.memory_info().rss
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        refused(target.call("POST", "/api/jobs/submit", token=target.server.token, data=ENCODINGS[encoding], headers=headers), 400, 415)
        assert worker.memory_info().rss - before < len(ZEROS) // 2, "it was unpacked"

    return run


def large(target: Target) -> None:
    headers = {"Content-Type": "application/json"}
    refused(target.call("POST", "/api/jobs/submit", token=target.server.token, data=b" " * (2 << 20), headers=headers), 413)


def large_in_chunks(target: Target) -> None:
    headers = {"Content-Type": "application/json"}
    parts = (b" " * 65536 for _ in range(32))
    refused(target.call("POST", "/api/jobs/submit", token=target.server.token, data=parts, headers=headers), 413)


def promised(target: Target) -> None:
    """A length that would fill the memory, of which hardly anything comes."""
    head = request("POST", "/api/jobs/submit", f"Authorization: Bearer {target.server.token}", "Content-Type: application/json")
    heard = target.say(head(target, "Content-Length: 99999999999") + b"{")
    assert heard.statuses == [413], heard


def large_for_sockets(target: Target) -> None:
    """It is cut off while it comes; one that is just not too large is answered."""
    with raw_socket(target.server) as attacker:
        attacker.send("subscribe", "x" * (1 << 19))
        assert not attacker.wait("ack")[0]["ok"]
        started = time.monotonic()
        try:
            attacker.send("subscribe", "x" * (2 << 20))
            attacker.wait("ack")
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            assert time.monotonic() - started < HONEST_SECONDS, "it was closed late"
            return
    raise AssertionError("two MiB in one message were taken")


def request(method: str, path: str, *headers: str) -> Callable[..., bytes]:
    def make(target: Target, *more: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {target.server.url.removeprefix('http://')}", *headers, *more]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    return make


def header_flood(*headers: str) -> Callable[[Target], None]:
    return lambda target: turned_away(target.say(request("GET", "/api/jobs", *headers)(target), closing=True), 431)


def endless_header(target: Target) -> None:
    """One that never ends is cut off, however fast it comes; to stop reading it is not enough."""
    with target.connection() as opened:
        opened.settimeout(5)
        opened.sendall(b"GET /api/jobs HTTP/1.1\r\nX: ")
        try:
            for _ in range(1024):
                opened.sendall(b"x" * 65536)
        except ConnectionError:
            return
    raise AssertionError("64 MiB of one header were taken")


def smuggle(*lines: str, body: bytes, bare: bool = False) -> Callable[[Target], None]:
    """One request that may look like two: what is hidden in it must not be answered."""

    def run(target: Target) -> None:
        job_id = target.things["job"]
        token = f"Authorization: Bearer {target.server.token}"
        host = f"Host: {target.server.url.removeprefix('http://')}"
        hidden = f"DELETE /api/jobs/{job_id} HTTP/1.1\r\n{host}\r\n{token}\r\n\r\n".encode()
        end = "\n" if bare else "\r\n"
        head = (
            end.join(["POST /api/jobs/nothing HTTP/1.1", host, token, "Content-Type: application/json", *lines]).encode()
            + (end * 2).encode()
        )
        filled = body.replace(b"{hidden}", hidden).replace(b"{size}", b"%x" % len(hidden))
        heard = target.say(head.replace(b"{length}", b"%d" % len(filled)) + filled)
        assert heard.statuses and min(heard.statuses) >= 400, heard
        assert target.server.call("GET", f"/jobs/{job_id}").status_code == 200

    return run


def broken_request(*parts: bytes, status: int = 400) -> Callable[[Target], None]:
    return lambda target: turned_away(target.say(*parts, closing=True), status)


def slow_body(path: str, *headers: str, within: float = BODY_SECONDS, status: int = 408) -> Callable[[Target], None]:
    """A byte now and then: it is refused, or not answered where that crossed a byte, and the connection is closed when its time is over."""

    def run(target: Target) -> None:
        given = [header.replace("{token}", target.server.token) for header in headers]
        with target.connection() as opened:
            opened.sendall(request("POST", path, *given, "Content-Length: 1000")(target))
            heard = drip(opened, seconds=within + 5)
        assert heard.closed, f"it was still open after {within + 5:.0f} s"
        assert heard.statuses in ([], [status]), heard

    return run


def drip(opened: socket.socket, *, seconds: float) -> Heard:
    """Send one byte after another until the connection is closed, or the time is over; gives what came."""
    opened.settimeout(0.2)
    data, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            opened.sendall(b" ")
            came = opened.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            came = b""
        if not came:
            return Heard(data, closed=True)
        data += came
    return Heard(data, closed=False)


def many_slow_clients(target: Target) -> None:
    """Of all kinds at once; honest clients do not notice, and all that hang in a body are gone when its time is over."""
    token = f"Authorization: Bearer {target.server.token}"
    beginnings = (
        b"GET /api/jobs HTTP/1.1\r\nHost: ",
        b"",
        request("POST", "/api/jobs/submit", token, "Content-Type: application/json", "Content-Length: 1000")(target) + b"{",
        request("POST", "/api/jobs/submit", token, "Content-Type: application/json", "Transfer-Encoding: chunked")(target) + b"5\r\n{",
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(target.connection()) for _ in range(SLOW_CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(beginnings[number % len(beginnings)])
        slowest = 0.0
        for _ in range(50):
            started = time.monotonic()
            assert target.server.call("GET", "/jobs", params={"limit": 1}).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < HONEST_SECONDS, f"an honest client waited {slowest:.1f} s"
        job_id = target.server.run("true")
        assert target.server.wait(job_id)["status"] == "completed"
        in_bodies = [client for number, client in enumerate(clients) if number % len(beginnings) > 1]
        for client in in_bodies:
            heard = talk(client, closing=True)
            assert heard.closed and heard.statuses in ([], [408]), heard


def slow_header(target: Target) -> None:
    with target.connection() as opened:
        opened.sendall(b"GET /api/jobs HTTP/1.1\r\n")
        heard = drip(opened, seconds=HEADER_SECONDS + 10)
    assert heard.closed, f"it was still open after {HEADER_SECONDS + 10} s"


def slow_reader(target: Target) -> None:
    """Asks for a long log many times and reads none of it: costs a bounded amount of memory, and nobody else time."""
    (worker,) = target.server.part("api").children()
    before = worker.memory_info().rss
    token = f"Authorization: Bearer {target.server.token}"
    with ExitStack() as stack:
        clients = [stack.enter_context(target.connection()) for _ in range(SLOW_READERS)]
        for client in clients:
            client.sendall(request("GET", f"/api/jobs/{target.things['long']}/log", token, "Accept: text/plain")(target))
        for client in clients:
            assert client.recv(1), "it was not answered at all"
        assert target.server.call("GET", "/jobs").elapsed.total_seconds() < HONEST_SECONDS
        assert worker.memory_info().rss - before < 200 << 20


def prepare(target: Target) -> None:
    target.things["job"] = target.server.run("true")
    target.things["long"] = target.server.shell("yes 'a long log' | head -c 20000000")
    for name in ("job", "long"):
        target.server.wait(target.things[name])


def attacks() -> Iterator[Attack]:
    for name, data in BODIES.items():
        yield Attack(f"submit {name}", submit_body(data))
    for encoding in ENCODINGS:
        yield Attack(f"a bomb in {encoding}", encoded(encoding))
    yield Attack("2 MiB", large)
    yield Attack("2 MiB in chunks", large_in_chunks)
    yield Attack("a length of 100 GB", promised)
    yield Attack("2 MiB to the socket", large_for_sockets)
    yield Attack("10,000 headers", header_flood(*(f"X-{number}: x" for number in range(10_000))))
    yield Attack("a header of 1 MB", header_flood(f"X: {'x' * 1_000_000}"))
    yield Attack("a request line of 1 MB", broken_request(b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n", status=414))
    yield Attack("a header without an end", endless_header)
    yield Attack("no HTTP at all", broken_request(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"\x00" * 100, b"\r\n\r\n"))
    yield Attack("HTTP/9.9", broken_request(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"))
    yield Attack("HTTP/2 without an agreement", broken_request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9))
    yield Attack("a NUL in a header", broken_request(b"GET /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n"))
    yield Attack("a space in a header's name", broken_request(b"GET /api/jobs HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n"))
    hidden = b"0\r\n\r\n{hidden}"
    yield Attack("smuggle: length and chunks", smuggle("Content-Length: {length}", "Transfer-Encoding: chunked", body=hidden))
    yield Attack("smuggle: chunks and length", smuggle("Transfer-Encoding: chunked", "Content-Length: 4", body=hidden))
    yield Attack("smuggle: two lengths", smuggle("Content-Length: 0", "Content-Length: {length}", body=b"{hidden}"))
    yield Attack("smuggle: two lengths in one", smuggle("Content-Length: 0, {length}", body=b"{hidden}"))
    yield Attack("smuggle: a length with a sign", smuggle("Content-Length: +{length}", body=b"{hidden}"))
    yield Attack("smuggle: a length below nothing", smuggle("Content-Length: -1", body=b"{hidden}"))
    yield Attack("smuggle: a length in hexadecimal", smuggle("Content-Length: 0x10", body=b"{hidden}"))
    yield Attack(
        "smuggle: chunks twice", smuggle("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Length: 4", body=hidden)
    )
    yield Attack("smuggle: chunks in disguise", smuggle("Transfer-Encoding: xchunked", "Content-Length: 4", body=hidden))
    yield Attack("smuggle: chunks behind a control character", smuggle("Transfer-Encoding: \x0bchunked", "Content-Length: 4", body=hidden))
    yield Attack("smuggle: a folded header", smuggle("X: a", " Transfer-Encoding: chunked", "Content-Length: 4", body=hidden))
    yield Attack("smuggle: a size that is none", smuggle("Transfer-Encoding: chunked", body=b"-1\r\n\r\n{hidden}"))
    yield Attack("smuggle: a size beyond all", smuggle("Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n{hidden}"))
    json_body, bearer = "Content-Type: application/json", "Authorization: Bearer {token}"
    yield Attack("a slow body", slow_body("/api/jobs/submit", json_body, bearer))
    yield Attack("a slow body without a token", slow_body("/api/jobs/submit", json_body))
    yield Attack("a slow body to the socket", slow_body("/socket.io/?EIO=4&transport=polling&sid=nobody"))
    # It is answered before its body was read, which then counts as a connection that waits for its next request.
    late = slow_body("/api/jobs/nothing", json_body, bearer, within=HEADER_SECONDS, status=404)
    yield Attack("a slow body that nobody reads", late, slow=True)
    yield Attack(f"{SLOW_CLIENTS} slow clients", many_slow_clients, changes=True)
    yield Attack(f"{SLOW_READERS} who ask and do not read", slow_reader)
    yield Attack("a slow header", slow_header, slow=True)


SCENARIOS = (
    Row(
        name="attack-bodies",
        fault="large, deep, ambiguous, packed and slow bodies, header floods, request smuggling",
        attacks=list(attacks()),
        prepare=prepare,
        options={"body_seconds": BODY_SECONDS},
    ).scenario(),
)
