"""Rules of a schema that are rules and yet can't be meant: they rule out nothing, or everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from velagen.errors import Problem
from velagen.schema.checks import parse_check
from velagen.schema.keywords import ASSERTIONS, each_once
from velagen.schema.model import ALL_TYPES, InexactError, Node, Schema, Shape, layers_of, types_of
from velagen.schema.validate import TooLong, validator_for

#: The types that a keyword says something of.
_SPEAKS_OF: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), frozenset({"number", "integer"})),
    "multipleOf": frozenset({"number", "integer"}),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), frozenset({"string"})),
    **dict.fromkeys(("items", "prefixItems", "contains", "minItems", "maxItems"), frozenset({"array"})),
    "uniqueItems": frozenset({"array"}),
    **dict.fromkeys(("properties", "patternProperties", "additionalProperties", "required"), frozenset({"object"})),
    **dict.fromkeys(("propertyNames", "minProperties", "maxProperties", "dependentRequired"), frozenset({"object"})),
}
_BOUNDS: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)


def doubtful_rules(schema: Schema) -> Iterator[Problem]:
    """Warnings of rules without effect, and of those that no value can keep.

    In: a schema that was compiled, so that its references lead somewhere and its rules can be read.
    """
    for node in each_once(schema):
        yield from _of_node(node, schema.origin)


def _of_node(node: Node, origin: str) -> Iterator[Problem]:
    contents = _in_force(node)

    def doubt(reason: str, word: str, hint: str = "", at: str = "") -> Problem:
        place = node.place(origin, word)
        return Problem(reason, replace(place, pointer=f"{place.pointer}{at}"), hint, "warning")

    if node.dialect <= 7 and "$ref" in contents:
        return  # all else has no effect there, which is told already
    own = contents.get("type")
    types = {own} if isinstance(own, str) else set(own or ())
    for word in _SPEAKS_OF.keys() & contents.keys() if types else ():
        if not _SPEAKS_OF[word] & types:
            yield doubt(f"{word} has no effect: it says nothing of a {' or '.join(sorted(types))}", word)
    if "if" not in contents:
        for word in ("then", "else"):
            if word in contents:
                yield doubt(f"{word} has no effect without if", word)
    elif not {"then", "else"} & contents.keys():
        yield doubt("if has no effect without then or else", "if")
    for low, high in _BOUNDS:
        least, most = contents.get(low), contents.get(high)
        if isinstance(least, (int, float)) and isinstance(most, (int, float)) and least > most:
            yield doubt(f"no value can be right: {low} {least} is above {high} {most}", low)
    if "allOf" in contents and not _types(node):
        yield doubt("no value can be right: its parts allow no type together", "allOf")
    yield from _of_constants(node, contents, doubt)
    yield from _of_names(node, contents, doubt)
    if "x-message" in contents and not isinstance(contents["x-message"], str):
        yield doubt("x-message has no effect: it is a text", "x-message")


def _types(node: Node) -> frozenset[str]:
    try:
        return types_of(layers_of(node))
    except InexactError:
        return ALL_TYPES


def _in_force(node: Node) -> dict[str, Any]:
    """What *node* says by the keywords that its draft has; of the others it is told that they have no effect."""
    found = {}
    for word, value in node.contents.items():
        first, last = ASSERTIONS.get(word, (node.dialect, node.dialect))
        if first <= node.dialect <= last:
            found[word] = value
    return found


def _of_constants(node: Node, contents: Mapping[str, Any], doubt: Any) -> Iterator[Problem]:
    """Values of enum and const that the node's other rules refuse."""
    for word in ("enum", "const"):
        if word not in contents:
            continue
        values = contents[word] if word == "enum" else [contents[word]]
        if not values:
            yield doubt("no value can be right: enum is empty", word)
        try:
            refused = validator_for(node).refused(values)
        except TooLong:
            continue  # a doubt is not worth the time
        for number in refused:
            at = f"/{number}" if word == "enum" else ""
            yield doubt(f"{values[number]!r} is never right: the rules beside {word} refuse it", word, "", at)


def _of_names(node: Node, contents: Mapping[str, Any], doubt: Any) -> Iterator[Problem]:
    """Properties that are asked for and that the object can't have."""
    try:
        shape = Shape(layers_of(node))
    except InexactError:
        return
    if shape.types != {"object"} or shape.open or shape.values is not None or contents.get("patternProperties"):
        return

    def is_none(name: str) -> bool:
        return shape.property(name) is None

    for number, name in enumerate(contents.get("required", ())):
        if is_none(name):
            yield doubt(f"no value can be right: {name!r} is required, and no property", "required", "", f"/{number}")
    for first, others in contents.get("dependentRequired", {}).items():
        for name in (first, *others):
            if is_none(name):
                yield doubt(f"dependentRequired names {name!r}, which is not a property", "dependentRequired")
    for number, entry in enumerate(contents.get("x-checks", ())):
        for path in parse_check(node, number, entry).paths():
            if is_none(path[0]):
                yield doubt(f"x-checks reads {path[0]!r}, which is not a property", "x-checks", "", f"/{number}")
