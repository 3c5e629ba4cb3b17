"""Requests that a foreign page, or a foreign name, makes with the right token: none of them may reach a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from chaos.attacks.row import Attack, Row, Target, refused
from support.server import task_submission

SUBMISSION = task_submission("true")
HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
EVENTS = "/socket.io/?EIO=4&transport="
# `{host}` is the service's own address with its port.
FOREIGN_ORIGINS = (
    "https://evil.example",
    "null",
    "file://",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://localhost:1",
    "http://{host}.evil.example",
    "http://evil.example/{host}",
    "http://{host}@evil.example",
    "http://evil.example#{host}",
    "ftp://{host}",
    "{host}",
    "http://{host}, https://evil.example",
)
FOREIGN_HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example:80",
    "evil.example@127.0.0.1:1@evil.example",
    "2130706433",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "127.0.0.1, evil.example",
    "",
)
FORMS = {
    "text/plain": json.dumps(SUBMISSION),
    "text/plain; application/json": json.dumps(SUBMISSION),
    "application/x-www-form-urlencoded": f"{json.dumps(SUBMISSION)}=",
    "multipart/form-data; boundary=x": f'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n{json.dumps(SUBMISSION)}\r\n--x--\r\n',
    "application/json-seq": json.dumps(SUBMISSION),
    "application/xml": "<a/>",
    "": json.dumps(SUBMISSION),
}
CALLS = (
    ("GET", "/api/jobs"),
    ("POST", "/api/jobs/submit"),
    ("GET", "/api/health/live"),
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", f"{EVENTS}polling"),
)


def from_page(method: str, path: str, origin: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        headers = {"Origin": origin.format(host=target.server.url.removeprefix("http://"))}
        body = {"json": SUBMISSION} if method == "POST" else {}
        refused(target.call(method, path, token=target.server.token, headers=headers, **body), 403)

    return run


def preflight(origin: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        headers = {"Origin": origin.format(host=target.server.url.removeprefix("http://")), **asked}
        refused(target.call("OPTIONS", "/api/jobs/submit", headers=headers), 403)

    return run


def for_host(method: str, path: str, host: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        body = json.dumps(SUBMISSION) if method == "POST" else ""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        about = f"Authorization: Bearer {target.server.token}\r\n{length}\r\nConnection: close"
        heard = target.say(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{about}\r\n\r\n{body}".encode(), closing=True)
        assert (heard.statuses, heard.closed) == ([403], True), heard

    return run


def raw(request: str, expected: int) -> Callable[[Target], None]:
    """`{host}` and `{token}` are filled in."""

    def run(target: Target) -> None:
        text = request.replace("{host}", target.server.url.removeprefix("http://")).replace("{token}", target.server.token)
        heard = target.say(text.encode())
        assert heard.statuses == [expected], heard

    return run


def handshake(origin: str, expected: int) -> Callable[[Target], None]:
    return raw(f"GET {EVENTS}websocket HTTP/1.1\r\nHost: {{host}}\r\nOrigin: {origin}\r\n{HANDSHAKE}\r\n", expected)


def prepare(target: Target) -> None:
    """The same requests get through from a page of our own: nothing is refused for what it asks, or how."""
    for method, path in CALLS:
        body = {"json": SUBMISSION} if method == "POST" else {}
        answer = target.call(method, path, token=target.server.token, headers={"Origin": target.server.url}, **body)
        assert answer.status_code in (200, 202), answer.text
    handshake("http://{host}", 101)(target)


def as_form(media_type: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        headers = {"Content-Type": media_type} if media_type else {}
        refused(target.call("POST", "/api/jobs/submit", token=target.server.token, data=FORMS[media_type].encode(), headers=headers), 415)

    return run


def attacks() -> Iterator[Attack]:
    for origin in FOREIGN_ORIGINS:
        for method, path in CALLS:
            yield Attack(f"{method} {path} from a page of {origin}", from_page(method, path, origin))
        yield Attack(f"preflight from a page of {origin}", preflight(origin))
        yield Attack(f"WebSocket from a page of {origin}", handshake(origin, 403))
    for host in FOREIGN_HOSTS:
        for method, path in CALLS:
            yield Attack(f"{method} {path} for the host {host!r}", for_host(method, path, host))
    token = "Authorization: Bearer {token}\r\nConnection: close\r\n"
    yield Attack("no host", raw(f"GET /api/jobs HTTP/1.1\r\n{token}\r\n", 403))
    yield Attack("no host, as HTTP/1.0", raw(f"GET /api/jobs HTTP/1.0\r\n{token}\r\n", 403))
    yield Attack("two hosts", raw(f"GET /api/jobs HTTP/1.1\r\nHost: {{host}}\r\nHost: evil.example\r\n{token}\r\n", 400))
    yield Attack("the other two hosts", raw(f"GET /api/jobs HTTP/1.1\r\nHost: evil.example\r\nHost: {{host}}\r\n{token}\r\n", 400))
    yield Attack("a forwarded host", raw(f"GET /api/jobs HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: {{host}}\r\n{token}\r\n", 403))
    for media_type in FORMS:
        yield Attack(f"submit as {media_type or 'nothing that it says'}", as_form(media_type))


SCENARIOS = (
    Row(
        name="attack-doors",
        fault="foreign Origin, foreign Host, forms and text as bodies, CORS preflights, WebSocket from a foreign page",
        attacks=list(attacks()),
        prepare=prepare,
    ).scenario(),
)
