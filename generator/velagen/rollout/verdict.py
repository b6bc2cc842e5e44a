"""What a check of a rollout says of the numbers that were measured: good, bad, or inconclusive, and why.

As :mod:`velagen.rollout.transitions`, expressions for the cluster and for Python. What was not measured (no answer, not
a number, too few requests) is inconclusive and never good.

Two versions are compared by counts, so that chance fails few rollouts: of n requests, c of them the candidate's, x are
bad, and the candidate has k of these. Were both versions alike, the bad ones would be spread over all requests at
random, and Bernstein's inequality bounds the chance that the candidate has t more than its part m = x c/n of them::

    P(k >= m + t) <= exp(-t² / (2 (v + (1 - c/n) t/3))),    v = x (c/n) (1 - c/n)

It holds for any number of requests, also for few (for draws without putting back: W. Hoeffding, Probability
inequalities for sums of bounded random variables, 1963, theorems 3 and 4), and needs no special function: the bound is
below p where t² > 2 ln(1/p) (v + (1 - c/n) t/3). Before its first failed
check a rollout has made at most steps x checks of them with a verdict, so p is the rate of false alarms for a rollout
divided by the number of such looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from velagen.template import expression as e
from velagen.template.body import each
from velagen.template.evaluate import evaluate
from velagen.template.functions import cases, concat, if_else, join, length, let, matches, to_number

#: A number as Prometheus writes it; NaN and +Inf are not numbers.
NUMBER: Final = r"^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$"

#: Where nothing is compared.
NO_PAIR: Final[Mapping[str, str]] = {"bad": "", "all": "", "stableBad": "", "stableAll": ""}

#: The rates of false alarms that may be asked for: of the rollouts of a version that is as good as the stable one, the
#: share in which chance fails a check at all.
FALSE_ALARMS: Final = (0.001, 0.01, 0.05)
#: A check looks at failures and at what is slower than each of two bounds.
LOOKS_OF_A_CHECK: Final = 3
#: 20 steps of 100 checks, the most that there may be, come to 6,000 looks.
MOST_LOOKS: Final = 8192

#: A bound is an object of: name (what is measured), value (text, as Prometheus says it; empty where it says nothing),
#: unit, limit (a number), atMost (true: the value may not be above the limit; false: not below), unsure (true: a value
#: beyond the limit may be chance, and says nothing).
bounds = e.Reference(e.Root("bounds"))
#: A pair of counts is an object of four texts: bad and all of the candidate, stableBad and stableAll.
pair = e.Reference(e.Root("pair"))
evidence = e.Reference(e.Root("evidence"))
margin = e.Reference(e.Root("margin"))
#: The requests that the candidate answered in the window, as text; and how many there must be.
requests = e.Reference(e.Root("requests"))
least = e.Reference(e.Root("least"))


def broken(bounds: e.Expression) -> e.Expression:
    """The bounds that the measured values break, in words."""
    return e.Literal([each(bounds, _words, where=lambda bound: _is_beyond(bound) & ~bound.unsure)])


def _is_beyond(bound: e.Reference) -> e.Expression:
    value = to_number(bound.value)
    beyond = (bound.atMost & (value > bound.limit)) | (~bound.atMost & (value < bound.limit))
    return matches(bound.value, NUMBER) & beyond


def _words(bound: e.Reference) -> e.Value:
    return f"{bound.name} {bound.value}{bound.unit} {if_else(bound.atMost, '>', '<')} {bound.limit}{bound.unit}"


def enough_evidence(looks: e.Expression, rate: e.Expression) -> e.Expression:
    """ln(looks / rate), by the next power of two of *looks*: what :func:`is_worse` asks for.

    *rate* is one of FALSE_ALARMS; of what is between them the stricter one counts.
    """
    sizes = [2**power for power in range(MOST_LOOKS.bit_length())]
    of_looks = cases(*((looks <= size, math.log(size)) for size in sizes[:-1]), otherwise=math.log(sizes[-1]))
    least, *others = FALSE_ALARMS
    of_rate = cases(*((rate >= one, -math.log(one)) for one in reversed(others)), otherwise=-math.log(least))
    return of_looks + of_rate


def is_counted(pair: e.Reference) -> e.Expression:
    """Whether there are numbers for all four, and requests of both versions."""
    known = matches(pair.bad, NUMBER)
    for count in ("all", "stableBad", "stableAll"):
        known = known & matches(pair[count], NUMBER)
    return cases((known, (to_number(pair.all) > 0) & (to_number(pair.stableAll) > 0)), otherwise=False)


@dataclass(frozen=True)
class Counts:
    """A pair of counts as numbers."""

    bad: e.Expression
    all: e.Expression
    stable_bad: e.Expression
    stable_all: e.Expression


def numbers(pair: e.Reference) -> dict[object, e.Value]:
    """A pair that :func:`is_counted`, as numbers, for :func:`counts`."""
    return {name: to_number(pair[name]) for name in NO_PAIR}


def counts(of: e.Reference) -> Counts:
    """What :func:`numbers` gave."""
    return Counts(of.bad, of.all, of.stableBad, of.stableAll)


def is_beyond_margin(of: Counts, margin: e.Value) -> e.Expression:
    """Whether the candidate's share of bad requests is above the stable version's by more than *margin*."""
    return _beyond(of) > e.wrap(margin) * (of.all * of.stable_all)


def is_beyond_chance(of: Counts, evidence: e.Value) -> e.Expression:
    """Whether it is above that by more than chance; *evidence* is what :func:`enough_evidence` gives."""
    beyond = _beyond(of)
    spread = (of.bad + of.stable_bad) * of.all * of.stable_all
    return (beyond > 0) & (beyond * beyond > 2 * e.wrap(evidence) * (spread + beyond * of.stable_all / 3))


def _beyond(of: Counts) -> e.Expression:
    """This is n t, and spread above n² v: without division, so that both worlds compute the same."""
    return of.bad * of.stable_all - of.stable_bad * of.all


def is_worse(pair: e.Reference, evidence: e.Value, margin: e.Value) -> e.Expression:
    """Whether a pair of texts is beyond *margin* and beyond chance. False where a count is missing."""
    of = Counts(*(to_number(pair[name]) for name in NO_PAIR))
    return cases(
        (is_counted(pair), is_beyond_margin(of, margin) & is_beyond_chance(of, evidence)),
        otherwise=False,
    )


def failures_in_words(pair: e.Reference) -> e.Value:
    """What :func:`broken` says of bounds, of the failures of both versions."""
    return f"{pair.bad} of {pair.all} requests failed, and {pair.stableBad} of {pair.stableAll} of the stable version's"


def more_failures(pair: e.Reference, evidence: e.Value, margin: e.Value) -> e.Expression:
    """The failures in words where the candidate is worse: one text or none."""
    return if_else(is_worse(pair, evidence, margin), e.Literal([failures_in_words(pair)]), e.Literal([]))


def unmeasured(bounds: e.Expression) -> e.Expression:
    """The bounds that say nothing, in words: without a number, or broken by what chance explains."""
    return e.Literal(
        [
            each(bounds, lambda bound: f"{bound.name} has no value", where=lambda bound: ~matches(bound.value, NUMBER)),
            each(
                bounds,
                lambda bound: f"{_words(bound)}, which chance or the stable version's own explain",
                where=lambda bound: _is_beyond(bound) & bound.unsure,
            ),
        ]
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


_LOOKS, _RATE = e.Reference(e.Root("looks")), e.Reference(e.Root("rate"))
_WORDS = (
    let(concat(broken(bounds), more_failures(pair, evidence, margin))),
    let(unmeasured(bounds)),
    requests,
    least,
)
_JUDGED = e.Literal([verdict(*_WORDS), reason(*_WORDS)])
_EVIDENCE, _COUNTED = enough_evidence(_LOOKS, _RATE), is_counted(pair)
_WORSE = is_worse(pair, evidence, margin)


def judge(
    measured: Sequence[Mapping[str, Any]],
    count: str,
    at_least: float,
    failures: Mapping[str, str] = NO_PAIR,
    *,
    enough: float = math.inf,
    beyond: float = 0,
) -> tuple[str, str]:
    """The verdict on *measured* bounds and its reason, in Python.

    *count* is the number of requests as text. *failures* are both versions', *enough* is what :func:`evidence_of`
    gives, and *beyond* the margin between their shares.
    """
    bound = [{"unsure": False, **one} for one in measured]
    given = {"bounds": bound, "requests": count, "least": at_least, "pair": dict(failures)}
    given |= {"evidence": enough, "margin": beyond}
    said, why = evaluate(_JUDGED, given)
    return said, why


def evidence_of(looks: int, rate: float) -> float:
    """:func:`enough_evidence` in Python."""
    return float(evaluate(_EVIDENCE, {"looks": looks, "rate": rate}))


def counted(counts: Mapping[str, str]) -> bool:
    """:func:`is_counted` in Python."""
    return bool(evaluate(_COUNTED, {"pair": dict(counts)}))


def worse(counts: Mapping[str, str], enough: float, beyond: float) -> bool:
    """:func:`is_worse` in Python."""
    return bool(evaluate(_WORSE, {"pair": dict(counts), "evidence": enough, "margin": beyond}))


__all__ = [
    "FALSE_ALARMS",
    "LOOKS_OF_A_CHECK",
    "NO_PAIR",
    "NUMBER",
    "Counts",
    "broken",
    "counted",
    "counts",
    "enough_evidence",
    "evidence_of",
    "failures_in_words",
    "is_beyond_chance",
    "is_beyond_margin",
    "is_counted",
    "is_worse",
    "judge",
    "more_failures",
    "numbers",
    "reason",
    "unmeasured",
    "verdict",
    "worse",
]
