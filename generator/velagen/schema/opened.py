"""Parts of a schema that KubeVela takes as they are, and ``velagen check`` reads to the bottom.

What is passed on to Kubernetes, such as a list of volumes, has hundreds of places. As types in ``parameter`` they would
be read at each of KubeVela's ten renders of an application, by users too who write none of it. So a schema with
``"x-open": true`` is for CUE an object or a list of anything; a definition that must hold more matches the value's JSON
against :func:`json_pattern`, which costs nothing where the property is not given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from velagen.schema.model import Schema, parse_schema

#: The keyword.
OPEN = "x-open"
_KEPT = ("type", "title", "description", "examples", "x-message")


def at_render(schema: Schema) -> Schema:
    """The same schema with nothing below what is marked ``x-open``; itself where nothing is."""
    if not _has_open(schema.document):
        return schema
    return parse_schema(_opened(schema.document), origin=schema.origin)


def unsure(schema: Schema) -> Schema:
    """The same schema with nothing required below what is marked ``x-open``: nobody has looked when it is rendered."""
    if not _has_open(schema.document):
        return schema
    return parse_schema(_unsure(schema.document, is_open=False), origin=schema.origin)


def _unsure(value: Any, *, is_open: bool) -> Any:
    if isinstance(value, list):
        return [_unsure(one, is_open=is_open) for one in value]
    if not isinstance(value, dict):
        return value
    here = is_open or value.get(OPEN) is True
    return {
        name: _unsure(one, is_open=here)
        for name, one in value.items()
        if not (here and name == "required" and isinstance(one, list))
    }


def _has_open(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get(OPEN) is True or any(_has_open(one) for one in value.values())
    return isinstance(value, list) and any(_has_open(one) for one in value)


def _opened(value: Any) -> Any:
    if isinstance(value, list):
        return [_opened(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get(OPEN) is not True:
        return {name: _opened(one) for name, one in value.items()}
    found = {name: one for name, one in value.items() if name in _KEPT}
    items = value.get("items")
    if isinstance(items, dict) and "type" in items:
        found["items"] = {"type": items["type"]}
    return found


# ---------------------------------------------------------------- a value's JSON as a text that a pattern can judge

#: RE2, and what it becomes, one after the other: a name keeps its letters, a text of the user's loses them. JSON has
#: a colon behind a name and nowhere else outside a text.
PLAIN: tuple[tuple[str, str], ...] = ((r'"((?:[^"\\]|\\.)*)":', "<$1>"), (r'"(?:[^"\\]|\\.)*"', "s"))
#: A value of any kind, three levels deep: RE2 can't count brackets, and must not take what stands beside it.
_LEAF, _BEGIN, _END = r"[^\[\]{}]", r"[\[{]", r"[\]}]"
_ANY = rf"(?:[^\[\]{{}},]*|{_BEGIN}(?:{_LEAF}|{_BEGIN}(?:{_LEAF}|{_BEGIN}{_LEAF}*{_END})*{_END})*{_END})"
_SCALARS = {"string": "s", "boolean": "(?:true|false)", "integer": "-?[0-9]+", "number": "-?[0-9.eE+-]+"}


def json_pattern(schema: Mapping[str, Any]) -> str:
    """RE2 for the JSON, made plain by :data:`PLAIN`, of values with this schema's types and names.

    A closed object (``additionalProperties: false``) has no other names; ``required``, bounds and enums are not looked
    at: the API server refuses what breaks them aloud, and drops a field that it does not know in silence.
    """
    return f"^{_pattern(schema)}$"


def _pattern(schema: Mapping[str, Any]) -> str:
    types = schema.get("type")
    if isinstance(types, list):
        return _one_of(_pattern({**schema, "type": one}) for one in types)
    if types in _SCALARS:
        return _SCALARS[types]
    if types == "array":
        return rf"\[(?:{_pattern(schema.get('items', {}))},?)*\]"
    if types != "object":
        return _ANY
    properties: Mapping[str, Any] = schema.get("properties", {})
    below = schema.get("additionalProperties")
    if below is False and properties:
        # Fields of one pattern stand together: most are texts.
        by_pattern: dict[str, list[str]] = {}
        for name, one in properties.items():
            by_pattern.setdefault(_pattern(one), []).append(re.escape(name))
        fields = _one_of(f"<{_one_of(names)}>{pattern}" for pattern, names in by_pattern.items())
        return rf"\{{(?:{fields},?)*\}}"
    if isinstance(below, dict) and not properties:
        return rf"\{{(?:<[^>]*>{_pattern(below)},?)*\}}"
    return _ANY


def _one_of(parts: Iterable[str]) -> str:
    found = list(dict.fromkeys(parts))
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"
