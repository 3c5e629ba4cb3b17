"""The console for events: connect, subscribe, lost connections, invalid events, hostile text, and the contract beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from support import views
from support.server import RunningServer
from support.waiting import eventually
from support.watched import Watched

AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"
LINES = re.compile(r"^(?:(?P<count>\d+) lines: )?.* first_seq: (?P<first>\d+) ")


class Console:
    """The page as a person uses it."""

    def __init__(self, page: Page, server: RunningServer) -> None:
        self.page = page
        self.server = server
        page.goto(f"{server.url}/api/docs/events")
        expect(page.get_by_role("heading", name="Live events")).to_be_visible()

    @property
    def state(self) -> Locator:
        return self.page.locator(".connection").get_by_role("status")

    @property
    def contract(self) -> Locator:
        return self.page.get_by_role("region", name="Events contract")

    def connect(self, token: str | None = None) -> None:
        self.page.get_by_label("Token", exact=True).fill(token or self.server.token)
        self.page.get_by_role("button", name="Connect", exact=True).click()

    def connected(self) -> Console:
        self.connect()
        expect(self.state).to_have_text("Connected by WebSocket")
        return self

    def subscribe(self, job_id: str) -> None:
        self.page.get_by_role("combobox", name="Job").fill(job_id)
        self.page.get_by_role("button", name="Subscribe", exact=True).click()

    def entries(self, name: str) -> Locator:
        return self.page.locator(".entries > ol > li").filter(has=self.page.locator(f".name:text-is('{name}')"))

    def payload(self, entry: Locator) -> object:
        entry.locator("summary").click()
        return json.loads(entry.get_by_label("Payload").inner_text())

    def filter(self, name: str) -> Locator:
        return self.page.get_by_role("checkbox", name=re.compile(rf"^{name}\b"))


@pytest.fixture
def console(page: Page, server: RunningServer) -> Console:
    return Console(page, server)


def test_each_event_of_a_subscription_is_shown_and_validated(console: Console, server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    console.connected()
    console.page.get_by_role("button", name="Subscribe to all jobs").click()
    expect(console.entries("subscribe_ack")).to_have_count(1)
    job_id = server.shell(f"echo one; echo '::progress 40 linking'; while [ ! -e {gate} ]; do sleep 0.01; done; echo two; exit 3")
    console.subscribe(job_id)
    expect(console.page.get_by_label("Subscribed").get_by_text(job_id)).to_be_visible()
    expect(console.entries("log")).to_have_count(1)
    gate.touch()

    expect(console.entries("complete")).to_have_count(1)
    expect(console.entries("log")).to_have_count(2)
    assert console.payload(console.entries("subscribe").last) == {"job_id": job_id, "after_seq": 0}
    acknowledged = console.payload(console.entries("subscribe_ack").last)
    assert isinstance(acknowledged, dict)
    assert (acknowledged["ok"], acknowledged["job"]["id"], acknowledged["next_seq"]) == (True, job_id, 1)
    lines = console.payload(console.entries("log").last)
    assert isinstance(lines, dict)
    assert (lines["job_id"], lines["first_seq"], lines["lines"]) == (job_id, 2, ["two"])
    end = console.payload(console.entries("complete"))
    assert isinstance(end, dict)
    assert (end["status"], end["exit_code"], end["log_lines"]) == ("failed", 3, 2)
    for name in ("connect", "subscribe", "subscribe_ack", "log", "progress", "status", "error", "complete"):
        assert set(console.entries(name).locator(".verdict").all_inner_texts()) == {"✓ valid"}, name
    expect(console.page.get_by_text(re.compile(r"recorded, 0 invalid"))).to_be_visible()
    expect(console.page.get_by_label("Subscribed").get_by_text(re.compile("ended, line 2"))).to_be_visible()


def test_token_is_never_shown_and_kept_for_the_session(console: Console, server: RunningServer) -> None:
    console.connected()
    assert console.payload(console.entries("connect")) == {"token": "•••"}
    assert server.token not in console.page.content()
    console.page.reload()
    expect(console.state).to_have_text("Connected by WebSocket")
    console.page.get_by_role("button", name="Forget the token").click()
    expect(console.state).to_have_text("Not connected")
    console.page.reload()
    expect(console.state).to_have_text("Not connected")
    assert console.page.get_by_label("Token", exact=True).input_value() == ""


def test_refused_connection_shows_the_reason_and_can_be_retried(console: Console) -> None:
    console.connect("rc_not_a_token")
    expect(console.state).to_contain_text("Refused: The token is not known")
    refused = console.payload(console.entries("connect_error"))
    assert isinstance(refused, dict)
    assert refused["data"]["type"] == "urn:runcast:problem:unauthenticated"
    expect(console.entries("connect_error").locator(".verdict")).to_have_text("✓ valid")
    console.connected()


def test_refused_subscription_is_not_listed(console: Console) -> None:
    console.connected()
    console.subscribe("019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e12")
    expect(console.entries("subscribe_ack").locator(".gist")).to_contain_text("ok: false")
    expect(console.page.get_by_label("Subscribed")).to_have_count(0)


def test_address_preselects_job_and_unsubscribe_ends_subscription(console: Console, server: RunningServer) -> None:
    job_id = server.shell("echo one; sleep 60")
    console.connected()
    console.page.goto(f"{server.url}/api/docs/events?job={job_id}")
    expect(console.state).to_have_text("Connected by WebSocket")
    expect(console.page.get_by_role("combobox", name="Job")).to_have_value(job_id)
    console.page.get_by_role("button", name="Subscribe", exact=True).click()
    expect(console.entries("log")).to_have_count(1)

    console.page.get_by_role("button", name=f"Unsubscribe from {job_id}").click()
    expect(console.entries("unsubscribe_ack").locator(".verdict")).to_have_text("✓ valid")
    assert console.payload(console.entries("unsubscribe_ack")) == {"ok": True}
    expect(console.page.get_by_label("Subscribed")).to_have_count(0)
    console.page.get_by_role("button", name="Subscribe to all jobs").click()
    expect(console.page.get_by_label("Subscribed")).to_contain_text("subscribed")
    server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    expect(console.entries("status").last).to_contain_text("status: cancelled")
    assert console.entries("complete").count() == 0


def test_events_that_break_the_contract_are_marked_and_explained(page: Page, server: RunningServer) -> None:
    """The server sends no such event; so it is falsified on its way."""

    def falsify(route: WebSocketRoute) -> None:
        to_server = route.connect_to_server()
        to_server.on_message(lambda message: route.send(falsified(str(message))))

    def falsified(message: str) -> str:
        return message.replace('"percent":40', '"percent":940').replace('["status",', '["state",')

    page.route_web_socket("**/socket.io/**", falsify)
    console = Console(page, server).connected()
    console.page.get_by_role("button", name="Subscribe to all jobs").click()
    expect(console.entries("subscribe_ack")).to_have_count(1)
    server.wait(server.shell("echo '::progress 40 linking'"))
    server.wait(server.shell("echo '::progress 60 packing'"))

    wrong = console.entries("progress").filter(has_text="linking")
    expect(wrong.first.locator(".verdict")).to_have_text("✗ invalid")
    expect(wrong.first.locator(".violations")).to_have_text("#/percent 940 is greater than 100.")
    expect(console.entries("progress").filter(has_text="packing").last.locator(".verdict")).to_have_text("✓ valid")
    expect(console.entries("state").last).to_contain_text("completed")
    expect(console.entries("state").first.locator(".violations")).to_have_text("# The contract has no message state.")
    unknown = console.entries("state").count()
    page.get_by_role("checkbox", name="only invalid").check()
    expect(page.locator(".entries > ol > li")).to_have_count(wrong.count() + unknown)


def test_record_can_be_paused_filtered_and_cleared(console: Console, server: RunningServer) -> None:
    console.connected()
    console.subscribe(server.shell("echo one"))
    expect(console.entries("complete")).to_have_count(1)

    console.filter("log").uncheck()
    expect(console.entries("log")).to_have_count(0)
    expect(console.entries("complete")).to_have_count(1)
    console.filter("log").check()
    expect(console.entries("log")).to_have_count(1)

    pause = console.page.get_by_role("button", name="Pause")
    pause.click()
    console.subscribe(server.shell("echo two"))
    expect(console.page.get_by_label("Subscribed").get_by_text(re.compile("ended"))).to_have_count(2)
    expect(console.page.get_by_text(re.compile(r"[1-9]\d* waiting"))).to_be_visible()
    assert console.entries("complete").count() == 1
    console.page.get_by_role("button", name="Resume").click()
    expect(console.entries("complete")).to_have_count(2)
    assert console.payload(console.entries("log").last)["lines"] == ["two"]  # type: ignore[index]

    console.page.get_by_role("button", name="Clear").click()
    expect(console.page.get_by_text(re.compile("^0 recorded"))).to_be_visible()
    expect(console.page.locator(".entries")).to_have_count(0)


def test_lost_connection_is_shown_and_log_resumes_after_last_line(
    page: Page, make_server: Callable[..., RunningServer], watched: Watched, tmp_path: Path
) -> None:
    # The page may try to connect while the killed process is being replaced: by WebSocket, then by long-polling.
    watched.allowed += ["WebSocket connection to", "net::ERR_CONNECTION_REFUSED"]
    gate = tmp_path / "gate"
    server = make_server()
    console = Console(page, server).connected()
    job_id = server.shell(f"seq 1 500; while [ ! -e {gate} ]; do sleep 0.01; done; seq 501 1000")
    console.subscribe(job_id)
    subscribed = page.get_by_label("Subscribed")
    expect(subscribed).to_contain_text("subscribed, line 500")
    for process in server.part("api").children():
        process.kill()
    expect(page.locator(".entries .own").filter(has_text="disconnected")).to_have_count(1)
    gate.touch()
    expect(subscribed).to_contain_text("ended, line 1000", timeout=30_000)
    expect(console.state).to_have_text("Connected by WebSocket")
    expect(page.locator(".entries .own").filter(has=page.locator(".name:text-is('connected')"))).to_have_count(2)
    assert console.payload(console.entries("subscribe").last) == {"job_id": job_id, "after_seq": 500}
    assert numbers(console) == list(range(1, 1001))
    eventually(lambda: server.call("GET", "/health/ready").ok, "the API is back")


def test_revoked_token_is_reported(console: Console, server: RunningServer) -> None:
    made = server.call("POST", "/tokens", json={"name": "for-a-moment", "scopes": ["jobs:read"]}).json()
    console.connect(made["token"])
    expect(console.state).to_have_text("Connected by WebSocket")
    console.page.get_by_role("button", name="Subscribe to all jobs").click()
    expect(console.page.get_by_label("Subscribed")).to_contain_text("subscribed")
    assert server.call("DELETE", f"/tokens/{made['id']}").status_code == 204

    expect(console.state).to_have_text("The server closed the connection.", timeout=15_000)
    expect(console.page.get_by_label("Subscribed")).to_contain_text("subscribes again when connected")
    expect(console.entries("error").locator(".verdict")).to_have_text("✓ valid")
    console.connected()
    expect(console.page.get_by_label("Subscribed").locator("li")).to_have_class("on")


def test_job_page_links_to_its_events(page: Page, server: RunningServer) -> None:
    job_id = server.shell("echo one")
    views.sign_in(page.context, server)
    views.open_job(page, server.url, job_id)
    page.get_by_role("link", name="Show in the event console").click()
    expect(page.get_by_role("combobox", name="Job")).to_have_value(job_id)
    page.get_by_role("button", name="Subscribe", exact=True).click()
    expect(page.locator(".entries .name:text-is('complete')")).to_be_visible()


def test_record_is_bounded_and_reports_dropped_events(console: Console, server: RunningServer) -> None:
    job_id = server.shell("echo one")
    server.wait(job_id)
    console.connected()
    console.subscribe(job_id)
    expect(console.entries("complete")).to_have_count(1)
    again = "for (let i = 0; i < 600; i++) document.querySelector('.row button.primary').click()"
    console.page.evaluate(again)  # each is recorded, and its answer; the log is sent to those that no newer one has taken the place of

    def bounded() -> bool:
        totals = console.page.locator(".totals").inner_text()
        gone = re.search(r"The oldest (\d+) events are no longer kept here\.", console.page.locator(".record").inner_text())
        recorded = re.match(r"(\d+) recorded, 0 invalid", totals)
        return gone is not None and recorded is not None and int(recorded[1]) == 1000 + int(gone[1]) >= 1200

    eventually(bounded, "1,000 of the more than 1,200 are kept", seconds=20)
    expect(console.page.locator(".entries > ol > li")).to_have_count(1000)


def numbers(console: Console) -> list[int]:
    """The numbers of all lines that came, from what the entries say of them."""
    found: list[int] = []
    for gist in console.entries("log").locator(".gist").all_inner_texts():
        match = LINES.match(gist)
        assert match, gist
        first = int(match["first"])
        found += range(first, first + int(match["count"] or 1))
    return found


def test_hostile_text_is_shown_as_text(console: Console, server: RunningServer) -> None:
    console.connected()
    text = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    console.subscribe(server.shell(f"printf '%s\\n\\033]0;title\\007 \\342\\200\\256sdrawkcab\\n' '{text}'"))
    expect(console.entries("complete")).to_have_count(1)
    entry = console.entries("log").first
    entry.locator("summary").click()
    shown = entry.get_by_label("Payload").inner_text()
    assert json.loads(shown)["lines"] == [text, "\x1b]0;title\x07 \u202esdrawkcab"]
    assert r"\u202esdrawkcab" in shown
    assert "\u202e" not in console.page.content()
    assert console.page.locator(".record").locator("img, script, a").count() == 0
    assert console.page.title() == "runcast events"


def test_event_console_can_be_used_by_keyboard_alone(console: Console, server: RunningServer) -> None:
    keyboard = console.page.keyboard
    console.page.get_by_label("Token", exact=True).focus()
    keyboard.type(server.token)
    keyboard.press("Enter")
    expect(console.state).to_have_text("Connected by WebSocket")
    reach(console.page, "Job")
    keyboard.type(server.shell("echo one"))
    keyboard.press("Enter")
    expect(console.entries("complete")).to_have_count(1)
    reach(console.page, "Recorded events, oldest first")
    for _ in range(console.page.locator(".entries summary").count()):
        keyboard.press("Tab")
    keyboard.press("Enter")
    expect(console.entries("complete").get_by_label("Payload")).to_be_visible()


def reach(page: Page, label: str) -> None:
    """Press Tab until the element with this label has the focus."""
    wanted = page.get_by_label(label, exact=True)
    for _ in range(40):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {label}")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_event_console_has_no_serious_axe_violations(
    new_context: Callable[..., BrowserContext], server: RunningServer, colours: str, width: int
) -> None:
    page = new_context(color_scheme=colours, viewport={"width": width, "height": 900}).new_page()
    console = Console(page, server)
    expect(page.locator(".contract h3").first).to_be_visible()
    assert serious(page) == []
    console.connected()
    console.subscribe(server.shell("echo one; exit 3"))
    expect(console.entries("complete")).to_have_count(1)
    console.entries("log").locator("summary").click()
    page.locator(".contract").get_by_text("Python", exact=True).click()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the page"


def serious(page: Page) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_contract_shows_every_event_with_fields_and_examples(console: Console, server: RunningServer) -> None:
    contract = console.contract
    document = server.call("GET", "/asyncapi.json").json()
    headings = contract.get_by_role("heading", level=3)
    for name, operation in document["operations"].items():
        direction = {"receive": "client → server", "send": "server → client"}[operation["action"]]
        expect(headings.filter(has_text=re.compile(rf"^{name}\s*{direction}$"))).to_have_count(1)
        expect(contract.get_by_text(operation["summary"], exact=True)).to_be_visible()
    shown = contract.locator("pre").all_inner_texts()
    for message in document["components"]["messages"].values():
        for example in message.get("examples", ()):
            assert json.dumps(example["payload"], indent=2, ensure_ascii=False) in shown
    fields = set(contract.get_by_role("rowheader").locator("code").all_inner_texts())
    assert {"after_seq", "first_seq", "duration_seconds", "log.dropped_lines"} <= fields
    log = contract.locator("#event-log ~ table")
    expect(log.get_by_text("The lines without their line ends")).to_be_visible()


def test_a_link_to_an_event_shows_its_description(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/api/docs/events#event-complete")
    expect(page.locator("#event-complete")).to_be_in_viewport()


def test_contract_shows_types_with_their_bounds(console: Console) -> None:
    contract = console.contract

    def type_of(event: str, field: str) -> Locator:
        name = console.page.get_by_role("rowheader", name=field, exact=True)
        return contract.locator(f"#event-{event} ~ table").get_by_role("row").filter(has=name).get_by_role("cell").first

    expect(type_of("log", "lines")).to_have_text("array of string, at most 65536 characters, at least 1 item, at most 65536 items")
    expect(type_of("progress", "percent")).to_have_text("number, 0 to 100 or null")
    expect(type_of("subscribe", "after_seq optional")).to_contain_text("0 when absent")
    expect(contract.get_by_role("link", name="Job", exact=True).first).to_have_attribute("href", "#type-Job")
    expect(contract.locator("h3[id^=type-]").filter(has_text=re.compile("^(Job|Problem|InputError)$"))).to_have_count(3)


def test_every_link_within_the_contract_leads_somewhere(console: Console) -> None:
    expect(console.contract.locator("#types")).to_be_visible()
    links = "[...document.querySelectorAll('.contract a')].map(link => link.getAttribute('href'))"
    broken = f"{links}.filter(href => href.startsWith('#') && !document.getElementById(href.slice(1)))"
    assert len(console.page.evaluate(links)) > 20
    assert console.page.evaluate(broken) == []


def test_text_of_the_contract_is_escaped(page: Page, server: RunningServer) -> None:
    """No contract of ours holds such texts, so they are put in on the way."""
    document = server.call("GET", "/asyncapi.json").json()
    document["info"]["description"] = "<script>document.title=1</script> [x](javascript:document.title=2)"
    document["operations"]["log"]["summary"] = "<img src=x onerror=document.title=3>"
    document["components"]["messages"]["log"]["examples"][0]["payload"]["lines"] = ["</code><script>document.title=4</script>"]
    document["servers"]["this"]["host"] = '"><script>document.title=5</script>'
    page.route("**/api/asyncapi.json", lambda route: route.fulfill(json=document))
    contract = Console(page, server).contract
    expect(contract.get_by_text("<img src=x onerror=document.title=3>")).to_be_visible()
    expect(contract.get_by_text("<script>document.title=1</script>")).to_be_visible()
    assert contract.locator("script, img, a[href^=javascript]").count() == 0
    assert page.title() == "runcast events"


def test_programs_name_the_server_that_was_asked(page: Page, server: RunningServer) -> None:
    document = server.call("GET", "/asyncapi.json").json()
    document["servers"]["this"] |= {"protocol": "wss", "host": "jobs.example.com", "pathname": "/runcast/socket.io"}
    page.route("**/api/asyncapi.json", lambda route: route.fulfill(json=document))
    contract = Console(page, server).contract
    for language, call in {
        "JavaScript": "io('https://jobs.example.com', { path: '/runcast/socket.io', auth: { token } })",
        "Python": 'client.connect("https://jobs.example.com", auth={"token": token}, socketio_path="/runcast/socket.io")',
    }.items():
        contract.get_by_text(language, exact=True).click()
        expect(contract.locator("details").filter(has_text=language).locator("pre")).to_contain_text(call)
