"""What a page says in its browser's console, which a test of the page does not let pass."""

from __future__ import annotations

from playwright.sync_api import Page


class Watched:
    """What the pages of a test said that they should not; `allowed` are parts of what the test provokes."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.allowed: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.said.append(f"raised: {error}"))

    def check(self) -> None:
        surprises = [said for said in self.said if not any(allowed in said for allowed in self.allowed)]
        assert surprises == [], surprises
