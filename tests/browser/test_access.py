"""Accessibility: no serious violation found by axe in either theme or on a narrow screen; all views can be used by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from support import views
from support.console import CONSOLE
from support.server import RunningServer

AXE = CONSOLE / "node_modules" / "axe-core" / "axe.min.js"
WIDE = {"width": 1360, "height": 850}
NARROW = {"width": 360, "height": 740}

pytestmark = pytest.mark.timeout(120)


def findings(page: Page) -> list[str]:
    """What axe calls serious or worse, and where. It is put in by the debugger, which the page's policy does not concern."""
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    grave = [finding for finding in found if finding["impact"] in ("serious", "critical")]
    return [f"{finding['id']}: {node['target']} {node['html'][:120]}" for finding in grave for node in finding["nodes"]]


def test_views_have_no_serious_axe_violations(new_context: Callable[..., BrowserContext], server: RunningServer, tmp_path: Path) -> None:
    coloured = "".join(f"\\033[{code}mcolour {code}\\033[0m " for code in (*range(30, 38), *range(90, 98)))
    gate = tmp_path / "gate"
    failed = server.shell(f"printf '{coloured}\\n'; echo 'error: it failed' >&2; exit 3", labels=["nightly"])
    running = server.shell(f"echo '::progress 40 linking'; echo on; while [ ! -e '{gate}' ]; do sleep 0.01; done")
    server.wait(failed)
    addresses = ["#/", f"#/jobs/{failed}", f"#/jobs/{running}", "#/new", "#/new/create", "#/new/launch"]
    for scheme, size in (("light", WIDE), ("dark", WIDE), ("light", NARROW)):
        context = new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
        page = context.new_page()
        page.goto(server.url)
        expect(page.get_by_label("Token")).to_be_visible()
        assert findings(page) == [], f"the token form, {scheme}"
        page.get_by_label("Token").fill(server.token)
        page.keyboard.press("Enter")
        for address in addresses:
            page.goto(f"{server.url}/{address}")
            settle(page, address)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{address} is too wide for {size['width']}"
            assert findings(page) == [], f"{address}, {scheme}"
        page.goto(f"{server.url}/#/jobs/{running}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert findings(page) == [], f"the question, {scheme}"
    gate.touch()
    server.wait(running)


def settle(page: Page, address: str) -> None:
    """Wait until all of a view is there, and open what can be opened."""
    if address.startswith("#/jobs/"):
        expect(views.log_status(page)).to_have_text(re.compile("Log: (complete|live)"))
        expect(page.get_by_role("img", name=re.compile("^Waited"))).to_be_visible()
    elif address == "#/":
        expect(page.get_by_role("list", name="Jobs")).to_be_visible()
        page.locator(".overview summary").click()
        expect(page.get_by_role("table")).to_be_visible()
    elif address == "#/new":
        expect(page.get_by_role("navigation", name="Job types")).to_be_visible()
    else:
        expect(page.get_by_role("button", name="Submit")).to_be_visible()
        page.locator(".options summary").click()


def test_all_views_can_be_used_by_keyboard_alone(page: Page, server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    page.goto(server.url)
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type(server.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    tab_to(page, "New job")
    page.keyboard.press("Enter")
    tab_to(page, "Run a scriptshell")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    tab_to(page, "", role="TEXTAREA")
    page.keyboard.type(f"seq 1 500; while [ ! -e '{gate}' ]; do sleep 0.01; done")
    tab_to(page, "Submit")
    page.keyboard.press("Enter")
    expect(views.log_text(page).get_by_text("500", exact=True)).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    tab_to(page, "", role="DIV.log-text")  # the log, in a root of its own
    page.keyboard.press("Control+Home")
    expect(views.log_text(page).get_by_text("1", exact=True)).to_be_in_viewport()
    page.keyboard.press("Tab")  # and out of it again
    assert focused(page)[0] != "DIV.log-text"
    gate.touch()
    views.expect_log(page, "complete")


def focused(page: Page) -> Any:
    name = "(e => [e.tagName + (e.className === 'log-text' ? '.log-text' : ''), (e.getAttribute('aria-label') ?? e.textContent).trim()])"
    return page.evaluate(f"{name}(document.activeElement)")


def tab_to(page: Page, text: str, *, role: str = "") -> None:
    """Press Tab until the focus is on what begins with `text`."""
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, name = focused(page)
        if (tag == role) if role else name.startswith(text):
            return
    raise AssertionError(f"the focus never came to {text or role}")
