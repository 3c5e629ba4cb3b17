"""A log over its cap is its beginning and its end, whatever the lines are like, and never larger than the cap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.bootstrap import open_database
from jobs.model import LogChunk
from support.logs import ReusedLog, append

pytestmark = pytest.mark.slow

lines = st.tuples(st.sampled_from("aé€😀"), st.integers(0, 300), st.sampled_from(["\n", "\r\n"])).map(
    lambda line: line[0] * line[1] + line[2]
)
writes = st.lists(st.tuples(st.lists(lines, min_size=1, max_size=20), st.text("aé€😀", max_size=80)), min_size=1, max_size=12)
caps = st.integers(64, 500)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReusedLog]:
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('log') / 'runcast.db'}")
    database.migrate()
    yield ReusedLog(database)
    database.close()


class Kept:
    """A log under a cap, and what the store keeps of it."""

    def __init__(self, log: ReusedLog, cap: int) -> None:
        self._log = log
        self._writer = log.new_writer(cap=cap)

    def write(self, data: bytes) -> list[LogChunk]:
        """The chunks that were added."""
        next_seq = self._writer.next_seq
        append(self._log.database, self._writer, data)
        return self._log.chunks(after_seq=next_seq - 1)

    def end(self) -> None:
        append(self._log.database, self._writer, last=True)

    @property
    def chunks(self) -> list[LogChunk]:
        return self._log.chunks()

    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)


@given(cap=caps, output=writes)
@example(cap=64, output=[(["a" * 64 + "\n"], ""), (["a\n"] * 20, "")])
@example(cap=100, output=[(["a\n"] * 100, ""), ([], "a" * 65)])
def test_the_end_of_a_log_is_kept_for_lines_of_any_kind(log: ReusedLog, cap: int, output: list[tuple[list[str], str]]) -> None:
    kept, written, newest = Kept(log, cap), b"", None
    for whole, rest in output:
        if data := ("".join(whole) + rest).encode():
            written += data
            newest = kept.write(data)[-1]
            assert data.endswith(newest.data)
    kept.end()
    assert len(kept.data) <= cap
    assert newest is None or newest in kept.chunks, "errors come last"
    if len(kept.data) < len(written):
        head, tail = parts(kept.chunks)
        assert written.startswith(head) and written.endswith(tail)
        assert len(head) >= cap // 2 and tail


def parts(chunks: list[LogChunk]) -> tuple[bytes, bytes]:
    """What is kept before the one gap, and behind it."""
    (gap,) = [place for place in range(1, len(chunks)) if chunks[place].first_seq != chunks[place - 1].next_seq]
    return b"".join(chunk.data for chunk in chunks[:gap]), b"".join(chunk.data for chunk in chunks[gap:])


@given(cap=caps, output=writes)
def test_a_small_cap_counts_cut_lines_and_splits_no_character(log: ReusedLog, cap: int, output: list[tuple[list[str], str]]) -> None:
    kept, seq = Kept(log, cap), 1
    for whole, rest in output:
        data = ("".join(whole) + rest).encode()
        chunks = kept.write(data)
        assert b"".join(chunk.data for chunk in chunks) == data
        for chunk in chunks:
            assert (chunk.first_seq, chunk.lines) == (seq, len(chunk.texts())), "lines that end, and a piece at last"
            assert len(chunk.data) <= cap // 4
            chunk.data.decode()  # strictly
            seq = chunk.next_seq


@pytest.mark.parametrize("cap", [1 << 16, 100_000, 64 << 20])
def test_a_log_of_the_longest_lines_keeps_head_and_tail(log: ReusedLog, cap: int) -> None:
    kept = Kept(log, cap)
    for _ in range(3):
        kept.write(b"A" * 65536)
        kept.write(b"B" * 65534 + b"\r\n")
    kept.write(b"error\n")
    kept.end()
    assert len(kept.data) <= cap
    assert kept.data.startswith(b"A") and kept.data.endswith(b"error\n")
