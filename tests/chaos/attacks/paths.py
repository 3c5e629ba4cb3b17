"""Ways out of the workspace: in every field that is, or becomes, a path; refused, or opened without following links, never outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chaos.attacks.row import Attack, Row, Target, refused
from support.server import task_submission
from support.waiting import eventually

TASKS = Path(__file__).with_name("tasks.toml")
OUTSIDE = "found-outside"
"""The name of a file that lies outside, and is to be seen in no log and no answer."""
RACES = 12
# `{out}` is a folder outside, `{name}` its name: it lies beside the workspace.
WAYS = (
    "..",
    "../",
    "./..",
    "../{name}",
    "../../data/{name}",
    "source/../../{name}",
    "source//..//..//{name}",
    "source/./../../{name}",
    "{out}",
    "/{out}",
    "/proc/self/root{out}",
    "/proc/self/cwd/../{name}",
    "way_out",
    "way_out/.",
    "way_out/../{name}",
    "far_out{out}",
    "chain",
    "loop",
    "source/../way_out",
    "\u002e\u002e/{name}",
    "\uff0e\uff0e/{name}",
    "\u2025/{name}",
    "..\u2215{name}",
    "..\u29f5{name}",
    "..\uff0f{name}",
    "..\\{name}",
    "%2e%2e/{name}",
    "..%2f{name}",
    "..%00/{name}",
    "..\0/{name}",
    "source\0/../../{name}",
    "\ud800/../{name}",
    ".. /{name}",
    "..\n/{name}",
    "\u202e../{name}",
    "~",
    "~root",
    "$HOME",
    "file://{out}",
    "-la",
    "--",
    "",
    "x" * 5000,
    "/".join(["source/.."] * 20) + "/../{name}",
)
NAMES = ("..", ".", "../x", "/etc", "a/b", "a\\b", "-x", ".hidden", "a\0b", "\uff0e\uff0e", "a\nb", "a b", "\u202ex", "x" * 300, "")
URLS = (
    "/api/templates/..",
    "/api/templates/%2e%2e",
    "/api/templates/..%2f..%2fadmin-token",
    "/api/docs/assets/../../../admin-token",
    "/api/docs/assets/..%2f..%2f..%2fadmin-token",
    "/api/docs/assets/%2e%2e/%2e%2e/app.py",
    "/api/docs/assets//etc/passwd",
    "/api/docs/assets/swagger-ui.css%00.js",
    "/console/../app.py",
    "/console/assets/../../app.py",
    "/console/assets/..%2f..%2fapp.py",
    "/console/assets/....//....//app.py",
    "/console//etc/passwd",
    "/..%5c..%5cadmin-token",
    "//etc/passwd",
    "/../../../../etc/passwd",
    "/socket.io/../../admin-token",
    "/api/jobs/..%2f..%2fadmin-token/log",
)


def prepare(target: Target) -> None:
    out = target.workspace.parent / "outside"
    out.mkdir()
    (out / OUTSIDE).write_text(OUTSIDE)
    (out / "templates.toml").write_text(f'[templates.{OUTSIDE}]\nclass = "ApplicationTemplate"\nvariables.application_name = "x"\n')
    target.things["out"] = out
    for name, leads_to in {"way_out": "../outside", "far_out": "/", "chain": "way_out", "loop": "loop"}.items():
        (target.workspace / name).symlink_to(leads_to)


def filled(target: Target, way: str) -> str:
    out: Path = target.things["out"]
    return way.replace("{out}", str(out)).replace("{name}", out.name)


def tried(target: Target, submission: dict[str, Any]) -> None:
    """Refused; or accepted as the name of something in the workspace, and then nothing from outside is to be seen."""
    answer = target.server.call("POST", "/jobs/submit", json=submission)
    if answer.status_code != 202:
        refused(answer, 400, 404, 409)
        return
    job_id = answer.json()["id"]
    target.server.wait(job_id)
    assert OUTSIDE not in target.server.raw_log(job_id)


def by_task(task: str, field: str, way: str) -> Callable[[Target], None]:
    return lambda target: tried(target, task_submission(task, **{field: filled(target, way)}))


def by_name(submission: Callable[[str], dict[str, Any]], name: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        refused(target.server.call("POST", "/jobs/submit", json=submission(name)), 400)

    return run


FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "the project to build": lambda name: {"type": "build", "params": {"project": name}},
    "the project to launch": lambda name: {"type": "launch", "params": {"project": name, "app": "x.kit"}},
    "the app to launch": lambda name: {"type": "launch", "params": {"app": f"{name}.kit" if "/" not in name and name else name}},
    "the name to create": lambda name: {"type": "create", "params": {"template": "small_editor", "name": name}},
    "the template to create from": lambda name: {"type": "create", "params": {"template": name, "name": "x"}},
    "the task": lambda name: {"type": "task", "params": {"task": name}},
    "the queue": lambda name: {"type": "build", "params": {}, "queue": name},
}


def by_address(path: str) -> Callable[[Target], None]:
    """As it stands: no client tidies it up on the way."""

    def run(target: Target) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {target.server.token}\r\nConnection: close\r\n\r\n"
        heard = target.say(head.encode(), closing=True)
        assert heard.statuses in ([400], [404]), heard
        assert not [text for text in (target.server.token.encode(), b"root:", b"import ") if text in heard.data], heard

    return run


def by_template(url: str, link: bool = False) -> Callable[[Target], None]:
    """A job may write the list of templates, and so a client may."""

    def run(target: Target) -> None:
        index = target.workspace / "templates" / "templates.toml"
        before = index.read_text()
        try:
            if link:
                (target.workspace / "templates" / "linked.toml").symlink_to(target.things["out"] / "templates.toml")
            entry = f'[templates.evil]\nclass = "LocalTemplateCollection"\nurl = "{filled(target, url)}"\n'
            index.write_text(f"{before}\n{entry}")
            found = target.server.call("GET", "/templates")
            assert found.status_code == 200
            assert OUTSIDE not in [template["name"] for template in found.json()["templates"]]
            assert found.json()["problems"]
        finally:
            index.write_text(before)
            (target.workspace / "templates" / "linked.toml").unlink(missing_ok=True)

    return run


def swapped_while_it_waits(target: Target) -> None:
    """What was a folder when the job was accepted is a link when it starts."""
    holders = [target.server.shell("exec sleep 60") for _ in range(2)]
    for holder in holders:
        eventually(lambda holder=holder: target.server.job(holder)["status"] == "running", "the slots are taken")  # type: ignore[misc]
    folder = target.workspace / "innocent"
    folder.mkdir()
    waiting = [target.server.run("here", folder="innocent"), target.server.run("look", path="innocent")]
    folder.rmdir()
    folder.symlink_to(target.things["out"])
    for holder in holders:
        target.server.call("POST", f"/jobs/{holder}/cancel", json={"force": True})
    jobs = [target.server.wait(job_id) for job_id in waiting]
    folder.unlink()
    assert [(job["status"], job["reason"]) for job in jobs] == [("failed", "start_error")] * 2, jobs


@contextmanager
def restless(folder: Path, out: Path) -> Iterator[None]:
    """A folder that is a link to somewhere else every other moment."""
    aside, link = folder.with_name("aside"), folder.with_name("link")
    folder.mkdir()
    link.symlink_to(out)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            folder.rename(aside)
            link.rename(folder)
            folder.rename(link)
            aside.rename(folder)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        over.set()
        swapper.join()
        link.unlink()
        folder.rmdir()


def swapped_all_the_time(target: Target) -> None:
    """Between the check and the start, too, if it hits that moment."""
    started = []
    with restless(target.workspace / "restless", target.things["out"]):
        for _ in range(RACES):
            answer = target.server.call("POST", "/jobs/submit", json=task_submission("here", folder="restless"))
            assert answer.status_code in (202, 409), answer.text
            if answer.status_code == 202:
                started.append(answer.json()["id"])
                target.server.wait(started[-1])
    assert not [job_id for job_id in started if OUTSIDE in target.server.raw_log(job_id)], "a job ran outside"


def attacks() -> Iterator[Attack]:
    for way in WAYS:
        shown = quote(way[:60], safe="/{}.$~", errors="backslashreplace")
        yield Attack(f"{shown} as a path", by_task("look", "path", way), changes=True)
        yield Attack(f"{shown} as the folder to run in", by_task("here", "folder", way), changes=True)
    for field, submission in FIELDS.items():
        for name in NAMES:
            yield Attack(f"{quote(name[:60])} as {field}", by_name(submission, name))
    for path in URLS:
        yield Attack(f"the address {path}", by_address(path))
    for url in ("file://${root}/../outside/templates.toml", "file://{out}/templates.toml", "file://${root}/way_out/templates.toml"):
        yield Attack(f"templates at {url}", by_template(url), changes=True)
    yield Attack("templates behind a link", by_template("file://${root}/templates/linked.toml", link=True), changes=True)
    yield Attack("a folder that becomes a link while the job waits", swapped_while_it_waits, changes=True)
    yield Attack("a folder that becomes a link again and again", swapped_all_the_time, changes=True)


SCENARIOS = (
    Row(
        name="attack-paths",
        fault="path traversal in every field and address; links, NUL, unicode; folders swapped for links after the check",
        attacks=list(attacks()),
        prepare=prepare,
        options={"tasks": TASKS, "slots": 2},
    ).scenario(),
)
