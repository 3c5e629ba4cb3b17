"""The Content-Security-Policy of the pages in a real browser: it refuses injected code, and nothing that the pages need."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from support import views
from support.server import RunningServer

NOTE = "window.refused = []; addEventListener('securitypolicyviolation', event => refused.push(event.effectiveDirective))"
ATTEMPTS = {
    "script-src-elem": "const e = document.createElement('script'); e.textContent = 'window.ran = 1'; document.body.append(e)",
    "script-src-attr": "document.body.setAttribute('onclick', 'window.ran = 1'); document.body.click()",
    "script-src": "const e = new MessageChannel(); e.port1.onmessage = () => setTimeout('window.ran = 1'); e.port2.postMessage(0)",
    "style-src-elem": "const e = document.createElement('style'); e.textContent = 'body { opacity: 0 }'; document.head.append(e)",
    "style-src-attr": "document.body.setAttribute('style', 'opacity: 0')",
    "connect-src": "fetch('http://203.0.113.1/').catch(() => {})",
    "img-src": "new Image().src = 'http://203.0.113.1/x.png'",
    "frame-src": "const e = document.createElement('iframe'); e.src = 'http://203.0.113.1/'; document.body.append(e)",
    "base-uri": "const e = document.createElement('base'); e.href = 'http://203.0.113.1/'; document.head.append(e)",
}


def test_all_views_work_under_the_content_security_policy(page: Page, server: RunningServer) -> None:
    job_id = server.shell("echo on")
    server.wait(job_id)
    page.add_init_script(NOTE)
    views.sign_in(page.context, server)
    page.goto(server.url)
    for address in ("#/", f"#/jobs/{job_id}", "#/new/create"):
        page.goto(f"{server.url}/{address}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "complete")
    page.get_by_role("button", name="Wrap").click()
    page.get_by_role("searchbox").fill("on")
    expect(page.locator(".matches")).to_have_text("1")
    assert page.evaluate("refused") == []
    assert page.evaluate("document.querySelectorAll('style, script:not([src])').length") == 0


@pytest.mark.parametrize("directive", ATTEMPTS)
def test_content_security_policy_refuses_injected_code(page: Page, watched: Any, server: RunningServer, directive: str) -> None:
    watched.allowed = ["Content Security Policy", "was not explicitly set", "Failed to load resource"]
    page.add_init_script(NOTE)
    page.goto(server.url)
    expect(page.get_by_label("Token")).to_be_visible()
    page.evaluate(f"() => {{ {ATTEMPTS[directive]} }}")
    page.wait_for_function("refused.length > 0")
    assert page.evaluate("refused") == [directive]
    assert page.evaluate("window.ran") is None
    assert page.evaluate("getComputedStyle(document.body).opacity") == "1"
