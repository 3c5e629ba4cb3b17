"""What every implementation of a database, a feed or an engine must pass. A second one is added to `DATABASES`, and runs all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

DATABASES: Mapping[str, Callable[[Path], str]] = {"sqlite": lambda folder: f"sqlite:///{folder / 'runcast.db'}"}
"""The URL of an empty database, for each kind."""


@pytest.fixture(params=sorted(DATABASES))
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return DATABASES[request.param](tmp_path)
