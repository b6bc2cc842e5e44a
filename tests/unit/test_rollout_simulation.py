"""The simulation of rollouts: windows as Prometheus has them, what the defaults make of traffic, Argo's own code."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.rollout import argo_code
from benchmarks.rollout.records import Counters, percentile, success
from benchmarks.rollout.report import Rate, Result, by_fault, false_rollbacks, missed, summary
from benchmarks.rollout.rules import Argo, Flagger, Ours, outcome_of, run_flagger, run_ours, trace_of
from benchmarks.rollout.traffic import BUCKETS, LONGEST, Counts, run_of

from velagen.errors import VelagenError
from velagen.tools.report import Reporter


def row(requests: int, failures: int = 0, *, bucket: int = 6) -> Counts:
    """A tick's requests, all in one bucket."""
    found = np.zeros(2 + len(BUCKETS), dtype=np.int64)
    found[[0, 1, 2 + bucket]] = requests, failures, requests
    return found


def test_windows_are_what_prometheus_makes_of_samples() -> None:
    """As promtool says of 20 requests each 15 s (tests/unit/test_rollout_queries.py): 400 in five minutes."""
    counters = Counters(np.array([row(20, 1)] * 30))
    grown = counters.increase(300)
    assert grown is not None
    assert grown[0] == pytest.approx(400)
    assert success(grown) == pytest.approx(0.95)
    assert percentile(grown, 0.5) == pytest.approx(75)  # the middle of 50 to 100 ms
    counters.fall_silent()
    for _ in range(8):
        counters.count(row(0))
    assert counters.increase(60) is None
    late = counters.increase(300)
    assert late is not None  # a window of five minutes still speaks
    assert Counters(np.array([row(1)])[:0]).increase(300) is None


@pytest.mark.seconds(30)
def test_the_defaults_seldom_take_a_good_version_back() -> None:
    """200 runs: 1 % of false alarms a rollout is asked for, and one failed check is not a rollback yet."""
    ends = [
        run_ours(run_of(shape, "none", seed), Ours()).end
        for seed in range(50)
        for shape in ("steady", "diurnal", "bursts", "poisson")
    ]
    assert ends.count("rolled back") <= 2
    assert ends.count("promoted") >= 190


@pytest.mark.parametrize("fault", ["errors", "errors at 50 %", "slow tail", "slower", "metrics vanish"])
def test_the_defaults_promote_no_bad_version(fault: str) -> None:
    for seed in range(3):
        outcome = run_ours(run_of("bursts", fault, seed), Ours())
        assert outcome.end != "promoted", seed
        assert outcome.seconds <= LONGEST * 15
        assert outcome.why


def test_the_bounds_alone_take_good_versions_back() -> None:
    """What the comparison by counts is for."""
    bounds = [run_ours(run_of("poisson", "none", seed), Ours(falseAlarms=0)).end for seed in range(20)]
    assert bounds.count("rolled back") >= 2


def test_the_same_seed_is_the_same_rollout() -> None:
    first, again = (run_ours(run_of("bursts", "leak", 3), Ours()) for _ in range(2))
    assert first == again
    assert run_flagger(run_of("steady", "none", 1), Flagger()).end == "promoted"


def test_rates_have_their_interval_and_tables_their_rules() -> None:
    assert Rate(0, 100).interval == pytest.approx((0, 0.03699), abs=1e-4)
    assert Rate(50, 100).interval == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert Rate(0, 0).interval == (0, 1)
    run = run_of("steady", "none", 1)
    results = [
        Result("ours", "steady", "none", 1, run_ours(run, Ours())),
        Result("ours", "steady", "errors", 1, run_ours(run_of("steady", "errors", 1), Ours())),
    ]
    assert (false_rollbacks(results), missed(results)) == (Rate(0, 1), Rate(0, 1))
    assert "| ours | 0.0 % (0.0 to 79.3) | 0.0 % (0.0 to 79.3) |" in summary(results)
    assert "| errors | 0 % |" in by_fault([one for one in results if one.fault == "errors"])


@pytest.mark.slow
@pytest.mark.seconds(600)
def test_argo_rollouts_says_what_its_docs_say() -> None:
    try:
        program = argo_code.binary(Reporter())
    except VelagenError as error:
        pytest.skip(str(error))
    cases = [("steady", "none"), ("steady", "errors"), ("steady", "metrics vanish")]
    runs = [run_of(*case, 1) for case in cases]
    how = Argo()
    said = argo_code.outcomes(program, (trace_of(run, how) for run in runs))
    ends = [outcome_of(run, how, one) for run, one in zip(runs, said, strict=True)]
    assert [one.end for one in ends] == ["promoted", "rolled back", "rolled back"]
    # The fourth failed measurement is one more than failureLimit: 3.
    assert "failed (4) > failureLimit (3)" in ends[1].why
    assert ends[1].seconds == pytest.approx(240, abs=60)
    # An empty answer is an error, and five in a row are more than consecutiveErrorLimit.
    assert "consecutiveErrors (5) > consecutiveErrorLimit (4)" in ends[2].why
