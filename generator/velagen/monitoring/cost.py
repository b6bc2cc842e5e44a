"""GPU-hours by model over a while, idle ones beside them, from the records ``model:gpus`` and ``cluster:gpus:*``.

A shared GPU is counted in equal parts among the pods that hold it (velagen.monitoring.rules). What they cost is by a
table of prices of the user's own; without one there are hours alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from velagen.documents import Document, read_documents
from velagen.errors import Place, Problem, VelagenError, did_you_mean
from velagen.monitoring.history import Period
from velagen.monitoring.prometheus import Prometheus, Sample, quoted

_SHAPE: Final = "write currency: EUR, gpuHour: 2.50 and perhaps namespaces: {team-a: 1.80}"
_KEYS: Final = ("currency", "gpuHour", "namespaces")
#: Seconds between two looks at the records.
_STEP: Final = 60


@dataclass(frozen=True)
class Prices:
    """What an hour of a GPU costs, everywhere and in some namespaces."""

    currency: str
    gpu_hour: float
    namespaces: Mapping[str, float] = field(default_factory=dict)

    def of(self, namespace: str | None) -> float:
        """An hour in a namespace; of None: where no model runs."""
        return self.namespaces.get(namespace or "", self.gpu_hour)


@dataclass(frozen=True)
class Use:
    """The GPU-hours of one version of a model."""

    namespace: str
    app: str
    component: str
    version: str
    hours: float


@dataclass(frozen=True)
class Bill:
    """All of a while. Of idle GPUs nothing is known where no exporter told of any: None."""

    period: Period
    uses: tuple[Use, ...]
    idle: float | None
    total: float | None
    prices: Prices | None = None

    def cost(self, hours: float, namespace: str | None) -> float | None:
        """What they cost; None without prices."""
        return None if self.prices is None else hours * self.prices.of(namespace)

    def share(self, hours: float) -> float | None:
        """Of all GPU-hours that there were, 0 to 1."""
        return hours / self.total if self.total else None


def read_prices(path: Path) -> Prices:
    """The table of prices in a file. Raises VelagenError that says all that is wrong with it, with file and line."""
    documents = read_documents(path)
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise VelagenError(Problem("a table of prices is one map", Place(str(path)), hint=_SHAPE))
    (document,) = documents
    problems = list(_problems(document))
    if problems:
        raise VelagenError(problems)
    value = document.value
    return Prices(
        value["currency"], float(value["gpuHour"]), {k: float(v) for k, v in value.get("namespaces", {}).items()}
    )


def _problems(document: Document) -> list[Problem]:
    value: dict[str, Any] = document.value
    found = [
        Problem(f"unknown key {name}", document.place(f"/{name}"), hint=did_you_mean(str(name), _KEYS) or _SHAPE)
        for name in value
        if name not in _KEYS
    ]
    found += [Problem(f"{name} is missing", document.place(), hint=_SHAPE) for name in _KEYS[:2] if name not in value]
    currency = value.get("currency", "EUR")
    if not isinstance(currency, str) or not currency.strip() or len(currency) > 10:
        found.append(Problem("currency must be a short text such as EUR", document.place("/currency")))
    if "gpuHour" in value and not _is_price(value["gpuHour"]):
        found.append(Problem("gpuHour must be a number, 0 or more: an hour of a GPU", document.place("/gpuHour")))
    namespaces = value.get("namespaces", {})
    if not isinstance(namespaces, dict):
        return [*found, Problem("namespaces must be a map of names to prices", document.place("/namespaces"))]
    found += [
        Problem(f"the price of namespace {name} must be a number, 0 or more", document.place(f"/namespaces/{name}"))
        for name, price in namespaces.items()
        if not _is_price(price)
    ]
    return found


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def bill(
    prometheus: Prometheus, over: Period, *, namespace: str | None, app: str | None, prices: Prices | None = None
) -> Bill:
    """Ask for the GPU-hours of the models of a namespace (None: all), or of one application, and for the idle ones.

    Raises PrometheusError; VelagenError where nothing is known of a GPU in that while.
    """
    where = [f"{label}={quoted(value)}" for label, value in (("namespace", namespace), ("app", app)) if value]
    samples = prometheus.instant(_hours(f"model:gpus{{{','.join(where)}}}", over), over.end)
    idle, total = (prometheus.instant(_hours(f"cluster:gpus:{what}", over), over.end) for what in ("free", "total"))
    if not samples and not total:
        raise VelagenError(
            Problem(
                "Prometheus has no records of GPUs in this while",
                hint="they need the addon's recording rules (velagen metrics rules) and DCGM's exporter",
            )
        )
    uses = [_use(one) for one in samples]
    return Bill(
        over,
        tuple(sorted(uses, key=lambda use: (-use.hours, use.namespace, use.version))),
        sum(one.value for one in idle) if idle else None,
        sum(one.value for one in total) if total else None,
        prices,
    )


def _use(sample: Sample) -> Use:
    namespace, app, component, version = (
        sample.labels.get(name, "") for name in ("namespace", "app", "component", "version")
    )
    return Use(namespace, app, component, version, sample.value)


def _hours(record: str, over: Period) -> str:
    """Hours of what the record counts, over the while."""
    return f"sum_over_time({record}[{round(over.end - over.start)}s:{_STEP}s]) * {_STEP} / 3600"


def as_json(of: Bill) -> dict[str, Any]:
    """For scripts: what nobody knows is null."""
    prices = of.prices
    return {
        "since": of.period.start,
        "until": of.period.end,
        "currency": prices.currency if prices else None,
        "models": [
            {
                "namespace": use.namespace,
                "app": use.app,
                "component": use.component,
                "version": use.version,
                "gpuHours": round(use.hours, 4),
                "share": _rounded(of.share(use.hours)),
                "cost": _rounded(of.cost(use.hours, use.namespace)),
            }
            for use in of.uses
        ],
        "idle": {
            "gpuHours": _rounded(of.idle),
            "share": None if of.idle is None else _rounded(of.share(of.idle)),
            "cost": None if of.idle is None else _rounded(of.cost(of.idle, None)),
        },
        "totalGpuHours": _rounded(of.total),
    }


def rows(of: Bill) -> list[tuple[str, ...]]:
    """The lines of the table: where, application, version, hours, share, cost; idle GPUs last."""
    found = [(use.namespace, use.app, use.version, *_figures(of, use.hours, use.namespace)) for use in of.uses]
    return [*found, ("", "", "idle", *(("unknown", "", "") if of.idle is None else _figures(of, of.idle, None)))]


def _figures(of: Bill, hours: float, namespace: str | None) -> tuple[str, str, str]:
    share, cost = of.share(hours), of.cost(hours, namespace)
    currency = of.prices.currency if of.prices else ""
    return (
        f"{hours:.2f}",
        "" if share is None else f"{share:.1%}",
        "" if cost is None else f"{cost:.2f} {currency}",
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
