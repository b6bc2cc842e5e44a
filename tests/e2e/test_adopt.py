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

from velagen.lab import Lab
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
        command = [sys.executable, "-m", "velagen.cli", "adopt", "--cluster", "-n", cluster.namespace, *arguments]
        environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
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
    command = [sys.executable, "-m", "velagen.cli", "adopt", "--cluster", "--exact", "-n", cluster.namespace, "wine"]
    environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
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
