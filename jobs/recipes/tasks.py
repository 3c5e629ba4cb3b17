"""An operator task: its declaration, and what placeholders and inputs mean in it. `tasks_file.py` reads tasks; `inputs.py` fills them.

Placeholders. `{path}` stands for the input `path`, `{{path}}` for the text `{path}`. Any other brace stands for itself.

* In `argv` a placeholder is a whole element, never a part of one, and never the program itself. A value becomes one element, whatever it
  contains; a list one element per item; an absent input none. Booleans and numbers are written as in JSON.
* In `cwd`, `env` and `concurrency_key` placeholders may stand within text; such an input must be required, or have a `default`.
* A `default` in the inputs' schema replaces an absent input.

Rules that make inputs safe for a command.

* `format = "path"` (on an input, or on the items of a list) makes it a path that must not leave the workspace. It is relative to `cwd`,
  where the command will look for it; one that stands only in `cwd` is relative to the workspace. It is checked when the job is submitted
  and again when it starts, and must not begin with `-`.
* A text in `argv` that begins with `-` would be read as an option, so it is refused, unless the schema lists it (`enum`, `const`)
  or declares `"x-allow-dash" = true`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import jsonschema_rs

from jobs.model import Json

_INPUT = r"[A-Za-z_][A-Za-z0-9_-]*"
PLACEHOLDER = re.compile(rf"\{{\{{(?P<literal>{_INPUT})\}}\}}|\{{(?P<name>{_INPUT})\}}")


@dataclass(frozen=True)
class Task:
    """One declared task. Times are in seconds; `inputs` is the JSON Schema as declared, `validator` the compiled schema."""

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
        """The schemas of the declared inputs. An input declared as `true` has an empty one."""
        return {name: rules if isinstance(rules, dict) else {} for name, rules in self.inputs.get("properties", {}).items()}

    @cached_property
    def defaults(self) -> Mapping[str, Json]:
        return {name: rules["default"] for name, rules in self.properties.items() if "default" in rules}


def whole_placeholder(element: str) -> str | None:
    """The input that an element of `argv` stands for, or None when the element is text."""
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
