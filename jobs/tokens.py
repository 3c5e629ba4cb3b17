"""Who may call: tokens, of which only hashes are stored."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from jobs.clock import now_ms
from jobs.database import Database
from jobs.errors import OperatorError, Unauthenticated
from jobs.model import Caller, Scope
from jobs.schema import tokens

ADMIN = "admin"
CACHE_SECONDS = 1.0
"""A token that was just checked is not looked up again for so long."""


class Tokens:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._recent: dict[str, tuple[float, Caller]] = {}

    def authenticate(self, token: str) -> Caller:
        """Raises Unauthenticated. Looks up a hash, so that the time it takes says nothing about how close a guess was."""
        digest = _digest(token)
        known = self._recent.get(digest)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        query = select(tokens).where(tokens.c.hash == digest)
        row = self.database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            self._recent.pop(digest, None)
            raise Unauthenticated("The token is not known here.")
        caller = Caller(row.name, frozenset(Scope(scope) for scope in row.scopes))
        self._recent[digest] = (time.monotonic() + CACHE_SECONDS, caller)
        return caller

    def add(self, name: str, token: str, scopes: frozenset[Scope]) -> None:
        """Store a token; one of the same name, or the same one by another name, is replaced."""
        values = {"name": name, "hash": _digest(token), "scopes": sorted(scopes), "created_at": now_ms()}

        def work(connection: Connection) -> None:
            connection.execute(delete(tokens).where((tokens.c.name == name) | (tokens.c.hash == values["hash"])))
            connection.execute(insert(tokens), values)

        self.database.write(work)


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
                    out.write(secrets.token_urlsafe(32) + "\n")
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
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
