"""A namespace with Pod Security restricted takes a model's pods as they are rendered; what keeps them is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cluster

from velagen.lab import Lab, condition
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(40)]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
LEVEL = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ADDON)


@pytest.fixture
def restricted(cluster: Cluster) -> Cluster:
    labels = {LEVEL: "restricted"}
    cluster.api.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": labels}}
    )
    return cluster


def app(steps: list[dict[str, Any]] | None = None, **properties: Any) -> dict[str, Any]:
    component = {"runtime": "sklearn", "modelUri": "s3://models/iris/1", "minReplicas": 1, **properties}
    spec: dict[str, Any] = {"components": [{"name": "m", "type": "kfserving", "properties": component}]}
    if steps:
        # Side by side: apply-component waits for a component that never gets well here.
        spec["workflow"] = {"mode": {"steps": "DAG"}, "steps": steps}
    return {"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "metadata": {"name": "m"}, "spec": spec}


CHECKED = [
    {"name": "deploy", "type": "apply-component", "properties": {"component": "m"}},
    {"name": "check", "type": "check-model", "properties": {"name": "m"}},
]


def test_predictor_transformer_and_explainer_run_as_rendered(restricted: Cluster) -> None:
    companion = {"image": "registry.example.com/own:1", "minReplicas": 1}
    restricted.up(app(transformer=companion, explainer=companion))
    restricted.wait_ready("m")
    pods = restricted.list("v1", "Pod")
    parts = {pod["metadata"]["labels"]["component"] for pod in pods}
    assert parts == {"predictor", "transformer", "explainer"}
    # The model is fetched by a container that KServe adds, from its own settings.
    (predictor,) = (pod for pod in pods if pod["metadata"]["labels"]["component"] == "predictor")
    assert [one["name"] for one in predictor["spec"]["initContainers"]] == ["storage-initializer"]


def told(cluster: Cluster) -> str:
    """What the workflow step check-model waits for."""
    application = cluster.application("m") or {}
    steps = application.get("status", {}).get("workflow", {}).get("steps", [])
    return next((str(one.get("message", "")) for one in steps if one["name"] == "check"), "")


def test_root_is_refused_and_everyone_is_told(restricted: Cluster) -> None:
    companion = {"image": "registry.example.com/own:1", "runAsUser": 0, "minReplicas": 1}
    restricted.up(app(CHECKED, transformer=companion))
    said = "Kubernetes does not take its pods: TransformerReady: "
    restricted.wait_for(lambda: said in told(restricted), "the reason in check-model's message")
    assert 'violates PodSecurity "restricted:latest"' in told(restricted)
    restricted.wait_for(
        lambda: (
            "violates PodSecurity" in restricted.vela("status", "m", "-n", restricted.namespace, check=False).stdout
        ),
        "the reason in vela status",
    )


def test_a_quota_that_is_used_up_is_told(cluster: Cluster) -> None:
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": cluster.namespace},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    cluster.up(app(CHECKED))
    said = "m is not ready yet, Kubernetes does not take its pods: PredictorReady: "
    cluster.wait_for(lambda: said in told(cluster), "the reason in check-model's message")
    assert "exceeded quota: none" in told(cluster)
    assert condition(cluster.inference_service("m"), "PredictorReady") == "False"


def without_image(reason: str, message: str, name: str = "kserve-container") -> dict[str, Any]:
    return {
        "name": name,
        "image": "of/no/matter",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
    }


def test_images_that_cant_be_pulled_are_told_with_the_way_out(cluster: Cluster) -> None:
    """On pods that get no node: what a kubelet would write there is written by the test, in the kubelet's words."""
    nowhere = {"pod": {"schedulerName": "none"}, "minReplicas": 1}
    companion = {"image": "registry.example.com/own:1", **nowhere}
    cluster.up(app(CHECKED, transformer={**companion, "minReplicas": 2}, explainer=companion, **nowhere))
    refused = 'failed to resolve reference "registry.example.com/own:1": 401 Unauthorized'
    missing = 'failed to resolve reference "registry.example.com/own:1": not found'
    backing_off = 'Back-off pulling image "registry.example.com/own:1"'
    said = {
        "predictor": [{"initContainerStatuses": [without_image("ErrImagePull", refused, "mine")]}],
        # The first tries again, and the second has just been refused: one reason.
        "transformer": [
            {"containerStatuses": [without_image("ImagePullBackOff", f"{backing_off}: ErrImagePull: {refused}")]},
            {"containerStatuses": [without_image("ErrImagePull", refused)]},
        ],
        "explainer": [
            {
                "containerStatuses": [
                    without_image("ErrImagePull", missing),
                    # Kubelets before 1.32 keep the reason to themselves.
                    without_image("ImagePullBackOff", backing_off, "beside"),
                    without_image("ContainerCreating", "comes", "well"),
                ]
            }
        ],
    }

    def by_part() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pod in cluster.list("v1", "Pod"):
            found.setdefault(pod["metadata"]["labels"]["component"], []).append(pod["metadata"]["name"])
        return found if {part: len(names) for part, names in found.items()} == counts else {}

    counts = {part: len(statuses) for part, statuses in said.items()}
    for part, names in cluster.wait_for(by_part, "the pods").items():
        for name, status in zip(names, said[part], strict=True):
            cluster.api.request(
                "PATCH",
                cluster.api.path("v1", "Pod", name, cluster.namespace) + "/status",
                json={"status": {"phase": "Pending", **status}},
                headers={"Content-Type": "application/merge-patch+json"},
            )
    wanted = "pod.imagePullSecrets must name a secret that the registry accepts"
    sentences = {
        f"predictor: {refused} ({wanted})",
        f"transformer: {refused} (transformer.{wanted})",
        f"explainer: {missing}",
        f"explainer: {backing_off}",
    }
    begins = "m is not ready yet, an image can't be pulled: "
    cluster.wait_for(
        lambda: told(cluster).startswith(begins) and set(told(cluster).removeprefix(begins).split("; ")) == sentences,
        "the reasons in check-model's message",
    )
