"""What an expression may evaluate to, and what a place in an object takes: one view on JSON Schemas and OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velagen.schema import Shape

_ALL = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})


class Type:
    """What is known of a value; the base class knows nothing."""

    #: JSON types the value may have; empty: nothing is known.
    types: frozenset[str] = frozenset()
    #: Constants the value is limited to; empty: no limit.
    enum: tuple[object, ...] = ()
    #: Fields that nobody declared are allowed.
    open: bool = True
    #: An empty list or object.
    empty: bool = False

    def member(self, name: str) -> Member | None:  # noqa: ARG002  # subclasses look at it
        """The field *name*; None where the type rules it out."""
        return Member(UNKNOWN, present=False) if self.open else None

    @property
    def names(self) -> tuple[str, ...]:
        """The declared fields."""
        return ()

    @property
    def items(self) -> Type:
        """What a list holds."""
        return UNKNOWN

    @property
    def values(self) -> Type:
        """What the entries of a map hold."""
        return UNKNOWN

    @property
    def known(self) -> bool:
        """False where nothing can be checked."""
        return bool(self.types)


@dataclass(frozen=True)
class Member:
    """A field of an object: its type, and whether it exists in every valid object."""

    type: Type
    present: bool


UNKNOWN = Type()


class SchemaType(Type):
    """A JSON Schema: what the user may write."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.types = frozenset(shape.types) if frozenset(shape.types) != _ALL else frozenset()
        self.enum = tuple(shape.enum or ())
        self.open = bool(shape.open)

    def member(self, name: str) -> Member | None:
        found = self._shape.property(name)
        if found is not None:
            return Member(SchemaType(found.shape), present=found.required or found.shape.has_default)
        if self.types and "object" not in self.types:
            return None
        if self._shape.values is not None:
            return Member(SchemaType(self._shape.values), present=False)
        return Member(UNKNOWN, present=False) if self.open else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._shape.properties)

    @property
    def items(self) -> Type:
        return UNKNOWN if self._shape.items is None else SchemaType(self._shape.items)

    @property
    def values(self) -> Type:
        return UNKNOWN if self._shape.values is None else SchemaType(self._shape.values)


class ObjectType(Type):
    """A node of an OpenAPI v3 schema: what a Kubernetes object may hold.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
    (structural schemas and their x-kubernetes extensions).
    """

    #: What the API server adds to and takes from every object, whatever the CRD says.
    _OBJECT_META = frozenset({"name", "namespace", "labels", "annotations", "finalizers", "ownerReferences"})

    def __init__(self, node: Mapping[str, Any], *, is_root: bool = False, is_metadata: bool = False) -> None:
        self._node = node
        self._is_root = is_root
        self._is_metadata = is_metadata
        if node.get("x-kubernetes-int-or-string"):
            self.types = frozenset({"integer", "string", "number"})
        elif "type" in node:
            self.types = frozenset({node["type"]})
        elif "properties" in node or "additionalProperties" in node:
            self.types = frozenset({"object"})
        if node.get("format") == "quantity" or node.get("nullable"):
            self.types |= {"null"} if node.get("nullable") else {"integer", "number"}
        self.enum = tuple(node.get("enum", ()))
        self.open = bool(node.get("x-kubernetes-preserve-unknown-fields")) or (
            "object" in self.types and "properties" not in node and "additionalProperties" not in node
        )
        if not self.types:
            self.open = True

    def member(self, name: str) -> Member | None:
        properties: Mapping[str, Any] = self._node.get("properties", {})
        if self._is_root and name == "metadata":
            return Member(ObjectType(properties.get("metadata", {"type": "object"}), is_metadata=True), present=True)
        if name in properties:
            present = name in self._node.get("required", ()) or (self._is_root and name in {"apiVersion", "kind"})
            return Member(ObjectType(properties[name]), present=present)
        if self._is_root and name in {"apiVersion", "kind"}:
            return Member(ObjectType({"type": "string"}), present=True)
        if self._is_metadata and not properties:
            if name in {"labels", "annotations"}:
                entry = {"type": "object", "additionalProperties": {"type": "string"}}
                return Member(ObjectType(entry), present=False)
            return Member(UNKNOWN, present=name == "name") if name in self._OBJECT_META else None
        if self.types and "object" not in self.types:
            return None
        additional = self._node.get("additionalProperties")
        if isinstance(additional, Mapping):
            return Member(ObjectType(additional), present=False)
        return Member(UNKNOWN, present=False) if self.open or additional is True else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._node.get("properties", ()))

    @property
    def items(self) -> Type:
        node = self._node.get("items")
        return UNKNOWN if not isinstance(node, Mapping) else ObjectType(node)

    @property
    def values(self) -> Type:
        node = self._node.get("additionalProperties")
        return UNKNOWN if not isinstance(node, Mapping) else ObjectType(node)


class JsonType(Type):
    """A value of the given JSON types, nothing else known."""

    def __init__(self, *types: str) -> None:
        self.types = frozenset(types)
        self.open = "object" in self.types


def misfits(value: Type, place: Type, path: str = "", depth: int = 12) -> Iterator[str]:
    """Sentences saying how a value of type *value* may fail to fit *place*; none where it always fits.

    What is not known on either side is taken to fit.
    """
    if not value.known or not place.known or depth == 0:
        return
    at = f"{path}: " if path else ""
    wrong = {one for one in value.types if not _takes(place.types, one)}
    if wrong:
        yield f"{at}it may be {_a(wrong)}, and the field takes {_a(place.types)}"
        return
    if place.enum and value.enum:
        foreign = [one for one in value.enum if one not in place.enum]
        if foreign:
            yield f"{at}it may be {foreign[0]!r}, and the field takes one of {', '.join(map(repr, place.enum))}"
    if "object" in value.types:
        for name in value.names:
            inner, outer = value.member(name), place.member(name)
            here = f"{path}.{name}" if path else name
            if outer is None:
                yield f"{here}: the object has no such field"
            elif inner is not None:
                yield from misfits(inner.type, outer.type, here, depth - 1)
        if not value.names:
            yield from misfits(value.values, place.values, f"{path}[…]", depth - 1)
    if "array" in value.types:
        yield from misfits(value.items, place.items, f"{path}[]", depth - 1)


def _takes(types: frozenset[str], one: str) -> bool:
    return one in types or (one == "integer" and "number" in types)


def _a(types: set[str] | frozenset[str]) -> str:
    names = sorted(types)
    return " or ".join(f"{'an' if name[0] in 'aeio' else 'a'} {name}" for name in names).replace("a null", "null")
