"""No secret gets through, however the output is cut into writes; and nothing that is none is changed."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from jobs.execution.output import ENCODED_BYTES, MASK, Masker, OutputScanner, forms_of
from support.streams import cuts, in_writes, output, raw, stored

letters = st.binary(max_size=60).map(lambda data: bytes(b"ab\n\r \xe2\x82"[byte % 7] for byte in data))
"""Of few letters, so that secrets overlap, repeat and begin within each other."""
secrets = st.lists(letters.map(lambda data: data[:24]).filter(lambda data: data.strip() != b""), max_size=4)


def masked(writes: list[bytes], hidden: list[bytes]) -> bytes:
    masker = Masker(hidden)
    return b"".join([*map(masker.feed, writes), masker.end()])


def words(hidden: list[bytes]) -> list[bytes]:
    """What is hidden: each secret without the line ends around it, and the long lines of one that has several."""
    whole = [secret.strip(b"\r\n") for secret in hidden]
    return [word for word in (*whole, *(line for secret in whole for line in secret.splitlines() if len(line) >= 8)) if word.strip()]


def mask(data: bytes, hidden: list[bytes]) -> bytes:
    """The plain definition: from left to right, the longest secret that begins here."""
    known, result, at = words(hidden), b"", 0
    while at < len(data):
        here = max((word for word in known if data.startswith(word, at)), key=len, default=b"")
        result += MASK if here else data[at : at + 1]
        at += len(here) or 1
    return result


@given(letters, secrets, cuts)
@example(b"hunter2hunter2", [b"hunter2"], [7])
@example(b"-----BEGIN\nMIIEvQIB\n-----END", [b"-----BEGIN\nMIIEvQIB\n-----END\n"], [11, 20])
def test_only_secrets_are_replaced_however_output_is_split(data: bytes, hidden: list[bytes], at: list[int]) -> None:
    assert masked(in_writes(data, at), hidden) == mask(data, hidden)


@given(st.lists(st.one_of(letters, st.integers(0, 3)), max_size=8), secrets, cuts)
def test_masked_output_contains_no_secret(parts: list[bytes | int], hidden: list[bytes], at: list[int]) -> None:
    data = b"".join(hidden[part % len(hidden)] if isinstance(part, int) and hidden else bytes(part) for part in parts)
    result = masked(in_writes(data, at), hidden)
    assert not [word for word in words(hidden) if word in result]


@given(output(), cuts)
def test_output_without_secrets_is_not_changed(data: bytes, at: list[int]) -> None:
    assert masked(in_writes(data, at), [b"hunter2", b"correct horse\nbattery staple"]) == data


@given(st.lists(output(b"hunter2", b"hunter", b"2", max_size=10), max_size=6).map(b"".join), cuts)
def test_no_secret_is_in_the_log_or_in_the_job(data: bytes, at: list[int]) -> None:
    """Through all stages: rewritten lines, directives and patterns included."""
    data += b'\n::result {"token": "hunter2"}\n::progress 5 hunter2\nurl=hunter2\n'
    scanner = OutputScanner(ready="url=(?P<url>.*)")
    log = raw(stored(in_writes(data, at), secrets=[b"hunter2"], scanner=scanner))
    said = scanner.take_findings()
    assert b"hunter2" not in log
    assert said.result == {"token": "***"}
    assert said.ready == {"url": "***"}
    assert said.progress is not None and said.progress.message == "***"


@given(
    secret=st.binary(min_size=ENCODED_BYTES, max_size=24).filter(lambda secret: secret == secret.strip()),
    before=st.binary(max_size=8),
    behind=st.binary(max_size=8),
    at=cuts,
)
def test_secrets_in_base64_are_masked_at_any_offset(secret: bytes, before: bytes, behind: bytes, at: list[int]) -> None:
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        assert MASK in masked(in_writes(encode(before + secret + behind), at), list(forms_of(secret)))


@given(st.text(min_size=ENCODED_BYTES, max_size=24).filter(lambda secret: secret == secret.strip()), cuts)
def test_secrets_in_urls_and_json_are_masked(secret: str, at: list[int]) -> None:
    forms = list(forms_of(secret.encode()))
    for text in (quote(secret), quote(secret, safe=""), json.dumps({"a": secret}), json.dumps([secret], ensure_ascii=False)):
        assert MASK in masked(in_writes(text.encode(), at), forms)


@given(letters, secrets.filter(bool), cuts)
def test_only_a_possible_beginning_of_a_secret_is_held_back(data: bytes, hidden: list[bytes], at: list[int]) -> None:
    """So that a prompt is seen at once, whatever the secrets are."""
    masker, given_out, seen = Masker(hidden), b"", b""
    for write in in_writes(data, at):
        seen += write
        given_out += masker.feed(write)
        whole = mask(seen, hidden)
        assert whole.startswith(given_out) or mask(data, hidden).startswith(given_out)
        held = len(seen) - _given_in(given_out, seen, hidden)
        assert held < max(map(len, words(hidden)))
        assert held == 0 or any(word.startswith(seen[len(seen) - held :]) for word in words(hidden))


def _given_in(given_out: bytes, seen: bytes, hidden: list[bytes]) -> int:
    """How much of what was seen came out, as it was or masked."""
    for length in range(len(seen), -1, -1):
        if mask(seen[:length], hidden) == given_out:
            return length
    raise AssertionError(f"{given_out!r} is no beginning of {seen!r}")
