"""A foreign page in a real browser, which even knows the token: whatever a page can send, it reaches nothing and learns nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chaos.attacks.row import Attack, Row, Target

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FOREIGN = "evil.example"
"""A name that the browser takes for this machine: what a page of DNS rebinding has."""
SECONDS = 10

# Each is the body of an async function of (server, token, job) in a page; it says "refused", or what it got. What it may have sent without
# hearing an answer is seen by the state of the service.
TRIES = {
    "a form as text/plain": """
        const about = {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: JSON.stringify(job)};
        return await fetch(`${server}/api/jobs/submit`, about).then(answer => answer.type, () => 'refused')""",
    "JSON with the token": """
        const headers = {'Content-Type': 'application/json', Authorization: `Bearer ${token}`};
        const about = {method: 'POST', headers, body: JSON.stringify(job)};
        return await fetch(`${server}/api/jobs/submit`, about).then(answer => answer.text(), () => 'refused')""",
    "a read with a user's credentials": """
        return await fetch(`${server}/api/jobs`, {credentials: 'include'}).then(answer => answer.text(), () => 'refused')""",
    "a read with the token": """
        const headers = {Authorization: `Bearer ${token}`};
        return await fetch(`${server}/api/jobs`, {headers}).then(answer => answer.text(), () => 'refused')""",
    "a read that needs no token": """
        return await fetch(`${server}/api/health/live`).then(answer => answer.text(), () => 'refused')""",
    "a read of which nothing is told": """
        return await fetch(`${server}/api/openapi.json`, {mode: 'no-cors'}).then(answer => answer.type, () => 'refused')""",
    "a deletion with the token": """
        const about = {method: 'DELETE', headers: {Authorization: `Bearer ${token}`}};
        const address = `${server}/api/jobs/019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11`;
        return await fetch(address, about).then(answer => answer.text(), () => 'refused')""",
    "a beacon": """
        navigator.sendBeacon(`${server}/api/jobs/submit`, new Blob([JSON.stringify(job)], {type: 'text/plain'}));
        return 'refused'""",
    "a form in a frame": """
        document.body.innerHTML = `<iframe name=f></iframe><form id=g method=post target=f enctype=text/plain
          action="${server}/api/jobs/submit"><input name='${JSON.stringify(job)}' value=x></form>`;
        const loaded = new Promise(resolve => { document.querySelector('iframe').onload = resolve });
        document.getElementById('g').submit();
        await loaded;
        return 'refused'""",
    "a script from the API": """
        return await new Promise(resolve => {
          const script = document.createElement('script');
          Object.assign(script, {src: `${server}/api/openapi.json`, onload: () => resolve('loaded'), onerror: () => resolve('refused')});
          document.body.append(script);
        })""",
    "a WebSocket": """
        return await new Promise(resolve => {
          const socket = new WebSocket(`${server.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
          socket.onopen = () => { socket.close(); resolve('open') };
          socket.onerror = () => resolve('refused');
        })""",
    "a long poll": """
        return await fetch(`${server}/socket.io/?EIO=4&transport=polling`).then(answer => answer.text(), () => 'refused')""",
}


class ForeignPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        with suppress(ConnectionError):  # the browser is on another page by now
            self.wfile.write(b"<!doctype html><title>Win a prize</title><body></body>")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def foreign_site() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ForeignPage) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site.server_port
        finally:
            site.shutdown()
            thread.join()


@contextmanager
def page(target: Target, url: str, **options: Any) -> Iterator[Any]:
    opened = target.things["browser"].new_page(**options)
    try:
        opened.set_default_timeout(SECONDS * 1000)
        opened.goto(url)
        yield opened
    finally:
        opened.close()


def start_browser(target: Target) -> None:
    # Not before it is needed: a browser is not on every machine, and neither is what drives one.
    from playwright.sync_api import sync_playwright

    stack = target.things["stack"] = ExitStack()
    playwright = stack.enter_context(sync_playwright())
    rules = f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1"
    target.things["browser"] = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
    stack.callback(target.things["browser"].close)


def end_browser(target: Target) -> None:
    target.things["stack"].close()


def tries(opened: Any, target: Target, names: Iterable[str], *, url: str) -> dict[str, str]:
    """Each in a page that was just loaded, so that none is in the way of another."""
    job = {"type": "task", "params": {"task": "true"}}
    got = {}
    for name in names:
        opened.goto(url)
        got[name] = opened.evaluate(f"async ([server, token, job]) => {{ {TRIES[name]} }}", [target.server.url, target.server.token, job])
    return got


def prepare(target: Target) -> None:
    """The same tries get through from a page of our own: they are ones that can."""
    start_browser(target)
    names = ("JSON with the token", "a read with the token", "a WebSocket", "a long poll")
    with page(target, target.server.url) as opened:
        got = tries(opened, target, names, url=f"{target.server.url}/api/docs")
    assert "refused" not in got.values(), got


def from_page(host: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        with foreign_site() as port, page(target, f"http://{host}:{port}/") as opened:
            got = tries(opened, target, TRIES, url=f"http://{host}:{port}/")
        assert set(got.values()) == {"refused"}, got

    return run


def by_a_name_of_its_own(target: Target) -> None:
    """DNS rebinding: the foreign page's own name leads to us, so that to the browser we are the same site."""
    address = target.server.url.replace("127.0.0.1", FOREIGN)
    with page(target, f"{address}/api/docs", bypass_csp=True) as opened:
        assert "origin-refused" in opened.content()
        headers = {"Authorization": f"Bearer {target.server.token}"}
        assert opened.evaluate("async headers => (await fetch('/api/jobs', {headers})).status", headers) == 403


def shown_in_a_frame(target: Target) -> None:
    """Nothing of ours may be framed, so that no click is stolen."""
    with foreign_site() as port, page(target, f"http://localhost:{port}/") as opened:
        for path in ("/", "/api/docs"):
            opened.evaluate(
                """url => new Promise(resolve => {
                  const frame = Object.assign(document.createElement('iframe'), {src: url, onload: resolve});
                  document.body.replaceChildren(frame);
                })""",
                target.server.url + path,
            )
            frame = opened.query_selector("iframe").content_frame()
            shown = frame.content()
            assert "runcast" not in shown and "swagger" not in shown, shown[:300]
            assert frame.url.startswith("chrome-error:"), f"the browser shows {frame.url}, and not that it was refused"


def opened_as_a_window(target: Target) -> None:
    """A page that opens ours holds nothing of it in its hand."""
    with foreign_site() as port, page(target, f"http://127.0.0.1:{port}/") as opened:
        with opened.expect_popup() as popup:
            opened.evaluate("url => { window.other = window.open(url) }", f"{target.server.url}/api/docs")
        popup.value.wait_for_load_state()
        assert opened.evaluate("window.other.closed"), "the foreign page can still reach the window"
        assert popup.value.evaluate("window.opener") is None


ATTACKS = (
    Attack("every call of a page on another port", from_page("127.0.0.1")),
    Attack("every call of a page of another name", from_page(FOREIGN)),
    Attack("a page whose name leads to the service", by_a_name_of_its_own),
    Attack("the service in a frame", shown_in_a_frame),
    Attack("the service in a window", opened_as_a_window),
)

ROW = Row(
    name="attack-browser",
    fault="a foreign page in a real browser, which knows the token",
    attacks=ATTACKS,
    prepare=prepare,
    check=end_browser,
)
LACKING = None if CHROMIUM else "there is no Chromium here; Debian's package is `chromium`"
SCENARIOS = (replace(ROW.scenario(), lacking=LACKING),)
