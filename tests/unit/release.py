"""The series of a release that went wrong, over an hour: as the recording rules write them, for pages and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tests.unit.prometheus_server import Series

#: Seconds ago: the new version came, got a quarter, failed, an alert rang, it was taken back; a scrape was missed.
CAME, QUARTER, FAILED, RANG, BACK = 2400, 1500, 1020, 840, 480
MISSED = (2820, 2700)
PERIOD = 3600


def release(app: str, namespace: str, *, name: str | None = None) -> list[Series]:
    """Two versions behind a gateway; *name* is the component's, where it is not the application's."""
    stable = name or app
    new = f"{stable}-canary"

    def of(version: str, **more: str) -> Mapping[str, str]:
        return {"app": app, "component": stable, "namespace": namespace, "version": version, **more}

    def missed(ago: float) -> bool:
        return MISSED[1] <= ago <= MISSED[0]

    def share(ago: float) -> float:
        return 0.0 if ago > CAME or ago < BACK else 0.25 if ago <= QUARTER else 0.1

    def traffic(ago: float) -> float:
        return 180 + 40 * math.sin(ago / 500) + 6 * math.sin(ago / 37)

    def when_new(value: float, ago: float) -> float | None:
        return value if BACK <= ago <= CAME else None

    def failing(ago: float) -> float:
        return 0.002 + (0.07 * (1 - math.exp((ago - FAILED) / 150)) if ago <= FAILED else 0)

    def slow(ago: float) -> float:
        return 0.085 + 0.01 * math.sin(ago / 61) + (0.22 * (1 - math.exp((ago - FAILED) / 200)) if ago <= FAILED else 0)

    def seen(value: float, ago: float) -> float | None:
        return None if missed(ago) else value

    def left(ago: float) -> float:
        return 0.52 if ago > FAILED else 0.52 - 0.3 * (1 - ago / FAILED)

    by = {"route": "envoy"}
    own = {"route": "server"}
    promised = {"app": app, "component": stable, "namespace": namespace, "route": "envoy"}
    return [
        ("model:info", of(stable), lambda ago: 1),
        ("model:requests:rate1m", of(stable, **by), lambda ago: seen(traffic(ago) * (1 - share(ago)), ago)),
        ("model:requests:rate1m", of(new, **by), lambda ago: when_new(traffic(ago) * share(ago), ago)),
        ("model:requests:rate1m", of(stable, **own), lambda ago: traffic(ago) * (1 - share(ago))),
        ("model:errors:rate1m", of(stable, **by), lambda ago: 0.05),
        ("model:errors:rate1m", of(new, **by), lambda ago: when_new(traffic(ago) * share(ago) * failing(ago), ago)),
        ("model:errors:ratio5m", of(stable, **by), lambda ago: seen(0.0003, ago)),
        ("model:errors:ratio5m", of(new, **by), lambda ago: when_new(failing(ago), ago)),
        ("model:latency_seconds:p50", of(stable, **by), lambda ago: seen(0.021, ago)),
        ("model:latency_seconds:p50", of(new, **by), lambda ago: when_new(0.024, ago)),
        ("model:latency_seconds:p99", of(stable, **by), lambda ago: seen(0.08 + 0.008 * math.sin(ago / 90), ago)),
        ("model:latency_seconds:p99", of(new, **by), lambda ago: when_new(slow(ago), ago)),
        ("model:latency_seconds:mean", of(stable, **own), lambda ago: 0.019),
        ("model:replicas", of(stable), lambda ago: 3 if ago > 1900 else 2),
        ("model:replicas", of(new), lambda ago: when_new(1, ago)),
        ("model:inflight", of(stable, **own), lambda ago: 4 + math.sin(ago / 45)),
        ("model:waiting", of(stable, **own), lambda ago: 0),
        ("model:inflight", of(new, **own), lambda ago: when_new(1 + slow(ago) * 8, ago)),
        ("model:gpu_utilization:avg", of(stable), lambda ago: 0.62 + 0.05 * math.sin(ago / 300)),
        ("model:slo_objective:ratio", {**promised, "slo": "availability", "window": "30d"}, lambda ago: 0.99),
        ("model:slo_objective:ratio", {**promised, "slo": "latency", "milliseconds": "250"}, lambda ago: 0.99),
        ("model:slo_budget_left:ratio", {**promised, "slo": "availability"}, left),
        ("ALERTS", {"alertname": "ModelErrorBudgetBurnsFast", "alertstate": "firing", "severity": "critical",
                    "namespace": namespace, "component": stable, "app": app},
         lambda ago: 1 if BACK - 60 <= ago <= RANG else None),
        ("ALERTS", {"alertname": "ModelSaturated", "alertstate": "firing", "severity": "warning",
                    "namespace": namespace, "version": new},
         lambda ago: 1 if 600 <= ago <= 780 else None),
    ]  # fmt: skip
