"""What tests of serving share: applications up and ready; and, of benchmarks.kind, what benchmarks need too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests
from benchmarks.kind import (
    ISVC,
    PATIENCE,
    SMALL,
    Client,
    Load,
    Seen,
    crowd,
    down,
    once,
    pods,
    put_model,
    python_server,
    steady,
    triton_config,
    wait_for,
)

from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab

__all__ = [
    "ISVC",
    "ONE_NUMBER",
    "PATIENCE",
    "SMALL",
    "WAITING_MODEL",
    "Client",
    "Load",
    "Seen",
    "checked",
    "crowd",
    "down",
    "median",
    "once",
    "pods",
    "put_model",
    "python_server",
    "routed",
    "run_in_image",
    "steady",
    "triton_config",
    "up",
    "wait_for",
    "wait_healthy",
    "wait_ready",
    "wait_rolled",
]

#: Takes a few milliseconds of no work: what limits the rate is the test's, not the machine.
WAITING_MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.005)
        inputs = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one.as_numpy())]) for one in inputs]
"""
#: What it is asked.
ONE_NUMBER = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}


def run_in_image(lab: KindLab, space: str, image: str, code: str) -> dict[str, Any]:
    """Run Python code in a pod of an image that serves; give the JSON object of its last line.

    A pickle is made with the versions that read it this way.
    """
    name = "trainer"
    container = {"name": "main", "image": image, "command": ["python", "-c", code], "resources": SMALL}
    lab.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": space},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]},
        }
    )

    def ended() -> str:
        phase = (lab.api.get("v1", "Pod", name, space) or {}).get("status", {}).get("phase", "")
        return phase if phase in {"Succeeded", "Failed"} else ""

    phase = wait_until(ended, what="the training pod", timeout=PATIENCE, every=0.5)
    said = lab.kubectl("logs", name, "-n", space)
    assert phase == "Succeeded", said
    lab.api.delete("v1", "Pod", name, space)
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def up(lab: KindLab, space: str, name: str, properties: Mapping[str, Any], *traits: Mapping[str, Any]) -> None:
    """Apply an application of one model, or change it."""
    lab.api.apply(
        {
            "apiVersion": "core.oam.dev/v1beta1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": space},
            "spec": {
                "components": [{"name": name, "type": "kfserving", "properties": properties, "traits": list(traits)}]
            },
        }
    )


def checked(component: dict[str, Any], space: str) -> dict[str, Any]:
    """An application of one model whose workflow waits for it, and says why it is not ready."""
    name = component["name"]
    steps = [
        {"name": "deploy", "type": "apply-component", "properties": {"component": name}},
        {"name": "check", "type": "check-model", "properties": {"name": name}},
    ]
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": space},
        "spec": {"components": [component], "workflow": {"mode": {"steps": "DAG"}, "steps": steps}},
    }


def wait_ready(lab: KindLab, space: str, name: str) -> None:
    """Wait until KServe calls a new model Ready, and Envoy has its route."""
    wait_for(
        lab,
        space,
        name,
        lambda: condition(lab.api.get(*ISVC, name, space), "Ready") == "True",
        f"InferenceService {name} Ready",
    )
    # KServe asks whether the gateway has accepted the route. Contour says so before Envoy has it: on a machine with two
    # cores and two tests, up to a second before.
    wait_for(lab, space, name, lambda: routed(lab, space, name), f"the route to {name} in Envoy", timeout=60)


def routed(lab: KindLab, space: str, name: str) -> bool:
    """Whether the gateway sends a model's requests on; asks for a path that no server computes anything for."""
    try:
        answer = Client(lab, space, name).send("/")
    except requests.ConnectionError:
        return False  # Envoy listens once it has the cluster's first route
    # Envoy's own answers don't have this header: 404 for a host it does not know, 503 without a word for a route whose
    # cluster it has not taken in, which it hears of apart from routes and warms up first. A server that speaks gRPC
    # alone may end such a request without an answer, which Envoy tells.
    return "x-envoy-upstream-service-time" in answer.headers or "reset reason: remote reset" in answer.text


def wait_healthy(lab: KindLab, space: str, name: str) -> None:
    """Wait until KubeVela calls the application's component healthy, which is what `vela status` shows.

    Nothing else is waited for: whoever sends requests from here on sees what a user sees.
    """

    def healthy() -> bool:
        application = lab.api.get("core.oam.dev/v1beta1", "Application", name, space) or {}
        services = application.get("status", {}).get("services") or []
        return bool(services) and all(one.get("healthy") for one in services)

    wait_for(lab, space, name, healthy, f"application {name} healthy")


def wait_rolled(lab: KindLab, space: str, name: str, replicas: int, marked: str) -> None:
    """Wait until a change has settled: so many ready pods, all of the new version, and none besides.

    Args:
        marked: text that only a pod of the new version has in its specification.
    """

    def settled() -> bool:
        found = [pod for pod in pods(lab, space, name) if "predictor" in pod["metadata"]["name"]]
        return len(found) == replicas and all(
            condition(pod, "Ready") == "True"
            and marked in json.dumps(pod["spec"])
            and "deletionTimestamp" not in pod["metadata"]
            for pod in found
        )

    wait_for(lab, space, name, settled, f"{replicas} pods with {marked}")


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
