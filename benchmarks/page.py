"""Writes what a benchmark found into docs/benchmarks.md, between two comments; the rest of the page is left alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def replaced(text: str, name: str, content: str) -> str:
    """Give a page with new content between ``<!-- NAME: ... -->`` and ``<!-- NAME ends -->``.

    Raises:
        ValueError: the page does not have both, once each and in this order.
    """
    start, end = f"<!-- {name}: ", f"<!-- {name} ends -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise ValueError(f"the page needs the comments {start}... --> and {end}, once each and in this order")
    line = text.index("-->", text.index(start)) + len("-->")
    return f"{text[:line]}\n{content.strip()}\n{text[text.index(end) :]}"


def write(name: str, content: str, path: Path = PAGE) -> None:
    """Put content into the page.

    Raises:
        ValueError: the page has no place for it.
    """
    path.write_text(replaced(path.read_text(), name, content))


@dataclass(frozen=True)
class Spread:
    """The median of several measurements, with the smallest and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up.

        Raises:
            ValueError: there is nothing to sum up.
        """
        if not values:
            raise ValueError("no measurement")
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int | None = None) -> str:
        """Give ``median (low to high)``, the median alone where there was one measurement."""
        places = digits if digits is not None else places_for(self.median)
        if self.low == self.high:
            return number(self.median, places)
        return f"{number(self.median, places)} ({number(self.low, places)} to {number(self.high, places)})"


def places_for(value: float) -> int:
    """Give the decimal places that leave three digits, two at most."""
    if not math.isfinite(value) or value == 0:
        return 0
    return min(2, max(0, 2 - math.floor(math.log10(abs(value)))))


def number(value: float, places: int) -> str:
    """Write a number; what never ended is said so."""
    return f"{value:.{places}f}" if math.isfinite(value) else "no answer"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Give ours over theirs, round by round.

    Raises:
        ValueError: the rounds are not the same number, or one of theirs is nothing.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds of one side, {len(theirs)} of the other")
    if any(not value for value in theirs):
        raise ValueError("a round measured nothing")
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int = 1) -> str:
    """Give a Markdown table.

    Args:
        right: from this column on the text stands on the right.
    """
    rule = [":---" if column < right else "---:" for column in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
