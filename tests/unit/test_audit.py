"""Audit lines: one for each change, of fields that nobody can forge, and never so many about the refused that they fill a disk."""

from __future__ import annotations

import logging
import re

import pytest

from handlers.access.audit import Audit
from jobs.logging_setup import PlainText


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="runcast.audit")
    return caplog


def test_a_change_is_one_audit_line(log: pytest.LogCaptureFixture) -> None:
    Audit().change("cancel_job", by="ci", address="127.0.0.1", outcome="202", job="019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11")
    assert log.messages == ["cancel_job by=ci from=127.0.0.1 outcome=202 job=019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11"]


@pytest.mark.parametrize("name", ["a b", "a\nsubmit_job by=admin", 'a"', "a=b", "\x1b[2J", "\x9b31m", "\u202eevil", "", "x" * 9999])
def test_names_are_quoted_so_that_no_line_can_be_forged(log: pytest.LogCaptureFixture, name: str) -> None:
    Audit().change("submit_job", by=name, address="::1", outcome="202")
    (line,) = log.messages
    assert line.isascii() and line.isprintable() and len(line) < 2000
    assert re.fullmatch(r'submit_job by="(\\.|[^"\\])*" from=::1 outcome=202', line)


def test_repeated_refusals_are_counted_and_not_all_logged(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.access.audit.REFUSALS", "3/minute")
    audit = Audit()
    for _ in range(10):
        audit.refused("list_jobs", address="192.0.2.1", outcome="unauthenticated")
    audit.refused("list_jobs", address="192.0.2.2", outcome="unauthenticated")
    audit.refused("submit_job", by="ci", address="192.0.2.1", outcome="rate-limited")
    assert log.messages == [
        *["list_jobs by=- from=192.0.2.1 outcome=unauthenticated"] * 3,
        "list_jobs by=- from=192.0.2.2 outcome=unauthenticated",
        "submit_job by=ci from=192.0.2.1 outcome=rate-limited",
    ]


def test_the_next_line_says_how_many_were_omitted(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.access.audit.REFUSALS", "1/minute")
    audit = Audit()
    for _ in range(5):
        audit.refused("connect", address="192.0.2.1", outcome="unauthenticated")
    monkeypatch.setattr(audit._refusals, "take", lambda _: True)  # a minute later
    audit.refused("connect", address="192.0.2.1", outcome="unauthenticated")
    assert log.messages[-1] == "connect by=- from=192.0.2.1 outcome=unauthenticated left_out=4"


def test_control_characters_in_the_server_log_are_escaped() -> None:
    record = logging.LogRecord("runcast.api", logging.ERROR, __file__, 1, "said \x1b[2J\x9b31m\x07\r and\n\tmore \u202eä", None, None)
    assert PlainText("%(message)s").format(record) == "said \\x1b[2J\\x9b31m\\x07\\x0d and\n\tmore \\u202eä"
