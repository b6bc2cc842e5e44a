"""metrics-server as its own manifests run it: the CPU of pods, for Kubernetes' autoscaler and KEDA's trigger cpu."""

from __future__ import annotations

import yaml

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.upstream import kustomized

NAMESPACE = "kube-system"
NAME = IMAGE = "metrics-server"
#: Through which autoscalers reach it.
API_SERVICE = "v1beta1.metrics.k8s.io"
#: The kubelets of a kind cluster show certificates that nobody has signed.
_SELF_SIGNED = "--kubelet-insecure-tls"


def objects() -> list[KubernetesObject]:
    """Give all it needs, in the order of applying: the API last, since discovery asks for it from then on."""
    things = list(yaml.safe_load_all(kustomized("metrics-server", "manifests/base")))
    for thing in things:
        if thing["kind"] == "Deployment":
            _here(thing)
    return sorted(things, key=lambda thing: _ORDER.get(thing["kind"], 0))


_ORDER = {"Deployment": 1, "APIService": 2}


def _here(deployment: KubernetesObject) -> None:
    """Fit upstream's Deployment to a laptop: the pinned image, and a probe that looks soon."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = recipes()[IMAGE].references[0]
    container["args"] = [*container["args"], _SELF_SIGNED]
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 5}
    container["livenessProbe"] |= {"timeoutSeconds": 5, "failureThreshold": 6}
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
