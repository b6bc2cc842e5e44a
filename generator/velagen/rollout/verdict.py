"""What a check of a rollout says of the numbers that were measured: good, bad, or inconclusive, and why.

As :mod:`velagen.rollout.transitions`, expressions for the cluster and for Python. What was not measured (no answer, not
a number, too few requests) is inconclusive and never good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from velagen.template import expression as e
from velagen.template.body import each
from velagen.template.evaluate import evaluate
from velagen.template.functions import cases, if_else, join, length, matches, to_number

#: A number as Prometheus writes it; NaN and +Inf are none.
NUMBER: Final = r"^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$"

#: A bound is an object of: name (what is measured), value (text, as Prometheus says it; empty where it says nothing),
#: unit, limit (a number), atMost (true: the value may not be above the limit; false: not below).
bounds = e.Reference(e.Root("bounds"))
#: The requests that the candidate answered in the window, as text; and how many there must be.
requests = e.Reference(e.Root("requests"))
least = e.Reference(e.Root("least"))


def broken(bounds: e.Expression) -> e.Expression:
    """The bounds that the measured values break, in words."""

    def is_broken(bound: e.Reference) -> e.Expression:
        value = to_number(bound.value)
        beyond = (bound.atMost & (value > bound.limit)) | (~bound.atMost & (value < bound.limit))
        return matches(bound.value, NUMBER) & beyond

    def words(bound: e.Reference) -> e.Value:
        return f"{bound.name} {bound.value}{bound.unit} {if_else(bound.atMost, '>', '<')} {bound.limit}{bound.unit}"

    return e.Literal([each(bounds, words, where=is_broken)])


def unmeasured(bounds: e.Expression) -> e.Expression:
    """The bounds for which there is no number, in words."""
    return e.Literal(
        [each(bounds, lambda bound: f"{bound.name} has no value", where=lambda bound: ~matches(bound.value, NUMBER))]
    )


def verdict(broken: e.Expression, unmeasured: e.Expression, requests: e.Expression, least: e.Value) -> e.Expression:
    """``good``, ``bad`` or ``inconclusive``."""
    return cases(
        (_too_few(requests, least), "inconclusive"),
        (length(broken) > 0, "bad"),
        (length(unmeasured) > 0, "inconclusive"),
        otherwise="good",
    )


def reason(broken: e.Expression, unmeasured: e.Expression, requests: e.Expression, least: e.Value) -> e.Expression:
    """The verdict in words; of a good one nothing."""
    return cases(
        (~matches(requests, NUMBER), "the number of requests is not known"),
        (_too_few(requests, least), f"{requests} of the {least} requests that a check needs"),
        otherwise=join(if_else(length(broken) > 0, broken, unmeasured), ", "),
    )


def _too_few(requests: e.Expression, least: e.Value) -> e.Expression:
    return cases((matches(requests, NUMBER), to_number(requests) < least), otherwise=True)


_BROKEN, _UNMEASURED = broken(bounds), unmeasured(bounds)


def judge(measured: Sequence[Mapping[str, Any]], count: str, at_least: float) -> tuple[str, str]:
    """The verdict on *measured* bounds and its reason, in Python; *count* is the number of requests as text."""
    given = {"bounds": list(measured), "requests": count, "least": at_least}
    words = (_BROKEN, _UNMEASURED, requests, least)
    return evaluate(verdict(*words), given), evaluate(reason(*words), given)


__all__ = ["NUMBER", "broken", "judge", "reason", "unmeasured", "verdict"]
