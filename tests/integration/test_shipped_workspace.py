"""The shipped workspace, run as jobs run it: the recipes' own commands, in a job's environment, on a fresh copy."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ProjectExists
from jobs.execution.progress import ProgressParser, ProgressTracker
from jobs.model import JobType, Submission
from jobs.recipes.expand import Recipe, Recipes, job_environment
from jobs.recipes.workspace import copy_workspace
from support.waiting import eventually

pytestmark = pytest.mark.slow

DEADLINE = 40.0


@dataclass
class Shipped:
    """A copy of the shipped workspace and the recipes for it."""

    root: Path
    recipes: Recipes
    base: dict[str, str]

    def start(self, recipe: Recipe) -> subprocess.Popen[str]:
        return subprocess.Popen(
            recipe.command(Path(tempfile.mkdtemp(dir=self.root.parent))),
            cwd=recipe.cwd,
            env=job_environment(self.base, recipe=recipe, marker="job:lease"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, type: JobType, *, code: int = 0, **params: Any) -> list[str]:
        """The lines that the job prints; it must exit with `code`."""
        with self.start(self.recipes.expand(Submission(type, params))) as process:
            try:
                output, _ = process.communicate(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == code, output
        return output.splitlines()

    @contextmanager
    def launched(self, **params: Any) -> Iterator[tuple[str, list[str]]]:
        """The URL of a launched application, and what it prints until it has stopped on SIGTERM."""
        recipe = self.recipes.expand(Submission(JobType.LAUNCH, params))
        with self.start(recipe) as process:
            assert process.stdout is not None
            timer = threading.Timer(DEADLINE, process.kill)
            timer.start()
            lines: list[str] = []
            try:
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if recipe.ready and (match := re.search(recipe.ready, line)):
                        yield match["url"], lines
                        break
                else:
                    raise AssertionError(lines)
            finally:
                process.send_signal(signal.SIGTERM)
                lines += process.stdout.read().splitlines()
                process.wait()
                timer.cancel()
                timer.join()
            assert process.returncode == 0, lines


@pytest.fixture
def shipped(tmp_path: Path) -> Shipped:
    root = tmp_path / "workspace"
    copy_workspace(root)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"  # no version manager's shim, which takes longer than most of these tests
    return Shipped(root, Recipes.load(workspace=root, tasks_file=None), {**os.environ, "PATH": path})


def get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read()


def result(lines: list[str]) -> Any:
    return next(json.loads(line.removeprefix("::result ")) for line in lines if line.startswith("::result "))


def output(shipped: Shipped, config: str) -> Path:
    (folder,) = (shipped.root / "_build").glob(f"*/{config}")
    return folder


def test_a_project_is_created_built_and_launched(shipped: Shipped) -> None:
    """What `make demo` shows."""
    title = 'Rück "quoted" \\ </title> ${x} 🙂'
    created = shipped.run(JobType.CREATE, template="small_editor", name="acme.paint", display_name=title, version="1.2.3")
    assert result(created) == {"created": ["source/apps/acme.paint.kit"]}
    assert shipped.recipes.workspace.projects() == ["acme.paint", "sample.page", "sample.web"]
    with pytest.raises(ProjectExists):
        shipped.recipes.expand(Submission(JobType.CREATE, {"template": "small_editor", "name": "acme.paint"}))

    built = shipped.run(JobType.BUILD, project="acme.paint")
    assert rising_percents(shipped, built)[-1] == 100
    assert [Path(artifact).name for artifact in result(built)["artifacts"]] == ["acme.paint.pyz", "acme.paint.kit.sh"]

    with shipped.launched(app="acme.paint.kit", project="acme.paint") as (url, lines):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        media_type, page = get(url)
        assert media_type == "text/html; charset=utf-8"
        assert "Rück &quot;quoted&quot; \\ &lt;/title&gt; ${x} 🙂" in page.decode()
        about = json.loads(get(f"{url}about.json")[1])
        assert (about["name"], about["title"], about["version"], about["config"]) == ("acme.paint", title, "1.2.3", "release")
        assert get(f"{url}icon.png")[1].startswith(b"\x89PNG\r\n")
    assert "GET /about.json 200" in lines
    assert lines[-1].endswith("has stopped")


def rising_percents(shipped: Shipped, lines: list[str]) -> list[float]:
    """The progress that the build's own patterns see, line by line."""
    parser = ProgressParser(shipped.recipes.expand(Submission(JobType.BUILD, {})).progress)
    tracker = ProgressTracker()
    seen = [tracker.offer(progress) for line in lines if (progress := parser.parse(f"{line}\n".encode()))]
    percents = [progress.percent for progress in seen if progress and progress.percent is not None]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 10
    return percents


def test_a_service_has_its_setup_and_runs_from_sources_in_debug(shipped: Shipped) -> None:
    created = shipped.run(JobType.CREATE, template="small_service", name="acme.api")
    assert result(created)["created"] == ["source/extensions/acme.api_setup_extension", "source/apps/acme.api.kit"]
    shipped.run(JobType.BUILD, project="acme.api", config="debug")
    folder = output(shipped, "debug")
    assert (folder / "apps/acme.api/exts/acme_api_setup_extension/__init__.py").is_file()
    assert not list(folder.rglob("*.pyc"))
    assert not (folder / "packages").exists()
    with shipped.launched(app="acme.api.kit", args=["--/exts/sample.web/port=0"]) as (url, lines):
        assert json.loads(get(f"{url}status")[1])["service"] == "acme.api"
    assert "launching acme.api.kit (debug)" in lines


def test_a_panel_is_built_tested_and_shown(shipped: Shipped) -> None:
    shipped.run(JobType.CREATE, template="panel_extension", name="json", display_name="My <Panel>")  # a name that Python uses, too
    shipped.run(JobType.CREATE, template="small_editor", name="app")
    kit = shipped.root / "source/apps/app.kit"
    kit.write_text(kit.read_text(encoding="utf-8").replace("[dependencies]", '[dependencies]\n"json" = {}'), encoding="utf-8")
    built = shipped.run(JobType.BUILD, config="debug")  # everything
    assert any(line.endswith("Test source/extensions/json") for line in built)
    with shipped.launched(app="app.kit") as (url, _):
        page = get(url)[1].decode()
    assert "My &lt;Panel&gt;" in page
    assert "App is made of 3 extensions." in page


def test_only_changed_files_are_built_again(shipped: Shipped) -> None:
    def made() -> int:
        return int(result(shipped.run(JobType.BUILD, project="sample.page", config="debug"))["made"])

    first = made()
    assert first > 3
    assert made() == 0
    page = shipped.root / "source/extensions/sample.page/data/page.html"
    page.write_text(page.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert 0 < made() < first
    leftover = output(shipped, "debug") / "exts/sample.page/leftover.txt"
    leftover.touch()
    assert made() == 0
    assert not leftover.exists()


def test_release_and_debug_builds_differ_and_are_cleaned_apart(shipped: Shipped) -> None:
    for config in ("release", "debug"):
        shipped.run(JobType.BUILD, project="sample.page", config=config)
    assert (output(shipped, "release") / "packages/sample.page.zip").is_file()
    style = "exts/sample.page/exts/sample_page/data/style.css"
    assert (output(shipped, "release") / style).stat().st_size < (output(shipped, "debug") / style).stat().st_size

    shipped.run(JobType.BUILD, project="sample.page", config="release", clean=True)
    assert not list(output(shipped, "release").rglob("*sample*"))
    assert (output(shipped, "debug") / style).is_file()
    rebuilt = result(shipped.run(JobType.BUILD, project="sample.page", config="debug", rebuild=True, clean=True))
    assert rebuilt["made"] == rebuilt["steps"]
    shipped.run(JobType.BUILD, config="debug", clean=True)
    assert not list((shipped.root / "_build").glob("*/debug"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_create_leaves_no_half_project(shipped: Shipped, signum: signal.Signals) -> None:
    many = shipped.root / "templates/extensions/service.setup/template/data"
    many.mkdir()
    for number in range(5000):
        (many / f"{number}.txt").write_text("{{ extension_name }}")
    source = shipped.root / "source"
    before = shipped.recipes.workspace.projects()
    recipe = shipped.recipes.expand(Submission(JobType.CREATE, {"template": "small_service", "name": "acme.service"}))
    with shipped.start(recipe) as process:
        eventually(lambda: len(list(source.glob(".new-*/*/data/*"))) > 10, "it is in the midst of it")
        process.send_signal(signum)
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode in (128 + signum, -signum) and "::result" not in output, output
    assert shipped.recipes.workspace.projects() == before
    assert len(list(source.glob(".new-*"))) == (signum == signal.SIGKILL)
    shutil.rmtree(many)
    assert len(result(shipped.run(JobType.CREATE, template="small_service", name="acme.service"))["created"]) == 2
    assert not list(source.glob(".new-*"))


def test_concurrent_creates_do_not_disturb_each_other(shipped: Shipped) -> None:
    expand = shipped.recipes.expand
    recipes = [expand(Submission(JobType.CREATE, {"template": "small_service", "name": f"acme.s{number}"})) for number in range(6)]
    makers = [shipped.start(recipe) for recipe in recipes]
    outputs = [maker.communicate(timeout=DEADLINE)[0] for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 6, outputs
    assert not list((shipped.root / "source").glob(".new-*"))


@pytest.mark.parametrize(
    ("config", "file", "text", "says"),
    [
        ("release", "python/__init__.py", "def f(:\n", "source/extensions/sample.page/python/__init__.py:1: invalid syntax"),
        ("debug", "python/__init__.py", "def f(:\n", "source/extensions/sample.page/python/__init__.py:1: invalid syntax"),
        ("release", "python/__init__.py", "raise ValueError('oh')\n", "ValueError: oh"),  # the extension's own tests find out
        ("debug", "data/page.html", "<p><b></p>\n", "source/extensions/sample.page/data/page.html: </p> at line 1 closes nothing"),
        ("release", "data/more.json", "{\n", "source/extensions/sample.page/data/more.json: Expecting property name"),
        ("debug", "config/extension.toml", "[package\n", "source/extensions/sample.page/config/extension.toml: Expected ']'"),
        ("debug", "config/extension.toml", "[package]\ntitle = 'x'\n", "sample.page/config/extension.toml: [package] has no version"),
    ],
)
def test_a_source_error_fails_the_build_and_says_where(shipped: Shipped, config: str, file: str, text: str, says: str) -> None:
    (shipped.root / "source/extensions/sample.page" / file).write_text(text, encoding="utf-8")
    lines = shipped.run(JobType.BUILD, code=1, project="sample.page", config=config)
    assert any(says in line for line in lines), lines
    assert any(line.startswith("error: ") for line in lines)
    assert not any(line.startswith("::result") for line in lines)
    assert not list(shipped.root.rglob(".new-*"))


def test_a_missing_or_circular_dependency_fails_the_build(shipped: Shipped) -> None:
    apps = shipped.root / "source/apps"
    apps.mkdir()
    package = "[package]\ntitle = 'x'\nversion = '1.0.0'\n[dependencies]\n"
    (apps / "a.kit").write_text(package + "'nope' = {}\n", encoding="utf-8")
    (apps / "b.kit").write_text(package + "'c' = {}\n", encoding="utf-8")
    (apps / "c.kit").write_text(package + "'b' = {}\n", encoding="utf-8")
    assert any("dependency 'nope' is neither" in line for line in shipped.run(JobType.BUILD, code=1, project="a"))
    assert any("b → c → b" in line for line in shipped.run(JobType.BUILD, code=1, project="b"))


def test_a_build_of_everything_waits_for_a_build_of_one(shipped: Shipped) -> None:
    folder = os.open(shipped.root / "source", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH)  # as a build of one project holds it
        assert result(shipped.run(JobType.BUILD, project="sample.web", config="debug"))["made"] > 0
        with shipped.start(shipped.recipes.expand(Submission(JobType.BUILD, {"config": "debug"}))) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting for another build of this workspace\n"
            fcntl.flock(folder, fcntl.LOCK_UN)
            output, _ = process.communicate(timeout=DEADLINE)
    finally:
        os.close(folder)
    assert process.returncode == 0, output


def test_an_impossible_command_is_one_clear_line(shipped: Shipped, tmp_path: Path) -> None:
    def repo(*arguments: str) -> tuple[int, str]:
        command = [str(shipped.root / "repo.sh"), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path, env=shipped.base, check=False)
        assert "Traceback" not in run.stdout + run.stderr
        return run.returncode, (run.stdout + run.stderr).strip()

    playback = tmp_path / "play back.toml"
    for text, says in [
        ("[small_editor\n", "Expected ']'"),
        ("[nope]\n", "there is no template 'nope'"),
        ("[small_editor]\napplication_name = '../x'\n", "cannot be a name"),
        ("[small_service]\napplication_name = 'x'\n", "needs 'setup_extension_name'"),
        ("[panel_extension]\nextension_name = 'sample.web'\n", "source/extensions/sample.web exists already"),
        ("small_editor = 3\n", "is not a playback file"),
        ("", "describes nothing"),
    ]:
        playback.write_text(text, encoding="utf-8")
        code, said = repo("template", "replay", playback.name)  # seen from where the caller is
        assert (code, says in said) == (1, True), said
    assert not list((shipped.root / "source").rglob("*.kit"))
    assert {path.name for path in (shipped.root / "source").iterdir()} <= {"apps", "extensions"}

    assert "does not exist" in repo("template", "replay", "nowhere.toml")[1]
    assert repo("build", "-t", "nope") == (1, "error: there is no project 'nope'")
    assert repo("launch", "--name", "nope.kit") == (1, "error: there is no application nope.kit in source/apps")
    assert repo("build", "--", "x") == (1, "error: build takes no arguments after --")
    assert repo("build", "--nope")[0] == 2


def test_an_application_that_is_not_built_says_so(shipped: Shipped) -> None:
    shipped.run(JobType.CREATE, template="small_editor", name="app")
    assert shipped.run(JobType.LAUNCH, code=1, app="app.kit") == ["error: app.kit is not built: run ./repo.sh build"]


def test_unknown_arguments_and_taken_ports_are_refused(shipped: Shipped) -> None:
    shipped.run(JobType.CREATE, template="small_editor", name="app")
    shipped.run(JobType.BUILD, project="app", config="debug")
    lines = shipped.run(JobType.LAUNCH, code=1, app="app.kit", args=["--port", "3"])
    assert "app: unknown argument '--port'" in lines[-1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lines = shipped.run(JobType.LAUNCH, code=1, app="app.kit", args=[f"--/exts/sample.web/port={port}"])
    assert f"cannot listen on 127.0.0.1:{port}" in lines[-1]


def test_a_python_that_is_too_old_is_passed_over(shipped: Shipped, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    shipped.base["PATH"] = f"{old.parent}:/usr/bin:/bin"
    assert result(shipped.run(JobType.BUILD, project="sample.web", config="debug"))["made"] > 0


def test_without_a_job_no_directive_is_printed(shipped: Shipped) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RUNCAST_JOB"}
    command = [str(shipped.root / "repo.sh"), "build", "-d", "-t", "sample.web"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE, check=True)
    assert "::" not in run.stdout
    assert "succeeded" in run.stdout
