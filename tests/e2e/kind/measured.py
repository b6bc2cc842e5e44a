"""What Prometheus says of models, for tests that know what was asked of them."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import requests
from tests.e2e.kind.serving import Seen

from velagen.lab import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local
from velagen.monitoring.rules import cluster_names, summed
from velagen.monitoring.sources import SOURCES

What = Literal["requests", "errors"]

#: Seconds between two looks of the lab's Prometheus, at pods and at rules.
LOOK = 5.0
#: Envoy's buckets in seconds (its source/common/stats/histogram_impl.cc), coarse enough for what a client measures.
BOUNDS = tuple(bound / 1000 for bound in (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000))


def asked(lab: KindLab, query: str) -> list[tuple[dict[str, str], float]]:
    """An expression's samples now."""
    answer = local().get(f"{lab.url('prometheus')}/api/v1/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


def number(lab: KindLab, query: str) -> float | None:
    """One number, or None where Prometheus has none."""
    found = asked(lab, query)
    assert len(found) <= 1, f"{query}: {found}"
    return found[0][1] if found else None


def counted(lab: KindLab, what: What, route: str, space: str) -> dict[str, float]:
    """What the counters of the table add up to, for each version of a namespace.

    A rate is of a window that begins and ends between two looks; counters are of all time.
    """
    sources = (source for source in SOURCES.values() if source.route == route and getattr(source, what))
    # Not the record, which is a turn of the rules behind the counters.
    clusters = f"({cluster_names().expr})"
    expr = " or ".join(summed(source, getattr(source, what), clusters=clusters) for source in sources)
    return {labels["version"]: value for labels, value in asked(lab, expr) if labels["namespace"] == space}


def looked(lab: KindLab, space: str) -> None:
    """Wait until Prometheus has looked at a namespace's models and at the gateway, and each answered that did before.

    On a busy machine a look may take longer than Prometheus waits: it says nothing then.
    """
    moment = time.time()
    pods = f'up{{namespace=~"{space}|projectcontour",job="pods"}}'
    missed = f"count(max_over_time({pods}[1m]) == 1 unless ({pods} == 1 and timestamp({pods}) > {moment:.3f}))"
    wait_until(
        lambda: not asked(lab, missed) and asked(lab, pods), what="Prometheus' next look", timeout=150, every=0.5
    )


def percentile(seen: list[Seen], share: float) -> float:
    """Seconds within which this share of the requests was answered."""
    took = sorted(one.took for one in seen)
    return took[min(len(took) - 1, math.ceil(share * len(took)) - 1)]


def apart(one: float, other: float) -> int:
    """How many buckets lie between two times in seconds: 0 is the same one."""
    return abs(bisect_left(BOUNDS, one) - bisect_left(BOUNDS, other))


@contextmanager
def window(lab: KindLab, space: str, *routes: str) -> Iterator[dict[tuple[str, What], dict[str, float]]]:
    """Count what a block asks: after it, growth by route and what grew, for each version. Nobody else may ask."""
    looked(lab, space)
    every: list[tuple[str, What]] = [(route, what) for route in routes for what in ("requests", "errors")]
    before = {(route, what): counted(lab, what, route, space) for route, what in every}
    found: dict[tuple[str, What], dict[str, float]] = {}
    yield found
    looked(lab, space)
    for route, what in every:
        now = counted(lab, what, route, space)
        found[route, what] = {version: now[version] - before[route, what].get(version, 0) for version in now}


def holds(lab: KindLab, query: str, right: Any, what: str, timeout: float = 60) -> float:
    """Wait until an expression has a value that is right, and give it; where it never is, say what it was."""
    last: list[Any] = [None]

    def look() -> bool:
        last[0] = number(lab, query)
        return last[0] is not None and bool(right(last[0]))

    try:
        wait_until(look, what=what, timeout=timeout, every=1)
    except (TimeoutError, requests.RequestException) as error:
        raise AssertionError(f"{what}: {query} was {last[0]}") from error
    return float(last[0])
