"""Alertmanager and kube-state-metrics: alerts leave the cluster's Prometheus, and have what most of them read."""

from __future__ import annotations

import yaml

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.prometheus import (
    ALERTMANAGER,
    ALERTMANAGER_PORT,
    NAMESPACE,
    STATE,
    STATE_PORT,
    digest,
    workload,
)
from velagen.monitoring.sources import ROLLOUT_FLAG

#: Whoever wants the lab's alerts makes a Service of this name in `NAMESPACE`, with this port, that takes POST at /.
WEBHOOK = "alert-webhook"
WEBHOOK_PORT = 8080
#: What the alerts of velagen.monitoring read of kube-state-metrics, by API group.
_READ = {"": ["pods", "configmaps"], "apps": ["deployments"], "autoscaling": ["horizontalpodautoscalers"]}


def configuration() -> KubernetesObject:
    """Give Alertmanager's configuration: all alerts to one webhook, without the usual waits.

    Alertmanager's own defaults wait 30 s for more alerts of a group, and five minutes before they say that it resolved.
    """
    return {
        "route": {
            "receiver": WEBHOOK,
            "group_by": ["alertname", "namespace", "version"],
            "group_wait": "1s",
            "group_interval": "5s",
            "repeat_interval": "1h",
        },
        "receivers": [
            {
                "name": WEBHOOK,
                "webhook_configs": [{"url": f"http://{WEBHOOK}.{NAMESPACE}:{WEBHOOK_PORT}/", "send_resolved": True}],
            }
        ],
    }


def alertmanager(node_port: int) -> list[KubernetesObject]:
    """Give Alertmanager with all it needs, in the order of applying.

    Args:
        node_port: where the nodes listen.
    """
    text = yaml.safe_dump(configuration())
    container = {
        "name": "alertmanager",
        "image": recipes()["alertmanager"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--config.file=/etc/alertmanager/alertmanager.yml",
            "--storage.path=/alertmanager",
            # One alone: nobody to agree with.
            "--cluster.listen-address=",
        ],
        "ports": [{"name": "http", "containerPort": ALERTMANAGER_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/-/ready", "port": ALERTMANAGER_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 3,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/alertmanager", "readOnly": True},
            {"name": "data", "mountPath": "/alertmanager"},
        ],
    }
    volumes = [{"name": "config", "configMap": {"name": ALERTMANAGER}}, {"name": "data", "emptyDir": {}}]
    metadata = {"name": ALERTMANAGER, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"alertmanager.yml": text}},
        workload(ALERTMANAGER, [container], volumes, annotations={"velagen.dev/configuration": digest(text)}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "NodePort",
                "selector": {"app.kubernetes.io/name": ALERTMANAGER},
                "ports": [
                    {
                        "name": "http",
                        "port": ALERTMANAGER_PORT,
                        "targetPort": ALERTMANAGER_PORT,
                        "nodePort": node_port,
                    }
                ],
            },
        },
    ]


def state_metrics() -> list[KubernetesObject]:
    """Give kube-state-metrics for what alerts read, and no more, in the order of applying."""
    metadata = {"name": STATE, "namespace": NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    kinds = ",".join(kind for of_group in _READ.values() for kind in of_group)
    container = {
        "name": "kube-state-metrics",
        "image": recipes()["kube-state-metrics"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--resources={kinds}", f"--port={STATE_PORT}", ROLLOUT_FLAG],
        "ports": [{"name": "http", "containerPort": STATE_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": STATE_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 3,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
    }
    cluster_wide = {"name": f"velagen-{STATE}"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": cluster_wide,
            "rules": [
                {"apiGroups": [group], "resources": of_group, "verbs": ["list", "watch"]}
                for group, of_group in _READ.items()
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": cluster_wide,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": cluster_wide["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": STATE, "namespace": NAMESPACE}],
        },
        workload(STATE, [container], [], account=STATE),
    ]
