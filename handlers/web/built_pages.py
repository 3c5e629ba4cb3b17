"""The pages that `console/build.py` made, as files by the addresses that they are served at. There are none where they could not be built.

Finds files; serves none.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "console"
ASSETS = "assets"
FOREVER_SECONDS = 365 * 24 * 3600
"""How long an asset may be kept: its name changes with its content."""


def page(name: str) -> Path | None:
    """The page `name`, such as `index`; None where the pages were not built."""
    path = FOLDER / f"{name}.html"
    return path if (FOLDER / ".built").is_file() and path.is_file() else None


def assets() -> dict[str, Path]:
    """Scripts, styles and pictures by their names below `/console/`."""
    files = (FOLDER / ASSETS).iterdir() if page("index") else ()
    return {f"{ASSETS}/{path.name}": path for path in files if path.suffix != ".gz"}
