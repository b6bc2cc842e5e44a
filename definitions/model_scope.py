"""The policy model-scope: what bounds an application, which OAM once called an ApplicationScope.

Its objects belong to the application and go with it. So the policy never writes the namespace that the application
itself lies in, which would be deleted with it; the labels by which pods join a mesh are a namespace's, so membership
needs a namespace of the application's own.

Sources: Kubernetes ResourceQuota (object count quota, extended resources), istio.io sidecar injection and ambient mode,
linkerd.io proxy injection.
"""

from __future__ import annotations

from _kserve import is_rendered

from velagen import Policy, choose, comment, context, given, if_else, missing, optional, refuse, when
from velagen import parameter as p

#: Istio reads labels of the namespace, Linkerd an annotation.
MESH_LABELS = {
    "istio-sidecar": {"istio-injection": "enabled"},
    "istio-ambient": {"istio.io/dataplane-mode": "ambient"},
    "none": {"istio-injection": "disabled", "istio.io/dataplane-mode": "none"},
}
MESH_ANNOTATIONS = {"linkerd": {"linkerd.io/inject": "enabled"}, "none": {"linkerd.io/inject": "disabled"}}

namespace = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": p.namespace,
        when(given(p.mesh)): {
            "labels": choose(p.mesh, MESH_LABELS, {}),
            "annotations": choose(p.mesh, MESH_ANNOTATIONS, {}),
        },
    },
}
quota = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": f"{context.appName}-{context.name}", "namespace": context.namespace},
    "spec": {
        "hard": comment(
            "Not beside the namespace: KubeVela tries all objects of the policies before it makes any, and a quota "
            "in a namespace that is yet to be made fails then.",
            {
                "requests.cpu": optional(p.quota.cpu),
                "requests.memory": optional(p.quota.memory),
                when(given(p.quota.gpus)): {"requests.nvidia.com/gpu": f"{p.quota.gpus}"},
                when(given(p.quota.sharedGpus)): {"requests.nvidia.com/gpu.shared": f"{p.quota.sharedGpus}"},
                when(given(p.quota.pods)): {"pods": f"{p.quota.pods}"},
                when(given(p.quota.models)): {"count/inferenceservices.serving.kserve.io": f"{p.quota.models}"},
            },
        )
    },
}

model_scope = Policy(
    name="model-scope",
    description="Bounds an application: a namespace of its own, membership in a mesh, and a quota.",
    output=if_else(given(p.namespace), namespace, quota),
    checks=[
        refuse(
            given(p.namespace) & (p.namespace == context.namespace),
            "namespace may not be the one the application lies in, which would be deleted with it: leave namespace "
            "out, or name another one and place the components there by a policy of type topology",
        ),
        refuse(
            given(p.namespace) & given(p.quota),
            "quota bounds the namespace the application lies in, and can't be had together with namespace, which is "
            "made with the application: drop namespace, or put the quota on an application that lies in it",
        ),
        refuse(
            given(p.mesh) & missing(p.namespace),
            "mesh needs namespace: pods join a mesh by their namespace's labels, and the application may label "
            "only a namespace of its own",
        ),
        refuse(
            is_rendered & missing(p.namespace) & missing(p.mesh) & missing(p.quota),
            "nothing is bounded: write namespace, mesh or quota",
        ),
    ],
)
