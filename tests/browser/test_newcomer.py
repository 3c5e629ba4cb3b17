"""The first steps of a new user: sign in, create a project, build it, launch it, cancel it, run it again, delete it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from support import views
from support.server import RunningServer

pytestmark = pytest.mark.timeout(120)


def status(page: Page) -> Any:
    return page.locator(".job-state").get_by_role("status")


def choose(page: Page, title: str) -> None:
    page.get_by_role("link", name="New job").click()
    page.get_by_role("navigation", name="Job types").get_by_role("link", name=title).click()


def test_newcomer_signs_in_creates_builds_launches_and_deletes(make_server: Callable[..., RunningServer], page: Page, watched: Any) -> None:
    server = make_server()
    watched.allowed = ["401 (UNAUTHORIZED)", "400 (BAD REQUEST)"]
    page.goto(server.url)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("The token is not known")
    page.get_by_label("Token").fill(server.token)
    page.keyboard.press("Enter")
    expect(page.get_by_text("No jobs yet.")).to_be_visible()

    choose(page, "Create")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_have_text(["is required", "is required"])
    page.get_by_label("Template").select_option(label="Small editor (small_editor)")
    page.get_by_label("Name", exact=True).fill("not a name")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_have_text(["does not have the required format"])
    page.get_by_label("Name", exact=True).fill("my_company.my_editor")
    page.get_by_text("More options: priority, labels, limits").click()
    page.get_by_label("Priority").fill("3")
    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("create my_company.my_editor")
    expect(status(page)).to_have_text("completed", timeout=30_000)
    views.expect_log(page, "complete")
    assert any("my_company.my_editor" in line for line in views.whole_log(page))
    (created,) = server.call("GET", "/jobs").json()["jobs"]
    assert created["priority"] == 3

    page.get_by_role("link", name="Jobs", exact=True).first.click()
    choose(page, "Launch")
    page.get_by_label("App").fill("my_company.my_editor.kit")
    page.get_by_role("button", name="Submit").click()  # it is not built yet
    expect(page.get_by_role("alert").or_(status(page).filter(has_text="failed")).first).to_be_visible(timeout=30_000)

    page.get_by_role("link", name="runcast").click()
    choose(page, "Build")
    page.get_by_label("Project").fill("my_company.my_editor")
    page.get_by_role("button", name="Submit").click()
    expect(status(page)).to_have_text("completed", timeout=30_000)

    page.get_by_role("link", name="runcast").click()
    choose(page, "Launch")
    page.get_by_label("App").fill("my_company.my_editor.kit")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("link", name=re.compile("^Open http"))).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Keep the job").click()
    expect(status(page)).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(status(page)).to_have_text("cancelled", timeout=30_000)
    expect(page.get_by_role("img", name=re.compile(r"^Waited .+, ran .+\.$"))).to_be_visible()

    cancelled = page.url
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Run again").click()
    page.wait_for_url(lambda url: url != cancelled)
    expect(status(page)).to_have_text("running", timeout=30_000)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1, name="Jobs")).to_be_visible()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem")).to_have_count(len(server.call("GET", "/jobs").json()["jobs"]))


def test_job_list_follows_changes_and_can_be_filtered(make_server: Callable[..., RunningServer], page: Page, tmp_path: Any) -> None:
    server = make_server(slots=1)
    gate = tmp_path / "gate"
    views.sign_in(page.context, server)
    page.goto(server.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    script = f"echo '::progress 40 linking'; while [ ! -e '{gate}' ]; do sleep 0.01; done; exit 1"
    server.shell(script, labels=["nightly"])
    row = page.get_by_role("listitem").filter(has_text="shell")
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
    expect(row).to_contain_text("linking")
    second = server.shell("echo second")
    expect(page.get_by_text("waiting for a free slot")).to_be_visible()
    expect(page.locator(".overview summary")).to_contain_text("1 of 1 slot busy")
    gate.touch()
    server.wait(second)
    expect(page.get_by_role("listitem").filter(has_text="exit code 1")).to_be_visible()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem")).to_have_count(2)
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem")).to_have_count(1)
    page.get_by_label("Labels").fill("other")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No jobs match the filters.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No jobs match the filters.")).to_be_visible()  # the filters are in the address
    page.get_by_role("link", name="Clear filters").click()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem")).to_have_count(2)
    page.get_by_text("Workers", exact=True).click()
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(2)


def test_token_is_kept_until_the_tab_is_closed(page: Page, server: RunningServer) -> None:
    """The token goes with the session: another tab has to ask again, a reload does not."""
    page.goto(server.url)
    page.get_by_label("Token").fill(server.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    other = page.context.new_page()
    other.goto(server.url)
    expect(other.get_by_label("Token")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


def test_read_only_token_sees_no_write_actions_and_revoked_token_signs_out(page: Page, watched: Any, server: RunningServer) -> None:
    watched.allowed = ["401 (UNAUTHORIZED)"]
    job_id = server.shell("sleep 30")
    token = server.call("POST", "/tokens", json={"name": "looks", "scopes": ["jobs:read"]}).json()
    page.goto(server.url)
    page.get_by_label("Token").fill(token["token"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    views.open_job(page, server.url, job_id)
    views.expect_log(page, "live")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert server.call("DELETE", f"/tokens/{token['id']}").status_code == 204
    expect(page.get_by_role("alert")).to_be_visible()  # it says why
    expect(page.get_by_label("Token")).to_be_visible()
    server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    server.wait(job_id)
