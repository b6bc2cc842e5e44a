"""The object store that a kind lab's models are kept in."""

from __future__ import annotations

import copy
from pathlib import Path

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.options import NODE_PORTS

STORE_NAMESPACE = "model-store"


#: On the nodes: a folder for each bucket of the object store, which begins with what is in it.
SEED = "/kind/store"


def store_objects(holds: str = "") -> list[KubernetesObject]:
    """Give an S3 server for models: ``s3://models`` in the cluster, ``models`` of `NODE_PORTS` on this machine.

    Args:
        holds: names what `SEED` on the nodes holds; another name starts the server anew.
    """
    namespace = STORE_NAMESPACE
    labels = {"app": "object-store"}
    probe = {"httpGet": {"path": "/moto-api/", "port": 5000}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = {
        "name": "server",
        "image": recipes()["object-store"].references[0],
        "imagePullPolicy": "IfNotPresent",
        # It forgets all when it ends: each start begins with what the node has.
        "command": ["python", "-c", Path(__file__).with_name("store.py").read_text(), "/seed"],
        "args": ["-H", "0.0.0.0", "-p", "5000"],
        "volumeMounts": [{"name": "seed", "mountPath": "/seed", "readOnly": True}],
        # Without it the first part of the Service's name would be taken for a bucket.
        "env": [{"name": "S3_IGNORE_SUBDOMAIN_BUCKETNAME", "value": "true"}],
        "ports": [{"containerPort": 5000, "name": "s3"}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "object-store", "namespace": namespace},
            "spec": {
                "replicas": 1,
                # It keeps everything in memory: two of them would hold different things.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": {"velagen.dev/holds": holds}},
                    "spec": {
                        "containers": [container],
                        "volumes": [{"name": "seed", "hostPath": {"path": SEED, "type": "DirectoryOrCreate"}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "object-store", "namespace": namespace},
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"name": "s3", "port": 5000, "targetPort": 5000, "nodePort": NODE_PORTS["models"]}],
            },
        },
    ]


def with_store(container: KubernetesObject) -> KubernetesObject:
    """Give a ClusterStorageContainer that finds the lab's S3 server, so that an application needs no secret."""
    thing = copy.deepcopy(container)
    env = {
        "AWS_ENDPOINT_URL": f"http://object-store.{STORE_NAMESPACE}:5000",
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_USE_HTTPS": "0",
    }
    thing["spec"]["container"]["env"] = [{"name": name, "value": value} for name, value in env.items()]
    return thing
