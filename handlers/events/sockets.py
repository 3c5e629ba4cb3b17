"""What clients send over Socket.IO: connect, subscribe, unsubscribe.

Each message is counted, checked against the contract, and passed to the caster. This module does not know the library that carries the
messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from handlers.access.auth import Authenticator, require
from handlers.contract.document import Contract
from handlers.errors import InvalidRequest
from handlers.events.caster import Caster
from handlers.events.sessions import Sessions
from handlers.events.subscriber import ClientDisconnected, Transport
from handlers.problems import problem
from handlers.representations import job_json
from jobs.errors import RuncastError
from jobs.model import Caller, Json, Scope

EVENTS_IN = frozenset({"connect", "disconnect", "subscribe", "unsubscribe"})
EVENTS_OUT = frozenset({"log", "progress", "status", "complete", "error"})


class Refused(Exception):
    """A connection is refused; `problem` says why."""

    def __init__(self, problem: Mapping[str, Json]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


class Sockets:
    """One method an event. A message that breaks the contract is answered with a problem, and never closes the connection."""

    def __init__(self, contract: Contract, caster: Caster, authenticator: Authenticator) -> None:
        self._contract = contract
        self._caster = caster
        self._authenticator = authenticator
        self._sessions = Sessions(authenticator.tokens, self._disconnect)

    def connect(self, auth: Json, *, address: str) -> Caller:
        """Authenticate a new connection. Raises Refused."""
        try:
            if auth is not None and (violations := self._contract.message_violations("connect", auth)):
                raise InvalidRequest("The data of connect does not match the contract.", violations=violations)
            caller = self._authenticator.authenticate(auth and auth.get("token"), address=address)
            self._authenticator.count_call(caller)
            require(caller, Scope.READ)
            return caller
        except RuncastError as error:
            raise Refused(problem(error)) from error

    def connected(self, sid: str, caller: Caller, transport: Transport) -> None:
        self._caster.connect(sid, transport)
        self._sessions.open(sid, caller)

    def disconnected(self, sid: str) -> None:
        self._sessions.close(sid)
        self._caster.disconnect(sid)

    def subscribe(self, sid: str, payload: Json) -> dict[str, Json]:
        def work() -> dict[str, Json]:
            subscriber = self._caster.subscriber(sid)
            if payload.get("all"):
                subscriber.subscribe_all()
                return {"ok": True}
            job, next_seq = subscriber.subscribe(payload["job_id"].lower(), payload.get("after_seq", 0))
            return {"ok": True, "job": job_json(job), "next_seq": next_seq}

        return self._acknowledge(sid, "subscribe", payload, work)

    def unsubscribe(self, sid: str, payload: Json) -> dict[str, Json]:
        def work() -> dict[str, Json]:
            subscriber = self._caster.subscriber(sid)
            if payload.get("all"):
                subscriber.unsubscribe_all()
            else:
                subscriber.unsubscribe(payload["job_id"].lower())
            return {"ok": True}

        return self._acknowledge(sid, "unsubscribe", payload, work)

    def unknown(self, sid: str, event: str) -> dict[str, Json]:
        """The contract has no such event."""
        return self._refuse(sid, f"There is no event {event[:100]!r}.")

    def malformed(self, sid: str) -> dict[str, Json]:
        """The message is not an event."""
        return self._refuse(sid, "The message is not a packet of this contract.")

    def _acknowledge(self, sid: str, event: str, payload: Json, work: Callable[[], dict[str, Json]]) -> dict[str, Json]:
        try:
            self._count(sid)
            if violations := self._contract.message_violations(event, payload):
                raise InvalidRequest(f"The data of {event} does not match the contract.", violations=violations)
            return work()
        except InvalidRequest as error:
            self._send_error(sid, error)
            return {"ok": False, "problem": problem(error)}
        except ClientDisconnected:
            return {}
        except Exception as error:  # whatever it is, the client gets an answer and keeps its connection
            return {"ok": False, "problem": problem(error)}

    def _refuse(self, sid: str, detail: str) -> dict[str, Json]:
        try:
            self._count(sid)
            raise InvalidRequest(detail)
        except RuncastError as error:
            self._send_error(sid, error)
            return {"ok": False, "problem": problem(error)}
        except ClientDisconnected:
            return {}

    def _count(self, sid: str) -> None:
        """Count one more message. Raises Unauthenticated, RateLimited and ClientDisconnected."""
        self._caster.subscriber(sid).limit_answers()
        self._authenticator.count_call(self._sessions.caller(sid))

    def _disconnect(self, sid: str, error: RuncastError) -> None:
        self._caster.subscriber(sid).disconnect(problem(error))

    def _send_error(self, sid: str, error: RuncastError) -> None:
        self._caster.subscriber(sid).send("error", {"job_id": None, "problem": problem(error)})


def payload_of(arguments: tuple[Any, ...]) -> Json:
    """An event's only argument. With none, or more than one, it is None, which the contract never allows."""
    return arguments[0] if len(arguments) == 1 else None
