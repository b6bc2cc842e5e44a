"""deploymentMode: knative with Knative's own controllers: what KServe, KubeVela and a user's requests make of it.

Requests come through the lab's gateway at a fixed rate, whatever becomes of them, and each is counted.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
import requests
from benchmarks.rollout.live import BODY as ROLLOUT_BODY
from benchmarks.rollout.live import PATH as ROLLOUT_PATH
from benchmarks.rollout.live import QUICK, Rollout, answer_of, put_version
from tests import budget
from tests.e2e.kind.serving import (
    ISVC,
    ONE_NUMBER,
    SMALL,
    WAITING_MODEL,
    Client,
    Load,
    Seen,
    crowd,
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
PATH = f"/v2/models/{NAME}/infer"
#: Seconds of the average by which Knative scales: the shortest that it takes.
SHORTEST = 6
#: The same where nobody writes another (config-autoscaler, stable-window).
WINDOW = 60
#: Seconds without a change after which a number of pods is believed.
STEADY = 30
#: Knative's own target: this part of what one pod is to bear (config-autoscaler,
#: requests-per-second-target-default and container-concurrency-target-percentage).
UTILIZATION = 0.7
#: Seconds Knative waits at least before the last pod goes (config-autoscaler, scale-to-zero-grace-period).
GRACE = 30
PATIENCE = 240.0


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
    uri = put_model(lab, NAME, {f"{NAME}/config.pbtxt": config, f"{NAME}/1/model.py": WAITING_MODEL})
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


def ready(lab: KindLab, space: str, name: str = NAME) -> int:
    """Pods that take requests."""
    found = pods(lab, space, name)
    return sum(condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"] for pod in found)


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
    assert client.ask(PATH, ONE_NUMBER)["outputs"][0]["data"] == [1.0]
    with steady(client, PATH, ONE_NUMBER, 10, 60) as load:
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


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(300)
def test_no_pod_without_requests_and_none_is_lost(with_knative: KindLab, space: str) -> None:
    """Three rounds: nobody asks and the last pod goes; then somebody does, and waits for a pod."""
    lab = with_knative
    trait = {
        "type": "autoscale",
        "properties": {"engine": "kpa", "metric": "concurrency", "target": 4, "minReplicas": 0, "maxReplicas": 2},
    }
    window = {"annotations": {"autoscaling.knative.dev/window": f"{SHORTEST}s"}}
    client = deploy(lab, space, trait, pod=window)
    client.timeout = 150
    wait_healthy(lab, space, NAME)
    for number in range(3):
        start = time.monotonic()
        wait_for(lab, space, NAME, lambda: not pods(lab, space, NAME), "no pod", PATIENCE)
        gone = time.monotonic() - start
        # It serves nobody, and nothing is wrong with it.
        time.sleep(5)
        wait_healthy(lab, space, NAME)
        with steady(client, PATH, ONE_NUMBER, 2, 300, at_once=128) as load:
            wait_for(lab, space, NAME, lambda: ready(lab, space) > 0, "a pod", PATIENCE)
            time.sleep(15)
        waited = [one for one in load.seen if one.took > 1]
        print(
            f"no pod after {gone:.0f} s; {len(load.seen)} requests, {len(load.failed)} failed; "
            f"the first took {load.seen[0].took:.1f} s, {len(waited)} waited over a second, "
            f"the last ones {quickest(load.seen[-10:]):.0f} ms"
        )
        # The first time from Ready on, when it had looked for a while.
        assert number == 0 or gone >= GRACE
        assert load.failed == [], load.failed[:3]
        assert load.seen[0].took > 1, "somebody had to wait for a pod"
    down(lab, space, NAME)


def quickest(seen: list[Seen]) -> float:
    """Milliseconds of the quickest of these."""
    return 1000 * min(one.took for one in seen)


def follow(lab: KindLab, space: str, wanted: int) -> tuple[list[int], float]:
    """Wait until there have been so many pods for half a minute; give the numbers before, and the seconds until then.

    A load that doubles makes Knative panic: it goes by six seconds then, which may ask for more, and takes no pod away
    before its window is over without another reason.
    """
    start = since = time.monotonic()
    numbers: list[int] = []

    def settled() -> bool:
        nonlocal since
        now = ready(lab, space)
        if not numbers or numbers[-1] != now:
            numbers.append(now)
            since = time.monotonic()
        return now == wanted and time.monotonic() - since > STEADY

    wait_for(lab, space, NAME, settled, f"{wanted} pods", PATIENCE + STEADY)
    return numbers, since - start


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(400)
def test_pods_follow_the_load(with_knative: KindLab, space: str) -> None:
    """By Knative's formula: the average over its window, by what one pod is to bear and the part of that it aims at."""
    lab, target = with_knative, 8
    trait = {
        "type": "autoscale",
        "properties": {"engine": "kpa", "metric": "qps", "target": target, "minReplicas": 1, "maxReplicas": 4},
    }
    client = deploy(lab, space, trait)
    wait_until(lambda: client.send("/v2/health/ready").ok, what="an answer", timeout=60, every=0.25)
    borne = target * UTILIZATION
    loads = []
    for before, rate in pairwise((0.0, 4.0, 14.0, 4.0)):
        wanted = ceil(rate / borne)
        with steady(client, PATH, ONE_NUMBER, rate, 2 * PATIENCE) as load:
            numbers, took = follow(lab, space, wanted)
        print(
            f"{rate:.0f} requests a second: {wanted} pods, and no other number any more, after {took:.0f} s: {numbers}"
        )
        loads.append(load)
        if rate < before:
            # Pods go by the average of the window, which falls evenly from one rate to the other.
            assert numbers == sorted(numbers, reverse=True), "a pod came back while the load fell"
            expected = WINDOW * (before - wanted * borne) / (before - rate)
            assert expected - 10 <= took <= expected + 30, expected
    failed = [one for load in loads for one in load.failed]
    print(f"{sum(len(load.seen) for load in loads)} requests, {len(failed)} failed")
    assert failed == []
    down(lab, space, NAME)


@dataclass
class OfKnative(Rollout):
    """As a user writes it: the mode of the component says that KServe splits."""

    @property
    def host(self) -> str:
        return f"{self.name}-predictor-{self.space}.{knative.DOMAIN}"

    @property
    def step(self) -> dict[str, Any]:
        return {"component": self.name, **QUICK, **self.settings}

    def up(self, uri: str, **more: Any) -> None:
        super().up(uri, **{"deploymentMode": "knative", **more})


#: Requests a second.
RATE = 10.0


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(400)
def test_a_good_version_is_promoted_and_a_bad_one_goes_back(with_knative: KindLab, space: str) -> None:
    lab = with_knative
    rollout = OfKnative(lab, space, "rolls")
    rollout.up(put_version(lab, space, 1))
    rollout.wait("done", revision=1)
    rollout.wait_answered()

    with steady(rollout.client, ROLLOUT_PATH, ROLLOUT_BODY, RATE, 900) as load:
        rollout.up(put_version(lab, space, 2))
        rollout.wait("done", "failed", revision=2)
        time.sleep(5)
        at_end = time.perf_counter() - load.start - 3
    told(rollout, load)
    assert rollout.phase == "done", rollout.state
    assert load.failed == [], load.failed[:3]
    assert list(dict.fromkeys(one["weight"] for one in rollout.history)) == [0, 10, 50, 100]
    versions = [(one.at, answer_of(one.text)) for one in load.seen]
    assert {version for _, version in versions} == {1, 2}
    assert {version for at, version in versions if at > at_end} == {2}

    with steady(rollout.client, ROLLOUT_PATH, ROLLOUT_BODY, RATE, 900) as load:
        rollout.up(put_version(lab, space, 3, "error"))
        rollout.wait("done", "failed", revision=3)
        back = time.perf_counter() - load.start
        time.sleep(10)
    told(rollout, load)
    assert rollout.phase == "failed", rollout.state
    assert re.search(r"success ratio 0(\.\d+)? < 0\.99.* in 2 checks at 10 %", rollout.state["reason"])
    assert 0 < len(load.failed) <= 0.2 * len(load.seen)
    # It serves version 2 again, and nobody else failed.
    assert {(one.status, answer_of(one.text)) for one in load.seen if one.at > back + 5} == {(200, 2)}
    assert {answer_of(one.text) for one in load.seen if one.status == requests.codes.ok} == {2}
    down(lab, space, "rolls")


def told(rollout: OfKnative, load: Load) -> None:
    """What the run was, for who reads it."""
    shown = Counter(answer_of(one.text) if one.status == requests.codes.ok else one.status for one in load.seen)
    print(f"{rollout.phase}: {len(load.seen)} requests, {len(load.failed)} failed, by version {dict(shown)}")
    print(f"{rollout.state.get('reason', '')} {[(one['row'], one['weight']) for one in rollout.history]}")


def shares(lab: KindLab, space: str, name: str) -> dict[str, int]:
    """What each revision gets, as Knative says."""
    found = lab.api.get("serving.knative.dev/v1", "Service", f"{name}-predictor", space) or {}
    traffic = found.get("status", {}).get("traffic") or []
    return {str(one["revisionName"]): int(one.get("percent", 0)) for one in traffic}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(200)
def test_a_canary_gets_its_weight(with_knative: KindLab, space: str) -> None:
    lab, name, weight, number = with_knative, "split", 30, 1000
    common = {"runtime": "triton", "modelName": "which", "minReplicas": 1, "resources": SMALL}
    properties = {**common, "deploymentMode": "knative", "modelUri": put_version(lab, space, 1)}
    canary = {"type": "canary", "properties": {"weight": weight, "modelUri": put_version(lab, space, 2)}}
    up(lab, space, name, properties)
    client = Client(lab, space, name)
    client.host = f"{name}-predictor-{space}.{knative.DOMAIN}"
    wait_for(lab, space, name, lambda: client.send(ROLLOUT_PATH, ROLLOUT_BODY).ok, "an answer")
    old, new = (f"{name}-predictor-0000{one}" for one in (1, 2))
    with steady(client, ROLLOUT_PATH, ROLLOUT_BODY, RATE, 600) as load:
        up(lab, space, name, properties, canary)
        asked = {new: weight, old: 100 - weight}
        wait_for(lab, space, name, lambda: shares(lab, space, name) == asked, f"{weight} % for the new version")
        # The ingress may be seconds behind what is written.
        wait_until(
            lambda: answer_of(client.send(ROLLOUT_PATH, ROLLOUT_BODY).text) == 2,
            what="version 2",
            timeout=120,
            every=0.05,
        )
        time.sleep(3)
        split = crowd(client, ROLLOUT_PATH, lambda _: ROLLOUT_BODY, number, 8)
        wait_healthy(lab, space, name)
    shown = Counter(answer_of(one.text) for one in split.seen if one.status == requests.codes.ok)
    print(f"{len(load.seen)} requests, {len(load.failed)} failed; {shown[2]} of {number} by the new version")
    assert load.failed == []
    assert split.failed == []
    # Envoy draws lots: 6 points are four standard deviations.
    assert abs(100 * shown[2] / number - weight) <= 6, shown
    down(lab, space, name)
