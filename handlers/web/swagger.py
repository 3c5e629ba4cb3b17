"""The documentation pages that need no build: Swagger UI for the HTTP contract, and a notice in place of the console for events.

Pure functions and files. Every address in a page is relative, so that it works behind a proxy with a path prefix. No page holds a script
or a style, so that a strict Content-Security-Policy may be set.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path

OWN_ASSETS = ("pages.css", "swagger.css", "swagger-initializer.js")
SWAGGER_UI_ASSETS = ("favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css")


def assets() -> dict[str, Path]:
    """The files of both pages by name; served under `docs/assets/`."""
    own = Path(__file__).parent / "assets"
    swagger_ui = _swagger_ui()
    return {name: own / name for name in OWN_ASSETS} | {name: swagger_ui / name for name in SWAGGER_UI_ASSETS}


def _swagger_ui() -> Path:
    """The folder with Swagger UI's files, which the package flask-swagger-ui ships; nothing of its code is used."""
    spec = find_spec("flask_swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package flask-swagger-ui, which has the files of Swagger UI, is not installed")
    return Path(spec.submodule_search_locations[0]) / "dist"


def swagger_page() -> str:
    """The page at `docs`."""
    return _page(
        title="runcast jobs",
        here="docs",
        assets="docs/assets",
        styles=("swagger-ui.css", "swagger.css", "pages.css"),
        links={"API": "docs", "Events": "docs/events", "openapi.json": "openapi.json"},
        body='<div id="swagger-ui"></div>\n'
        '<script src="docs/assets/swagger-ui-bundle.js"></script>\n'
        '<script src="docs/assets/swagger-initializer.js"></script>',
    )


def events_page() -> str:
    """The page at `docs/events` where the console was not built: it says so, and leads to the contract itself."""
    return _page(
        title="runcast events",
        here="../docs/events",
        assets="assets",
        styles=("pages.css",),
        links={"API": "../docs", "Events": "../docs/events"},
        body="<main>\n<h1>The console was not built</h1>\n"
        "<p>This page shows the events contract and a console that subscribes to events. Its files are missing from this installation. "
        "In a checkout of runcast, <code>make console</code> builds them.</p>\n"
        '<p>The contract itself is <a href="../asyncapi.json">asyncapi.json</a>.</p>\n</main>',
    )


def _page(*, title: str, here: str, assets: str, styles: tuple[str, ...], links: Mapping[str, str], body: str) -> str:
    sheets = "\n".join(f'<link rel="stylesheet" href="{assets}/{style}">' for style in styles)
    anchors = "\n".join(f'<a href="{url}"{" aria-current=page" if url == here else ""}>{name}</a>' for name, url in links.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="{assets}/favicon-32x32.png">
{sheets}
</head>
<body>
<nav class="bar" aria-label="Documents">
<strong>runcast</strong>
{anchors}
</nav>
{body}
</body>
</html>
"""
