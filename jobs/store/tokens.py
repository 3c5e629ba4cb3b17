"""Tokens of callers. Only hashes are stored. A token that has expired or was revoked is like one that does not exist."""

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
"""The most tokens that are stored."""
PREFIX = "rc_"
"""The prefix of a token, so that people and secret scanners recognise one."""
CACHE_SECONDS = 1.0
"""How long the result of a look-up is reused. A process that did not revoke a token itself accepts it for so long after its end."""
UNKNOWN = "The token is not known here."
EXPIRED = "The token has expired."
REVOKED = "The token was revoked."


@dataclass(frozen=True)
class Token:
    """What may be shown of a token. Times are Unix milliseconds; without `expires_at` it does not expire."""

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
        """Raises Unauthenticated. Looks up a hash, so that the time taken does not show how close a guess was."""
        digest = _digest(token)
        recent = self._recent.get(digest)
        caller = recent[1] if recent is not None and time.monotonic() < recent[0] else self._look_up(digest)
        _check_end(caller)
        return caller

    def was_good(self, token: str) -> bool:
        """Whether the token was valid when it was last looked up, a short while ago."""
        return _digest(token) in self._recent

    def check(self, caller: Caller) -> None:
        """Raises Unauthenticated when the token of an authenticated caller is no longer valid. Cheap."""
        _check_end(caller)
        # A token that is not in the cached set may have been created since.
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
        """A new token, and its secret, which cannot be shown again. The name of an expired token may be used again.

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
        """All tokens by name, expired ones included."""
        rows = self.database.read(lambda connection: connection.execute(select(tokens).order_by(tokens.c.name)).all())
        return [_to_token(row) for row in rows]

    def revoke(self, token_id: str) -> Token:
        """Refuse the token from now on; other processes do after CACHE_SECONDS. Raises TokenNotFound and TokenProtected."""

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
        """Store a token with a given secret. It replaces a token of the same name or of the same secret.

        Another secret makes another token, with a new id: connections that were opened with the old one end with it.
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
    """The secret that a client sends: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def _row(token: Token, secret: str) -> dict[str, object]:
    return {**token.__dict__, "scopes": sorted(token.scopes), "hash": _digest(secret)}


def _to_token(row: Row[tuple[object, ...]]) -> Token:
    return Token(row.id, row.name, frozenset(Scope(scope) for scope in row.scopes), row.created_at, row.expires_at)


def provide_admin_token(all_tokens: Tokens, *, given: str | None, file: Path) -> None:
    """Make `given` the admin token, or else the one in `file`, which is created at the first start. Raises OperatorError."""
    token = given or _read_or_make(file)
    all_tokens.add(ADMIN, token, frozenset({Scope.ADMIN}))


def _read_or_make(file: Path) -> str:
    """The file appears in one step, and is never readable by others: a server that is killed meanwhile leaves no empty file."""
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
        raise OperatorError(f"The token file {file} is empty: remove it, and a new token is created.")
    if not HEADER_WORD.fullmatch(token):
        reason = "holds more than a token, or characters that cannot be sent"
        raise OperatorError(f"The token file {file} {reason}: remove it, and a new token is created.")

    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
