"""The machine's clock may be set at any time; what is measured with a steady one does not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import clock
from jobs.clock import SteadyClock, now_ms

HOUR_MS = 3_600_000


@pytest.fixture
def offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "offset"
    file.write_text("0")
    monkeypatch.setattr(clock, "_OFFSET_FILE", str(file))
    return file


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_a_steady_clock_does_not_step(step: int, offset: Path) -> None:
    before, steady = now_ms(), SteadyClock()
    assert not steady.is_off()
    offset.write_text(str(step))
    assert abs(now_ms() - before - step) < 5000, "the time of day does"
    assert 0 <= steady.now_ms() - before < 5000
    assert steady.is_off()
    assert not SteadyClock().is_off()


def test_a_steady_clock_starts_no_earlier_than_requested() -> None:
    later = now_ms() + HOUR_MS
    assert 0 <= SteadyClock(not_before=later).now_ms() - later < 5000
