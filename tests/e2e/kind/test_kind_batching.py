"""Dynamic batching reaches Triton, and makes batches of requests that come at once; without it there are none."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.conftest import namespace_of
from tests.e2e.kind.serving import SMALL, Client, crowd, pods, put_model, triton_config, up, wait_ready

from velagen.lab.kind import KindLab

#: As examples/dynamic-batching.yaml has it.
BATCHING = {"maxQueueDelayMicroseconds": 100, "preferredBatchSizes": [4, 8]}
SIDE = 3072
# Each execution reads a matrix of 38 MB, whether for one row or for eight: some milliseconds on one core.
MODEL = f"""
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.weights = (np.arange({SIDE}, dtype=np.float32) % 7 + 1)[:, None] * np.ones({SIDE}, np.float32)

    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        rows = np.concatenate(given) * np.ones({SIDE}, np.float32)
        found = (rows @ self.weights)[:, :1]
        ends = np.cumsum([len(one) for one in given])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.ascontiguousarray(part))])
            for part in np.split(found, ends)
        ]
"""
#: What the model multiplies a number with.
FACTOR = sum(row % 7 + 1 for row in range(SIDE))
REQUESTS, USERS = 600, 32


def number(value: int) -> dict[str, object]:
    return {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [float(value)]}]}


def counted(lab: KindLab, space: str, name: str) -> tuple[float, float]:
    """Triton's count of inferences and of executions so far."""
    (pod,) = pods(lab, space, name)
    path = f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}:8002/proxy/metrics"
    text = str(lab.api.request("GET", path))

    def value(metric: str) -> float:
        (found,) = re.findall(rf'^{metric}{{model="wide",version="1"}} ([\d.e+]+)$', text, re.MULTILINE)
        return float(found)

    return value("nv_inference_count"), value("nv_inference_exec_count")


@pytest.fixture(scope="module")
def two(kind_lab: KindLab) -> Iterator[str]:
    """A namespace with the same model twice: with dynamic batching, and without."""
    kind_lab.load(["tritonserver"])
    uri = put_model(
        kind_lab,
        "wide-repository",
        {"wide/config.pbtxt": triton_config("wide", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"), "wide/1/model.py": MODEL},
    )
    common = {"runtime": "triton", "modelUri": uri, "minReplicas": 1, "resources": SMALL, "modelName": "wide"}
    with namespace_of(kind_lab.api, "k") as space:
        up(kind_lab, space, "batches", {**common, "dynamicBatching": BATCHING})
        up(kind_lab, space, "single", common)
        wait_ready(kind_lab, space, "batches")
        wait_ready(kind_lab, space, "single")
        yield space


@pytest.mark.seconds(60)
def test_the_loaded_configuration_is_the_applications(kind_lab: KindLab, two: str) -> None:
    config = Client(kind_lab, two, "batches").ask("/v2/models/wide/config")
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["max_batch_size"] == 8
    assert "dynamic_batching" not in Client(kind_lab, two, "single").ask("/v2/models/wide/config")


def inferences_each_execution(lab: KindLab, space: str, name: str) -> float:
    """Let many users ask at once; every one must get the answer to their own question."""
    before = counted(lab, space, name)
    load = crowd(Client(lab, space, name), "/v2/models/wide/infer", number, REQUESTS, USERS)
    assert not load.failed, load.failed[:3]
    given = [answer["outputs"][0]["data"][0] for answer in load.answers()]
    assert given == pytest.approx([value * FACTOR for value in range(REQUESTS)], rel=1e-5)
    after = counted(lab, space, name)
    assert after[0] - before[0] == REQUESTS
    each = (after[0] - before[0]) / (after[1] - before[1])
    print(f"{name}: {each:.2f} inferences each execution")
    return each


@pytest.mark.seconds(30)
def test_requests_that_come_at_once_share_an_execution(kind_lab: KindLab, two: str) -> None:
    assert inferences_each_execution(kind_lab, two, "batches") > 2


@pytest.mark.seconds(30)
def test_without_the_setting_each_request_is_its_own(kind_lab: KindLab, two: str) -> None:
    assert inferences_each_execution(kind_lab, two, "single") == pytest.approx(1, abs=0.05)
