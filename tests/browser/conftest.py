"""A real browser: Debian's Chromium, driven by Playwright. Tests in this folder carry the marker `browser`, and are skipped without one.

A page that a test opens ends the test when its console says an error, when a script of it raises, or when its policy refuses something.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from handlers.web import built_pages
from support.watched import Watched

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As root, as in containers, its sandbox does not start. It meets no page but our own here.
ARGUMENTS = ["--no-sandbox"] if os.geteuid() == 0 else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium here; Debian's package is `chromium`"))
            if built_pages.page("index") is None:
                item.add_marker(pytest.mark.skip(reason="the pages are not built; `make console` builds them, with packages from npm"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its module: while it runs, an event loop runs in this thread, which tests of other modules want for themselves."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.check()


@pytest.fixture
def new_context(browser: Browser, watched: Watched) -> Iterator[Callable[..., BrowserContext]]:
    """Browsers that share nothing: `new_context(color_scheme="dark", viewport={"width": 390, "height": 844})`."""
    contexts: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        context.on("page", watched.watch)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    return new_context().new_page()
