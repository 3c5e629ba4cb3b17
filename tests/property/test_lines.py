"""The lines of a stream are those of the plain definition below, however the stream is cut into writes; and no byte of them is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.contract.document import Contract
from handlers.events.payloads import log_payload
from jobs.bootstrap import open_database
from jobs.execution import output as stages
from jobs.model import LogChunk, Stream
from jobs.store.log_writer import LogBlock
from jobs.store.logs import cut
from support.logs import ReusedLog
from support.streams import cuts, in_writes, output, raw, stored

LIMIT = 8


@pytest.fixture(scope="module", autouse=True)
def small_lines() -> Iterator[None]:
    """64 KiB is too much to try all that may happen around it; the same code runs with a small limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "BLOCK_BYTES", LIMIT)
        yield


def lines_of(data: bytes) -> Iterator[bytes]:
    """The plain definition: what is logged of a stream, line by line.

    A line ends at a line feed, perhaps with a return before it. Any other return goes back to the line's beginning, so that what follows
    replaces what stood there. A text that grows over the limit is logged in pieces of that length while it grows; only what is left of it
    can still be replaced. No piece ends within a character.
    """
    *ended, last = data.split(b"\n")
    for line in ended:
        yield from _line(line, end=b"\n")
    if last.strip(b"\r"):
        yield from _line(last, end=b"")


def _line(line: bytes, *, end: bytes) -> Iterator[bytes]:
    text = b""
    for text in filter(None, line.split(b"\r")):
        while len(text) > LIMIT:
            place = next((place for place in range(LIMIT, LIMIT - 4, -1) if text[place] & 0xC0 != 0x80), LIMIT)
            yield text[:place]
            text = text[place:]
        kept = text
    yield (kept if line.strip(b"\r") else b"") + (b"\r" if line.endswith(b"\r") else b"") + end


@given(output(), cuts)
@example(b"more than 8\rshort\n", [0])
@example(b"more than 8\rshort\n", [11])
@example(b"more than 8\rshort\n", [12])
@example(b"12345678\r\n12345678\n123456789\r\n", [8, 9])
def test_lines_do_not_depend_on_how_output_is_split(data: bytes, at: list[int]) -> None:
    blocks = stored(in_writes(data, at))
    pieces = list(lines_of(data))
    assert raw(blocks) == b"".join(pieces)
    assert sum(block.lines for block in blocks) == len(pieces)
    assert [text for block in blocks for text in _texts(block.lines, block.data)] == [_text(piece) for piece in pieces]


@given(output())
def test_lines_are_the_same_for_output_of_single_bytes(data: bytes) -> None:
    assert raw(stored([data[place : place + 1] for place in range(len(data))])) == raw(stored([data]))


@given(output(returns=False), cuts)
def test_a_stream_without_rewrites_is_kept_byte_for_byte(data: bytes, at: list[int]) -> None:
    assert raw(stored(in_writes(data, at))) == data


@given(output(max_size=100), cuts)
def test_a_line_is_never_longer_than_the_limit(data: bytes, at: list[int]) -> None:
    for block in stored(in_writes(data, at)):
        assert block.lines > 0
        for line in block.data.split(b"\n"):
            assert len(line.removesuffix(b"\r")) <= LIMIT


@given(st.text(st.sampled_from("aé€😀"), max_size=100), cuts)
def test_no_split_line_ends_within_a_character(text: str, at: list[int]) -> None:
    pieces = [block.data.decode("utf-8") for block in stored(in_writes(text.encode(), at))]  # strictly
    assert "".join(pieces) == text


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReusedLog]:
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('log') / 'runcast.db'}")
    database.migrate()
    yield ReusedLog(database)
    database.close()


@given(data=output(max_size=60), at=cuts, size=st.integers(3, 40))
def test_chunks_are_gapless_wherever_a_client_resumes(log: ReusedLog, data: bytes, at: list[int], size: int) -> None:
    blocks = [LogBlock(Stream.STDERR, 0, block.lines, block.data) for block in stored(in_writes(data, at))]
    log.new_writer(cap=16 * size).append(log.database.write, blocks)
    chunks = log.chunks()
    lines = [_text(piece) for piece in lines_of(data)]
    numbered = {seq: text for chunk in chunks for seq, text in enumerate(chunk.texts(), chunk.first_seq)}
    assert numbered == dict(enumerate(lines, 1))
    assert b"".join(chunk.data for chunk in chunks) == b"".join(lines_of(data))
    for after_seq in range(len(lines) + 1):
        rest = [cut(chunk, after_seq) for chunk in chunks if chunk.next_seq > after_seq + 1]
        assert [text for chunk in rest for text in chunk.texts()] == lines[after_seq:]
        for chunk in rest:
            assert Contract.load().event_violations("log", log_payload(chunk)) == []


def _texts(count: int, data: bytes) -> list[str]:
    return LogChunk("job", 1, count, 0, Stream.STDOUT, data).texts()


def _text(piece: bytes) -> str:
    """A logged line as a client reads it."""
    return re.sub(rb"\r?\n?\Z", b"", piece, count=1).decode("utf-8", "replace")
