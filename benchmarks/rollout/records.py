"""What Prometheus says of counters that are scraped each TICK seconds: rates, ratios and percentiles over a window."""

from __future__ import annotations

import math

import numpy as np
from benchmarks.rollout.traffic import (
    BUCKETS,
    FAILURES,
    FIRST_BUCKET,
    LONGEST,
    REQUESTS,
    TICK,
    WEIGHTS,
    Counts,
    Numbers,
    Run,
)

#: Seconds after a scrape at which rules and queries look.
_LATE = 5.0
_LEVEL = {weight: number for number, weight in enumerate(WEIGHTS)}


class Counters:
    """The counters of one version as Prometheus has scraped them: a row for each tick from the first on."""

    def __init__(self, rows: Counts) -> None:
        #: Grown from the first scrape on; the first is nothing.
        self._rows = [np.zeros(2 + len(BUCKETS), dtype=np.int64)]
        for row in rows:
            self.count(row)
        self._last = math.inf

    def count(self, row: Counts) -> None:
        """A tick's requests."""
        self._rows.append(self._rows[-1] + row)

    def fall_silent(self) -> None:
        """From now on no scrape is answered."""
        self._last = min(self._last, len(self._rows) - 1)

    def increase(self, window: float, ago: int = 0) -> Numbers | None:
        """The increase over *window* seconds, *ago* ticks before now; None where there are not two samples.

        As PromQL's increase(), by extrapolatedRate (Prometheus' promql/functions.go).
        """
        now = len(self._rows) - 1 - ago
        last = int(min(now, self._last))
        first = max(0, now - int((window - _LATE - 1e-9) // TICK))
        if last - first < 1 or first < 0:
            return None
        start, end = self._rows[first], self._rows[last]
        grown = (end - start).astype(np.float64)
        sampled = float((last - first) * TICK)
        to_start = window - _LATE - (now - first) * TICK
        to_end = _LATE + (now - last) * TICK
        if to_start >= 1.1 * TICK:
            to_start = TICK / 2
        if to_end >= 1.1 * TICK:
            to_end = TICK / 2
        # A counter is not below zero: it is not extrapolated beyond where it would have been.
        with np.errstate(divide="ignore", invalid="ignore"):
            to_zero = np.where(grown > 0, sampled * start / grown, math.inf)
        return np.asarray(grown * (sampled + np.minimum(to_start, to_zero) + to_end) / sampled)


def success(grown: Numbers | None) -> float | None:
    """1 - model:errors:ratio5m."""
    if grown is None or grown[REQUESTS] <= 0:
        return None
    return float(1 - grown[FAILURES] / grown[REQUESTS])


def percentile(grown: Numbers | None, share: float) -> float | None:
    """histogram_quantile(), in milliseconds."""
    if grown is None:
        return None
    below = np.cumsum(grown[FIRST_BUCKET:])
    if below[-1] <= 0:
        return None
    rank = share * below[-1]
    at = int(np.searchsorted(below, rank))
    if at >= len(BUCKETS) - 1:
        return float(BUCKETS[-2])
    floor, ceiling = (BUCKETS[at - 1] if at else 0.0), BUCKETS[at]
    under = below[at - 1] if at else 0.0
    return float(floor + (ceiling - floor) * (rank - under) / (below[at] - under))


class Seen:
    """Both versions' counters along the weights that a rule sets."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tick = 0
        self.stable = Counters(run.past)
        # Its pods are scraped while it warms up.
        self.candidate = Counters(np.zeros((4, 2 + len(BUCKETS)), dtype=np.int64))
        #: The candidate's requests so far, failures, and those that took too long.
        self.served = np.zeros(2 + len(BUCKETS), dtype=np.int64)

    @property
    def seconds(self) -> int:
        """Since the candidate's first request."""
        return self.tick * TICK

    @property
    def is_over(self) -> bool:
        """Whether there is no more traffic."""
        return self.tick >= LONGEST

    def go(self, weight: int) -> None:
        """Let a tick pass with this share of the traffic."""
        level = _LEVEL[weight]
        if self.tick == self.run.silent_from:
            self.candidate.fall_silent()
        row = self.run.candidate[level, self.tick]
        self.stable.count(self.run.stable[level, self.tick])
        self.candidate.count(row)
        self.served += row
        self.tick += 1


__all__ = ["Counters", "Seen", "percentile", "success"]
