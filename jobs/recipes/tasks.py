"""Operator tasks: what a tasks file may say, and one clear line (OperatorError) for whatever it says wrongly.

Reads the file; expands nothing (`inputs.py` and `recipes.py` do) and runs nothing. All that can be known before a job is submitted is
checked here, so that a server with a faulty tasks file does not start.

Placeholders. `{path}` stands for the input `path`; `{{path}}` for the text `{path}`; any other brace is itself.

* In `argv` a placeholder is a whole element, never a part of one, and never the program itself. A value is one element whatever it holds,
  a list one element per item, an absent input none. Truth values and numbers become text as in JSON.
* In `cwd`, `env` and `concurrency_key` placeholders may stand within text; such an input must be required, or have a `default`.
* A `default` in the inputs' schema stands in for an absent input.

Inputs that are safe to hand to a command.

* `format = "path"` (on an input, or on the items of a list) makes it a path that may not leave the workspace, seen from `cwd`, the
  folder in which the command will look for it (one that stands in `cwd` only: seen from the workspace). It is checked when the job is
  submitted and again when it starts, and cannot begin with `-`.
* A text in `argv` that begins with `-` would be an option, so it is refused, unless the schema lists it (`enum`, `const`) or says
  `"x-allow-dash" = true`.
"""

from __future__ import annotations

import difflib
import re
import signal
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import jsonschema_rs

from jobs.errors import OperatorError
from jobs.model import Json

_INPUT = r"[A-Za-z_][A-Za-z0-9_-]*"
PLACEHOLDER = re.compile(rf"\{{\{{(?P<literal>{_INPUT})\}}\}}|\{{(?P<name>{_INPUT})\}}")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a task or queue, as in openapi/jobs.yaml
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_PREFIX = "RUNCAST_"  # a job sees nothing of runcast's own
_NO_INPUTS: Mapping[str, Json] = {"type": "object", "additionalProperties": False, "properties": {}}
_NESTED_TYPES = frozenset({"object", "array"})


@dataclass(frozen=True)
class Task:
    """One declared task. Times are in seconds; `inputs` is the JSON Schema as declared, `validator` the same compiled."""

    name: str
    title: str
    description: str | None
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    timeout: float | None
    stop_signal: str
    stop_grace: float
    pty: bool
    progress: tuple[str, ...]
    ready: str | None
    concurrency_key: str | None
    queue: str
    secrets: tuple[str, ...]
    inputs: Mapping[str, Json]
    validator: jsonschema_rs.Validator

    @cached_property
    def properties(self) -> Mapping[str, Mapping[str, Json]]:
        """The declared inputs. One declared as `true` has no rules."""
        return {name: rules if isinstance(rules, dict) else {} for name, rules in self.inputs.get("properties", {}).items()}

    @cached_property
    def defaults(self) -> Mapping[str, Json]:
        return {name: rules["default"] for name, rules in self.properties.items() if "default" in rules}


def load_tasks(path: Path) -> dict[str, Task]:
    """The tasks that a file declares, by name. Raises OperatorError."""
    document = _read(path)
    where = _Where(str(path))
    where.only_keys(document, ("tasks",))
    tasks = document.get("tasks", {})
    if not isinstance(tasks, dict):
        where.fail("tasks must be a table: [tasks.NAME]")
    return {name: _task(name, table, where=_Where(f"{path}: task {name!r}")) for name, table in tasks.items()}


def whole_placeholder(element: str) -> str | None:
    """The input that an argv element stands for, or None when it is text."""
    match = PLACEHOLDER.fullmatch(element)
    return match["name"] if match else None


def placeholders(text: str) -> Iterator[str]:
    """The inputs that a text names."""
    return (match["name"] for match in PLACEHOLDER.finditer(text) if match["name"])


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with its placeholders replaced; raises KeyError for one without a value."""
    return PLACEHOLDER.sub(lambda match: values[match["name"]] if match["name"] else "{" + match["literal"] + "}", text)


def is_path(rules: Mapping[str, Json]) -> bool:
    """Whether an input, or each item of a list, is a path."""
    items = rules.get("items")
    return rules.get("format") == "path" or (isinstance(items, dict) and items.get("format") == "path")


def may_begin_with_dash(rules: Mapping[str, Json]) -> bool:
    items = rules.get("items")
    return any("enum" in part or "const" in part or part.get("x-allow-dash") is True for part in (rules, items) if isinstance(part, dict))


class _Where:
    """A place in the file: checks what stands there, and fails with a line that names it."""

    def __init__(self, place: str) -> None:
        self._place = place

    def fail(self, what: str) -> NoReturn:
        raise OperatorError(f"{self._place}: {what}")

    def only_keys(self, table: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                self.fail(f"unknown key {key!r}{_nearest(key, known)}")

    def text(self, table: Mapping[str, Any], key: str, *, default: str | None = None) -> str | None:
        value = table.get(key, default)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            self.fail(f"{key} must be a text that is not empty")
        return value

    def texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            self.fail(f"{key} must be a list of strings")
        return tuple(value)

    def seconds(self, table: Mapping[str, Any], key: str, *, default: float | None, least: float) -> float | None:
        value = table.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 10**9:
            self.fail(f"{key} must be a number of seconds, {least:g} or more")
        return float(value)

    def truth(self, table: Mapping[str, Any], key: str, *, default: bool) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key} must be true or false")
        return value

    def pattern(self, key: str, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except re.error as error:
            self.fail(f"{key}: {pattern!r} is not a regular expression ({error})")


_KEYS = (
    "title",
    "description",
    "argv",
    "cwd",
    "env",
    "timeout",
    "stop_signal",
    "stop_grace",
    "pty",
    "progress",
    "ready",
    "concurrency_key",
    "queue",
    "secrets",
    "inputs",
)


def _task(name: str, table: Json, *, where: _Where) -> Task:
    if not _NAME.fullmatch(name):
        where.fail("a task's name has letters, digits, '_', '-' and '.', does not begin with '-' or '.', and has at most 100 of them")
    if not isinstance(table, dict):
        where.fail("must be a table")
    where.only_keys(table, _KEYS)
    inputs = table.get("inputs", _NO_INPUTS)
    task = Task(
        name=name,
        title=where.text(table, "title", default=name) or name,
        description=where.text(table, "description"),
        argv=_argv(table, where=where),
        cwd=where.text(table, "cwd", default=".") or ".",
        env=_env(table, where=where),
        timeout=where.seconds(table, "timeout", default=None, least=0.001),
        stop_signal=_stop_signal(table, where=where),
        stop_grace=where.seconds(table, "stop_grace", default=5, least=0) or 0,
        pty=where.truth(table, "pty", default=True),
        progress=_progress(table, where=where),
        ready=_ready(table, where=where),
        concurrency_key=where.text(table, "concurrency_key"),
        queue=_queue(table, where=where),
        secrets=_variables(where.texts(table, "secrets"), key="secrets", where=where),
        inputs=inputs,
        validator=_validator(inputs, where=where),
    )
    _check_defaults(task, where=where)
    _check_placeholders(task, where=where)
    return task


def _argv(table: Mapping[str, Any], *, where: _Where) -> tuple[str, ...]:
    if "argv" not in table:
        where.fail("argv is missing: the command as a list of strings")
    argv = where.texts(table, "argv")
    if not argv or not argv[0]:
        where.fail("argv must begin with a program")
    if whole_placeholder(argv[0]):
        where.fail("argv must begin with a program, not with an input")
    return argv


def _env(table: Mapping[str, Any], *, where: _Where) -> Mapping[str, str]:
    env = table.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) and "\0" not in value for value in env.values()):
        where.fail("env must be a table of strings")
    _variables(env, key="env", where=where)
    return env


def _variables(names: Iterable[str], *, key: str, where: _Where) -> tuple[str, ...]:
    for name in names:
        if not _VARIABLE.fullmatch(name):
            where.fail(f"{key}: {name!r} is not the name of an environment variable")
        if name.startswith(_OWN_PREFIX):
            where.fail(f"{key}: {name!r} belongs to runcast itself; no job sees it")
    return tuple(names)


def _stop_signal(table: Mapping[str, Any], *, where: _Where) -> str:
    name = where.text(table, "stop_signal", default="SIGTERM") or ""
    known = [known.name for known in signal.Signals]
    if name not in known:
        where.fail(f"stop_signal: unknown signal {name!r}{_nearest(name, known)}")
    return name


def _progress(table: Mapping[str, Any], *, where: _Where) -> tuple[str, ...]:
    patterns = where.texts(table, "progress")
    for pattern in patterns:
        groups = where.pattern("progress", pattern).groupindex.keys()
        if "percent" not in groups and not {"done", "total"} <= groups:
            where.fail(f"progress: {pattern!r} names neither (?P<percent>…) nor both (?P<done>…) and (?P<total>…)")
    return patterns


def _ready(table: Mapping[str, Any], *, where: _Where) -> str | None:
    ready = where.text(table, "ready")
    if ready is not None:
        where.pattern("ready", ready)
    return ready


def _queue(table: Mapping[str, Any], *, where: _Where) -> str:
    queue = where.text(table, "queue", default="default") or ""
    if not _NAME.fullmatch(queue):
        where.fail("queue must be letters, digits, '_', '-' and '.', at most 100 of them")
    return queue


def _validator(schema: Json, *, where: _Where) -> jsonschema_rs.Validator:
    """The compiled schema. Unknown formats are refused, since they would be ignored; nothing is fetched from anywhere."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        where.fail('inputs must be a JSON Schema with type = "object"')
    try:
        validator = jsonschema_rs.validator_for(
            schema, offline=True, validate_formats=True, ignore_unknown_formats=False, formats={"path": lambda _: True}
        )
    except jsonschema_rs.ValidationError as error:
        pointer = "".join(f"/{part}" for part in error.instance_path)
        where.fail(f"inputs is not a JSON Schema: {error.message}" + (f" (at {pointer})" if pointer else ""))
    except ValueError as error:
        where.fail(f"inputs is not a JSON Schema: {error}")
    _check_path_formats(schema, where=where)
    return validator


def _check_path_formats(schema: Mapping[str, Any], *, where: _Where) -> None:
    """A path that the fence would overlook must not look as if it were guarded."""
    guarded = 0
    properties = schema.get("properties", {})
    for rules in properties.values():
        items = rules.get("items") if isinstance(rules, dict) else None
        guarded += sum(part.get("format") == "path" for part in (rules, items) if isinstance(part, dict))
    if _count_path_formats(schema) > guarded:
        where.fail('inputs: format = "path" must stand on an input itself, or on the items of one that is a list')


def _count_path_formats(schema: Json) -> int:
    if isinstance(schema, dict):
        return (schema.get("format") == "path") + sum(_count_path_formats(part) for part in schema.values())
    return sum(_count_path_formats(part) for part in schema) if isinstance(schema, list) else 0


def _check_defaults(task: Task, *, where: _Where) -> None:
    # Only what the defaults themselves break counts: the inputs that they leave out are for the client to give.
    for error in task.validator.iter_errors(dict(task.defaults)):
        if error.instance_path and error.instance_path[0] in task.defaults:
            where.fail(f"inputs: the default of {error.instance_path[0]!r} breaks its own rules: {error.message}")


def _check_placeholders(task: Task, *, where: _Where) -> None:
    sure = {*task.inputs.get("required", ()), *task.defaults}
    for element in task.argv:
        if not whole_placeholder(element) and (part := next(placeholders(element), None)):
            where.fail(f"argv: {{{part}}} must be a whole element, not a part of {element!r} (write {{{{{part}}}}} for the text itself)")
        _check_known(placeholders(element), key="argv", task=task, where=where)
    within = {"cwd": task.cwd, "concurrency_key": task.concurrency_key or "", **{f"env.{name}": text for name, text in task.env.items()}}
    for key, text in within.items():
        _check_known(placeholders(text), key=key, task=task, where=where)
        for name in placeholders(text):
            if name not in sure:
                where.fail(f"{key}: input {name!r} may be absent there; make it required, or give it a default")
            if _NESTED_TYPES & _types(task.properties[name]):
                where.fail(f"{key}: input {name!r} is a list or an object, which is no text")
    for name in (name for element in task.argv for name in placeholders(element)):
        if "object" in _types(task.properties[name]):
            where.fail(f"argv: input {name!r} is an object, which is no argument")


def _check_known(names: Iterator[str], *, key: str, task: Task, where: _Where) -> None:
    for name in names:
        if name not in task.properties:
            where.fail(f"{key}: no input provides {{{name}}}{_nearest(name, list(task.properties))}")


def _types(rules: Mapping[str, Any]) -> frozenset[str]:
    declared = rules.get("type", ())
    return frozenset([declared] if isinstance(declared, str) else declared)


def _nearest(word: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OperatorError(f"the tasks file {path} does not exist") from None
    except OSError as error:
        raise OperatorError(f"the tasks file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"the tasks file {path} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError(f"the tasks file {path} is not TOML: {error}") from None
