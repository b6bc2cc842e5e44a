"""Values that fit a schema, taken from what its author wrote: examples, defaults, the first of an enum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from velagen.schema import Schema
from velagen.schema.view import SchemaView, options_of, types_of

_MISSING = object()


def samples(schema: Schema) -> list[dict[str, Any]]:
    """The examples at a schema's root; without any, one value of its required properties if that can be made."""
    document = schema.document
    examples = [one for one in document.get("examples", []) if isinstance(one, dict)]
    if examples:
        return examples
    view = SchemaView(document)
    made = _sample(view, view.root, 0)
    return [made] if isinstance(made, dict) else []


def _sample(view: SchemaView, schema: Mapping[str, Any], depth: int) -> Any:
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    if schema.get("examples"):
        return schema["examples"][0]
    options = options_of(schema)
    if options:
        return options[0]
    kind = next(iter(types_of(schema)), "string")
    if kind == "object":
        found: dict[str, Any] = {}
        for one in view.properties(schema):
            if one.required and depth < 8:
                value = _sample(view, one.schema, depth + 1)
                if value is _MISSING:
                    return _MISSING
                found[one.name] = value
        return found
    if kind == "array":
        item = _sample(view, view.plain(schema.get("items", {})), depth + 1)
        return [item] * schema.get("minItems", 0) if item is not _MISSING else _MISSING
    if kind == "boolean":
        return False
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    return _MISSING if "pattern" in schema or "format" in schema else "sample".ljust(schema.get("minLength", 0), "x")
