"""KEDA as its own manifests run it: the operator, which asks Prometheus, and the metrics server, which HPAs ask.

Its admission webhooks are left out: `config/minimal`, which upstream releases as keda-core, has none either.
"""

from __future__ import annotations

import base64

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.certs import Pair
from velagen.lab.kind.kubevela import secret
from velagen.lab.kind.upstream import kustomized, parse

NAMESPACE = "keda"
OPERATOR, ADAPTER = "keda-operator", "keda-metrics-apiserver"
#: The image of each Deployment, by recipe.
IMAGES = {OPERATOR: "keda-operator", ADAPTER: "keda-adapter"}
#: Through which HPAs reach the metrics server.
API_SERVICE = "v1beta1.external.metrics.k8s.io"
#: The Secret that both read (cmd/operator/main.go, flag cert-secret-name).
CERTIFICATE = "kedaorg-certs"
_ROTATION = "--enable-cert-rotation=true"


def served() -> list[str]:
    """Give the names that the certificate is for: both ends of every connection show it, and trust exactly it."""
    return [
        f"{service}.{NAMESPACE}.svc{domain}" for service in (ADAPTER, OPERATOR) for domain in ("", ".cluster.local")
    ]


def objects(pair: Pair) -> tuple[list[KubernetesObject], list[KubernetesObject]]:
    """Give KEDA's CRDs, and all else it needs in the order of applying.

    Args:
        pair: a certificate for the names of `served`. KEDA's own takes a minute to reach the pods, and is left out.
    """
    crds: list[KubernetesObject] = []
    things: list[KubernetesObject] = []
    for thing in parse(kustomized("keda", "config/minimal")):
        kind = thing["kind"]
        thing["metadata"].pop("creationTimestamp", None)
        if kind == "CustomResourceDefinition":
            crds.append(thing)
            continue
        if kind == "Deployment":
            _here(thing)
        elif kind == "APIService":
            thing["spec"]["caBundle"] = base64.b64encode(pair.certificate).decode()
        things.append(thing)
    own = secret(CERTIFICATE, NAMESPACE, pair)
    own["data"]["ca.crt"] = own["data"]["tls.crt"]
    # Before the pods, which mount it; the API last, since discovery asks for it from then on.
    things.sort(key=lambda thing: _ORDER.get(thing["kind"], 1))
    at = next(at for at, thing in enumerate(things) if thing["kind"] == "Deployment")
    return crds, [*things[:at], own, *things[at:]]


_ORDER = {"Namespace": 0, "Deployment": 2, "APIService": 3}


def _here(deployment: KubernetesObject) -> None:
    """Fit a Deployment of upstream's to a laptop: the pinned image, and probes that look soon and wait long."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = recipes()[IMAGES[deployment["metadata"]["name"]]].references[0]
    container["imagePullPolicy"] = "IfNotPresent"
    container["args"] = [argument for argument in container["args"] if argument != _ROTATION]
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 5}
    container["livenessProbe"] |= {"timeoutSeconds": 5, "failureThreshold": 6}
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "1000Mi"}}
