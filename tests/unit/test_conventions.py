"""Conventions that no linter knows: short names of tests, and modules that can be read at once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME_LENGTH = 70
MODULE_LINES = 350
REASON = re.compile(rf"^Longer than {MODULE_LINES} lines because \S", re.MULTILINE)
NOT_COUNTED = ("jobs/sample_workspace/", "jobs/store/migrations/")
"""The first is a program of its own; the second holds the past of the schema, which nobody edits."""


def modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" not in path.parts and not path.relative_to(ROOT).as_posix().startswith(NOT_COUNTED):
                yield path


def test_names_of_tests_are_short() -> None:
    names = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in modules("tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_") and len(node.name) > NAME_LENGTH
    }
    assert not names, "\n".join(sorted(names))


def test_long_modules_give_a_reason() -> None:
    """In their docstring, as a line that begins with `Longer than 350 lines because`."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in modules("handlers", "jobs")}
    long = {name: text for name, text in texts.items() if len(text.splitlines()) > MODULE_LINES}
    assert [name for name, text in long.items() if not REASON.search(ast.get_docstring(ast.parse(text)) or "")] == []
