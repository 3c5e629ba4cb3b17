"""Schemas of the contract as HTML tables: fields, types, bounds and descriptions, for people who write a client.

Only says what a schema says. Everything that comes from a document is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from markdown_it import MarkdownIt

from jobs.model import Json

_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_UNITS = {"Length": "character", "Items": "item", "Properties": "field"}


def markdown(text: str | None) -> str:
    """A description, which is CommonMark, as HTML; HTML in it is shown, not obeyed."""
    rendered: str = _MARKDOWN.render(text or "")
    return rendered


def inline_markdown(text: str | None) -> str:
    rendered: str = _MARKDOWN.renderInline(text or "")
    return rendered


@dataclass(frozen=True)
class Schema:
    """A schema and the document that it stands in; `name` is that of the component it was referred to by."""

    node: Mapping[str, Json]
    home: Mapping[str, Json]
    name: str | None = None

    def sub(self, node: Mapping[str, Json]) -> Schema:
        return Schema(node, self.home)


class SchemaTables:
    """Makes tables, and notes which components they link to."""

    def __init__(self, openapi: Mapping[str, Json]) -> None:
        self._openapi = openapi
        self.linked: dict[str, Schema] = {}

    def tables(self, schema: Schema) -> str:
        """One table for an object, one for each form when there is a choice."""
        schema = self._resolved(schema)
        forms = schema.node.get("oneOf")
        if not forms:
            return self._table(schema, caption=None)
        return "".join(self._table(form, caption=form.node.get("title")) for form in map(self._resolved, map(schema.sub, forms)))

    def _table(self, schema: Schema, *, caption: str | None) -> str:
        if "properties" not in schema.node:
            return f"<p>{self._type(schema)}</p>{markdown(schema.node.get('description'))}"
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        rows = "".join(self._rows(schema, prefix=""))
        return f"<table>{title}<thead><tr><th>Field</th><th>Type</th><th>Meaning</th></tr></thead><tbody>{rows}</tbody></table>"

    def _rows(self, schema: Schema, *, prefix: str) -> Iterator[str]:
        required = schema.node.get("required", ())
        for name, node in schema.node["properties"].items():
            field = self._resolved(schema.sub(node))
            optional = "" if name in required else ' <span class="faint">optional</span>'
            yield (
                f"<tr><th scope=row><code>{escape(prefix + name)}</code>{optional}</th>"
                f"<td>{self._type(field)}</td><td>{markdown(self._description(field))}</td></tr>"
            )
            if field.name is None and "properties" in field.node:
                yield from self._rows(field, prefix=f"{prefix}{name}.")

    def _description(self, field: Schema) -> str | None:
        # What an object means is said where its own table is.
        return None if self._has_table(field) and field.name == field.node.get("title") else field.node.get("description")

    def _type(self, schema: Schema) -> str:
        schema = self._resolved(schema)
        if self._has_table(schema) and schema.name:
            self.linked.setdefault(schema.name, schema)
            kind = f'<a href="#type-{escape(schema.name)}">{escape(schema.name)}</a>'
        else:
            kind = self._plain_type(schema)
        words = [kind, *_bounds(schema.node)]
        if "default" in schema.node:
            words.append(f"<code>{escape(_literal(schema.node['default']))}</code> when absent")
        return ", ".join(words) + (" or null" if schema.node.get("nullable") and None not in schema.node.get("enum", ()) else "")

    def _plain_type(self, schema: Schema) -> str:
        node = schema.node
        choices = node.get("anyOf") or node.get("oneOf")
        if choices:
            return " or ".join(self._type(schema.sub(choice)) for choice in choices)
        if "enum" in node:
            return " or ".join("null" if value is None else f"<code>{escape(_literal(value))}</code>" for value in node["enum"])
        if node.get("type") == "array":
            return f"array of {self._type(schema.sub(node['items']))}"
        kind = escape(str(node.get("type", "anything")))
        return f"{kind} ({escape(node['format'])})" if "format" in node else kind

    @staticmethod
    def _has_table(schema: Schema) -> bool:
        return "properties" in schema.node

    def _resolved(self, schema: Schema) -> Schema:
        """The schema that is meant; what stands beside the reference (a description, a default) wins over what it refers to."""
        if "$ref" in schema.node:
            return self._resolved(self._followed(schema))
        only: Sequence[Mapping[str, Json]] = schema.node.get("allOf", ())
        if len(only) != 1:
            return schema
        meant = self._resolved(schema.sub(only[0]))
        beside = {key: value for key, value in schema.node.items() if key != "allOf"}
        return replace(meant, node={**meant.node, **beside})

    def _followed(self, schema: Schema) -> Schema:
        reference: str = schema.node["$ref"]
        file, _, pointer = reference.partition("#/")
        home = self._openapi if file else schema.home
        node: Json = home
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]
        for step in steps:
            node = node[step]
        return Schema(node, home, steps[-1] if steps[:-1] == ["components", "schemas"] else None)


def _literal(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _bounds(node: Mapping[str, Json]) -> Iterator[str]:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"at least {low}"
    elif high is not None:
        yield f"at most {high}"
    for suffix, unit in _UNITS.items():
        for word, limit in (("at least", node.get(f"min{suffix}")), ("at most", node.get(f"max{suffix}"))):
            if limit is not None:
                yield f"{word} {limit} {unit}{'' if limit == 1 else 's'}"
