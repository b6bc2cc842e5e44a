"""The same rules and relabelings as objects of the Prometheus operator.

Source: prometheus-operator v0.85.0, example/prometheus-operator-crd and pkg/prometheus/promcfg.go
(generatePodMonitorConfig).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from velagen.monitoring.alerts import alerts
from velagen.monitoring.objectives import objective_rules
from velagen.monitoring.rules import Group, recording_rules, revision_rules
from velagen.monitoring.scrape import LABEL_SERVICE, Relabeling, asked_for, from_gateways, from_pods

API: Final = "monitoring.coreos.com/v1"
#: By kind, the name of its CustomResourceDefinition.
CRDS: Final = {
    "PodMonitor": "podmonitors.monitoring.coreos.com",
    "PrometheusRule": "prometheusrules.monitoring.coreos.com",
}
NAME: Final = "kfserving-models"
GATEWAYS: Final = "kfserving-gateways"
_CAMEL: Final = {"source_labels": "sourceLabels", "target_label": "targetLabel"}


def all_groups() -> tuple[Group, ...]:
    """Every rule of the addon: what is recorded, what becomes of objectives, and the alerts."""
    return (*recording_rules(), *revision_rules(), *objective_rules(), alerts())


def pod_monitors(metadata: Mapping[Any, Any], interval: object) -> list[dict[str, Any]]:
    """PodMonitors that find models and Envoy in all namespaces, as `velagen.monitoring.scrape.scrape_config` does.

    In: their metadata without name, and how often pods are asked; both may be expressions of a template.
    """
    models = {"matchExpressions": [{"key": LABEL_SERVICE, "operator": "Exists"}]}
    return [
        _pod_monitor({"name": NAME, **metadata}, models, interval, from_pods()),
        # Gateways are installed by many charts, whose pods have no label in common.
        _pod_monitor({"name": GATEWAYS, **metadata}, {}, interval, from_gateways()),
    ]


def operator_relabelings(ours: list[Relabeling]) -> list[Relabeling]:
    """Those of a plain Prometheus, in the operator's words.

    The operator adds the label container, which would make two targets of a pod with two containers, though both are
    asked at the same address: every request would count twice.
    """
    return [
        *({_CAMEL.get(key, key): value for key, value in one.items()} for one in [asked_for(), *ours]),
        {"action": "labeldrop", "regex": "container"},
    ]


def _pod_monitor(
    metadata: Mapping[Any, Any], selector: Mapping[str, Any], interval: object, relabelings: list[Relabeling]
) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "PodMonitor",
        "metadata": metadata,
        "spec": {
            "namespaceSelector": {"any": True},
            "selector": selector,
            "podMetricsEndpoints": [{"interval": interval, "relabelings": operator_relabelings(relabelings)}],
        },
    }


def groups_of(thing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of rules in a PrometheusRule, or in a ConfigMap that holds rule files."""
    if thing["kind"] == "PrometheusRule":
        return list(thing["spec"]["groups"])
    return [group for text in thing["data"].values() for group in yaml.safe_load(text)["groups"]]


def prometheus_rule(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    """All rules as one PrometheusRule. In: its metadata without name, which may hold expressions of a template."""
    return {
        "apiVersion": API,
        "kind": "PrometheusRule",
        "metadata": {"name": NAME, **metadata},
        "spec": {"groups": [group.content() for group in all_groups()]},
    }
