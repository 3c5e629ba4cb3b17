"""Say where a value breaks its schema, and how, in words for the person who wrote the value.

Knows JSON Schema and nothing of the contract. Never repeats more than a few words of the value: it may be large, or secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from jsonschema_rs import ValidationError, Validator

from jobs.model import Json

MOST = 100  # as many as a problem carries
LONGEST = 1000  # characters of a pointer or a detail, as in the contract
_FRAGMENT_SAFE = "~!$&'()*+,;=:@?/"  # what a URI fragment carries as it is (RFC 3986)
_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


class Place(NamedTuple):
    """One faulty place: a JSON pointer as a URI fragment, and what is wrong there."""

    pointer: str
    detail: str


class Checker:
    """Checks values against one compiled schema: a microsecond when all is well, words when not."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def __call__(self, value: Json) -> list[Place]:
        try:
            if self._validator.is_valid(value):
                return []
            errors = list(self._validator.iter_errors(value))
        except UnicodeEncodeError:
            return [Place("#", "holds half of a surrogate pair, which is no text")]
        except ValueError:  # the validator's own limit
            return [Place("#", "is nested too deeply")]
        return [place for error in errors for place in _places(error)][:MOST]


class ChoiceChecker:
    """Checks values against the one of several schemas that a field of theirs names, so that the violations are those of what was meant."""

    def __init__(self, field: str, choices: Mapping[str, Checker]) -> None:
        self._field = field
        self._choices = choices
        self._known = _either(choices)

    def __call__(self, value: Json) -> list[Place]:
        if not isinstance(value, dict):
            return [Place("#", f"must be {_TYPES['object']}")]
        if self._field not in value:
            return [Place(_pointer([self._field]), f"is missing; it is {self._known}")]
        chosen = value[self._field]
        checker = self._choices.get(chosen) if isinstance(chosen, str) else None
        if checker is None:
            return [Place(_pointer([self._field]), f"{_shown(chosen)} is not {self._known}")]
        return checker(value)


def not_json(value: Json) -> str | None:
    """Why a parsed value is not what JSON can carry (NaN, half a surrogate pair, nested beyond reason), which parsers let through."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no text"
    except ValueError:
        return "holds a number that JSON does not have"
    except RecursionError:
        return "is nested too deeply"
    return None


def _pointer(path: Sequence[str | int]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    pointer = "#" + "".join("/" + quote(step, safe=_FRAGMENT_SAFE, errors="replace") for step in steps)
    return pointer if len(pointer) <= LONGEST else _pointer(path[:-1])


def _shown(value: Json) -> str:
    """The value as a person wrote it, cut to a few words."""
    if isinstance(value, dict | list):
        return _TYPES["object" if isinstance(value, dict) else "array"]
    text = json.dumps(value[:41] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 42 else text[:40] + "…" + text[0]


def _places(error: ValidationError) -> Iterator[Place]:
    path = error.instance_path
    kind = error.kind
    match kind.name:
        case "required":
            yield Place(_pointer([*path, kind.as_dict()["property"]]), "is missing")
        case "additionalProperties":
            for name in kind.as_dict()["unexpected"]:
                yield Place(_pointer([*path, name]), "is not known here")
        case "oneOf" | "anyOf":
            yield from _closest(error, kind.as_dict()["context"])
        case _:
            yield Place(_pointer(path), _detail(error)[:LONGEST])


def _closest(error: ValidationError, branches: Sequence[Sequence[ValidationError]]) -> Iterator[Place]:
    """The violations of the branch that the value comes closest to; when it comes close to none, what they ask for."""
    depth = len(error.instance_path)
    missing = [[e.kind.as_dict()["property"] for e in branch if e.kind.name == "required"] for branch in branches]
    if branches and all(len(branch) == len(names) == 1 for branch, names in zip(branches, missing, strict=True)):
        yield Place(_pointer(error.instance_path), f"needs {_either(names[0] for names in missing)}")
    elif branches:
        for nested in min(branches, key=lambda branch: _misfit(branch, depth=depth)):
            yield from _places(nested)
    else:
        yield Place(_pointer(error.instance_path), "matches more than one of the forms that it may have")


def _misfit(branch: Sequence[ValidationError], *, depth: int) -> tuple[int, int, int]:
    """How unlike the form is: another type altogether, then fields that are missing or unknown, then the violations in all."""
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
    "uniqueItems": lambda _, __: "has the same item twice",
}
