"""Knative Serving as its own manifests run it, with kourier for its ingress, behind the lab's gateway.

Hosts of the domain `DOMAIN` go from the gateway's Envoy to kourier's, which Knative configures: models in both modes
have one address on this machine, and no port is needed beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.gateway import GATEWAY
from velagen.lab.kind.upstream import parse
from velagen.lab.objects import KSERVE_NAMESPACE
from velagen.tools import source

NAMESPACE, KOURIER_NAMESPACE = "knative-serving", "kourier-system"
KOURIER, ENVOY = "net-kourier-controller", "3scale-kourier-gateway"
#: The image of each Deployment, by recipe, in the order of their namespaces.
IMAGES = {
    "controller": "knative-controller",
    "webhook": "knative-webhook",
    "autoscaler": "knative-autoscaler",
    "activator": "knative-activator",
    KOURIER: "kourier",
}
#: Beside every model: Knative's proxy.
PROXY = "knative-queue"
#: Of the hosts that Knative gives: NAME-predictor-NAMESPACE and this. A domain of its own: for other hosts the gateway
#: itself still says whether a model has them.
DOMAIN = "knative.example.com"
#: ConfigMaps that differ from upstream's.
_SETTINGS = {
    # One label: Contour's wildcards stand for one.
    "config-network": {
        "ingress-class": "kourier.ingress.networking.knative.dev",
        "domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}",
    },
    "config-domain": {DOMAIN: ""},
    # What the addon's rules count by (docs/monitoring.md); by itself Knative gives no metrics.
    "config-observability": {"request-metrics-protocol": "prometheus", "metrics-protocol": "prometheus"},
}
#: What a component asks the scheduler for in the lab.
_REQUESTS = {"cpu": "20m", "memory": "40Mi"}
_SKIPPED = {
    # They need cert-manager, or Kubernetes' metrics server; a node of the lab has one of each Deployment.
    "Certificate",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
}


def crds() -> list[KubernetesObject]:
    """Give the CRDs of Serving, and of the two modules that it keeps its images and routes in."""
    folders = (
        source("knative") / "config/core/300-resources",
        source("knative-networking") / "config",
        source("knative-caching") / "config",
    )
    return [thing for folder in folders for thing in _read(folder) if thing["kind"] == "CustomResourceDefinition"]


def objects(envoy: str) -> tuple[list[KubernetesObject], list[KubernetesObject]]:
    """Give what Serving and kourier need, in the order of applying, and what their webhooks must be up for.

    Args:
        envoy: reference of Envoy's image.
    """
    serving = source("knative") / "config/core"
    things = [
        *_read(serving),
        *_read(serving / "200-roles"),
        *_read(serving / "configmaps"),
        *(thing for thing in _read(source("knative-networking") / "config") if thing["kind"] == "ConfigMap"),
        *_read(serving / "webhooks"),
        *_read(serving / "deployments"),
        *_read(source("kourier") / "config"),
    ]
    things = [thing for thing in things if thing["kind"] not in _SKIPPED]
    for thing in things:
        if thing["kind"] == "ConfigMap":
            _set(thing)
        elif thing["kind"] == "Deployment":
            _fit(thing, envoy)
        elif thing["kind"] == "Image":
            thing["spec"]["image"] = _reference(PROXY)
        elif thing["kind"] == "Service" and thing["spec"].get("type") == "LoadBalancer":
            # Nothing here gives addresses; the way in is the lab's gateway.
            thing["spec"]["type"] = "ClusterIP"
    # Stable: within a kind upstream's order stays.
    things.sort(key=lambda thing: _ORDER.get(thing["kind"], 1))
    late = [thing for thing in things if thing["kind"] == "Image"]
    return [thing for thing in things if thing["kind"] != "Image"], [*late, _way_in()]


#: Webhooks before the program that gives them their certificate and rules; it does so for those that are there.
_ORDER = {"Namespace": 0, "MutatingWebhookConfiguration": 2, "ValidatingWebhookConfiguration": 2, "Deployment": 3}


def _read(folder: Path) -> Iterator[KubernetesObject]:
    for path in sorted(folder.glob("*.yaml")):
        yield from parse(path.read_text())


def _reference(recipe: str) -> str:
    return recipes()[recipe].references[0]


def _set(config: KubernetesObject) -> None:
    """Leave a ConfigMap's long example out, and write what the lab has otherwise."""
    data = config.setdefault("data", {})
    data.pop("_example", None)
    config["metadata"].get("annotations", {}).pop("knative.dev/example-checksum", None)
    name = config["metadata"]["name"]
    data.update(_SETTINGS.get(name, {}))
    if name == "config-deployment":
        data["queue-sidecar-image"] = _reference(PROXY)
        # The nodes have the lab's images, and a registry may not: Knative would ask it for each image's digest.
        data["registries-skipping-tag-resolving"] = ",".join(hosts())


def hosts() -> list[str]:
    """Give the registries that the lab's images are named after, as Knative calls them."""
    named = {reference.partition("/")[0] for recipe in recipes().images.values() for reference in recipe.references}
    return sorted({name if "." in name and name != "docker.io" else "index.docker.io" for name in named})


def _fit(deployment: KubernetesObject, envoy: str) -> None:
    """Fit a Deployment of upstream's to a laptop: the pinned image, small requests, probes that wait long."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name = deployment["metadata"]["name"]
    container["image"] = envoy if name == ENVOY else _reference(IMAGES[name])
    if name == ENVOY:
        # It calls curl, which the lab's Envoy and the distroless one come without.
        container.pop("lifecycle", None)
    container["imagePullPolicy"] = "IfNotPresent"
    container["resources"] = {"requests": _REQUESTS, "limits": {"memory": "1Gi"}}
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 5}
    container["livenessProbe"] |= {"timeoutSeconds": 5, "failureThreshold": 12}


def _way_in() -> KubernetesObject:
    """The route from the lab's gateway to kourier; a model may take as long as Knative gives it."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "knative", "namespace": KOURIER_NAMESPACE},
        "spec": {
            "parentRefs": [{"name": GATEWAY, "namespace": KSERVE_NAMESPACE}],
            "hostnames": [f"*.{DOMAIN}"],
            "rules": [{"backendRefs": [{"name": "kourier", "port": 80}], "timeouts": {"request": "0s"}}],
        },
    }
