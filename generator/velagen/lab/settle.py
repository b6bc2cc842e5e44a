"""What an embedded lab waits for, and how nodes come into it."""

from __future__ import annotations

import json
from functools import partial

import requests

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.api import Api, ApiError, condition, wait_until

#: Seconds that the cluster may take for each, on a machine that has other things to do.
PATIENCE = 90.0
#: Refused by KubeVela's webhook: there is no such component type.
WRONG_APPLICATION: KubernetesObject = {
    "apiVersion": "core.oam.dev/v1beta1",
    "kind": "Application",
    "metadata": {"name": "lab-probe", "namespace": "default"},
    "spec": {"components": [{"name": "probe", "type": "no-such-type", "properties": {}}]},
}


#: Refused by KServe's webhook: fewer than no replicas.
WRONG_SERVICE: KubernetesObject = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "lab-probe", "namespace": "default"},
    "spec": {"predictor": {"minReplicas": -1, "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://a/b"}}},
}


def apply_node(api: Api, node: KubernetesObject) -> None:
    """Apply a node and then its status, which an apply of the object leaves out."""
    api.apply({key: value for key, value in node.items() if key != "status"})
    path = api.path("v1", "Node", node["metadata"]["name"]) + "/status"
    api.request(
        "PATCH",
        path,
        headers={"Content-Type": "application/merge-patch+json"},
        data=json.dumps({"status": node["status"]}).encode(),
    )


def wait_served(api: Api, crds: list[KubernetesObject]) -> None:
    """Wait until the API server serves the kind of each CRD. Raises TimeoutError where it does not."""
    for crd in crds:
        spec = crd["spec"]
        kind = spec["names"]["kind"]
        version = next(entry["name"] for entry in spec["versions"] if entry["served"])
        api_version = f"{spec['group']}/{version}"
        wait_until(
            partial(api.serves, api_version, kind),
            what=f"CRD {kind}",
            timeout=PATIENCE,
            every=0.05,
        )


def wait_admin(api: Api) -> None:
    """Wait until the admin's rights and the namespace ``default`` are there: hooks after the start make both."""

    def look() -> bool:
        try:
            return api.get("v1", "Namespace", "default") is not None
        except (ApiError, requests.RequestException):
            return False

    wait_until(look, what="the API server's own objects", timeout=PATIENCE)


def wait_nodes(api: Api, count: int) -> None:
    """Wait until so many nodes are Ready. Raises TimeoutError where they are not."""

    def look() -> bool:
        nodes = api.list("v1", "Node")
        return sum(condition(node, "Ready") == "True" for node in nodes) >= count

    wait_until(look, what=f"{count} nodes Ready", timeout=PATIENCE)


def wait_denied(api: Api, wrong: KubernetesObject) -> None:
    """Wait until a webhook refuses what is wrong: registered webhooks take effect a moment later."""

    def look() -> bool:
        try:
            api.apply(wrong, dry_run=True, patience=0)
        except ApiError as error:
            return "denied the request" in str(error)
        except (LookupError, requests.RequestException):
            return False
        return False

    wait_until(look, what=f"the webhook of {wrong['kind']}", timeout=PATIENCE)
