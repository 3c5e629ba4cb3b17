"""The request that is being answered, and its client."""

from __future__ import annotations

import flask

from handlers.access.auth import Authenticator, require
from jobs.model import Caller, Scope


def operation_id() -> str:
    """The operation that the request is for; empty for an address outside of the contract."""
    rule = flask.request.url_rule
    return rule.endpoint.rpartition(".")[2] if rule else ""


def client_address() -> str:
    """The address that the connection comes from: the proxy's, where there is one."""
    return flask.request.remote_addr or "unknown"


def authenticate(authenticator: Authenticator, token: str | None, scope: Scope | None) -> Caller:
    """The caller, whose call is counted. Without a scope any token will do. Raises Unauthenticated, RateLimited and Forbidden."""
    caller = flask.g.caller = authenticator.authenticate(token, address=client_address())
    authenticator.count_call(caller)
    if scope is not None:
        require(caller, scope)
    return caller
