"""Ready means ready: under steady requests a model is changed and scaled and a pod ends, and no request fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.e2e.kind.serving import (
    SMALL,
    Client,
    pods,
    put_model,
    run_in_image,
    steady,
    triton_config,
    up,
    wait_healthy,
    wait_rolled,
)

from velagen.lab.kind import KindLab

RATE = 40.0
#: Seconds after which requests end, whatever the cluster does.
LONGEST = 240.0

#: Two models that say which they are, with the versions of the image that serves them.
DUMMIES = """
import json, boto3, joblib, numpy
from sklearn.dummy import DummyClassifier
store = boto3.client("s3", endpoint_url="http://object-store.model-store:5000", region_name="us-east-1",
                     aws_access_key_id="a", aws_secret_access_key="b")
for version in (1, 2):
    model = DummyClassifier(strategy="constant", constant=version).fit([[0], [0]], [1, 2])
    joblib.dump(model, "/tmp/model.joblib")
    store.upload_file("/tmp/model.joblib", "models", f"versions/{version}/model.joblib")
print(json.dumps({}))
"""
PROGRAM = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        found = pb_utils.Tensor("Y", np.full((1, 1), {version}, np.float32))
        return [pb_utils.InferenceResponse([found]) for _ in requests]
"""


def sklearn(lab: KindLab, space: str) -> tuple[Callable[[int], dict[str, Any]], str, Mapping[str, Any]]:
    """Both versions in the store; the properties of one, the path to ask, and a request."""
    lab.load(["sklearnserver"])
    run_in_image(lab, space, "kserve/sklearnserver:v0.20.0", DUMMIES)

    def properties(version: int) -> dict[str, Any]:
        return {"runtime": "sklearn", "modelUri": f"s3://models/versions/{version}"}

    return properties, "/v1/models/steady:predict", {"instances": [[0]]}


def triton(lab: KindLab, space: str) -> tuple[Callable[[int], dict[str, Any]], str, Mapping[str, Any]]:
    """The same for Triton."""
    lab.load(["tritonserver"])

    def properties(version: int) -> dict[str, Any]:
        files = {
            "which/config.pbtxt": triton_config("which", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"),
            "which/1/model.py": PROGRAM.format(version=version),
        }
        uri = put_model(lab, f"which-versions/{version}", files)
        return {"runtime": "triton", "modelUri": uri, "modelName": "which"}

    tensor = {"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [0]}
    return properties, "/v2/models/which/infer", {"inputs": [tensor]}


def version_of(answer: Any) -> int:
    """The version a model's answer names."""
    return int(answer["predictions"][0] if "predictions" in answer else answer["outputs"][0]["data"][0])


@pytest.mark.alone
@pytest.mark.seconds(100)
@pytest.mark.parametrize("server", [sklearn, triton])
def test_no_request_fails_while_pods_come_and_go(kind_lab: KindLab, space: str, server: Callable[..., Any]) -> None:
    properties, path, body = server(kind_lab, space)
    up(kind_lab, space, "steady", {**properties(1), "minReplicas": 1, "resources": SMALL})
    wait_healthy(kind_lab, space, "steady")
    client = Client(kind_lab, space, "steady")
    second = {**properties(2), "minReplicas": 1, "resources": SMALL}
    marks = {}
    # From the first moment on: this is what a user waits for.
    with steady(client, path, body, RATE, LONGEST) as load:
        start = time.perf_counter()
        time.sleep(3)
        up(kind_lab, space, "steady", second)
        wait_rolled(kind_lab, space, "steady", 1, second["modelUri"])
        marks["rolled"] = time.perf_counter() - start
        up(kind_lab, space, "steady", {**second, "minReplicas": 2})
        wait_rolled(kind_lab, space, "steady", 2, second["modelUri"])
        marks["two"] = time.perf_counter() - start
        # As a node that is drained does it: one of the two ends, another takes its place.
        ended = pods(kind_lab, space, "steady")[0]["metadata"]["name"]
        kind_lab.api.delete("v1", "Pod", ended, space)
        wait_rolled(kind_lab, space, "steady", 2, second["modelUri"])
        marks["replaced"] = time.perf_counter() - start
        up(kind_lab, space, "steady", second)
        wait_rolled(kind_lab, space, "steady", 1, second["modelUri"])
        marks["one"] = time.perf_counter() - start
        time.sleep(3)
    print(server.__name__, len(load.seen), "requests", marks, "failed:", [(one.at, one.status) for one in load.failed])
    assert not load.failed, (len(load.failed), load.failed[:5], marks)
    versions = [version_of(answer) for answer in load.answers()]
    assert set(versions) == {1, 2}
    assert versions[0] == 1
    # Nothing of the old version once its pods are gone.
    assert {version for version, one in zip(versions, load.seen, strict=True) if one.at > marks["rolled"]} == {2}
    assert marks["one"] + 3 < LONGEST, "the requests ended before the changes did"
