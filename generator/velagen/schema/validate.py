# ruff: noqa: ARG001  # the signature of a rule is the library's
"""A value against a schema in Python: the verdict of ``velagen check``, in the words of the rendered definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import wraps
from typing import Any

import referencing.jsonschema as dialects
from jsonschema import validators
from jsonschema.exceptions import ValidationError

from velagen.errors import Place, Problem, VelagenError
from velagen.schema.cel import NotCarriedError, parse_rule
from velagen.schema.checks import parse_check
from velagen.schema.formats import FORMATS
from velagen.schema.model import Node, Schema, Shape, frozen, is_number, pointer_token
from velagen.schema.patterns import PatternError, matches
from velagen.schema.unions import union_of
from velagen.schema.words import Words, sentence

_URIS = {
    4: "http://json-schema.org/draft-04/schema",
    6: "http://json-schema.org/draft-06/schema",
    7: "http://json-schema.org/draft-07/schema",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}


#: Rules asked of one value with all that stands below it; an application of ours asks a few hundred.
MOST_STEPS = 1_000_000
#: Characters times places in a pattern, of all patterns asked of one value: about ten seconds.
MOST_MATCHING = 30_000_000

_Rule = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class TooLong(VelagenError):  # noqa: N818  # what it says is about the value
    """Raised where a value would take more steps than any that is meant well."""

    def __init__(self) -> None:
        hint = "the schema or the value multiplies, such as by references to references"
        super().__init__(Problem("to check this value against its schema takes too long, or goes too deep", hint=hint))


@dataclass
class _Work:
    """What one question to a validator has cost, and what it knows already."""

    steps: int = 0
    matching: int = 0
    #: The verdict on a value at the other end of a reference: a schema that is referred to twice is asked once.
    known: dict[Any, ValidationError | None] = field(default_factory=dict)
    #: What a schema has evaluated of a value.
    evaluated: dict[Any, frozenset[Any]] = field(default_factory=dict)
    #: The values of an enum, to be looked up.
    enums: dict[int, frozenset[object]] = field(default_factory=dict)


_work: ContextVar[_Work] = ContextVar("_work")


def _counted(rule: _Rule) -> _Rule:
    @wraps(rule)
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        work = _work.get()
        work.steps += 1
        if work.steps > MOST_STEPS:
            raise TooLong
        return rule(validator, value, instance, schema)

    return counted


def _reference(validator: Any, reference: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    try:
        resolved = validator._resolver.lookup(reference)
    except Exception:  # the library's own words for a reference to nowhere
        yield from validator._validate_reference(ref=reference, instance=instance)
        return
    scope = tuple(dict.fromkeys(uri for uri, _ in resolved.resolver.dynamic_scope()))
    key = (id(resolved.contents), id(instance), scope)
    known = _work.get().known
    if key in known:
        again = known[key]
        if again is not None:  # The first time all of it was told.
            yield _copied(again)
        return
    errors = list(validator._validate_reference(ref=reference, instance=instance))
    known[key] = _copied(errors[0]) if errors else None
    yield from errors


def _copied(error: ValidationError) -> ValidationError:
    """*error* as it is now: the library writes into errors while it hands them up."""
    return ValidationError(
        error.message, error.validator, error.relative_path, instance=error.instance, schema=error.schema,
        validator_value=error.validator_value,
    )  # fmt: skip


def _type(validator: Any, types: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    words = [types] if isinstance(types, str) else types
    # Source of `nullable`: OpenAPI 3.0.3, Schema Object; Kubernetes' structural schemas have it too.
    if instance is None and schema.get("nullable") is True:
        return
    if not any(validator.is_type(instance, word) for word in words):
        yield ValidationError(f"not of type {', '.join(words)}")


def _int_or_string(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    words = ["integer", "string", *(["null"] if schema.get("nullable") is True else [])]
    if value is True and "type" not in schema and not any(validator.is_type(instance, word) for word in words):
        yield ValidationError("not of type integer, string", validator="type", validator_value=words)


def _list_type(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if value == "set":
        for error in _unique_items(validator, True, instance, schema):
            error.validator = "uniqueItems"
            yield error


def _list_map_keys(validator: Any, keys: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, list) and isinstance(keys, list):
        own = [tuple(frozen(item.get(key)) for key in keys) for item in instance if isinstance(item, dict)]
        if len(set(own)) < len(own):
            yield ValidationError("two elements with the same keys")


def _embedded(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    names = ["apiVersion", "kind"]
    if value is True and isinstance(instance, dict) and any(name not in instance for name in names):
        yield ValidationError("no object", validator="required", validator_value=names)


def _enum(validator: Any, values: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    enums = _work.get().enums
    if id(values) not in enums:
        enums[id(values)] = frozenset(frozen(value) for value in values)
    if frozen(instance) not in enums[id(values)]:
        yield ValidationError("not one of the values")


def _unique_items(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if value is True and isinstance(instance, list) and len({frozen(item) for item in instance}) < len(instance):
        yield ValidationError("the same element twice")


def _required(validator: Any, names: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # One error for all of them: the names that are missing are found again where it is put into words.
    if isinstance(instance, dict) and any(name not in instance for name in names):
        yield ValidationError("required properties are missing")


def _choice(keyword: str, rule: _Rule) -> _Rule:
    """``oneOf`` or ``anyOf``: of a discriminated union the branch that was chosen tells what is wrong."""

    def choice(validator: Any, branches: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        union = None
        if isinstance(instance, dict):
            dialect = 2020 if "prefixItems" in validator.VALIDATORS else 7
            union = union_of(Node(schema, validator._resolver, "", dialect), keyword)
        if union is None:
            yield from rule(validator, branches, instance, schema) or ()
        elif union.name not in instance:
            yield ValidationError("no choice", validator="required", validator_value=[union.name])
        elif (branch := union.branch_of(instance[union.name])) is None:
            names, value = union.values, instance[union.name]
            yield ValidationError("no such choice", "enum", [union.name], validator_value=names, instance=value)
        else:
            for error in validator.descend(instance, branch.node.contents):
                error.choices = [*_choices(error), branch.chosen(union.name)]
                yield error

    return choice


def _unevaluated_properties(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        names = _evaluated(validator, instance, schema, top=True)
        for name in [name for name in instance if name not in names]:
            if below is False:
                yield ValidationError(f"{name!r} is not allowed", path=[name], validator="additionalProperties")
            else:
                yield from validator.descend(instance[name], below, path=name)


def _unevaluated_items(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, list):
        indices = _evaluated(validator, instance, schema, top=True)
        for index in [index for index in range(len(instance)) if index not in indices]:
            yield from validator.descend(instance[index], below, path=index)


def _evaluated(validator: Any, instance: Any, schema: Any, *, top: bool = False) -> frozenset[Any]:
    """The names, or the indices, of *instance* that *schema* has a word for.

    Source: JSON Schema core 2020-12, sections 11.2 and 11.3. The library's own takes twice as long with each level of
    references, and Python's regular expressions.
    """
    if not isinstance(schema, dict):
        return frozenset()
    work = _work.get()
    scope = tuple(dict.fromkeys(uri for uri, _ in validator._resolver.dynamic_scope()))
    key = (id(schema), id(instance), scope, top)
    if key not in work.evaluated:
        work.steps += 1
        if work.steps > MOST_STEPS:
            raise TooLong
        own = _own_items if isinstance(instance, list) else _own_names
        found = set(own(validator, instance, schema, top))
        for other, contents in _in_place(validator, instance, schema):
            found |= _evaluated(other, instance, contents)
        work.evaluated[key] = frozenset(found)
    return work.evaluated[key]


def _in_place(validator: Any, instance: Any, schema: Any) -> Iterator[tuple[Any, Any]]:
    """The schemas that hold for the same value, and a validator that follows their references."""

    def holds(contents: Any) -> bool:
        return next(iter(validator.descend(instance, contents)), None) is None

    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(schema.get(keyword), str):
            resolved = validator._resolver.lookup(schema[keyword])
            yield validator.evolve(schema=resolved.contents, _resolver=resolved.resolver), resolved.contents
    if "$recursiveRef" in schema:
        resolved = dialects.lookup_recursive_ref(validator._resolver)
        yield validator.evolve(schema=resolved.contents, _resolver=resolved.resolver), resolved.contents
    branches = [one for word in ("allOf", "anyOf", "oneOf") for one in schema.get(word, ()) if holds(one)]
    if "if" in schema:
        chosen = holds(schema["if"])
        branches += [schema["if"]] if chosen else []
        branches += [schema[word] for word in (["then"] if chosen else ["else"]) if word in schema]
    if isinstance(instance, dict):
        branches += [one for name, one in schema.get("dependentSchemas", {}).items() if name in instance]
    for contents in branches:
        resource = validator._resolver
        if isinstance(contents, dict) and isinstance(contents.get("$id"), str):
            resource = resource.in_subresource(dialects.DRAFT202012.create_resource(contents))
        yield validator.evolve(schema=contents, _resolver=resource), contents


def _own_names(validator: Any, instance: dict[str, Any], schema: Any, top: bool) -> Iterator[str]:
    if "additionalProperties" in schema or ("unevaluatedProperties" in schema and not top):
        yield from instance
        return
    patterns = schema.get("patternProperties", {})
    for name in instance:
        if name in schema.get("properties", {}) or any(_matches(pattern, name) for pattern in patterns):
            yield name


def _own_items(validator: Any, instance: list[Any], schema: Any, top: bool) -> Iterator[int]:
    prefix = schema.get("prefixItems", schema["items"] if isinstance(schema.get("items"), list) else ())
    rest = "additionalItems" in schema if isinstance(schema.get("items"), list) else "items" in schema
    if rest or ("unevaluatedItems" in schema and not top):
        yield from range(len(instance))
        return
    yield from range(len(prefix))
    # Of 2019-09 `contains` evaluates nothing.
    if "contains" in schema and "prefixItems" in validator.VALIDATORS:
        for index, item in enumerate(instance):
            if next(iter(validator.descend(item, schema["contains"])), None) is None:
                yield index


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
    work = _work.get()
    work.matching += (len(text) + 20) * (len(pattern) + 20)
    if work.matching > MOST_MATCHING:
        raise TooLong
    try:
        return matches(pattern, text)
    except PatternError:
        return True  # such a schema is refused; here it says nothing


def _format(validator: Any, name: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and name in FORMATS and not FORMATS[name].holds(instance):
        yield ValidationError(f"{instance!r} {FORMATS[name].words}")


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # The decimals as they are written; binary floats would call 0.3 no multiple of 0.1.
    if is_number(instance) and Fraction(repr(instance)) % Fraction(repr(factor)) != 0:
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


def _cel_rules(validator: Any, entries: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    node = Node(schema, validator._resolver, "", 2020)
    for entry in entries if isinstance(entries, list) else ():
        try:
            rule = parse_rule(node, entry)
        except NotCarriedError:
            continue  # the compiler warns of it
        if not rule.holds(instance):
            yield ValidationError(rule.message, "x-checks" if rule.speaks else "x-kubernetes-validations")


def _nowhere(contents: Any) -> Node:
    return Node(contents, None, "", 2020)  # type: ignore[arg-type]  # nothing is looked up


_SHARED: dict[str, _Rule] = {
    "$ref": _reference,
    "$dynamicRef": _reference,
    "type": _type,
    "enum": _enum,
    "uniqueItems": _unique_items,
    "x-kubernetes-int-or-string": _int_or_string,
    "x-kubernetes-list-type": _list_type,
    "x-kubernetes-list-map-keys": _list_map_keys,
    "x-kubernetes-embedded-resource": _embedded,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "x-checks": _checks,
    "x-kubernetes-validations": _cel_rules,
}
_CLASSES: dict[tuple[int, bool], Any] = {}


@dataclass(frozen=True)
class Judge:
    """A schema's verdicts by the ``jsonschema`` library, within bounds of time."""

    _validator: Any

    def errors(self, instance: Any) -> list[ValidationError]:
        """What is wrong with *instance*. Raises TooLong."""
        token = _work.set(_Work())
        try:
            return list(self._validator.iter_errors(instance))
        except RecursionError as error:
            raise TooLong from error
        finally:
            _work.reset(token)

    def is_valid(self, instance: Any) -> bool:
        """Whether nothing is wrong with *instance*. Raises TooLong."""
        return not self.refused([instance])

    def refused(self, instances: Sequence[Any]) -> list[int]:
        """The places of those *instances* with which something is wrong. Raises TooLong where they cost too much.

        They share what is learned on the way, such as the look-up of an enum's values.
        """
        token = _work.set(_Work())
        try:
            return [place for place, instance in enumerate(instances) if not self._validator.is_valid(instance)]
        except RecursionError as error:
            raise TooLong from error
        finally:
            _work.reset(token)


def validator_for(node: Node, *, assert_formats: bool = True) -> Judge:
    """A validator of the ``jsonschema`` library for the schema at *node*, with our patterns, formats and checks."""
    key = (node.dialect, assert_formats)
    if key not in _CLASSES:
        base: Any = validators.validator_for({"$schema": _URIS[node.dialect]})
        rules = {
            **base.VALIDATORS,
            **{word: rule for word, rule in _SHARED.items() if word in base.VALIDATORS or word[:2] == "x-"},
        }
        # Draft 4 has `required` as a list too; draft 3, where it is a flag, is not read.
        rules["required"] = _required
        for keyword in ("oneOf", "anyOf"):
            rules[keyword] = _choice(keyword, rules[keyword])
        if assert_formats:
            rules["format"] = _format
        counted = {keyword: _counted(rule) for keyword, rule in rules.items()}
        _CLASSES[key] = validators.extend(base, counted)  # type: ignore[no-untyped-call]  # the library's own has no types
    return Judge(_CLASSES[key](node.contents, _resolver=node.resolver))


def validate(schema: Schema, instance: Any, *, assert_formats: bool = True, defaults: bool = True) -> list[Problem]:
    """What is wrong with *instance*, each with the JSON pointer of the value and a sentence; empty where nothing is.

    With *defaults*, a required property that has a default may be absent, as in a rendered definition.
    """
    node = schema.root
    problems: list[Problem] = []
    try:
        found = validator_for(node, assert_formats=assert_formats).errors(instance)
    except TooLong as too_long:
        return list(too_long.problems)
    for error in _leaves(found):
        if defaults and error.validator == "required" and _defaulted(schema, error):
            continue
        for problem in _problems(schema, error):
            # A message of the schema's own stays as it is.
            told = "" if _speaks_itself(error) else "".join(f" when {choice}" for choice in _choices(error))
            problems.append(replace(problem, message=problem.message + told))
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.place.pointer or "", problem.message))


def _choices(error: ValidationError) -> list[str]:
    """The branches that an error lies in, the innermost first: `_choice` notes them at the error."""
    found: list[str] = getattr(error, "choices", [])
    return found


def _speaks_itself(error: ValidationError) -> bool:
    return error.validator == "x-checks" or (isinstance(error.schema, dict) and "x-message" in error.schema)


def _leaves(errors: Any) -> Iterator[ValidationError]:
    for error in errors:
        # Through a reference or allOf the inner error is the one to tell; a choice is told as a choice.
        if error.context and error.validator in ("$ref", "allOf", "$dynamicRef", "if"):
            yield from _leaves(error.context)
        else:
            yield error


def _defaulted(schema: Schema, error: ValidationError) -> bool:
    return not _missing(schema, error)


def _missing(schema: Schema, error: ValidationError) -> list[str]:
    """The required properties that are absent and that no default fills in."""
    instance: Any = error.instance
    names: Any = error.validator_value
    shape = _shape_at(schema, error)
    defaulted = {name for name, one in shape.properties.items() if one.shape.has_default} if shape else set()
    return [name for name in names if name not in instance and name not in defaulted]


def _shape_at(schema: Schema, error: ValidationError) -> Shape | None:
    shape = schema.shape
    for step in error.absolute_path:
        inner = shape.items if isinstance(step, int) else None
        found = shape.property(step) if isinstance(step, str) else None
        inner = found.shape if found else inner
        if inner is None:
            return None
        shape = inner
    return shape


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
        yield Problem(text(path.say("is not a known property")), place)
    elif keyword == "x-checks":
        yield Problem(error.message, place)
    elif keyword == "x-kubernetes-validations":
        yield Problem(text(path.say(error.message)), place)
    elif keyword == "required":
        for name in _missing(schema, error):
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
