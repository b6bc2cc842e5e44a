"""What Python decides by itself while a definition is built, though it depends on what a user writes later.

A comparison by identity, a look-up in a dict, a question to a text: Python answers, wrongly, and no method of an
expression is asked. The loader has them done here (:mod:`velagen.definition.rewrite`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Set
from typing import Any

from velagen.operators import OPERATORS
from velagen.template.expression import Expression, is_constant
from velagen.template.places import MisuseError

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "is": operator.is_,
    "is not": operator.is_not,
    "in": lambda one, many: one in many,
    "not in": lambda one, many: one not in many,
    **OPERATORS,
}
_ASKED_BY_KEY = frozenset({"get", "setdefault", "pop"})
_OF_TEXT: Mapping[str, str] = {
    "startswith": "has_prefix(text, …)",
    "endswith": "has_suffix(text, …)",
    **dict.fromkeys(("find", "index", "count"), "contains_text(text, …)"),
    **dict.fromkeys(("isdigit", "isnumeric", "isdecimal", "isalpha", "isalnum", "islower"), "matches(text, …)"),
}
#: Methods and functions that are asked through this module.
GUARDED_METHODS = _ASKED_BY_KEY | _OF_TEXT.keys()
GUARDED_FUNCTIONS = frozenset({"len", "repr", "ascii"})


def compared(word: str, left: Any, right: Any) -> Any:
    """``left word right``. Raises MisuseError where Python's answer would be that of the definition's build."""
    if word.startswith("is") and isinstance(left, Expression) and right is None:
        raise MisuseError(f"{left!r} is an expression, and never None: write missing(…) or given(…)")
    if word.endswith("in") and isinstance(left, Expression) and isinstance(right, (Mapping, Set)):
        raise MisuseError(f"Python can't know whether {left!r} is in it: write one_of(…), or choose(…) with a table")
    if _holds_expressions(left) or _holds_expressions(right):
        others = not (isinstance(left, Expression) or isinstance(right, Expression))
        if word.endswith("in") or (not word.startswith("is") and others):
            raise MisuseError(
                f"Python can't answer {word} of a text with expressions in it: compare an expression, with one_of(…), "
                "contains_text(…) or matches(…)"
            )
    return _OPERATORS[word](left, right)


def method(of: Any, name: str, *args: Any, **more: Any) -> Any:
    """``of.name(…)``. Raises MisuseError where the answer depends on what a user writes."""
    if name in _ASKED_BY_KEY and isinstance(of, dict) and args and isinstance(args[0], Expression):
        raise MisuseError(f"Python finds no {args[0]!r} in a dict: write choose(key, table, default)")
    if name in _OF_TEXT and _holds_expressions(of):
        raise MisuseError(f"Python can't ask a text with expressions in it for {name}: write {_OF_TEXT[name]}")
    return getattr(of, name)(*args, **more)


def known(value: Any, word: str) -> Any:
    """*value*, which *word* is about to read. Raises MisuseError where it is not known yet."""
    if word == "len" and _holds_expressions(value):
        raise MisuseError("use length(…) instead of len(…)")
    if word != "len" and isinstance(value, Expression):
        raise MisuseError(f"{word} would write {value!r} itself into the text, and not its value: drop it")
    return value


def _holds_expressions(value: Any) -> bool:
    return isinstance(value, str) and not is_constant(value)
