"""Reads the command line: options for the settings' fields, `key=value` arguments for a submission's params. No I/O."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import click

from jobs.model import HEADER_WORD, Json
from jobs.settings import ENV_PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., Any])

DURATION = re.compile(r"(\d+)\s*([smhdw])")
DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_TYPES: Mapping[type, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING, Path: click.Path(path_type=Path)}


class _Words(click.types.StringParamType):
    """A text; a variable may hold several of them, separated by commas."""

    envvar_list_splitter = ","

    def split_envvar_value(self, rv: str) -> list[str]:
        words = [word.strip() for word in rv.split(",") if word.strip()]
        return words or self.fail(f"{rv!r} holds no value.")  # otherwise it would count as absent


def settings_options(*, leave_out: Iterable[str] = ()) -> Callable[[Command], Command]:
    """An option and a `RUNCAST_*` variable for every field of the settings, in their order. Secrets have only the variable."""
    left_out = frozenset(leave_out)

    def decorate(command: Command) -> Command:
        hints = get_type_hints(Settings)
        for item in reversed(fields(Settings)):  # decorators apply last to first
            if item.name not in left_out and not item.metadata.get("secret"):
                command = _option(item, hints[item.name])(command)
        return command

    return decorate


def settings_from(given: Mapping[str, Any], *, leave_out: Iterable[str] = ()) -> Settings:
    """The settings from options, then the variables of secrets, then defaults. Raises OperatorError for invalid settings."""
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for item in fields(Settings):
        if item.name not in leave_out and item.metadata.get("secret") and (secret := os.environ.get(variable(item.name))):
            values[item.name] = secret
    return Settings(**values)


def variable(name: str) -> str:
    """The environment variable of a setting, such as `RUNCAST_DATA_DIR`."""
    return ENV_PREFIX + name.upper()


def _option(item: Field[Any], hint: Any) -> Callable[[Command], Command]:
    """An option without a default of its own: the settings' default applies where nothing was given."""
    default = _default_as_text(item)
    origin = f"[variable: {variable(item.name)}{default and f'; default: {default}'}]"
    declared: dict[str, Any] = {"help": f"{item.metadata['help']}  {origin}", "envvar": variable(item.name)}
    if get_origin(hint) is tuple:
        declared |= {"type": _Words(), "multiple": True, "metavar": "TEXT"}
    elif hint is bool:
        declared |= {"is_flag": True, "default": None}
    else:
        declared["type"] = _TYPES[_plain(hint)]
    return click.option("--" + item.name.replace("_", "-"), item.name, **declared)


def _plain(hint: Any) -> type:
    """`Path` for `Path | None`."""
    plain = [arm for arm in get_args(hint) or (hint,) if arm is not type(None)]
    return plain[0] if isinstance(plain[0], type) else str


def _default_as_text(item: Field[Any]) -> str:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    if isinstance(default, tuple):
        return ", ".join(default)
    return "" if default is None or isinstance(default, bool) else str(default)


def split_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` arguments as texts. A key without a value, or given twice, is a usage error."""
    texts: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{pair!r} is not of the form KEY=VALUE.")
        if key in texts:
            raise click.UsageError(f"{key!r} is given twice.")
        texts[key] = text
    return texts


def typed(texts: Mapping[str, str], schema: Mapping[str, Json] | None) -> dict[str, Json]:
    """The texts as JSON values, by the schema of the object that they belong to.

    A value that may be a string stays one (`version=1.0`). Any other is read as JSON (`clean=true`, `args=["-v"]`); where that fails, it
    stays a text, so that the server reports what is wrong with it.
    """
    properties = (schema or {}).get("properties") or {}
    return {key: _typed(text, properties.get(key)) for key, text in texts.items()}


def _typed(text: str, schema: Json) -> Json:
    if isinstance(schema, dict) and _may_be_string(schema):
        return text
    try:
        return json.loads(text, parse_constant=_not_json)
    except ValueError:
        return text


def _may_be_string(schema: Mapping[str, Json]) -> bool:
    if "type" in schema:
        types = schema["type"]
        return "string" in (types if isinstance(types, list) else [types])
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return any(isinstance(value, str) for value in allowed) or bool({"pattern", "minLength", "maxLength", "format"} & schema.keys())


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def read_object(text: str) -> dict[str, Json]:
    """A JSON object from one argument. Anything else is a usage error."""
    try:
        value = json.loads(text, parse_constant=_not_json)
    except ValueError as error:
        raise click.UsageError(f"--params is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise click.UsageError('--params must be a JSON object, such as \'{"config": "debug"}\'.')
    return value


def read_duration(text: str) -> int:
    """Seconds, from a duration such as `90m` or `30d`."""
    if not (found := DURATION.fullmatch(text.strip())):
        raise click.UsageError(f"{text!r} is not a duration such as 90m, 12h or 30d.")
    with _in_range(text):
        return round(_length(found).total_seconds())


def read_time(text: str) -> str:
    """A time as the contract writes it, from RFC 3339 or from an age such as `90m` or `2d`."""
    with _in_range(text):
        if age := DURATION.fullmatch(text.strip()):
            return (datetime.now(UTC) - _length(age)).isoformat(timespec="milliseconds")
        return _moment(text).astimezone(UTC).isoformat(timespec="milliseconds")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is neither a time such as 2026-11-23T09:00:00Z nor an age such as 90m.") from error


def _length(found: re.Match[str]) -> timedelta:
    return timedelta(**{DURATION_UNITS[found[2]]: int(found[1])})


@contextmanager
def _in_range(text: str) -> Iterator[None]:
    """A time outside the years 1 to 9999, which Python cannot represent, is a usage error."""
    try:
        yield
    except (OverflowError, ValueError) as error:
        raise click.UsageError(f"{text!r} is out of range: a time must lie in the years 1 to 9999.") from error


class HeaderWord(click.ParamType[str]):
    """A text that an HTTP header can carry."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if HEADER_WORD.fullmatch(value) else self.fail(f"{value!r} must be printable ASCII without spaces.", param, ctx)
