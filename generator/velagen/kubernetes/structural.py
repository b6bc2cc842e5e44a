"""An object against a structural OpenAPI schema: unknown fields, types, required fields, bounds, keyed lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from velagen.errors import Place, Problem, did_you_mean, pointer

_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?\d+))?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?")
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
#: Groups of which the sources hold every kind and version (and so do the built-in ones whose name has no dot).
_COMPLETE_GROUPS = frozenset({"serving.kserve.io", "core.oam.dev", "networking.k8s.io", "rbac.authorization.k8s.io"})
_TYPE_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def check_against(
    obj: object,
    schema_of: Callable[[str, str], dict[str, Any] | None],
    kinds: Callable[[], Iterable[tuple[str, str]]],
) -> list[Problem]:
    """Check a whole Kubernetes object: who it says it is, its metadata, then every field against its schema."""
    if not isinstance(obj, dict):
        return [Problem(f"an object was expected, this is {_word(obj)}", Place(pointer=""))]
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    missing = [
        Problem(f"the object has no {name}", Place(pointer=f"/{name}"))
        for name, value in (("apiVersion", api_version), ("kind", kind))
        if not isinstance(value, str) or not value
    ]
    if missing:
        return missing
    schema = schema_of(str(api_version), str(kind))
    if schema is None:
        known = set(kinds())
        other = sorted(version for version, name in known if name == kind)
        group = str(api_version).rpartition("/")[0]
        here = [name for version, name in known if version.rpartition("/")[0] == group]
        hint = f"{kind} is known as {', '.join(other)}" if other else did_you_mean(str(kind), here)
        # An unknown kind of a group whose every kind we know can't be right; of any other group it may well be.
        wrong = group in _COMPLETE_GROUPS or "." not in group
        message = f"no schema is known for {api_version} {kind}" + ("" if wrong else ": its fields are not checked")
        return [Problem(message, Place(pointer="/kind"), hint, "error" if wrong else "warning")]
    return [*_check_metadata(obj), *check_value(obj, schema)]


def check_value(value: object, schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> list[Problem]:
    """Check a value against a schema; ``path`` is where it stands in the document that the problems point into."""
    return list(_check(value, schema, path, strict=schema.get("x-velagen-source") != "built-in"))


def _check_metadata(obj: dict[str, Any]) -> Iterator[Problem]:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        if metadata is None:
            yield Problem("the object has no metadata.name", Place(pointer="/metadata"))
        return
    name = metadata.get("name")
    if not name and not metadata.get("generateName"):
        yield Problem("the object has no metadata.name", Place(pointer="/metadata/name"))
    elif isinstance(name, str) and (len(name) > 253 or not _NAME.fullmatch(name)):
        yield Problem(
            f'"{name}" is not a name Kubernetes takes',
            Place(pointer="/metadata/name"),
            "lower case letters, digits and '-', beginning and ending with a letter or digit",
        )
    labels = metadata.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not _LABEL_KEY.fullmatch(str(key)):
            yield Problem(f'"{key}" is not a label\'s name', Place(pointer=pointer(("metadata", "labels", key))))
        if isinstance(value, str) and (len(value) > 63 or not _LABEL_VALUE.fullmatch(value)):
            yield Problem(
                f'"{value}" is not a label\'s value',
                Place(pointer=pointer(("metadata", "labels", key))),
                "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            )


def _check(value: Any, schema: dict[str, Any], path: tuple[str | int, ...], *, strict: bool) -> Iterator[Problem]:
    if value is None:
        # A typed client writes creationTimestamp: null; Go's decoders of built-in types take null as "not given".
        if (
            strict
            and not schema.get("nullable")
            and path[-1:] != ("creationTimestamp",)
            and _type_of(schema) is not None
        ):
            yield _problem("null is not a value here: leave the field out", path)
        return
    if schema.get("x-kubernetes-int-or-string"):
        yield from _check_int_or_string(value, schema, path)
        return
    kind = _type_of(schema)
    if kind is not None and not _is(value, kind):
        yield _problem(f"{_TYPE_WORDS[kind]} was expected, this is {_word(value)}", path)
        return
    yield from _check_bounds(value, schema, path)
    if isinstance(value, dict):
        yield from _check_object(value, schema, path, strict=strict)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path, strict=strict)
    yield from _check_logic(value, schema, path, strict=strict)


def _check_object(
    value: dict[str, Any], schema: dict[str, Any], path: tuple[str | int, ...], *, strict: bool
) -> Iterator[Problem]:
    properties: dict[str, Any] = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    open_ = (
        rest is True
        or schema.get("x-kubernetes-preserve-unknown-fields")
        or (_type_of(schema) is None and not properties)
    )
    if schema.get("x-kubernetes-embedded-resource"):
        properties = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", **_OPEN},
            **properties,
        }
    for name in schema.get("required", []):
        if name not in value:
            yield _problem(f"{name} is missing", path)
    for name, item in value.items():
        here = (*path, name)
        if name in properties:
            yield from _check(item, properties[name], here, strict=strict)
        elif isinstance(rest, dict):
            yield from _check(item, rest, here, strict=strict)
        elif not open_:
            hint = did_you_mean(str(name), properties)
            if not hint and 0 < len(properties) <= 12:
                hint = "known here: " + ", ".join(sorted(properties))
            yield _problem(f"there is no field {name} here", here, hint)


_OPEN = {"x-kubernetes-preserve-unknown-fields": True}


def _check_list(
    value: list[Any], schema: dict[str, Any], path: tuple[str | int, ...], *, strict: bool
) -> Iterator[Problem]:
    items = schema.get("items")
    if isinstance(items, dict):
        for number, item in enumerate(value):
            yield from _check(item, items, (*path, number), strict=strict)
    keys: list[str] = []
    if schema.get("x-kubernetes-list-type") == "map":
        keys = schema.get("x-kubernetes-list-map-keys", [])
    elif schema.get("x-kubernetes-list-type") != "set":
        return
    seen: dict[str, int] = {}
    defaults = (
        {key: items.get("properties", {}).get(key, {}).get("default") for key in keys}
        if isinstance(items, dict)
        else {}
    )
    for number, item in enumerate(value):
        if keys and not isinstance(item, dict):
            continue
        own = repr([item.get(key, defaults.get(key)) for key in keys] if keys else item)
        if own in seen:
            what = "the same " + " and ".join(keys) if keys else "the same value"
            yield _problem(f"{what} as in number {seen[own]} of this list", (*path, number))
        seen.setdefault(own, number)


def _check_logic(value: Any, schema: dict[str, Any], path: tuple[str | int, ...], *, strict: bool) -> Iterator[Problem]:
    # In a structural schema these hold value rules only: fields are known by `properties` beside them.
    def holds(part: dict[str, Any]) -> bool:
        loose = part if "properties" not in part and not isinstance(value, dict) else {**part, **_OPEN}
        return not list(_check(value, loose, path, strict=strict))

    for part in schema.get("allOf", []):
        yield from _check(value, {**part, **_OPEN}, path, strict=strict)
    if "anyOf" in schema and not any(holds(part) for part in schema["anyOf"]):
        yield _problem(_alternatives(schema["anyOf"], "at least one"), path)
    if "oneOf" in schema:
        count = sum(holds(part) for part in schema["oneOf"])
        if count != 1:
            yield _problem(_alternatives(schema["oneOf"], "exactly one") + (", not several" if count else ""), path)
    if "not" in schema and schema["not"] and holds(schema["not"]):
        fields = schema["not"].get("required")
        yield _problem(
            f"{' and '.join(fields)} may not stand here together" if fields else "this value is not allowed here", path
        )


def _alternatives(parts: list[dict[str, Any]], how_many: str) -> str:
    fields = [" with ".join(part["required"]) for part in parts if part.get("required")]
    if fields and len(fields) == len(parts):
        return f"{how_many} of {', '.join(fields)} is needed"
    types = [_TYPE_WORDS[part["type"]] for part in parts if part.get("type") in _TYPE_WORDS]
    if types and len(types) == len(parts):
        return f"{' or '.join(types)} was expected"
    return f"{how_many} of {len(parts)} forms has to fit"


def _check_int_or_string(value: Any, schema: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    quantity = schema.get("format") == "quantity" or "KMGTPE" in schema.get("pattern", "")
    if not isinstance(value, str) and not (number and (quantity or float(value).is_integer())):
        what = "a quantity such as 2, 500m or 4Gi" if quantity else "a whole number or a string"
        yield _problem(f"{what} was expected, this is {_word(value)}", path)
    elif isinstance(value, str) and quantity and not _QUANTITY.fullmatch(value):
        yield _problem(f'"{value}" is not a quantity', path, "a number with an optional suffix: 2, 500m, 4Gi")


def _check_bounds(value: Any, schema: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    if "enum" in schema and value not in schema["enum"]:
        allowed = [str(one) for one in schema["enum"]]
        yield _problem(f'"{value}" is not one of {", ".join(allowed)}', path, did_you_mean(str(value), allowed))
    if isinstance(value, str):
        yield from _sized(len(value), schema, "minLength", "maxLength", "character", path)
        rule = schema.get("pattern")
        expression = _compiled(rule) if rule else None
        if expression is not None and not expression.search(value):
            yield _problem(f'"{value}" does not match {rule}', path)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        yield from _check_number(value, schema, path)
    elif isinstance(value, list):
        yield from _sized(len(value), schema, "minItems", "maxItems", "item", path)
        if schema.get("uniqueItems") and len({repr(item) for item in value}) != len(value):
            yield _problem("the items of this list have to differ", path)
    elif isinstance(value, dict):
        yield from _sized(len(value), schema, "minProperties", "maxProperties", "field", path)


def _check_number(value: float, schema: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    low, high = _RANGES.get(schema.get("format", ""), (-math.inf, math.inf))
    if not low <= value <= high:
        yield _problem(f"{value} does not fit into {schema['format']}", path)
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    # OpenAPI 3.0: exclusiveMinimum is a boolean beside minimum.
    if minimum is not None and (value < minimum or (schema.get("exclusiveMinimum") is True and value == minimum)):
        yield _problem(f"{value} is below the least, {minimum}", path)
    if maximum is not None and (value > maximum or (schema.get("exclusiveMaximum") is True and value == maximum)):
        yield _problem(f"{value} is above the most, {maximum}", path)
    step = schema.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        yield _problem(f"{value} is not a multiple of {step}", path)


def _sized(
    size: int, schema: dict[str, Any], low: str, high: str, unit: str, path: tuple[str | int, ...]
) -> Iterator[Problem]:
    if low in schema and size < schema[low]:
        yield _problem(f"at least {schema[low]} {unit}{'s' * (schema[low] != 1)} needed, there are {size}", path)
    if high in schema and size > schema[high]:
        yield _problem(f"at most {schema[high]} {unit}{'s' * (schema[high] != 1)} allowed, there are {size}", path)


def _type_of(schema: dict[str, Any]) -> str | None:
    found = schema.get("type")
    return found if isinstance(found, str) and found in _TYPE_WORDS else None


def _is(value: Any, kind: str) -> bool:
    if kind == "object":
        return isinstance(value, dict)
    if kind == "array":
        return isinstance(value, list)
    if kind == "string":
        # YAML reads an unquoted timestamp as a date; on the wire it is text.
        return isinstance(value, str) or hasattr(value, "isoformat")
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return kind == "number" or float(value).is_integer()


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the string "{value}"'
    return f"the number {value}" if isinstance(value, int | float) else f"{value}"


@lru_cache(maxsize=512)
def _compiled(rule: str) -> re.Pattern[str] | None:
    try:
        return re.compile(rule)
    except re.error:
        # RE2 has a few forms Python's engine lacks: the API server is the judge of those.
        return None


def _problem(message: str, path: tuple[str | int, ...], hint: str = "") -> Problem:
    return Problem(message, Place(pointer=pointer(path)), hint)
