"""How Prometheus finds models, and how app, component, version and part get onto their series.

KubeVela labels an InferenceService with its application and component; KServe copies these onto the pods beside its own
name and part (kserve v0.20.0 pkg/controller/v1beta1/inferenceservice/components/predictor.go, getPredictorObjectMeta).
Relabeling makes labels of the target of them, so every series of the pod has them, ``up`` included; a server's own
label of that name is kept as ``exported_version`` and so on, as honor_labels is off.
"""

from __future__ import annotations

import re
from typing import Any, Final

from velagen.errors import Problem, VelagenError

#: What KubeVela puts on all that it makes of an application, and KServe on all that it makes of an InferenceService.
LABEL_APP: Final = "app.oam.dev/name"
LABEL_COMPONENT: Final = "app.oam.dev/component"
LABEL_SERVICE: Final = "serving.kserve.io/inferenceservice"
#: Pod label -> label of its series. The InferenceService's name tells two versions apart: the one that the trait canary
#: makes has the same application and component.
LABELS: Final = {
    LABEL_APP: "app",
    LABEL_COMPONENT: "component",
    LABEL_SERVICE: "version",
    "component": "part",
}
#: In seconds: a rate over a minute needs four looks in it, so that one may fail.
SLOWEST: Final = 15.0
_META: Final = "__meta_kubernetes_pod"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Relabeling = dict[str, Any]


def from_pods() -> list[Relabeling]:
    """Relabelings of a scrape configuration with ``role: pod``: where a pod's metrics are, and whose they are."""
    return [*place(), *_names(), *model_labels()]


def from_gateways() -> list[Relabeling]:
    """Relabelings for gateways' pods, which are annotated by who makes them: they count what clients sent.

    Envoy of Contour and of Envoy Gateway, and Istio's proxy where it is a gateway and no sidecar: a model's pod is
    asked as such.

    Sources: projectcontour/contour v1.33 examples/contour/03-envoy.yaml; envoyproxy/gateway v1.9.1
    internal/infrastructure/kubernetes/proxy/resource_provider.go; istio manifests/charts/istio-control/istio-discovery/
    files/kube-gateway.yaml (Gateway API) and manifests/charts/gateway (label istio).
    """
    labels = ("container_name", "label_gateway_networking_k8s_io_gateway_name", "label_istio")
    return [
        {
            "source_labels": [f"{_META}_{label}" for label in labels],
            "regex": "envoy;.*|istio-proxy;[^;]+;.*|istio-proxy;;.*gateway",
            "action": "keep",
        },
        *place(),
        *_names(),
    ]


def model_labels() -> list[Relabeling]:
    """Relabelings that put :data:`LABELS` on the series of a model's pods, and leave other pods alone."""
    kserve = f"{_META}_label_serving_kserve_io_inferenceservice"
    return [
        {
            # Without KServe's label no pod is a model's, whatever else it is called.
            "source_labels": [kserve, f"{_META}_label_{re.sub('[^a-zA-Z0-9_]', '_', label)}"],
            "regex": "[^;]+;(.+)",
            "target_label": target,
        }
        for label, target in LABELS.items()
    ]


def asked_for() -> Relabeling:
    """Keeps the pods that are annotated for it, as the component kfserving annotates its own."""
    return {"source_labels": [f"{_META}_annotation_prometheus_io_scrape"], "regex": "true", "action": "keep"}


def exporters() -> dict[str, list[Relabeling]]:
    """Relabelings that find DCGM's exporter and kube-state-metrics by their pods' labels and ports.

    Sources: NVIDIA/dcgm-exporter deployment/templates/daemonset.yaml and values.yaml, NVIDIA/gpu-operator
    assets/state-dcgm-exporter/0800_daemonset.yaml, kubernetes/kube-state-metrics examples/standard/deployment.yaml.
    """

    def found(names: str, port: int) -> list[Relabeling]:
        labels = [f"{_META}_label_app_kubernetes_io_name", f"{_META}_label_app"]
        return [
            {"source_labels": labels, "regex": names, "action": "keep"},
            {"source_labels": [f"{_META}_container_port_number"], "regex": str(port), "action": "keep"},
            {"source_labels": [f"{_META}_phase"], "regex": "Pending|Succeeded|Failed", "action": "drop"},
        ]

    return {
        "gpus": found("dcgm-exporter;.*|.*;nvidia-dcgm-exporter", 9400),
        "cluster-state": found("kube-state-metrics;.*", 8080),
    }


def scrape_config(interval: str = "15s", *, with_exporters: bool = False) -> list[dict[str, Any]]:
    """The entries of ``scrape_configs`` for a plain Prometheus: the models, and the gateway's Envoy.

    Args:
        interval: how often pods are asked, as Prometheus writes durations.
        with_exporters: also those of GPUs and of the cluster's state, whose series name the pods they are about.

    Raises VelagenError where it is not a duration, or too long for the rules' windows.
    """
    found = re.fullmatch(r"([1-9][0-9]*)(ms|s|m|h)", interval)
    if found is None:
        raise VelagenError(Problem(f"{interval!r} is not a duration of Prometheus: write 15s"))
    if int(found[1]) * _UNITS[found[2]] > SLOWEST:
        raise VelagenError(
            Problem(
                f"a scrape interval of {interval} is too long for rates over one minute: "
                f"write {SLOWEST:.0f}s or less, so that four looks fall into each minute"
            )
        )
    models = [
        asked_for(),
        {
            "source_labels": [f"{_META}_label_serving_kserve_io_inferenceservice"],
            "regex": ".+",
            "action": "keep",
        },
        *from_pods(),
    ]
    others = exporters() if with_exporters else {}
    return [
        _job("models", interval, models),
        _job("gateways", interval, [asked_for(), *from_gateways()]),
        *({**_job(name, interval, relabelings), "honor_labels": True} for name, relabelings in others.items()),
    ]


def place() -> list[Relabeling]:
    """Relabelings for where a pod's metrics are, by its annotations; no pod that has ended, and none twice."""
    return [
        {
            "source_labels": [f"{_META}_ip", f"{_META}_annotation_prometheus_io_port"],
            "regex": r"([^;]+);(\d+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
        {
            "source_labels": [f"{_META}_annotation_prometheus_io_path"],
            "regex": "(.+)",
            "target_label": "__metrics_path__",
        },
        {"source_labels": [f"{_META}_phase"], "regex": "Pending|Succeeded|Failed", "action": "drop"},
        # A pod has a target for each of its ports; the annotation names one, so they are all the same one.
        {"source_labels": [f"{_META}_container_init"], "regex": "true", "action": "drop"},
    ]


def _names() -> list[Relabeling]:
    return [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_META}_name"], "target_label": "pod"},
    ]


def _job(name: str, interval: str, relabelings: list[Relabeling]) -> dict[str, Any]:
    return {
        "job_name": name,
        "scrape_interval": interval,
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": relabelings,
    }
