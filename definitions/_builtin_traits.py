"""KubeVela's own traits that are not for an InferenceService, and what to write instead.

They are made for a Deployment: they write spec.template, look for a Deployment of the component's name, or select pods
by the component's label. An InferenceService has no spec.template, the API server drops it; KServe calls its Deployment
NAME-predictor; and the label is on the transformer's pods and the canary's too. labels, annotations, json-patch and
json-merge-patch work on any object.

Source: kubevela vela-templates/definitions/internal/trait and the traits of its chart; each was tried on the embedded
lab (tests/e2e/test_builtin_traits.py), the table for users is docs/builtin-traits.md.
"""

from __future__ import annotations

#: What a trait is told that writes a pod template, by KubeVela itself.
NO_TEMPLATE = (
    "this trait writes spec.template, the pods of a Deployment, and a model has none: nothing of it would reach the "
    "model's pods; velagen check and docs/builtin-traits.md say what to write instead"
)


def _pod(field: str) -> str:
    return f"write pod.{field} of the component"


def _container(field: str) -> str:
    return f"write the trait json-merge-patch: {{spec: {{predictor: {{model: {{{field}: …}}}}}}}}"


_ROUTE = (
    "KServe opens the model's address itself (vela status shows it); for a name of your own write a route to the "
    "Service NAME-predictor (NAME-transformer where there is one), port 80, in a component of type k8s-objects"
)
_ALL_PODS = f"it sends to all pods of the model alike, past transformer and canary; {_ROUTE}"
_OLD_INGRESS = f"it writes an Ingress of a version that Kubernetes has dropped in 1.22; {_ROUTE}"
_SCALING = "write the trait autoscale, which knows the Deployment's name"
_VOLUMES = (
    "for a model on a volume write modelUri: pvc://CLAIM/PATH; for another volume write pod.volumes and "
    "pod.volumeMounts of the component"
)

INSTEAD_OF = {
    "affinity": "write nodeSelector, tolerations or pod.affinity of the component",
    "command": f"write args of the component, which are added to the server's own, or {_container('command')}",
    "configmap": _VOLUMES,
    "container-image": "write runtimeVersion of the component (the image's tag), or servingRuntime for another image",
    "container-ports": "write protocol: rest, grpc or both of the component, which opens the server's ports",
    "cpuscaler": _SCALING,
    "env": "write env of the component",
    "expose": "its Service sends to all pods of the model alike, past transformer and canary; KServe makes one for "
    "each part, NAME-predictor and NAME-transformer: drop the trait",
    "gateway": _ALL_PODS,
    "hostalias": _pod("hostAliases"),
    "hpa": _SCALING,
    "ingress": _OLD_INGRESS,
    "ingress-1-20": _ALL_PODS,
    "init-container": _pod("initContainers"),
    "k8s-update-strategy": "write rollout of the component (surge, in-place or recreate)",
    "lifecycle": _container("lifecycle"),
    "nocalhost": "it is for a program that is being written, and a model server is not: drop the trait",
    "node-affinity": "write nodeSelector or pod.affinity of the component",
    "podsecuritycontext": _pod("securityContext"),
    "pure-ingress": _OLD_INGRESS,
    "pvc": _VOLUMES,
    "resource": "write resources of the component",
    "scaler": "write minReplicas of the component, or the trait autoscale",
    "securitycontext": "write runAsUser, pod.security or pod.containerSecurityContext of the component",
    "service-account": "write serviceAccount of the component",
    "service-binding": "write env of the component with valueFrom: {secretKeyRef: {name: …, key: …}}",
    "sidecar": _pod("sidecars"),
    "startup-probe": f"write warmup or readiness of the component, or {_container('startupProbe')}",
    "storage": _VOLUMES,
    "topologyspreadconstraints": "write pod.spread or pod.topologySpreadConstraints of the component",
    "volumes": _VOLUMES,
}
