"""Swagger UI by clicking alone: enter the token once, submit a job from an example, read its log, cancel it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from support.server import RunningServer, start_server

# The task of the contract's own example, so that the example can be sent as it is.
LINT = """
[tasks.lint]
title = "Lint a folder"
argv = ["sh", "-c", "echo looking; sleep 60", "lint", "{path}"]
pty = false
[tasks.lint.inputs]
type = "object"
required = ["path"]
additionalProperties = false
properties.path = { type = "string", maxLength = 200 }
"""
SUBMIT = "#operations-jobs-submit_job"


@pytest.fixture(scope="module")
def linting(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningServer]:
    """`browser` comes first, because what it starts is still there when the server is."""
    folder = tmp_path_factory.mktemp("linting")
    (folder / "tasks.toml").write_text(LINT)
    with start_server(folder, tasks=folder / "tasks.toml") as running:
        yield running


@pytest.fixture
def swagger(page: Page, linting: RunningServer) -> Page:
    page.goto(f"{linting.url}/api/docs")
    expect(page.locator(SUBMIT)).to_be_visible()
    return page


def authorise(page: Page, token: str) -> None:
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(token)
    page.get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()


class Operation:
    """One call of the page, opened."""

    def __init__(self, page: Page, tag: str, name: str) -> None:
        self.box = page.locator(f"#operations-{tag}-{name}")
        self.box.locator(".opblock-summary-control").click()

    def execute(self, **parameters: str) -> tuple[int, dict[str, Any]]:
        """Fill in the parameters, press *Execute*; the answer as the page shows it."""
        for name, value in parameters.items():
            self.box.locator(f'[data-param-name="{name}"] input').fill(value)
        self.box.get_by_role("button", name="Execute").click()
        answer = self.box.locator(".live-responses-table tbody .response").first
        code = int(answer.locator(".response-col_status").inner_text().split()[0])
        return code, json.loads(self._body(answer))

    def _body(self, answer: Locator) -> str:
        shown = answer.locator(".highlight-code .microlight, .highlight-code code").first
        expect(shown).to_be_visible()
        return shown.inner_text()


def test_job_can_be_submitted_read_and_cancelled_by_clicking(swagger: Page, linting: RunningServer) -> None:
    authorise(swagger, linting.token)
    swagger.reload()
    expect(swagger.locator(SUBMIT)).to_be_visible()

    submit = Operation(swagger, "jobs", "submit_job")
    submit.box.locator(".opblock-section-request-body .examples-select select").select_option(label="Run an operator's task")
    code, job = submit.execute()
    assert code == 202
    assert (job["type"], job["submitted_by"]) == ("task", "admin")

    linting.wait_for_log(job["id"], "looking")
    code, again = Operation(swagger, "jobs", "get_job").execute(job_id=job["id"])
    assert (code, again["id"], again["status"]) == (200, job["id"], "running")
    code, log = Operation(swagger, "logs", "get_job_log").execute(job_id=job["id"])
    assert (code, [line["text"] for line in log["lines"]]) == (200, ["looking"])

    code, cancelled = Operation(swagger, "jobs", "cancel_job").execute(job_id=job["id"])
    assert code == 202
    assert cancelled["cancel_requested_at"] is not None
    assert linting.wait(job["id"])["status"] == "cancelled"


def test_token_is_shared_by_all_pages_of_one_session(
    swagger: Page, linting: RunningServer, new_context: Callable[..., BrowserContext]
) -> None:
    authorise(swagger, linting.token)
    assert swagger.evaluate("[sessionStorage.getItem('runcast.token'), JSON.stringify(localStorage)]") == [linting.token, "{}"]
    swagger.get_by_role("link", name="Events", exact=True).click()
    expect(swagger.get_by_role("status")).to_contain_text("Connected")

    swagger.get_by_role("button", name="Forget the token").click()
    swagger.get_by_role("link", name="API", exact=True).click()
    swagger.get_by_role("button", name="Authorize").first.click()
    expect(swagger.get_by_label("auth-bearer-value")).to_be_editable()

    other = new_context().new_page()
    other.goto(f"{linting.url}/api/docs")
    other.get_by_role("button", name="Authorize").first.click()
    expect(other.get_by_label("auth-bearer-value")).to_be_editable()


def test_logout_in_swagger_forgets_the_token(swagger: Page, linting: RunningServer) -> None:
    authorise(swagger, linting.token)
    swagger.get_by_role("button", name="Authorize").first.click()
    swagger.get_by_role("button", name="Remove authorization").click()
    assert swagger.evaluate("sessionStorage.getItem('runcast.token')") is None


def test_swagger_page_follows_the_chosen_theme(new_context: Callable[..., BrowserContext], linting: RunningServer) -> None:
    page = new_context(color_scheme="dark").new_page()
    page.goto(f"{linting.url}/api/docs")
    expect(page.locator(SUBMIT)).to_be_visible()
    background = "getComputedStyle(document.querySelector('.swagger-ui .scheme-container')).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Theme").click()
    expect(page.locator("html")).not_to_have_class("dark-mode")
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme").click()
    expect(page.locator("html")).to_have_class("dark-mode")
    page.reload()
    expect(page.locator(SUBMIT)).to_be_visible()
    assert page.evaluate(background) == dark != light


def test_swagger_page_loads_files_from_its_own_server_only(swagger: Page, linting: RunningServer, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator(SUBMIT)).to_be_visible()
    assert asked
    assert [url for url in asked if not url.startswith(f"{linting.url}/")] == []
