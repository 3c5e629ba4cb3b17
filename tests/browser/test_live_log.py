"""A log in a real browser is complete: after a lost connection, a killed server, with two viewers, and with dropped lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from support import views
from support.cut import cut_between
from support.server import RunningServer
from support.waiting import eventually

pytestmark = pytest.mark.timeout(120)
# What the browser itself says of connections that a test breaks.
BROKEN = ["Failed to load resource", "WebSocket connection to", "net::ERR"]


def gated(gate: Path, script: str) -> str:
    return f"while [ ! -e '{gate}' ]; do sleep 0.01; done; {script}"


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def test_log_is_complete_after_a_lost_connection(page: Page, watched: Any, server: RunningServer, tmp_path: Path) -> None:
    watched.allowed = BROKEN
    gate = tmp_path / "gate"
    job_id = server.shell(f"seq 1 3000; {gated(gate, 'seq 3001 6000')}; {gated(tmp_path / 'end', 'true')}")
    views.sign_in(page.context, server)
    with cut_between(urlsplit(server.url).port or 0) as line:
        views.open_job(page, f"http://127.0.0.1:{line.port}", job_id)
        expect(views.log_text(page).get_by_text("3000", exact=True)).to_be_visible()
        views.expect_log(page, "live")
        line.cut()
        views.expect_log(page, "connection lost, reconnecting")
        expect(page.get_by_text("The log continues after the last line")).to_be_visible()
        gate.touch()
        server.wait_for_log(job_id, "6000")
        line.mend()
        views.expect_log(page, "live")
        expect(views.log_text(page).get_by_text("6000", exact=True)).to_be_visible()
        (tmp_path / "end").touch()
        views.expect_log(page, "complete")
        assert views.whole_log(page) == numbers(1, 6000)
        page.close()


def test_log_is_complete_after_the_server_is_killed(
    make_server: Callable[..., RunningServer], page: Page, watched: Any, tmp_path: Path
) -> None:
    watched.allowed = BROKEN
    server = make_server()
    gate = tmp_path / "gate"
    job_id = server.shell(f"seq 1 3000; {gated(gate, 'seq 3001 6000')}")
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    expect(views.log_text(page).get_by_text("3000", exact=True)).to_be_visible()
    api = server.part("api")
    for process in (*api.children(), api):
        process.kill()
    views.expect_log(page, "connection lost, reconnecting")
    gate.touch()
    views.expect_log(page, "complete", seconds=40)
    assert views.whole_log(page) == numbers(1, 6000)
    expect(page.locator(".job-state")).to_contain_text("completed")


def test_two_viewers_see_the_same_log(new_context: Callable[..., BrowserContext], server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = server.shell(f"seq 1 100; {gated(gate, 'seq 101 2000')}; {gated(tmp_path / 'end', 'sleep 30')}")
    pages = []
    for _ in range(2):
        context = new_context()
        views.sign_in(context, server)
        pages.append(context.new_page())
        views.open_job(pages[-1], server.url, job_id)
        views.expect_log(pages[-1], "live")
    gate.touch()
    for page in pages:
        expect(views.log_text(page).get_by_text("2000", exact=True)).to_be_visible()
    (tmp_path / "end").touch()
    pages[0].get_by_role("button", name="Cancel").click()
    pages[0].get_by_role("button", name="Cancel the job").click()
    for page in pages:
        expect(page.locator(".job-state")).to_contain_text("cancelled")
        views.expect_log(page, "complete")
        assert views.whole_log(page) == numbers(1, 2000)
        expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_dropped_lines_are_marked_at_their_place(make_server: Callable[..., RunningServer], page: Page) -> None:
    server = make_server(log_cap=100_000)
    job_id = server.shell("seq 1 100000")
    server.wait(job_id)
    dropped = eventually(lambda: server.job(job_id)["log"]["dropped_lines"], "the log is cut")
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "complete")
    expect(page.locator(".cm-lineNumbers .cm-gutterElement").last).to_have_text(
        "100000"
    )  # beside a line is its own number, also after the gap
    lines = views.whole_log(page)
    (place,) = [index for index, line in enumerate(lines) if "were dropped" in line]
    assert lines[place].startswith(f"Lines {place + 1} to {place + dropped} ({dropped:,} lines) were dropped")
    assert lines[:place] == numbers(1, place)
    assert lines[place + 1 :] == numbers(place + dropped + 1, 100_000)


def test_log_search_error_navigation_follow_and_download(page: Page, server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = "seq 1 500; echo '0 errors so far'; echo 'main.c:3: error: no such thing'; seq 502 1000; echo 'ERROR again'"
    job_id = server.shell(f"{script}; {gated(gate, 'seq 2001 2500')}")
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    log = views.log_text(page)
    expect(log.get_by_text("ERROR again")).to_be_visible()
    follow = page.get_by_role("button", name="Follow")
    expect(follow).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="First error").click()
    expect(log.get_by_text("main.c:3: error: no such thing")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Error 1 of 2")).to_be_visible()
    expect(follow).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Control+f")
    page.keyboard.type("77")
    counted = [str(number) for number in (*range(1, 501), *range(502, 1001)) if "77" in str(number)]
    expect(page.locator(".matches")).to_have_text(str(len(counted)))
    page.keyboard.press("Enter")
    expect(page.locator(".matches")).to_have_text(f"{counted.index('577') + 1} of {len(counted)}")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".match.current")).to_have_text("77")
    expect(page.locator(".cm-line", has=page.locator(".match.current"))).to_have_text("377")
    gate.touch()  # what comes now moves nobody who reads
    views.expect_log(page, "complete")
    expect(page.locator(".cm-line", has=page.locator(".match.current"))).to_be_in_viewport()
    page.get_by_role("searchbox", name="Search the log").fill("no such line")
    expect(page.locator(".matches")).to_have_text("Not found")
    follow.click()
    expect(log.get_by_text("2500", exact=True)).to_be_in_viewport()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert Path(download.value.path()).read_text() == server.raw_log(job_id)
