"""Reads the documents of the repository: their marked blocks, tables, commands, links and the names of code in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOR_USERS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
FOR_DEVELOPERS = ("ARCHITECTURE.md", "CONTRIBUTING.md")
ALL = (*FOR_USERS, *FOR_DEVELOPERS, "DECISIONS.md", "CHANGELOG.md", "SECURITY.md")
PACKAGES = ("handlers", "jobs", "tests")


@cache
def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def block(name: str, marker: str) -> str:
    """The code block of a document under a marker, such as `<!-- tasks -->`."""
    found = re.findall(rf"^<!-- {re.escape(marker)} -->\n```\w+\n(.*?)^```$", document(name), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{name} has {len(found)} blocks that are marked {marker!r}"
    return str(found[0])


def tables(name: str, header: str) -> list[list[list[str]]]:
    """The rows of every table whose header begins with these cells."""
    found = re.findall(rf"^\| {re.escape(header)} .*\n\| -.*\n((?:\|.*\n)+)", document(name), re.MULTILINE)
    return [[[cell.strip() for cell in line.strip().strip("|").split(" |")] for line in table.splitlines()] for table in found]


def rows(name: str, header: str) -> list[list[str]]:
    """The rows of the one table whose header begins with these cells."""
    found = tables(name, header)
    assert len(found) == 1, f"{name} has {len(found)} tables {header!r}"
    return found[0]


def shell_lines(name: str) -> Iterator[str]:
    """Every command line of the shell blocks, continued lines joined, comments left out."""
    for text in re.findall(r"^```sh\n(.*?)^```$", document(name), re.MULTILINE | re.DOTALL):
        for line in text.replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s)# .*", "", line).strip():
                yield command


def code_spans(name: str) -> list[str]:
    """What stands between backticks in the prose and the tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", document(name), flags=re.MULTILINE | re.DOTALL))


def links(name: str) -> list[str]:
    """The targets of the links that lead into the repository."""
    return [link for link in re.findall(r"\]\(([^)]+)\)", document(name)) if not re.match(r"https?:", link)]


def anchors(name: str) -> set[str]:
    """What the headings of a document can be linked at."""
    headings = re.findall(r"^#+ (.*)", document(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a Python file defines, at any depth: `function`, `Class`, `Class.method`, `CONSTANT`."""
    return frozenset(_names(ast.parse(path.read_text(encoding="utf-8")), ""))


def _names(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield prefix + child.name
            yield from _names(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            yield prefix + child.target.id
        elif isinstance(child, ast.Assign):
            yield from (prefix + target.id for target in child.targets if isinstance(target, ast.Name))
        else:
            yield from _names(child, prefix)


@cache
def all_names() -> frozenset[str]:
    """What the Python files of the project define, alone and after the name of the module: `transition`, `jobs.transition`.

    Also the schemas of the contract.
    """
    found = set(re.findall(r"^    (\w+):$", document("openapi/jobs.yaml").partition("\n  schemas:\n")[2], re.MULTILINE))
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "node_modules" not in path.parts):
        found |= names_in(path) | {f"{path.stem}.{name}" for name in names_in(path)}
    return frozenset(found)
