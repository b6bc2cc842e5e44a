"""What a rollout leaves behind for people and for monitoring: a line for each thing that happened, and labels."""

from __future__ import annotations

from _rollout_seen import stable_name

from velagen import Reference, cases, concat, each, join, length, let, split
from velagen.template.expression import Expression, Value

#: So many lines are kept, the last ones: one of a check has some 300 characters, and an object may have a megabyte.
LINES_KEPT = 100


def appended(history: Expression, line: Value) -> Expression:
    """The history with a line more, and without its oldest ones where there are too many."""
    lines = let(split(history, "\n"))
    kept = each(
        lines,
        lambda _, one: one,
        where=lambda number, one: (one != "") & (number + LINES_KEPT > length(lines)),
    )
    return join(concat([kept], [line]), "\n")


def labels(of: Reference, weight: Expression) -> dict[object, Value]:
    """What kube-state-metrics can tell of the state *of* with this *weight*, for alerts and dashboards."""
    return {
        "rollout.velagen/component": stable_name,
        "rollout.velagen/phase": of.phase,
        "rollout.velagen/weight": f"{weight}",
        "rollout.velagen/check": _last_check(of),
    }


def _last_check(of: Reference) -> Expression:
    """What the last check of the step said, by the state alone."""
    return cases(
        (of.phase != "step", "none"),
        (of.silent > 0, "inconclusive"),
        (of.passed > 0, "good"),
        (of.failed > 0, "bad"),
        otherwise="none",
    )
