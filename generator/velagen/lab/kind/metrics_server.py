"""metrics-server as its own manifests run it: the CPU of pods, for Kubernetes' autoscaler and KEDA's trigger cpu."""

from __future__ import annotations

import base64

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.certs import Pair
from velagen.lab.kind.kubevela import secret
from velagen.lab.kind.upstream import kustomized, parse

NAMESPACE = "kube-system"
NAME = IMAGE = "metrics-server"
#: The Secret that its pod reads.
CERTIFICATE = "metrics-server-certs"
_MOUNTED = "/certs"
#: Through which autoscalers reach it.
API_SERVICE = "v1beta1.metrics.k8s.io"
#: The kubelets of a kind cluster show certificates that nobody has signed.
_SELF_SIGNED = "--kubelet-insecure-tls"


def served() -> list[str]:
    """Give the name by which the API server reaches it."""
    return [f"{NAME}.{NAMESPACE}.svc"]


def objects(pair: Pair) -> list[KubernetesObject]:
    """Give all it needs, in the order of applying: the API last, since discovery asks for it from then on.

    Args:
        pair: a certificate for the name of `served`; upstream has the API server trust whoever answers.
    """
    things = parse(kustomized("metrics-server", "manifests/base"))
    for thing in things:
        if thing["kind"] == "Deployment":
            _here(thing)
        elif thing["kind"] == "APIService":
            del thing["spec"]["insecureSkipTLSVerify"]
            thing["spec"]["caBundle"] = base64.b64encode(pair.certificate).decode()
    things.append(secret(CERTIFICATE, NAMESPACE, pair))
    return sorted(things, key=lambda thing: _ORDER.get(thing["kind"], 0))


_ORDER = {"Deployment": 1, "APIService": 2}


def _here(deployment: KubernetesObject) -> None:
    """Fit upstream's Deployment to a laptop: the pinned image, its certificate, and a probe that looks soon."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pod["volumes"].append({"name": "certs", "secret": {"secretName": CERTIFICATE}})
    container["volumeMounts"].append({"name": "certs", "mountPath": _MOUNTED, "readOnly": True})
    container["image"] = recipes()[IMAGE].references[0]
    container["args"] = [
        *container["args"],
        f"--tls-cert-file={_MOUNTED}/tls.crt",
        f"--tls-private-key-file={_MOUNTED}/tls.key",
        _SELF_SIGNED,
    ]
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 5}
    container["livenessProbe"] |= {"timeoutSeconds": 5, "failureThreshold": 6}
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
