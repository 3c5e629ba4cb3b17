"""Finds the files of the pages that `console/build.py` made, and serves none. Where the pages could not be built, there are no files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "console"
ASSETS = "assets"
FOREVER_SECONDS = 365 * 24 * 3600
"""How long a browser may keep an asset. Its name changes with its content."""


def page(name: str) -> Path | None:
    """The file of a page, such as `index`; None where the pages were not built."""
    path = FOLDER / f"{name}.html"
    return path if (FOLDER / ".built").is_file() and path.is_file() else None


def assets() -> dict[str, Path]:
    """The files of scripts, styles and pictures, by their names below `/console/`."""
    files = (FOLDER / ASSETS).iterdir() if page("index") else ()
    return {f"{ASSETS}/{path.name}": path for path in files if path.suffix != ".gz"}
