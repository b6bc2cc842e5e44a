"""What happened while a load came in: requests each second, pods asked for and ready, and what the formula says.

A record is what the demo draws, and what the simulator of benchmarks/autoscale is held against.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from velagen import autoscaling

#: A number that changes: the seconds since the beginning at which it did, and what it then was.
Changes = Sequence[tuple[float, int]]
#: Latency is taken from so many seconds at a plateau's end, when all that waited has been answered: of the shortest
#: window that the trait takes.
_SETTLED: Final = 30


@dataclass(frozen=True)
class Plateau:
    """So many requests a second, until the pods have followed."""

    rate: float
    #: Seconds.
    least: float
    longest: float
    #: What it ends with; None: what the trait's formula says.
    pods: int | None = None
    #: What happens in it beside the load.
    what: str = ""


@dataclass(frozen=True)
class Span:
    """A plateau as it was: from when until before when, in seconds since the beginning."""

    rate: float
    start: float
    end: float
    #: As in the plateau.
    pods: int | None = None
    what: str = ""


@dataclass(frozen=True)
class Record:
    """A load, and the pods that followed it."""

    #: Seconds since 1970 at the beginning.
    at: float
    #: The properties of the trait autoscale.
    trait: Mapping[str, Any]
    spans: Sequence[Span]
    #: Of each second: requests that were sent, those of them that failed, and the mean time until an answer.
    sent: Sequence[int]
    failed: Sequence[int]
    milliseconds: Sequence[float | None]
    asked: Changes
    ready: Changes
    #: Seconds from a pod's creation to its being ready, of each pod that was added.
    pod_seconds: Sequence[float] = field(default_factory=tuple)
    #: What a pod needs for one request, of which it works on one at once.
    model_seconds: float = 0.0
    #: Milliseconds of a request by who counts it for the trait, in the quietest plateau; 0: nobody was asked.
    counted_milliseconds: float = 0.0
    #: Of each look at what Kubernetes' autoscaler has of the triggers: when, and the pods that each asks for before
    #: rounding; None: it has no number.
    answers: Sequence[tuple[float, Sequence[float | None]]] = field(default_factory=tuple)

    @property
    def seconds(self) -> int:
        """How long it lasted."""
        return len(self.sent)

    def text(self) -> str:
        """As JSON, a line for each part."""
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(self).items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def of(cls, text: str) -> Record:
        """From JSON."""
        found = json.loads(text)
        found["spans"] = tuple(Span(**one) for one in found["spans"])
        for name in ("asked", "ready"):
            found[name] = tuple((at, number) for at, number in found[name])
        found["answers"] = tuple((at, tuple(pods)) for at, pods in found.get("answers", ()))
        return cls(**found)


def number_at(changes: Changes, at: float) -> int:
    """What it was then; what it began with before that."""
    return next((number for when, number in reversed(changes) if when <= at), changes[0][1])


def numbers_in(changes: Changes, span: Span) -> list[int]:
    """What it was in a plateau, in order."""
    return [number_at(changes, span.start), *(number for at, number in changes if span.start < at < span.end)]


# ---------------------------------------------------------------- the formula


def asked_for(trait: Mapping[str, Any], rate: float, milliseconds: float | None = None) -> float | None:
    """The pods that a trait's policy wants at a rate, before rounding; None where these figures don't say that.

    Args:
        milliseconds: how long a request takes, which the policies need that count the requests in the system.
    """
    in_system = None if milliseconds is None else rate * milliseconds / 1000
    at_once = trait.get("concurrencyPerReplica", 1)
    part = trait.get("utilization", autoscaling.UTILIZATION)
    match trait.get("policy", "littles-law"):
        case "article":
            return autoscaling.article(rate, trait["targetLatencyMilliseconds"])
        case "littles-law" if in_system is not None:
            return autoscaling.littles_law(in_system, at_once, part)
        case "slo" if in_system is not None:
            objective = trait["targetLatencyMilliseconds"]
            return autoscaling.slo(in_system, milliseconds, objective, at_once, part)
        case _:
            return None


def formula(trait: Mapping[str, Any], rate: float, milliseconds: float | None = None) -> int | None:
    """The same as a number of pods that may run."""
    pods = asked_for(trait, rate, milliseconds)
    if pods is None:
        return None
    return min(max(autoscaling.wanted(pods, 0), least_of(trait)), int(trait["maxReplicas"]))


def least_of(trait: Mapping[str, Any]) -> int:
    """The pods that stay in any case."""
    return int(trait.get("minReplicas", 1))


def tolerated(trait: Mapping[str, Any], rate: float, pods: int, milliseconds: float | None = None) -> bool:
    """Whether Kubernetes leaves this number of pods alone, since the formula's is within a tenth of it."""
    wanted = asked_for(trait, rate, milliseconds)
    return bool(pods) and wanted is not None and abs(wanted / pods - 1) <= autoscaling.TOLERANCE


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """A plateau in figures."""

    #: Requests a second as they were sent.
    rate: float
    formula: int | None
    #: Those that were asked for, in order.
    pods: Sequence[int]
    #: Ready at its end.
    ready: int
    #: Seconds from its beginning until those were ready and stayed; None where the formula asks for others.
    took: float | None
    requests: int
    failed: int

    def cells(self) -> list[str]:
        """As a table shows it."""
        wanted = "-" if self.formula is None else str(self.formula)
        took = "not within it" if self.took is None else f"{self.took:.0f} s"
        pods = ", ".join(map(str, self.pods))
        return [f"{self.rate:.1f}", wanted, pods, str(self.ready), took, str(self.requests), str(self.failed)]


HEAD: Final = (
    "requests a second",
    "pods by the formula",
    "asked for",
    "ready at its end",
    "ready after",
    "requests",
    "failed",
)


def rows(record: Record) -> list[Row]:
    """Each plateau."""
    return [_row(record, span) for span in record.spans]


def _row(record: Record, span: Span) -> Row:
    first, last = round(span.start), min(round(span.end), record.seconds)
    requests = sum(record.sent[first:last])
    rate = requests / max(1, last - first)
    settled = [one for one in record.milliseconds[max(first, last - _SETTLED) : last] if one is not None]
    milliseconds = statistics.mean(settled) if settled else None
    wanted = formula(record.trait, span.rate, milliseconds) if span.pods is None else span.pods
    ready = numbers_in(record.ready, span)[-1]
    took = None
    if wanted in (None, ready) or (span.pods is None and tolerated(record.trait, rate, ready, milliseconds)):
        changes = [at for at, _ in record.ready if span.start < at < span.end]
        took = changes[-1] - span.start if changes else 0.0
    pods = numbers_in(record.asked, span)
    return Row(rate, wanted, pods, ready, took, requests, sum(record.failed[first:last]))


def settled_milliseconds(record: Record) -> float | None:
    """How long a request takes where hardly any waits: the median of the quietest plateau."""
    quiet = min(record.spans, key=lambda span: span.rate)
    found = [one for one in record.milliseconds[math.ceil(quiet.start) : int(quiet.end)] if one is not None]
    return statistics.median(found) if found else None
