"""The application's first page, and the same as JSON at `/about.json`."""

from __future__ import annotations

import html
import json
from string import Template
from typing import Any


def start(app: Any) -> None:
    own = app.extensions["sample.page"]
    app.pages["/"] = lambda: ("text/html; charset=utf-8", page(app, own.read("page.html").decode()).encode())
    app.pages["/style.css"] = lambda: ("text/css; charset=utf-8", own.read("style.css"))
    app.pages["/icon.png"] = lambda: ("image/png", app.icon(64))
    app.pages["/about.json"] = lambda: ("application/json", json.dumps(about(app), ensure_ascii=False).encode())


def about(app: Any) -> dict[str, Any]:
    """What the application is made of."""
    extensions = [{"name": part.name, "title": part.title, "version": part.version} for part in app.extensions.values()]
    return {"name": app.name, "title": app.title, "version": app.version, "config": app.config, "extensions": extensions}


def page(app: Any, template: str) -> str:
    """The page with everything filled in; nothing in a name is taken for HTML."""
    parts = app.extensions.values()
    rows = "".join(f"<tr><td>{_text(part.title)}</td><td>{_text(part.name)}</td><td>{_text(part.version)}</td></tr>" for part in parts)
    panels = "".join(f"<section><h2>{_text(title)}</h2><p>{_text(content())}</p></section>" for title, content in app.panels.items())
    facts = {"title": _text(app.title), "name": _text(app.name), "version": _text(app.version), "config": _text(app.config)}
    return Template(template).substitute(facts, rows=rows, panels=panels)


def _text(value: object) -> str:
    return html.escape(str(value))
