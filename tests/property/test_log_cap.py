"""A log over its cap is its beginning and its end, whatever the lines are like, and never larger than the cap."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.model import LogChunk, Stream
from jobs.store.leases import Lease
from jobs.store.logs import LogWriter, Step

LEASE = Lease("019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11", "word", 1)

lines = st.tuples(st.sampled_from("aé€😀"), st.integers(0, 300), st.sampled_from(["\n", "\r\n"])).map(
    lambda line: line[0] * line[1] + line[2]
)
writes = st.lists(st.tuples(st.lists(lines, min_size=1, max_size=20), st.text("aé€😀", max_size=80)), min_size=1, max_size=12)
caps = st.integers(64, 500)


class Kept:
    """What a store would have of the log."""

    def __init__(self, cap: int) -> None:
        self.chunks: dict[int, LogChunk] = {}
        self.newest = 0
        self._writer = LogWriter(LEASE, cap=cap)
        self._writer.READ_SECONDS = 0.0  # nobody watches

    def write(self, data: bytes) -> None:
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        self._store(self._writer.step(self._writer.chunks(lines=count, at=0, stream=Stream.STDOUT, data=data)))

    def end(self) -> None:
        self._store(self._writer.step((), last=True))

    def _store(self, step: Step) -> None:
        self.chunks |= {chunk.first_seq: chunk for chunk in step.chunks}
        if step.doomed:
            self.chunks = {seq: chunk for seq, chunk in self.chunks.items() if not step.doomed[0] <= seq <= step.doomed[1]}
        self._writer.written(step)
        self.newest = max([self.newest, *(chunk.first_seq for chunk in step.chunks)])

    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks.values())


@given(caps, writes)
@example(64, [(["a" * 64 + "\n"], ""), (["a\n"] * 20, "")])
@example(100, [(["a\n"] * 100, ""), ([], "a" * 65)])
def test_the_end_of_a_log_is_kept_for_lines_of_any_kind(cap: int, log: list[tuple[list[str], str]]) -> None:
    kept, written = Kept(cap), b""
    for whole, rest in log:
        if data := ("".join(whole) + rest).encode():
            written += data
            kept.write(data)
            assert kept.newest in kept.chunks
    kept.end()
    assert len(kept.data) <= cap
    assert kept.newest in kept.chunks, "errors come last"
    if len(kept.data) < len(written):
        head, tail = parts(list(kept.chunks.values()))
        assert written.startswith(head) and written.endswith(tail)
        assert len(head) >= cap // 2 and tail


def parts(chunks: list[LogChunk]) -> tuple[bytes, bytes]:
    """What is kept before the one gap, and behind it."""
    (gap,) = [place for place in range(1, len(chunks)) if chunks[place].first_seq != chunks[place - 1].next_seq]
    return b"".join(chunk.data for chunk in chunks[:gap]), b"".join(chunk.data for chunk in chunks[gap:])


@given(caps, writes)
def test_a_small_cap_counts_cut_lines_and_splits_no_character(cap: int, log: list[tuple[list[str], str]]) -> None:
    writer = LogWriter(LEASE, cap=cap)
    seq = 1
    for whole, rest in log:
        data = ("".join(whole) + rest).encode()
        chunks = writer.chunks(lines=data.count(b"\n") + (not data.endswith(b"\n")), at=0, stream=Stream.STDOUT, data=data) if data else []
        assert b"".join(chunk.data for chunk in chunks) == data
        for chunk in chunks:
            assert (chunk.first_seq, chunk.lines) == (seq, len(chunk.texts())), "lines that end, and a piece at last"
            assert len(chunk.data) <= cap // 4
            chunk.data.decode()  # strictly
            seq = chunk.next_seq


@pytest.mark.parametrize("cap", [1 << 16, 100_000, 64 << 20])
def test_a_log_of_the_longest_lines_keeps_head_and_tail(cap: int) -> None:
    kept = Kept(cap)
    for _ in range(3):
        kept.write(b"A" * 65536)
        kept.write(b"B" * 65534 + b"\r\n")
    kept.write(b"error\n")
    kept.end()
    assert len(kept.data) <= cap
    assert kept.data.startswith(b"A") and kept.data.endswith(b"error\n")
