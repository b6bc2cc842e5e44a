"""KubeVela's controller and webhooks on a real cluster."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab import objects
from velagen.lab.kind.certs import Pair

#: Seconds after which KubeVela looks again at an application that has settled (KubeVela's own default is 300).
RESYNC_SECONDS = 15


NAME = "kubevela-vela-core"


_VELA_LABELS = {"app.kubernetes.io/name": "vela-core", "app.kubernetes.io/instance": "kubevela"}


WEBHOOK = "vela-core-webhook"


def vela_objects(pair: Pair, version: str) -> list[KubernetesObject]:
    """Give KubeVela's controller as its chart installs it, with the webhooks on.

    Args:
        pair: of the webhook's Service.
        version: of KubeVela.
    """
    namespace = objects.SYSTEM_NAMESPACE
    core = objects.vela_core(version)
    certificates = "/k8s-webhook-server/serving-certs"
    probe = {"periodSeconds": 2, "timeoutSeconds": 3}
    container = {
        "name": "kubevela",
        "image": f"oamdev/vela-core:v{version}",
        "imagePullPolicy": "IfNotPresent",
        "args": core.arguments(
            metrics_addr=":8080",
            health_addr=":9440",
            use_webhook=True,
            webhook_port=9443,
            webhook_cert_dir=certificates,
            system_definition_namespace=namespace,
            application_re_sync_period=f"{RESYNC_SECONDS}s",
        ),
        "env": [{"name": name, "value": value} for name, value in core.environment.items()],
        "ports": [
            {"containerPort": 9443, "name": "webhook-server"},
            {"containerPort": 9440, "name": "healthz"},
            {"containerPort": 8080, "name": "metrics"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "healthz"}, **probe},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "healthz"},
            "initialDelaySeconds": 90,
            "periodSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"mountPath": certificates, "name": "certificate", "readOnly": True}],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {**_VELA_LABELS, "controller.oam.dev/name": "vela-core"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _VELA_LABELS},
            "template": {
                "metadata": {
                    "labels": _VELA_LABELS,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": "8080",
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "containers": [container],
                    "volumes": [{"name": "certificate", "secret": {"secretName": f"{NAME}-admission"}}],
                },
            },
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{NAME}:manager-rolebinding"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        },
        secret(f"{NAME}-admission", namespace, pair),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": WEBHOOK, "namespace": namespace},
            "spec": {
                "selector": _VELA_LABELS,
                "ports": [{"name": "https", "port": 443, "targetPort": 9443, "protocol": "TCP"}],
            },
        },
        deployment,
    ]


def secret(name: str, namespace: str, pair: Pair) -> KubernetesObject:
    """Give a Secret that holds a certificate and its key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {
            "tls.crt": base64.b64encode(pair.certificate).decode(),
            "tls.key": base64.b64encode(pair.key).decode(),
        },
    }


def in_cluster(
    hooks: Iterable[KubernetesObject], service: str, namespace: str, authority: bytes
) -> list[KubernetesObject]:
    """Give webhook configurations that call a Service of the cluster instead of a process of this machine.

    Args:
        hooks: configurations whose clientConfig is a url or a service; the path is kept.
        authority: PEM of what signed the server's certificate.
    """
    found = []
    for given in hooks:
        thing = copy.deepcopy(given)
        thing["metadata"].pop("creationTimestamp", None)
        for hook in thing["webhooks"]:
            client = hook["clientConfig"]
            path = client["service"]["path"] if "service" in client else "/" + client["url"].split("/", 3)[3]
            hook["clientConfig"] = {
                "service": {"name": service, "namespace": namespace, "path": path, "port": 443},
                "caBundle": base64.b64encode(authority).decode(),
            }
        found.append(thing)
    return found
