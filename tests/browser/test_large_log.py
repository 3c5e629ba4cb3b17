"""A log of a million lines: frames stay short and memory stays small."""

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
ATTEMPTS = 5
"""Other load on the machine only adds to the time of a frame, so the best of a few attempts counts."""
MEMORY = 300_000_000
COUNT_FRAMES = """
let last = performance.now()
window.frames_ms = []
const frame = now => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(frame) }
requestAnimationFrame(frame)
"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def smooth(page: Page, record_property: Callable[[str, object], None]) -> Callable[[str, Callable[[], None]], None]:
    """Do something: 95 in 100 frames meanwhile take less than 100 ms."""

    def p95_of(what: str, action: Callable[[], None]) -> float:
        page.evaluate("window.frames_ms?.splice(0)")
        action()
        times = sorted(page.evaluate("window.frames_ms.splice(0)"))
        p50, p95, longest = times[len(times) // 2], times[int(len(times) * 0.95)], times[-1]
        record_property(f"{what}: frames, p50, p95, longest in ms", (len(times), round(p50), round(p95), round(longest)))
        print(f"{what}: {len(times)} frames, p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {longest:.0f} ms")
        return float(p95)

    def check(what: str, action: Callable[[], None]) -> None:
        found: list[float] = []
        while not found or (found[-1] >= FRAME_MS and len(found) < ATTEMPTS):
            found.append(p95_of(what, action))
        assert found[-1] < FRAME_MS, f"{what}: {found}"

    return check


def test_million_lines_keep_frames_short_and_memory_small(
    make_server: Callable[..., RunningServer], page: Page, browser: Browser, smooth: Callable[[str, Callable[[], None]], None]
) -> None:
    server = make_server()
    page.add_init_script(COUNT_FRAMES)
    views.sign_in(page.context, server)
    job_id = server.shell(SCRIPT)
    server.wait(job_id, seconds=60)

    def arrive() -> None:
        page.goto(server.url)
        views.open_job(page, server.url, job_id)
        views.expect_log(page, "catching up")
        expect(page.get_by_text(re.compile(r"Catching up: [\d,]+ lines left"))).to_be_visible()
        views.expect_log(page, "complete", seconds=120)

    def turn_the_wheel() -> None:
        views.log_text(page).hover()
        for _ in range(40):
            page.mouse.wheel(0, -700)
            page.wait_for_timeout(16)

    def jump_to_the_ends() -> None:
        views.log_text(page).focus()
        for _ in range(5):
            page.keyboard.press("Control+Home")
            expect(page.get_by_text("[0000001]")).to_be_in_viewport()
            page.keyboard.press("Control+End")
            expect(page.get_by_text(f"[{LINES}]")).to_be_in_viewport()

    def drag_the_scroll_bar() -> None:
        scroller = page.locator(".cm-scroller")
        for step in range(40):
            scroller.evaluate("(element, part) => { element.scrollTop = element.scrollHeight * part }", step / 40)
            page.wait_for_timeout(16)

    def search() -> None:
        page.get_by_role("searchbox", name="Search the log").fill("module_976/")
        expect(page.locator(".matches")).to_have_text(f"{LINES // 977:,}")
        page.keyboard.press("Enter")
        expect(page.locator(".match.current")).to_be_in_viewport()
        page.get_by_role("searchbox", name="Search the log").fill("")

    smooth("arriving", arrive)
    expect(page.get_by_text(f"[{LINES}]")).to_be_in_viewport()
    smooth("wheel", turn_the_wheel)
    smooth("ends", jump_to_the_ends)
    smooth("scroll bar", drag_the_scroll_bar)
    smooth("search", search)

    process, scripts = views.renderer_memory(browser, page)
    print(f"memory: {process / 1e6:.0f} MB of the page's process, {scripts / 1e6:.0f} MB of its scripts")
    assert process < MEMORY
