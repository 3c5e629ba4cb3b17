"""Schemas of OpenAPI 3.0 as JSON Schema, which validators understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def json_schema(node: Any) -> Any:
    """The node with every OpenAPI 3.0 schema in it as JSON Schema: `nullable` becomes a type. All other keywords mean the same in both."""
    if isinstance(node, Mapping):
        converted = {key: json_schema(value) for key, value in node.items()}
        return _nullable(converted) if converted.get("nullable") is True else converted
    return [json_schema(value) for value in node] if isinstance(node, list) else node


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    del schema["nullable"]
    if not isinstance(schema.get("type"), str) or any(word in schema for word in ("allOf", "anyOf", "oneOf", "$ref")):
        return {"anyOf": [schema, {"type": "null"}]}
    schema["type"] = [schema["type"], "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema
