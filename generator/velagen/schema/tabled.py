"""Checks of one property each as tables: what each property must be, and what is said where it is something else.

A check by itself is three lines of CUE, of which all but the type and the sentence are the same for all; KubeVela reads
each of them anew whenever it renders an application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from velagen.cue import (
    BOTTOM,
    Binary,
    Comment,
    Comprehension,
    Decl,
    Dynamic,
    Expr,
    Field,
    For,
    Guard,
    Ident,
    Index,
    Interpolation,
    ListLit,
    Lit,
    Node,
    Selector,
    Struct,
    Unary,
    absent,
    is_constant,
    present,
)
from velagen.schema.patterns import either

_PLAIN = re.compile(r"[\w.+/-]+\Z", re.ASCII)
#: So many checks of one object are worth a loop.
_FEWEST = 3
_NOTE = "What a property must be, and what is said where it is something else."


@dataclass(frozen=True)
class _Simple:
    """A check that a property, where it is given, is of a type that refers to nothing."""

    around: tuple[Node, ...]
    of: Expr
    name: str
    must: Expr
    said: Lit


def tabled(decls: Iterable[Decl]) -> tuple[list[Decl], list[Decl]]:
    """Loops over tables, and the checks of *decls* that are not in them."""
    given = list(decls)
    groups: dict[tuple[tuple[Node, ...], Expr], dict[str, _Simple]] = {}
    members: dict[tuple[tuple[Node, ...], Expr], list[int]] = {}
    for number, decl in enumerate(given):
        one = _simple(decl)
        if one is not None and one.name not in groups.setdefault((one.around, one.of), {}):
            groups[one.around, one.of][one.name] = one
            members.setdefault((one.around, one.of), []).append(number)
    tables: list[Decl] = []
    used: set[int] = set()
    below = {key: group for key, group in groups.items() if _is_below(*key)}
    together = len(below) > 1 and sum(map(len, below.values())) >= _FEWEST
    for key, group in groups.items():
        if len(group) >= _FEWEST and not (together and key in below):
            tables.append(_loop(*key, group))
            used |= set(members[key])
    if together:
        objects = {str(of.name): group for (_, of), group in below.items() if isinstance(of, Selector)}
        tables.append(_loop_below(objects))
        used |= {number for key in below for number in members[key]}
    left = [decl for number, decl in enumerate(given) if number not in used]
    return ([Comment(_NOTE), *tables] if tables else []), left


def _simple(decl: Decl) -> _Simple | None:
    match decl:
        case Comprehension(
            clauses=(
                *around,
                Guard(condition=Binary(op="==", left=Binary(op="&", left=Selector() as at, right=must), right=right)),
            ),
            body=Struct(
                decls=(
                    Field(label=str(label), value=Binary(op="&", left=Lit(value=str()) as said, right=Lit(value=1))),
                )
            ),
        ) if right == BOTTOM and is_constant(must) and isinstance(at.name, str):
            if around and around[-1] == Guard(present(at)):
                around = around[:-1]
            match at.of:
                case Selector(name=str(above)) if _is_below(tuple(around), at.of):
                    wanted = f"{above}_{at.name}"
                case _:
                    wanted = at.name
            if label == wanted or (wanted == at.name and label.endswith(f"_{wanted}")):
                return _Simple(tuple(around), at.of, at.name, must, said)
    return None


def _is_below(around: tuple[Node, ...], of: Expr) -> bool:
    """Whether *of* is an object right below ``parameter``, and *around* asks for nothing but that it is given."""
    match of:
        case Selector(of=Ident(name="parameter"), name=str()):
            return around in ((), (Guard(present(of)),))
    return False


def _loop(around: tuple[Node, ...], of: Expr, group: dict[str, _Simple]) -> Comprehension:
    clauses = (*around, For("rule", _rules(group), key="property"), *_unless(Index(of, Ident("property"))))
    return Comprehension(clauses, _conflict(Dynamic(Ident("property"))))


def _loop_below(groups: dict[str, dict[str, _Simple]]) -> Comprehension:
    object_, property_ = Ident("object"), Ident("property")
    given = Index(Ident("parameter"), object_)
    clauses = (
        For("rules", Struct(tuple(Field(one, _rules(group)) for one, group in groups.items())), key="object"),
        Guard(present(given)),
        For("rule", Ident("rules"), key="property"),
        *_unless(Index(given, property_)),
    )
    return Comprehension(clauses, _conflict(Interpolation((object_, "_", property_))))


def _rules(group: dict[str, _Simple]) -> Struct:
    return Struct(tuple(Field(name, ListLit((_by_pattern(one.must), one.said))) for name, one in group.items()))


def _by_pattern(must: Expr) -> Expr:
    """A choice of texts as a pattern: CUE 0.9 works out all alternatives of a table whenever it reads a row of it."""
    rest, texts = must, list[str]()
    while isinstance(rest, Binary) and rest.op == "|":
        texts.insert(0, _word(rest.right))
        rest = rest.left
    texts.insert(0, _word(rest))
    return Unary("=~", Lit(either(texts), raw=True)) if len(texts) > 1 and all(texts) else must


def _word(expr: Expr) -> str:
    """The text, where it is one of plain letters; else none."""
    return expr.value if isinstance(expr, Lit) and isinstance(expr.value, str) and _PLAIN.match(expr.value) else ""


def _unless(at: Expr) -> tuple[Node, ...]:
    return Guard(present(at)), Guard(absent(Binary("&", at, Index(Ident("rule"), Lit(0)))))


def _conflict(label: Dynamic | Interpolation) -> Struct:
    return Struct((Field(label, Binary("&", Index(Ident("rule"), Lit(1)), Lit(1))),))


__all__ = ["tabled"]
