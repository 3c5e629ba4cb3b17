"""Faults that were found by reading the code, each held by what would show it again."""

from __future__ import annotations

import pytest

from handlers.auth import Gate
from jobs.errors import OriginRefused


@pytest.mark.parametrize("origin", ["http://[", "http://a]b", "null", "", "localhost:8000", "http://localhost:8000@evil.example"])
def test_whatever_an_origin_looks_like_it_is_refused_and_nothing_breaks(origin: str) -> None:
    with pytest.raises(OriginRefused):
        Gate(hosts=["localhost"], origins=["https://jobs.example.com"]).check(host="localhost:8000", origin=origin)
