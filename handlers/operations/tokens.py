"""Operations that create, list and revoke tokens."""

from __future__ import annotations

from handlers.representations import Answer, token_json
from jobs.model import Json, Scope
from jobs.service import Service


def create_token(service: Service, *, body: Json) -> Answer:
    scopes = frozenset(Scope(scope) for scope in body["scopes"])
    token, secret = service.tokens.create(body["name"], scopes=scopes, expires_in_seconds=body.get("expires_in_seconds"))
    return Answer({**token_json(token), "token": secret}, 201, {"Location": f"/api/tokens/{token.id}"})


def list_tokens(service: Service) -> Answer:
    return Answer({"tokens": [token_json(token) for token in service.tokens.list()]})


def revoke_token(service: Service, *, token_id: str) -> Answer:
    service.tokens.revoke(token_id.lower())
    return Answer(None, 204)
