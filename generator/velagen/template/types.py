"""What an expression may evaluate to, and what a place in an object takes: one view on JSON Schemas and OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velagen.schema import Shape

#: How deep alternatives are looked into: a schema may refer to itself in them. Below it all is possible.
_DEPTH = 4


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
    #: The items that a list has at least.
    at_least: int = 0

    def member(self, name: str) -> Member | None:
        """The field *name*; None where the type rules it out."""
        return self.declared(name) or (Member(UNKNOWN, present=False) if self.open else None)

    def declared(self, name: str) -> Member | None:  # noqa: ARG002  # subclasses look at it
        """The field *name* where somebody declared it."""
        return None

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
#: A field of which nothing is known.
UNKNOWN_MEMBER = Member(UNKNOWN, present=False)


class JsonType(Type):
    """A value of the given JSON types; of a list what its items are and how many there are at least."""

    def __init__(self, *types: str, items: Type = UNKNOWN, at_least: int = 0, enum: tuple[object, ...] = ()) -> None:
        self.types = frozenset(types)
        self.open = "object" in self.types
        self.enum = enum
        self.at_least = at_least
        self._items = items

    @property
    def items(self) -> Type:
        return self._items


class Fields(Type):
    """An object whose fields are written out; *is_open* where others may come."""

    types = frozenset({"object"})

    def __init__(self, members: Mapping[str, Member], *, is_open: bool = False) -> None:
        self._members = members
        self.open = is_open

    def declared(self, name: str) -> Member | None:
        return self._members.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)


class AnyOf(Type):
    """A value of one of the *alternatives*."""

    def __init__(self, alternatives: Sequence[Type]) -> None:
        self._alternatives = alternatives
        self.open = any(one.open for one in alternatives)
        self.at_least = min((one.at_least for one in alternatives if _is_list(one)), default=0)

    @cached_property
    def types(self) -> frozenset[str]:  # type: ignore[override]  # computed when it is asked for
        if any(not one.known for one in self._alternatives):
            return frozenset()
        return _without_doubles(name for one in self._alternatives for name in one.types)

    @cached_property
    def enum(self) -> tuple[object, ...]:  # type: ignore[override]  # computed when it is asked for
        if any(not one.enum for one in self._alternatives):
            return ()
        return tuple({_identity(value): value for one in self._alternatives for value in one.enum}.values())

    def declared(self, name: str) -> Member | None:
        found = [one.declared(name) for one in self._alternatives if _is_object(one)]
        members = [one for one in found if one is not None]
        if not members:
            return None
        # An alternative that does not declare it says nothing of it, unless it rules it out.
        silent = any(
            one.open and member is None
            for one, member in zip((one for one in self._alternatives if _is_object(one)), found, strict=True)
        )
        only_objects = all(one.types == {"object"} for one in self._alternatives)
        present = only_objects and len(members) == len(found) and all(one.present for one in members)
        return Member(UNKNOWN if silent else any_of([one.type for one in members]), present)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self._alternatives for name in one.names))

    @property
    def items(self) -> Type:
        return any_of([one.items for one in self._alternatives if _is_list(one)])

    @property
    def values(self) -> Type:
        return any_of([one.values for one in self._alternatives if _is_object(one)])


def any_of(alternatives: Sequence[Type]) -> Type:
    """A value of one of the *alternatives*; of none, nothing is known."""
    return UNKNOWN if not alternatives else alternatives[0] if len(alternatives) == 1 else AnyOf(alternatives)


class SchemaType(Type):
    """A JSON Schema: what the user may write.

    All that a schema says together is met: its keywords, ``enum``, ``const``, and each of ``anyOf`` and ``oneOf``, of
    which one alternative holds. What other keywords (``not``, ``if``) rule out is taken to be possible.
    """

    def __init__(self, shape: Shape, depth: int = 0) -> None:
        self._shape = shape
        self._depth = depth
        self.at_least = int(shape.keyword("minItems") or 0)

    @cached_property
    def open(self) -> bool:  # type: ignore[override]  # computed when it is asked for
        return bool(self._shape.open) and all(group.open for group in self._groups)

    @cached_property
    def _groups(self) -> tuple[AnyOf, ...]:
        if self._depth >= _DEPTH:
            return ()
        return tuple(
            AnyOf([SchemaType(one, self._depth + 1) for one in group]) for group in self._shape.alternatives if group
        )

    @cached_property
    def types(self) -> frozenset[str]:  # type: ignore[override]  # computed when it is asked for
        found = _spread(self._shape.types)
        for group in self._groups:
            found &= _spread(group.types)
        if self._values is not None:
            found &= _spread(frozenset(_type_of(value) for value in self._values))
        return _without_doubles(found)

    @cached_property
    def _values(self) -> tuple[object, ...] | None:
        """The constants that every layer and every group of alternatives allows; None where nothing limits them."""
        limits = [*self._shape.limits, *(group.enum for group in self._groups if group.enum)]
        if not limits:
            return None
        first, *others = limits
        allowed = [{_identity(value) for value in limit} for limit in others]
        return tuple(value for value in first if all(_identity(value) in one for one in allowed))

    @cached_property
    def enum(self) -> tuple[object, ...]:  # type: ignore[override]  # computed when it is asked for
        return tuple(value for value in self._values or () if _takes(self.types, _type_of(value)))

    def declared(self, name: str) -> Member | None:
        found = self._shape.properties.get(name)
        required = self._requires(name)
        if found is not None:
            own = SchemaType(found.shape, self._depth)
            narrower = [member.type for group in self._groups if (member := group.declared(name)) is not None]
            return Member(_Narrowed(own, narrower) if narrower else own, required or found.shape.has_default)
        if self.types and "object" not in self.types:
            return None
        members = [member for group in self._groups if (member := group.declared(name)) is not None]
        members += [
            Member(SchemaType(extra.shape, self._depth), present=False)
            for shape in self._shape.conditional
            if self._depth < _DEPTH and (extra := shape.properties.get(name)) is not None
        ]
        if members and not self._shape.closed_by_itself:
            return Member(members[0].type, required or any(one.present for one in members))
        if self._shape.values is not None:
            return Member(SchemaType(self._shape.values, self._depth), required)
        return Member(UNKNOWN, required) if required and self.open else None

    def member(self, name: str) -> Member | None:
        found = self.declared(name)
        if found is not None or (self.types and "object" not in self.types):
            return found
        return Member(UNKNOWN, present=False) if self.open else None

    def _requires(self, name: str) -> bool:
        return name in self._shape.required or any(
            all(isinstance(one, SchemaType) and one._requires(name) for one in group._alternatives)
            for group in self._groups
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys([*self._shape.properties, *(name for group in self._groups for name in group.names)])
        )

    @property
    def items(self) -> Type:
        if self._shape.items is not None:
            return SchemaType(self._shape.items, self._depth)
        return next((group.items for group in self._groups if group.items.known), UNKNOWN)

    @property
    def values(self) -> Type:
        if self._shape.values is not None:
            return SchemaType(self._shape.values, self._depth)
        return next((group.values for group in self._groups if group.values.known), UNKNOWN)


class _Narrowed(Type):
    """A property that the schema declares, and its alternatives more closely."""

    def __init__(self, own: SchemaType, narrower: Sequence[Type]) -> None:
        self._own = own
        self.open, self.at_least = own.open, own.at_least
        types = _spread(own.types)
        for one in narrower:
            if one.known:
                types &= _spread(one.types)
        self.types = _without_doubles(types)
        limits = [one.enum for one in (own, *narrower) if one.enum]
        allowed = [{_identity(value) for value in limit} for limit in limits[1:]]
        self.enum = (
            tuple(value for value in limits[0] if all(_identity(value) in one for one in allowed)) if limits else ()
        )

    def declared(self, name: str) -> Member | None:
        return self._own.declared(name)

    def member(self, name: str) -> Member | None:
        return self._own.member(name)

    @property
    def names(self) -> tuple[str, ...]:
        return self._own.names

    @property
    def items(self) -> Type:
        return self._own.items

    @property
    def values(self) -> Type:
        return self._own.values


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
        self.at_least = int(node.get("minItems", 0))
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

    def declared(self, name: str) -> Member | None:
        return self.member(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._node.get("properties", ()))

    @property
    def required(self) -> tuple[str, ...]:
        """The fields that an object must have and that have no default."""
        found = self._node.get("properties", {})
        return tuple(name for name in self._node.get("required", ()) if "default" not in found.get(name, {}))

    @property
    def items(self) -> Type:
        node = self._node.get("items")
        return UNKNOWN if not isinstance(node, Mapping) else ObjectType(node)

    @property
    def values(self) -> Type:
        node = self._node.get("additionalProperties")
        return UNKNOWN if not isinstance(node, Mapping) else ObjectType(node)


class Observed(Type):
    """A thing that is looked at while it may not be complete: each of its fields may be missing."""

    def __init__(self, of: Type) -> None:
        self._of = of
        self.types, self.enum, self.open = of.types, of.enum, of.open

    def member(self, name: str) -> Member | None:
        found = self._of.member(name)
        return None if found is None else Member(observed(found.type), present=False)

    def declared(self, name: str) -> Member | None:
        found = self._of.declared(name)
        return None if found is None else Member(observed(found.type), present=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self._of.names

    @property
    def items(self) -> Type:
        return observed(self._of.items)

    @property
    def values(self) -> Type:
        return observed(self._of.values)


class Answer(Observed):
    """The answer of an operation of which some fields are *known* better than KubeVela says."""

    def __init__(self, of: Type, known: Mapping[str, Type]) -> None:
        super().__init__(of)
        self._known = {name: Member(observed(one), present=False) for name, one in known.items()}

    def member(self, name: str) -> Member | None:
        return self._known.get(name) or super().member(name)

    def declared(self, name: str) -> Member | None:
        return self._known.get(name) or super().declared(name)


def observed(of: Type) -> Type:
    """*of* while it may not be complete."""
    return Observed(of) if of.known else UNKNOWN


#: What every object has: of its spec nothing is known.
ANY_OBJECT = ObjectType({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, is_root=True)


def common(types: Sequence[Type]) -> Type:
    """The type of a value that is one of several; an empty list or object says nothing of what the others hold."""
    return any_of([one for one in types if not one.empty] or list(types))


def constant(value: object) -> Type:
    """The type of a JSON value."""
    return JsonType(_type_of(value), enum=(value,))


def misfits(value: Type, place: Type, path: str = "", depth: int = 12) -> Iterator[str]:
    """Sentences saying how a value of type *value* may fail to fit *place*; none where it always fits.

    What is not known on either side is taken to fit.
    """
    if not value.known or not place.known or depth == 0:
        return
    at = f"{path}: " if path else ""
    wrong = {one for one in value.types if not _takes(place.types, one)}
    if wrong:
        yield f"{at}it may be {a(wrong)}, and the field takes {a(place.types)}"
        return
    if place.enum and value.enum:
        foreign = [one for one in value.enum if _identity(one) not in {_identity(other) for other in place.enum}]
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


def has(values: Iterable[object], value: object) -> bool:
    """Whether *value* is among *values*, where 1 and True are two things, as in JSON."""
    return any(_identity(value) == _identity(one) for one in values)


def a(types: Iterable[str]) -> str:
    """The types in words: ``an integer or a string``."""
    names = sorted(types)
    return " or ".join(f"{'an' if name[0] in 'aeio' else 'a'} {name}" for name in names).replace("a null", "null")


def _takes(types: frozenset[str], one: str) -> bool:
    return one in types or (one == "integer" and "number" in types)


def _is_object(of: Type) -> bool:
    return not of.known or "object" in of.types


def _is_list(of: Type) -> bool:
    return not of.known or "array" in of.types


_ALL = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})


def _spread(types: frozenset[str]) -> frozenset[str]:
    """With ``integer`` beside each ``number``, so that two sets can be met; where nothing is known, all."""
    if not types:
        return _ALL
    return types | {"integer"} if "number" in types else types


def _without_doubles(types: Iterable[str]) -> frozenset[str]:
    found = frozenset(types)
    return found - {"integer"} if "number" in found else found


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


def _identity(value: object) -> tuple[str, object]:
    """Equal for what JSON holds equal."""
    match value:
        case bool() | None:
            return ("word", value)
        case int() | float():
            return ("number", value)
        case str():
            return ("text", value)
    return ("other", repr(value))
