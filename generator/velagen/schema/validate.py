# ruff: noqa: ARG001  # the signature of a rule is the library's
"""A value against a schema in Python: the verdict of ``velagen check``, in the words of the rendered definition."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, cast

from jsonschema import validators
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from velagen.errors import Place, Problem
from velagen.schema.checks import parse_check
from velagen.schema.formats import FORMATS
from velagen.schema.model import Node, Schema, is_number, pointer_token
from velagen.schema.patterns import PatternError, matches
from velagen.schema.words import Words, sentence

_URIS = {
    4: "http://json-schema.org/draft-04/schema",
    6: "http://json-schema.org/draft-06/schema",
    7: "http://json-schema.org/draft-07/schema",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # The library would use Python's own engine, which means other things by \d and $ and can take for ever.
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, below in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if below is False:  # the library would not say which
            yield ValidationError(f"{name!r} is not allowed", path=[name], validator="additionalProperties")
        else:
            yield from validator.descend(value, below, path=name)


def _matches(pattern: str, text: str) -> bool:
    try:
        return matches(pattern, text)
    except PatternError:
        return True  # such a schema is refused; here it says nothing


def _format(validator: Any, name: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and name in FORMATS and not FORMATS[name].holds(instance):
        yield ValidationError(f"{instance!r} {FORMATS[name].words}")


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # CUE computes in decimals; binary floats would call 0.3 no multiple of 0.1.
    if is_number(instance) and Decimal(repr(instance)) % Decimal(repr(factor)) != 0:
        yield ValidationError(f"{instance!r} is not a multiple of {factor!r}")


def _checks(validator: Any, entries: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        filled = _with_defaults(instance, schema)

        def sound(name: str) -> bool:
            below = schema.get("properties", {}).get(name, True)
            return name not in instance or validator.evolve(schema=below).is_valid(instance[name])

        for index, entry in enumerate(entries):
            check = parse_check(_nowhere(schema), index, entry)
            # A property that is wrong by itself is told by itself.
            if not check.holds(filled) and all(sound(path[0]) for path in check.paths()):
                yield ValidationError(check.message)


def _with_defaults(instance: dict[str, Any], schema: Any) -> dict[str, Any]:
    """What a rule reads once KubeVela has filled in the defaults that stand in *schema* itself."""
    filled = dict(instance)
    for name, below in schema.get("properties", {}).items():
        if isinstance(below, dict) and isinstance(filled.get(name), dict):
            filled[name] = _with_defaults(filled[name], below)
        elif isinstance(below, dict) and "default" in below:
            filled.setdefault(name, below["default"])
    return filled


def _nowhere(contents: Any) -> Node:
    return Node(contents, None, "", 2020)  # type: ignore[arg-type]  # nothing is looked up


_SHARED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "x-checks": _checks,
}
_CLASSES: dict[tuple[int, bool], Any] = {}


def validator_for(node: Node, *, assert_formats: bool = True) -> Validator:
    """A validator of the ``jsonschema`` library for the schema at *node*, with our patterns, formats and checks."""
    key = (node.dialect, assert_formats)
    if key not in _CLASSES:
        base = validators.validator_for({"$schema": _URIS[node.dialect]})
        rules: dict[str, Any] = dict(_SHARED)
        if assert_formats:
            rules["format"] = _format
        _CLASSES[key] = validators.extend(base, rules)  # type: ignore[no-untyped-call]  # the library's own has no types
    return cast(Validator, _CLASSES[key](node.contents, _resolver=node.resolver))


def validate(schema: Schema, instance: Any, *, assert_formats: bool = True, defaults: bool = True) -> list[Problem]:
    """What is wrong with *instance*, each with the JSON pointer of the value and a sentence; empty where nothing is.

    With *defaults*, a required property that has a default may be absent, as in a rendered definition.
    """
    node = schema.root
    found = validator_for(node, assert_formats=assert_formats).iter_errors(instance)
    problems: list[Problem] = []
    for error in _leaves(found):
        if defaults and error.validator == "required" and _defaulted(schema, error):
            continue
        problems.extend(_problems(schema, error))
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.place.pointer or "", problem.message))


def _leaves(errors: Any) -> Iterator[ValidationError]:
    for error in errors:
        # Through a reference or allOf the inner error is the one to tell; a choice is told as a choice.
        if error.context and error.validator in ("$ref", "allOf", "$dynamicRef", "if"):
            yield from _leaves(error.context)
        else:
            yield error


def _defaulted(schema: Schema, error: ValidationError) -> bool:
    instance: Any = error.instance
    names: Any = error.validator_value
    missing = [name for name in names if name not in instance]
    return all(_has_default(schema, error, name) for name in missing)


def _has_default(schema: Schema, error: ValidationError, name: str) -> bool:
    shape = schema.shape
    for step in error.absolute_path:
        inner = shape.items if isinstance(step, int) else None
        found = shape.property(step) if isinstance(step, str) else None
        inner = found.shape if found else inner
        if inner is None:
            return False
        shape = inner
    found = shape.property(name)
    return found is not None and found.shape.has_default


def _problems(schema: Schema, error: ValidationError) -> Iterator[Problem]:
    pointer = "".join(pointer_token(step) for step in error.absolute_path)
    place = Place(pointer=pointer)
    path = Words(())
    for step in error.absolute_path:
        path = path.item(step) if isinstance(step, int) else path.name(step)
    contents = error.schema if isinstance(error.schema, dict) else False
    node = _nowhere(contents)
    keyword = str(error.validator)
    value: Any = error.validator_value
    instance: Any = error.instance

    def text(words: Words) -> str:
        return "".join(str(part) for part in words.parts)

    if keyword == "additionalProperties":
        yield Problem(text(path.say("is no property that is known here")), place)
    elif keyword == "x-checks":
        yield Problem(error.message, place)
    elif keyword == "required":
        for name in value:
            if name not in instance and not _has_default(schema, error, name):
                yield Problem(text(sentence(node, "required", name, path)), place)
    elif keyword in ("dependentRequired", "dependencies"):
        for name, needed in value.items():
            if name in instance and isinstance(needed, list):
                for other in needed:
                    if other not in instance:
                        yield Problem(text(sentence(node, "dependentRequired", (name, other), path)), place)
    elif keyword in ("unevaluatedProperties", "unevaluatedItems", "propertyNames", "items", "None"):
        yield Problem(text(sentence(node, "false", None, path)) if contents is False else error.message, place)
    else:
        yield Problem(text(sentence(node, keyword, value, path)), place)
