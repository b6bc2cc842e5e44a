"""``velagen adopt --cluster``: KubeVela takes an InferenceService over that runs already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cluster

from velagen.lab import Lab, condition
from velagen.lab.vela import vela

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.seconds(40)
def test_a_service_that_runs_is_taken_over_and_stays_itself(lab: Lab, cluster: Cluster) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    lab.api.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris", "namespace": cluster.namespace, "labels": {"team": "search"}},
            "spec": {"predictor": {"minReplicas": 2, "model": model}},
        }
    )
    before = cluster.wait_ready("iris")
    deployment = cluster.get("apps/v1", "Deployment", "iris-predictor")
    assert deployment is not None

    def adopt(*arguments: str) -> str:
        done = velagen(lab, "adopt", "--cluster", "-n", cluster.namespace, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert adopt("--check", "iris") == "iris: equal\n"
    cluster.up(yaml.safe_load(adopt()))
    cluster.wait_running("iris")
    after = cluster.wait_ready("iris")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["labels"]["team"] == "search"
    assert after["metadata"]["labels"]["app.oam.dev/name"] == "iris"
    assert after["spec"]["predictor"]["minReplicas"] == 2
    assert after["spec"]["predictor"]["model"]["storageUri"] == "s3://models/iris"
    found = cluster.get("apps/v1", "Deployment", "iris-predictor")
    assert found is not None
    assert found["metadata"]["uid"] == deployment["metadata"]["uid"]


@pytest.mark.slow
@pytest.mark.seconds(40)
def test_kubevelas_labels_are_all_that_replaces_the_pods_of_an_exact_take_over(lab: Lab, cluster: Cluster) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/wine", "runtime": "kserve-sklearnserver"}
    lab.api.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "wine", "namespace": cluster.namespace},
            "spec": {"predictor": {"model": model}},
        }
    )
    cluster.wait_ready("wine")

    def template() -> dict[str, Any]:
        deployment = cluster.get("apps/v1", "Deployment", "wine-predictor")
        assert deployment is not None
        found: dict[str, Any] = deployment["spec"]["template"]
        return found

    before = template()
    done = velagen(lab, "adopt", "--cluster", "--exact", "-n", cluster.namespace, "wine")
    assert done.returncode == 0, done.stderr
    cluster.up(yaml.safe_load(done.stdout))
    cluster.wait_running("wine")
    cluster.wait_for(lambda: template() != before, "another pod template", 30)
    after = template()
    assert after["spec"] == before["spec"]
    for kind in ("labels", "annotations"):
        own = before["metadata"].get(kind, {})
        new = {key: one for key, one in after["metadata"].get(kind, {}).items() if own.get(key) != one}
        assert own.items() <= after["metadata"].get(kind, {}).items()
        assert all("oam.dev/" in key for key in new), new
    # KubeVela puts them on every object (pkg/appfile, assembled), and KServe copies an object's to its pods.
    assert after["metadata"]["labels"]["app.oam.dev/name"] == "wine"


def service(cluster: Cluster, name: str, replicas: int, **model: Any) -> None:
    """An InferenceService that nobody but KServe knows, with all its pods ready."""
    cluster.api.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": cluster.namespace},
            "spec": {
                "predictor": {
                    "minReplicas": replicas,
                    "model": {
                        "modelFormat": {"name": "sklearn"},
                        "runtime": "kserve-sklearnserver",
                        "storageUri": "s3://models/wine",
                        **model,
                    },
                }
            },
        }
    )
    cluster.wait_for(lambda: len(ready(cluster, name)) == replicas, "its pods")


def ready(cluster: Cluster, name: str) -> set[str]:
    return {
        pod["metadata"]["name"]
        for pod in cluster.list("v1", "Pod")
        if pod["metadata"]["labels"].get("serving.kserve.io/inferenceservice") == name
        and condition(pod, "Ready") == "True"
        and "deletionTimestamp" not in pod["metadata"]
    }


def velagen(lab: Lab, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "velagen.cli", *map(str, arguments)],
        env={**os.environ, "KUBECONFIG": str(lab.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.slow
@pytest.mark.seconds(40)
def test_a_full_gpu_pool_is_taken_over_without_a_pod_that_ends(lab: Lab, cluster: Cluster, tmp_path: Path) -> None:
    """The pod more that the Deployment asks for finds no GPU, which would otherwise cost one of four pods at once."""
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    gpus = sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in lab.api.list("v1", "Node"))
    assert gpus >= 4  # a quarter of fewer rounds down to none
    small = {"cpu": "100m", "memory": "100Mi"}
    service(cluster, "wine", gpus, resources={"requests": small, "limits": {**small, "nvidia.com/gpu": "1"}})
    before = ready(cluster, "wine")
    written = velagen(lab, "adopt", "--cluster", "-n", cluster.namespace, "--keep-pods")
    assert written.returncode == 0, written.stderr
    file = tmp_path / "wine.yaml"
    file.write_text(written.stdout)
    done = velagen(lab, "take-over", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"wine: taken over; still serving: {', '.join(sorted(before))}\n"
    cluster.wait_running("wine")
    assert ready(cluster, "wine") == before
    deployment = cluster.get("apps/v1", "Deployment", "wine-predictor")
    assert deployment is not None
    assert deployment["status"]["replicas"] == deployment["status"]["updatedReplicas"] == gpus
    found = cluster.inference_service("wine")
    assert found is not None
    assert "deploymentStrategy" not in found["spec"]["predictor"]  # it was for the while alone
    again = velagen(lab, "take-over", file)
    assert again.returncode == 1
    assert "the InferenceService wine belongs to the Application wine already" in again.stderr
    assert "the Application wine exists already" in again.stderr


@pytest.mark.slow
@pytest.mark.seconds(30)
def test_pods_that_have_to_be_replaced_are_told_by_what_changes(lab: Lab, cluster: Cluster, tmp_path: Path) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    service(cluster, "wine", 1)
    written = velagen(lab, "adopt", "--cluster", "-n", cluster.namespace)
    file = tmp_path / "wine.yaml"
    without = yaml.safe_load(written.stdout)
    del without["spec"]["policies"]
    file.write_text(yaml.safe_dump(without))
    refused = velagen(lab, "take-over", file)
    assert refused.returncode == 1
    assert "the Application wine has no policy take-over" in refused.stderr
    assert cluster.application("wine") is None
    file.write_text(written.stdout)
    done = velagen(lab, "take-over", file)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("wine: pods are replaced, since more than labels and annotations changes\n")
    field = "wine-predictor: spec.containers.kserve-container.lifecycle.preStop.exec.command"
    assert f"{field}: was not there, and comes back as " in done.stdout
    cluster.wait_running("wine")
