"""What an attack is, and how a row of them is done: one after the other against one service, with an honest client in between."""

from __future__ import annotations

import re
import socket
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import requests

from chaos.invariants import hold_all, hold_at_rest, hold_no_processes, hold_nothing_left, listed, opened
from chaos.scenario import Findings, Outcome, Scenario
from chaos.service import Surroundings
from support.server import ENDED, RunningServer
from support.state import state
from support.waiting import eventually

HONEST_SECONDS = 2.0
"""An honest client waits no longer for an answer, also when the machine is busy."""
SILENCE_SECONDS = 3.0
"""Who says nothing for so long has not answered."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")


@dataclass
class Target:
    """The service that is attacked. `secrets` are texts that may stand nowhere in its log."""

    server: RunningServer
    surroundings: Surroundings
    rng: Random
    secrets: list[str] = field(default_factory=list)
    things: dict[str, Any] = field(default_factory=dict)
    """What the row prepared, by name."""

    @property
    def workspace(self) -> Path:
        return self.server.folder / "data" / "workspace"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.server.url.rpartition(":")[2])

    def token(self, name: str, *scopes: str, seconds: int | None = None) -> dict[str, Any]:
        """A new token as its owner sees it."""
        lasting = {"expires_in_seconds": seconds} if seconds else {}
        answer = self.server.call("POST", "/tokens", json={"name": name, "scopes": list(scopes), **lasting})
        assert answer.status_code == 201, answer.text
        self.secrets.append(answer.json()["token"])
        return dict(answer.json())

    def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        """A request by a stranger, or by whoever has `token`; `path` is from the root."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"{self.server.url}{path}", headers=headers, timeout=20, allow_redirects=False, **options)

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A bare connection, on which nothing has been said yet."""
        with socket.create_connection(self.address, timeout=20) as opened:
            yield opened

    def say(self, *parts: bytes, closing: bool = False) -> Heard:
        """What is answered to these bytes; with `closing`, the service is to close the connection, and that is waited for."""
        with self.connection() as opened:
            return talk(opened, *parts, closing=closing)


@dataclass(frozen=True)
class Heard:
    """What came over a bare connection, and whether the service closed it: silence is neither."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """Of the HTTP answers in it; the second may stand right behind the body of the first."""
        return [int(status) for status in _STATUS.findall(self.data)]


def talk(opened: socket.socket, *parts: bytes, closing: bool = False) -> Heard:
    """Raises TimeoutError when the service does not even take what is said."""
    opened.settimeout(SILENCE_SECONDS)
    with suppress(ConnectionError):  # it may have answered, and closed the connection, before it had all
        for part in parts:
            opened.sendall(part)
    data = b""
    try:
        while came := opened.recv(1 << 16):
            data += came
            if not closing:
                opened.settimeout(0.3)  # there may be a second answer behind the first
    except TimeoutError:
        return Heard(data, closed=False)
    except ConnectionError:
        pass
    return Heard(data, closed=True)


def turned_away(heard: Heard, expected: int) -> None:
    """One answer with this status, or none where it would have crossed what was still being sent; and then the connection is closed."""
    assert heard.closed, f"the connection stays open after {heard.data[:300]!r}"
    assert heard.statuses == [expected] or not heard.data, heard.data[:300]


def refused(answer: requests.Response, *expected: int) -> None:
    """It is a problem with one of these statuses, and gives nothing away."""
    assert answer.status_code in expected, f"{answer.status_code}: {answer.text[:300]}"
    assert answer.headers["Content-Type"] == "application/problem+json", answer.headers
    assert answer.json()["status"] == answer.status_code
    assert "Access-Control-Allow-Origin" not in answer.headers


@dataclass(frozen=True)
class Attack:
    """One attempt. `run` raises AssertionError when it got through; with `changes`, jobs or tokens may come of it, as of any request."""

    name: str
    run: Callable[[Target], None]
    changes: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Row:
    """Attacks of one kind; `prepare` makes what they need, and `options` are those of the service."""

    name: str
    fault: str
    attacks: Sequence[Attack]
    prepare: Callable[[Target], None] = lambda target: None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Target], None] = lambda target: None
    """At the end, when the service still runs."""

    def scenario(self) -> Scenario:
        quick = sum(not attack.slow for attack in self.attacks)
        return Scenario(self.name, self.fault, "attacks", quick, len(self.attacks), self._run)

    def _run(self, dose: int, rng: Random, folder: Path) -> Outcome:
        findings = Findings()
        surroundings = Surroundings.make(folder)
        with surroundings.serve(environment=dict(self.environment), **self.options) as server:
            target = Target(server, surroundings, rng, secrets=[server.token])
            self.prepare(target)
            chosen = [attack for attack in self.attacks if not attack.slow] if dose < len(self.attacks) else self.attacks
            _settle(surroundings)
            before = state(server)
            for attack in chosen:
                before = _attack(attack, target, findings, before=before)
            _hold(findings, "at the end", lambda: self.check(target))
            jobs = _rest(server)
            hold_no_processes(findings, jobs)
            hold_at_rest(findings, server, surroundings)
            server.stop()
            _hold(findings, "the log", lambda: _log_is_clean(target))
        hold_all(findings, surroundings, accepted=jobs)
        hold_nothing_left(findings, surroundings)
        return findings.outcome()


def _attack(attack: Attack, target: Target, findings: Findings, *, before: Any) -> Any:
    """Gives the state of the service behind it."""
    findings.done += 1
    findings.attacks += 1
    findings.refused += _hold(findings, attack.name, lambda: attack.run(target))
    findings.survived += _hold(findings, f"an honest client after: {attack.name}", lambda: _honest(target.server))
    if attack.changes:
        _settle(target.surroundings)
    after = state(target.server)
    findings.hold(attack.changes or after == before, f"{attack.name}: something was changed by it")
    return after


def _hold(findings: Findings, what: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception as error:
        findings.broken.append(f"{what}: {type(error).__name__}: {error}")
        return False
    return True


def _honest(server: RunningServer) -> None:
    started = time.monotonic()
    answer = server.call("GET", "/jobs", params={"limit": 1})
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - started < HONEST_SECONDS


def _settle(service: Surroundings) -> None:
    """What earlier attacks submitted has ended: what only waits may begin to run a moment later. The store is asked, not the service, which
    counts how often it is."""

    def rests() -> bool:
        with opened(service.database) as connection:
            return connection.execute("SELECT 1 FROM jobs WHERE ended_at IS NULL").fetchone() is None

    eventually(rests, "no job waits or runs", seconds=30)


def _rest(server: RunningServer) -> list[str]:
    """All jobs that came of it, ended."""
    jobs = listed(server)
    for job_id, job in jobs.items():
        if job["status"] not in ENDED:
            server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
            server.wait(job_id)
    return list(jobs)


def _log_is_clean(target: Target) -> None:
    """No error, no traceback, no secret, and nothing that a terminal would obey, or that is no text at all."""
    output = (target.server.folder / "output").read_text(errors="surrogateescape")
    assert " ERROR " not in output and "Traceback" not in output, output[-4000:]
    assert not [secret for secret in target.secrets if secret in output], "a secret is in the server's log"
    assert not (found := commands(output)), f"the log commands terminals: {found}"


def commands(text: str) -> list[str]:
    """Control characters, characters that change how others are shown, and halves of characters; line ends and tabs are none."""
    return sorted({character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t"})
