"""The page's views as a person finds them: by names and roles, never by how they are made."""

from __future__ import annotations

import psutil
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from support.server import RunningServer


def sign_in(context: BrowserContext, server: RunningServer) -> None:
    """As one who has given the token in this session already."""
    context.add_init_script(f"if (location.protocol !== 'about:') sessionStorage.setItem('runcast.token', '{server.token}')")


def open_job(page: Page, url: str, job_id: str) -> None:
    page.goto(f"{url}/#/jobs/{job_id}")


def log_text(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Log")


def log_status(page: Page) -> Locator:
    return page.get_by_role("region", name="Log").get_by_role("status").filter(has_text="Log:")


def whole_log(page: Page) -> list[str]:
    """All lines, also those that are not drawn: selected and copied."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    log_text(page).focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+c")
    return str(page.evaluate("navigator.clipboard.readText()")).split("\n")


def expect_log(page: Page, state: str, *, seconds: float = 15) -> None:
    expect(log_status(page)).to_have_text(f"Log: {state}", timeout=seconds * 1000)


def renderer_memory(browser: Browser, page: Page) -> tuple[int, int]:
    """Bytes that the page's process has to itself, and bytes that its scripts hold, once what they let go is collected."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.collectGarbage")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [psutil.Process(int(process["id"])).memory_full_info().uss for process in processes if process["type"] == "renderer"]
    return max(sizes), int(metrics["JSHeapUsedSize"])
