"""Every page runs under its strict policy: nothing inline, nothing foreign, and the browser has nothing to complain about."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from support.server import RunningServer


def test_the_page_starts_without_a_complaint(page: Page, server: RunningServer) -> None:
    page.goto(server.url)
    expect(page.get_by_role("heading", name="runcast")).to_be_visible()
