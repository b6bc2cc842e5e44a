"""Declarations that differ in a few constants, written once: a loop over a table of what differs.

KubeVela reads a definition's text anew each time it renders an application, and what that costs grows with the text
(docs/benchmarks.md). So ten checks that are alike are one check and a table of ten lines, for its sake and a reader's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from velagen.cue.syntax import (
    Binary,
    Call,
    Comprehension,
    Dynamic,
    Expr,
    Field,
    For,
    Ident,
    Index,
    Interpolation,
    LetClause,
    LetDecl,
    ListLit,
    Lit,
    Name,
    Node,
    Selector,
    Struct,
    Unary,
)

_SomeNode = TypeVar("_SomeNode", bound=Node)
#: A loop is written where it spares so many nodes of the tree: below that, what stands there is easier to read.
_WORTH = 18
_TYPES = frozenset({"string", "bytes", "int", "number", "float", "bool", "null", "_"})


class _UnlikeError(Exception):
    """Raised where two trees differ in more than constants."""


@dataclass(frozen=True)
class _Hole(Expr):
    """Where the trees differ: a column of the table."""

    column: int


def looped(node: Node) -> Node:
    """*node* with a loop for each run of neighbours, in any struct or list of it, that differ in constants alone."""
    match node:
        case Struct(decls=decls):
            return Struct(_runs([_inside(one) for one in decls]))
        case ListLit(items=items):
            return ListLit(_runs([_inside(one) for one in items]))
    return _inside(node)


def _inside(node: _SomeNode) -> _SomeNode:
    """*node* with :func:`looped` of all below it."""
    changes: dict[str, object] = {}
    for one in dataclasses.fields(node):  # type: ignore[arg-type]  # every concrete node is a dataclass
        value = getattr(node, one.name)
        if isinstance(value, Node):
            new: object = looped(value)
        elif isinstance(value, tuple) and any(isinstance(item, Node) for item in value):
            new = tuple(looped(item) if isinstance(item, Node) else item for item in value)
        else:
            continue
        if new != value:
            changes[one.name] = new
    return dataclasses.replace(node, **changes) if changes else node  # type: ignore[type-var]  # as above


def _runs(nodes: Sequence[_SomeNode]) -> tuple[_SomeNode, ...]:
    found: list[_SomeNode] = []
    start = 0
    while start < len(nodes):
        end = start + 1
        while end < len(nodes) and _alike(nodes[start : end + 1]) is not None:
            end += 1
        loop = _loop(nodes[start:end])
        found.append(nodes[start] if loop is None else loop)  # type: ignore[arg-type]  # a loop stands where each could
        start = start + 1 if loop is None else end
    return tuple(found)


# ---------------------------------------------------------------- what is alike


def _alike(nodes: Sequence[Node]) -> tuple[Node, list[tuple[Expr, ...]]] | None:
    """What *nodes* have in common, and a column of constants for each hole in it; None where they are unlike."""
    if not all(
        isinstance(one, Comprehension) or (isinstance(one, Field) and not is_constant(one.value)) for one in nodes
    ):
        return None
    columns = _Columns()
    try:
        common = columns.common(nodes)
    except _UnlikeError:
        return None
    return (common, columns.found) if len(columns.bases()) <= 2 else None


class _Columns:
    """Compares trees, and gathers the columns in which they differ."""

    def __init__(self) -> None:
        self.found: list[tuple[Expr, ...]] = []

    def bases(self) -> list[int]:
        """The columns that don't follow from another."""
        return [number for number in range(len(self.found)) if _follows(self.found, number) is None]

    def common(self, nodes: Sequence[Node]) -> Node:
        first = nodes[0]
        if all(one == first for one in nodes):
            return first
        if all(is_constant(one) for one in nodes):
            return self._hole([one for one in nodes if isinstance(one, Expr)])
        if any(type(one) is not type(first) for one in nodes):
            raise _UnlikeError
        match first:
            case Selector():
                return self._selector([one for one in nodes if isinstance(one, Selector)])
            case Field():
                return self._field([one for one in nodes if isinstance(one, Field)])
            case Interpolation():
                return self._interpolation([one for one in nodes if isinstance(one, Interpolation)])
        changes: dict[str, object] = {}
        for one in dataclasses.fields(first):  # type: ignore[arg-type]  # every concrete node is a dataclass
            values = [getattr(node, one.name) for node in nodes]
            if isinstance(values[0], Node):
                changes[one.name] = self.common(values)
            elif isinstance(values[0], tuple) and len({len(value) for value in values}) == 1:
                changes[one.name] = tuple(self._item(items) for items in zip(*values, strict=True))
            elif any(value != values[0] for value in values):
                raise _UnlikeError
        return dataclasses.replace(first, **changes)  # type: ignore[type-var]  # as above

    def _item(self, items: Sequence[object]) -> object:
        if all(isinstance(one, Node) for one in items):
            return self.common([one for one in items if isinstance(one, Node)])
        if any(one != items[0] for one in items):
            raise _UnlikeError
        return items[0]

    def _hole(self, values: Sequence[Expr]) -> _Hole:
        column = tuple(values)
        if column not in self.found:
            self.found.append(column)
        return _Hole(self.found.index(column))

    def _texts(self, names: Sequence[object]) -> Expr:
        if not all(isinstance(one, str) for one in names):
            raise _UnlikeError
        return self._hole([Lit(one) for one in names if isinstance(one, str)])

    def _selector(self, nodes: Sequence[Selector]) -> Expr:
        of = self.common([one.of for one in nodes])
        if not isinstance(of, Expr):
            raise _UnlikeError
        names = [one.name for one in nodes]
        if all(one == names[0] for one in names):
            return Selector(of, names[0])
        return Index(of, self._texts(names))

    def _field(self, nodes: Sequence[Field]) -> Field:
        first = nodes[0]
        if any(dataclasses.replace(one, label=first.label, value=first.value) != first for one in nodes):
            raise _UnlikeError
        labels = [one.label for one in nodes]
        label = first.label if all(one == first.label for one in labels) else Dynamic(self._texts(labels))
        value = self.common([one.value for one in nodes])
        if not isinstance(value, Expr):
            raise _UnlikeError
        return dataclasses.replace(first, label=label, value=value)

    def _interpolation(self, nodes: Sequence[Interpolation]) -> Interpolation:
        if len({len(one.parts) for one in nodes}) > 1:
            raise _UnlikeError
        parts: list[str | Expr] = []
        for items in zip(*(one.parts for one in nodes), strict=True):
            if all(isinstance(one, str) for one in items):
                parts.append(items[0] if len(set(items)) == 1 else self._texts(items))
                continue
            part = self._item(items)
            if not isinstance(part, Expr):
                raise _UnlikeError
            parts.append(part)
        return Interpolation(tuple(parts))


def is_constant(node: Node) -> bool:
    """Whether *node* can stand in a table: it refers to nothing around it."""
    match node:
        case Lit():
            return True
        case Ident(name=name):
            return name in _TYPES
        case Binary(op="&", left=Lit(value=str())):
            return False  # the sentence of a check, which is an error wherever it stands
        case Unary() | Binary() | Call() | ListLit():
            return all(is_constant(child) for child in node.children())
        case Selector(of=of):
            return not any(isinstance(one, Ident) for one in of.walk())
    return type(node).__name__ in {"Package", "Ellipsis"} and all(is_constant(child) for child in node.children())


def _follows(columns: Sequence[tuple[Expr, ...]], number: int) -> tuple[int, str, str] | None:
    """The column that column *number* can be made of, and the texts before and behind it; None if it is one itself."""
    own = _strings(columns[number])
    for other, column in enumerate(columns):
        texts = _strings(column)
        if other == number or own is None or texts is None or len(texts[0]) >= len(own[0]) or not all(texts):
            continue
        if _follows(columns, other) is not None:
            continue
        before, found, behind = own[0].partition(texts[0])
        if found and all(mine == before + text + behind for mine, text in zip(own, texts, strict=True)):
            return other, before, behind
    return None


def _strings(column: Sequence[Expr]) -> list[str] | None:
    texts = [one.value for one in column if isinstance(one, Lit) and isinstance(one.value, str)]
    return texts if len(texts) == len(column) else None


# ---------------------------------------------------------------- the loop


def _loop(nodes: Sequence[Node]) -> Comprehension | None:
    """A loop in the place of *nodes*; None where they aren't alike, or it is hardly shorter."""
    alike = _alike(nodes) if len(nodes) > 1 else None
    if alike is None:
        return None
    common, columns = alike
    bases = [number for number in range(len(columns)) if _follows(columns, number) is None]
    names = next((one for one in bases if (texts := _strings(columns[one])) and len(set(texts)) == len(texts)), None)
    if names is None:
        return None
    others = [one for one in bases if one != names]
    taken = set(_names_in(nodes))
    part, pair = free_name("part", taken), free_name("pair", taken)
    meanings: dict[int, Expr] = {names: Ident(part)}
    for number in others:
        meanings[number] = Ident(pair)
    for number in range(len(columns)):
        made = _follows(columns, number)
        if made is not None:
            of, before, behind = made
            meanings[number] = Interpolation(tuple(part for part in (before, meanings[of], behind) if part))
    if others:
        clause = For(pair, _table(columns[names], columns[others[0]]), key=part)
    else:
        clause = For(part, ListLit(columns[names]))
    body = _filled(common, meanings)
    match body:
        case Comprehension(clauses=clauses, body=inner):
            loop = Comprehension((clause, *clauses), inner)
        case Field():
            loop = Comprehension((clause,), Struct((body,)))
        case _:
            return None
    return loop if _size(loop) + _WORTH <= sum(map(_size, nodes)) else None


def _table(keys: Sequence[Expr], values: Sequence[Expr]) -> Struct:
    rows = zip(keys, values, strict=True)
    return Struct(tuple(Field(str(key.value), value) for key, value in rows if isinstance(key, Lit)))


def _filled(node: Node, meanings: dict[int, Expr]) -> Node:
    """*node* with what each hole means."""
    if isinstance(node, _Hole):
        return meanings[node.column]
    changes: dict[str, object] = {}
    for one in dataclasses.fields(node):  # type: ignore[arg-type]  # every concrete node is a dataclass
        value = getattr(node, one.name)
        if isinstance(value, Node):
            changes[one.name] = _filled(value, meanings)
        elif isinstance(value, tuple):
            changes[one.name] = tuple(_filled(item, meanings) if isinstance(item, Node) else item for item in value)
    filled = dataclasses.replace(node, **changes)  # type: ignore[type-var]  # as above
    match filled:
        case Interpolation():
            return _flat(filled)
        case Field(label=Dynamic(of=Interpolation() as label)):
            return dataclasses.replace(filled, label=label)
    return filled


def _flat(node: Interpolation) -> Interpolation:
    """*node* without interpolations right inside it."""
    parts: list[str | Expr] = []
    for part in node.parts:
        for one in part.parts if isinstance(part, Interpolation) else (part,):
            if isinstance(one, str) and parts and isinstance(parts[-1], str):
                parts[-1] += one
            else:
                parts.append(one)
    return Interpolation(tuple(parts))


def _names_in(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        for one in node.walk():
            match one:
                case Ident(name=name) | Name(name=name) | LetClause(name=name) | LetDecl(name=name):
                    yield name
                case For(value=value, key=key):
                    yield from (value, key)


def free_name(name: str, taken: Collection[str]) -> str:
    """*name*, with a number behind it where it is one of *taken*."""
    number, wanted = 1, name
    while wanted in taken:
        number += 1
        wanted = f"{name}{number}"
    return wanted


def _size(node: Node) -> int:
    """How much there is to read, for CUE: nodes, and names that stand in them."""
    return sum(1 + isinstance(one, (Field, Selector)) for one in node.walk())


__all__ = ["free_name", "is_constant", "looped"]
