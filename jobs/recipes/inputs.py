"""Checks a client's inputs for an operator's task, and fills them into the task's arguments, folder, variables and concurrency key.

The docstring of `tasks.py` states the rules. Reads nothing but symbolic links on paths. Raises InputsRejected and OutsideWorkspace; each
violation has a pointer.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs

from jobs.errors import InputsRejected, Violation
from jobs.model import Json
from jobs.recipes.tasks import Task, fill, is_path, may_begin_with_dash, placeholders, whole_placeholder
from jobs.recipes.workspace import Workspace

_MAX_VIOLATIONS = 20
_Place = tuple[Any, ...]
"""The place of a part of a value: empty, or the place of its container and its key there. Becomes a pointer only for invalid parts."""

_DASH = "must not begin with '-'"
_MAX_KEY = 300  # as in openapi/jobs.yaml


class Inputs:
    """A task's checked inputs, and the parts of its recipe with them filled in. Raises InputsRejected and OutsideWorkspace."""

    def __init__(self, task: Task, given: Mapping[str, Json], *, workspace: Workspace) -> None:
        self._task = task
        self._workspace = workspace
        self._rules = task.properties
        _reject(_schema_violations(task, given))
        values = {**task.defaults, **given}
        self._values = {name: value for name, value in values.items() if name in self._rules and value is not None}
        _reject(list(self._unusable_values()))
        self.cwd = self._cwd()
        self._paths = {name: self._check_paths(name) for name in self._values if is_path(self._rules[name])}

    def argv(self) -> Iterator[str]:
        for element in self._task.argv:
            name = whole_placeholder(element)
            if name is None:
                yield fill(element, {})
            elif name in self._values:
                yield from (_text(item) for _, item in _places(name, self._values[name]))

    def fill(self, text: str) -> str:
        return fill(text, {name: _text(self._values[name]) for name in placeholders(text)})

    def concurrency_key(self) -> str | None:
        """The key, with paths relative to the workspace, so that `src` and `./src/` give the same key."""
        template = self._task.concurrency_key
        if template is None:
            return None
        root = self._workspace.root
        texts = {name: _text(self._values[name]) for name in placeholders(template)}
        paths = {name: os.path.relpath(self._paths[name][0], root) for name in texts if name in self._paths}
        return _valid_key(fill(template, {**texts, **paths}))

    def _cwd(self) -> Path:
        names = list(placeholders(self._task.cwd))
        return self._workspace.path(self.fill(self._task.cwd), pointer=_pointer(names[0]) if names else None)

    def _check_paths(self, name: str) -> list[Path]:
        """An input that stands only in `cwd` is relative to the workspace; any other is relative to that folder."""
        elsewhere = any(name in placeholders(text) for text in (*self._task.argv, *self._task.env.values()))
        base = self._workspace.root if name in placeholders(self._task.cwd) and not elsewhere else self.cwd
        return [self._workspace.path(_text(item), base=base, pointer=_pointer(*place)) for place, item in _places(name, self._values[name])]

    def _unusable_values(self) -> Iterator[Violation]:
        """Values that match the schema, but that a command line cannot hold or would take for an option."""
        within_text = {name for text in self._texts() for name in placeholders(text)}
        in_argv = {whole_placeholder(element) for element in self._task.argv}
        yield from (_violation("must not be null", name) for name in within_text if name not in self._values)
        for name, value in self._values.items():
            rules = self._rules[name]
            if name in within_text and isinstance(value, list | dict):
                yield _violation("must be a single value", name)
                continue
            for place, item in _places(name, value):
                detail = _path_error(item) if is_path(rules) else None
                if name in in_argv or name in within_text:
                    detail = detail or _text_error(item)
                if name in in_argv and not may_begin_with_dash(rules) and isinstance(item, str) and item.startswith("-"):
                    detail = detail or _DASH
                if detail:
                    yield _violation(detail, *place)

    def _texts(self) -> tuple[str, ...]:
        return (self._task.cwd, self._task.concurrency_key or "", *self._task.env.values())


def refuse_unusable_text(params: Mapping[str, Json]) -> None:
    """Rejects NUL and lone surrogates, which no command line, file name or TOML file can hold."""
    unusable = [_path_of(place) for place, text in _texts_in(params) if "\0" in text or not _is_unicode(text)]
    _reject([Violation("body", f"#/params{pointer}", "contains a character that a command line cannot hold") for pointer in unusable])


def _texts_in(value: Json) -> Iterator[tuple[_Place, str]]:
    """Every text in a value, including keys, and its place. Not recursive, because a client decides how deeply a value is nested."""
    waiting: deque[tuple[_Place, Json]] = deque([((), value)])
    while waiting:
        place, part = waiting.popleft()
        if isinstance(part, str):
            yield place, part
        elif isinstance(part, Mapping):
            yield from ((place, key) for key in part)
            waiting.extend(((place, key), item) for key, item in part.items())
        elif isinstance(part, list | tuple):
            waiting.extend(((place, index), item) for index, item in enumerate(part))


def _path_of(place: _Place) -> str:
    tokens = []
    while place:
        place, token = place
        tokens.append(f"/{_escaped(str(token))}")
    return "".join(reversed(tokens))


def _path_error(item: Json) -> str | None:
    if not isinstance(item, str) or not item:
        return "must be a path"
    return _DASH if item.startswith("-") else None


def _text_error(item: Json) -> str | None:
    if item is None or isinstance(item, list | dict):
        return "must be a string, a number or a boolean"
    return "must be a finite number" if isinstance(item, float) and not math.isfinite(item) else None


def _schema_violations(task: Task, given: Mapping[str, Json]) -> list[Violation]:
    try:
        return [violation for error in task.validator.iter_errors(given) for violation in _violations(error)]
    except ValueError:  # the validator's limit of nesting
        return [_violation("is nested too deeply")]


def _violations(error: jsonschema_rs.ValidationError) -> Iterator[Violation]:
    """The violations of one error of the validator. A missing or unknown input gets a pointer of its own."""
    kind, place = error.kind, error.instance_path
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        yield _violation("is required", *place, kind.property)
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        for name in kind.unexpected:
            yield _violation("is not an input of this task", *place, name)
    else:
        message = error.message
        yield _violation(message if len(message) <= 200 else f"{message[:97]} … {message[-100:]}", *place)


def _reject(violations: list[Violation]) -> None:
    if violations:
        raise InputsRejected("The inputs are not valid for this task.", violations=violations[:_MAX_VIOLATIONS])


def _violation(detail: str, *place: str | int) -> Violation:
    return Violation("body", _pointer(*place), detail)


def _pointer(*place: str | int) -> str:
    return "".join(["#/params/inputs", *(f"/{_escaped(str(part))}" for part in place)])


def _escaped(part: str) -> str:
    """A token of a JSON pointer (RFC 6901) in a URI fragment."""
    return quote(part.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@", errors="replace")


def _places(name: str, value: Json) -> list[tuple[tuple[str | int, ...], Json]]:
    """The values of an input, one or a list of them, each with its place."""
    return [((name, index), item) for index, item in enumerate(value)] if isinstance(value, list) else [((name,), value)]


def _text(value: Json) -> str:
    """A value as one argument: booleans and numbers as in JSON, whole numbers without a fraction."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _valid_key(text: str) -> str:
    """A concurrency key that the contract allows. A text that is too long or has control characters is cut, and a digest of it appended."""
    if 0 < len(text) <= _MAX_KEY and not re.search(r"[\x00-\x1f\x7f]", text):
        return text
    return re.sub(r"[\x00-\x1f\x7f]", " ", text[:200]) + "#" + hashlib.sha256(text.encode()).hexdigest()[:32]
