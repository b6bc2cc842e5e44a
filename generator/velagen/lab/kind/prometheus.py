"""Prometheus: finds pods by their annotations, at the address the addon's traits ask by themselves.

It has the rules and alerts of `velagen metrics rules`, those of the trait slo in ConfigMaps labelled `RULES`, and sends
what rings to the lab's Alertmanager.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.monitoring.objects import all_groups
from velagen.monitoring.rules import rules_file
from velagen.monitoring.scrape import asked_for, from_pods, place

#: Those of KubeVela's own addon prometheus-server, which the trait autoscale takes for its default.
NAMESPACE = "o11y-system"
NAME = "prometheus-server"
PORT = 9090
#: What the layer alerts brings: velagen.lab.kind.alerting.
ALERTMANAGER, ALERTMANAGER_PORT = "alertmanager", 9093
STATE, STATE_PORT = "kube-state-metrics", 8080
#: The label of ConfigMaps whose files it reads as rules: the trait slo puts it where its property labels says so.
RULES = {"prometheus-rules": "1"}
_FOLDER = "/rules"
#: Its volumes beside the configuration.
_OWN = ("data", "rules")
_GPUS = "velagen-gpusim"
_META = "__meta_kubernetes_pod"


def configuration(every: str = "5s") -> dict[str, Any]:
    """Give Prometheus' configuration: every running pod with ``prometheus.io/scrape: "true"``.

    Series carry ``namespace`` and ``pod``, which the addon's queries name, and a model's those of its rules.

    Args:
        every: how often pods are asked.
    """
    found = [{"role": "pod"}]

    def gpus(action: str) -> KubernetesObject:
        return {"source_labels": [f"{_META}_label_app_kubernetes_io_name"], "regex": _GPUS, "action": action}

    def state(source: str, value: str) -> KubernetesObject:
        return {"source_labels": [f"{_META}{source}"], "regex": value, "action": "keep"}

    return {
        "global": {"scrape_interval": every, "scrape_timeout": "4s", "evaluation_interval": every},
        "rule_files": ["/etc/prometheus/models.rules.yml", f"{_FOLDER}/*"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"{ALERTMANAGER}.{NAMESPACE}:{ALERTMANAGER_PORT}"]}]}]
        },
        "scrape_configs": [
            {
                "job_name": "pods",
                "kubernetes_sd_configs": found,
                "relabel_configs": [asked_for(), gpus("drop"), *from_pods()],
            },
            {
                # Its series name the pod that uses a GPU, not the pod that says so.
                "job_name": "gpus",
                "honor_labels": True,
                "kubernetes_sd_configs": found,
                "relabel_configs": [asked_for(), gpus("keep"), *place()],
            },
            {
                # So do those of kube-state-metrics.
                "job_name": STATE,
                "honor_labels": True,
                "kubernetes_sd_configs": [{**found[0], "namespaces": {"names": [NAMESPACE]}}],
                "relabel_configs": [
                    state("_label_app_kubernetes_io_name", STATE),
                    state("_container_port_number", str(STATE_PORT)),
                ],
            },
        ],
    }


def digest(*texts: str) -> str:
    """Name what a pod reads at its start: another name on the pod starts it anew."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def workload(
    name: str,
    containers: list[KubernetesObject],
    volumes: list[KubernetesObject],
    *,
    account: str = "default",
    annotations: dict[str, str] | None = None,
) -> KubernetesObject:
    """Give a Deployment of one pod that does not run as root, and that ends before the next begins."""
    labels = {"app.kubernetes.io/name": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations or {}},
                "spec": {
                    "serviceAccountName": account,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "fsGroup": 65534},
                    "containers": containers,
                    "volumes": volumes,
                },
            },
        },
    }


def _rule_files() -> KubernetesObject:
    """The container that brings it the files of labelled ConfigMaps."""
    ((label, value),) = RULES.items()
    return {
        "name": "rule-files",
        "image": recipes()["python"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", Path(__file__).with_name("rule_files.py").read_text(encoding="utf-8")],
        "args": [f"{label}={value}", _FOLDER, f"http://127.0.0.1:{PORT}/-/reload"],
        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "rules", "mountPath": _FOLDER}],
    }


def objects(node_port: int) -> list[KubernetesObject]:
    """Give Prometheus with all it needs, in the order of applying; it keeps six hours, and nothing over a restart.

    Args:
        node_port: where the nodes listen.
    """
    labels = {"app.kubernetes.io/name": NAME}
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": labels}
    rbac = "rbac.authorization.k8s.io"
    probe = {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 2, "timeoutSeconds": 3}
    container = {
        "name": "prometheus",
        "image": recipes()["prometheus"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=6h",
            # For the container beside it, which says when there are other rule files.
            "--web.enable-lifecycle",
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/prometheus", "readOnly": True},
            {"name": "data", "mountPath": "/prometheus"},
            {"name": "rules", "mountPath": _FOLDER, "readOnly": True},
        ],
    }
    volumes = [{"name": "config", "configMap": {"name": NAME}}, *({"name": one, "emptyDir": {}} for one in _OWN)]
    data = {
        "prometheus.yml": yaml.safe_dump(configuration()),
        "models.rules.yml": rules_file(all_groups()),
    }
    cluster_wide = {"name": f"velagen-{NAME}", "labels": labels}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": cluster_wide,
            "rules": [{"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": cluster_wide,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": f"velagen-{NAME}"},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": data,
        },
        workload(
            NAME,
            [container, _rule_files()],
            volumes,
            account=NAME,
            annotations={"velagen.dev/configuration": digest(*data.values())},
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "nodePort": node_port}],
            },
        },
    ]
