"""KServe's controller, webhooks and runtimes on a real cluster."""

from __future__ import annotations

import copy
import json
from typing import Any

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab import objects
from velagen.lab.api import Api
from velagen.lab.kind.certs import Pair
from velagen.lab.kind.kubevela import in_cluster, secret
from velagen.lab.kind.upstream import parse
from velagen.tools import table

_KSERVE_CERT = "kserve-webhook-server-cert"


def pinned(thing: Any) -> Any:
    """Give an object with KServe's own images at the release, where upstream's sources say ``latest``.

    A tag ``latest`` would be asked of a registry at every start, and mean something else tomorrow.
    """
    version = next(row.version for row in table().sources if row.name == "kserve")
    if isinstance(thing, dict):
        return {key: pinned(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return [pinned(value) for value in thing]
    if isinstance(thing, str) and "kserve/" in thing and ":latest" in thing:
        # In a ConfigMap the reference is inside a JSON text.
        head = thing.split(":latest")
        return f":{version}".join(head)
    return thing


def kserve_objects(text: str, pair: Pair) -> tuple[list[KubernetesObject], list[KubernetesObject]]:
    """Give KServe's controller as upstream's kustomization has it, and its webhooks.

    Left out: the CRDs, which are applied before; cert-manager's certificate, whose place `pair` takes; and the proxy
    before the metrics, which are read inside the cluster only.

    Args:
        text: what ``kubectl kustomize config/default`` prints.
    """
    things: list[KubernetesObject] = []
    hooks: list[KubernetesObject] = []
    namespace = objects.KSERVE_NAMESPACE
    for thing in parse(text):
        kind = (thing or {}).get("kind")
        if kind in {None, "CustomResourceDefinition", "Certificate", "Issuer"}:
            continue
        thing["metadata"].pop("creationTimestamp", None)
        if kind.endswith("WebhookConfiguration"):
            thing["metadata"].get("annotations", {}).pop("cert-manager.io/inject-ca-from", None)
            hooks += in_cluster([thing], "kserve-webhook-server-service", namespace, pair.certificate)
            continue
        if kind == "Deployment":
            _trim(thing)
        things.append(pinned(thing))
    return [*things, secret(_KSERVE_CERT, namespace, pair)], hooks


def _trim(deployment: KubernetesObject) -> None:
    pod = deployment["spec"]["template"]
    containers = [entry for entry in pod["spec"]["containers"] if entry["name"] == "manager"]
    pod["spec"]["containers"] = containers
    (manager,) = containers
    manager["imagePullPolicy"] = "IfNotPresent"
    manager["args"] = ["--metrics-addr=:8080", "--leader-elect"]
    # A tenth of a core, upstream's limit, makes a start take minutes on a busy machine.
    manager["resources"] = {"requests": {"cpu": "50m", "memory": "200Mi"}, "limits": {"memory": "1Gi"}}
    manager["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    pod["metadata"].setdefault("annotations", {}).update(
        {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    )


#: What a server, and what fetches its model before, ask the scheduler for in the lab; a pod reserves the larger of the
#: two for as long as it lives. Upstream's whole core each would leave no room for a second model on a laptop. The
#: limits stay upstream's.
_SERVER = {"cpu": "100m", "memory": "128Mi"}
_FETCHER = {"cpu": "20m", "memory": "100Mi"}


def light(thing: KubernetesObject) -> KubernetesObject:
    """Give a runtime, or a storage container, whose containers reserve little; other objects as they are."""
    thing = copy.deepcopy(thing)
    if thing["kind"] == "ClusterServingRuntime":
        for container in thing["spec"]["containers"]:
            container.setdefault("resources", {})["requests"] = dict(_SERVER)
    if thing["kind"] == "ClusterStorageContainer":
        thing["spec"]["container"].setdefault("resources", {})["requests"] = dict(_FETCHER)
    return thing


def config_of(api: Api) -> dict[str, Any]:
    """Give KServe's configuration, its JSON texts parsed."""
    thing = api.get("v1", "ConfigMap", "inferenceservice-config", objects.KSERVE_NAMESPACE) or {"data": {}}
    return {key: json.loads(value) for key, value in thing["data"].items() if value.lstrip().startswith("{")}
