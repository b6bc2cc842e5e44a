"""What a form or a table shows of a JSON Schema: its properties, references followed, in the schema's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Forms deeper than this are of no use to anybody; a recursive schema ends here too.
DEEPEST = 8


@dataclass(frozen=True)
class PropertyView:
    """One property as a person sees it."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    #: The property beside it whose value chooses it, and the values that do; None where it may always be given.
    when: tuple[str, tuple[Any, ...]] | None = None


class SchemaView:
    """Looks into one schema document; references within the document are followed, others stand for "anything"."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    @property
    def root(self) -> dict[str, Any]:
        """The schema of the whole instance, references followed."""
        return self.plain(self._document)

    def plain(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """A schema with ``$ref`` and ``allOf`` put in place; words beside a ``$ref`` win over those behind it."""
        if not isinstance(schema, dict) or depth > DEEPEST:
            return {}
        found: dict[str, Any] = {}
        for part in schema.get("allOf", []):
            found = _joined(found, self.plain(part, depth + 1))
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            found = _joined(found, self.plain(self._at(reference[1:]), depth + 1))
        return _joined(found, {key: value for key, value in schema.items() if key not in {"$ref", "allOf"}})

    def properties(self, schema: Mapping[str, Any]) -> Iterator[PropertyView]:
        """The properties of a plain schema, those of its ``oneOf`` or ``anyOf`` branches after its own."""
        required = schema.get("required", [])
        seen = set()
        for name, sub in schema.get("properties", {}).items():
            seen.add(name)
            yield PropertyView(name, self.plain(sub), name in required)
        branches = [self.plain(branch) for branch in (*schema.get("oneOf", []), *schema.get("anyOf", []))]
        chosen = _discriminator(branches)
        if chosen is not None and chosen not in seen:
            seen.add(chosen)
            first = {key: value for key, value in branches[0]["properties"][chosen].items() if key != "const"}
            values = [value for branch in branches for value in options_of(branch["properties"][chosen])]
            yield PropertyView(chosen, {**first, "enum": values}, required=True)
        found: dict[str, PropertyView] = {}
        for branch in branches:
            for one in self.properties(branch):
                if one.name not in seen:
                    # Which branch holds is the writer's choice, so nothing of it is required.
                    before = found.get(one.name)
                    values = options_of(branch["properties"][chosen]) if chosen else []
                    when = (chosen, (*(before.when[1] if before and before.when else ()), *values)) if chosen else None
                    shown = before.schema if before else one.schema
                    kinds = list(dict.fromkeys([*types_of(shown), *types_of(one.schema)]))
                    shown = shown if kinds == types_of(shown) else {**shown, "type": kinds}
                    found[one.name] = PropertyView(one.name, shown, required=False, when=when)
        yield from found.values()

    def _at(self, pointer: str) -> Any:
        found: Any = self._document
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return {}
        return found


def _discriminator(branches: list[dict[str, Any]]) -> str | None:
    """The property that has values of its own in each branch, if there is one (velagen.schema.unions)."""
    for name in branches[0].get("properties", {}) if len(branches) > 1 else ():
        found = [branch.get("properties", {}).get(name) for branch in branches]
        required = all(name in branch.get("required", []) for branch in branches)
        if required and all(isinstance(one, dict) and options_of(one) for one in found):
            values = [repr(value) for one in found for value in options_of(one)]
            if len(set(values)) == len(values):
                return str(name)
    return None


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types a plain schema allows, ``null`` left out; those of its alternatives where it names none itself."""
    written = schema.get("type")
    found = [written] if isinstance(written, str) else list(written or [])
    if not found and ("properties" in schema or "additionalProperties" in schema):
        found = ["object"]
    if not found and "items" in schema:
        found = ["array"]
    if not found:
        constants = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
        found = list(dict.fromkeys(_JSON_TYPES.get(type(one), "object") for one in constants))
    if not found:
        branches = [*schema.get("oneOf", []), *schema.get("anyOf", [])]
        found = list(
            dict.fromkeys(kind for branch in branches if isinstance(branch, dict) for kind in types_of(branch))
        )
    return [kind for kind in found if kind != "null"]


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", type(None): "null"}


def options_of(schema: Mapping[str, Any]) -> list[Any]:
    """The values a plain schema lists: ``enum``, or ``oneOf`` branches of one ``const`` each."""
    if "enum" in schema:
        return [one for one in schema["enum"] if one is not None]
    if "const" in schema and schema["const"] is not None:
        return [schema["const"]]
    branches = schema.get("oneOf") or schema.get("anyOf") or []
    if branches and all(isinstance(branch, dict) and "const" in branch for branch in branches):
        return [branch["const"] for branch in branches]
    return []


def _joined(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = {**base, **over}
    if "properties" in base and "properties" in over:
        found["properties"] = {**base["properties"], **over["properties"]}
    if "required" in base and "required" in over:
        found["required"] = list(dict.fromkeys([*base["required"], *over["required"]]))
    return found
