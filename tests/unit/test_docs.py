"""The documentation pages that need no build: relative, and without a script or style inside."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from handlers.operations import documents
from handlers.web import built_pages, swagger

VOID = {"link", "meta"}


class Page(HTMLParser):
    """What a page links to, what it shows, and whether its tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.links: list[str] = []
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
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{name}={value}")
        if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
            self.inline.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return [Page(swagger.events_page()), Page(swagger.swagger_page())]


def test_pages_are_relative_and_hold_no_script_or_style(pages: list[Page]) -> None:
    for page in pages:
        assert page.inline == []
        own = [link for link in page.links if not link.startswith("#")]
        assert own
        assert not [link for link in own if re.match(r"/|[a-z]+:", link)]


def test_every_asset_of_a_page_exists(pages: list[Page]) -> None:
    assets = swagger.assets()
    wanted = {link.rpartition("assets/")[2] for page in pages for link in page.links if "assets/" in link}
    assert wanted == set(assets)
    assert all(path.stat().st_size > 0 for path in assets.values())


def test_swagger_ui_is_a_current_release() -> None:
    bundle = swagger.assets()["swagger-ui-bundle.js"].read_text(encoding="utf-8")
    version = re.search(r'PACKAGE_VERSION:"(\d+)\.(\d+)', bundle)
    assert version
    assert (int(version[1]), int(version[2])) >= (5, 34)


def test_unbuilt_console_is_replaced_by_plain_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_pages, "FOLDER", tmp_path / "never-built")
    service: Any = None  # neither asks it
    assert documents.get_docs(service).body == swagger.swagger_page()
    answer = documents.get_event_docs(service)
    page = Page(str(answer.body))
    assert answer.media_type == "text/html"
    assert "The console was not built" in page.text
    assert "make console" in page.text
    assert {"../docs", "../asyncapi.json"} <= set(page.links)
