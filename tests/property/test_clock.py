"""Times as clients write them and read them: nothing is lost on the way, whatever the offset, the digits and the century."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from handlers.contract.document import Contract
from jobs.clock import from_rfc3339, to_rfc3339

FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999
times = st.integers(FIRST, LAST)


@given(times)
@example(FIRST)
@example(LAST)
@example(-1)
def test_every_time_survives_a_round_trip_as_text(ms: int) -> None:
    text = to_rfc3339(ms)
    assert from_rfc3339(text) == ms
    assert Contract.load().parameter_violations("list_jobs", "query", "since", text) == []


@given(times, times)
@example(-40_000_000_000_000, 0)
def test_texts_of_times_sort_as_the_times(first: int, second: int) -> None:
    assert (to_rfc3339(first) < to_rfc3339(second)) == (first < second)


@given(
    moment=st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),  # noqa: DTZ001  # the strategy takes no others
    offset=st.integers(-23 * 60 - 59, 23 * 60 + 59),
    digits=st.integers(0, 9),
    mark=st.sampled_from("Tt"),
    zulu=st.sampled_from(["Z", "z", None]),
)
def test_any_spelling_of_a_time_is_understood(moment: datetime, offset: int, digits: int, mark: str, zulu: str | None) -> None:
    fraction = f"{moment.microsecond:06d}000"[:digits]
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    suffix = zulu or f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    text = f"{moment:{_date(moment)}}{mark}{moment:%H:%M:%S}{'.' + fraction if fraction else ''}{suffix}"
    zone = UTC if zulu else timezone(timedelta(minutes=offset))
    exact = moment.replace(microsecond=int(f"{fraction:0<6}"[:6]), tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)
    assert abs(from_rfc3339(text) - exact / timedelta(milliseconds=1)) <= 0.5


def _date(moment: datetime) -> str:
    return f"{moment.year:04d}-%m-%d"


@given(st.integers(0, 999), st.sampled_from(["Z", "+05:30", "-08:00"]))
def test_a_leap_second_counts_as_the_next_second(ms: int, zone: str) -> None:
    assert from_rfc3339(f"2016-12-31T23:59:60.{ms:03d}{zone}") == from_rfc3339(f"2017-01-01T00:00:00.{ms:03d}{zone}")


@given(st.text(st.sampled_from("0123456789-:.TZ+ "), max_size=30))
@example("9999-12-31T23:59:60Z")
@example("0000-01-01T00:00:00Z")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.9999Z")
def test_an_invalid_time_raises_only_value_error(text: str) -> None:
    """Only what the contract lets through gets there."""
    if Contract.load().parameter_violations("list_jobs", "query", "since", text):
        return
    try:
        assert isinstance(from_rfc3339(text), int)
    except ValueError:
        return
