"""Adds a panel to the application's first page."""

from __future__ import annotations

from typing import Any

NAME = "{{ extension_name }}"


def start(app: Any) -> None:
    app.panels[app.extensions[NAME].title] = lambda: text(app)


def text(app: Any) -> str:
    """What the panel says. Change it, build, and launch again."""
    return f"{app.title} is made of {len(app.extensions)} extensions."
