"""A log of a million lines: no frame that a person would feel, and no memory that others would miss."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from support import views
from support.server import RunningServer

LINES = 1_000_000
LINE = r"\033[32m[%07d]\033[0m Compiling module_%d/file.cpp\n"
SCRIPT = f"""awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf "{LINE}", i, i % 977 }}'"""
FRAME_MS = 100
MEMORY = 300_000_000
COUNT_FRAMES = """
let last = performance.now()
window.frames_ms = []
const frame = now => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(frame) }
requestAnimationFrame(frame)
"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def frames(page: Page, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Look at the frames since the last look: 95 in 100 take less than 100 ms."""

    def look(what: str) -> None:
        times = sorted(page.evaluate("window.frames_ms.splice(0)"))
        p95 = times[int(len(times) * 0.95)]
        record_property(
            f"{what}: frames, p50, p95, longest in ms", (len(times), *(round(t) for t in (times[len(times) // 2], p95, times[-1])))
        )
        print(f"{what}: {len(times)} frames, p50 {times[len(times) // 2]:.0f} ms, p95 {p95:.0f} ms, longest {times[-1]:.0f} ms")
        assert p95 < FRAME_MS, f"{what}: {p95:.0f} ms"

    return look


def test_a_million_lines(make_server: Callable[..., RunningServer], page: Page, browser: Browser, frames: Callable[[str], None]) -> None:
    server = make_server()
    page.add_init_script(COUNT_FRAMES)
    views.sign_in(page.context, server)
    page.goto(server.url)
    job_id = server.shell(SCRIPT)
    server.wait(job_id, seconds=60)
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "catching up")
    expect(page.get_by_text(re.compile(r"Catching up: [\d,]+ lines to come"))).to_be_visible()
    views.expect_log(page, "complete", seconds=120)
    frames("arriving")
    expect(page.get_by_text(f"[{LINES}]")).to_be_in_viewport()

    log = views.log_text(page)
    log.hover()
    for _ in range(40):
        page.mouse.wheel(0, -700)
        page.wait_for_timeout(16)
    frames("wheel")
    log.focus()
    for _ in range(5):
        page.keyboard.press("Control+Home")
        expect(page.get_by_text("[0000001]")).to_be_in_viewport()
        page.keyboard.press("Control+End")
        expect(page.get_by_text(f"[{LINES}]")).to_be_in_viewport()
    frames("ends")
    scroller = page.locator(".cm-scroller")
    for step in range(40):
        scroller.evaluate("(element, part) => { element.scrollTop = element.scrollHeight * part }", step / 40)
        page.wait_for_timeout(16)
    frames("scroll bar")
    page.get_by_role("searchbox", name="Search the log").fill("module_976/")
    expect(page.locator(".matches")).to_have_text(f"{LINES // 977:,}")
    page.keyboard.press("Enter")
    expect(page.locator(".match.current")).to_be_in_viewport()
    frames("search")

    process, scripts = views.renderer_memory(browser, page)
    print(f"memory: {process / 1e6:.0f} MB of the page's process, {scripts / 1e6:.0f} MB of its scripts")
    assert process < MEMORY
