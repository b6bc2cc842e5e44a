"""Schemas as they are read: documents, references, drafts, and the conjunction of everything that holds at a place."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jsonschema_specifications
import referencing
import referencing.exceptions
import referencing.jsonschema as dialects
from jsonschema import validators
from referencing._core import Resolver

from velagen.documents import MOST_DIGITS
from velagen.errors import Place, Problem, VelagenError

#: JSON's types, in the order in which a disjunction lists them.
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
ALL_TYPES = frozenset(["null", "boolean", "number", "string", "array", "object"])
#: Deeper than any schema written by a person; shallow enough for Python's and CUE's own recursion.
MAX_DEPTH = 64
#: Places of a schema that is written out, references followed: KServe's InferenceService has 14,000. (Of those that
#: are left to checks, half of this is taken; the most that a well-known schema asks for is 7,300, bitbucket-pipelines.)
MAX_NODES = 20_000
#: Values of a document as it was read.
MAX_VALUES = 200_000
#: Values that the meta-schema is asked about, a millisecond each.
MAX_INTRICATE = 20_000
#: References and `allOf` one behind the other.
MAX_CHAIN = 200

_DIALECTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
#: Names of no draft of its own: "the newest one". Source: draft-07, section 6.4 of its release notes; schema stores.
_NEWEST = "http://json-schema.org/schema"
_ROOT_URI = "velagen:schema"


def pointer_token(token: object) -> str:
    """One step of a JSON pointer, escaped as RFC 6901 asks."""
    return "/" + str(token).replace("~", "~0").replace("/", "~1")


def is_number(value: object) -> bool:
    """A JSON number, which in Python a bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def json_type(value: object) -> str:
    """The JSON type of *value*; ``number`` for every number."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


def frozen(value: object) -> object:
    """Something hashable that is equal for equal JSON values, as JSON Schema has it: 1 is 1.0 and not true."""
    match value:
        case bool():
            return ("boolean", value)
        case dict():
            return ("object", frozenset((name, frozen(item)) for name, item in value.items()))
        case list() | tuple():
            return ("array", tuple(frozen(item) for item in value))
    return value


class InexactError(Exception):
    """Raised for a keyword that can't be compiled exactly; the compiler collects them."""

    def __init__(self, node: Node, keyword: str, reason: str, instead: str = "") -> None:
        super().__init__(reason)
        self.node = node
        self.keyword = keyword
        self.reason = reason
        self.instead = instead


class TooLargeError(InexactError):
    """Raised where a schema, its references followed, has more places than anything should; it ends the search."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, "", "written out, the schema is too large", "split it, or make it less nested")


@dataclass(frozen=True, eq=False)
class Node:
    """A schema at a place, with what is needed to follow its references."""

    contents: Any
    resolver: Resolver[Any]
    #: JSON pointer within the document, for messages.
    pointer: str
    dialect: int

    def __getitem__(self, keyword: str) -> Any:
        return self.view[keyword]

    def __contains__(self, keyword: object) -> bool:
        return keyword in self.view

    def get(self, keyword: str, default: Any = None) -> Any:
        """The keyword's value in the words of draft 2020-12, or *default*."""
        return self.view.get(keyword, default)

    @property
    def view(self) -> Mapping[str, Any]:
        """The keywords, older drafts translated to 2020-12; empty for a boolean schema."""
        cached = self.__dict__.get("_view")
        if cached is None:
            cached = _translate(self.contents, self.dialect) if isinstance(self.contents, dict) else {}
            object.__setattr__(self, "_view", cached)
        return cached

    @property
    def identity(self) -> tuple[int, tuple[str, ...]]:
        """Equal for the same schema reached with the same dynamic scope."""
        scope: list[str] = []
        if self.dialect >= 2019:
            for uri, _ in self.resolver.dynamic_scope():
                if uri not in scope:
                    scope.append(uri)
        return (id(self.contents), tuple(scope))

    def sub(self, *path: str | int) -> Node:
        """The schema below this one at *path*, in the words of 2020-12."""
        contents: Any = self.view
        for step in path:
            contents = contents[step]
        pointer = self.pointer + "".join(pointer_token(step) for step in path)
        return self.at(contents, pointer)

    def at(self, contents: Any, pointer: str) -> Node:
        """A schema with *contents* that stands inside this one."""
        resolver, dialect = self.resolver, self.dialect
        if isinstance(contents, dict):
            dialect = _dialect_of(contents, dialect)
            key = "id" if dialect == 4 else "$id"
            if isinstance(contents.get(key), str) and not (dialect <= 7 and "$ref" in contents):
                resolver = resolver.in_subresource(_specification(dialect).create_resource(contents))
        return Node(contents, resolver, pointer, dialect)

    def follow(self, keyword: str) -> Node:
        """The schema that ``$ref``, ``$dynamicRef`` or ``$recursiveRef`` leads to.

        Raises InexactError when nothing is there.
        """
        reference = self.view[keyword]
        try:
            if keyword == "$recursiveRef":
                resolved = dialects.lookup_recursive_ref(self.resolver)
            else:
                resolved = self.resolver.lookup(reference)
        except (referencing.exceptions.Unresolvable, ValueError) as error:
            raise InexactError(
                self, keyword, f"{keyword} {reference!r} leads nowhere", "reference a schema of this document"
            ) from error
        dialect = self.dialect
        contents = resolved.contents
        if isinstance(contents, dict):
            dialect = _dialect_of(contents, dialect)
        elif not isinstance(contents, bool):
            raise InexactError(self, keyword, f"{keyword} {reference!r} points to something that is not a schema")
        pointer = reference[1:] if keyword == "$ref" and reference.startswith("#/") else self.pointer
        if reference == "#":
            pointer = ""
        return Node(contents, resolved.resolver, pointer, dialect)

    def place(self, origin: str, keyword: str = "") -> Place:
        """Where this schema stands, for messages."""
        return Place(file=origin, pointer=self.pointer + (pointer_token(keyword) if keyword else ""))


def draft_of(uri: str) -> int | None:
    """The draft that ``$schema`` names, by http or https, with ``#`` at its end or without; None for any other."""
    bare = uri.rstrip("#").rstrip("/").removeprefix("https:").removeprefix("http:")
    known = {name.partition(":")[2]: draft for name, draft in {**_DIALECTS, _NEWEST: 2020}.items()}
    return known.get(bare)


def _dialect_of(contents: Mapping[str, Any], default: int) -> int:
    uri = contents.get("$schema")
    return (draft_of(uri) or default) if isinstance(uri, str) else default


def _specification(dialect: int) -> referencing.Specification[Any]:
    return {
        4: dialects.DRAFT4,
        6: dialects.DRAFT6,
        7: dialects.DRAFT7,
        2019: dialects.DRAFT201909,
        2020: dialects.DRAFT202012,
    }[dialect]


def _translate(schema: Mapping[str, Any], dialect: int) -> Mapping[str, Any]:
    """*schema* in the words of draft 2020-12; keywords its draft does not have are left out."""
    return _without_extensions(_newest(schema, dialect))


def _without_extensions(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What OpenAPI 3.0 and Kubernetes' structural schemas add, in the words of JSON Schema.

    Source: OpenAPI 3.0.3, Schema Object (nullable); kubernetes apiextensions-apiserver pkg/apis/apiextensions/types.go.
    """
    if not _EXTENSIONS & schema.keys():
        return schema
    out = dict(schema)
    if out.get("x-kubernetes-int-or-string") is True and "type" not in out:
        out["type"] = ["integer", "string"]
    if out.get("nullable") is True and "type" in out:
        words = [out["type"]] if isinstance(out["type"], str) else list(out["type"])
        out["type"] = [*words, *(["null"] if "null" not in words else [])]
    if out.get("x-kubernetes-list-type") == "set":
        out["uniqueItems"] = True
    if out.get("x-kubernetes-embedded-resource") is True:
        out["required"] = list(dict.fromkeys([*out.get("required", ()), "apiVersion", "kind"]))
    return out


_EXTENSIONS = frozenset(
    ["nullable", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-embedded-resource"]
)


def _newest(schema: Mapping[str, Any], dialect: int) -> Mapping[str, Any]:
    if dialect <= 7 and "$ref" in schema:
        return {"$ref": schema["$ref"]}  # siblings of $ref mean nothing before 2019-09
    if dialect == 2020:
        return schema
    out = dict(schema)
    newer = {
        4: ["const", "contains", "propertyNames", "if", "then", "else", "examples"],
        6: ["if", "then", "else"],
    }.get(dialect, [])
    if dialect <= 7:
        newer = [
            *newer,
            "dependentRequired",
            "dependentSchemas",
            "unevaluatedItems",
            "unevaluatedProperties",
            "minContains",
            "maxContains",
        ]
    for keyword in ["prefixItems", "$dynamicRef", *newer]:
        out.pop(keyword, None)
    if dialect == 4:
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if out.pop(exclusive, False) is True and bound in out:
                out[exclusive] = out.pop(bound)
    items = out.get("items")
    additional = out.pop("additionalItems", None)
    if isinstance(items, list):
        del out["items"]
        out["prefixItems"] = items
        if additional is not None:
            out["items"] = additional
    for name, dependency in (out.pop("dependencies", None) or {}).items():
        target = "dependentRequired" if isinstance(dependency, list) else "dependentSchemas"
        out[target] = {**out.get(target, {}), name: dependency}
    return out


@dataclass(frozen=True)
class Property:
    """A property of an object."""

    name: str
    shape: Shape
    required: bool

    @property
    def present(self) -> bool:
        """Whether a template may read it without asking first: it is required or has a default."""
        return self.required or self.shape.has_default


class Shape:
    """What a template or a form may ask about a value; references are followed and ``allOf`` is merged."""

    def __init__(self, layers: tuple[Node, ...]) -> None:
        self._layers = layers
        self._properties: dict[str, Property] | None = None

    def __repr__(self) -> str:
        return f"Shape({sorted(self.types)})"

    @property
    def layers(self) -> tuple[Node, ...]:
        """The schemas that hold here together, each with its own keywords."""
        return self._layers

    def _first(self, keyword: str) -> Any:
        return next((node[keyword] for node in self._layers if keyword in node), None)

    @property
    def types(self) -> frozenset[str]:
        """The JSON types a value may have; all of them where the schema does not say."""
        return types_of(self._layers)

    @property
    def title(self) -> str | None:
        """The title, or None."""
        return cast("str | None", self._first("title"))

    @property
    def description(self) -> str | None:
        """The description, or None."""
        return cast("str | None", self._first("description"))

    @property
    def has_default(self) -> bool:
        """Whether a value is filled in where the user writes nothing."""
        return any("default" in node for node in self._layers)

    @property
    def default(self) -> Any:
        """The default, or None; ask has_default first."""
        return self._first("default")

    @property
    def examples(self) -> tuple[Any, ...]:
        """The examples, none if there are none."""
        return tuple(self._first("examples") or ())

    @property
    def enum(self) -> tuple[Any, ...] | None:
        """The values a value must be one of (a ``const`` is an enum of one), or None."""
        if any("const" in node for node in self._layers):
            return (self._first("const"),)
        values = self._first("enum")
        return None if values is None else tuple(values)

    @property
    def const(self) -> Any:
        """The one value allowed, or None."""
        return self._first("const")

    @property
    def format(self) -> str | None:
        """The format's name, or None."""
        return cast("str | None", self._first("format"))

    @property
    def pattern(self) -> str | None:
        """The pattern of a string, or None."""
        return cast("str | None", self._first("pattern"))

    @property
    def min_length(self) -> int | None:
        """The least number of characters, or None."""
        return cast("int | None", self._first("minLength"))

    @property
    def max_length(self) -> int | None:
        """The greatest number of characters, or None."""
        return cast("int | None", self._first("maxLength"))

    @property
    def minimum(self) -> float | None:
        """The lower bound that itself is allowed, or None."""
        return cast("float | None", self._first("minimum"))

    @property
    def maximum(self) -> float | None:
        """The upper bound that itself is allowed, or None."""
        return cast("float | None", self._first("maximum"))

    def keyword(self, name: str) -> Any:
        """Any keyword's value as written (``x-…`` too), or None."""
        return self._first(name)

    @property
    def properties(self) -> Mapping[str, Property]:
        """The named properties, in the order written; without those of ``oneOf``, ``anyOf`` and ``if`` branches."""
        if self._properties is None:
            required = {name for node in self._layers for name in node.get("required", ())}
            names: dict[str, list[Node]] = {}
            for node in self._layers:
                for name in node.get("properties", {}):
                    names.setdefault(name, []).append(node.sub("properties", name))
            self._properties = {
                name: Property(name, Shape(layers_of(*nodes)), name in required) for name, nodes in names.items()
            }
        return self._properties

    @property
    def items(self) -> Shape | None:
        """What an array's elements are, or None."""
        nodes = [node.sub("items") for node in self._layers if "items" in node]
        return Shape(layers_of(*nodes)) if nodes else None

    @property
    def values(self) -> Shape | None:
        """What the values of a map are (``additionalProperties`` with a schema), or None."""
        nodes = [node.sub("additionalProperties") for node in self._layers if "additionalProperties" in node]
        return Shape(layers_of(*nodes)) if nodes and all(isinstance(node.contents, dict) for node in nodes) else None

    @property
    def open(self) -> bool:
        """Whether an object may have properties that the schema does not name."""
        return all(
            node.get(keyword, True) is not False
            for node in self._layers
            for keyword in ("additionalProperties", "unevaluatedProperties")
        )

    @property
    def closed_by_itself(self) -> bool:
        """Whether ``additionalProperties: false`` rules out what only an alternative names."""
        return any(node.get("additionalProperties", True) is False for node in self._layers)

    @property
    def required(self) -> frozenset[str]:
        """The properties that must be there, named here or not."""
        return frozenset(name for node in self._layers for name in node.get("required", ()))

    @property
    def limits(self) -> tuple[tuple[Any, ...], ...]:
        """Each ``enum`` and each ``const``: a value must be in all of them."""
        consts = [(node["const"],) for node in self._layers if "const" in node]
        return (*consts, *(tuple(node["enum"]) for node in self._layers if "enum" in node))

    @property
    def alternatives(self) -> tuple[tuple[Shape, ...], ...]:
        """The alternatives of each ``oneOf`` and each ``anyOf``: of each group one must hold."""
        return tuple(
            tuple(Shape(layers_of(node.sub(keyword, index))) for index in range(len(node[keyword])))
            for node in self._layers
            for keyword in ("oneOf", "anyOf")
            if keyword in node
        )

    @property
    def conditional(self) -> tuple[Shape, ...]:
        """What holds for some values only: ``then``, ``else`` and ``dependentSchemas``."""
        paths = [
            (node, path)
            for node in self._layers
            for path in (
                *((word,) for word in ("then", "else") if word in node),
                *(("dependentSchemas", name) for name in node.get("dependentSchemas", ())),
            )
        ]
        return tuple(Shape(layers_of(node.sub(*path))) for node, path in paths)

    @property
    def branches(self) -> tuple[Shape, ...]:
        """The alternatives of ``oneOf`` and ``anyOf``, none if there are none."""
        return tuple(
            Shape(layers_of(node.sub(keyword, index)))
            for node in self._layers
            for keyword in ("oneOf", "anyOf")
            for index in range(len(node.get(keyword, ())))
        )

    # Last in the class: below it, `property` is this method.
    def property(self, name: str) -> Property | None:
        """The property called *name*; of an open map, an optional one; None where there is none."""
        found = self.properties.get(name)
        if found is None and self.values is not None:
            return Property(name, self.values, required=False)
        return found


@dataclass
class Schema:
    """A JSON Schema that was read and whose references lead somewhere."""

    document: Any
    #: The file, or a name for messages.
    origin: str
    root: Node = field(repr=False)

    @property
    def shape(self) -> Shape:
        """The root as a template sees it."""
        return Shape(layers_of(self.root))


def layers_of(*nodes: Node) -> tuple[Node, ...]:
    """*nodes* and everything that holds together with them in place: references followed, ``allOf`` opened.

    The layers are those schemas one by one; each keeps its own keywords, of which ``$ref`` and ``allOf`` are then done.
    Raises InexactError for a reference that leads nowhere or back to itself.
    """
    out: list[Node] = []
    done: set[tuple[int, tuple[str, ...]]] = set()

    def add(node: Node, chain: tuple[tuple[int, tuple[str, ...]], ...]) -> None:
        key = node.identity
        if key in chain:
            raise InexactError(node, "$ref", "the reference leads back to itself", "end the loop with a schema")
        # What holds once holds twice; without this, two references to one schema double the work at each level.
        if key in done:
            return
        done.add(key)
        out.append(node)
        if len(chain) > MAX_CHAIN:
            raise InexactError(node, "$ref", "the chain of references is too long", "make it shorter")
        chain = (*chain, key)
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in node:
                add(node.follow(keyword), chain)
        for index in range(len(node.get("allOf", ()))):
            add(node.sub("allOf", index), chain)

    for node in nodes:
        add(node, ())
    return tuple(out)


def types_of(layers: Iterable[Node]) -> frozenset[str]:
    """The JSON types that every layer allows; ``integer`` stands beside no ``number``."""
    allowed = {*ALL_TYPES}
    for node in layers:
        if node.contents is False:
            return frozenset()
        wanted = node.get("type")
        if wanted is None:
            continue
        own = {wanted} if isinstance(wanted, str) else set(wanted)
        if "number" in own:
            own.discard("integer")
            own |= {"number"}
        if "number" in allowed and "number" not in own:
            allowed.discard("number")
            allowed |= own & {"integer"}
        elif "integer" in allowed and "number" in own:
            own |= {"integer"}
            own.discard("number")
        allowed &= own
    return frozenset(allowed)


def parse_schema(
    document: object,
    *,
    origin: str = "<schema>",
    registry: referencing.Registry[Any] | None = None,
    openapi: bool = False,
) -> Schema:
    """A schema from JSON data; *registry* holds the other documents that it may refer to.

    With *openapi* it is one of OpenAPI 3.0 or a CustomResourceDefinition, which speak as draft 4 does where it names no
    draft. Raises VelagenError: not a schema (every violation of its meta-schema), nested too deeply, lone surrogates,
    references that lead nowhere.
    """
    if not isinstance(document, (dict, bool)):
        raise VelagenError(Problem(f"a schema is an object, not {json_type(document)}", Place(file=origin, pointer="")))
    size = _check_text(document, origin)
    dialect = 4 if openapi else 2020
    if isinstance(document, dict) and isinstance(document.get("$schema"), str):
        uri = document["$schema"].rstrip("#")
        if draft_of(uri) is None and (registry is None or uri not in registry):
            place = Place(file=origin, pointer="/$schema")
            hint = 'write "$schema": "https://json-schema.org/draft/2020-12/schema"'
            raise VelagenError(Problem(f"unknown draft {document['$schema'][:200]!r}", place, hint))
        dialect = draft_of(uri) or 2020
    specification = _specification(dialect)
    problems = list(_meta_problems(document, dialect, origin, size))
    if problems:
        raise VelagenError(problems)
    resource = specification.create_resource(document)
    uri = resource.id() or _ROOT_URI
    base: referencing.Registry[Any] = jsonschema_specifications.REGISTRY if registry is None else registry
    try:
        resolver = base.with_resource(uri, resource).crawl().resolver(uri)
        root = Node(document, resolver, "", dialect)
        unresolved = list(_unresolved(root, origin))
    except (RecursionError, referencing.exceptions.Unresolvable, ValueError, AttributeError, TypeError) as error:
        raise VelagenError(Problem(f"its references can't be read: {error}", Place(file=origin, pointer=""))) from error
    if unresolved:
        raise VelagenError(unresolved)
    return Schema(document, origin, root)


_TOO_LONG = 10**MOST_DIGITS


def _check_text(document: object, origin: str) -> int:
    """Refuse what no CUE file can hold, before anything walks the document recursively; give the number of values."""
    stack: list[tuple[Any, str, int]] = [(document, "", 0)]
    count = 0
    while stack:
        value, pointer, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH * 3 or count > MAX_VALUES:
            what = "nested too deeply" if depth > MAX_DEPTH * 3 else "too large"
            raise VelagenError(
                Problem(f"the schema is {what}", Place(file=origin, pointer=pointer[:200]), "split it, or use $defs")
            )
        texts = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
        for text in texts:
            if not isinstance(text, str):
                raise VelagenError(Problem(f"the name {text!r} is not a string", Place(file=origin, pointer=pointer)))
            if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
                raise VelagenError(
                    Problem("a lone surrogate (half a character) in a string", Place(file=origin, pointer=pointer))
                )
        if isinstance(value, dict):
            required = value.get("required")
            for name in (*value, *(required if isinstance(required, list) else ())):
                if isinstance(name, str) and not unicodedata.is_normalized("NFC", name):
                    # Source: cue internal/core/runtime/index.go, which brings every label into that form.
                    reason = f"CUE holds names in Unicode's normal form C, and {name!r} is in another"
                    raise VelagenError(
                        Problem(reason, Place(file=origin, pointer=pointer), "write the name in that form")
                    )
            stack.extend((item, pointer + pointer_token(key), depth + 1) for key, item in value.items())
        elif isinstance(value, list):
            stack.extend((item, f"{pointer}/{index}", depth + 1) for index, item in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise VelagenError(Problem(f"{value} is not a JSON number", Place(file=origin, pointer=pointer)))
        elif isinstance(value, int) and abs(value) >= _TOO_LONG:
            reason = f"a number of more than {MOST_DIGITS} digits is more than JSON can carry"
            raise VelagenError(Problem(reason, Place(file=origin, pointer=pointer)))
    return count


#: What a keyword's value is: the quick look that spares most schemas the slow one through their meta-schema.
_SHAPES: dict[str, str] = {
    **dict.fromkeys(("items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems"), "schema"),
    **dict.fromkeys(("unevaluatedProperties", "not", "if", "then", "else", "contentSchema"), "schema"),
    **dict.fromkeys(("properties", "$defs", "definitions", "dependentSchemas", "patternProperties"), "schemas"),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), "list of schemas"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), "count"),
    **dict.fromkeys(("minContains", "maxContains"), "count"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    **dict.fromkeys(("title", "description", "format", "$comment", "contentEncoding", "contentMediaType"), "text"),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), "flag"),
    **dict.fromkeys(("required", "enum", "type", "dependentRequired", "multipleOf", "$id", "$ref", "pattern"), "own"),
    **dict.fromkeys(("const", "default", "examples"), "any"),
}
#: Keywords whose values only the meta-schema judges; any other name is not a keyword, or one of ours.
_INTRICATE = frozenset(
    ["$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$recursiveRef", "$recursiveAnchor", "dependencies",
     "additionalItems", "id"]
)  # fmt: skip


def _surely_a_schema(document: Any) -> bool:
    """True for a schema in everyday words that are all used as they should be; False says nothing."""
    stack = [document]
    while stack:
        schema = stack.pop()
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            return False
        for keyword, value in schema.items():
            if keyword in _INTRICATE:
                return False
            match _SHAPES.get(keyword, "any"):
                case "schema":
                    stack.append(value)
                case "schemas":
                    if not isinstance(value, dict):
                        return False
                    stack.extend(value.values())
                case "list of schemas":
                    if not isinstance(value, list) or not value:
                        return False
                    stack.extend(value)
                case "count":
                    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                        return False
                case "number":
                    if not is_number(value):
                        return False
                case "text":
                    if not isinstance(value, str):
                        return False
                case "flag":
                    if not isinstance(value, bool):
                        return False
                case "own":
                    if not _is_own(keyword, value):
                        return False
    return True


def _is_own(keyword: str, value: Any) -> bool:
    match keyword:
        case "type":
            words = value if isinstance(value, list) else [value]
            return bool(words) and _are_names(words) and all(word in TYPES for word in words)
        case "enum":
            return isinstance(value, list) and bool(value)
        case "required":
            return _are_names(value)
        case "dependentRequired":
            return isinstance(value, dict) and all(_are_names(names) for names in value.values())
        case "multipleOf":
            return is_number(value) and value > 0
    return isinstance(value, str) and value.isascii() and (keyword != "$id" or "#" not in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _meta_problems(document: Any, dialect: int, origin: str, size: int) -> Iterator[Problem]:
    if dialect >= 7 and _surely_a_schema(
        {k: v for k, v in document.items() if k != "$schema"} if isinstance(document, dict) else document
    ):
        return
    validator = validators.validator_for({"$schema": next(u for u, d in _DIALECTS.items() if d == dialect)})
    if isinstance(document, bool):
        return
    if size > MAX_INTRICATE:
        reason = f"the schema is too large: {size:,} values, some under keywords that only a meta-schema can judge"
        yield Problem(reason, Place(file=origin, pointer=""), "split it")
        return
    uri = next(u for u, d in _DIALECTS.items() if d == dialect) + ("#" if dialect <= 7 else "")
    meta = {**document, "$schema": uri} if "$schema" in document else document
    for error in validator(validator.META_SCHEMA).iter_errors(meta):
        pointer = "".join(pointer_token(step) for step in error.absolute_path)
        yield Problem(f"not a schema: {error.message[:300]}", Place(file=origin, pointer=pointer))


def _unresolved(root: Node, origin: str) -> Iterator[Problem]:
    """Every reference of the document that leads nowhere."""
    stack = [root]
    while stack:
        node = stack.pop()
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in node and isinstance(node[keyword], str):
                try:
                    node.follow(keyword)
                except InexactError as refusal:
                    yield Problem(refusal.reason, node.place(origin, keyword), refusal.instead)
        stack.extend(reversed(list(children(node))))


_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
_SINGLES = (
    "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
    "not", "if", "then", "else",
)  # fmt: skip


def children(node: Node) -> Iterator[Node]:
    """The schemas that stand directly in *node*."""
    for keyword in _MAPS:
        if isinstance(node.get(keyword), dict):
            for name, value in node[keyword].items():
                if isinstance(value, (dict, bool)):
                    yield node.sub(keyword, name)
    for keyword in _LISTS:
        for index in range(len(node.get(keyword, ()))):
            yield node.sub(keyword, index)
    for keyword in _SINGLES:
        if isinstance(node.get(keyword), (dict, bool)):
            yield node.sub(keyword)
