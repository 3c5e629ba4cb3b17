"""The documentation pages: complete, escaped, relative, and without a script or style inside."""

from __future__ import annotations

import copy
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from handlers.contract.document import Contract
from handlers.operations import documents
from handlers.representations import Address
from handlers.web import built_pages, swagger

VOID = {"link", "meta"}


class Page(HTMLParser):
    """What a page links to, what it can be linked at, what it shows, and whether its tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.inline: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(unescape(re.sub(r"<[^>]+>", "", self.html)).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.add(value or "")
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{name}={value}")
        if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
            self.inline.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.load()


@pytest.fixture(scope="module")
def events(contract: Contract) -> Page:
    return Page(swagger.events_page(contract.asyncapi, contract.openapi))


def test_pages_are_relative_and_hold_no_script_or_style(events: Page) -> None:
    for page in (events, Page(swagger.swagger_page())):
        assert page.inline == []
        own = [link for link in page.links if not link.startswith("#")]
        assert own
        assert not [link for link in own if re.match(r"/|[a-z]+:", link)]


def test_every_asset_of_a_page_exists(events: Page) -> None:
    assets = swagger.assets()
    wanted = {link.rpartition("assets/")[2] for page in (events, Page(swagger.swagger_page())) for link in page.links if "assets/" in link}
    assert wanted == set(assets)
    assert all(path.stat().st_size > 0 for path in assets.values())


def test_swagger_ui_is_a_current_release() -> None:
    bundle = swagger.assets()["swagger-ui-bundle.js"].read_text(encoding="utf-8")
    version = re.search(r'PACKAGE_VERSION:"(\d+)\.(\d+)', bundle)
    assert version
    assert (int(version[1]), int(version[2])) >= (5, 34)


def test_without_built_consoles_plain_pages_are_served(contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_pages, "FOLDER", tmp_path / "never-built")
    service: Any = None  # neither asks it
    assert documents.get_docs(service).body == swagger.swagger_page()
    address = Address(host="127.0.0.1:8000", secure=False, prefix="")
    plain = documents.get_event_docs(service, contract=contract, address=address)
    assert plain.body == swagger.events_page(contract.published_asyncapi(host="127.0.0.1:8000"), contract.openapi)


def test_every_link_within_the_events_page_has_a_target(events: Page) -> None:
    assert {link[1:] for link in events.links if link.startswith("#")} <= events.anchors


def test_every_event_is_shown_with_its_fields_and_examples(contract: Contract, events: Page) -> None:
    for name, operation in contract.asyncapi["operations"].items():
        assert name in events.anchors
        assert operation["summary"] in events.text
    for message in contract.asyncapi["components"]["messages"].values():
        for example in message.get("examples", ()):
            assert " ".join(json.dumps(example["payload"], indent=2, ensure_ascii=False).split()) in events.text
    for field in ("after_seq", "first_seq", "duration_seconds", "log.dropped_lines"):
        assert f"<code>{field}</code>" in events.html


def test_types_show_their_bounds(events: Page) -> None:
    assert "array of string, at most 65536 characters, at least 1 item, at most 65536 items" in events.text
    assert "number, 0 to 100 or null" in events.text
    assert '<a href="#type-Job">Job</a>' in events.html
    assert {"type-Job", "type-Problem", "type-InputError"} <= events.anchors


def test_text_from_a_document_is_escaped(contract: Contract) -> None:
    document: dict[str, Any] = copy.deepcopy(dict(contract.asyncapi))
    document["info"]["description"] = "<script>alert(1)</script> [x](javascript:alert(1))"
    document["operations"]["log"]["summary"] = "<img src=x onerror=alert(1)>"
    document["components"]["messages"]["log"]["examples"][0]["payload"]["lines"] = ["</code><script>"]
    document["servers"]["this"]["host"] = '"><script>'
    page = Page(swagger.events_page(document, contract.openapi))
    assert page.inline == []
    assert not [link for link in page.links if link.startswith("javascript")]


def test_example_programs_name_the_requested_server(contract: Contract) -> None:
    plain = Page(swagger.events_page(contract.asyncapi, contract.openapi))
    assert 'io("http://127.0.0.1:8000", { auth: { token } })' in plain.text
    behind_proxy = contract.published_asyncapi(host="jobs.example.com", secure=True, prefix="/runcast")
    page = Page(swagger.events_page(behind_proxy, contract.openapi))
    assert 'io("https://jobs.example.com", { path: "/runcast/socket.io", auth: { token } })' in page.text
    assert 'client.connect("https://jobs.example.com", auth={"token": token}, socketio_path="/runcast/socket.io")' in page.text
