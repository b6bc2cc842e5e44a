"""A scheduler that packs GPUs, beside the cluster's own: what the addon's parameter scheduler installs.

Kubernetes' default scoring looks at processors and memory and takes the emptiest node, so models lie over all GPU
nodes and none is left whole. This one is the same kube-scheduler, told to take the node whose GPUs are fullest; models
that name it (pod.schedulerName) go by it, all other pods by the cluster's own.

Sources, all Kubernetes: pkg/scheduler/framework/plugins/noderesources/most_allocated.go, resource_allocation.go (what
a pod does not ask for does not count), pkg/scheduler/schedule_one.go (percentageOfNodesToScore: half of the nodes or
fewer by default), apis/config/v1/default_plugins.go (weights), plugin/pkg/auth/authorizer/rbac/bootstrappolicy/
policy.go (the roles; the scheduler's own lease is the only one that they let be updated).
"""

from __future__ import annotations

from _monitoring import component

from velagen import first_given, given, let, sha256, to_yaml
from velagen import parameter as p
from velagen.gpu.parts import MIG_PROFILES, SHARED, WHOLE
from velagen.template.expression import Value

NAMESPACE = "kube-system"
PORT = 10259

#: The schema's own default does not hold where nothing of the scheduler is written.
name = let(first_given(p.scheduler.name, "gpu-binpack"), name="packingScheduler")
#: Of its objects, and of its lease; NAME alone could be that of the cluster's own.
full_name = let(f"kfserving-{name}", name="schedulerFullName")

#: What pods ask GPUs by: whole ones, equal parts, MIG's.
RESOURCES = [
    WHOLE,
    SHARED,
    *sorted({f"nvidia.com/mig-{profile}" for profiles in MIG_PROFILES.values() for profile in profiles.values()}),
]

configuration = let(
    to_yaml(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": True, "resourceName": full_name, "resourceNamespace": NAMESPACE},
            # The fullest node is found only where all are looked at.
            "percentageOfNodesToScore": 100,
            "profiles": [
                {
                    "schedulerName": name,
                    "plugins": {
                        # It would rather have processors and memory used alike than GPUs full.
                        "score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}
                    },
                    "pluginConfig": [
                        {
                            "name": "NodeResourcesFit",
                            "args": {
                                "scoringStrategy": {
                                    "type": "MostAllocated",
                                    "resources": [{"name": one, "weight": 1} for one in RESOURCES],
                                }
                            },
                        }
                    ],
                }
            ],
        }
    ),
    name="schedulerConfiguration",
)

LABELS = {"app.kubernetes.io/name": "kfserving-scheduler", "app.kubernetes.io/instance": full_name}
about = {"name": full_name, "namespace": NAMESPACE, "labels": LABELS}
subjects = [{"kind": "ServiceAccount", "name": full_name, "namespace": NAMESPACE}]
_RBAC = "rbac.authorization.k8s.io"


def bound(kind: str, suffix: str, role: Value, *, to: str = "ClusterRole") -> Value:
    """A binding of the scheduler's account to a role."""
    own = {"name": f"{full_name}{suffix}", "labels": LABELS}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": own if kind == "ClusterRoleBinding" else {**own, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": _RBAC, "kind": to, "name": role},
        "subjects": subjects,
    }


def probe(path: str, **more: int) -> Value:
    """Asks the scheduler how it is, which it tells without a token."""
    return {"httpGet": {"path": path, "port": PORT, "scheme": "HTTPS"}, **more}


deployment = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": about,
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {
            "metadata": {
                "labels": LABELS,
                # It reads its configuration once.
                "annotations": {"kfserving/configuration": sha256(configuration)},
            },
            "spec": {
                "serviceAccountName": full_name,
                "priorityClassName": "system-cluster-critical",
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65534,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "kube-scheduler",
                        "image": p.scheduler.image,
                        "command": ["kube-scheduler", "--config=/etc/kfserving/config.yaml", f"--secure-port={PORT}"],
                        "livenessProbe": probe("/healthz", initialDelaySeconds=15),
                        "readinessProbe": probe("/healthz"),
                        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/kfserving", "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "config", "configMap": {"name": full_name}}],
            },
        },
    },
}

objects: list[Value] = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": about,
        "data": {"config.yaml": configuration},
    },
    # What a scheduler may is Kubernetes' own to say, in the cluster's own version.
    bound("ClusterRoleBinding", "", "system:kube-scheduler"),
    bound("ClusterRoleBinding", "-volumes", "system:volume-scheduler"),
    bound("RoleBinding", "-authentication", "extension-apiserver-authentication-reader", to="Role"),
    {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": about,
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [full_name],
                "verbs": ["get", "update"],
            }
        ],
    },
    bound("RoleBinding", "", full_name, to="Role"),
    deployment,
]

components: list[Value] = [component("scheduler", given(p.scheduler), objects)]
