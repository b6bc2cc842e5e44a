"""Expressions of the template language worked out in Python, for rules that are to run outside a cluster too.

What is computed here and what CUE computes of the same expression is equal; where a word has no counterpart here, it is
refused and not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from velagen.operators import OPERATORS
from velagen.template import expression as e
from velagen.template.body import Each, Items, When
from velagen.template.places import MisuseError

#: What stands for a value that is not there.
_ABSENT: Final = object()


def evaluate(value: e.Value, given: Mapping[str, Any]) -> Any:
    """The JSON value of *value*, an expression or a dict or list with expressions in it.

    *given* are the values of its roots, by name (``parameter``, ``context``, and :func:`velagen.template.expression`
    roots of one's own). Raises MisuseError for what can't be worked out in Python, LookupError for what is not there.
    """
    return _Evaluator(given).value(value)


class _Evaluator:
    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        #: Intermediates and loop variables, by the identity of their root. The root is kept too: another one made later
        #: could have its identity otherwise.
        self._known: dict[int, tuple[e.Root, Any]] = {}

    def value(self, value: e.Value) -> Any:
        found = self._look(value)
        if found is _ABSENT:
            raise LookupError(f"{e.readable(str(value))} is not there")
        return found

    def _look(self, value: e.Value) -> Any:
        match e.wrap(value) if not isinstance(value, e.Expression) else value:
            case e.Constant(value=constant):
                return constant
            case e.Literal(value=Mapping() as fields):
                return self._struct(fields)
            case e.Literal(value=items):
                return self._list(items)
            case e.Text(parts=parts):
                return "".join(one if isinstance(one, str) else _text(self.value(one)) for one in parts)
            case e.Reference() as node:
                return self._reference(node)
            case e.Item(of=of, key=key):
                return _entry(self._look(of), self.value(key))
            case e.Given(of=of):
                return self._look(of) is not _ABSENT
            case e.Not(of=of):
                return not self.value(of)
            case e.Operation() as node:
                return self._operation(node)
            case e.FirstOf(branches=branches):
                return next(
                    self.value(one) for condition, one in branches if condition is None or self.value(condition)
                )
            case e.FirstGiven(values=values):
                return next((found for one in values if (found := self._look(one)) is not _ABSENT), _ABSENT)
            case e.Choice() as node:
                table = {str(name): one for name, one in node.table.items()}
                key = self.value(node.key)
                if key not in table and not node.has_default:
                    raise LookupError(f"the table has no entry for {key!r}")
                return self.value(table.get(key, node.default))
            case e.Function(library=library, args=args):
                if library.word not in _FUNCTIONS:
                    raise MisuseError(f"{library.word} is not worked out in Python")
                return _FUNCTIONS[library.word](*(self.value(one) for one in args))
        raise MisuseError(f"{type(value).__name__} is not worked out in Python")

    def _struct(self, fields: Mapping[object, e.Value]) -> dict[str, Any]:
        if any(isinstance(key, Each) or not isinstance(key, (str, e.Expression)) for key in fields):
            raise MisuseError("when(…) and each(…) as keys are not worked out in Python")
        return {str(self.value(key)): self.value(one) for key, one in fields.items()}

    def _list(self, items: Sequence[e.Value]) -> list[Any]:
        found: list[Any] = []
        for item in items:
            match item:
                case Items(source=source, make=make, where=where):
                    for number, one in enumerate(self.value(source)):
                        root = e.LoopRoot(f"item{number}")
                        self._known[id(root)] = (root, one)
                        variable = e.Reference(root)
                        if where is None or self.value(where(variable)):
                            found.append(self.value(make(variable)))
                case When(condition=e.Expression() as condition, value=one):
                    if self.value(condition):
                        found.append(self.value(one))
                case _:
                    found.append(self.value(item))
        return found

    def _reference(self, node: e.Reference) -> Any:
        match node._root:
            case e.LetRoot() as root:
                if id(root) not in self._known:
                    self._known[id(root)] = (root, self.value(root.value))
                found = self._known[id(root)][1]
            case root if id(root) in self._known:
                found = self._known[id(root)][1]
            case root:
                found = self._given.get(root.name, _ABSENT)
        for part in node._path:
            found = _entry(found, part if isinstance(part, str) else self.value(part))
        return found

    def _operation(self, node: e.Operation) -> Any:
        left = self.value(node.left)
        # The right side may hold only where the left one does.
        if node.op == "&&":
            return left and self.value(node.right)
        if node.op == "||":
            return left or self.value(node.right)
        return OPERATORS[node.op](left, self.value(node.right))


def _entry(of: Any, key: Any) -> Any:
    if isinstance(of, Mapping):
        return of.get(key, _ABSENT)
    if isinstance(of, list) and isinstance(key, int) and 0 <= key < len(of):
        return of[key]
    return _ABSENT


def _text(value: Any) -> str:
    """A value inside a text, as CUE writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


#: The words that mean the same in Python, one for one.
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "length": lambda of: len(of.encode()) if isinstance(of, str) else len(of),
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "contains": lambda items, item: item in items,
    "join": lambda items, separator: separator.join(items),
    "replace_text": lambda text, old, new: text.replace(old, new),
    "maximum": max,
    "minimum": min,
    "total": sum,
    "concat": lambda lists: [one for items in lists for one in items],
    "div": lambda number, by: number // by,
    "to_number": float,
}
