"""Which words are keywords, in which draft; and what is said of those that look like one and are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from velagen.errors import Problem, did_you_mean
from velagen.schema.model import Node, Schema, children

#: Keywords with a meaning for validation, by the first and the last draft that has them (2020: still there).
#: Source: the release notes of https://json-schema.org/specification.
ASSERTIONS: Final[dict[str, tuple[int, int]]] = {
    **dict.fromkeys(("type", "enum", "properties", "patternProperties", "additionalProperties", "required"), (4, 2020)),
    **dict.fromkeys(("items", "allOf", "anyOf", "oneOf", "not", "multipleOf", "minimum", "maximum"), (4, 2020)),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern"), (4, 2020)),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "$ref"), (4, 2020)),
    **dict.fromkeys(("const", "contains", "propertyNames"), (6, 2020)),
    **dict.fromkeys(("if", "then", "else"), (7, 2020)),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "unevaluatedItems"), (2019, 2020)),
    **dict.fromkeys(("unevaluatedProperties", "minContains", "maxContains"), (2019, 2020)),
    **dict.fromkeys(("prefixItems", "$dynamicRef", "$dynamicAnchor"), (2020, 2020)),
    **dict.fromkeys(("dependencies", "additionalItems"), (4, 7)),
    **dict.fromkeys(("$recursiveRef", "$recursiveAnchor"), (2019, 2019)),
}
#: What to write in the place of a keyword that newer drafts don't have.
_NOW: Final = {
    "dependencies": "write dependentRequired or dependentSchemas",
    "additionalItems": "write prefixItems and items",
    "$recursiveRef": "write $dynamicRef",
    "$recursiveAnchor": "write $dynamicAnchor",
}
_ANNOTATIONS: Final = frozenset(
    ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "contentEncoding",
     "contentMediaType", "contentSchema", "definitions", "$defs", "$schema", "$id", "id", "$anchor", "$comment",
     "$vocabulary"]
)  # fmt: skip
#: Words of OpenAPI's schema object, and of editors; they say nothing about which values are valid, but `nullable`.
_OTHERS: Final = frozenset(
    ["nullable", "example", "discriminator", "xml", "externalDocs", "markdownDescription", "enumDescriptions",
     "enumNames", "markdownEnumDescriptions", "defaultSnippets", "deprecationMessage", "errorMessage",
     "propertyOrder", "tsType", "$async", "allowTrailingCommas"]
)  # fmt: skip
#: Every word that a schema may hold by somebody's rules.
KNOWN: Final = frozenset([*ASSERTIONS, *_ANNOTATIONS, *_OTHERS])
#: As near as ``minLenght`` is to ``minLength``, and ``version`` not to ``exclusion``.
_NEAR = 0.8


def doubtful_keywords(schema: Schema) -> Iterator[Problem]:
    """Warnings of words without effect: misspelt keywords, those of another draft, rules beside an older ``$ref``."""
    for node in each_once(schema):
        yield from _doubts(node, schema.origin)


def each_once(schema: Schema) -> Iterator[Node]:
    """All subschemas that hold keywords, in the order of the text; one that is referred to several times comes once."""
    stack = [schema.root]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node.contents) in seen or not isinstance(node.contents, dict):
            continue
        seen.add(id(node.contents))
        yield node
        stack.extend(reversed(list(children(node))))


def _doubts(node: Node, origin: str) -> Iterator[Problem]:
    contents: dict[str, Any] = node.contents
    for word in contents:
        place = node.place(origin, word)
        if word in ASSERTIONS:
            first, last = ASSERTIONS[word]
            if not first <= node.dialect <= last:
                reason = f"{word} has no effect: {_draft(node.dialect)} does not have this keyword"
                hint = (
                    _NOW.get(word, "") if node.dialect > last else f'{_draft(first)} brought it: name that in "$schema"'
                )
                yield Problem(reason, place, hint, "warning")
        elif word not in KNOWN and not word.startswith("x-"):
            hint = did_you_mean(word, KNOWN, cutoff=_NEAR)
            if hint:
                reason = f"{word[:100]} is not a keyword of JSON Schema, and has no effect"
                yield Problem(reason, place, hint, "warning")
    beside = sorted(set(contents) & set(ASSERTIONS) - {"$ref"})
    if node.dialect <= 7 and "$ref" in contents and beside:
        reason = f"{', '.join(beside)} beside $ref has no effect: {_draft(node.dialect)} reads $ref alone"
        yield Problem(reason, node.place(origin, "$ref"), "put both into allOf", "warning")


def _draft(dialect: int) -> str:
    return {2019: "draft 2019-09", 2020: "draft 2020-12"}.get(dialect, f"draft {dialect}")
