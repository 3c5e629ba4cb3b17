"""Says where and how a value breaks its schema, in words for the person who wrote the value.

Knows JSON Schema and nothing of the contract. Never repeats more than a few words of the value, because it may be large or secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from jsonschema_rs import ValidationError, Validator

from jobs.model import Json

MAX_VIOLATIONS = 100  # in a problem, as in the contract
MAX_CHARACTERS = 1000  # of a pointer or a detail, as in the contract
_FRAGMENT_SAFE = "~!$&'()*+,;=:@?/"  # characters that a URI fragment carries unescaped (RFC 3986)
_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


class SchemaViolation(NamedTuple):
    """One place where a value breaks its schema: a JSON pointer as a URI fragment, and what is wrong there."""

    pointer: str
    detail: str


class Checker:
    """Checks values against one compiled schema. A valid value costs a microsecond; words are made for an invalid one only."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def __call__(self, value: Json) -> list[SchemaViolation]:
        try:
            if self._validator.is_valid(value):
                return []
            errors = list(self._validator.iter_errors(value))
        except UnicodeEncodeError:
            return [SchemaViolation("#", "contains an unpaired surrogate")]
        except ValueError:  # the validator's own limit
            return [SchemaViolation("#", "is nested too deeply")]
        return [violation for error in errors for violation in _violations(error)][:MAX_VIOLATIONS]


class ChoiceChecker:
    """Checks values against one of several schemas. A field of the value names it, so that the violations are those of the intended one."""

    def __init__(self, field: str, choices: Mapping[str, Checker]) -> None:
        self._field = field
        self._choices = choices
        self._known = _either(choices)

    def __call__(self, value: Json) -> list[SchemaViolation]:
        if not isinstance(value, dict):
            return [SchemaViolation("#", f"must be {_TYPES['object']}")]
        if self._field not in value:
            return [SchemaViolation(_pointer([self._field]), f"is missing; it must be {self._known}")]
        chosen = value[self._field]
        checker = self._choices.get(chosen) if isinstance(chosen, str) else None
        if checker is None:
            return [SchemaViolation(_pointer([self._field]), f"{_shown(chosen)} is not {self._known}")]
        return checker(value)


def not_json(value: Json) -> str | None:
    """Why JSON cannot carry a parsed value: NaN, an unpaired surrogate or deep nesting. Parsers accept all of these. None if it can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "contains an unpaired surrogate"
    except ValueError:
        return "contains a number that JSON does not allow"
    except RecursionError:
        return "is nested too deeply"
    return None


def _pointer(path: Sequence[str | int]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    pointer = "#" + "".join("/" + quote(step, safe=_FRAGMENT_SAFE, errors="replace") for step in steps)
    return pointer if len(pointer) <= MAX_CHARACTERS else _pointer(path[:-1])


def _shown(value: Json) -> str:
    """The value as JSON, cut to a few words."""
    if isinstance(value, dict | list):
        return _TYPES["object" if isinstance(value, dict) else "array"]
    text = json.dumps(value[:41] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 42 else text[:40] + "…" + text[0]


def _violations(error: ValidationError) -> Iterator[SchemaViolation]:
    path = error.instance_path
    kind = error.kind
    match kind.name:
        case "required":
            yield SchemaViolation(_pointer([*path, kind.as_dict()["property"]]), "is missing")
        case "additionalProperties":
            for name in kind.as_dict()["unexpected"]:
                yield SchemaViolation(_pointer([*path, name]), "is unknown")
        case "oneOf" | "anyOf":
            yield from _closest(error, kind.as_dict()["context"])
        case _:
            yield SchemaViolation(_pointer(path), _detail(error)[:MAX_CHARACTERS])


def _closest(error: ValidationError, branches: Sequence[Sequence[ValidationError]]) -> Iterator[SchemaViolation]:
    """The violations of the branch that the value comes closest to; where it only lacks a field of each, one violation that names them."""
    depth = len(error.instance_path)
    missing = [[e.kind.as_dict()["property"] for e in branch if e.kind.name == "required"] for branch in branches]
    if branches and all(len(branch) == len(names) == 1 for branch, names in zip(branches, missing, strict=True)):
        yield SchemaViolation(_pointer(error.instance_path), f"needs {_either(names[0] for names in missing)}")
    elif branches:
        for nested in min(branches, key=lambda branch: _distance(branch, depth=depth)):
            yield from _violations(nested)
    else:
        yield SchemaViolation(_pointer(error.instance_path), "matches more than one of the allowed forms")


def _distance(branch: Sequence[ValidationError], *, depth: int) -> tuple[int, int, int]:
    """How far the value is from the branch: first a wrong type, then missing or unknown fields, then all violations."""
    here = [error.kind for error in branch if len(error.instance_path) == depth]
    other_type = sum(kind.name == "type" for kind in here)
    fields = sum(len(kind.as_dict()["unexpected"]) if kind.name == "additionalProperties" else kind.name == "required" for kind in here)
    return other_type, fields, len(branch)


def _detail(error: ValidationError) -> str:
    describe = _DETAILS.get(error.kind.name)
    return describe(error.kind.as_dict(), error.instance) if describe else error.message


def _either(values: Iterable[Json]) -> str:
    *others, last = (json.dumps(value) for value in values)
    return f"{', '.join(others)} or {last}" if others else last


def _count(limit: int, thing: str) -> str:
    return f"{limit} {thing}" if limit == 1 else f"{limit} {thing}s"


_DETAILS: Mapping[str, Callable[[Mapping[str, Json], Json], str]] = {
    "type": lambda kind, _: "must be " + " or ".join(_TYPES[name] for name in kind["types"]),
    "enum": lambda kind, value: f"{_shown(value)} is not {_either(kind['options'])}",
    "pattern": lambda kind, value: f"{_shown(value)} does not match {kind['pattern']}",
    "format": lambda kind, value: f"{_shown(value)} is not a valid {kind['format']}",
    "minimum": lambda kind, value: f"{_shown(value)} is less than {kind['limit']}",
    "maximum": lambda kind, value: f"{_shown(value)} is more than {kind['limit']}",
    "minLength": lambda kind, _: f"is shorter than {_count(kind['limit'], 'character')}",
    "maxLength": lambda kind, _: f"is longer than {_count(kind['limit'], 'character')}",
    "minItems": lambda kind, _: f"has fewer than {_count(kind['limit'], 'item')}",
    "maxItems": lambda kind, _: f"has more than {_count(kind['limit'], 'item')}",
    "maxProperties": lambda kind, _: f"has more than {_count(kind['limit'], 'field')}",
    "uniqueItems": lambda _, __: "has duplicate items",
}
