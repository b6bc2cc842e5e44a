"""Warm-up: nobody's request meets a cold model; without it the first one does."""

from __future__ import annotations

import pytest
from tests.e2e.kind.serving import SMALL, Client, down, median, once, put_model, triton_config, up, wait_ready

from velagen.lab.kind import KindLab

# Its first request computes what all later ones use, as models do that compile or open a session when first asked. Each
# takes some eighty milliseconds, so that the connections, which the first one opens (client to gateway, gateway to pod,
# about ten milliseconds together), are not taken for the model.
MODEL = """
import functools
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.weights = np.random.default_rng(0).standard_normal((4096, 4096), dtype=np.float32)

    @functools.cached_property
    def factors(self):
        return np.linalg.svd(self.weights[:500, :500].astype(np.float64))[1]

    def execute(self, requests):
        answers = []
        for request in requests:
            row = pb_utils.get_input_tensor_by_name(request, "X").as_numpy() * np.ones(4096, np.float32)
            for _ in range(24):
                row = np.tanh(row @ self.weights)
            found = (row[:, :1] + self.factors[0]).astype(np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", found)]))
        return answers
"""
SAMPLE = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}


def first_by_median(lab: KindLab, space: str, name: str) -> float:
    """Send the first request that a server gets and a hundred after it; give the first's time by their median."""
    client = Client(lab, space, name)
    seen = [once(client, "/v2/models/lazy/infer", SAMPLE, 0) for _ in range(101)]
    assert all(one.status == 200 for one in seen), [one for one in seen if one.status != 200][:3]
    times = [one.took for one in seen]
    print(f"{name}: first {times[0] * 1000:.1f} ms, median of the next hundred {median(times[1:]) * 1000:.1f} ms")
    return times[0] / median(times[1:])


@pytest.mark.alone
@pytest.mark.seconds(105)
def test_no_request_meets_a_cold_model(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["tritonserver"])
    uri = put_model(
        kind_lab,
        "lazy-repository",
        {"lazy/config.pbtxt": triton_config("lazy", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"), "lazy/1/model.py": MODEL},
    )
    common = {"runtime": "triton", "modelUri": uri, "minReplicas": 1, "resources": SMALL, "modelName": "lazy"}
    warmup = {"warmup": {"requests": 20, "sample": SAMPLE}}
    # A server has one first request, and one request's time can be the machine's doing: three servers.
    servers = {"warm-1": warmup, "warm-2": warmup, "warm-3": warmup, "cold": {}}
    for name, more in servers.items():
        up(kind_lab, space, name, {**common, **more})
    for name in servers:
        wait_ready(kind_lab, space, name)
    ratios = {name: first_by_median(kind_lab, space, name) for name in servers}
    # The next test measures too: it has the machine for itself.
    for name in servers:
        down(kind_lab, space, name)
    assert ratios.pop("cold") > 2, "the control was not slow at first: this test shows nothing"
    # A busy machine makes a single request slower, never faster.
    assert min(ratios.values()) < 2, ratios
