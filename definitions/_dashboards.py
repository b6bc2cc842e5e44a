"""The dashboards as objects: ConfigMaps that Grafana's sidecar reads, and components of KubeVela's addon grafana.

Sources: grafana/helm-charts charts/grafana values.yaml (sidecar.dashboards.label); kubevela/catalog
addons/o11y-definitions/definitions/grafana-dashboard.cue, whose component gives data to Grafana by the API of prism.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from velagen import first_given, given, let, when
from velagen import parameter as p
from velagen.monitoring.dashboards import UIDS, dashboard
from velagen.template.expression import Value

settings = p.monitoring


def config_map(uid: str, text: Value) -> Value:
    """A dashboard as Grafana's sidecar looks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": uid,
            "namespace": first_given(settings.namespace, "vela-system"),
            "labels": {"grafana_dashboard": "1"},
        },
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
components: list[Value] = [
    when(
        first_given(settings.dashboards, False),
        {
            "name": "dashboards",
            "type": "k8s-objects",
            "properties": {"objects": [config_map(uid, text) for uid, text in texts.items()]},
        },
    ),
    *(
        when(
            given(settings.grafana),
            {
                "name": f"grafana-{uid}",
                "type": "grafana-dashboard",
                "properties": {"grafana": settings.grafana, "uid": uid, "data": text},
            },
        )
        for uid, text in texts.items()
    ),
]
