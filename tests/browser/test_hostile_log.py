"""The output of a job is shown as text: it cannot inject markup, scripts or terminal control, or change the direction of other text."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from support import views
from support.server import RunningServer

HOSTILE = {
    "markup": "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>",
    "link": "javascript:alert(1) <a href=\"javascript:document.title='owned'\">x</a>",
    "template": "{{constructor.constructor('document.title=1')()}} ${document.title='owned'}",
    "title": "\x1b]0;owned\x07after the title",
    "hyperlink": "\x1b]8;;javascript:alert(1)\x1b\\linked\x1b]8;;\x1b\\ after",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07after the clipboard",
    "cursor": "first\x1b[2J\x1b[H\x1b[10A\x1b[1000Dsecond",
    "device": "\x1bP1;2|payload\x1b\\after the device",
    "colour": "\x1b[31mred\x1b[0m and \x1b[38;2;1;2;3;4;5mstrange\x1b[999m\x1b[0m end",
    "unfinished": "before\x1b[38;5",
    "null": "nul\x00 bell\x07 back\x08 del\x7f csi\x9b31m",
    "bidi": "access granted \u202eresu\u202c \u2066isolated\u2069 \u200emark\u200f",
    "separators": "line\u2028paragraph\u2029form\x0cvertical\x0bend",
    "combining": "Z" + "\u0300" * 300,
}


def test_hostile_log_lines_are_shown_as_text(page: Page, server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "hostile").write_bytes("\n".join(f"{name}: {line}" for name, line in HOSTILE.items()).encode() + b"\n")
    job_id = server.shell(f"cat '{tmp_path / 'hostile'}'")
    server.wait(job_id)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: requests.append("dialog"))
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "complete")
    shown = dict(line.split(": ", 1) for line in views.whole_log(page))
    for name in ("markup", "link", "template", "bidi", "separators", "combining"):
        expected = HOSTILE[name].replace("\x0c", "\u240c").replace("\x0b", "\u240b")
        assert shown[name] == expected, "as it is, as text"
    assert shown["title"] == "after the title"
    assert shown["hyperlink"] == "linked after"
    assert shown["clipboard"] == "after the clipboard"
    assert shown["cursor"] == "firstsecond"
    assert shown["device"] == "after the device"
    assert shown["colour"] == "red and strange end"
    assert shown["unfinished"] == "before"
    assert shown["null"] == "nul\u2400 bell back\u2408 del\u2421 csi"

    log = views.log_text(page)
    assert log.locator("img:not(.cm-widgetBuffer), script, a, b, iframe").count() == 0
    assert not page.title().startswith("owned")
    assert all(url.startswith((server.url, server.url.replace("http", "ws"))) for url in requests), requests
    # Characters that turn the direction of a text do not, and are seen.
    expect(log.locator(".cm-specialChar")).to_have_count(
        len(re.findall("[\u2028-\u202e\u2066-\u2069\u200e\u200f]", "".join(HOSTILE.values())))
    )
    red = log.get_by_text("red", exact=True)
    assert red.get_attribute("class") == "a-f1"


def test_hostile_input_and_progress_are_shown_as_text(page: Page, server: RunningServer) -> None:
    markup = "<img src=x onerror=document.title=1>"
    job_id = server.shell(f"# {markup}\necho '::progress 40 {markup}'; sleep 0.2; echo '::result {{\"url\": \"javascript:alert(1)\"}}'")
    server.wait(job_id)
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "complete")
    expect(page.get_by_text(markup).first).to_be_visible()
    page.get_by_text("Result", exact=True).click()
    expect(page.get_by_label("Result")).to_contain_text("javascript:alert(1)")
    assert page.locator("main img").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    page.goto(server.url)
    expect(page.get_by_role("list", name="Jobs")).to_be_visible()
    assert page.locator("main img").count() == 0
