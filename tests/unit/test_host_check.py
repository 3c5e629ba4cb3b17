"""The check of the headers Host and Origin."""

from __future__ import annotations

import pytest

from handlers.access.auth import HostCheck
from handlers.errors import OriginRefused


@pytest.mark.parametrize("origin", ["http://[", "http://a]b", "null", "", "localhost:8000", "http://localhost:8000@evil.example"])
def test_malformed_and_unknown_origins_are_refused(origin: str) -> None:
    with pytest.raises(OriginRefused):
        HostCheck(hosts=["localhost"], origins=["https://jobs.example.com"]).check(host="localhost:8000", origin=origin)
