"""From raw output to blocks of lines: nothing lost, nothing doubled, however it is cut."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.execution.output import BLOCK_BYTES, RESULT_DEPTH, Block, Findings, LineSplitter, Masker, OutputPipeline, OutputScanner
from jobs.model import LogChunk, Progress, Stream

cuts = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=12)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces; `at` are places taken modulo its length."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(places)] or [b""]


def run(*feeds: bytes, secrets: list[bytes] | None = None, scanner: OutputScanner | None = None) -> list[Block]:
    pipeline = OutputPipeline(masker=Masker(secrets or []), scanner=scanner or OutputScanner())
    return [block for feed in feeds for block in pipeline.feed(feed)] + pipeline.end()


def logged(*feeds: bytes, secrets: list[bytes] | None = None) -> bytes:
    return b"".join(block.data for block in run(*feeds, secrets=secrets))


def said(*feeds: bytes, ready: str | None = None, patterns: tuple[str, ...] = ()) -> Findings:
    scanner = OutputScanner(patterns=patterns, ready=ready)
    run(*feeds, scanner=scanner)
    return scanner.take_findings()


def check_blocks(blocks: list[Block]) -> None:
    for block in blocks:
        line_end = len(re.findall(rb"\r?\n\Z", block.data)[0]) if block.data.endswith(b"\n") else 0
        assert 0 < len(block.data) <= BLOCK_BYTES or (block.lines == 1 and len(block.data) - line_end <= BLOCK_BYTES)
        assert block.lines == len(LogChunk("job", 1, block.lines, 0, Stream.STDOUT, block.data).texts())
        assert block.data.count(b"\n") == block.lines - (not line_end)


# Lines


@settings(deadline=None)
@given(st.binary(max_size=2000).map(lambda data: data.replace(b"\r", b"")), cuts)
def test_every_byte_is_stored_however_output_is_split(data: bytes, at: list[int]) -> None:
    blocks = run(*cut(data, at))
    check_blocks(blocks)
    assert b"".join(block.data for block in blocks) == data


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x", b"\xe2\x82\xac", b"\x80", b"ab "]),
            st.sampled_from([0, 1, 7, BLOCK_BYTES // 3, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES]),
            st.sampled_from([b"\n", b"\r\n", b""]),
        ),
        max_size=6,
    ),
    cuts,
)
def test_large_output_gives_the_same_lines_however_it_is_split(lines: list[tuple[bytes, int, bytes]], at: list[int]) -> None:
    data = b"".join((pattern * length)[:length] + end for pattern, length, end in lines)
    whole, parts = run(data), run(*cut(data, at))
    check_blocks(whole)
    check_blocks(parts)
    assert b"".join(block.data for block in whole) == b"".join(block.data for block in parts) == data
    assert sum(block.lines for block in whole) == sum(block.lines for block in parts)


def test_a_partial_line_is_held_until_it_ends_or_output_ends() -> None:
    pipeline = OutputPipeline(masker=Masker(), scanner=OutputScanner())
    assert pipeline.feed(b"a") == []
    assert pipeline.feed(b"b\nc") == [Block(1, b"ab\n")]
    assert pipeline.feed(b"") == []
    assert pipeline.end() == [Block(1, b"c")]
    assert pipeline.end() == []


def test_a_block_ends_at_the_last_line_that_fits() -> None:
    line = b"x" * 999 + b"\n"
    blocks = run(line * 200)
    assert [block.lines for block in blocks] == [65, 65, 65, 5]
    assert all(block.data == line * block.lines for block in blocks)


def test_a_line_is_split_only_when_it_is_over_the_limit() -> None:
    longest = b"x" * BLOCK_BYTES
    for end in (b"\n", b"\r\n", b""):
        assert run(longest + end) == [Block(1, longest + end)]
        assert run(longest, end) == [Block(1, longest + end)]
        assert run(longest + end[:1], end[1:]) == [Block(1, longest + end)]
        assert run(longest + b"y" + end) == [Block(1, longest), Block(1, b"y" + end)]
        assert run(longest, b"y", end) == [Block(1, longest), Block(1, b"y" + end)]
        assert run(longest * 2 + end) == [Block(1, longest), Block(1, longest + end)]
    assert run(b"a\n" + longest + b"yy\nb\n") == [Block(1, b"a\n"), Block(1, longest), Block(2, b"yy\nb\n")]


def test_a_long_rewritten_line_is_split_too() -> None:
    longest = b"x" * BLOCK_BYTES
    for feeds in ([b"a\r" + longest + b"y\n"], [b"a\r", longest, b"y", b"\n"], [b"a\r" + longest + b"y", b"\n"]):
        assert run(*feeds) == [Block(1, longest), Block(1, b"y\n")]


def test_output_without_line_ends_is_stored_as_it_grows() -> None:
    pipeline = OutputPipeline(masker=Masker(), scanner=OutputScanner())
    blocks = [block for _ in range(300) for block in pipeline.feed(b"x" * 1000)]
    assert [len(block.data) for block in blocks] == [BLOCK_BYTES] * 4
    assert sum(len(block.data) for block in blocks + pipeline.end()) == 300_000


def test_a_long_line_is_not_split_within_a_character() -> None:
    euro = "€".encode()
    blocks = run(b"x" + euro * BLOCK_BYTES)
    assert len(blocks) > 2
    for block in blocks:
        block.data.decode("utf-8")
    assert run(b"\x80" * (BLOCK_BYTES + 5)) == [Block(1, b"\x80" * BLOCK_BYTES), Block(1, b"\x80" * 5)]


# Rewritten lines


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"10%\r20%\r30%\n", b"30%\n"),
        (b"\r10%\r20%\r30%\n", b"30%\n"),
        (b"10%\r20%\r100%\r\n", b"100%\r\n"),
        (b"10%\r20%\r100%\r\r\n", b"100%\r\n"),
        (b"10%\r\n20%\r\n", b"10%\r\n20%\r\n"),
        (b"10%\r20%", b"20%"),
        (b"10%\r20%\r", b"20%\r"),
        (b"long text\rshort\n", b"short\n"),
        (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\n\r\nb", b"a\n\r\nb"),
        (b"a\n\r", b"a\n"),
        (b"\r\r\r", b""),
        (b"a\rb\nc\rd\ne\n", b"b\nd\ne\n"),
        (b"\r\ra\r\r\rb\r\r", b"b\r"),
        (b"a\r \n", b" \n"),
    ],
)
def test_only_the_last_text_of_a_rewritten_line_is_logged(written: bytes, kept: bytes) -> None:
    for size in range(1, len(written) + 1):
        feeds = [written[start : start + size] for start in range(0, len(written), size)]
        assert logged(*feeds) == kept, feeds


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b""]), max_size=40).map(b"".join), cuts)
def test_rewriting_does_not_depend_on_how_output_is_split(data: bytes, at: list[int]) -> None:
    feeds = cut(data, at)
    assert logged(*feeds) == logged(data)
    texts = [re.split(rb"\r+", line.rstrip(b"\r"))[-1] for line in data.split(b"\n")]
    stored = [line.removesuffix(b"\r") for line in logged(*feeds).split(b"\n")]
    assert stored == texts


def test_a_program_that_only_rewrites_uses_bounded_memory() -> None:
    splitter = LineSplitter()
    for step in range(2000):
        split = splitter.feed(b"\r" * 100 + b"%d%%" % (step % 100) + b"\r" * 100)
        assert split.lines == b""
    assert splitter.end().lines == b"99%\r"


def test_every_rewrite_feeds_progress_at_once() -> None:
    scanner = OutputScanner()
    pipeline = OutputPipeline(masker=Masker(), scanner=scanner)
    seen = []
    for feed in (b"\r[#    ] 20%", b"\r[##   ] 4", b"0%", b"\r[###  ] 60%", b"\r[#####] 100%\n"):
        pipeline.feed(feed)
        progress = scanner.take_findings().progress
        seen.append(progress.percent if progress else None)
    assert seen == [20.0, None, 40.0, 60.0, 100.0]


# Secrets


def mask(data: bytes, secrets: list[bytes]) -> bytes:
    """The plain definition: from left to right, the longest secret that begins here."""
    masked, at = b"", 0
    while at < len(data):
        here = max((secret for secret in secrets if data.startswith(secret, at)), key=len, default=b"")
        masked += b"***" if here else data[at : at + 1]
        at += len(here) or 1
    return masked


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc", max_size=40).map(str.encode),
    st.lists(st.text("abc", min_size=1, max_size=6).map(str.encode), max_size=4),
    cuts,
)
def test_secrets_are_masked_however_output_is_split(data: bytes, secrets: list[bytes], at: list[int]) -> None:
    masker = Masker(secrets)
    assert b"".join([*(masker.feed(feed) for feed in cut(data, at)), masker.end()]) == mask(data, secrets)


def test_only_a_possible_beginning_of_a_secret_is_held_back() -> None:
    masker = Masker([b"hunter2", b"hunting"])
    assert masker.feed(b"a hunter") == b"a "
    assert masker.feed(b"s hunt") == b"hunters "
    assert masker.feed(b"ing") == b"***"
    assert masker.feed(b"no\n") == b"no\n"
    assert masker.feed(b"hun") == b""
    assert masker.end() == b"hun"
    assert masker.end() == b""


def test_without_secrets_nothing_is_copied() -> None:
    masker = Masker([b"", b"\n", b"  "])
    data = b"a  b\n" * 10
    assert masker.feed(data) is data
    assert masker.end() == b""


def test_each_line_of_a_secret_is_masked() -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"
    assert logged(b"key: " + key, secrets=[key]) == b"key: ***\n"
    assert logged(b"  MIIEvQIBADANBg\r\n  short\n", secrets=[key]) == b"  ***\r\n  short\n"


def test_secrets_are_masked_in_results_progress_and_readiness() -> None:
    scanner = OutputScanner(ready=r"token (?P<token>\S+)")
    blocks = run(b'::result {"token": "hunter2"}\n::progress 5 with hunt', b"er2\ntoken hunter2\n", secrets=[b"hunter2"], scanner=scanner)
    assert scanner.take_findings() == Findings(progress=Progress(5.0, "with ***"), result={"token": "***"}, ready={"token": "***"})
    assert blocks == [Block(1, b"token ***\n")]


# Directives


def test_directives_are_applied_and_removed_from_the_log() -> None:
    scanner = OutputScanner()
    pipeline = OutputPipeline(masker=Masker(), scanner=scanner)
    assert pipeline.feed(b"a\n::progress 45 linking\nb\n::progr") == [Block(2, b"a\nb\n")]
    assert scanner.take_findings() == Findings(progress=Progress(45.0, "linking"))
    assert pipeline.feed(b'ess 50.5%\r\n::result {"url": "x"}\n') == []
    assert scanner.take_findings() == Findings(progress=Progress(50.5, "linking"), result={"url": "x"})
    assert pipeline.feed(b'::result {"url": "y"}') == []
    assert scanner.take_findings() == Findings()
    assert pipeline.end() == []
    assert scanner.take_findings() == Findings(result={"url": "y"})


@pytest.mark.parametrize(
    "line",
    [
        b" ::progress 45",
        b"x::progress 45",
        b"::progress",
        b"::progress ",
        b"::progress x",
        b"::progress 101",
        b"::progress -1",
        b"::progress 1e1",
        b"::progress 45linking",
        b"::progress \xff",
        b"::Progress 45",
        b"::progress: 45",
        b"::result",
        b"::result ",
        b"::result {",
        b"::result []",
        b"::result 1",
        b'::result {"a": NaN}',
        b'::result {"a": 1e999}',
        b'::result {"a": "\\ud800"}',
        b'::result {"a": "\xff"}',
        b'::result {"a": ' + b"[" * RESULT_DEPTH + b"]" * RESULT_DEPTH + b"}",
        b'::result {"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'::result {"a": ' + b"9" * 5000 + b"}",
        b'::result {"a": "' + b"x" * BLOCK_BYTES + b'"}',
        b"::other 45",
    ],
)
def test_a_malformed_directive_is_an_ordinary_line(line: bytes) -> None:
    scanner = OutputScanner()
    assert b"".join(block.data for block in run(line + b"\n", b"after\n", scanner=scanner)) == line + b"\nafter\n"
    assert scanner.take_findings() == Findings()


def test_a_result_may_reach_the_documented_depth_and_length() -> None:
    deep = b'{"a": ' + b"[" * (RESULT_DEPTH - 1) + b"]" * (RESULT_DEPTH - 1) + b"}"
    assert said(b"::result " + deep + b"\n").result == json.loads(deep)
    long = json.dumps({"a": "x" * (BLOCK_BYTES - 100)}).encode()
    assert said(b"::result " + long + b"\n").result == json.loads(long)
    assert said(b"::result " + long[:1000], long[1000:]).result == json.loads(long)


def test_a_directive_counts_after_a_rewrite_but_not_within_a_split_line() -> None:
    assert said(b"working\r::progress 7\n").progress == Progress(7.0, None)
    within = b"x" * BLOCK_BYTES + b"::progress 7\n"
    for feeds in ([within], [within[:-5], within[-5:]], [within[:BLOCK_BYTES], within[BLOCK_BYTES:]]):
        assert said(*feeds) == Findings()
        assert logged(*feeds) == within


def test_reported_progress_switches_guessing_off() -> None:
    assert said(b"::progress 10 compile\n[ 80%] Building\n").progress == Progress(10.0, "compile")
    assert said(b"[ 80%] Building\n").progress == Progress(80.0, "Building")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"a\n", b"::progress 5 x\n", b"::result {}\n", b"::progress no\n", b"\n", b"b\r\n"]), max_size=12),
    cuts,
)
def test_directives_are_found_however_output_is_split(lines: list[bytes], at: list[int]) -> None:
    scanner = OutputScanner()
    kept = b"".join(block.data for block in run(*cut(b"".join(lines), at), scanner=scanner))
    assert kept == b"".join(line for line in lines if line not in (b"::progress 5 x\n", b"::result {}\n"))
    signals = scanner.take_findings()
    assert (signals.progress is not None) == (b"::progress 5 x\n" in lines)
    assert (signals.result is not None) == (b"::result {}\n" in lines)


# Readiness


def test_readiness_is_reported_once_with_the_named_groups() -> None:
    scanner = OutputScanner(ready=r"listening on (?P<url>\S+)(?: as (?P<name>\w+))?")
    pipeline = OutputPipeline(masker=Masker(), scanner=scanner)
    pipeline.feed(b"starting\nlistening on http://127.0.0")
    assert scanner.take_findings() == Findings()
    pipeline.feed(b".1:8000\r\n")
    assert scanner.take_findings() == Findings(ready={"url": "http://127.0.0.1:8000", "name": ""})
    pipeline.feed(b"listening on nothing\n")
    assert scanner.take_findings() == Findings()


def test_readiness_ignores_colours_and_needs_no_groups() -> None:
    assert said(b"  Local: \x1b[36mhttp://localhost:\x1b[1m5173\x1b[22m/\x1b[39m\n", ready=r"Local: (?P<url>\S+)").ready == {
        "url": "http://localhost:5173/"
    }
    assert said(b"up\n", ready="^up$").ready == {}
    assert said(b"not up\nup to date\n", ready="^up$").ready is None
    assert said("grün".encode(), ready="gr.n$").ready == {}


def test_an_unusable_readiness_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="the ready pattern"):
        OutputScanner(ready="(")
    with pytest.raises(ValueError, match="the progress pattern"):
        OutputScanner(patterns=["("])


def test_two_streams_share_progress_and_result() -> None:
    scanner = OutputScanner()
    out, err = (OutputPipeline(masker=Masker(), scanner=scanner) for _ in range(2))
    out.feed(b"[3/4] c\n")
    err.feed(b"[1/4] a\n")
    assert scanner.take_findings() == Findings(progress=Progress(75.0, "a"))
    assert out.feed(b"x") == err.feed(b"y") == []
    assert (out.end(), err.end()) == ([Block(1, b"x")], [Block(1, b"y")])
