"""Comprehensions that begin alike, written once: what they share stands around what they don't."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from velagen.cue.syntax import Comprehension, Decl, Node, Struct


def nested(decls: Iterable[Decl]) -> tuple[Decl, ...]:
    """The same declarations in the same order, each shared beginning of neighbouring comprehensions once.

    ``if a if b {x: 1}`` and ``if a if c {y: 1}`` become ``if a {if b {x: 1}, if c {y: 1}}``: CUE asks the shared
    condition once, and a reader reads it once. Loop variables count as part of the beginning.
    """
    found: list[Decl] = []
    for _, run in groupby(decls, key=_first_clause):
        together = list(run)
        comprehensions = [one for one in together if isinstance(one, Comprehension) and isinstance(one.body, Struct)]
        if len(together) == 1 or len(comprehensions) < len(together):
            found.extend(together)
        else:
            found.append(_joined(comprehensions))
    return tuple(found)


def _first_clause(decl: Decl) -> Node | None:
    """What a comprehension begins with; None for any other declaration."""
    return decl.clauses[0] if isinstance(decl, Comprehension) and decl.clauses else None


def _joined(comprehensions: list[Comprehension]) -> Comprehension:
    shared = _shared_beginning([one.clauses for one in comprehensions])
    inside: list[Decl] = []
    for one in comprehensions:
        rest = one.clauses[len(shared) :]
        body = one.body.decls if isinstance(one.body, Struct) else ()
        inside.extend([Comprehension(rest, one.body)] if rest else body)
    return Comprehension(shared, Struct(nested(inside)))


def _shared_beginning(rows: list[tuple[Node, ...]]) -> tuple[Node, ...]:
    first, *others = rows
    length = 0
    while length < len(first) and all(len(row) > length and row[length] == first[length] for row in others):
        length += 1
    return first[:length]
