"""What the operators mean that CUE, CEL and Python share, of values that are known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

#: By the operator, as all of them write it.
OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
