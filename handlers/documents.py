"""The contracts, as documents for machines and as pages for people."""

from __future__ import annotations

from dataclasses import dataclass

from handlers import docs
from handlers.contract import Contract
from handlers.representations import Answer
from jobs.model import Json
from jobs.service import Service

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Scripts, styles and connections of our own only. The small pictures in Swagger UI's style sheet are `data:` addresses."""


@dataclass(frozen=True)
class Address:
    """How the client reached us: `host` with port, and the path prefix that a proxy took away."""

    host: str
    secure: bool
    prefix: str


def get_docs(service: Service) -> Answer:
    return Answer(docs.swagger_page(), media_type="text/html")


def get_event_docs(service: Service, *, contract: Contract, address: Address) -> Answer:
    return Answer(docs.events_page(_asyncapi(contract, address), contract.openapi), media_type="text/html")


def get_openapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    here = {**contract.openapi["servers"][0], "url": f"{address.prefix}/api"}
    return Answer({**contract.openapi, "servers": [here]})


def get_asyncapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    return Answer(_asyncapi(contract, address))


def _asyncapi(contract: Contract, address: Address) -> dict[str, Json]:
    return contract.published_asyncapi(host=address.host, secure=address.secure, prefix=address.prefix)
