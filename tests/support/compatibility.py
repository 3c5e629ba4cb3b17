"""Whether a client that was made for one state of the contracts works with another: what it sends is still taken, what it gets understood.

Compares documents, not servers. A client sends what the old contract allowed, so requests may only become wider; it knows what the old one
promised, so answers may only become narrower, but for new properties, which a client does not look at, and for enumerations that say that
they grow (`x-grows`). `python tests/support/compatibility.py OLD_FOLDER NEW_FOLDER` prints every break.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Node = Mapping[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
OPENAPI, ASYNCAPI = "jobs.yaml", "jobs.asyncapi.yaml"
UPPER_BOUNDS = ("maxLength", "maxItems", "maximum", "maxProperties")
LOWER_BOUNDS = ("minLength", "minItems", "minimum", "minProperties")
FORMS = ("pattern", "format", "multipleOf", "uniqueItems")


@dataclass(frozen=True)
class Contracts:
    """Both documents of one state, by file name."""

    documents: Mapping[str, Node]

    @classmethod
    def load(cls, folder: Path) -> Contracts:
        return cls({name: yaml.load((folder / name).read_text(encoding="utf-8"), Loader=LOADER) for name in (OPENAPI, ASYNCAPI)})

    @property
    def openapi(self) -> Node:
        return self.documents[OPENAPI]

    @property
    def asyncapi(self) -> Node:
        return self.documents[ASYNCAPI]

    def resolved(self, node: Node, home: str) -> tuple[Node, str]:
        """What a node refers to, in the end, and the document that it is in."""
        while "$ref" in node:
            file, _, place = node["$ref"].partition("#/")
            home = file or home
            node = self.documents[home]
            for step in place.split("/"):
                node = node[step.replace("~1", "/").replace("~0", "~")]
        return node, home


def breaks(old: Contracts, new: Contracts) -> list[str]:
    """Every change that breaks a client of the old contracts, in words."""
    comparison = _Comparison(old, new)
    return [*comparison.calls(), *comparison.events()]


@dataclass(frozen=True)
class _Schema:
    node: Node
    home: str
    contracts: Contracts

    def simple(self) -> _Schema:
        """Without references, and without an `allOf` around one schema."""
        node, home = self.contracts.resolved(self.node, self.home)
        parts = node.get("allOf", ())
        if len(parts) == 1:
            inner = _Schema(parts[0], home, self.contracts).simple()
            return _Schema({**inner.node, **{key: value for key, value in node.items() if key != "allOf"}}, inner.home, self.contracts)
        return _Schema(node, home, self.contracts)

    def at(self, node: Node) -> _Schema:
        return _Schema(node, self.home, self.contracts)

    def variants(self) -> list[_Schema]:
        return [self.at(node) for key in ("oneOf", "anyOf") for node in self.node.get(key, ())]


class _Comparison:
    def __init__(self, old: Contracts, new: Contracts) -> None:
        self._old = old
        self._new = new

    # -- calls ------------------------------------------------------------------------------------------------------------

    def calls(self) -> Iterator[str]:
        new = dict(_operations(self._new))
        for address, (path, before) in _operations(self._old):
            if address not in new:
                yield f"{address} is gone"
                continue
            new_path, after = new[address]
            if before["operationId"] != after["operationId"]:
                yield f"{address} was {before['operationId']} and is {after['operationId']}"
            if _scope(after) not in (_scope(before), "any", "none"):
                yield f"{address} needs the scope {_scope(after)} instead of {_scope(before)}"
            yield from self._parameters(address, _parameters(self._old, path, before), _parameters(self._new, new_path, after))
            yield from self._body(address, before.get("requestBody"), after.get("requestBody"))
            yield from self._answers(address, before["responses"], after["responses"])

    def _parameters(self, address: str, before: Mapping[str, Node], after: Mapping[str, Node]) -> Iterator[str]:
        for name, parameter in after.items():
            if parameter.get("required") and not before.get(name, {}).get("required"):
                yield f"{address} needs the parameter {name}"
        for name, parameter in before.items():
            if name not in after:
                yield f"{address} no longer takes the parameter {name}"
            else:
                yield from self._sent(f"{address} {name}", self._of_old(parameter["schema"]), self._of_new(after[name]["schema"]))

    def _body(self, address: str, before: Node | None, after: Node | None) -> Iterator[str]:
        if after and after.get("required") and not (before or {}).get("required"):
            yield f"{address} needs a body"
        if before and not after:
            yield f"{address} no longer takes a body"
        for media, content in (before or {}).get("content", {}).items() if after else ():
            if media not in (after or {})["content"]:
                yield f"{address} no longer takes {media}"
            else:
                yield from self._sent(
                    f"{address} body", self._of_old(content["schema"]), self._of_new((after or {})["content"][media]["schema"])
                )

    def _answers(self, address: str, before: Node, after: Node) -> Iterator[str]:
        for status in [status for status in before if status.startswith(("2", "3"))]:
            if status not in after:
                yield f"{address} no longer answers {status}"
        for status in [status for status in after if status.startswith(("2", "3"))]:
            if status not in before:
                yield f"{address} may answer {status}"
        for status in before.keys() & after.keys():
            (old, home), (new, new_home) = self._old.resolved(before[status], OPENAPI), self._new.resolved(after[status], OPENAPI)
            for name in old.get("headers", {}).keys() - new.get("headers", {}).keys():
                yield f"{address} {status} lacks the header {name}"
            for media, content in old.get("content", {}).items():
                if media not in new.get("content", {}):
                    yield f"{address} {status} is no longer {media}"
                else:
                    one, other = _Schema(content["schema"], home, self._old), _Schema(new["content"][media]["schema"], new_home, self._new)
                    yield from self._got(f"{address} {status}", one, other)

    def _of_old(self, node: Node) -> _Schema:
        return _Schema(node, OPENAPI, self._old)

    def _of_new(self, node: Node) -> _Schema:
        return _Schema(node, OPENAPI, self._new)

    # -- events -----------------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[str]:
        if (before := self._old.asyncapi["servers"]["this"]["pathname"]) != (after := self._new.asyncapi["servers"]["this"]["pathname"]):
            yield f"the events were at {before} and are at {after}"
        operations = self._new.asyncapi["operations"]
        for name, operation in self._old.asyncapi["operations"].items():
            if name not in operations or operations[name]["action"] != operation["action"]:
                yield f"the event {name} is gone"
                continue
            compare = self._sent if operation["action"] == "receive" else self._got
            old, new = _messages(self._old, operation), _messages(self._new, operations[name])
            yield from self._messages(f"event {name}", old, new, compare)
            old, new = _messages(self._old, operation.get("reply", {})), _messages(self._new, operations[name].get("reply", {}))
            yield from self._messages(f"answer to {name}", old, new, self._got)

    def _messages(
        self, place: str, before: Mapping[str, _Schema | None], after: Mapping[str, _Schema | None], compare: Any
    ) -> Iterator[str]:
        for name, schema in before.items():
            if name not in after:
                yield f"{place}: the message {name} is gone"
            elif (schema is None) != (after[name] is None):
                yield f"{place}: the message {name} has {'a' if schema is None else 'no'} payload now"
            elif schema is not None:
                yield from compare(place, schema, after[name])

    # -- schemas ----------------------------------------------------------------------------------------------------------

    def _sent(self, place: str, old: _Schema, new: _Schema) -> Iterator[str]:
        """What the client sends by the old schema and the new one does not take."""
        old, new = old.simple(), new.simple()
        if (yield from self._kinds(place, old, new)):
            return
        for variant in old.variants():
            if new.variants() and all(list(self._sent(place, variant, other)) for other in _alike(variant, new)):
                yield f"{place}: {_name(variant)} is no longer taken"
        yield from _enumerations(place, "no longer takes", old.node, new.node)
        if old.node.get("nullable") and not new.node.get("nullable"):
            yield f"{place} no longer takes null"
        yield from _tighter(place, old.node, new.node)
        for name in new.node.get("required", ()):
            if name not in old.node.get("required", ()):
                yield f"{place} needs {name}"
        open_once, open_now = (schema.node.get("additionalProperties", True) is not False for schema in (old, new))
        yield from self._within(place, old, new, self._sent, gone="no longer takes", closed=not open_now)
        if open_once and not open_now and old.node.get("type") == "object":
            yield f"{place} no longer takes what it does not name"

    def _got(self, place: str, old: _Schema, new: _Schema) -> Iterator[str]:
        """What the client gets by the new schema and does not know from the old one."""
        old, new = old.simple(), new.simple()
        if (yield from self._kinds(place, old, new)):
            return
        for variant in new.variants():
            if old.variants() and all(list(self._got(place, other, variant)) for other in _alike(variant, old)):
                yield f"{place} may be {_name(variant)}"
        if not new.node.get("x-grows"):
            yield from _enumerations(place, "may be", new.node, old.node)
        if new.node.get("nullable") and not old.node.get("nullable"):
            yield f"{place} may be null"
        for name in old.node.get("required", ()):
            if name not in new.node.get("required", ()) and name in new.node.get("properties", {}):
                yield f"{place}.{name} may be missing"
        yield from self._within(place, old, new, self._got, gone="lacks", closed=True)

    def _kinds(self, place: str, old: _Schema, new: _Schema) -> Any:
        """Tells when one cannot be compared with the other; gives whether that is so."""
        kinds = [(schema.node.get("type"), bool(schema.variants())) for schema in (old, new)]
        if kinds[0] != kinds[1]:
            yield f"{place} was {_name(old)} and is {_name(new)}"
            return True
        return False

    def _within(self, place: str, old: _Schema, new: _Schema, compare: Any, *, gone: str, closed: bool) -> Iterator[str]:
        properties = new.node.get("properties", {})
        for name, node in old.node.get("properties", {}).items():
            if name in properties:
                yield from compare(f"{place}.{name}", old.at(node), new.at(properties[name]))
            elif closed:
                yield f"{place} {gone} {name}"
        if "items" in old.node and "items" in new.node:
            yield from compare(f"{place}[]", old.at(old.node["items"]), new.at(new.node["items"]))


def _operations(contracts: Contracts) -> Iterator[tuple[str, tuple[Node, Node]]]:
    for path, item in contracts.openapi["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", (item, item[method])


def _scope(operation: Node) -> str:
    return str(operation.get("x-scope") or "none")


def _parameters(contracts: Contracts, path: Node, operation: Node) -> dict[str, Node]:
    nodes = [contracts.resolved(node, OPENAPI)[0] for node in (*path.get("parameters", ()), *operation.get("parameters", ()))]
    return {f"{node['name']} ({node['in']})": node for node in nodes}


def _messages(contracts: Contracts, holder: Node) -> dict[str, _Schema | None]:
    """The payloads of an operation's messages by their names."""
    payloads: dict[str, _Schema | None] = {}
    for node in holder.get("messages", ()):
        message, _ = contracts.resolved(node, ASYNCAPI)
        payloads[message["name"]] = _Schema(message["payload"]["schema"], ASYNCAPI, contracts) if "payload" in message else None
    return payloads


def _alike(variant: _Schema, whole: _Schema) -> list[_Schema]:
    """What a variant has to be compared with: the one of its title, if it has one."""
    title = variant.simple().node.get("title")
    return [other for other in whole.variants() if title and other.simple().node.get("title") == title] or whole.variants()


def _enumerations(place: str, words: str, wide: Node, narrow: Node) -> Iterator[str]:
    """Values of the first that the second does not have. Without an enumeration all is allowed."""
    if "enum" not in narrow:
        return
    if "enum" not in wide:
        yield f"{place} {words} more than {narrow['enum']}"
    for value in wide.get("enum", ()):
        if value not in narrow["enum"]:
            yield f"{place} {words} {value}"


def _tighter(place: str, old: Node, new: Node) -> Iterator[str]:
    for bound in UPPER_BOUNDS:
        if bound in new and new[bound] < old.get(bound, float("inf")):
            yield f"{place}: {bound} is {new[bound]} now"
    for bound in LOWER_BOUNDS:
        if bound in new and new[bound] > old.get(bound, float("-inf")):
            yield f"{place}: {bound} is {new[bound]} now"
    for form in FORMS:
        if form in new and new[form] != old.get(form):
            yield f"{place}: {form} is {new[form]} now"


def _name(schema: _Schema) -> str:
    node = schema.simple().node
    properties = ", ".join(node.get("properties", {}))
    return str(node.get("title") or (f"an object with {properties}" if properties else node.get("type", "one of several")))


def main(arguments: list[str]) -> int:
    old, new = (Contracts.load(Path(argument)) for argument in arguments)
    found = breaks(old, new)
    print("\n".join(found) or "No client breaks.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
