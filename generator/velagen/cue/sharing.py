"""Values that stand at several places of a tree, said once: a ``#Definition``, and references to it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from velagen.cue.syntax import Call, Ellipsis, Expr, Field, Ident, Node, Pattern, Struct


def repeated(root: Expr, names: Mapping[Expr, str]) -> frozenset[str]:
    """The names of those values in *names* that stand at more than one place below *root*."""
    counted = Counter(names[node] for node in root.walk() if isinstance(node, Expr) and node in names)
    return frozenset(name for name, count in counted.items() if count > 1)


def shared(root: Expr, names: Mapping[Expr, str], only: Collection[str]) -> tuple[Expr, dict[str, Expr]]:
    """*root* with ``#Name`` in the place of each value called one of *only*, and what each of those names stands for.

    A definition closes every struct inside it, so structs that are open say so there.
    """
    meanings: dict[str, Expr] = {}

    def replace(node: Node) -> Node:
        name = names.get(node) if isinstance(node, Expr) else None
        if name is None or name not in only:
            return _rebuilt(node, replace)
        if name not in meanings:
            inner = _rebuilt(node, replace)
            if isinstance(inner, Expr):
                meanings[name] = _opened(inner)
        return Ident(f"#{name}")

    changed = _rebuilt(root, replace)
    return (changed if isinstance(changed, Expr) else root), dict(sorted(meanings.items()))


def _rebuilt(node: Node, replace: Callable[[Node], Node]) -> Node:
    """*node* with *replace* of each of its children."""
    changes: dict[str, object] = {}
    for one in dataclasses.fields(node):  # type: ignore[arg-type]  # every concrete node is a dataclass
        value = getattr(node, one.name)
        if isinstance(value, Node):
            new: object = replace(value)
        elif isinstance(value, tuple) and any(isinstance(item, Node) for item in value):
            new = tuple(replace(item) if isinstance(item, Node) else item for item in value)
        else:
            continue
        if new != value:
            changes[one.name] = new
    return dataclasses.replace(node, **changes) if changes else node  # type: ignore[type-var]  # as above


def _opened(node: Expr) -> Expr:
    """*node* with ``...`` in every struct that is not closed and says nothing of further fields."""

    def replace(node: Node) -> Node:
        match node:
            case Call(function=Ident(name="close"), args=(Struct(decls=decls),)):
                inside = tuple(_rebuilt(decl, replace) for decl in decls)
                return dataclasses.replace(node, args=(Struct(inside),))  # type: ignore[arg-type]  # declarations stay declarations
            case Struct(decls=decls):
                inside = tuple(_rebuilt(decl, replace) for decl in decls)
                says = any(isinstance(one, Ellipsis) or _is_pattern(one) for one in decls)
                return Struct(inside if says else (*inside, Ellipsis()))  # type: ignore[arg-type]  # as above
        return _rebuilt(node, replace)

    opened = replace(node)
    return opened if isinstance(opened, Expr) else node


def _is_pattern(node: Node) -> bool:
    return isinstance(node, Field) and isinstance(node.label, Pattern)
