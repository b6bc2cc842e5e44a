"""Values that stand at several places of a tree, said once: a ``#Definition``, and references to it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping

from velagen.cue.syntax import Call, Ellipsis, Expr, Field, Ident, Node, Pattern, Struct


def repeated(root: Expr, names: Mapping[Expr, str]) -> frozenset[str]:
    """The names of those values in *names* that stand at more than one place below *root*.

    A struct that says no more than that it is one stays where it is: others say the same and mean something else.
    """
    counted = Counter(
        names[node] for node in root.walk() if isinstance(node, Expr) and node in names and not _says_nothing(node)
    )
    return frozenset(name for name, count in counted.items() if count > 1)


def shared(root: Expr, names: Mapping[Expr, str], only: Collection[str]) -> tuple[Expr, dict[str, Expr]]:
    """*root* with ``#Name`` in the place of each value called one of *only*, and what each of those names stands for.

    A definition closes every struct inside it, so structs that are open say so there.
    """
    meanings: dict[str, Expr] = {}

    def replace(node: Node) -> Node:
        name = names.get(node) if isinstance(node, Expr) else None
        if name is None or name not in only:
            return node.rebuilt(replace)
        if name not in meanings:
            inner = node.rebuilt(replace)
            if isinstance(inner, Expr):
                meanings[name] = _opened(inner)
        return Ident(f"#{name}")

    return root.rebuilt(replace), dict(sorted(meanings.items()))


def _says_nothing(node: Expr) -> bool:
    return isinstance(node, Struct) and all(isinstance(one, Ellipsis) for one in node.decls)


def _opened(node: Expr) -> Expr:
    """*node* with ``...`` in every struct that is not closed and says nothing of further fields."""

    def replace(node: Node) -> Node:
        match node:
            case Call(function=Ident(name="close"), args=(Struct(decls=decls),)):
                inside = tuple(decl.rebuilt(replace) for decl in decls)
                return dataclasses.replace(node, args=(Struct(inside),))
            case Struct(decls=decls):
                inside = tuple(decl.rebuilt(replace) for decl in decls)
                says = any(isinstance(one, Ellipsis) or _is_pattern(one) for one in decls)
                return Struct(inside if says else (*inside, Ellipsis()))
        return node.rebuilt(replace)

    opened = replace(node)
    return opened if isinstance(opened, Expr) else node


def _is_pattern(node: Node) -> bool:
    return isinstance(node, Field) and isinstance(node.label, Pattern)
