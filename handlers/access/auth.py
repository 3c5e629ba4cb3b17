"""Who may call: tokens and their scopes, host names, and the origins that a request may come from."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from handlers.access.rates import Rate, network_of
from handlers.errors import Forbidden, OriginRefused
from jobs.errors import TokenExpired, Unauthenticated
from jobs.model import Caller, Scope
from jobs.settings import LOOPBACK, Settings
from jobs.store.tokens import Tokens

MISSING = 'Send a token as "Authorization: Bearer TOKEN".'

ANY = "any"
"""Stands in the contract in place of a scope where every token is enough, whatever its scopes."""


def require(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden."""
    if not caller.may(scope):
        raise Forbidden(f"This call needs the scope {scope.value}.")


class Authenticator:
    """Authenticates callers by token, limits their calls, and slows down addresses that try one token after another.

    Addresses that send too many wrong tokens are rejected before lookup, unless the token was valid shortly before: behind a proxy all
    clients share one address, and one that guesses tokens must not lock out the others.
    """

    def __init__(self, tokens: Tokens, *, calls: Rate, failures: Rate) -> None:
        self.tokens = tokens
        self._calls = calls
        self._failures = failures

    def authenticate(self, token: str | None, *, address: str) -> Caller:
        """The caller. Raises Unauthenticated, and RateLimited for an address that sent too many wrong tokens."""
        if not token:
            raise Unauthenticated(MISSING)
        network = network_of(address)
        if self._failures.spent(network) and not self.tokens.was_good(token):
            raise self._failures.refusal(network, f"This address sent more wrong tokens than {self._failures.text}.")
        try:
            return self.tokens.authenticate(token)
        except TokenExpired:
            raise  # it is not a guess
        except Unauthenticated:
            self._failures.take(network)
            raise

    def count_call(self, caller: Caller) -> None:
        """Counts one call, or one message over Socket.IO. Raises RateLimited."""
        if not self._calls.take(caller.token_id):
            raise self._calls.refusal(caller.token_id, f"The token made more calls than {self._calls.text}.")


class HostCheck:
    """Accepts requests for a host name of this server, from its own pages, from allowed origins, or without an origin.

    The check of the host keeps out foreign pages that reach the server through a name of their own (DNS rebinding). The check of the
    origin keeps out those that call it by its own name.
    """

    def __init__(self, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    @classmethod
    def of(cls, settings: Settings) -> HostCheck:
        return cls(hosts=(*LOOPBACK, settings.host, *settings.allow_host), origins=settings.allow_origin)

    def check(self, *, host: str | None, origin: str | None) -> None:
        """Raises OriginRefused."""
        name = _host_name(host)
        if name not in self._hosts:
            raise OriginRefused(f"This server does not accept requests for the host {name!r}; see --allow-host.")
        if origin is not None and not (_is_own_origin(origin, host) or self.is_allowed_origin(origin)):
            raise OriginRefused(f"This server does not accept requests from the origin {origin[:200]!r}; see --allow-origin.")

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether the operator allowed this origin."""
        return origin.lower() in self._origins


def _is_own_origin(origin: str, host: str | None) -> bool:
    scheme, _, name = origin.lower().partition("://")
    return scheme in ("http", "https") and name == (host or "").lower()


def _host_name(host: str | None) -> str:
    try:
        return (urlsplit(f"//{host or ''}").hostname or "").lower()
    except ValueError:
        return ""
