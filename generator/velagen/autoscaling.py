"""How many pods a load needs: the formulas of the trait autoscale's policies, and how Kubernetes takes their answer.

The trait's queries are written with these numbers (definitions/_autoscale_queries.py) and tests hold what Prometheus
answers to them against these functions; the simulator of benchmarks/autoscale calls them.
"""

from __future__ import annotations

import math
from typing import Final

#: The factor in the article's formula.
ARTICLE_FACTOR: Final = 0.8
#: The part of a pod's capacity that littles-law and slo plan with where the user gives none.
UTILIZATION: Final = 0.8
#: How many times littles-law's pods slo asks for at most: where the service time alone is longer than the objective no
#: number of pods reaches it.
SLO_MOST: Final = 2
#: The trait's other numbers where the user gives none, in seconds.
WINDOW_SECONDS: Final = 60
POLLING_SECONDS: Final = 15
SCALE_DOWN_SECONDS: Final = 300
#: Kubernetes changes nothing within this (kube-controller-manager, horizontal-pod-autoscaler-tolerance).
TOLERANCE: Final = 0.1


def article(qps: float, target_milliseconds: float) -> float:
    """The article's pods, before rounding: requests a second * 0.8 / target latency in milliseconds."""
    return qps * ARTICLE_FACTOR / target_milliseconds


def littles_law(in_system: float, concurrency: float = 1, utilization: float = UTILIZATION) -> float:
    """Pods, before rounding, for the requests in the system, of which a pod works on *concurrency* at once."""
    return in_system / (concurrency * utilization)


def slo(
    in_system: float,
    milliseconds: float | None,
    objective: float,
    concurrency: float = 1,
    utilization: float = UTILIZATION,
) -> float:
    """Little's law's pods, and up to twice as many while the latency is over its objective; None: no latency known."""
    over = 1.0 if milliseconds is None else min(max(milliseconds / objective, 1.0), SLO_MOST)
    return littles_law(in_system, concurrency, utilization) * over


def wanted(pods: float, running: int) -> int:
    """What Kubernetes makes of a metric that the pods share: rounded up, and left alone within the tolerance.

    Source: pkg/controller/podautoscaler/replica_calculator.go, GetExternalPerPodMetricReplicas.
    """
    if running and abs(pods / running - 1) <= TOLERANCE:
        return running
    # As Kubernetes does, in thousandths: 3.0000001 pods are 3.
    return math.ceil(round(pods * 1000) / 1000)
