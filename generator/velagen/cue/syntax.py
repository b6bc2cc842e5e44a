"""The CUE syntax tree: what can be said, apart from how it is laid out.

Source of the grammar: https://cuelang.org/docs/reference/spec/ (the subset that CUE 0.9.2 and 0.14.1 share).
Every node is frozen and compares by value, so trees can be built, shared and compared freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Self, TypeAlias

Scalar = bool | int | float | Decimal | str | None


class Node:
    """Anything in the tree."""

    def children(self) -> Iterator[Node]:
        """The nodes directly below this one, in source order."""
        yield from _below(self)

    def rebuilt(self, change: Callable[[Node], Node]) -> Self:
        """This node with what *change* makes of each of its children; itself where none has changed.

        *change* gives a declaration for a declaration, a label for a label and an expression for an expression; what it
        raises goes through.
        """
        changes: dict[str, object] = {}
        for name in _fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node):
                new: object = change(value)
                if new is not value:
                    changes[name] = new
            elif isinstance(value, tuple):
                items = tuple(change(item) if isinstance(item, Node) else item for item in value)
                if any(one is not other for one, other in zip(items, value, strict=True)):
                    changes[name] = items
        return replace(self, **changes) if changes else self  # type: ignore[type-var]  # every node is a dataclass

    def walk(self) -> Iterator[Node]:
        """This node and all below it; iterative, since trees can be deep."""
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(_below(node)))


def _below(node: Node) -> list[Node]:
    """The nodes directly below *node*; a list, since whole trees are walked through."""
    found: list[Node] = []
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, tuple):
            found.extend(item for item in value if isinstance(item, Node))
    return found


_known_fields: dict[type[Node], tuple[str, ...]] = {}


def _fields(kind: type[Node]) -> tuple[str, ...]:
    """The names of a node's fields; asked for so often that they are kept."""
    known = _known_fields.get(kind)
    if known is None:
        known = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]  # every node is a dataclass
        _known_fields[kind] = known
    return known


class Expr(Node):
    """Something with a value."""


class Decl(Node):
    """Something that stands in a struct."""


# ---------------------------------------------------------------- labels


@dataclass(frozen=True)
class Name(Node):
    """A label that other expressions refer to by its bare identifier (``parameter``, ``output``)."""

    name: str


@dataclass(frozen=True)
class Hidden(Node):
    """``_name``: a field that is not part of the data."""

    name: str


@dataclass(frozen=True)
class Definition(Node):
    """``#Name``: a closed definition, not part of the data."""

    name: str


@dataclass(frozen=True)
class Pattern(Node):
    """``[=~"^x-"]``: a constraint on all fields whose name unifies with *matching*; *alias* names the label."""

    matching: Expr
    alias: str = ""


@dataclass(frozen=True)
class Dynamic(Node):
    """``(expr)``: a label that is computed."""

    of: Expr


#: A plain ``str`` is data: quoted wherever a bare word would mean something else.
Label: TypeAlias = "str | Name | Hidden | Definition | Pattern | Dynamic | Interpolation"


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Ident(Expr):
    """A bare identifier: ``string``, ``_``, ``parameter``, ``#Model``, ``_names``."""

    name: str


@dataclass(frozen=True)
class Package(Expr):
    """A package of CUE's or KubeVela's library by import path; printing it adds the import."""

    path: str


@dataclass(frozen=True)
class Lit(Expr):
    """A constant. A *raw* string is printed with ``#"…"#`` where that spares backslashes (patterns)."""

    value: Scalar
    raw: bool = False

    def __eq__(self, other: object) -> bool:
        """``1``, ``1.0`` and ``true`` are different constants, though Python finds them equal."""
        return (
            isinstance(other, Lit) and type(self.value) is type(other.value) and self.value == other.value
        ) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((type(self.value), self.value, self.raw))


@dataclass(frozen=True)
class Interpolation(Expr):
    r"""``"text \(expr) text"``: strings and expressions in turn."""

    parts: tuple[str | Expr, ...]


@dataclass(frozen=True)
class Selector(Expr):
    """``of.name``; the name is quoted where it has to be."""

    of: Expr
    name: str | Hidden | Definition


@dataclass(frozen=True)
class Index(Expr):
    """``of[index]``."""

    of: Expr
    index: Expr


@dataclass(frozen=True)
class Call(Expr):
    """``function(args)``."""

    function: Expr
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Unary(Expr):
    """``op x``: ``! - >= > <= < != =~ !~`` and ``*`` (the default mark)."""

    op: str
    of: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """``left op right``: ``& | && || == != < <= > >= =~ !~ + - * /``."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Struct(Expr):
    """``{ … }``."""

    decls: tuple[Decl, ...] = ()


@dataclass(frozen=True)
class ListLit(Expr):
    """``[ … ]``: expressions, comprehensions and at the end perhaps an ellipsis."""

    items: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Raw(Expr):
    """CUE text of somebody else's, printed as it is; *imports* are the packages it uses."""

    text: str
    imports: tuple[str, ...] = ()


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Field(Decl):
    """``label: value``; *constraint* is ``""``, ``"?"`` or ``"!"``; *doc* the comment lines above it.

    *attribute* stands behind it as ``@attribute``.
    """

    label: Label
    value: Expr
    constraint: str = ""
    doc: tuple[str, ...] = ()
    attribute: str = ""

    def children(self) -> Iterator[Node]:
        """Label and value."""
        if isinstance(self.label, Node):
            yield self.label
        yield self.value


@dataclass(frozen=True)
class LetDecl(Decl):
    """``let name = value``; *doc* is the comment lines above it."""

    name: str
    value: Expr
    doc: tuple[str, ...] = ()


@dataclass(frozen=True)
class Embed(Decl):
    """An expression that is unified with the struct it stands in."""

    of: Expr


@dataclass(frozen=True)
class Ellipsis(Decl):
    """``...`` or ``...T``: the struct or list is open."""

    of: Expr | None = None


@dataclass(frozen=True)
class Comment(Decl):
    """A comment on lines of its own."""

    text: str


@dataclass(frozen=True)
class For(Node):
    """``for key, value in source``; without a key ``for value in source``."""

    value: str
    source: Expr
    key: str = ""


@dataclass(frozen=True)
class Guard(Node):
    """``if condition``."""

    condition: Expr


@dataclass(frozen=True)
class LetClause(Node):
    """``let name = value`` inside a comprehension."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Comprehension(Decl):
    """Clauses and the struct they yield; a declaration in a struct or an item of a list."""

    clauses: tuple[Node, ...]
    body: Expr


@dataclass(frozen=True)
class File(Node):
    """A whole file: *package* may be empty; imports are gathered from the tree and printed first."""

    decls: tuple[Decl, ...]
    package: str = ""
    doc: tuple[str, ...] = ()


# ---------------------------------------------------------------- short ways to build

BOTTOM = Ident("_|_")
TOP = Ident("_")


def call(package: str, function: str, *args: Expr) -> Call:
    """``package.function(args)``, for instance ``call("strings", "MinRunes", Lit(1))``."""
    return Call(Selector(Package(package), function), args)


def joined(op: str, operands: Iterable[Expr]) -> Expr:
    """The operands joined by *op*, left to right; at least one."""
    first, *rest = operands
    for operand in rest:
        first = Binary(op, first, operand)
    return first


def present(of: Expr) -> Binary:
    """``of != _|_``: the field exists and is not an error."""
    return Binary("!=", of, BOTTOM)


def absent(of: Expr) -> Binary:
    """``of == _|_``."""
    return Binary("==", of, BOTTOM)


_OPPOSITES = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "=~": "!~", "!~": "=~"}


def negated(condition: Expr) -> Expr:
    """The opposite of a condition, as a person would write it: ``a != b`` and not ``!(a == b)``."""
    match condition:
        case Binary(op=("&&" | "||") as op, left=left, right=right):
            return Binary("||" if op == "&&" else "&&", negated(left), negated(right))
        case Binary(op=op, left=left, right=right) if op in _OPPOSITES:
            return Binary(_OPPOSITES[op], left, right)
        case Unary(op="!", of=of):
            return of
    return Unary("!", condition)


def literal(value: object) -> Expr:
    """JSON data as CUE: dicts as open structs, lists as lists.

    Raises TypeError for what JSON does not have.
    """
    if value is None or isinstance(value, (bool, int, float, Decimal, str)):
        return Lit(value)
    if isinstance(value, dict):
        return Struct(tuple(Field(str(key), literal(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ListLit(tuple(literal(item) for item in value))
    raise TypeError(f"{type(value).__name__} is not a JSON value")
