"""A model service under a load, second by second, and the autoscalers that watch it. docs/autoscale.md says the model.

The formulas are those of velagen.autoscaling, by which the trait's queries are written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from velagen import autoscaling

#: A pod: requests that it works on at once, the seconds that one takes, and those until a new pod answers.
AT_ONCE: Final = 4
SERVICE_SECONDS: Final = 0.1
START_SECONDS: Final = 30
CAPACITY: Final = AT_ONCE / SERVICE_SECONDS
#: Within so many milliseconds a request is to be answered; a client that has waited so many seconds has gone.
OBJECTIVE: Final = 200.0
PATIENCE_SECONDS: Final = 10
LEAST: Final = 2
MOST: Final = 30
#: How often Prometheus looks at the pods.
SCRAPE_SECONDS: Final = 15
#: A change of direction within so many seconds is a flap.
FLAP_SECONDS: Final = 600


@dataclass(frozen=True)
class Setting:
    """What a service is, and how it is watched."""

    at_once: float = AT_ONCE
    service_seconds: float = SERVICE_SECONDS
    start_seconds: float = START_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
    least: int = LEAST
    most: int = MOST
    scrape_seconds: int = SCRAPE_SECONDS
    window_seconds: int = autoscaling.WINDOW_SECONDS
    scale_down_seconds: int = autoscaling.SCALE_DOWN_SECONDS
    #: Kubernetes looks each 15 s: in which of them.
    phase: int = 0
    #: Requests that a pod answers in a second, where a request takes time elsewhere too; None: all of it in the pod.
    answers: float | None = None
    #: In milliseconds, of the histogram by which a percentile is told; none: it is exact.
    bounds: tuple[float, ...] = ()
    #: By second, the seconds of a request as they were measured, where pods are not what it waits for; none: they are
    #: what `service_seconds` and the queue make.
    times: tuple[float, ...] = ()

    @property
    def capacity(self) -> float:
        """Requests that a pod answers in a second."""
        return self.at_once / self.service_seconds if self.answers is None else self.answers


#: That of docs/autoscale.md.
DEFAULT: Final = Setting()


@dataclass
class Second:
    """What was in one second."""

    served: float
    milliseconds: float
    in_system: float
    utilization: float


@dataclass
class Service:
    """The pods and the requests that wait before them, as one queue."""

    setting: Setting = DEFAULT
    pods: int = LEAST
    ready: int = LEAST
    waiting: float = 0.0
    starting: deque[float] = field(default_factory=deque)
    past: deque[Second] = field(default_factory=lambda: deque(maxlen=600))

    def scale(self, to: int, now: int) -> None:
        """Ask for *to* pods: new ones answer later, those that start go first."""
        while self.pods < to:
            self.starting.append(now + self.setting.start_seconds)
            self.pods += 1
        while self.pods > to:
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1
            self.pods -= 1

    def serve(self, arrivals: float, now: int) -> tuple[Second, float]:
        """One second: what was, and the requests that were lost."""
        while self.starting and self.starting[0] <= now:
            self.starting.popleft()
            self.ready += 1
        one = self.setting
        can = self.ready * one.capacity
        offered = self.waiting + arrivals
        served = min(offered, can)
        left = offered - served
        lost = max(0.0, left - can * one.patience_seconds)
        self.waiting = left - lost
        seconds = one.times[now] if one.times else one.service_seconds + self.waiting / can
        in_system = served * seconds if one.times else served * one.service_seconds + self.waiting
        found = Second(served, seconds * 1000, in_system, served / can)
        self.past.append(found)
        return found, lost


#: Looks at the service in a second of its own choice: the pods it wants, or None for no look.
Scaler = Callable[[Service, int], int | None]


def _window(service: Service, seconds: int, now: int, every: int = 1) -> list[Second]:
    """The last seconds as they were known at the last look of a scrape."""
    old = now % every
    past = list(service.past)
    return past[max(0, len(past) - old - seconds) : len(past) - old]


def percentile(of: Sequence[Second], part: float, bounds: Sequence[float] = ()) -> float | None:
    """Milliseconds within which this part of the requests was answered; None where there was none.

    Args:
        bounds: of a histogram's buckets; within one Prometheus takes requests to be spread evenly
            (promql/quantile.go, BucketQuantile).
    """
    total = sum(one.served for one in of)
    if not total:
        return None
    lower = 0.0
    for upper in bounds:
        until = sum(one.served for one in of if one.milliseconds <= upper)
        before = sum(one.served for one in of if one.milliseconds <= lower)
        if until >= part * total:
            return lower + (upper - lower) * (part * total - before) / (until - before)
        lower = upper
    if bounds:
        return lower
    seen = 0.0
    for one in sorted(of, key=lambda one: one.milliseconds):
        seen += one.served
        if seen >= part * total:
            return one.milliseconds
    return None


class Hpa:
    """Kubernetes' autoscaler behind KEDA: a look each 15 s, its own limits upwards, a lull downwards.

    Source: pkg/controller/podautoscaler/horizontal.go (calculateScaleUpLimitWithScalingRules, stabilizeRecommendation).
    """

    def __init__(self, pods: Callable[[Service, int], float | None]) -> None:
        self.pods = pods
        self.asked: deque[tuple[int, int]] = deque()

    def __call__(self, service: Service, now: int) -> int | None:
        """See Scaler."""
        one = service.setting
        if now % autoscaling.POLLING_SECONDS != one.phase:
            return None
        load = self.pods(service, now)
        if load is None:
            return None
        wanted = min(max(autoscaling.wanted(load, service.pods), one.least), one.most)
        self.asked.append((now, wanted))
        while self.asked[0][0] <= now - one.scale_down_seconds:
            self.asked.popleft()
        if wanted < service.pods:
            wanted = min(service.pods, max(asked for _, asked in self.asked))
        return min(wanted, max(service.pods * 2, service.pods + 4))


def _looked(service: Service, now: int) -> list[Second]:
    one = service.setting
    return _window(service, one.window_seconds, now, one.scrape_seconds)


def article(target: float) -> Scaler:
    """The article's formula with a target latency in milliseconds."""

    def pods(service: Service, now: int) -> float | None:
        found = _looked(service, now)
        return autoscaling.article(sum(one.served for one in found) / len(found), target) if found else None

    return Hpa(pods)


def _in_system(found: Sequence[Second]) -> float:
    """The growth of the sum of all times in a second, as the query has it: of requests that were answered."""
    return sum(one.served * one.milliseconds / 1000 for one in found) / len(found)


def littles_law(utilization: float = autoscaling.UTILIZATION) -> Scaler:
    """The trait's default."""

    def pods(service: Service, now: int) -> float | None:
        found = _looked(service, now)
        return autoscaling.littles_law(_in_system(found), service.setting.at_once, utilization) if found else None

    return Hpa(pods)


def slo(objective: float = OBJECTIVE, utilization: float = autoscaling.UTILIZATION) -> Scaler:
    """The trait's policy for an objective in milliseconds."""

    def pods(service: Service, now: int) -> float | None:
        found = _looked(service, now)
        if not found:
            return None
        one = service.setting
        late = percentile(found, 0.95, one.bounds)
        return autoscaling.slo(_in_system(found), late, objective, one.at_once, utilization)

    return Hpa(pods)


def cpu(target: float = 0.7) -> Scaler:
    """Kubernetes' autoscaler on the CPU of the pods that answer: it never sees more than all of them being busy."""

    def pods(service: Service, now: int) -> float | None:
        found = _window(service, 30, now, SCRAPE_SECONDS)
        return service.ready * sum(one.utilization for one in found) / len(found) / target if found else None

    return Hpa(pods)


class Kpa:
    """Knative's autoscaler at its defaults: windows of 60 and 6 s, 70 % of the requests at once, panic at twice.

    Source: knative.dev/serving pkg/autoscaler/scaling/autoscaler.go; config/core/configmaps/autoscaler.yaml.
    """

    def __init__(self) -> None:
        self.panics_until = -1
        self.most = 0

    def __call__(self, service: Service, now: int) -> int | None:
        """See Scaler."""
        if now % 2:
            return None
        stable, panic = (
            math.ceil(sum(one.in_system for one in found) / len(found) / (AT_ONCE * 0.7)) if found else LEAST
            for found in (_window(service, 60, now), _window(service, 6, now))
        )
        # At most a thousand times as many as answer (max-scale-up-rate), and not fewer than half (max-scale-down-rate).
        low, high = math.floor(service.ready / 2), service.ready * 1000
        stable, panic = (min(max(one, low), high) for one in (stable, panic))
        if panic / service.ready >= 2:
            if now > self.panics_until:
                self.most = 0
            self.panics_until = now + 60
        if now <= self.panics_until:
            self.most = max(self.most, service.pods, panic)
            stable = max(stable, self.most)
        return min(max(stable, LEAST), MOST)


def fixed(pods: int) -> Scaler:
    """Always so many."""
    return lambda _service, _now: pods


@dataclass
class Outcome:
    """What a load did to a service, and what it took."""

    seconds_over: int = 0
    replica_hours: float = 0.0
    flaps: int = 0
    lost: float = 0.0
    pods: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)


def run(load: Sequence[float], scaler: Scaler, service: Service | None = None) -> Outcome:
    """Send so many requests in each second; to a service as it is by default, or to one's own."""
    service, found = service or Service(), Outcome()
    for change in _changes(load, scaler, service, found):
        found.flaps += change
    return found


def _changes(load: Sequence[float], scaler: Scaler, service: Service, found: Outcome) -> Iterator[int]:
    direction, changed = 0, -FLAP_SECONDS
    for now, arrivals in enumerate(load):
        was = service.pods
        wanted = scaler(service, now)
        if wanted is not None:
            service.scale(wanted, now)
        second, lost = service.serve(arrivals, now)
        found.seconds_over += second.milliseconds > OBJECTIVE
        found.replica_hours += service.pods / 3600
        found.lost += lost
        found.pods.append(service.pods)
        found.ready.append(service.ready)
        if service.pods != was:
            now_to = 1 if service.pods > was else -1
            yield int(direction == -now_to and now - changed < FLAP_SECONDS)
            direction, changed = now_to, now
