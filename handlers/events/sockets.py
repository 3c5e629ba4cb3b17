"""What clients send over Socket.IO: connect, subscribe, unsubscribe. Knows the contract and the caster, not the library that carries the
messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from handlers.access.auth import Authenticator, require
from handlers.contract.document import Contract
from handlers.events.caster import Caster, Gone, Transport
from handlers.events.sessions import Sessions
from handlers.problems import problem
from handlers.representations import job_json
from jobs.errors import InvalidRequest, RuncastError
from jobs.model import Caller, Json, Scope

logger = logging.getLogger("runcast.sockets")

EVENTS_IN = frozenset({"connect", "disconnect", "subscribe", "unsubscribe"})
EVENTS_OUT = frozenset({"log", "progress", "status", "complete", "error"})


class Refused(Exception):
    """A connection that is not let in, and the problem that says why."""

    def __init__(self, problem: Mapping[str, Json]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


class Sockets:
    """One method an event. What breaks the contract is answered with a problem, and never closes the connection."""

    def __init__(self, contract: Contract, caster: Caster, door: Authenticator) -> None:
        self._contract = contract
        self._caster = caster
        self._door = door
        self._sessions = Sessions(door.tokens, self._dismiss)

    def connect(self, auth: Json, *, address: str) -> Caller:
        """Raises Refused."""
        try:
            if auth is not None and (violations := self._contract.message_violations("connect", auth)):
                raise InvalidRequest("What was sent with connect does not match the contract.", violations=violations)
            caller = self._door.open(auth and auth.get("token"), address=address)
            self._door.count(caller)
            require(caller, Scope.READ)
            return caller
        except RuncastError as error:
            raise Refused(problem(error)) from error

    def connected(self, sid: str, caller: Caller, wire: Transport) -> None:
        self._caster.connect(sid, wire)
        self._sessions.open(sid, caller)

    def disconnected(self, sid: str) -> None:
        self._sessions.close(sid)
        self._caster.disconnect(sid)

    def subscribe(self, sid: str, payload: Json) -> dict[str, Json]:
        def work() -> dict[str, Json]:
            client = self._caster.client(sid)
            if payload.get("all"):
                client.subscribe_all()
                return {"ok": True}
            job, next_seq = client.subscribe(payload["job_id"].lower(), payload.get("after_seq", 0))
            return {"ok": True, "job": job_json(job), "next_seq": next_seq}

        return self._acknowledge(sid, "subscribe", payload, work)

    def unsubscribe(self, sid: str, payload: Json) -> dict[str, Json]:
        def work() -> dict[str, Json]:
            client = self._caster.client(sid)
            if payload.get("all"):
                client.unsubscribe_all()
            else:
                client.unsubscribe(payload["job_id"].lower())
            return {"ok": True}

        return self._acknowledge(sid, "unsubscribe", payload, work)

    def unknown(self, sid: str, event: str) -> dict[str, Json]:
        """An event that the contract does not have."""
        return self._refuse(sid, f"There is no event {event[:100]!r}.")

    def malformed(self, sid: str) -> dict[str, Json]:
        """What was sent is no event at all."""
        return self._refuse(sid, "What was sent is not a packet of this contract.")

    def _acknowledge(self, sid: str, event: str, payload: Json, work: Callable[[], dict[str, Json]]) -> dict[str, Json]:
        try:
            self._count(sid)
            if violations := self._contract.message_violations(event, payload):
                raise InvalidRequest(f"What was sent with {event} does not match the contract.", violations=violations)
            return work()
        except InvalidRequest as error:
            self._complain(sid, error)
            return {"ok": False, "problem": problem(error)}
        except Gone:
            return {}
        except Exception as error:  # whatever it is, the client gets an answer and keeps its connection
            return {"ok": False, "problem": problem(error)}

    def _count(self, sid: str) -> None:
        """Raises Unauthenticated, RateLimited and Gone."""
        self._caster.client(sid).pace()
        self._door.count(self._sessions.caller(sid))

    def _refuse(self, sid: str, why: str) -> dict[str, Json]:
        try:
            self._count(sid)
            raise InvalidRequest(why)
        except RuncastError as error:
            self._complain(sid, error)
            return {"ok": False, "problem": problem(error)}
        except Gone:
            return {}

    def _dismiss(self, sid: str, why: RuncastError) -> None:
        self._caster.client(sid).dismiss(problem(why))

    def _complain(self, sid: str, error: RuncastError) -> None:
        self._caster.client(sid).send("error", {"job_id": None, "problem": problem(error)})


def payload_of(arguments: tuple[Any, ...]) -> Json:
    """The one object of an event; anything else than one argument breaks the contract, and None never matches it."""
    return arguments[0] if len(arguments) == 1 else None
