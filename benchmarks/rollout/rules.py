"""The rules that are compared: ours by its own code, Argo Rollouts' by its own code, Flagger's as documented.

Each takes a run and says how it ended. A rollout of a good version takes as long under each, and has a check a minute;
the windows are five minutes but for Flagger's own metrics, which are over one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from benchmarks.rollout.records import Counters, Seen, percentile, success
from benchmarks.rollout.traffic import BUCKETS, FAILURES, FIRST_BUCKET, REQUESTS, SLOW, TICK, Numbers, Run

from velagen.rollout import transitions, verdict

End = Literal["promoted", "rolled back", "no verdict"]
WINDOW: Final = 300


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended, after how many seconds, and what the candidate did to clients until then."""

    end: End
    seconds: int
    #: Requests that the candidate failed or answered too late.
    served_badly: int
    why: str = ""


def _outcome(end: End, seen: Seen, why: str = "") -> Outcome:
    served = seen.served
    slow = sum(int(served[FIRST_BUCKET + at]) for at, bound in enumerate(BUCKETS) if bound > SLOW)
    return Outcome(end, seen.seconds, int(served[FAILURES]) + slow, why)


# ---------------------------------------------------------------- ours


@dataclass(frozen=True)
class Ours:
    """The settings of the step rollout-model, as in schemas/rollout-model.json."""

    steps: tuple[int, ...] = (10, 30, 60)
    interval: int = 60
    checks: int = 5
    failureLimit: int = 3  # noqa: N815  # the schema's names
    deadline: int = 1800
    minimumRequests: int = 50  # noqa: N815
    successRatio: float = 0.99  # noqa: N815
    timesStable: float = 1.5  # noqa: N815
    #: 0 takes the two bounds alone, without what is by chance.
    falseAlarms: float = 0.01  # noqa: N815
    successMargin: float = 0.005  # noqa: N815

    @property
    def rules(self) -> dict[str, Any]:
        """As the table takes them."""
        return {
            "steps": list(self.steps),
            "interval": self.interval,
            "checks": self.checks,
            "failureLimit": self.failureLimit,
            "inconclusiveLimit": 5,
            "onInconclusive": "hold",
            "deadline": self.deadline,
            "warmUp": 0,
            "settle": 0,
        }


def run_ours(run: Run, how: Ours) -> Outcome:
    """Let the table of transitions and the verdicts lead the rollout."""
    seen, rules = Seen(run), _Rules(how)
    state, _ = rules.step({**transitions.BLANK}, changed=True)
    for _ in ("prepare", "warm"):
        state, _ = rules.step(state, ready=True, routed=True)
    written = 0
    while not seen.is_over:
        seen.go(transitions.share(state, rules.settings))
        before, waited = state, seen.seconds - written
        if rules.is_due(state, waited):
            state = rules.mark(state, waited)
            said, why = check(seen, how)
            state, _ = rules.step(state, check=said, why=why if said == "bad" else said)
        else:
            state, _ = rules.step(state, waited=waited)
        if state != before:
            written = seen.seconds
        if state["phase"] == "promote":
            return _outcome("promoted", seen)
        if state["phase"] == "failed":
            reason = str(state["reason"])
            return _outcome("no verdict" if reason.startswith("no verdict") else "rolled back", seen, reason)
    return _outcome("no verdict", seen, "the traffic is over")


def check(seen: Seen, how: Ours) -> tuple[str, str]:
    """What a check says now, by the numbers that the step's query asks for."""
    candidate, stable = seen.candidate.increase(WINDOW), seen.stable.increase(WINDOW)
    ratio = success(candidate)
    ours, theirs = percentile(candidate, 0.99), percentile(stable, 0.99)
    beside = ours / theirs if ours is not None and theirs else None
    enough, slow_by_chance, fails_by_chance, failures = 0.0, False, False, verdict.NO_PAIR
    if how.falseAlarms:
        looks = len(how.steps) * how.checks * verdict.LOOKS_OF_A_CHECK
        enough = verdict.evidence_of(looks, how.falseAlarms)
        failures = _pair(candidate, stable, FAILURES)
        if ratio is not None and ratio < how.successRatio:
            fails_by_chance = verdict.counted(failures) and not verdict.worse(failures, enough, 0)
        if beside is not None and beside > how.timesStable:
            slower = slow_counts(candidate, stable)
            slow_by_chance = bool(slower) and not any(verdict.worse(pair, enough, 0) for pair in slower)
    bounds = [
        {
            "name": "success ratio",
            "value": _text(ratio, 6),
            "unit": "",
            "limit": how.successRatio,
            "atMost": False,
            "unsure": fails_by_chance,
        },
        {
            "name": "latency (p99)",
            "value": _text(beside, 3),
            "unit": " times m's",
            "limit": how.timesStable,
            "atMost": True,
            "unsure": slow_by_chance,
        },
    ]
    # Windows of five minutes speak long after the last scrape, those of one minute do not.
    is_fresh = candidate is not None and seen.candidate.increase(60) is not None
    requests = _text(candidate[REQUESTS], 0) if candidate is not None and is_fresh else ""
    return verdict.judge(bounds, requests, how.minimumRequests, failures, enough=enough, beyond=how.successMargin)


def slow_counts(candidate: Numbers | None, stable: Numbers | None) -> Sequence[Mapping[str, str]]:
    """Both versions' requests above the buckets' bounds on both sides of the P99 of all requests together."""
    if candidate is None or stable is None or candidate[REQUESTS] <= 0 or stable[REQUESTS] <= 0:
        return ()
    below = [np.cumsum(grown[FIRST_BUCKET:]) for grown in (candidate, stable)]
    both = below[0] + below[1]
    finite = both[:-1]
    under, over = np.flatnonzero(finite < 0.99 * both[-1]), np.flatnonzero(finite >= 0.99 * both[-1])
    at = ([int(under[-1])] if len(under) else []) + ([int(over[0])] if len(over) else [])
    return [
        {
            "bad": _text(below[0][-1] - below[0][one], 0),
            "all": _text(below[0][-1], 0),
            "stableBad": _text(below[1][-1] - below[1][one], 0),
            "stableAll": _text(below[1][-1], 0),
        }
        for one in at
    ]


def _pair(candidate: Numbers | None, stable: Numbers | None, column: int) -> Mapping[str, str]:
    if candidate is None or stable is None:
        return verdict.NO_PAIR
    return {
        "bad": _text(candidate[column], 0),
        "all": _text(candidate[REQUESTS], 0),
        "stableBad": _text(stable[column], 0),
        "stableAll": _text(stable[REQUESTS], 0),
    }


def _text(number: float | None, places: int) -> str:
    """As Prometheus writes what the step's query rounds."""
    if number is None:
        return ""
    return f"{round(float(number), places):.{places}f}"


class _Rules:
    """The table for one list of settings; states come again and again, so what follows them is kept."""

    def __init__(self, how: Ours) -> None:
        self.settings = how.rules
        self._step = lru_cache(maxsize=4096)(self._stepped)
        self._due = lru_cache(maxsize=4096)(self._is_due)
        self._mark = lru_cache(maxsize=4096)(self._marked)

    def step(self, state: Mapping[str, Any], **seen: Any) -> tuple[dict[str, Any], str]:
        after, row = self._step(tuple(state.items()), tuple(seen.items()))
        return dict(after), row

    def is_due(self, state: Mapping[str, Any], waited: int) -> bool:
        return self._due(tuple(state.items()), waited)

    def mark(self, state: Mapping[str, Any], waited: int) -> dict[str, Any]:
        return dict(self._mark(tuple(state.items()), waited))

    def _stepped(self, state: Any, seen: Any) -> tuple[dict[str, Any], str]:
        return transitions.step(dict(state), {**transitions.unseen(), **dict(seen)}, self.settings)

    def _is_due(self, state: Any, waited: int) -> bool:
        return transitions.is_due(dict(state), {**transitions.unseen(), "waited": waited}, self.settings)

    def _marked(self, state: Any, waited: int) -> dict[str, Any]:
        return transitions.mark(dict(state), {**transitions.unseen(), "waited": waited}, self.settings)


# ---------------------------------------------------------------- Flagger


@dataclass(frozen=True)
class Flagger:
    """A Canary of Flagger (docs/gitbook/usage/deployment-strategies.md and metrics.md of fluxcd/flagger 1.9).

    The bounds and the threshold are those of its tutorials, the weights such that it takes as long as the others. Each
    interval: both metrics inside their range, and the weight goes up by a step; outside, or without a value, the weight
    stays and the failed checks are one more; at the threshold all goes back to the primary.
    """

    interval: int = 60
    threshold: int = 5
    step_weight: int = 4
    max_weight: int = 60
    #: request-success-rate, in per cent, and request-duration (P99, ms), both over a minute.
    least_success: float = 99
    most_duration: float = 500


def run_flagger(run: Run, how: Flagger) -> Outcome:
    """Flagger's documented rules."""
    seen = Seen(run)
    weight, failed = how.step_weight, 0
    while not seen.is_over:
        seen.go(weight)
        if seen.seconds % how.interval:
            continue
        grown = seen.candidate.increase(60)
        share, slowest = success(grown), percentile(grown, 0.99)
        passed = share is not None and slowest is not None
        passed = passed and 100 * (share or 0) >= how.least_success and (slowest or 0) <= how.most_duration
        if not passed:
            failed += 1
            if failed >= how.threshold:
                return _outcome("rolled back", seen, f"{failed} failed checks")
        elif weight >= how.max_weight:
            return _outcome("promoted", seen)
        else:
            weight += how.step_weight
    return _outcome("no verdict", seen, "the traffic is over")


# ---------------------------------------------------------------- Argo Rollouts


@dataclass(frozen=True)
class Argo:
    """A Rollout with a background analysis, as in Argo Rollouts' docs (docs/features/analysis.md).

    setWeight and pause by turns; beside them an AnalysisRun that begins after *delay*. What the run says is Argo's own
    code's; the Rollout aborts where it failed or had an error, and goes on to the end where it did not.
    """

    steps: tuple[int, ...] = (10, 30, 60)
    pause: int = 300
    interval: int = 60
    delay: int = 60
    failure_limit: int = 3
    #: The metrics' conditions: the same bounds as ours.
    least_success: float = 0.99
    times_stable: float = 1.5

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """As in an AnalysisTemplate."""
        conditions = {
            "success": f"result[0] >= {self.least_success}",
            "latency": f"result[0] <= {self.times_stable}",
        }
        return [
            {
                "name": name,
                "interval": f"{self.interval}s",
                "initialDelay": f"{self.delay}s",
                "successCondition": condition,
                "failureLimit": self.failure_limit,
                "provider": {"prometheus": {"query": name}},
            }
            for name, condition in conditions.items()
        ]


def trace_of(run: Run, how: Argo) -> dict[str, Any]:
    """What Argo's analysis sees of the run at each tick, along the Rollout's own weights."""
    at: list[int] = [0]
    answers: dict[str, list[float | str | None]] = {"success": [None], "latency": [None]}
    for seen in _along(run, how):
        candidate, stable = seen.candidate.increase(WINDOW), seen.stable.increase(WINDOW)
        ours, theirs = percentile(candidate, 0.99), percentile(stable, 0.99)
        at.append(seen.seconds)
        answers["success"].append(success(candidate))
        answers["latency"].append(ours / theirs if ours is not None and theirs else None)
    return {"metrics": how.metrics, "at": at, "answers": answers}


def outcome_of(run: Run, how: Argo, said: Mapping[str, Any]) -> Outcome:
    """How the Rollout ended by what Argo's analysis *said* of its trace."""
    aborts = said["phase"] in ("Failed", "Error")
    seen = Seen(run)
    for seen in _along(run, how):  # the last one counts
        if aborts and seen.seconds >= said["at"]:
            return _outcome("rolled back", seen, str(said["message"]))
    return _outcome("promoted", seen)


def _along(run: Run, how: Argo) -> Iterator[Seen]:
    seen = Seen(run)
    for weight in how.steps:
        for _ in range(how.pause // TICK):
            seen.go(weight)
            yield seen


__all__ = ["Argo", "Counters", "End", "Flagger", "Ours", "Outcome", "check", "outcome_of", "run_flagger", "run_ours"]
