"""The YAML documents of the contracts: reading them, walking them and following their references. Knows no meaning of what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import yaml

from handlers.errors import ContractError
from jobs.model import Json

OPENAPI = "openapi/jobs.yaml"
ASYNCAPI = "openapi/jobs.asyncapi.yaml"
BASE = "contract:///"
"""Where the documents are, for validators. They refer to each other by file name, relative to this."""


@dataclass(frozen=True)
class Node:
    """A value in a document and its address there, by which validators find it."""

    address: str
    value: Any

    def __truediv__(self, step: str | int) -> Node:
        escaped = str(step).replace("~", "~0").replace("/", "~1")
        try:
            value = self.value[step]
        except (LookupError, TypeError):
            raise ContractError(f"{self}: {step} is missing") from None
        return Node(f"{self.address}/{quote(escaped, safe='~')}", value)

    def __str__(self) -> str:
        return f"openapi/{self.address.removeprefix(BASE)}"


@dataclass(frozen=True)
class Source:
    """One document. Raises ContractError wherever something is missing."""

    file: str
    document: Mapping[str, Json]

    @property
    def uri(self) -> str:
        return BASE + self.file.rpartition("/")[2]

    def at(self, *steps: str | int) -> Node:
        """The node that the steps lead to. References are followed on the way and at the end."""
        return self.down(Node(self.uri + "#", self.document), *steps)

    def down(self, node: Node, *steps: str | int) -> Node:
        """The node that the steps lead to from another one."""
        node = self._followed(node)
        for step in steps:
            node = self._followed(node / step)
        return node

    def refer(self, reference: str) -> Node:
        """The node that a reference within the document leads to."""
        try:
            return self.at(*(step.replace("~1", "/").replace("~0", "~") for step in reference.removeprefix("#/").split("/")))
        except ContractError:
            raise ContractError(f"{self.file} refers to {reference}, which does not exist") from None

    def inlined(self, value: Any) -> Any:
        """The value with every reference within the document replaced by what it leads to."""
        if isinstance(value, Mapping):
            if str(value.get("$ref", "")).startswith("#"):
                return self.inlined(self.refer(value["$ref"]).value)
            return {key: self.inlined(inner) for key, inner in value.items()}
        return [self.inlined(inner) for inner in value] if isinstance(value, list) else value

    def _followed(self, node: Node) -> Node:
        # A reference into the other document stays as it is: the validators follow it.
        while isinstance(node.value, Mapping) and str(node.value.get("$ref", "")).startswith("#"):
            node = self.refer(node.value["$ref"])
        return node


def read(file: str) -> dict[str, Json]:
    """The document of a file in the package `openapi`. Raises ContractError."""
    try:
        text = files("openapi").joinpath(file.rpartition("/")[2]).read_text(encoding="utf-8")
        # libyaml reads the two files in a tenth of the time. Every wheel has it, but not every distribution's build.
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ModuleNotFoundError) as error:
        raise ContractError(f"{file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ContractError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ContractError(f"{file} is not a contract")
    return document


@contextmanager
def malformed_as_contract_error() -> Iterator[None]:
    """Turns whatever a malformed document makes its readers raise into a ContractError. The place in the document is not known here."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"{OPENAPI} or {ASYNCAPI} is malformed: {type(error).__name__}: {error}") from error


def check_references(*sources: Source) -> None:
    """Raises ContractError for the first reference in the documents that leads nowhere.

    Nothing else follows the references of an answer before the first such answer.
    """
    by_name = {source.file.rpartition("/")[2]: source for source in sources}
    for source in sources:
        for reference in _references(source.document):
            name, _, pointer = reference.partition("#")
            target = by_name.get(name.removeprefix("./")) if name else source
            try:
                if target is None:
                    raise ContractError(f"{name} is unknown")
                target.refer(f"#{pointer}")
            except ContractError:
                raise ContractError(f"{source.file} refers to {reference}, which does not exist") from None


def with_references(value: Any, old: str, new: str) -> Any:
    """A copy of the value in which `new` replaces `old` at the beginning of references."""
    if isinstance(value, Mapping):
        return {
            key: new + inner.removeprefix(old) if key == "$ref" and inner.startswith(old) else with_references(inner, old, new)
            for key, inner in value.items()
        }
    return [with_references(inner, old, new) for inner in value] if isinstance(value, list) else value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _references(inner)
