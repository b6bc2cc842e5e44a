"""Rules of a schema that rule out nothing, or everything, are warned of; rules that CUE can't work out are refused."""

from __future__ import annotations

from typing import Any

import pytest

from velagen.errors import VelagenError
from velagen.schema import compile_schema, parse_schema

TEXT = {"type": "string"}
COUNT = {"type": "integer"}


def warned(**more: Any) -> list[tuple[str, str]]:
    """Pointer and sentence of each warning of an object's schema with a text, a count, and *more*."""
    properties = {"text": TEXT, "count": COUNT, **more.pop("properties", {})}
    schema = parse_schema({"type": "object", "additionalProperties": False, "properties": properties, **more})
    found = compile_schema(schema, faces=True).warnings
    assert all(one.severity == "warning" for one in found)
    return [(one.place.pointer or "", one.message) for one in found]


@pytest.mark.parametrize(
    ("schema", "keyword", "sentence"),
    [
        ({"type": "string", "minimum": 3}, "minimum", "minimum has no effect: it says nothing of a string"),
        ({"type": ["integer", "null"], "pattern": "a"}, "pattern", "pattern has no effect"),
        ({"type": "string", "then": {"minLength": 1}}, "then", "then has no effect without if"),
        ({"type": "string", "if": {"minLength": 1}}, "if", "if has no effect without then or else"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum", "no value can be right: minimum 5 is above"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "minItems", "minItems 2 is above maxItems 1"),
        ({"enum": []}, "enum", "no value can be right: enum is empty"),
        ({"type": "integer", "enum": [1, "b"]}, "enum/1", "'b' is never right: the rules beside enum refuse it"),
        ({"const": "a", "maxLength": 0}, "const", "'a' is never right"),
        ({"allOf": [TEXT, COUNT]}, "allOf", "its parts allow no type together"),
        ({"type": "string", "x-message": 3}, "x-message", "x-message has no effect: it is a text"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant(schema: Any, keyword: str, sentence: str) -> None:
    ((pointer, said),) = warned(properties={"x": schema})
    assert pointer == f"/properties/x/{keyword}"
    assert sentence in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"required": ["text", "cuont"]}, "no value can be right: 'cuont' is required, and no property"),
        ({"dependentRequired": {"text": ["cuont"]}}, "dependentRequired names 'cuont'"),
        ({"x-checks": [{"check": "cuont > 1", "message": "no"}]}, "x-checks reads 'cuont', which is not a property"),
    ],
)
def test_a_property_that_there_is_not(more: Any, sentence: str) -> None:
    ((_, said),) = warned(**more)
    assert sentence in said
    assert warned(**more, additionalProperties=True) == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"required": ["text"], "dependentRequired": {"text": ["count"]}},
        {"properties": {"x": {"type": ["string", "integer"], "minimum": 3, "pattern": "^a"}}},
        {"properties": {"x": {"enum": ["a", 1, None]}, "y": {"allOf": [COUNT, {"minimum": 1}]}}},
        {"if": {"required": ["text"]}, "then": {"required": ["count"]}},
        {"x-checks": [{"check": 'count > 1 && len(text) < 3 || text =~ "^a"', "message": "no"}]},
        {"x-checks": [{"check": "-count + 2 * count != 7", "message": "no"}]},
    ],
)
def test_rules_that_can_be_meant(more: Any) -> None:
    assert warned(**more) == []


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        ("text > 1", "it orders values that have no order, or are of two types"),
        ("text == 1", "it compares values that are never of the same type"),
        ('count =~ "^a"', "it asks for a pattern in something that is not a string"),
        ("text * 2 > 1", "it computes with something that is not a number"),
        ('count && text == "a"', "a side of && or || is not a condition"),
        ("len(count) > 1", "len() of what has no length"),
        ("count", "it is not a condition"),
    ],
)
def test_a_check_that_cue_cannot_work_out(check: str, sentence: str) -> None:
    with pytest.raises(VelagenError, match="can't be worked out") as caught:
        warned(**{"x-checks": [{"check": check, "message": "no"}]})
    assert sentence in str(caught.value)
