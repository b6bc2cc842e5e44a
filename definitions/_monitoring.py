"""What the addon's parameter monitoring installs, and what it gives to traits and steps.

A property with ``"x-addon-default": "prometheus"`` in its schema is the address that the addon was enabled with where
the user writes none; ``scrape`` says whether the pods of models are annotated for Prometheus.
"""

from __future__ import annotations

import json
from pathlib import Path

from velagen import first_given, let, optional, when
from velagen import parameter as p
from velagen.monitoring.objects import CRDS, pod_monitors, prometheus_rule
from velagen.template.expression import Expression, Value

#: Where the parameter is not written at all, neither are the defaults of its properties.
_PROPERTIES = json.loads((Path(__file__).parents[1] / "schemas" / "addon.json").read_text(encoding="utf-8"))[
    "properties"
]["monitoring"]["properties"]


def setting(name: str) -> Expression:
    """What the addon was enabled with."""
    return first_given(p.monitoring[name], _PROPERTIES[name]["default"])


has_pod_monitor = let(setting("objects") == "pod-monitor")
has_rules = let(setting("rules"))
prometheus = let(setting("prometheus"))
scrape = let(setting("objects") != "none")

defaults = {"prometheus": prometheus, "scrape": scrape, "rules": has_rules}

#: Of each object that the addon puts for the operator or for Grafana.
metadata: dict[object, Value] = {"namespace": setting("namespace"), "labels": optional(p.monitoring.labels)}


def component(name: str, condition: Expression, made: list[Value]) -> Value:
    """Objects of the addon's Application; they go when they are asked for no more."""
    return when(condition, {"name": name, "type": "k8s-objects", "properties": {"objects": made}})


components: list[Value] = [
    component("monitoring-pods", has_pod_monitor, pod_monitors(metadata, setting("interval"))),
    component("monitoring-rules", has_rules, [prometheus_rule(metadata)]),
]


def steps_before(kind: str, condition: Expression, instead: str) -> list[Value]:
    """Look whether the cluster knows objects of *kind*, and say in the addon's status what to write where it does not.

    A template of an addon can't ask the cluster, and steps of the addon's own are not there yet when it is first
    enabled, so these are KubeVela's. The step that applies everything then fails, having applied all else.
    """
    found = f"has{kind}s"
    look = {
        "name": f"look-for-{kind.lower()}s",
        "type": "read-object",
        "properties": {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "name": CRDS[kind],
        },
        "outputs": [{"name": found, "valueFrom": "[if output.$returns.err != _|_ {false}, true][0]"}],
    }
    tell = {
        "name": f"no-{kind.lower()}s",
        "type": "print-message-in-status",
        "if": f"inputs.{found} == false",
        "inputs": [{"from": found}],
        "properties": {
            "message": f"this cluster has no {kind}s ({CRDS[kind]}): install the Prometheus operator, or enable the "
            f"addon with {instead}"
        },
    }
    return [when(condition, look), when(condition, tell)]


#: Where objects of the operator are asked for; the steps that KubeVela makes by itself are enough otherwise.
workflow: dict[object, Value] = {
    when(has_pod_monitor | has_rules): {
        "workflow": {
            "steps": [
                *steps_before("PodMonitor", has_pod_monitor, "monitoring.objects=annotations"),
                *steps_before(
                    "PrometheusRule", has_rules, "monitoring.rules=false (velagen metrics rules prints them)"
                ),
                {"name": "apply", "type": "deploy", "properties": {"policies": []}},
            ]
        }
    }
}
