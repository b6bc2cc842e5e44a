"""Axes: where values lie, and which of them are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

#: Seconds between two marks of an axis of time.
_STEPS: Final = (
    15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
    86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000,
)  # fmt: skip
_DAY: Final = 86_400


def ticks(most: float, count: int = 4) -> list[float]:
    """Round values from 0 to *most* or just above it, about so many; ``[0, 1]`` where there is nothing above 0."""
    if not math.isfinite(most) or most <= 0:
        return [0.0, 1.0]
    rough = most / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [step * place for place in range(math.ceil(most / step - 1e-9) + 1)]


def time_ticks(start: float, end: float, count: int = 6) -> list[float]:
    """Round times in UTC between two, in seconds since 1970."""
    step = next((one for one in _STEPS if (end - start) / one <= count), _STEPS[-1])
    first = math.ceil(start / step) * step
    return [float(first + step * place) for place in range(int((end - first) // step) + 1)]


def time_label(at: float, span: float) -> str:
    """A mark's text: as much of a time as tells it from its neighbours, in UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    if span > 4 * _DAY or (span > _DAY / 2 and at % _DAY == 0):
        return f"{moment.day} {moment:%b}"
    return f"{moment:%H:%M}" if at % 60 == 0 else f"{moment:%H:%M:%S}"


def utc(at: float, *, date: bool = True) -> str:
    """A time in full: ``28 Nov 2026 10:42:30``, or without its date."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %Y %H:%M:%S}" if date else f"{moment:%H:%M:%S}"


def longest(values: Iterable[float | None]) -> float:
    """The highest value that is there; 0 where none is."""
    return max((value for value in values if value is not None), default=0.0)
