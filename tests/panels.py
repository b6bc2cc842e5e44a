"""What a dashboard's panels ask, and whether a Prometheus has an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from velagen.monitoring.objectives import OBJECTIVE
from velagen.monitoring.prometheus import Prometheus, PrometheusError

#: What must be there before a query has an answer, and what in the query tells of it.
_NEEDS: Final = {
    "alert": r"^max by \(alertname.+ALERTS",
    "autoscaler": r"horizontalpodautoscaler",
    "errors": r"model:errors",
    "gpu": r"model:gpu|cluster:gpus",
    "histogram": r"model:latency_seconds:p",
    "kube-state-metrics": r"kube_",
    "llm": r"model:tokens|model:first_token",
    "rollout": r"kube_configmap",
    "slo": r"model:slo_",
    "triton": r"model:batch_size|model:queue|model:waiting",
}


@dataclass(frozen=True)
class Query:
    """What one line, number or column of a panel asks, with the dashboard's variables filled in."""

    panel: str
    expr: str

    @property
    def needs(self) -> frozenset[str]:
        """What must be there, beside some minutes of traffic, before there is an answer.

        ``gpu``: pods that hold GPUs, and DCGM's exporter or the simulator. ``llm``: vLLM. ``triton``: Triton, as hardly
        anything else tells this. ``errors``, ``histogram``: a route that tells errors, or has a histogram: Triton's own
        has none. ``kube-state-metrics``; ``autoscaler``: an HPA beside it. ``slo``: the trait slo on the component.
        ``alert``: one that fires. ``rollout``: the step rollout-model on the component.
        """
        return frozenset(need for need, told in _NEEDS.items() if re.search(told, self.expr))


def panels(dashboard: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[Query]:
    """All that a dashboard asks.

    Args:
        dashboard: the JSON of `velagen.monitoring.dashboards.dashboard`.
        values: variable -> its value, for several of them a regular expression as Grafana writes it: ``(m|m-canary)``.

    A text box has the value that it comes with. Raises KeyError for another variable without a value.
    """
    variables = dashboard["templating"]["list"]
    values = {**values, **{one["name"]: one["query"] for one in variables if one["type"] == "textbox"}}
    for variable in variables:
        if found := re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable["query"])):
            yield Query(f"variable {variable['name']}", f"group by ({found[2]}) ({_filled(found[1], values)})")
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield Query(panel["title"], _filled(target["expr"], values))


def _filled(expr: str, values: Mapping[str, str]) -> str:
    known = {"__range": "1h", **values}
    # $1 is not a variable but a group of label_replace, which Grafana leaves alone as well.
    return re.sub(r"\$\{?([a-z_]+)\}?", lambda found: known[found[1]], expr)


def unanswered(prometheus: str, queries: Iterable[Query], without: Iterable[str] = ()) -> dict[str, str]:
    """Panels to which a Prometheus has no answer: their titles, and what they ask or why that failed.

    Args:
        prometheus: its address.
        queries: of `panels`.
        without: what is not there (`Query.needs`): what needs it is asked, must not fail, and may be empty. So it is
            with ``slo`` while there is no objective.
    """
    server = Prometheus(prometheus)
    missing = {*without, *([] if server.instant(OBJECTIVE) else ["slo"])}
    found = {}
    for query in queries:
        try:
            if not server.instant(query.expr) and not query.needs & missing:
                found[query.panel] = query.expr
        except PrometheusError as error:
            found[query.panel] = str(error)
    return found
