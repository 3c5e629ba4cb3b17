"""Reads a tasks file, and raises OperatorError with one clear line for anything invalid in it.

Everything that can be checked before a job is submitted is checked here, so that a server with an invalid tasks file does not start. The
docstring of `tasks.py` states the rules.
"""

from __future__ import annotations

import difflib
import re
import signal
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonschema_rs

from jobs.errors import OperatorError
from jobs.model import Json
from jobs.recipes.tasks import Task, placeholders, whole_placeholder

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a task or queue, as in openapi/jobs.yaml
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_PREFIX = "RUNCAST_"  # jobs do not see runcast's own variables
_NO_INPUTS: Mapping[str, Json] = {"type": "object", "additionalProperties": False, "properties": {}}
_NESTED_TYPES = frozenset({"object", "array"})


def load_tasks(path: Path) -> dict[str, Task]:
    """The tasks that a file declares, by name. Raises OperatorError."""
    document = _read(path)
    place = _Place(str(path))
    place.only_keys(document, ("tasks",))
    tasks = document.get("tasks", {})
    if not isinstance(tasks, dict):
        place.fail("tasks must be a table: [tasks.NAME]")
    return {name: _task(name, table, place=_Place(f"{path}: task {name!r}")) for name, table in tasks.items()}


class _Place:
    """A place in the file. Its methods check a value there and raise OperatorError with a line that names the place."""

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
            self.fail(f"{key} must be a string that is not empty")
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


def _task(name: str, table: Json, *, place: _Place) -> Task:
    if not _NAME.fullmatch(name):
        place.fail("a task's name must be at most 100 letters, digits, '_', '-' and '.', and must not begin with '-' or '.'")
    if not isinstance(table, dict):
        place.fail("must be a table")
    place.only_keys(table, _KEYS)
    inputs = table.get("inputs", _NO_INPUTS)
    task = Task(
        name=name,
        title=place.text(table, "title", default=name) or name,
        description=place.text(table, "description"),
        argv=_argv(table, place=place),
        cwd=place.text(table, "cwd", default=".") or ".",
        env=_env(table, place=place),
        timeout=place.seconds(table, "timeout", default=None, least=0.001),
        stop_signal=_stop_signal(table, place=place),
        stop_grace=place.seconds(table, "stop_grace", default=5, least=0) or 0,
        pty=place.truth(table, "pty", default=True),
        progress=_progress(table, place=place),
        ready=_ready(table, place=place),
        concurrency_key=place.text(table, "concurrency_key"),
        queue=_queue(table, place=place),
        secrets=_variables(place.texts(table, "secrets"), key="secrets", place=place),
        inputs=inputs,
        validator=_validator(inputs, place=place),
    )
    _check_defaults(task, place=place)
    _check_placeholders(task, place=place)
    return task


def _argv(table: Mapping[str, Any], *, place: _Place) -> tuple[str, ...]:
    if "argv" not in table:
        place.fail("argv is missing: the command as a list of strings")
    argv = place.texts(table, "argv")
    if not argv or not argv[0]:
        place.fail("argv must begin with a program")
    if whole_placeholder(argv[0]):
        place.fail("argv must begin with a program, not with an input")
    return argv


def _env(table: Mapping[str, Any], *, place: _Place) -> Mapping[str, str]:
    env = table.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) and "\0" not in value for value in env.values()):
        place.fail("env must be a table of strings")
    _variables(env, key="env", place=place)
    return env


def _variables(names: Iterable[str], *, key: str, place: _Place) -> tuple[str, ...]:
    for name in names:
        if not _VARIABLE.fullmatch(name):
            place.fail(f"{key}: {name!r} is not the name of an environment variable")
        if name.startswith(_OWN_PREFIX):
            place.fail(f"{key}: {name!r} is reserved for runcast itself, and no job sees it")
    return tuple(names)


def _stop_signal(table: Mapping[str, Any], *, place: _Place) -> str:
    name = place.text(table, "stop_signal", default="SIGTERM") or ""
    known = [known.name for known in signal.Signals]
    if name not in known:
        place.fail(f"stop_signal: unknown signal {name!r}{_nearest(name, known)}")
    return name


def _progress(table: Mapping[str, Any], *, place: _Place) -> tuple[str, ...]:
    patterns = place.texts(table, "progress")
    for pattern in patterns:
        groups = place.pattern("progress", pattern).groupindex.keys()
        if "percent" not in groups and not {"done", "total"} <= groups:
            place.fail(f"progress: {pattern!r} has neither a group (?P<percent>…) nor both (?P<done>…) and (?P<total>…)")
    return patterns


def _ready(table: Mapping[str, Any], *, place: _Place) -> str | None:
    ready = place.text(table, "ready")
    if ready is not None:
        place.pattern("ready", ready)
    return ready


def _queue(table: Mapping[str, Any], *, place: _Place) -> str:
    queue = place.text(table, "queue", default="default") or ""
    if not _NAME.fullmatch(queue):
        place.fail("queue must be at most 100 letters, digits, '_', '-' and '.', and must not begin with '-' or '.'")
    return queue


def _validator(schema: Json, *, place: _Place) -> jsonschema_rs.Validator:
    """The compiled schema. Unknown formats are errors, because they would be ignored. Remote references are not fetched."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        place.fail('inputs must be a JSON Schema with type = "object"')
    try:
        validator = jsonschema_rs.validator_for(
            schema, offline=True, validate_formats=True, ignore_unknown_formats=False, formats={"path": lambda _: True}
        )
    except jsonschema_rs.ValidationError as error:
        pointer = "".join(f"/{part}" for part in error.instance_path)
        place.fail(f"inputs is not a JSON Schema: {error.message}" + (f" (at {pointer})" if pointer else ""))
    except ValueError as error:
        place.fail(f"inputs is not a JSON Schema: {error}")
    _check_path_formats(schema, place=place)
    return validator


def _check_path_formats(schema: Mapping[str, Any], *, place: _Place) -> None:
    """Rejects `format = "path"` where no check for paths applies, because the input would seem to be checked."""
    checked = 0
    properties = schema.get("properties", {})
    for rules in properties.values():
        items = rules.get("items") if isinstance(rules, dict) else None
        checked += sum(part.get("format") == "path" for part in (rules, items) if isinstance(part, dict))
    if _count_path_formats(schema) > checked:
        place.fail('inputs: format = "path" must stand on an input itself, or on the items of a list')


def _count_path_formats(schema: Json) -> int:
    if isinstance(schema, dict):
        return (schema.get("format") == "path") + sum(_count_path_formats(part) for part in schema.values())
    return sum(_count_path_formats(part) for part in schema) if isinstance(schema, list) else 0


def _check_defaults(task: Task, *, place: _Place) -> None:
    # Only violations by the defaults themselves count: clients give the other inputs.
    for error in task.validator.iter_errors(dict(task.defaults)):
        if error.instance_path and error.instance_path[0] in task.defaults:
            place.fail(f"inputs: the default of {error.instance_path[0]!r} does not match its schema: {error.message}")


def _check_placeholders(task: Task, *, place: _Place) -> None:
    always_given = {*task.inputs.get("required", ()), *task.defaults}
    for element in task.argv:
        if not whole_placeholder(element) and (part := next(placeholders(element), None)):
            place.fail(f"argv: {{{part}}} must be a whole element, not a part of {element!r} (write {{{{{part}}}}} for the text itself)")
        _check_known(placeholders(element), key="argv", task=task, place=place)
    within = {"cwd": task.cwd, "concurrency_key": task.concurrency_key or "", **{f"env.{name}": text for name, text in task.env.items()}}
    for key, text in within.items():
        _check_known(placeholders(text), key=key, task=task, place=place)
        for name in placeholders(text):
            if name not in always_given:
                place.fail(f"{key}: input {name!r} may be absent here; make it required, or give it a default")
            if _NESTED_TYPES & _types(task.properties[name]):
                place.fail(f"{key}: input {name!r} is a list or an object, which cannot be part of a text")
    for name in (name for element in task.argv for name in placeholders(element)):
        if "object" in _types(task.properties[name]):
            place.fail(f"argv: input {name!r} is an object, which cannot be an argument")


def _check_known(names: Iterator[str], *, key: str, task: Task, place: _Place) -> None:
    for name in names:
        if name not in task.properties:
            place.fail(f"{key}: no input provides {{{name}}}{_nearest(name, list(task.properties))}")


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
        raise OperatorError(f"The tasks file {path} does not exist") from None
    except OSError as error:
        raise OperatorError(f"The tasks file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"The tasks file {path} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError(f"The tasks file {path} is not TOML: {error}") from None
