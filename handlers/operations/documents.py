"""Operations that return the contracts, as documents for machines and as pages for people."""

from __future__ import annotations

from handlers.contract.document import Contract
from handlers.representations import Address, Answer
from handlers.web import built_pages, swagger
from jobs.service import Service


def get_docs(service: Service) -> Answer:
    """Swagger UI, below the navigation bar of the built pages where they exist."""
    return _built("calls") or Answer(swagger.swagger_page(), media_type="text/html")


def get_event_docs(service: Service) -> Answer:
    """The console for events; where it was not built, a page that says so."""
    return _built("events") or Answer(swagger.events_page(), media_type="text/html")


def _built(name: str) -> Answer | None:
    page = built_pages.page(name)
    if page is None:
        return None
    # No cache, because the page refers to the assets of its own build.
    return Answer(page.read_text(encoding="utf-8"), media_type="text/html", headers={"Cache-Control": "no-cache"})


def get_openapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    here = {**contract.openapi["servers"][0], "url": f"{address.prefix}/api"}
    return Answer({**contract.openapi, "servers": [here]})


def get_asyncapi(service: Service, *, contract: Contract, address: Address) -> Answer:
    return Answer(contract.published_asyncapi(host=address.host, secure=address.secure, prefix=address.prefix))
