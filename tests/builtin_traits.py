"""KubeVela's own traits as a user would write them, with what each does on a component kfserving.

The end: ``refused`` when it is rendered, with the component's sentence; ``fails`` when it is rendered, in words of its
own; ``silent``: taken, and nothing of it reaches the InferenceService; ``beside``: taken, and what it makes goes past
transformer and canary; ``breaks``: taken, and the application never runs; ``works``. docs/builtin-traits.md tells it.
"""

from __future__ import annotations

from typing import Any

_HTTP = {"domain": "a.example.com", "http": {"/": 80}}
_VOLUMES = [{"name": "a", "mountPath": "/a"}]

TRAITS: dict[str, tuple[dict[str, Any], str]] = {
    "affinity": ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, "refused"),
    "annotations": ({"a": "b"}, "works"),
    "command": ({"addArgs": ["--verbose"]}, "fails"),
    "configmap": ({"volumes": _VOLUMES}, "refused"),
    "container-image": ({"image": "registry.example.com/a:1"}, "fails"),
    "container-ports": ({"ports": [{"containerPort": 81}]}, "fails"),
    "cpuscaler": ({"max": 3}, "silent"),
    "env": ({"env": {"a": "b"}}, "fails"),
    "expose": ({"port": [80]}, "beside"),
    "gateway": (_HTTP, "beside"),
    "hostalias": ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}, "refused"),
    "hpa": ({"cpu": {"value": 50}, "max": 3}, "silent"),
    "ingress": (_HTTP, "breaks"),
    "ingress-1-20": (_HTTP, "beside"),
    "init-container": (
        {"name": "a", "image": "registry.example.com/a:1", "appMountPath": "/a", "initMountPath": "/b"},
        "refused",
    ),
    "json-merge-patch": ({"spec": {"predictor": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}}}, "works"),
    "json-patch": ({"operations": [{"op": "add", "path": "/spec/predictor/priorityClassName", "value": "a"}]}, "works"),
    "k8s-update-strategy": ({"strategy": {"type": "Recreate"}}, "silent"),
    "labels": ({"a": "b"}, "works"),
    "lifecycle": ({"preStop": {"exec": {"command": ["sleep", "1"]}}}, "refused"),
    "nocalhost": ({"port": 80, "image": "python"}, "beside"),
    "node-affinity": ({"affinity": {"zone": ["a"]}}, "refused"),
    "podsecuritycontext": ({"runAsUser": 1000}, "refused"),
    "pure-ingress": (_HTTP, "breaks"),
    "pvc": ({"claimName": "a", "volumesToMount": _VOLUMES}, "refused"),
    "resource": ({"cpu": "1", "memory": "1Gi"}, "silent"),
    "scaler": ({"replicas": 3}, "silent"),
    "securitycontext": ({"runAsUser": 1000}, "fails"),
    "service-account": ({"name": "a"}, "refused"),
    "service-binding": ({"envMappings": {"A": {"secret": "a", "key": "b"}}}, "refused"),
    "sidecar": ({"name": "a", "image": "registry.example.com/a:1"}, "refused"),
    "startup-probe": ({"httpGet": {"path": "/", "port": 80}}, "fails"),
    "storage": ({"emptyDir": [{"name": "a", "mountPath": "/a"}]}, "refused"),
    "topologyspreadconstraints": (
        {"constraints": [{"maxSkew": 1, "topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]},
        "refused",
    ),
    "volumes": ({"emptyDir": [{"name": "a", "mountPath": "/a"}]}, "refused"),
}
