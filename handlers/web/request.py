"""What is known of the request that is under way, and of who sent it."""

from __future__ import annotations

import flask

from handlers.access.auth import Authenticator, require
from jobs.model import Caller, Scope


def operation_id() -> str:
    """The operation that the current request is for; empty for an address outside of the contract."""
    rule = flask.request.url_rule
    return rule.endpoint.rpartition(".")[2] if rule else ""


def address() -> str:
    """Where the client of this request is: behind a proxy, the proxy."""
    return flask.request.remote_addr or "unknown"


def admit(door: Authenticator, token: str | None, scope: Scope | None) -> Caller:
    """Lets the client of this request in; without a scope any token will do. Raises Unauthenticated, RateLimited and Forbidden."""
    caller = flask.g.caller = door.open(token, address=address())
    door.count(caller)
    if scope is not None:
        require(caller, scope)
    return caller
