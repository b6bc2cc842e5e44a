"""What a template knows of a value by its schema: all that JSON Schema says together."""

from __future__ import annotations

from typing import Any

import pytest

from velagen.schema import parse_schema
from velagen.template.types import SchemaType, Type, misfits

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
ANYTHING = {"string", "number", "boolean", "object", "array", "null"}


def type_of(schema: Any, *path: str, **defs: Any) -> Type:
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"it": schema},
        "$defs": defs,
    }
    found: Type = SchemaType(parse_schema(document).shape)
    for name in ("it", *path):
        member = found.member(name)
        assert member is not None, name
        found = member.type
    return found


@pytest.mark.parametrize(
    ("schema", "types", "enum"),
    [
        ({}, ANYTHING, []),
        ({"type": ["string", "null"]}, {"string", "null"}, []),
        ({"anyOf": [WHOLE, TEXT]}, {"integer", "string"}, []),
        ({"oneOf": [{"type": "number"}, WHOLE]}, {"number"}, []),
        ({"anyOf": [WHOLE, {}]}, ANYTHING, []),
        ({"type": "string", "anyOf": [WHOLE, TEXT]}, {"string"}, []),
        ({"allOf": [{"anyOf": [WHOLE, TEXT]}, {"anyOf": [TEXT, {"type": "boolean"}]}]}, {"string"}, []),
        ({"enum": ["a", 1, None]}, {"string", "integer", "null"}, ["a", 1, None]),
        ({"type": "string", "enum": ["a", 1]}, {"string"}, ["a"]),
        ({"const": 1.0}, {"integer"}, [1.0]),
        ({"const": True}, {"boolean"}, [True]),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "c"]}]}, {"string"}, ["a", "b", "c"]),
        ({"anyOf": [{"const": "a"}, TEXT]}, {"string"}, []),
        ({"enum": ["a", "b", "c"], "anyOf": [{"enum": ["b", "d"]}, {"const": "c"}]}, {"string"}, ["b", "c"]),
        ({"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", 1]}]}, {"string"}, ["b"]),
        ({"enum": [1, True]}, {"integer", "boolean"}, [1, True]),
        ({"$ref": "#/$defs/either"}, {"integer", "string"}, []),
        ({"anyOf": [{"$ref": "#/$defs/tree"}, TEXT]}, {"object", "string"}, []),
        ({"type": "array", "items": {"anyOf": [WHOLE, TEXT]}}, {"array"}, []),
    ],
)
def test_types_and_constants(schema: Any, types: set[str], enum: list[Any]) -> None:
    tree = {"type": "object", "properties": {"child": {"anyOf": [{"$ref": "#/$defs/tree"}, TEXT]}}}
    found = type_of(schema, either={"anyOf": [WHOLE, TEXT]}, tree=tree)
    assert found.types == types
    assert list(map(repr, found.enum)) == list(map(repr, enum))


UNION = {
    "type": "object",
    "required": ["kind"],
    "unevaluatedProperties": False,
    "properties": {"kind": {"enum": ["s3", "pvc", "http"]}, "path": TEXT},
    "oneOf": [
        {"properties": {"kind": {"const": "s3"}, "bucket": TEXT, "port": WHOLE}, "required": ["bucket", "port"]},
        {"properties": {"kind": {"const": "pvc"}, "claim": TEXT, "port": TEXT}, "required": ["port"]},
    ],
}


def test_a_union_knows_the_fields_of_its_branches() -> None:
    assert set(type_of(UNION).names) == {"kind", "path", "bucket", "port", "claim"}
    assert type_of(UNION, "kind").enum == ("s3", "pvc")
    assert type_of(UNION).member("bucekt") is None


@pytest.mark.parametrize(("name", "present"), [("kind", True), ("path", False), ("bucket", False), ("port", True)])
def test_a_field_that_every_branch_requires_is_there(name: str, present: bool) -> None:
    member = type_of(UNION).member(name)
    assert member is not None
    assert member.present == present


def test_closed_means_closed_for_branches_too() -> None:
    closed = {"type": "object", "additionalProperties": False, "anyOf": [{"properties": {"a": TEXT}}], "properties": {}}
    assert type_of(closed).member("a") is None


def test_what_holds_for_some_values_may_be_there() -> None:
    schema = {
        "type": "object",
        "properties": {"a": TEXT},
        "if": {"required": ["a"]},
        "then": {"properties": {"b": WHOLE}},
        "dependentSchemas": {"a": {"properties": {"c": TEXT}}},
    }
    assert type_of(schema, "b").types == {"integer"}
    assert type_of(schema, "c").types == {"string"}


@pytest.mark.parametrize(
    ("value", "place", "fits"),
    [
        ({"anyOf": [WHOLE, TEXT]}, {"type": ["integer", "string", "number"]}, True),
        ({"anyOf": [WHOLE, TEXT]}, WHOLE, False),
        ({"enum": ["a"]}, {"type": "string", "enum": ["a", "b"]}, True),
        ({"enum": ["a", "c"]}, {"type": "string", "enum": ["a", "b"]}, False),
        ({"const": 1}, {"type": "integer", "enum": [1, 2]}, True),
        ({"const": True}, {"enum": [1, 2]}, False),
        ({"type": "object", "properties": {"a": TEXT}}, {"type": "object", "properties": {"a": WHOLE}}, False),
    ],
)
def test_a_value_fits_where_all_that_it_may_be_does(value: Any, place: Any, fits: bool) -> None:
    assert (list(misfits(type_of(value), type_of(place))) == []) == fits
