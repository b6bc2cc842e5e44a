"""The objects that run the simulator on each node of a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from velagen.gpusim.errors import Complaint, GpusimError
from velagen.gpusim.paths import KUBELET_FOLDER, POD_RESOURCES, STATE

NAME: Final = "velagen-gpusim"
_PORT: Final = 9400
_CONFIG: Final = "/etc/velagen-gpusim"


def manifest(
    image: str,
    *,
    namespace: str = "kube-system",
    config: str = "version: v1\n",
    gpus: Sequence[str] = ("t4x2",),
    node_selector: Mapping[str, str],
    recover: bool = False,
    beside_real_gpu: bool = False,
) -> list[dict[str, Any]]:
    """ServiceAccount, rights, configuration and DaemonSet, in the order they are applied.

    Args:
        image: an image with velagen and its command.
        namespace: where all of it lives.
        config: text of NVIDIA's configuration file.
        gpus: what each node has; see `velagen.gpusim.inventory.node_gpus`.
        node_selector: labels of the nodes that get GPUs. Some are needed: a node with real ones must not be among them.
        recover: see `velagen.gpusim.simulator.Simulator`.
        beside_real_gpu: run on nodes that see a real GPU too, as kind's do on a machine that has one.

    Raises GpusimError where no node is selected.
    """
    if not node_selector:
        raise GpusimError(Complaint("say which nodes get GPUs", hint="Label them, and select them by that label."))
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "velagen"}
    metadata = {"name": NAME, "namespace": namespace, "labels": labels}
    arguments = ["gpusim", "run", "--config", f"{_CONFIG}/config.yaml"]
    for gpu in gpus:
        arguments += ["--gpu", gpu]
    arguments += ["--metrics-host", "$(HOST_IP)", "--metrics-port", str(_PORT)]
    arguments += ["--report-url", f"http://$(HOST_IP):{_PORT}/load"]
    if recover:
        arguments.append("--recover")
    if beside_real_gpu:
        arguments.append("--beside-real-gpu")
    folders = {"plugins": KUBELET_FOLDER, "pod-resources": POD_RESOURCES.parent, "state": STATE}
    container = {
        "name": "gpusim",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["velagen"],
        "args": arguments,
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        # The kubelet's folders belong to root.
        "securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": _PORT}, "periodSeconds": 5},
        "volumeMounts": [
            *({"name": name, "mountPath": str(path)} for name, path in folders.items()),
            {"name": "config", "mountPath": _CONFIG, "readOnly": True},
        ],
    }
    pod = {
        # Pods report their load to the node's address, which needs no port mapping by the network plugin this way.
        "hostNetwork": True,
        "serviceAccountName": NAME,
        "priorityClassName": "system-node-critical",
        "nodeSelector": dict(node_selector),
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [
            *({"name": n, "hostPath": {"path": str(p), "type": "DirectoryOrCreate"}} for n, p in folders.items()),
            {"name": "config", "configMap": {"name": NAME}},
        ],
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(_PORT),
        "prometheus.io/path": "/metrics",
        # The configuration is read at the start: another one gives other pods.
        "velagen.dev/config-hash": hashlib.sha256(config.encode()).hexdigest()[:12],
    }
    rbac = "rbac.authorization.k8s.io"
    cluster_wide = {"name": NAME, "labels": labels}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": cluster_wide,
            "rules": [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": cluster_wide,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.yaml": config}},
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
            },
        },
    ]
