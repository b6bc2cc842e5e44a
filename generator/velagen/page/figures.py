"""Figures as people read them: as many digits as mean something, and a dash for what nobody knows."""

from __future__ import annotations

from typing import Final

#: What is not known; it is not 0.
UNKNOWN: Final = "-"


def rate(value: float | None) -> str:
    """A number of something, or of something a second."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if 0 < size < 0.005:
        return "<0.01"
    digits = 0 if size >= 100 or value == round(value) else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share of 1 as per cent; one that is small is not rounded to none, nor one that is nearly all to all."""
    if share is None:
        return UNKNOWN
    value = 100 * share
    size = abs(value)
    if 0 < size < 0.005:
        return "<0.01 %"
    if 99.9 < size < 100:
        return f"{min(value, 99.99):.2f} %"
    digits = 0 if size >= 99.95 or value == round(value) else 1 if size >= 10 else 2
    return f"{value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """A time in seconds, in the unit that suits it."""
    if value is None:
        return UNKNOWN
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 0.9995:
        return f"{value:.3g} s"
    milliseconds = value * 1000
    return f"{milliseconds:.3g} ms" if milliseconds >= 0.01 or milliseconds == 0 else "<0.01 ms"


def span(value: float) -> str:
    """A stretch of time in seconds, roughly: 90 -> ``2 min``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 1.5 * length or value == length:
            return f"{value / length:.3g} {unit}" if value % length == 0 else f"{value / length:.0f} {unit}"
    return f"{value:.0f} s"
