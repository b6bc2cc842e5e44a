"""The dashboards as objects: ConfigMaps that Grafana's sidecar reads, and components of KubeVela's addon grafana.

Sources: grafana/helm-charts charts/grafana values.yaml (sidecar.dashboards.label); kubevela/catalog
addons/o11y-definitions/definitions/grafana-dashboard.cue, whose component gives data to Grafana by the API of prism.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from _monitoring import component, setting

from velagen import each, given, let, when
from velagen import parameter as p
from velagen.monitoring.dashboards import UIDS, dashboard
from velagen.template.expression import Value

#: The sidecar of Grafana's chart looks for the first, or for what it is told.
labels = {
    "grafana_dashboard": "1",
    when(given(p.monitoring.labels)): {each(p.monitoring.labels): lambda key, value: {key: value}},
}


def config_map(uid: str, text: Value) -> Value:
    """A dashboard as Grafana's sidecar looks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": uid, "namespace": setting("namespace"), "labels": labels},
        "data": {f"{uid}.json": text},
    }


def lines(dashboard: Mapping[str, Any]) -> str:
    """The JSON with a line for each property, and for each panel."""

    def text(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    panels = ",\n".join(text(panel) for panel in dashboard["panels"])
    rest = [f"{text(name)}:{text(value)}" for name, value in dashboard.items() if name != "panels"]
    return "{" + ",\n".join([*rest, f'"panels":[\n{panels}\n]']) + "}\n"


#: By uid. Not the files as they are, which have a line for each number.
texts = {uid: let(lines(json.loads(dashboard(name))), name=f"{name}Dashboard") for name, uid in UIDS.items()}
has_dashboards = let(setting("dashboards"))
has_grafana = let(given(p.monitoring.grafana))

components: list[Value] = [
    component("dashboards", has_dashboards, [config_map(uid, text) for uid, text in texts.items()]),
    *(
        when(
            has_grafana,
            {
                "name": f"grafana-{uid}",
                "type": "grafana-dashboard",
                "properties": {"grafana": p.monitoring.grafana, "uid": uid, "data": text},
            },
        )
        for uid, text in texts.items()
    ),
]
