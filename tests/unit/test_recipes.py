"""Recipes: what a tasks file may say, what a client may give, and the command that comes of it."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobs.errors import (
    AppNotFound,
    InputsRejected,
    OperatorError,
    OutsideWorkspace,
    ProjectExists,
    ProjectNotFound,
    RuncastError,
    StartFailed,
    TaskNotFound,
    TemplateNotCreatable,
    TemplateNotFound,
)
from jobs.model import MARKER, JobType, Submission
from jobs.recipes.expand import LAUNCH_READY, Recipe, Recipes, job_environment
from jobs.recipes.workspace import copy_workspace

LINT = """
[tasks.lint]
title = "Lint a folder"
argv = ["ruff", "check", "{path}"]
cwd = "."
pty = false
timeout = 600
stop_signal = "SIGINT"
stop_grace = 2.5
concurrency_key = "lint:{path}"
queue = "fast"
ready = 'listening on (?P<url>\\S+)'
progress = ['\\[(?P<done>\\d+)/(?P<total>\\d+)\\]']
env = { CI = "1", TARGET = "<{path}>" }
secrets = ["DEPLOY_TOKEN"]
[tasks.lint.inputs]
type = "object"
required = ["path"]
additionalProperties = false
properties.path = { type = "string", maxLength = 200, format = "path" }
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder.resolve()


def recipes(workspace: Path, text: str | None = None) -> Recipes:
    if text is None:
        return Recipes.load(workspace=workspace, tasks_file=None)
    file = workspace.parent / "tasks.toml"
    file.write_text(text, encoding="utf-8")
    return Recipes.load(workspace=workspace, tasks_file=file)


def task(name: str = "t", **inputs: Any) -> Submission:
    return Submission(JobType.TASK, {"task": name, "inputs": inputs})


def one_task(argv: list[str], inputs: Mapping[str, Any] | None = None, **keys: str) -> str:
    """A tasks file with the task `t`; `keys` are TOML values."""
    schema = json.dumps(inputs or {}).replace('": ', '" = ')
    lines = [f"{key} = {value}" for key, value in {"argv": json.dumps(argv), **keys}.items()]
    return "\n".join(["[tasks.t]", *lines, *(["inputs = " + schema.replace(" = true", " = true")] if inputs is not None else [])])


def pointers(error: RuncastError) -> list[str]:
    return [violation.pointer for violation in error.violations]


def test_a_task_becomes_a_command(workspace: Path) -> None:
    assert recipes(workspace, LINT).expand(task("lint", path="src/app")) == Recipe(
        argv=("ruff", "check", "src/app"),
        cwd=workspace,
        env={"CI": "1", "TARGET": "<src/app>"},
        timeout=600,
        stop_signal="SIGINT",
        stop_grace=2.5,
        pty=False,
        progress=(r"\[(?P<done>\d+)/(?P<total>\d+)\]",),
        ready=r"listening on (?P<url>\S+)",
        concurrency_key="lint:src/app",
        queue="fast",
        secrets=("DEPLOY_TOKEN",),
    )


def test_a_task_needs_nothing_but_argv(workspace: Path) -> None:
    assert recipes(workspace, one_task(["true"])).expand(Submission(JobType.TASK, {"task": "t"})) == Recipe(argv=("true",), cwd=workspace)


def test_options_of_a_submission_replace_those_of_the_recipe(workspace: Path) -> None:
    submission = Submission(
        JobType.TASK,
        {"task": "lint", "inputs": {"path": "x"}},
        queue="slow",
        timeout_seconds=5,
        concurrency_key="mine",
    )
    recipe = recipes(workspace, LINT).expand(submission)
    assert (recipe.queue, recipe.timeout, recipe.concurrency_key) == ("slow", 5, "mine")


def test_equal_paths_give_the_same_concurrency_key(workspace: Path) -> None:
    known = recipes(workspace, LINT)
    assert {known.expand(task("lint", path=path)).concurrency_key for path in ("src", "./src", "src/", "src//.")} == {"lint:src"}


def test_a_long_concurrency_key_is_shortened_and_stays_unique(workspace: Path) -> None:
    known = recipes(workspace, one_task(["true"], {"properties": {"x": {"type": "string"}}, "required": ["x"]}, concurrency_key='"k:{x}"'))
    keys = [known.expand(task(x=text)).concurrency_key or "" for text in ("a" * 5000, "a" * 5001, "line\none", "line one", "")]
    assert len(set(keys)) == 5
    assert all(len(key) <= 300 and key.startswith("k:") and "\n" not in key for key in keys)


@pytest.mark.parametrize(
    ("value", "argument"),
    [
        ("a b; rm -rf / $(x) `y` \"'\n", ["a b; rm -rf / $(x) `y` \"'\n"]),
        ("", [""]),
        ("{y}", ["{y}"]),
        ("{file:playback.toml}", ["{file:playback.toml}"]),
        (True, ["true"]),
        (False, ["false"]),
        (-3, ["-3"]),
        (2.0, ["2"]),
        (2.5, ["2.5"]),
        (10**30, [str(10**30)]),
        (["a", 1, True], ["a", "1", "true"]),
        ([], []),
        (None, []),
    ],
)
def test_a_value_is_one_argument_and_a_list_is_several(workspace: Path, tmp_path: Path, value: Any, argument: list[str]) -> None:
    recipe = recipes(workspace, one_task(["echo", "{x}", "end"], {"properties": {"x": True, "y": True}})).expand(task(x=value, y="other"))
    assert recipe.argv == ("echo", *argument, "end")
    assert recipe.command(tmp_path) == recipe.argv


def test_an_absent_input_is_dropped_or_replaced_by_its_default(workspace: Path) -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"default": "fallback"}, "c": {"default": 7}}}
    known = recipes(workspace, one_task(["echo", "{a}", "{b}", "{c}"], schema, env='{ B = "is {b}" }'))
    assert known.expand(task()).argv == ("echo", "fallback", "7")
    assert known.expand(task(b="given", a="first")).argv == ("echo", "first", "given", "7")
    assert known.expand(task(b="given")).env == {"B": "is given"}


def test_doubled_braces_and_other_braces_are_text(workspace: Path) -> None:
    argv = ["awk", "{{print}}", "{}", "{ x }", '{"a": {"b": 1}}', "x{{y}}z", "{print $1}"]
    assert recipes(workspace, one_task(argv)).expand(task()).argv == (
        "awk",
        "{print}",
        "{}",
        "{ x }",
        '{"a": {"b": 1}}',
        "x{y}z",
        "{print $1}",
    )


@pytest.mark.parametrize(
    ("rules", "value", "fits"),
    [
        ({"type": "string"}, "--output=/etc/x", False),
        ({"type": "string"}, "-", False),
        ({"type": "string", "x-allow-dash": True}, "--fix", True),
        ({"enum": ["-O0", "-O2"]}, "-O2", True),
        ({"const": "-v"}, "-v", True),
        ({"type": "array", "items": {"type": "string"}}, ["a", "-b"], False),
        ({"type": "array", "items": {"type": "string"}, "x-allow-dash": True}, ["a", "-b"], True),
        ({"type": "array", "items": {"enum": ["-a", "-b"]}}, ["-b", "-a"], True),
        ({"type": "integer"}, -5, True),
        ({"type": "string", "format": "path", "x-allow-dash": True}, "-rf", False),
    ],
)
def test_a_text_that_looks_like_an_option_must_be_allowed(workspace: Path, rules: Mapping[str, Any], value: Any, fits: bool) -> None:
    known = recipes(workspace, one_task(["tool", "{x}"], {"properties": {"x": rules}}))
    if fits:
        assert known.expand(task(x=value)).argv[0] == "tool"
        return
    with pytest.raises(InputsRejected) as caught:
        known.expand(task(x=value))
    assert [violation.detail for violation in caught.value.violations] == ["must not begin with '-'"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_a_path_that_leaves_the_workspace_is_refused(workspace: Path, path: str) -> None:
    (workspace / "link").symlink_to(workspace.parent)
    with pytest.raises(OutsideWorkspace) as caught:
        recipes(workspace, LINT).expand(task("lint", path=path))
    assert pointers(caught.value) == ["#/params/inputs/path"]


def test_each_path_of_a_list_is_checked(workspace: Path) -> None:
    schema = {"properties": {"files": {"type": "array", "items": {"type": "string", "format": "path"}}}}
    known = recipes(workspace, one_task(["cat", "{files}"], schema))
    assert known.expand(task(files=["a", "b/c"])).argv == ("cat", "a", "b/c")
    with pytest.raises(OutsideWorkspace) as caught:
        known.expand(task(files=["a", "../b"]))
    assert pointers(caught.value) == ["#/params/inputs/files/1"]


def test_a_path_is_relative_to_the_folder_of_the_command(workspace: Path) -> None:
    (workspace / "sub").mkdir()
    (workspace / "sub" / "out").symlink_to(workspace.parent)
    schema = {"properties": {"p": {"type": "string", "format": "path"}}, "required": ["p"]}
    known = recipes(workspace, one_task(["cat", "{p}"], schema, cwd='"sub"', concurrency_key='"{p}"'))
    assert known.expand(task(p="file")).concurrency_key == "sub/file"
    assert known.expand(task(p="file")).cwd == workspace / "sub"
    with pytest.raises(OutsideWorkspace):
        known.expand(task(p="out/file"))


def test_an_input_may_choose_the_folder_of_the_command(workspace: Path) -> None:
    schema = {"properties": {"p": {"type": "string", "format": "path"}}, "required": ["p"]}
    known = recipes(workspace, one_task(["make"], schema, cwd='"{p}"', concurrency_key='"make:{p}"'))
    assert known.expand(task(p="./a/b")).cwd == workspace / "a" / "b"
    assert known.expand(task(p="./a/b")).concurrency_key == "make:a/b"
    with pytest.raises(OutsideWorkspace) as caught:
        known.expand(task(p="../x"))
    assert pointers(caught.value) == ["#/params/inputs/p"]


def test_each_violation_of_a_schema_has_its_own_pointer(workspace: Path) -> None:
    schema = {
        "type": "object",
        "required": ["path", "mode"],
        "additionalProperties": False,
        "properties": {
            "path": {"type": "string"},
            "mode": {"enum": ["a", "b"]},
            "deep": {"type": "array", "items": {"type": "object", "properties": {"n": {"maximum": 3}}}},
            "a/b~c é": {"type": "integer"},
        },
    }
    inputs: dict[str, Any] = {"mode": "c", "deep": [{"n": 9}], "a/b~c é": "x", "extra": 1}
    with pytest.raises(InputsRejected) as caught:
        recipes(workspace, one_task(["true"], schema)).expand(task(**inputs))
    assert sorted(pointers(caught.value)) == [
        "#/params/inputs/a~1b~0c%20%C3%A9",
        "#/params/inputs/deep/0/n",
        "#/params/inputs/extra",
        "#/params/inputs/mode",
        "#/params/inputs/path",
    ]


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ("a\0b", "#/params/inputs/x"),
        ("\ud800", "#/params/inputs/x"),
        ({"k": ["ok", "\0"]}, "#/params/inputs/x/k/1"),
        ({"\0": 1}, "#/params/inputs/x"),
        (math.inf, "#/params/inputs/x"),
        (math.nan, "#/params/inputs/x"),
        ({"a": 1}, "#/params/inputs/x"),
        ([["a"]], "#/params/inputs/x/0"),
        (["a", None], "#/params/inputs/x/1"),
        (nested(20_000), "#/params/inputs/x/0"),
        ([nested(20_000), "\0"], "#/params/inputs/x/1"),
    ],
)
def test_values_that_no_command_line_can_hold_are_refused(workspace: Path, value: Any, pointer: str) -> None:
    known = recipes(workspace, one_task(["echo", "{x}"], {"properties": {"x": True}}))
    with pytest.raises(InputsRejected) as caught:
        known.expand(task(x=value))
    assert pointer in pointers(caught.value)


def test_a_value_nested_too_deeply_for_the_validator_is_refused(workspace: Path) -> None:
    known = recipes(workspace, one_task(["true"], {"properties": {"x": {"enum": ["a"]}}}))
    with pytest.raises(InputsRejected) as caught:
        known.expand(task(x=nested(20_000)))
    assert pointers(caught.value) == ["#/params/inputs"]


def test_null_cannot_be_part_of_a_text(workspace: Path) -> None:
    known = recipes(workspace, one_task(["true"], {"properties": {"x": True}, "required": ["x"]}, env='{ X = "{x}" }'))
    with pytest.raises(InputsRejected):
        known.expand(task(x=None))


def test_violations_are_bounded_in_number_and_length(workspace: Path) -> None:
    known = recipes(workspace, one_task(["true"], {"additionalProperties": {"maxLength": 1}}))
    with pytest.raises(InputsRejected) as caught:
        known.expand(task(**{f"x{number}": "long" * 1000 for number in range(100)}))
    assert len(caught.value.violations) == 20
    assert all(len(violation.detail) < 220 for violation in caught.value.violations)


def test_an_unknown_task_is_not_found(workspace: Path) -> None:
    with pytest.raises(TaskNotFound) as caught:
        recipes(workspace).expand(task("nope"))
    assert pointers(caught.value) == ["#/params/task"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def tricky(tmp_path_factory: pytest.TempPathFactory) -> Recipes:
    workspace = tmp_path_factory.mktemp("workspace")
    schema = {"properties": {"p": {"format": "path"}, "l": {"items": {"format": "path"}}, "x": True, "d": {"default": 1}}}
    return recipes(workspace, one_task(["echo", "{p}", "{l}", "{x}", "{d}"], schema, env='{ D = "{d}" }', concurrency_key='"{d}"'))


@hypothesis_settings(max_examples=300, deadline=None)
@given(inputs=st.dictionaries(st.sampled_from("plxdz"), json_values | st.sampled_from(["..", "/", "-x", "a/b"]), max_size=5))
def test_any_inputs_give_a_command_or_a_refusal(tricky: Recipes, inputs: dict[str, Any]) -> None:
    try:
        recipe = tricky.expand(Submission(JobType.TASK, {"task": "t", "inputs": inputs}))
    except (InputsRejected, OutsideWorkspace) as refusal:
        assert all(pointer.startswith("#/params/inputs") for pointer in pointers(refusal))
        assert pointers(refusal)
        return
    for argument in (*recipe.argv, *recipe.env.values(), recipe.concurrency_key or ""):
        assert "\0" not in os.fsencode(argument).decode()
    assert len(recipe.argv) >= 1
    for element in recipe.argv[1:]:
        assert not element.startswith("-") or is_number(element)  # no text of a client's is an option; a number may be negative


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# What an operator may get wrong: one clear line each, which names the file, the task and the place.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tasks.t]\nargv = [\n", "is not TOML"),
        ("[task.t]\nargv = ['x']", "unknown key 'task' (did you mean 'tasks'?)"),
        ("tasks = 3", "tasks must be a table"),
        ("[tasks]\nt = 3", "must be a table"),
        ("[tasks.'-t']\nargv = ['x']", "a task's name"),
        ("[tasks.t]\narvg = ['x']", "unknown key 'arvg' (did you mean 'argv'?)"),
        ("[tasks.t]\ntitle = 'T'", "argv is missing"),
        ("[tasks.t]\nargv = []", "argv must begin with a program"),
        ("[tasks.t]\nargv = 'ls -l'", "argv must be a list of strings"),
        ("[tasks.t]\nargv = ['ls', 1]", "argv must be a list of strings"),
        ('[tasks.t]\nargv = ["ls\\u0000"]', "argv must be a list of strings"),
        (one_task(["{x}"], {"properties": {"x": True}}), "argv must begin with a program, not with an input"),
        (one_task(["ls", "{x}"]), "argv: no input provides {x}"),
        (one_task(["ls", "{paht}"], {"properties": {"path": True}}), "no input provides {paht} (did you mean 'path'?)"),
        (one_task(["ls", "--dir={x}"], {"properties": {"x": True}}), "argv: {x} must be a whole element, not a part of '--dir={x}'"),
        (one_task(["ls", "{o}"], {"properties": {"o": {"type": "object"}}}), "argv: input 'o' is an object"),
        (one_task(["ls"], {"properties": {"x": True}}, cwd='"{x}"'), "cwd: input 'x' may be absent here"),
        (one_task(["ls"], {"properties": {"x": True}}, env='{ A = "{x}" }'), "env.A: input 'x' may be absent here"),
        (one_task(["ls"], {"properties": {"x": {"type": "array"}}, "required": ["x"]}, concurrency_key='"{x}"'), "is a list or an object"),
        (one_task(["ls"], cwd="3"), "cwd must be a string"),
        (one_task(["ls"], cwd='"../x"'), "cwd '../x' is not a path inside the workspace"),
        (one_task(["ls"], cwd='"/"'), "cwd '/' is not a path inside the workspace"),
        (one_task(["ls"], timeout="0"), "timeout must be a number of seconds"),
        (one_task(["ls"], timeout='"5"'), "timeout must be a number of seconds"),
        (one_task(["ls"], timeout="true"), "timeout must be a number of seconds"),
        (one_task(["ls"], timeout="nan"), "timeout must be a number of seconds"),
        (one_task(["ls"], stop_grace="-1"), "stop_grace must be a number of seconds, 0 or more"),
        (one_task(["ls"], stop_signal='"SIGTREM"'), "unknown signal 'SIGTREM' (did you mean 'SIGTERM'?)"),
        (one_task(["ls"], pty='"no"'), "pty must be true or false"),
        (one_task(["ls"], ready='"("'), "ready: '(' is not a regular expression"),
        (one_task(["ls"], progress='["(?P<done>"]'), "is not a regular expression"),
        (one_task(["ls"], progress='["(?P<done>x)"]'), "has neither a group (?P<percent>…) nor both"),
        (one_task(["ls"], queue='"a b"'), "queue must be"),
        (one_task(["ls"], env="{ A = 1 }"), "env must be a table of strings"),
        (one_task(["ls"], env='{ "A B" = "x" }'), "'A B' is not the name of an environment variable"),
        (one_task(["ls"], env='{ RUNCAST_TOKEN = "x" }'), "is reserved for runcast itself"),
        (one_task(["ls"], secrets='["RUNCAST_TOKEN"]'), "is reserved for runcast itself"),
        (one_task(["ls"], secrets='"TOKEN"'), "secrets must be a list of strings"),
        (one_task(["ls"], {"type": "array"}), "inputs must be a JSON Schema with type"),
        (one_task(["ls"], {"properties": {"x": {"type": "strin"}}}), "inputs is not a JSON Schema"),
        (one_task(["ls"], {"properties": {"x": {"pattern": "("}}}), "inputs is not a JSON Schema"),
        (one_task(["ls"], {"properties": {"x": {"format": "pth"}}}), "Unknown format: 'pth'"),
        (one_task(["ls"], {"$ref": "https://example.com/schema"}), "inputs is not a JSON Schema"),
        (one_task(["ls"], {"properties": {"x": {"anyOf": [{"format": "path"}]}}}), 'format = "path" must stand on an input itself'),
        (one_task(["ls"], {"properties": {"x": {"type": "integer", "default": "no"}}}), "the default of 'x' does not match its schema"),
        ("[tasks.t]\nargv = ['x']\n[tasks.t.inputs]\nproperties.d.default = 2020-01-01", "inputs is not a JSON Schema"),
    ],
)
def test_an_invalid_tasks_file_is_one_clear_line(workspace: Path, text: str, says: str) -> None:
    with pytest.raises(OperatorError) as caught:
        recipes(workspace, text)
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert "task" in line


def test_a_toml_error_names_its_line(workspace: Path) -> None:
    with pytest.raises(OperatorError, match="line 3"):
        recipes(workspace, "[tasks.t]\nargv = ['x']\ntitle = \n")


def test_a_tasks_file_that_cannot_be_read_is_one_clear_line(workspace: Path) -> None:
    for name, says in [("nowhere.toml", "does not exist"), ("", "cannot be read"), ("latin.toml", "is not UTF-8")]:
        (workspace / "latin.toml").write_bytes(b"# \xe9")
        with pytest.raises(OperatorError, match=says):
            Recipes.load(workspace=workspace, tasks_file=workspace / name)


def test_a_missing_workspace_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="does not exist"):
        Recipes.load(workspace=tmp_path / "nowhere", tasks_file=None)


def test_job_types_list_the_built_in_ones_and_the_tasks(workspace: Path) -> None:
    infos = recipes(workspace, LINT + one_task(["true"]).replace("tasks.t", "tasks.a")).job_types()
    assert [(info.type, info.task, info.queue) for info in infos] == [
        (JobType.BUILD, None, "default"),
        (JobType.LAUNCH, None, "default"),
        (JobType.CREATE, None, "default"),
        (JobType.TASK, "a", "default"),
        (JobType.TASK, "lint", "fast"),
    ]
    assert infos[-1].title == "Lint a folder"
    assert infos[-1].schema == tomllib.loads(LINT)["tasks"]["lint"]["inputs"]
    assert infos[0].schema is None


# The built-in recipes.


@pytest.fixture
def shipped(tmp_path: Path) -> Recipes:
    root = tmp_path / "shipped"
    copy_workspace(root)
    (root / "source/apps").mkdir()
    (root / "source/apps/my.editor.kit").touch()
    (root / "team/source/apps").mkdir(parents=True)
    (root / "team/repo.sh").touch()
    (root / "team/source/apps/theirs.kit").touch()
    return Recipes.load(workspace=root, tasks_file=None)


def submit(type: JobType, **params: Any) -> Submission:
    return Submission(type, params)


@pytest.mark.parametrize(
    ("params", "options", "folder", "key"),
    [
        ({}, ["-r"], ".", "workspace"),
        ({"config": "release"}, ["-r"], ".", "workspace"),
        ({"config": "debug", "clean": True}, ["-d", "-c"], ".", "workspace"),
        ({"rebuild": True}, ["-r", "-x"], ".", "workspace"),
        ({"rebuild": True, "clean": True}, ["-r", "-x"], ".", "workspace"),
        ({"rebuild": False, "clean": False}, ["-r"], ".", "workspace"),
        ({"project": "my.editor"}, ["-r", "-t", "my.editor"], ".", "project:my.editor"),
        ({"project": "sample.web", "config": "debug"}, ["-d", "-t", "sample.web"], ".", "project:sample.web"),
        ({"project": "team"}, ["-r"], "team", "project:team"),
    ],
)
def test_build_commands(shipped: Recipes, params: dict[str, Any], options: list[str], folder: str, key: str) -> None:
    recipe = shipped.expand(submit(JobType.BUILD, **params))
    assert recipe.argv == ("./repo.sh", "build", *options)
    assert recipe.cwd == shipped.workspace.root / folder
    assert (recipe.concurrency_key, recipe.project) == (key, params.get("project"))
    assert recipe.pty
    assert recipe.timeout


def test_build_of_an_unknown_project_is_refused(shipped: Recipes) -> None:
    with pytest.raises(ProjectNotFound) as caught:
        shipped.expand(submit(JobType.BUILD, project="nope"))
    assert pointers(caught.value) == ["#/params/project"]


def test_all_builds_of_a_kit_checkout_share_one_key(shipped: Recipes) -> None:
    (shipped.workspace.root / "tools/packman").mkdir()
    for submission in (
        submit(JobType.BUILD, project="my.editor"),
        submit(JobType.BUILD),
        submit(JobType.CREATE, template="small_editor", name="a.b"),
    ):
        assert shipped.expand(submission).concurrency_key == "workspace"
    assert shipped.expand(submit(JobType.BUILD, project="team")).concurrency_key == "project:team"


@pytest.mark.parametrize(
    ("params", "arguments", "folder", "project"),
    [
        ({"app": "my.editor.kit"}, [], ".", "my.editor"),
        ({"app": "my.editor.kit", "args": []}, [], ".", "my.editor"),
        ({"app": "my.editor.kit", "project": "my.editor", "args": ["--/a=b", "--", ""]}, ["--", "--/a=b", "--", ""], ".", "my.editor"),
        ({"app": "theirs.kit", "project": "team"}, [], "team", "team"),
    ],
)
def test_launch_commands(shipped: Recipes, params: dict[str, Any], arguments: list[str], folder: str, project: str) -> None:
    recipe = shipped.expand(submit(JobType.LAUNCH, **params))
    assert recipe.argv == ("./repo.sh", "launch", "--name", params["app"], *arguments)
    assert recipe.cwd == shipped.workspace.root / folder
    assert (recipe.project, recipe.concurrency_key, recipe.timeout, recipe.ready) == (project, None, None, LAUNCH_READY)


def test_launch_of_an_unknown_application_is_refused(shipped: Recipes) -> None:
    with pytest.raises(AppNotFound) as app:
        shipped.expand(submit(JobType.LAUNCH, app="nope.kit"))
    assert pointers(app.value) == ["#/params/app"]
    with pytest.raises(AppNotFound):
        shipped.expand(submit(JobType.LAUNCH, app="my.editor.kit", project="sample.web"))
    with pytest.raises(ProjectNotFound) as project:
        shipped.expand(submit(JobType.LAUNCH, app="my.editor.kit", project="nope"))
    assert pointers(project.value) == ["#/params/project"]
    with pytest.raises(InputsRejected) as args:
        shipped.expand(submit(JobType.LAUNCH, app="my.editor.kit", args=["a", "\ud800"]))
    assert pointers(args.value) == ["#/params/args/1"]


def test_create_commands(shipped: Recipes, tmp_path: Path) -> None:
    recipe = shipped.expand(submit(JobType.CREATE, template="small_editor", name="acme.paint", display_name='"Paint"\\', version="1.2.3"))
    assert (recipe.cwd, recipe.project, recipe.concurrency_key) == (shipped.workspace.root, "acme.paint", "project:acme.paint")
    folder = tmp_path / "files"
    folder.mkdir()
    *command, file = recipe.command(folder)
    assert command == ["./repo.sh", "template", "replay"]
    assert Path(file).parent == folder
    assert tomllib.loads(Path(file).read_text(encoding="utf-8")) == {
        "small_editor": {"application_name": "acme.paint", "application_display_name": '"Paint"\\', "version": "1.2.3"},
    }


@pytest.mark.parametrize(
    ("template", "name", "error", "pointer"),
    [
        ("nope", "a.b", TemplateNotFound, "#/params/template"),
        ("small_service_setup", "a.b", TemplateNotCreatable, "#/params/template"),
        ("fixed_port_layer", "a.b", TemplateNotCreatable, "#/params/template"),
        ("small_editor", "my.editor", ProjectExists, "#/params/name"),
        ("panel_extension", "sample.web", ProjectExists, "#/params/name"),
        ("panel_extension", "team", ProjectExists, "#/params/name"),
        ("small_service", "taken", ProjectExists, "#/params/name"),
    ],
)
def test_create_refuses_existing_projects_and_unknown_templates(
    shipped: Recipes, template: str, name: str, error: type[RuncastError], pointer: str
) -> None:
    (shipped.workspace.root / "source/extensions/taken_setup_extension").mkdir()
    with pytest.raises(error) as caught:
        shipped.expand(submit(JobType.CREATE, template=template, name=name))
    assert pointers(caught.value) == [pointer]


# The environment.

WORKERS = {
    "PATH": "/usr/bin",
    "HOME": "/home/x",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "TZ": "UTC",
    "USER": "x",
    "LOGNAME": "x",
    "TMPDIR": "/tmp",
    "TERM": "dumb",
    "DISPLAY": ":0",
    "RUNCAST_TOKEN": "secret",
    "RUNCAST_JOB": "outer:1",
    "AWS_SECRET": "secret",
    "DEPLOY_TOKEN": "hush",
}


def test_a_job_sees_a_minimal_environment(workspace: Path) -> None:
    recipe = Recipe(argv=("x",), cwd=workspace, env={"CI": "1", "LANG": "de_DE.UTF-8"}, secrets=("DEPLOY_TOKEN",))
    environment = job_environment(WORKERS, recipe=recipe, marker="job:lease")
    assert environment.pop("PATH").split(os.pathsep)[0] == "/usr/bin"
    assert environment == {
        "HOME": "/home/x",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C",
        "TZ": "UTC",
        "USER": "x",
        "LOGNAME": "x",
        "TMPDIR": "/tmp",
        "TERM": "xterm-256color",
        "CI": "1",
        "DEPLOY_TOKEN": "hush",
        MARKER: "job:lease",
    }


def test_only_a_terminal_sets_term_and_only_a_launch_sets_display(workspace: Path) -> None:
    environment = job_environment(
        WORKERS, recipe=Recipe(argv=("x",), cwd=workspace, pty=False, keep=("DISPLAY",)), marker="m", home=workspace
    )
    assert "TERM" not in environment
    assert environment["DISPLAY"] == ":0"
    assert environment["HOME"] == str(workspace)


def test_a_secret_that_is_not_set_stops_the_start(workspace: Path) -> None:
    with pytest.raises(StartFailed, match="DEPLOY_TOKEN"):
        job_environment({}, recipe=Recipe(argv=("x",), cwd=workspace, secrets=("DEPLOY_TOKEN",)), marker="m")
