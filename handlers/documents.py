"""The contracts, as documents for machines and as pages for people."""

from __future__ import annotations

from dataclasses import dataclass

from handlers import docs, pages
from handlers.contract import Contract
from handlers.representations import Answer
from jobs.model import Json
from jobs.service import Service

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Scripts, styles and connections of our own only. The small pictures in Swagger UI's style sheet are `data:` addresses."""

DATA_SECURITY_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""Of answers that are no pages: whatever a job wrote into them, a browser that shows one runs nothing of it."""


@dataclass(frozen=True)
class Address:
    """How the client reached us: `host` with port, and the path prefix that a proxy took away."""

    host: str
    secure: bool
    prefix: str


def get_docs(service: Service) -> Answer:
    """Swagger UI; its bar is of the built pages where they are there."""
    return _built("calls") or Answer(docs.swagger_page(), media_type="text/html")


def get_event_docs(service: Service, *, contract: Contract, address: Address) -> Answer:
    """The console for events; where it was not built, a page that only shows the contract."""
    return _built("events") or Answer(docs.events_page(_asyncapi(contract, address), contract.openapi), media_type="text/html")


def _built(name: str) -> Answer | None:
    page = pages.page(name)
    if page is None:
        return None
    # It names the files of its own build.
    return Answer(page.read_text(encoding="utf-8"), media_type="text/html", headers={"Cache-Control": "no-cache"})


def get_openapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    here = {**contract.openapi["servers"][0], "url": f"{address.prefix}/api"}
    return Answer({**contract.openapi, "servers": [here]})


def get_asyncapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    return Answer(_asyncapi(contract, address))


def _asyncapi(contract: Contract, address: Address) -> dict[str, Json]:
    return contract.published_asyncapi(host=address.host, secure=address.secure, prefix=address.prefix)
