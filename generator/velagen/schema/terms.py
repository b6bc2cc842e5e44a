"""The terms that both languages of rules have, CEL and ``x-checks``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Term = TypeVar("Term")


@dataclass(frozen=True)
class Path:
    """A property, by the names that lead to it."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """A JSON value, or a list of such."""

    value: Any


@dataclass(frozen=True)
class Operation(Generic[Term]):
    """``left op right``."""

    op: str
    left: Term
    right: Term
