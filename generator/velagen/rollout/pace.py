"""How often a run of the step comes while there is only to wait.

KubeVela's engine looks again after 0.05 · 2ⁿ s, 1 at least and 60 at most, where n counts the runs in which a step said
the same; another text begins anew. Source: kubevela/workflow pkg/executor/workflow.go, getBackoffWaitTime and
handleBackoffTimes. So what a waiting run says decides when the next one comes, and it says something else only where
that is worth five runs in as many seconds.
"""

from __future__ import annotations

from typing import Any, Final

from velagen.template import expression as e
from velagen.template.evaluate import evaluate
from velagen.template.functions import cases

#: The longest that the engine waits, in seconds.
LONGEST: Final = 60
#: What is said of a wait: it was so long at least. The next one is twice as long.
SPANS: Final = tuple(30 * 2**power for power in range(7))


def is_near(waited: e.Expression, interval: e.Expression) -> e.Expression:
    """Whether it is said that the next check is due: without it, the next run might come long after that.

    Up to a minute the next run comes after about as long as the last text stands, later after LONGEST. *waited* may be
    up to ten seconds behind the time, since the API server's lease is the clock.
    """
    return (3 * waited >= 2 * interval) & (waited + LONGEST >= interval)


def span(waited: e.Expression) -> e.Expression:
    """The longest of SPANS that *waited* has reached; 0 below the first one."""
    return cases(*((waited >= one, one) for one in reversed(SPANS)), otherwise=0)


_WAITED, _INTERVAL = e.Reference(e.Root("waited")), e.Reference(e.Root("interval"))
_NEAR, _SPAN = is_near(_WAITED, _INTERVAL), span(_WAITED)


def near(waited: float, interval: float) -> bool:
    """:func:`is_near` in Python."""
    return bool(evaluate(_NEAR, {"waited": waited, "interval": interval}))


def said(waited: float) -> int:
    """:func:`span` in Python."""
    found: Any = evaluate(_SPAN, {"waited": waited})
    return int(found)
