"""What a client gives to an operator's task, checked, and what the task's recipe makes of it: arguments, folder, variables, key.

The rules are told in `tasks.py`. Pure but for looking where a path leads; raises InputsRejected and OutsideWorkspace, each violation with a
pointer.
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
"""Where a part of a value is: nowhere, or the place of what holds it and its key there. Spelled out only for what is faulty."""

_DASH = "must not begin with '-'"
_MAX_KEY = 300  # as in openapi/jobs.yaml


class Inputs:
    """A task's inputs, checked, and what its recipe makes of them. Raises InputsRejected and OutsideWorkspace."""

    def __init__(self, task: Task, given: Mapping[str, Json], *, workspace: Workspace) -> None:
        self._task = task
        self._workspace = workspace
        self._rules = task.properties
        _reject(_schema_violations(task, given))
        values = {**task.defaults, **given}
        self._values = {name: value for name, value in values.items() if name in self._rules and value is not None}
        _reject(list(self._misfits()))
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
        """With paths as they are from the workspace, so that `src` and `./src/` are one key."""
        template = self._task.concurrency_key
        if template is None:
            return None
        root = self._workspace.root
        texts = {name: _text(self._values[name]) for name in placeholders(template)}
        paths = {name: os.path.relpath(self._paths[name][0], root) for name in texts if name in self._paths}
        return _fitting_key(fill(template, {**texts, **paths}))

    def _cwd(self) -> Path:
        names = list(placeholders(self._task.cwd))
        return self._workspace.path(self.fill(self._task.cwd), pointer=_pointer(names[0]) if names else None)

    def _check_paths(self, name: str) -> list[Path]:
        """An input that only says which folder to run in was seen from the workspace; any other is seen from that folder."""
        elsewhere = any(name in placeholders(text) for text in (*self._task.argv, *self._task.env.values()))
        base = self._workspace.root if name in placeholders(self._task.cwd) and not elsewhere else self.cwd
        return [self._workspace.path(_text(item), base=base, pointer=_pointer(*place)) for place, item in _places(name, self._values[name])]

    def _misfits(self) -> Iterator[Violation]:
        """What the schema allows, but a command line cannot hold or would take for something else."""
        within_text = {name for text in self._texts() for name in placeholders(text)}
        in_argv = {whole_placeholder(element) for element in self._task.argv}
        yield from (_fault("must not be null", name) for name in within_text if name not in self._values)
        for name, value in self._values.items():
            rules = self._rules[name]
            if name in within_text and isinstance(value, list | dict):
                yield _fault("must be a single value", name)
                continue
            for place, item in _places(name, value):
                detail = _path_misfit(item) if is_path(rules) else None
                if name in in_argv or name in within_text:
                    detail = detail or _text_misfit(item)
                if name in in_argv and not may_begin_with_dash(rules) and isinstance(item, str) and item.startswith("-"):
                    detail = detail or _DASH
                if detail:
                    yield _fault(detail, *place)

    def _texts(self) -> tuple[str, ...]:
        return (self._task.cwd, self._task.concurrency_key or "", *self._task.env.values())


def refuse_unusable_text(params: Mapping[str, Json]) -> None:
    """No command line, file name or TOML file holds a NUL or half of a surrogate pair."""
    unusable = [_spelled(place) for place, text in _texts_in(params) if "\0" in text or not _is_unicode(text)]
    _reject([Violation("body", f"#/params{pointer}", "holds a character that no command can be given") for pointer in unusable])


def _texts_in(value: Json) -> Iterator[tuple[_Place, str]]:
    """Every text in a value, keys too, and where it is. Not recursive: a client decides how deep a value is."""
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


def _spelled(place: _Place) -> str:
    tokens = []
    while place:
        place, token = place
        tokens.append(f"/{_escaped(str(token))}")
    return "".join(reversed(tokens))


def _path_misfit(item: Json) -> str | None:
    if not isinstance(item, str) or not item:
        return "must be a path"
    return _DASH if item.startswith("-") else None


def _text_misfit(item: Json) -> str | None:
    if item is None or isinstance(item, list | dict):
        return "must be a text, a number or a truth value"
    return "must be a finite number" if isinstance(item, float) and not math.isfinite(item) else None


def _schema_violations(task: Task, given: Mapping[str, Json]) -> list[Violation]:
    try:
        return [violation for error in task.validator.iter_errors(given) for violation in _violations(error)]
    except ValueError:  # the validator's own limit of nesting
        return [_fault("is nested too deeply")]


def _violations(error: jsonschema_rs.ValidationError) -> Iterator[Violation]:
    """One broken rule of a schema; an input too many, or one too few, is pointed at itself."""
    kind, place = error.kind, error.instance_path
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        yield _fault("is required", *place, kind.property)
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        for name in kind.unexpected:
            yield _fault("is not an input of this task", *place, name)
    else:
        message = error.message
        yield _fault(message if len(message) <= 200 else f"{message[:97]} … {message[-100:]}", *place)


def _reject(violations: list[Violation]) -> None:
    if violations:
        raise InputsRejected("The inputs do not fit.", violations=violations[:_MAX_VIOLATIONS])


def _fault(detail: str, *place: str | int) -> Violation:
    return Violation("body", _pointer(*place), detail)


def _pointer(*place: str | int) -> str:
    return "".join(["#/params/inputs", *(f"/{_escaped(str(part))}" for part in place)])


def _escaped(part: str) -> str:
    """A token of a JSON pointer (RFC 6901) in a URI fragment."""
    return quote(part.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@", errors="replace")


def _places(name: str, value: Json) -> list[tuple[tuple[str | int, ...], Json]]:
    """The values that an input holds, one or a list of them, and where each is."""
    return [((name, index), item) for index, item in enumerate(value)] if isinstance(value, list) else [((name,), value)]


def _text(value: Json) -> str:
    """A value as one argument: truth values and numbers as in JSON, whole numbers without a fraction."""
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


def _fitting_key(text: str) -> str:
    """A concurrency key as the contract allows it; one too long, or with control characters, keeps its beginning and a digest of all."""
    if 0 < len(text) <= _MAX_KEY and not re.search(r"[\x00-\x1f\x7f]", text):
        return text
    return re.sub(r"[\x00-\x1f\x7f]", " ", text[:200]) + "#" + hashlib.sha256(text.encode()).hexdigest()[:32]
