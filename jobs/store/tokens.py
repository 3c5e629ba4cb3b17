"""Who may call: tokens, of which only hashes are stored. A token that has expired or was revoked is as good as none."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from jobs.clock import now_ms
from jobs.errors import OperatorError, QuotaExceeded, TokenExists, TokenExpired, TokenNotFound, TokenProtected, Unauthenticated
from jobs.model import HEADER_WORD, Caller, Scope
from jobs.store.database import Database
from jobs.store.schema import tokens

ADMIN = "admin"
"""The name of the data folder's own token."""
MOST = 1000
"""Tokens that are kept at most."""
PREFIX = "rc_"
"""How a token begins, so that people and scanners of sources recognise one."""
CACHE_SECONDS = 1.0
"""A token that was just checked is not looked up again for so long. So much later it still counts in a process that did not revoke it."""
UNKNOWN = "The token is not known here."
EXPIRED = "The token has expired."
REVOKED = "The token was revoked."


@dataclass(frozen=True)
class Token:
    """What may be told of a token. Times are Unix milliseconds; without `expires_at` it never ends."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: int
    expires_at: int | None


class Tokens:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._recent: dict[str, tuple[float, Caller]] = {}
        self._lasting: tuple[float, frozenset[str]] = (0.0, frozenset())

    def authenticate(self, token: str) -> Caller:
        """Raises Unauthenticated. Looks up a hash, so that the time it takes says nothing about how close a guess was."""
        digest = _digest(token)
        recent = self._recent.get(digest)
        caller = recent[1] if recent is not None and time.monotonic() < recent[0] else self._look_up(digest)
        _check_end(caller)
        return caller

    def was_good(self, token: str) -> bool:
        """Whether the token was good when it was last looked up, which was not long ago."""
        return _digest(token) in self._recent

    def check(self, caller: Caller) -> None:
        """Whether the token that somebody came in with is still good; costs little. Raises Unauthenticated."""
        _check_end(caller)
        # One that is not among them may have been made since.
        if time.monotonic() >= self._lasting[0] or caller.token_id not in self._lasting[1]:
            query = select(tokens.c.id)
            lasting = frozenset(self.database.read(lambda connection: connection.execute(query).scalars().all()))
            self._lasting = (time.monotonic() + CACHE_SECONDS, lasting)
        if caller.token_id not in self._lasting[1]:
            raise Unauthenticated(REVOKED)

    def _look_up(self, digest: str) -> Caller:
        query = select(tokens).where(tokens.c.hash == digest)
        row = self.database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None or not hmac.compare_digest(row.hash, digest):
            self._recent.pop(digest, None)
            raise Unauthenticated(UNKNOWN)
        caller = Caller(row.name, frozenset(Scope(scope) for scope in row.scopes), row.id, row.expires_at)
        if len(self._recent) > MOST:
            self._recent.clear()
        self._recent[digest] = (time.monotonic() + CACHE_SECONDS, caller)
        return caller

    def create(self, name: str, *, scopes: frozenset[Scope], expires_in_seconds: int | None) -> tuple[Token, str]:
        """A new token, and its secret, which nobody can tell again. The name of one that has expired is free.

        Raises TokenExists, and QuotaExceeded when there are too many.
        """
        now, secret = now_ms(), make_secret()
        expires_at = None if expires_in_seconds is None else now + 1000 * expires_in_seconds
        token = Token(str(uuid.uuid4()), name, scopes, now, expires_at)

        def work(connection: Connection) -> None:
            connection.execute(delete(tokens).where(tokens.c.name == name, tokens.c.expires_at <= now))
            if connection.execute(select(tokens.c.id).where(tokens.c.name == name)).scalar() is not None:
                raise TokenExists(name)
            if connection.execute(select(func.count()).select_from(tokens)).scalar_one() >= MOST:
                raise QuotaExceeded(f"This server keeps {MOST} tokens at most; revoke one first.")
            connection.execute(insert(tokens), _row(token, secret))

        self.database.write(work)
        return token, secret

    def list(self) -> list[Token]:
        """Every token by name, those that have expired too."""
        rows = self.database.read(lambda connection: connection.execute(select(tokens).order_by(tokens.c.name)).all())
        return [_to_token(row) for row in rows]

    def revoke(self, token_id: str) -> Token:
        """When it returns the token is refused here, and CACHE_SECONDS later by every process. Raises TokenNotFound and TokenProtected."""

        def work(connection: Connection) -> Row[tuple[object, ...]]:
            row = connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
            if row is None:
                raise TokenNotFound(token_id)
            if row.name == ADMIN:
                raise TokenProtected(row.name)
            connection.execute(delete(tokens).where(tokens.c.id == token_id))
            return row

        row = self.database.write(work)
        self._recent.pop(row.hash, None)
        self._lasting = (0.0, frozenset())
        return _to_token(row)

    def add(self, name: str, secret: str, scopes: frozenset[Scope], *, expires_at: int | None = None) -> None:
        """Store a token whose secret is given; one of the same name and another secret goes, and one of the same secret and another name.

        Another secret is another token, with an id of its own: connections that were opened with the one before end with it.
        """

        def work(connection: Connection) -> None:
            same_name, same_secret = tokens.c.name == name, tokens.c.hash == _digest(secret)
            connection.execute(delete(tokens).where(same_name != same_secret))
            values = {"scopes": sorted(scopes), "expires_at": expires_at}
            if connection.execute(update(tokens).where(same_name).values(**values)).rowcount == 0:
                connection.execute(insert(tokens), _row(Token(str(uuid.uuid4()), name, scopes, now_ms(), expires_at), secret))

        self.database.write(work)


def _check_end(caller: Caller) -> None:
    if caller.expires_at is not None and caller.expires_at <= now_ms():
        raise TokenExpired(EXPIRED)


def make_secret() -> str:
    """What a client shows to be let in: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def _row(token: Token, secret: str) -> dict[str, object]:
    return {**token.__dict__, "scopes": sorted(token.scopes), "hash": _digest(secret)}


def _to_token(row: Row[tuple[object, ...]]) -> Token:
    return Token(row.id, row.name, frozenset(Scope(scope) for scope in row.scopes), row.created_at, row.expires_at)


def provide_admin_token(all_tokens: Tokens, *, given: str | None, file: Path) -> None:
    """Make `given` the admin token, or else the one in `file`, which is made at the first start. Raises OperatorError."""
    token = given or _read_or_make(file)
    all_tokens.add(ADMIN, token, frozenset({Scope.ADMIN}))


def _read_or_make(file: Path) -> str:
    """It appears at once and whole, and is never readable by others: a server killed meanwhile leaves no empty token."""
    try:
        if not file.exists():
            descriptor, made = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
            try:
                with os.fdopen(descriptor, "w") as out:
                    out.write(make_secret() + "\n")
                with suppress(FileExistsError):  # another server was faster
                    os.link(made, file)
            finally:
                Path(made).unlink()
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise OperatorError(f"The token file {file} cannot be read or written: {reason}.") from error
    if not token:
        raise OperatorError(f"The token file {file} is empty: remove it, and a new token is made.")
    if not HEADER_WORD.fullmatch(token):
        raise OperatorError(f"The token file {file} holds more than a token, or what nobody could send: remove it, and a new one is made.")
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
