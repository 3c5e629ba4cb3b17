"""Ways out of the workspace: in every field that is, or becomes, a path; refused, or opened without following links, never outside."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chaos.attacks.row import Attack, Row, Target, refused
from handlers.problems import PREFIX
from support.server import task_submission
from support.waiting import eventually

TASKS = Path(__file__).with_name("tasks.toml")
OUTSIDE = "found-outside"
"""The name of files that lie outside, in a folder and beside the workspace, and are to be seen in no log and no answer."""
INSIDE = "found-inside"
RACES, MORE_RACES = 24, 200
AT_ONCE = 12
# `{out}` is a folder outside, `{name}` its name: it lies beside the workspace.
LEAVING = (
    "..",
    "../",
    "./..",
    "../..",
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
    "source/../way_out",
    "/".join(["source/.."] * 20) + "/../{name}",
)
MALFORMED = ("..\0/{name}", "source\0/../../{name}", "-la", "--", "")
NO_TEXT = ("\ud800/../{name}",)
# Names like any other, of which the workspace has none; the loop is refused where the version of Python tells that it is one.
LOST = (
    "loop",
    "\uff0e\uff0e/{name}",
    "\u2025/{name}",
    "..\u2215{name}",
    "..\u29f5{name}",
    "..\uff0f{name}",
    "..\\{name}",
    "\\u002e\\u002e/{name}",
    "%2e%2e/{name}",
    "..%2f{name}",
    "..%00/{name}",
    ".. /{name}",
    "..\n/{name}",
    "\u202e../{name}",
    "~",
    "~root",
    "$HOME",
    "file://{out}",
    "x" * 5000,
)
WAYS: dict[str, str | None] = {
    **dict.fromkeys(LEAVING, "outside-workspace"),
    **dict.fromkeys(MALFORMED, "inputs-rejected"),
    **dict.fromkeys(NO_TEXT, "invalid-request"),
    **dict.fromkeys(LOST),
}
"""The problem that each is refused with, if it must be refused."""
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


LINKS = {
    "way_out": "../outside",
    "far_out": "/",
    "chain": "way_out",
    "loop": "loop",
    "source/extensions/outer.extension": "{out}",
    "source/apps/outer_app.kit": "{out}/source/apps/outer.kit",
    "source/apps/outer_apps": "{out}/source/apps",
    "hollow/source": "{out}/source",
}
LINKED: tuple[tuple[str, dict[str, str], str], ...] = (
    ("build", {"project": "way_out"}, "project-not-found"),
    ("build", {"project": "chain"}, "project-not-found"),
    ("build", {"project": "outer.extension"}, "project-not-found"),
    ("build", {"project": "outer_app"}, "project-not-found"),
    ("launch", {"app": "outer.kit", "project": "way_out"}, "project-not-found"),
    ("launch", {"app": "outer.kit", "project": "hollow"}, "app-not-found"),
    ("launch", {"app": "outer.kit"}, "app-not-found"),
    ("launch", {"app": "outer_app.kit"}, "app-not-found"),
)


def prepare(target: Target) -> None:
    out = target.workspace.parent / "outside"
    make_outside(out)
    target.things["out"] = out
    for name, leads_to in LINKS.items():
        (target.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (target.workspace / name).symlink_to(leads_to.replace("{out}", str(out)))
    shutil.copy(target.workspace / "repo.sh", target.workspace / "hollow")
    see_both_sides(target)


def make_outside(out: Path) -> None:
    """A folder with all that makes one a project, an application among it."""
    for place in (out, out / "inner", out.parent):
        place.mkdir(exist_ok=True)
        (place / OUTSIDE).write_text(OUTSIDE)
    (out / "templates.toml").write_text(f'[templates.{OUTSIDE}]\nclass = "ApplicationTemplate"\nvariables.application_name = "x"\n')
    (out / "repo.sh").write_text(f"#!/bin/sh\necho {OUTSIDE}\n")
    (out / "repo.sh").chmod(0o755)
    (out / "source" / "apps").mkdir(parents=True)
    (out / "source" / "apps" / "outer.kit").touch()


def see_both_sides(target: Target) -> None:
    """What lies outside would be seen if a job got there, and a path to what lies inside is taken."""
    over_there = target.server.shell("ls -a .. ../outside ../outside/inner")
    target.server.wait(over_there)
    assert target.server.raw_log(over_there).count(OUTSIDE) == 3
    for task, field in (("look", "path"), ("here", "folder")):
        job_id = target.server.run(task, **{field: "source"})
        assert target.server.wait(job_id)["status"] == "completed"
        assert "extensions" in target.server.raw_log(job_id)
    assert target.server.call("GET", "/templates").json()["problems"] == []


def filled(target: Target, way: str) -> str:
    out: Path = target.things["out"]
    return way.replace("{out}", str(out)).replace("{name}", out.name)


def tried(target: Target, submission: dict[str, Any], kind: str | None) -> None:
    """Refused with a problem of this kind; if there is none, it may be accepted as a name in the workspace, where nothing has it."""
    answer = target.server.call("POST", "/jobs/submit", json=submission)
    if answer.status_code != 202:
        refused(answer, 400, 409)
        assert kind in (None, answer.json()["type"].removeprefix(PREFIX)), answer.text
        return
    job = target.server.wait(answer.json()["id"])
    log = target.server.raw_log(job["id"])
    assert kind is None, f"it was accepted: {log[:300]}"
    assert job["status"] == "failed" and OUTSIDE not in log, log[:300]


def by_task(task: str, field: str, way: str) -> Callable[[Target], None]:
    return lambda target: tried(target, task_submission(task, **{field: filled(target, way)}), WAYS[way])


def by_name(place: str, submission: Callable[[str], dict[str, Any]], name: str) -> Callable[[Target], None]:
    """Refused for the name, and for nothing else."""

    def run(target: Target) -> None:
        answer = target.server.call("POST", "/jobs/submit", json=submission(name))
        refused(answer, 400)
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [place], answer.text

    return run


FIELDS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "the project to build": ("#/params/project", lambda name: {"type": "build", "params": {"project": name}}),
    "the project to launch": ("#/params/project", lambda name: {"type": "launch", "params": {"project": name, "app": "x.kit"}}),
    "the app to launch": ("#/params/app", lambda name: {"type": "launch", "params": {"app": f"{name}.kit"}}),
    "the name to create": ("#/params/name", lambda name: {"type": "create", "params": {"template": "small_editor", "name": name}}),
    "the template to create from": ("#/params/template", lambda name: {"type": "create", "params": {"template": name, "name": "x"}}),
    "the task": ("#/params/task", lambda name: {"type": "task", "params": {"task": name}}),
    "the queue": ("#/queue", lambda name: {"type": "build", "params": {}, "queue": name}),
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


def by_link(job_type: str, params: dict[str, str], kind: str) -> Callable[[Target], None]:
    """What a link leads to is no project, and no application, whatever it has."""

    def run(target: Target) -> None:
        answer = target.server.call("POST", "/jobs/submit", json={"type": job_type, "params": params})
        refused(answer, 404)
        assert answer.json()["type"] == PREFIX + kind, answer.text

    return run


def swapped_while_they_wait(make: Callable[[Path], None], *submissions: dict[str, Any]) -> Callable[[Target], None]:
    """What was a folder when the jobs were accepted is a link when they start."""

    def run(target: Target) -> None:
        holders = [target.server.shell("exec sleep 60") for _ in range(2)]
        for holder in holders:
            eventually(lambda holder=holder: target.server.job(holder)["status"] == "running", "the slots are taken")  # type: ignore[misc]
        folder = target.workspace / "innocent"
        make(folder)
        waiting = [target.server.submit(submission)["id"] for submission in submissions]
        shutil.rmtree(folder)
        folder.symlink_to(target.things["out"])
        for holder in holders:
            target.server.call("POST", f"/jobs/{holder}/cancel", json={"force": True})
        jobs = [target.server.wait(job_id) for job_id in waiting]
        folder.unlink()
        assert {(job["status"], job["reason"]) for job in jobs} == {("failed", "start_error")}, jobs

    return run


def make_project(folder: Path) -> None:
    """A checkout of its own, which has an application of the same name as the one outside."""
    (folder / "source" / "apps").mkdir(parents=True)
    (folder / "source" / "apps" / "outer.kit").touch()
    shutil.copy(folder.parent / "repo.sh", folder)


@contextmanager
def restless(folder: Path, out: Path) -> Iterator[None]:
    """A folder that is a link to somewhere else every other moment."""
    aside, link = folder.with_name("aside"), folder.with_name("link")
    for place in (folder, folder / "inner"):
        place.mkdir()
        (place / INSIDE).touch()
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
        shutil.rmtree(folder)


def swapped_all_the_time(races: int) -> Callable[[Target], None]:
    """Between the check and the start, too, if it hits that moment. It goes on until both moments were hit, and many times at least."""

    def run(target: Target) -> None:
        raced = Raced()
        with restless(target.workspace / "restless", target.things["out"]):
            while raced.tries < races or not (raced.inside and raced.turned_away):
                assert raced.tries < 10 * MORE_RACES, raced
                raced.go(target, AT_ONCE)

    return run


@dataclass
class Raced:
    """How often a job ran in the folder, and how often it was not accepted or not started, because there was a link or nothing."""

    inside: int = 0
    refused: int = 0
    not_started: int = 0

    @property
    def turned_away(self) -> int:
        return self.refused + self.not_started

    @property
    def tries(self) -> int:
        return self.inside + self.turned_away

    def go(self, target: Target, count: int) -> None:
        """So many at once, in the folder and in one below it."""
        answers = [
            target.server.call("POST", "/jobs/submit", json=task_submission("here", folder=folder))
            for folder in ("restless", "restless/inner") * (count // 2)
        ]
        for answer in answers:
            if answer.status_code == 202:
                self._see(target, target.server.wait(answer.json()["id"]))
            else:
                refused(answer, 409)
                self.refused += 1

    def _see(self, target: Target, job: dict[str, Any]) -> None:
        log = target.server.raw_log(job["id"])
        assert OUTSIDE not in log, "a job ran outside"
        if job["status"] == "completed":
            assert INSIDE in log, log
            self.inside += 1
        else:
            assert job["reason"] == "start_error", job
            self.not_started += 1


def attacks() -> Iterator[Attack]:
    for way in WAYS:
        shown = quote(way[:60], safe="/{}.$~", errors="backslashreplace")
        yield Attack(f"{shown} as a path", by_task("look", "path", way), changes=True)
        yield Attack(f"{shown} as the folder to run in", by_task("here", "folder", way), changes=True)
    for field, (place, submission) in FIELDS.items():
        for name in NAMES:
            yield Attack(f"{quote(name[:60])} as {field}", by_name(place, submission, name))
    for path in URLS:
        yield Attack(f"the address {path}", by_address(path))
    for url in ("file://${root}/../outside/templates.toml", "file://{out}/templates.toml", "file://${root}/way_out/templates.toml"):
        yield Attack(f"templates at {url}", by_template(url), changes=True)
    yield Attack("templates behind a link", by_template("file://${root}/templates/linked.toml", link=True), changes=True)
    for job_type, params, kind in LINKED:
        yield Attack(f"{job_type} {' of '.join(params.values())}, behind a link", by_link(job_type, params, kind))
    paths = (task_submission("here", folder="innocent"), task_submission("look", path="innocent"))
    yield Attack("a folder that becomes a link while jobs wait", swapped_while_they_wait(Path.mkdir, *paths), changes=True)
    projects = (
        {"type": "build", "params": {"project": "innocent"}},
        {"type": "launch", "params": {"project": "innocent", "app": "outer.kit"}},
    )
    yield Attack("a project that becomes a link while jobs wait", swapped_while_they_wait(make_project, *projects), changes=True)
    yield Attack("a folder that becomes a link again and again", swapped_all_the_time(RACES), changes=True)
    yield Attack(f"the same {MORE_RACES} times", swapped_all_the_time(MORE_RACES), changes=True, slow=True)


SCENARIOS = (
    Row(
        name="attack-paths",
        fault="path traversal in every field and address; links, NUL, unicode; folders swapped for links after the check",
        attacks=list(attacks()),
        prepare=prepare,
        options={"tasks": TASKS, "slots": 2},
    ).scenario(),
)
