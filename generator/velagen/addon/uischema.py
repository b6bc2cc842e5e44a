"""The forms of VelaUX: one list of fields a definition, made of its JSON Schema.

Source of the format: kubevela pkg/utils/schema/ui_schema.go (UIParameter, Validate, GetDefaultUIType).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from velagen.definition.addon_default import ADDON_DEFAULT
from velagen.schema.view import DEEPEST, PropertyView, SchemaView, options_of, types_of

#: Room between two fields, for someone who adds one by hand in VelaUX.
_SORT_STEP = 10


def ui_schema(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The UI schema of a parameter: required fields first, then in the schema's order.

    In: a JSON Schema document whose root is an object. Out: what stands in ``schemas/<type>-uischema-<name>.yaml``.
    """
    view = SchemaView(document)
    return _fields(view, view.root, 0)


def _fields(view: SchemaView, schema: Mapping[str, Any], depth: int) -> list[dict[str, Any]]:
    properties = sorted(view.properties(schema), key=lambda one: not one.required)
    return [_field(view, one, (number + 1) * _SORT_STEP, depth) for number, one in enumerate(properties)]


def _field(view: SchemaView, one: PropertyView, sort: int, depth: int) -> dict[str, Any]:
    schema = one.schema
    field: dict[str, Any] = {
        "jsonKey": one.name,
        "label": str(schema.get("title") or _words(one.name)),
        "description": " ".join(str(schema.get("description", "")).split()),
        "sort": sort,
    }
    kind = next(iter(types_of(schema)), "string")
    items = view.plain(schema.get("items", {})) if kind == "array" else {}
    below = items if kind == "array" else schema
    # A form field for each property of an object, or of the objects in a list.
    nested = _fields(view, below, depth + 1) if kind in {"object", "array"} and depth < DEEPEST else []
    field["uiType"] = _ui_type(kind, schema, items, bool(nested))
    field["validate"] = _validate(schema, required=one.required)
    if one.when is not None:
        name, values = one.when
        field["conditions"] = [{"jsonKey": name, "op": "in", "value": list(values), "action": "enable"}]
    if nested:
        field["subParameters"] = nested
    return field


def _ui_type(kind: str, schema: Mapping[str, Any], items: Mapping[str, Any], nested: bool) -> str:
    if len(types_of(schema)) > 1:
        # Two types, such as a number or a percentage: text is the one field that takes both.
        return "Input"
    if kind == "array":
        below = next(iter(types_of(items)), "object")
        return {"string": "Strings", "number": "Numbers", "integer": "Numbers"}.get(below, "Structs")
    if kind == "object":
        return "Group" if nested else "KV"
    if kind == "boolean":
        return "Switch"
    if options_of(schema):
        return "Select"
    if kind in {"number", "integer"}:
        return "Number"
    return "Password" if schema.get("writeOnly") or schema.get("format") == "password" else "Input"


def _validate(schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"required": True} if required else {}
    # What the addon gives stands in the form that KubeVela makes of the definition.
    if "default" in schema and ADDON_DEFAULT not in schema:
        found["defaultValue"] = schema["default"]
    for ours, theirs in (
        ("minimum", "min"),
        ("exclusiveMinimum", "min"),
        ("maximum", "max"),
        ("exclusiveMaximum", "max"),
        ("minLength", "minLength"),
        ("maxLength", "maxLength"),
        ("pattern", "pattern"),
    ):
        if ours in schema and not isinstance(schema[ours], bool):
            found[theirs] = schema[ours]
    options = options_of(schema)
    if options:
        found["options"] = [{"label": str(one), "value": one} for one in options]
    found["immutable"] = bool(schema.get("x-immutable", False))
    return found


def _words(name: str) -> str:
    """``maxReplicas`` -> ``Max replicas``; an abbreviation such as ``URL`` stays as it is."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    words = [part if part.isupper() and len(part) > 1 else part.lower() for part in parts]
    text = " ".join(words) or name
    return text[0].upper() + text[1:]
