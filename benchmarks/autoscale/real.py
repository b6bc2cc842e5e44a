"""The simulator beside runs on a kind cluster with KEDA: the same loads and settings, and how far it is from them.

Of the runs in RUNS it is known how long the pods took; a record of `velagen demo autoscale --record` has their course.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
from benchmarks.autoscale.model import Outcome, Scaler, Service, Setting, article, littles_law, run, slo
from benchmarks.page import ROOT, write

from velagen import autoscaling
from velagen.monitoring.sources import SOURCES
from velagen.scaling.record import Record, Span, number_at, settled_milliseconds

DOCS: Final = ROOT / "docs"
#: Seconds between two looks of the lab's Prometheus (velagen/lab/kind/prometheus.py).
SCRAPE_SECONDS: Final = 5
#: After so many seconds the load's client goes (velagen/scaling/load.py).
PATIENCE_SECONDS: Final = 30


@dataclass(frozen=True)
class Step:
    """A plateau of a run of which no course was kept."""

    rate: float
    #: Seconds that it lasted at least.
    lasted: int
    #: Pods that were asked for, in order, as docs/autoscale.md says; of the first run.
    pods: tuple[int, ...]
    #: Seconds until the last of them was ready, of each run in which it was kept.
    took: tuple[float, ...]


#: tests/e2e/kind/test_kind_autoscale.py as it ran twice: docs/autoscale.md, On a cluster.
STEPS: Final = (
    Step(28, 103, (2, 3), (73, 43)),
    Step(48, 300, (3, 4, 5), (54, 46)),
    Step(4, 120, (5, 4, 2), (39,)),
)
#: A run of `velagen demo autoscale --record`, on two cores that other work used too.
RUNS: Final = Path(__file__).parent / "runs"
KEPT: Final = RUNS / "article-steps.json"
#: Those of benchmarks.autoscale.policies that the simulator has the policy of, and whether its requests take as long
#: as they were measured to: a busy machine adds to them, and Little's law counts it. In a crowd the queue adds.
OTHERS: Final = {"littles-law": True, "crowd": False}
#: Before the first of them hardly a request came.
_QUIET: Final = Step(1, 60, (2,), ())
#: The trait of that test, and what its model waits.
TRAIT: Final[Mapping[str, Any]] = {
    "policy": "article",
    "targetLatencyMilliseconds": 8,
    "window": "30s",
    "minReplicas": 2,
    "maxReplicas": 6,
    "scaleDownSeconds": 30,
}
MODEL_SECONDS: Final = 0.005
#: How long a pod of that run took to be ready was not kept.
START_SECONDS: Final = (10, 20, 30)


# ---------------------------------------------------------------- the simulator, set as the run was


def setting(trait: Mapping[str, Any], model_seconds: float, milliseconds: float, start_seconds: float) -> Setting:
    """What was written and measured: the trait's numbers, what a pod bears, the time of a request, a pod's start."""
    histogram = SOURCES["envoy"].histogram if trait.get("source") == "envoy" else None
    at_once = trait.get("concurrencyPerReplica", 1)
    return Setting(
        at_once=at_once,
        service_seconds=milliseconds / 1000,
        start_seconds=start_seconds,
        patience_seconds=PATIENCE_SECONDS,
        least=int(trait["minReplicas"]),
        most=int(trait["maxReplicas"]),
        scrape_seconds=SCRAPE_SECONDS,
        window_seconds=int(str(trait["window"]).removesuffix("s")),
        scale_down_seconds=int(trait["scaleDownSeconds"]),
        answers=at_once / model_seconds,
        bounds=histogram.bounds if histogram else (),
    )


def scaler(trait: Mapping[str, Any]) -> Scaler:
    """The trait's policy."""
    part = trait.get("utilization", autoscaling.UTILIZATION)
    make: dict[str, Callable[[], Scaler]] = {
        "article": lambda: article(trait["targetLatencyMilliseconds"]),
        "littles-law": lambda: littles_law(part),
        "slo": lambda: slo(trait["targetLatencyMilliseconds"], part),
    }
    return make[trait["policy"]]()


def simulated(
    trait: Mapping[str, Any], sent: Sequence[float], found: Setting, ready: int | None = None
) -> list[Outcome]:
    """A load, second by second: once for each second of 15 in which Kubernetes may look.

    Args:
        ready: pods at the beginning; by default the least.
    """
    pods = found.least if ready is None else ready
    phases = range(autoscaling.POLLING_SECONDS)
    return [run(sent, scaler(trait), Service(replace(found, phase=phase), pods, pods)) for phase in phases]


@dataclass(frozen=True)
class Spread:
    """A figure over Kubernetes' clock: its mean, the smallest and the greatest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up."""
        return cls(statistics.fmean(values), min(values), max(values))

    def __str__(self) -> str:
        """``0.21 (0.15 to 0.30)``."""
        digits = 2 if self.high < 10 else 0
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def last_change(numbers: Sequence[int], span: Span) -> float:
    """Seconds from a plateau's beginning to the last change in it; 0 where there was none."""
    first, last = round(span.start), min(round(span.end), len(numbers))
    at = [place for place in range(first + 1, last) if numbers[place] != numbers[place - 1]]
    return float(at[-1] - first) if at else 0.0


# ---------------------------------------------------------------- runs of which the times are known


@dataclass(frozen=True)
class Lag:
    """A plateau of the runs, and what the simulator makes of it."""

    step: Step
    #: Pods in order, of each phase of Kubernetes' clock; those that are alike once.
    pods: tuple[tuple[int, ...], ...]
    #: Seconds until the last pod was ready, for each of START_SECONDS.
    took: tuple[Spread, ...]


def lags() -> list[Lag]:
    """The simulator's plateaus beside those of the runs."""
    steps = (_QUIET, *STEPS)
    sent = [step.rate for step in steps for _ in range(step.lasted)]
    made = {
        start: simulated(TRAIT, sent, setting(TRAIT, MODEL_SECONDS, 1000 * MODEL_SECONDS, start))
        for start in START_SECONDS
    }
    found, start = [], _QUIET.lasted
    for step in STEPS:
        span = Span(step.rate, start, start + step.lasted)
        start += step.lasted
        ways = {_numbers(one.pods, span) for outcomes in made.values() for one in outcomes}
        took = tuple(Spread.of([last_change(one.ready, span) for one in outcomes]) for outcomes in made.values())
        found.append(Lag(step, tuple(sorted(ways)), took))
    return found


def _numbers(pods: Sequence[int], span: Span) -> tuple[int, ...]:
    """The numbers that a plateau had, in order."""
    part = pods[round(span.start) : round(span.end)]
    return tuple(one for place, one in enumerate(part) if not place or part[place - 1] != one)


def table(found: Sequence[Lag]) -> str:
    """The page's table, in Markdown."""
    starts = " | ".join(f"simulator, a pod starts in {one} s" for one in START_SECONDS)
    lines = [f"| requests a second | pods, run | pods, simulator | settled after, runs | {starts} |", "|---" * 7 + "|"]
    for one in found:
        ways = " or ".join(", ".join(map(str, way)) for way in one.pods)
        took = ", ".join(f"{value:.0f} s" for value in one.step.took)
        made = " | ".join(f"{spread} s" for spread in one.took)
        lines.append(f"| {one.step.rate:g} | {', '.join(map(str, one.step.pods))} | {ways} | {took} | {made} |")
    return "\n".join(lines)


def verdict(found: Sequence[Lag]) -> str:
    """The error, in a sentence."""
    apart = {
        start: [one.took[place].mean - real for one in found for real in one.step.took]
        for place, start in enumerate(START_SECONDS)
    }
    mean = {start: statistics.fmean(map(abs, values)) for start, values in apart.items()}
    best = min(mean, key=lambda start: mean[start])
    others = ", ".join(f"{mean[start]:.0f} s with {start} s" for start in START_SECONDS if start != best)
    ends = sum({way[-1] for way in one.pods} == {one.step.pods[-1]} for one in found)
    return (
        f"In {ends} of {len(found)} plateaus the simulator ends with the run's pods, whenever Kubernetes looks. "
        f"Until they are ready it is {mean[best]:.0f} s apart from the runs on average where a pod starts in {best} s "
        f"({min(apart[best]):+.0f} to {max(apart[best]):+.0f} s, and {others})."
    )


# ---------------------------------------------------------------- records


@dataclass(frozen=True)
class Apart:
    """How far the simulator is from a record."""

    #: Mean absolute differences, in pods.
    asked: Spread
    ready: Spread
    #: Real pods on average, to hold them against.
    pods: float
    #: Of each plateau but the first: its rate, seconds until the last change of ready pods, and the simulator's.
    lags: tuple[tuple[float, float, Spread], ...]

    def __str__(self) -> str:
        """In lines."""
        lines = [f"{self.pods:.1f} pods on average; apart: {self.asked} asked for, {self.ready} ready"]
        lines += [
            f"{rate:g} requests a second: settled after {took:.0f} s, simulator {made} s"
            for rate, took, made in self.lags
        ]
        return "\n".join(lines)


def apart(record: Record, *, measured: bool = False) -> Apart:
    """Hold the simulator against a record.

    Args:
        measured: a request takes what was measured in each second; else what it took where hardly any waited, and what
            the simulator's queue adds.

    Raises ClickException where it lacks what the simulator is set by.
    """
    milliseconds = record.counted_milliseconds or settled_milliseconds(record)
    if milliseconds is None or not record.pod_seconds or not record.model_seconds:
        raise click.ClickException("the record has no time of a request, of a pod's start or of the model")
    found = setting(record.trait, record.model_seconds, milliseconds, statistics.median(record.pod_seconds))
    if measured:
        found = replace(found, times=tuple(_filled(record.milliseconds, milliseconds)))
    seconds = range(record.seconds)
    asked, ready = ([number_at(one, second) for second in seconds] for one in (record.asked, record.ready))
    made = simulated(record.trait, record.sent, found, ready[0])
    return Apart(
        Spread.of([_difference(asked, one.pods) for one in made]),
        Spread.of([_difference(ready, one.ready) for one in made]),
        statistics.fmean(ready),
        tuple(
            (span.rate, last_change(ready, span), Spread.of([last_change(one.ready, span) for one in made]))
            for span in record.spans[1:]
        ),
    )


def _filled(milliseconds: Sequence[float | None], first: float) -> list[float]:
    """In seconds, and where nothing was measured as before."""
    found, last = [], first
    for one in milliseconds:
        last = last if one is None else one
        found.append(last / 1000)
    return found


def of_the_record(found: Apart) -> str:
    """What the page says of the run of which each second was kept."""
    rows = [
        "| requests a second | settled after, run | simulator |",
        "|---|---|---|",
        *(f"| {rate:g} | {took:.0f} s | {made} s |" for rate, took, made in found.lags),
    ]
    said = (
        f"Of {found.pods:.1f} pods on average the simulator is {found.asked.mean:.2f} apart in what is asked for and "
        f"{found.ready.mean:.2f} in what is ready (mean of the differences, second by second; "
        f"{found.ready.low:.2f} to {found.ready.high:.2f} by when Kubernetes looks)."
    )
    return "\n".join([*rows, "", said])


def others() -> dict[str, Apart]:
    """The runs of other policies."""
    return {
        name: apart(Record.of((RUNS / f"{name}.json").read_text(encoding="utf-8")), measured=measured)
        for name, measured in OTHERS.items()
    }


def of_the_records(found: Mapping[str, Apart]) -> str:
    """What the page says of the runs of other policies."""
    head = ("run", "pods on average", "apart, asked for", "apart, ready", "requests a second", "settled after, run")
    lines = [f"| {' | '.join(head)} | simulator |", "|---" * (len(head) + 1) + "|"]
    for name, one in found.items():
        own = [name, f"{one.pods:.1f}", str(one.asked), str(one.ready)]
        for rate, took, made in one.lags:
            lines.append(f"| {' | '.join(own)} | {rate:g} | {took:.0f} s | {made} s |")
            own = [""] * len(own)
    return "\n".join(lines)


def _difference(real: Sequence[int], made: Sequence[int]) -> float:
    return statistics.fmean(abs(one - other) for one, other in zip(real, made, strict=True))


@click.command()
@click.argument("records", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write/--no-write", "writes", default=False, help="Put the table into docs/autoscale.md.")
def main(records: tuple[Path, ...], *, writes: bool) -> None:
    """Hold the simulator against runs on a kind cluster, or against RECORDS of `velagen demo autoscale --record`."""
    for path in records:
        click.echo(f"{path}: {apart(Record.of(path.read_text(encoding='utf-8')))}")
    if records:
        return
    found = lags()
    content = f"{table(found)}\n\n{verdict(found)}"
    click.echo(content)
    if writes:
        write("real runs", content, DOCS / "autoscale.md")
        kept = apart(Record.of(KEPT.read_text(encoding="utf-8")))
        write("recorded run", of_the_record(kept), DOCS / "autoscale.md")
        write("recorded policies", of_the_records(others()), DOCS / "autoscale.md")


if __name__ == "__main__":
    main()
