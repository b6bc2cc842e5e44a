"""Prometheus counts what goes through the gateway, and answers the questions the trait autoscale asks it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.e2e.kind.serving import Client, put_model, triton_config, wait_ready

from velagen.lab import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(request, "X").as_numpy() * 2)]
            )
            for request in requests
        ]
"""
REQUESTS = 60


def asked(lab: KindLab, query: str) -> float | None:
    """One number, or None where Prometheus has none."""
    answer = local().get(f"{lab.url('prometheus')}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["status"] == "success", answer
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def application(space: str, traits: list[dict[str, Any]]) -> dict[str, Any]:
    properties = {"runtime": "triton", "modelUri": "s3://models/doubles", "modelName": "doubles", "minReplicas": 1}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "doubles", "namespace": space},
        "spec": {
            "components": [{"name": "doubles", "type": "kfserving", "properties": properties, "traits": traits}],
        },
    }


@pytest.mark.seconds(90)
def test_the_traits_own_queries_give_the_traffic_that_was_sent(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["tritonserver"])
    files = {
        "doubles/config.pbtxt": triton_config("doubles", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"),
        "doubles/1/model.py": MODEL,
    }
    put_model(kind_lab, "doubles", files)
    queries: dict[str, str] = {}
    for source in ("envoy", "triton"):
        scale = {
            "metric": "qps",
            "policy": "target",
            "target": 100,
            "source": source,
            "minReplicas": 1,
            "maxReplicas": 2,
        }
        kind_lab.api.apply(application(space, [{"type": "autoscale", "properties": scale}]))

        def query(before: str = next(iter(queries.values()), "")) -> str:
            thing = kind_lab.api.get("keda.sh/v1alpha1", "ScaledObject", "doubles-autoscale", space) or {}
            (trigger,) = thing.get("spec", {}).get("triggers", [{}])
            said = str(trigger.get("metadata", {}).get("query", ""))
            return said if said != before else ""

        queries[source] = wait_until(query, what=f"the ScaledObject for {source}", timeout=60, every=0.5)
    wait_ready(kind_lab, space, "doubles")
    client = Client(kind_lab, space, "doubles")
    body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [21.0]}]}
    # Two looks of Prometheus (5 s each) must see the counters before there is a rate: some seconds of traffic.
    started = time.monotonic()
    for number in range(REQUESTS):
        assert client.ask("/v2/models/doubles/infer", body)["outputs"][0]["data"] == [42.0]
        time.sleep(max(0.0, started + number / 3 - time.monotonic()))
    for source, wanted in queries.items():

        def rate(query: str = wanted) -> float:
            return asked(kind_lab, query) or 0.0

        # 3 a second for 20 of the 60 seconds the query looks at, so up to 3, and well over nothing.
        found = wait_until(rate, what=f"a rate from {query}", timeout=30, every=1)
        assert 0.3 < found < 4, f"{source}: {query}"
    # By name, all the requests: what the server counted, Prometheus has.
    total = f'sum(nv_inference_request_success{{namespace="{space}"}})'
    wait_until(lambda: (asked(kind_lab, total) or 0) >= REQUESTS, what=total, timeout=30, every=1)


@pytest.mark.parametrize(
    "query",
    [
        'sum(up{job="pods",namespace="kserve"})',
        'sum(up{job="pods",namespace="projectcontour"})',
        "sum(DCGM_FI_DEV_FB_FREE)",
    ],
)
def test_what_the_lab_itself_runs_is_measured_too(kind_lab: KindLab, query: str) -> None:
    assert wait_until(lambda: asked(kind_lab, query), what=query, timeout=60, every=1)
