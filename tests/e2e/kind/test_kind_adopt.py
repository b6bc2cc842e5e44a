"""A model that serves under KServe alone becomes an Application: no pod is replaced, and no request fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.kind.serving import (
    ISVC,
    SMALL,
    Client,
    down,
    pods,
    put_model,
    steady,
    triton_config,
    wait_for,
    wait_healthy,
    wait_ready,
)

from velagen.lab import condition
from velagen.lab.kind import KindLab

NAME, REPLICAS = "grown", 2
#: Gives back what it is given.
MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one)]) for one in given]
"""
#: The strategy of a full GPU pool, under which a Deployment ends a pod before it makes another.
PREDICTOR: dict[str, Any] = {
    "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    "minReplicas": REPLICAS,
    "model": {
        "modelFormat": {"name": "triton"},
        "runtime": "kserve-tritonserver",
        "protocolVersion": "v2",
        "resources": SMALL,
    },
}


def velagen(lab: KindLab, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "velagen.cli", *arguments],
        env={**os.environ, "KUBECONFIG": str(lab.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def serving(lab: KindLab, space: str) -> dict[str, int]:
    """Names of the ready pods, and how often their containers were started again."""
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        for pod in pods(lab, space, NAME)
        if condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
    }


@pytest.mark.seconds(100)
def test_what_serves_is_taken_over_and_keeps_its_pods(kind_lab: KindLab, space: str, tmp_path: Path) -> None:
    lab = kind_lab
    lab.load(["tritonserver"])
    uri = put_model(
        lab,
        NAME,
        {"same/config.pbtxt": triton_config("same", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"), "same/1/model.py": MODEL},
    )
    predictor = {**PREDICTOR, "model": {**PREDICTOR["model"], "storageUri": uri}}
    metadata = {"name": NAME, "namespace": space}
    lab.api.apply({"apiVersion": ISVC[0], "kind": ISVC[1], "metadata": metadata, "spec": {"predictor": predictor}})
    wait_ready(lab, space, NAME)
    wait_for(lab, space, NAME, lambda: len(serving(lab, space)) == REPLICAS, "two pods")
    before = serving(lab, space)
    file = tmp_path / "grown.yaml"
    body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [7.0]}]}
    with steady(Client(lab, space, NAME), "/v2/models/same/infer", body, 20, 90) as load:
        file.write_text(velagen(lab, "adopt", "--cluster", "-n", space, "--keep-pods", NAME))
        said = velagen(lab, "take-over", str(file))
        wait_healthy(lab, space, NAME)
        # A later change of what is not the pods' does not replace them either.
        application = yaml.safe_load(file.read_text())
        application["spec"]["components"][0]["properties"]["maxReplicas"] = REPLICAS + 1
        lab.api.apply(application)
        wait_for(lab, space, NAME, lambda: maximum(lab, space) == REPLICAS + 1, "the change")
    assert all(name in said for name in before)
    assert serving(lab, space) == before
    assert not load.failed, load.failed[:3]
    assert all(answer["outputs"][0]["data"] == [7.0] for answer in load.answers())
    found = lab.api.get(*ISVC, NAME, space)
    assert found is not None
    assert found["metadata"]["labels"]["app.oam.dev/name"] == NAME
    assert found["spec"]["predictor"]["deploymentStrategy"] == PREDICTOR["deploymentStrategy"]
    # What finds pods by KubeVela's labels finds these: the addon's metrics, `vela logs`.
    assert all(pod["metadata"]["labels"]["app.oam.dev/component"] == NAME for pod in pods(lab, space, NAME))
    print(f"{len(load.seen)} requests, none failed")
    down(lab, space, NAME)


def maximum(lab: KindLab, space: str) -> int | None:
    """What KServe made of maxReplicas: it has dealt with the Deployment by then."""
    found = lab.api.get("autoscaling/v2", "HorizontalPodAutoscaler", f"{NAME}-predictor", space)
    return found["spec"]["maxReplicas"] if found else None
