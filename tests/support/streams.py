"""What a program may write, for tests of properties: bytes with all that is special to a log in them, and ways to cut them into writes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from jobs.execution.output import Block, Masker, OutputPipeline, OutputScanner

WORDS = [b"a", b"bc", b" ", b"\0", b"\x1b[1m", b"\xff", b"\x80", b"\xe2\x82", b"\xc3\xa9", "€".encode(), "😀".encode(), b"45%", b"[3/4] x"]
ENDS = [b"\n", b"\r\n", b"\r", b"\r\r", b"\r\r\n", b"\n\n"]

cuts = st.lists(st.integers(0, 1 << 20), max_size=12)


def output(*more: bytes, returns: bool = True, max_size: int = 40) -> st.SearchStrategy[bytes]:
    """Text, colours, halves of characters and line ends; without `returns` no line is rewritten."""
    ends = ENDS if returns else [end for end in ENDS if b"\r" not in end.replace(b"\r\n", b"")]
    return st.lists(st.sampled_from([*WORDS, *ends, *more]), max_size=max_size).map(b"".join)


def in_writes(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces; `at` are places taken modulo its length."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(places)] or [b""]


def stored(writes: list[bytes], *, secrets: list[bytes] | None = None, scanner: OutputScanner | None = None) -> list[Block]:
    """What becomes of one stream, written so."""
    pipeline = OutputPipeline(masker=Masker(secrets or []), scanner=scanner or OutputScanner())
    return [block for write in writes for block in pipeline.feed(write)] + pipeline.end()


def raw(blocks: list[Block]) -> bytes:
    return b"".join(block.data for block in blocks)
