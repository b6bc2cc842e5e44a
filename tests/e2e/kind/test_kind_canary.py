"""A part of the traffic goes to the new version: requests that the old and the new pods really answered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc as triton
from tests.e2e.kind.measured import window
from tests.e2e.kind.serving import ISVC, SMALL, Client, down, put_model, steady, triton_config, up, wait_for, wait_ready
from tests.e2e.kind.test_kind_ready import PROGRAM

from velagen.lab import condition
from velagen.lab.kind import KindLab
from velagen.lab.kind.kubevela import RESYNC_SECONDS

BODY = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}
REQUESTS = 200
WEIGHT = 30


def by_rest(client: Client) -> float:
    return float(client.ask("/v2/models/which/infer", BODY)["outputs"][0]["data"][0])


def by_grpc(client: triton.InferenceServerClient) -> float:
    tensor = triton.InferInput("X", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))
    return float(client.infer("which", [tensor], client_timeout=30).as_numpy("Y")[0][0])


@pytest.mark.seconds(90)
def test_rest_and_grpc_are_split_by_weight(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["tritonserver"])
    first, second = (
        put_model(
            kind_lab,
            f"canary-versions/{version}",
            {
                "which/config.pbtxt": triton_config("which", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"),
                "which/1/model.py": PROGRAM.format(version=version),
            },
        )
        for version in (1, 2)
    )
    common = {"runtime": "triton", "modelName": "which", "protocol": "both", "minReplicas": 1, "resources": SMALL}
    host = f"split-{space}.example.org"
    route = {"provider": "gateway-api", "hosts": [host]}

    def deploy(weight: int) -> None:
        canary = {"weight": weight, "modelUri": second, "route": route}
        up(kind_lab, space, "split", {**common, "modelUri": first}, {"type": "canary", "properties": canary})

    # As the documentation says: none of the traffic until the new version is Ready.
    deploy(0)
    wait_ready(kind_lab, space, "split")
    wait_for(
        kind_lab,
        space,
        "split",
        lambda: condition(kind_lab.api.get(*ISVC, "split-canary", space), "Ready") == "True",
        "the new version Ready",
    )
    client = Client(kind_lab, space, "split")
    client.host = host
    wait_for(kind_lab, space, "split", lambda: client.send("/v2/models/which/ready").ok, "the route of the trait")
    # KServe makes routes too, and KubeVela applies its own again every few seconds: nobody takes ours away.
    with steady(client, "/v2/models/which/infer", BODY, 10, 60) as load:
        time.sleep(3)
        deploy(WEIGHT)
        time.sleep(2 * RESYNC_SECONDS)
    assert not load.failed, load.failed[:3]
    answers = [answer["outputs"][0]["data"][0] for answer in load.answers()]
    assert answers[0] == 1
    assert 2 in answers
    options = [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0)]
    with triton.InferenceServerClient(client.entry.removeprefix("http://"), channel_args=options) as grpc:
        asks: dict[str, Callable[[], float]] = {"REST": lambda: by_rest(client), "gRPC": lambda: by_grpc(grpc)}
        with window(kind_lab, space, "server", "envoy") as grown:
            found = {protocol: Counter(ask() for _ in range(REQUESTS)) for protocol, ask in asks.items()}
        for protocol, seen in found.items():
            print(f"{protocol}: {seen[2]} of {REQUESTS} answered by the new version, at weight {WEIGHT}")
            assert set(seen) == {1, 2}, seen
            # More than four standard deviations either way, as Envoy draws lots.
            assert abs(seen[2] - REQUESTS * WEIGHT / 100) <= 30, seen
    # Server and gateway tell the two apart, each request of either protocol.
    total: Counter[float] = sum(found.values(), Counter())
    for counter in ("server", "envoy"):
        assert grown[counter, "requests"] == {"split": total[1], "split-canary": total[2]}
    # The model's own address stays the old version's.
    own = Client(kind_lab, space, "split")
    assert {by_rest(own) for _ in range(20)} == {1}
    down(kind_lab, space, "split")
