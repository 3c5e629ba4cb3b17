"""`make pictures`: the pictures of the page in docs/pictures, of a server of its own with jobs that are worth a look."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from support import views
from support.server import RunningServer, start_server

TARGET = Path(__file__).parents[2] / "docs" / "pictures"
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 800}
EDITOR = "my_company.my_editor"
TASKS = r"""
[tasks.test]
title = "Run the tests of a project"
argv = ["sh", "-c", 'for i in $(seq 1 240); do printf "\033[32mPASS\033[0m tests/test_scene_%03d.py \033[2m%d ms\033[0m\n" $i $((i * 7 % 90 + 4)); done; printf "\033[31mFAIL\033[0m tests/test_undo.py\n  \033[31mAssertionError: expected 3 layers, found 4\033[0m\n\n241 tests, \033[31m1 failed\033[0m\n"; exit 1', "{project}"]
[tasks.test.inputs]
type = "object"
required = ["project"]
additionalProperties = false
properties.project = { type = "string", maxLength = 100 }

[tasks.render]
title = "Render a sequence"
argv = ["sh", "-c", 'for i in $(seq 1 62); do echo "::progress $i frame $i of 100"; printf "\033[36m[%3d/100]\033[0m frame_%04d.exr  \033[2m%d samples\033[0m\n" $i $i 512; done; sleep 600', "render", "{sequence}"]
[tasks.render.inputs]
type = "object"
required = ["sequence"]
additionalProperties = false
properties.sequence = { type = "string", maxLength = 100 }
"""  # noqa: E501


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("There is no Chromium here; Debian's package is `chromium`.", file=sys.stderr)
        return 1
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, server_with_jobs(Path(folder)) as (server, jobs), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        with page_of(browser, server, "light", WIDE) as page:
            page.goto(server.url)
            expect(page.get_by_role("progressbar", name="Progress of task render")).to_have_attribute("aria-valuenow", "62")
            page.screenshot(path=TARGET / "jobs.png")
        with page_of(browser, server, "dark", WIDE) as page:
            views.open_job(page, server.url, jobs["test"])
            views.expect_log(page, "complete")
            page.get_by_role("button", name="First error").click()
            expect(page.get_by_role("img", name="Waited")).to_be_visible()
            page.screenshot(path=TARGET / "log.png")
        with page_of(browser, server, "light", NARROW) as page:
            views.open_job(page, server.url, jobs["render"])
            views.expect_log(page, "live")
            expect(views.log_text(page)).to_contain_text("frame_0062.exr")
            page.screenshot(path=TARGET / "narrow.png")
        browser.close()
    print(f"The pictures are in {TARGET.relative_to(Path.cwd())}.")
    return 0


@contextmanager
def server_with_jobs(folder: Path) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    (folder / "tasks.toml").write_text(TASKS)
    with start_server(folder / "server", tasks=folder / "tasks.toml", slots=2) as server:
        done = [
            {"type": "create", "params": {"template": "small_editor", "name": EDITOR, "display_name": "My Editor"}},
            {"type": "build", "params": {"project": EDITOR, "config": "release"}, "labels": ["nightly"]},
            {"type": "task", "params": {"task": "test", "inputs": {"project": EDITOR}}, "labels": ["nightly", "ci"]},
            {"type": "build", "params": {"project": EDITOR, "rebuild": True}},
        ]
        jobs = {}
        for submission in done:
            job = server.submit(submission)
            jobs[str(submission["params"].get("task", submission["type"]))] = job["id"]  # type: ignore[attr-defined]
            server.wait(job["id"])
        launched = server.submit({"type": "launch", "params": {"app": f"{EDITOR}.kit"}, "labels": ["demo"]})["id"]
        jobs["render"] = server.submit({"type": "task", "params": {"task": "render", "inputs": {"sequence": "opening"}}, "priority": 5})[
            "id"
        ]
        server.submit({"type": "build", "params": {}, "labels": ["nightly"]})  # waits for a slot
        server.wait_for_log(jobs["render"], "frame_0062")
        yield server, jobs
        for job_id in (launched, jobs["render"]):
            server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})


@contextmanager
def page_of(browser: Browser, server: RunningServer, scheme: str, size: dict[str, int]) -> Iterator[Page]:
    context = browser.new_context(color_scheme=scheme, viewport=size, device_scale_factor=1.5, reduced_motion="reduce")  # type: ignore[arg-type]
    views.sign_in(context, server)
    yield context.new_page()
    context.close()


if __name__ == "__main__":
    sys.exit(main())
