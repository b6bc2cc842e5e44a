"""deploymentMode: knative with Knative's own controllers: what KServe, KubeVela and a user's requests make of it.

Requests come through the lab's gateway at a fixed rate, whatever becomes of them, and each is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests import budget
from tests.e2e.kind.serving import (
    ISVC,
    SMALL,
    Client,
    down,
    pods,
    put_model,
    steady,
    triton_config,
    up,
    wait_for,
    wait_healthy,
)

from velagen.lab import condition, wait_until
from velagen.lab.api import Api
from velagen.lab.kind import KindLab, knative, stack
from velagen.lab.vela import vela

NAME = "kn"
#: Takes a few milliseconds of no work: what limits the rate is the test's, not the machine.
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.005)
        inputs = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one.as_numpy())]) for one in inputs]
"""
PATH = f"/v2/models/{NAME}/infer"
BODY = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}


@pytest.fixture
def with_knative(kind_lab: KindLab) -> Iterator[KindLab]:
    """The lab with Knative in it, which leaves again where it was not there."""
    if kind_lab.assembled:
        budget.leave_out_if_unbuilt([*knative.IMAGES.values(), knative.PROXY])
    kind_lab.load(["tritonserver"])
    if kind_lab.api.get("v1", "Namespace", knative.KOURIER_NAMESPACE):
        yield kind_lab
        return
    try:
        stack.install(kind_lab, ["knative"], None)
        yield kind_lab
    finally:
        remove(kind_lab.api)


def remove(api: Api) -> None:
    """Take Knative out of the cluster again; its CRDs stay, and so does the namespace that KServe's layer makes."""
    wait_until(
        lambda: not api.list("serving.knative.dev/v1", "Service"), what="no Knative Service", timeout=120, every=0.5
    )
    things, late = knative.objects("")
    for thing in reversed([*things, *late]):
        metadata = thing["metadata"]
        if metadata["name"] != knative.NAMESPACE:
            api.delete(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace"))


def deploy(lab: KindLab, space: str, *traits: Mapping[str, Any], **more: Any) -> Client:
    """Apply the model in knative mode, and give a client of the address that KServe says."""
    config = triton_config(NAME, "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]")
    uri = put_model(lab, NAME, {f"{NAME}/config.pbtxt": config, f"{NAME}/1/model.py": MODEL})
    properties = {"runtime": "triton", "modelUri": uri, "modelName": NAME, "resources": SMALL}
    up(lab, space, NAME, {**properties, "deploymentMode": "knative", **more}, *traits)
    wait_for(
        lab,
        space,
        NAME,
        lambda: condition(lab.api.get(*ISVC, NAME, space), "Ready") == "True",
        f"InferenceService {NAME} Ready",
    )
    client = Client(lab, space, NAME)
    client.host = str((lab.api.get(*ISVC, NAME, space) or {})["status"]["url"]).removeprefix("http://")
    return client


def answered(lab: KindLab, query: str) -> float:
    """A number that the lab's Prometheus gives; 0 where it has none."""
    answer = stack.local().get(f"{lab.url('prometheus')}/api/v1/query", params={"query": query}, timeout=10)
    return sum(float(one["value"][1]) for one in answer.json()["data"]["result"])


def wait_answered(lab: KindLab, query: str, least: float) -> None:
    """Wait until the lab's Prometheus has so much of something."""
    wait_until(lambda: answered(lab, query) >= least, what=query, timeout=60, every=1)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(150)
def test_a_model_answers_and_says_so(with_knative: KindLab, space: str) -> None:
    lab = with_knative
    client = deploy(lab, space)
    assert client.host == f"{NAME}-predictor-{space}.{knative.DOMAIN}"
    wait_until(lambda: client.send("/v2/health/ready").ok, what="an answer", timeout=60, every=0.25)
    assert client.ask(PATH, BODY)["outputs"][0]["data"] == [1.0]
    with steady(client, PATH, BODY, 10, 60) as load:
        time.sleep(20)
    assert load.failed == []
    wait_healthy(lab, space, NAME)
    said = vela(lab.kubeconfig, "status", NAME, "-n", space).stdout
    print(said)
    assert f"Ready at http://{client.host}" in said
    (pod,) = [one for one in pods(lab, space, NAME) if "deletionTimestamp" not in one["metadata"]]
    assert {"kserve-container", "queue-proxy"} == {one["name"] for one in pod["spec"]["containers"]}
    # Counted by Knative's proxy, and found by the annotations of the pod.
    sent = len(load.seen) + 1
    query = f'sum(kn_serving_invocation_duration_seconds_count{{namespace="{space}",http_response_status_code="200"}})'
    wait_answered(lab, query, sent)
    revision = f'{{namespace="{space}",version="{NAME}-predictor-00001",route="knative"}}'
    wait_answered(lab, f"revision:requests:increase5m{revision}", 1)
    wait_answered(lab, f"revision:latency_seconds:p95{revision}", 0.001)
    down(lab, space, NAME)
