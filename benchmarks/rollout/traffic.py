"""What the two versions of a model answer while a rollout runs: requests, failures and latencies, tick by tick.

All of it is made before a rule sees any of it, for each weight that a rule may set: so several rules are measured on
the same arrivals and the same faults.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

#: Seconds between two scrapes, which is also how often the rules are evaluated (docs/monitoring.md).
TICK: Final = 15
#: Ticks before the candidate's first request, with the stable version alone.
PAST: Final = 40
#: Ticks of a rollout at most, 80 minutes: three steps of 15 minutes and a deadline.
LONGEST: Final = 320
WEIGHTS: Final = tuple(sorted({10, 30, *range(4, 61, 4)}))
#: Envoy's default buckets, in milliseconds; the last is +Inf (https://www.envoyproxy.io, config.metrics.v3).
BUCKETS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, np.inf)
#: Columns of a count: requests, failures, and the requests in each bucket.
REQUESTS, FAILURES, FIRST_BUCKET = 0, 1, 2

#: Mean requests a second, and how they come.
SHAPES: Final = ("steady", "diurnal", "bursts", "poisson", "low")
#: What is wrong with the candidate; the first two are nothing, and a rollback there is a false one.
FAULTS: Final = (
    "none",
    "both suffer",
    "errors",
    "errors at 50 %",
    "slow tail",
    "slower",
    "few errors",
    "flapping",
    "leak",
    "metrics vanish",
)
HEALTHY: Final = FAULTS[:2]
#: What a good version does: 1 in 1,000 fails; log-normal latency with this median (ms) and spread, P99 256 ms.
ERROR_RATE: Final = 0.001
MEDIAN: Final = 80.0
SPREAD: Final = 0.5
#: A request that took longer was served badly (ms): twice the stable version's P99.
SLOW: Final = 500


@dataclass(frozen=True)
class Run:
    """The traffic of one rollout. Arrays are by weight, tick and column; *stable* begins PAST ticks earlier."""

    shape: str
    fault: str
    seed: int
    past: Counts
    stable: Counts
    candidate: Counts
    #: The tick from which on the candidate's metrics are gone.
    silent_from: int


def run_of(shape: str, fault: str, seed: int) -> Run:
    """Make the traffic of a run; the same three give the same run."""
    random = np.random.default_rng([seed, zlib.crc32(f"{shape} {fault}".encode())])
    arrivals = _arrivals(shape, random)
    before, during = arrivals[:PAST], arrivals[PAST:]
    ticks = np.arange(LONGEST)
    good = _latencies(np.full(LONGEST, MEDIAN))
    usual = np.full(LONGEST, ERROR_RATE)
    stable_errors = usual
    if fault == "both suffer":  # something that both depend on: 4 % fail for three minutes
        begins = int(random.integers(4, 24))
        stable_errors = np.where((ticks >= begins) & (ticks < begins + 12), 0.04, usual)
    weights = np.array(WEIGHTS)[:, None] / 100
    to_candidate = random.binomial(np.broadcast_to(during, (len(WEIGHTS), LONGEST)), weights)
    stable = _counts(during - to_candidate, np.broadcast_to(stable_errors, to_candidate.shape), good, random)
    errors, latencies = _faulty(fault, stable_errors, good, random)
    candidate = _counts(to_candidate, errors, latencies, random)
    past = _counts(before[None, :], np.full((1, PAST), ERROR_RATE), good[:PAST], random)[0]
    silent_from = 12 if fault == "metrics vanish" else LONGEST + 1
    return Run(shape, fault, seed, past, stable, candidate, silent_from)


def _arrivals(shape: str, random: np.random.Generator) -> Counts:
    ticks = PAST + LONGEST
    seconds = np.arange(ticks) * TICK
    if shape == "steady":
        return np.full(ticks, 20 * TICK, dtype=np.int64)
    if shape == "diurnal":  # a day in two hours, so that a rollout sees a good part of it
        rate = 20 * (1 + 0.8 * np.sin(2 * np.pi * (seconds / 7200 + random.random())))
    elif shape == "bursts":  # a minute of ten times as much, about each ten minutes
        rate = np.full(ticks, 5.0)
        for begins in np.flatnonzero(random.random(ticks) < TICK / 600):
            rate[begins : begins + 4] = 50.0
    else:
        rate = np.full(ticks, {"poisson": 5.0, "low": 0.5}[shape])
    return random.poisson(rate * TICK)


def _faulty(fault: str, usual: Numbers, good: Numbers, random: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The candidate's share of failures, by weight and tick, and its shares of the buckets, by tick."""
    ticks = np.arange(LONGEST)
    errors = np.broadcast_to(usual, (len(WEIGHTS), LONGEST)).copy()
    latencies = good
    match fault:
        case "errors":
            errors[:] = 0.10
        case "errors at 50 %":  # a queue or a cache that is too small for more
            errors[np.array(WEIGHTS) >= 50] = 0.10
        case "slow tail":
            slow = _latencies(np.full(LONGEST, 1200.0), spread=0.3)
            latencies = 0.96 * good + 0.04 * slow
        case "slower":
            latencies = _latencies(np.full(LONGEST, 2.5 * MEDIAN))
        case "few errors":  # 9 times the stable version's, and inside a bound of 99 %
            errors[:] = 0.009
        case "flapping":  # a minute in four
            begins = int(random.integers(0, 16))
            errors[:, (ticks + begins) % 16 < 4] = 0.10
        case "leak":  # twice as slow after ten minutes, four times after twenty
            latencies = _latencies(MEDIAN * 2.0 ** (ticks * TICK / 600))
    return errors, latencies


def _latencies(median: Numbers, *, spread: float = SPREAD) -> Numbers:
    """The share of requests in each bucket, by tick."""
    inner = np.log(np.array(BUCKETS[:-1])[None, :] / median[:, None]) / spread
    below = np.concatenate([_normal(inner), np.ones((len(median), 1))], axis=1)
    return np.diff(below, axis=1, prepend=0.0)


def _normal(at: Numbers) -> Numbers:
    """The normal distribution function."""
    from math import erf, sqrt

    return np.vectorize(lambda one: 0.5 * (1 + erf(one / sqrt(2))))(at)  # type: ignore[no-any-return]


def _counts(requests: Any, errors: Numbers, latencies: Numbers, random: np.random.Generator) -> Counts:
    every = np.asarray(requests)
    failures = random.binomial(every, errors)
    buckets = random.multinomial(every, np.broadcast_to(latencies, (*every.shape, len(BUCKETS))))
    return np.concatenate([every[..., None], failures[..., None], buckets], axis=-1)
