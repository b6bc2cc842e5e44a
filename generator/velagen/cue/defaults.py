"""A value that may be absent, and what counts in its place, in CUE's own words: ``*x | 7``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from velagen.cue.syntax import (
    BOTTOM,
    Binary,
    Call,
    Comprehension,
    Embed,
    Expr,
    Field,
    For,
    Guard,
    Ident,
    Index,
    Interpolation,
    LetDecl,
    ListLit,
    Lit,
    Name,
    Node,
    Selector,
    Struct,
    Unary,
    present,
)

_SomeNode = TypeVar("_SomeNode", bound=Node)
#: Operations that are computed with the default of a disjunction.
_COMPUTING = frozenset(["==", "!=", "<", "<=", ">", ">=", "=~", "!~", "&&", "||", "+", "-", "*", "/"])


def with_defaults(whole: _SomeNode) -> _SomeNode:
    """*whole* with ``*x | 7`` for ``[if x != _|_ {x}, 7][0]`` wherever it is computed with.

    That is in a condition, an operation, an argument or a text, and in an intermediate that is named there alone: CUE
    takes the default (https://cuelang.org/docs/reference/spec/#default-values). As a value of an object the list stays,
    since the disjunction would go on into it, and what a trait patches could choose its other side.
    A loop over a list that may be absent, and is empty then, asks whether it is there. *whole* is all that may name an
    intermediate of it.
    """
    return whole.rebuilt(_Rewriting(frozenset(_held(whole))).changed)


class _Rewriting:
    def __init__(self, held: frozenset[str]) -> None:
        #: Names of intermediates that stand where nothing is computed.
        self._held = held

    def changed(self, node: Node) -> Node:
        match node:
            case LetDecl(name=name) | Field(label=Name(name=name)) if self._is_computed_with(node, name):
                return node.rebuilt(self._computed)
            case Comprehension(clauses=clauses, body=body):
                asked = tuple(one for clause in clauses for one in _looping(clause))
                return Comprehension(asked, body).rebuilt(self.changed)
        return node.rebuilt(self._computed if _computes(node) else self.changed)

    def _is_computed_with(self, node: Node, name: str) -> bool:
        # An intermediate of a step is a hidden definition.
        return name not in self._held and (isinstance(node, LetDecl) or name.startswith("_#"))

    def _computed(self, node: Node) -> Node:
        """*node* where it is computed with."""
        match _either(node):
            # Of what has a default itself, the default would be lost behind another one.
            case _, value, (Lit() | Interpolation() | Call()) as default:
                return Binary("|", Unary("*", value), default)
        return self.changed(node)


def _looping(clause: Node) -> Iterator[Node]:
    if isinstance(clause, For):
        match _either(clause.source):
            case guards, source, ListLit(items=()) | Struct(decls=()):
                yield from guards
                yield replace(clause, source=source)
                return
    yield clause


def _either(node: Node) -> tuple[tuple[Node, ...], Expr, Node] | None:
    """The guards, the reference that they ask for, and what counts in its place, of ``[if x != _|_ {x}, 7][0]``."""
    match node:
        case Index(
            of=ListLit(items=(Comprehension(clauses=guards, body=Struct(decls=(Embed(of=value),))), default)),
            index=Lit(value=0),
        ) if isinstance(value, (Selector, Index)) and all(_asks_for_part(one, value) for one in guards):
            return guards, value, default
    return None


def _asks_for_part(clause: Node, value: Expr) -> bool:
    """Whether it is a guard that *value*, or something that it is a part of, exists."""
    if not isinstance(clause, Guard):
        return False
    part: Expr = value
    while clause.condition != present(part):
        if not isinstance(part, (Selector, Index)):
            return False
        part = part.of
    return True


def _computes(node: Node) -> bool:
    """Whether all that stands directly in *node* is computed with."""
    match node:
        case Binary(op=op, left=left, right=right):
            return op in _COMPUTING and BOTTOM not in (left, right)
        case Unary(op=op):
            return op == "!"
        case Guard() | Interpolation() | Call():
            return True
    return False


def _held(node: Node, *, computed: bool = False) -> Iterator[str]:
    """The names that stand anywhere else in *node*."""
    if isinstance(node, Ident):
        if not computed:
            yield node.name
        return
    inside = _computes(node)
    for child in node.children():
        yield from _held(child, computed=inside)
