"""A client's inputs for a task are plain data: whole arguments, inside the workspace, and options only where the operator allows them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from jobs.errors import Conflict, InputsRejected, NotFound, OutsideWorkspace, RuncastError
from jobs.model import JobType, Submission
from jobs.recipes.expand import Recipe, Recipes, job_environment
from jobs.recipes.workspace import SHIPPED

INPUTS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text", "number"],
    "properties": {
        "text": {"type": "string", "maxLength": 40},
        "number": {"type": ["number", "boolean"]},
        "words": {"type": "array", "maxItems": 4, "items": {"type": ["string", "integer"]}},
        "path": {"type": "string", "format": "path"},
        "paths": {"type": "array", "items": {"type": "string", "format": "path"}},
        "mode": {"enum": ["--fast", "--slow"]},
        "option": {"type": "string", "x-allow-dash": True},
        "unused": {},
    },
}
PATHS = frozenset({"path", "paths"})
MAY_BEGIN_WITH_DASH = frozenset({"mode", "option"})

elements = st.sampled_from([*(f"{{{name}}}" for name in INPUTS["properties"]), "{{text}}", "--to={{path}}", "a b", "$(id)", "{}", "}{"])
texts = st.one_of(
    st.sampled_from(["", "-", "-x", "--config=x", "{text}", "{{text}}", "{path}", "$(id)", "; ls", "a\nb", "a\0b", "\ud800", "*", "é"]),
    st.text(st.characters(exclude_categories=()), max_size=50),
)
numbers = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=True), st.sampled_from([1.0, -0.0, 1e300]))
paths = st.one_of(
    st.lists(st.sampled_from(["a", "..", ".", "", "in", "out", "up", "loop", "x", "-f", "~", "a\0", "\u2025"]), max_size=5).map("/".join),
    texts,
)
inputs = st.fixed_dictionaries(
    {"text": texts, "number": numbers},
    optional={
        "words": st.lists(st.one_of(texts, st.integers(-5, 5)), max_size=5),
        "path": paths,
        "paths": st.lists(paths, max_size=3),
        "mode": st.sampled_from(["--fast", "--slow", "fast"]),
        "option": texts,
        "unused": st.none() | texts,
        "unknown": texts,
    },
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With links that stay inside, lead out, and lead nowhere."""
    root = tmp_path_factory.mktemp("recipes")
    outside, inside = root / "outside", root / "workspace"
    (outside / "a").mkdir(parents=True)
    (inside / "a" / "a").mkdir(parents=True)
    links = {"in": inside / "a", "out": outside, "up": Path(".."), "loop": inside / "loop", "a/out": outside / "a"}
    for name, target in links.items():
        (inside / name).symlink_to(target)
    return inside


def declared(folder: Path, *, argv: list[str], cwd: str = ".") -> Path:
    """A tasks file with one task. What JSON escapes, TOML reads alike."""
    schema = "\n".join(f"{name} = {_toml(rules)}" for name, rules in INPUTS["properties"].items())
    own = {key: _toml(value) for key, value in INPUTS.items() if key != "properties"}
    file = folder / "tasks.toml"
    file.write_text(
        f"[tasks.t]\nargv = {_toml(['program', *argv])}\ncwd = {_toml(cwd)}\n"
        f'env = {{ A = "x{{text}}y{{{{text}}}}" }}\nconcurrency_key = "k:{{text}}:{{number}}"\n'
        "[tasks.t.inputs]\n" + "\n".join(f"{key} = {value}" for key, value in own.items()) + f"\n[tasks.t.inputs.properties]\n{schema}\n"
    )
    return file


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def values_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_text(value: Any) -> str:
    """The plain definition of a value as an argument: a text as it is, anything else as JSON has it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def is_inside(root: Path, path: str) -> bool:
    """Asked of the system and not of the text: where does it lead?"""
    if not path or path.startswith("/") or ".." in path.split("/"):
        return False
    try:
        (root / path).resolve(strict=True)
    except FileNotFoundError:
        pass  # it need not exist
    except (OSError, RuntimeError, ValueError):
        return False
    real = os.path.realpath(root / path)
    return os.path.commonpath([real, root]) == str(root)


def is_usable(text: str) -> bool:
    return "\0" not in text and not re.search("[\ud800-\udfff]", text)


def fits(root: Path, given: Mapping[str, Any], argv: list[str]) -> bool:
    """The plain definition of what is accepted; the schema is left to another implementation of JSON Schema."""
    if not all(is_usable(text) for text in _texts_in(given)) or not Draft202012Validator(INPUTS).is_valid(given):
        return False
    for name, value in given.items():
        for item in values_of(value):
            used = f"{{{name}}}" in argv
            if name in PATHS and (item.startswith("-") or not is_inside(root, item)):
                return False
            if used and item is None:
                continue
            if used and isinstance(item, str) and item.startswith("-") and name not in MAY_BEGIN_WITH_DASH:
                return False
            if (used or name in ("text", "number")) and isinstance(item, float) and item - item != 0:
                return False
    return True


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from _texts_in(item)


def expected(given: Mapping[str, Any], element: str) -> list[str]:
    """What one element of `argv` becomes."""
    if (name := re.fullmatch(r"\{(\w+)\}", element)) is None:
        return [element.replace("{{", "{").replace("}}", "}") if "{{" in element else element]
    value = given.get(name[1])
    return [] if value is None else [as_text(item) for item in values_of(value)]


def expand(recipes: Recipes, given: Mapping[str, Any]) -> Recipe:
    return recipes.expand(Submission(JobType.TASK, {"task": "t", "inputs": given}))


@given(argv=st.lists(elements, max_size=6), inputs=inputs)
@example(argv=["{text}", "{text}"], inputs={"text": "{number}", "number": 1})
@example(argv=["{words}", "{path}"], inputs={"text": "", "number": 1, "words": ["", "-"], "path": "in"})
def test_values_fill_only_whole_arguments(workspace: Path, argv: list[str], inputs: dict[str, Any]) -> None:
    recipes = Recipes.load(workspace=workspace, tasks_file=declared(workspace.parent, argv=argv))
    if not fits(workspace, inputs, argv):
        event("refused")
        with pytest.raises((InputsRejected, OutsideWorkspace)) as refused:
            expand(recipes, inputs)
        assert refused.value.violations
        assert all(fault.pointer.startswith("#/params/inputs") for fault in refused.value.violations)
        return
    event("accepted")
    recipe = expand(recipes, inputs)
    assert list(recipe.argv) == ["program", *(text for element in argv for text in expected(inputs, element))]
    assert recipe.env == {"A": f"x{inputs['text']}y{{text}}"}
    assert recipe.cwd == workspace
    key = f"k:{inputs['text']}:{as_text(inputs['number'])}"
    assert recipe.concurrency_key is not None and 0 < len(recipe.concurrency_key) <= 300
    assert recipe.concurrency_key == key or re.search(r"[\x00-\x1f\x7f]", key) or len(key) > 300
    environment = job_environment({"PATH": "/bin", "RUNCAST_TOKEN": "secret", "OTHER": "x"}, recipe=recipe, marker="m")
    assert not {"RUNCAST_TOKEN", "OTHER"} & environment.keys()


@given(path=paths, used=st.booleans())
def test_no_folder_of_a_command_is_outside_the_workspace(workspace: Path, path: str, used: bool) -> None:
    recipes = Recipes.load(workspace=workspace, tasks_file=declared(workspace.parent, argv=["{unused}"], cwd="{text}/a"))
    try:
        recipe = expand(recipes, {"text": path, "number": 1, **({"path": "a"} if used else {})})
    except (InputsRejected, OutsideWorkspace):
        return
    assert is_inside(workspace, f"{path}/a")
    assert recipe.cwd == Path(os.path.realpath(workspace / path / "a"))


NAMES = st.one_of(st.sampled_from(["small_editor", "my_company.my_editor", "demo", "-x", "..", "a/b", "$(id)", "x.kit"]), texts)


@given(
    type=st.sampled_from([JobType.BUILD, JobType.LAUNCH, JobType.CREATE]),
    name=NAMES,
    more=st.fixed_dictionaries({}, optional={"display_name": texts, "version": texts, "args": st.lists(texts, max_size=4)}),
)
def test_built_in_job_types_accept_names_and_never_options(type: JobType, name: str, more: dict[str, Any]) -> None:
    """Whatever the contract lets through or not: this is behind it."""
    params = {JobType.BUILD: {"project": name}, JobType.LAUNCH: {"app": name}, JobType.CREATE: {"template": "small_editor", "name": name}}
    recipes = Recipes.load(workspace=SHIPPED, tasks_file=None)
    try:
        recipe = recipes.expand(Submission(type, {**params[type], **more}))
    except (NotFound, Conflict) as refused:
        assert refused.violations
        return
    except RuncastError:
        raise AssertionError("neither unknown nor in conflict") from None
    own, _, passed_on = [list(recipe.argv), "--", []] if "--" not in recipe.argv else _parted(recipe.argv)
    assert own[0] == "./repo.sh"
    assert [element for element in own if element.startswith("-")] == [element for element in own if element in ("-r", "-t", "--name")]
    assert passed_on == (more.get("args", []) if type is JobType.LAUNCH else [])
    assert recipe.cwd.is_relative_to(SHIPPED)


def _parted(argv: tuple[str, ...]) -> tuple[list[str], str, list[str]]:
    place = argv.index("--")
    return list(argv[:place]), "--", list(argv[place + 1 :])
