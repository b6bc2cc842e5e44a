"""A part of the traffic goes to the new version: requests that the old and the new pods really answered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from tests.e2e.kind.measured import window
from tests.e2e.kind.serving import ISVC, SMALL, Client, down, put_model, steady, triton_config, up, wait_for, wait_ready
from tests.e2e.kind.test_kind_ready import PROGRAM

from velagen.lab import condition
from velagen.lab.kind import KindLab
from velagen.lab.kind.kubevela import RESYNC_SECONDS
from velagen.lab.kind.stack import local

BODY = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}
REQUESTS = 200
WEIGHT = 30
#: What brings a request to the third of three versions.
TESTER = {"name": "x-model", "value": "c"}


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


@pytest.mark.seconds(90)
def test_three_versions_are_told_by_weight_header_and_cookie(kind_lab: KindLab, space: str) -> None:
    """Shares over many users, a tester's header, and users that stay with who answered them; each counted apart."""
    kind_lab.load(["tritonserver"])
    files = {"which/config.pbtxt": triton_config("which", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]")}
    first, second, third = (
        put_model(kind_lab, f"three-versions/{version}", {**files, "which/1/model.py": PROGRAM.format(version=version)})
        for version in (1, 2, 3)
    )
    host = f"three-{space}.example.org"
    shares = {1: 50, 2: 30, 3: 20}
    canary = {
        "candidates": [
            {"name": "b", "modelUri": second, "weight": shares[2]},
            {"name": "c", "modelUri": third, "weight": shares[3], "match": {"headers": [TESTER]}},
        ],
        "route": {"provider": "gateway-api", "hosts": [host], "affinity": {"seconds": 600}},
    }
    properties = {"runtime": "triton", "modelName": "which", "modelUri": first, "minReplicas": 1, "resources": SMALL}
    up(kind_lab, space, "three", properties, {"type": "canary", "properties": canary})
    wait_ready(kind_lab, space, "three")

    def is_ready(name: str) -> bool:
        return condition(kind_lab.api.get(*ISVC, name, space), "Ready") == "True"

    for name in ("three-canary-b", "three-canary-c"):
        wait_for(kind_lab, space, name, partial(is_ready, name), f"{name} Ready")

    def answered_by(user: requests.Session, **headers: str) -> int:
        url = f"{kind_lab.url('gateway')}/v2/models/which/infer"
        answer = user.post(url, json=BODY, headers={"Host": host, **headers}, timeout=30)
        assert answer.ok, f"{answer.status_code} {answer.text[:300]}"
        return int(answer.json()["outputs"][0]["data"][0])

    def all_answer() -> bool:
        try:
            seen = {answered_by(user) for user in [local() for _ in range(20)]}
        except (AssertionError, requests.ConnectionError):
            return False  # a route, or a version's pod, that Envoy does not know yet
        return seen == set(shares)

    wait_for(kind_lab, space, "three", all_answer, "answers of all three versions", timeout=60)
    with window(kind_lab, space, "envoy") as grown:
        users = [local() for _ in range(REQUESTS)]
        begun = [answered_by(user) for user in users]
        stayed = [answered_by(user) for user in users]
        testers = {answered_by(user, **{TESTER["name"]: TESTER["value"]}) for user in users[:20]}
    seen = Counter(begun)
    print(f"{REQUESTS} users: {dict(sorted(seen.items()))} where {shares} % were asked for")
    for version, share in shares.items():
        # Four standard deviations either way, as Envoy draws lots.
        assert abs(seen[version] - REQUESTS * share / 100) <= 29, seen
    assert stayed == begun, "a user was answered by another version than before"
    assert testers == {3}
    assert grown["envoy", "requests"] == {
        "three": 2 * seen[1],
        "three-canary-b": 2 * seen[2],
        "three-canary-c": 2 * seen[3] + 20,
    }
    down(kind_lab, space, "three")
