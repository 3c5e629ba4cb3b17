"""Who may come in, and how often: tokens and their scopes, host names, and the pages that a request may come from."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from handlers.access.rates import Rate, neighbourhood
from handlers.errors import Forbidden, OriginRefused
from jobs.errors import TokenExpired, Unauthenticated
from jobs.model import Caller, Scope
from jobs.settings import LOOPBACK, Settings
from jobs.store.tokens import Tokens

MISSING = 'Send a token as "Authorization: Bearer TOKEN".'


ANY = "any"
"""In a contract's place for a scope: whatever a token may do, it is enough."""


def require(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden."""
    if not caller.may(scope):
        raise Forbidden(f"This call needs the scope {scope.value}.")


class Authenticator:
    """Lets in whoever has a token, as often as a token may call, and keeps those out who try one after another.

    An address that sent too many wrong tokens is let in with one only that was good shortly before: behind a proxy, where all have one
    address, those who guess lock nobody out who is in.
    """

    def __init__(self, tokens: Tokens, *, calls: Rate, failures: Rate) -> None:
        self.tokens = tokens
        self._calls = calls
        self._failures = failures

    def open(self, token: str | None, *, address: str) -> Caller:
        """Who calls. Raises Unauthenticated, and RateLimited for an address that guesses."""
        if not token:
            raise Unauthenticated(MISSING)
        return self._authenticate(token, neighbourhood(address))

    def count(self, caller: Caller) -> None:
        """One more call, or message. Raises RateLimited."""
        if not self._calls.take(caller.token_id):
            raise self._calls.refusal(caller.token_id, f"The token made more calls than {self._calls.text}.")

    def _authenticate(self, token: str, place: str) -> Caller:
        if self._failures.spent(place) and not self.tokens.was_good(token):
            raise self._failures.refusal(place, f"From this address came more wrong tokens than {self._failures.text}.")
        try:
            return self.tokens.authenticate(token)
        except TokenExpired:
            raise  # no guess
        except Unauthenticated:
            self._failures.take(place)
            raise


class HostCheck:
    """Lets in what is addressed to a host that we are, and comes from no page or from one that may call us.

    The first keeps foreign pages from reaching us through a name of their own (DNS rebinding), the second those that call us by ours.
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
            raise OriginRefused(f"This server does not answer for the host {name!r}; see --allow-host.")
        if origin is not None and not self.allows(host=host, origin=origin):
            raise OriginRefused(f"Pages from {origin[:200]!r} may not call this server; see --allow-origin.")

    def allows(self, *, host: str | None, origin: str) -> bool:
        """Whether a page from `origin` may call us: one of our own, or one that the operator named."""
        scheme, _, name = origin.lower().partition("://")
        own = scheme in ("http", "https") and name == (host or "").lower()
        return own or self.is_foreign(origin)

    def is_foreign(self, origin: str) -> bool:
        """Whether the operator named `origin` as one that may call us."""
        return origin.lower() in self._origins


def _host_name(host: str | None) -> str:
    try:
        return (urlsplit(f"//{host or ''}").hostname or "").lower()
    except ValueError:
        return ""
