"""Tokens in the store, and the file of the admin token."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import OperatorError, Unauthenticated
from jobs.model import Scope
from jobs.store.database import OwnedDatabase
from jobs.store.tokens import Tokens, provide_admin_token


def test_a_token_file_without_a_token_is_refused(database: OwnedDatabase, tmp_path: Path) -> None:
    file = tmp_path / "admin-token"
    for damage in (b"", b"\xff\xfe"):
        file.write_bytes(damage)
        with pytest.raises(OperatorError, match="token file"):
            provide_admin_token(Tokens(database), given=None, file=file)
    file.unlink()
    provide_admin_token(Tokens(database), given=None, file=file)
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text().strip()
    provide_admin_token(Tokens(database), given=None, file=file)
    assert Tokens(database).authenticate(token).name == "admin"
    assert [path.name for path in tmp_path.iterdir() if "token" in path.name] == ["admin-token"]


def test_a_token_is_identified_by_its_secret(database: OwnedDatabase) -> None:
    tokens = Tokens(database)
    for secret in ("one", "one", "two"):
        tokens.add("admin", secret, frozenset({Scope.ADMIN}))
    tokens.add("reader", "three", frozenset({Scope.READ}))
    first = tokens.authenticate("two")
    tokens.add("admin", "two", frozenset({Scope.ADMIN}))
    Tokens(database).check(first)
    tokens.add("admin", "three", frozenset({Scope.ADMIN}))  # which was the reader's
    with pytest.raises(Unauthenticated):
        Tokens(database).check(first)
    assert [token.name for token in tokens.list()] == ["admin"]
    assert Tokens(database).authenticate("three").scopes == {Scope.ADMIN}
