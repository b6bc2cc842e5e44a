"""The trait autoscale with a real KEDA: pods follow an open-loop load by the article's formula.

Prometheus is the lab's, the model is a real Triton's, and requests come through the gateway at a set rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import pytest
from benchmarks.autoscale.policies import GATE, RUNS_OF, by_answers, counted, gate, holds, play
from benchmarks.rollout.live import BODY as ROLLOUT_BODY
from benchmarks.rollout.live import PATH as ROLLOUT_PATH
from benchmarks.rollout.live import Rollout, put_version
from tests import budget
from tests.e2e.kind.serving import (
    ONE_NUMBER,
    SMALL,
    WAITING_MODEL,
    Client,
    Load,
    down,
    pods,
    put_model,
    steady,
    triton_config,
    up,
    wait_ready,
)

from velagen.autoscaling import TOLERANCE, article
from velagen.lab import condition, wait_until
from velagen.lab.api import Api
from velagen.lab.kind import KindLab, keda, prometheus, stack
from velagen.lab.kind.certs import Pair
from velagen.lab.vela import vela
from velagen.scaling.record import rows

NAME = "scales"
PATH = f"/v2/models/{NAME}/infer"
#: One pod for each 10 requests a second.
MILLISECONDS = 8
LEAST, MOST = 2, 6
#: Requests a second, and none of them near a number of pods at which the tolerance begins.
QUIET, PLATEAUS = 4.0, (28.0, 48.0)
#: Seconds after which pods go, and of the rates: the shortest that the trait takes.
LULL = 30
WINDOW = 30
#: Seconds from a load's begin to its pods: the window, two looks of KEDA's, two of Kubernetes', and a pod's start.
PATIENCE = 180.0
#: What the trait says where KEDA gets no answer.
BLIND = "KEDA gets no answer"
#: Seconds without numbers: more than it takes to go down where they say so.
OUTAGE = WINDOW + LULL + 30.0

TRAIT: dict[str, Any] = {
    "type": "autoscale",
    "properties": {
        "metric": "qps",
        "policy": "article",
        "targetLatencyMilliseconds": MILLISECONDS,
        "source": "envoy",
        "window": f"{WINDOW}s",
        "minReplicas": LEAST,
        "maxReplicas": MOST,
        "pollingSeconds": 5,
        "scaleDownSeconds": LULL,
    },
}


@pytest.fixture
def with_keda(kind_lab: KindLab) -> Iterator[KindLab]:
    """The lab with KEDA in it, which leaves again where it was not there."""
    if kind_lab.assembled:
        budget.leave_out_if_unbuilt(list(keda.IMAGES.values()))
    if kind_lab.api.get("v1", "Namespace", keda.NAMESPACE):
        yield kind_lab
        return
    try:
        stack.install(kind_lab, ["keda"], None)
        yield kind_lab
    finally:
        remove(kind_lab.api)


def remove(api: Api) -> None:
    """Take KEDA out of the cluster again; its CRDs stay."""
    # KEDA itself lets them go.
    wait_until(lambda: not api.list("keda.sh/v1alpha1", "ScaledObject"), what="no ScaledObject", timeout=60, every=0.5)
    _, things = keda.objects(Pair(b"", b""))
    # The API first: discovery, and with it the end of every namespace, would wait for a server that is gone.
    for thing in reversed(things):
        metadata = thing["metadata"]
        api.delete(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace"))
    wait_until(lambda: not api.get("v1", "Namespace", keda.NAMESPACE), what="the end of KEDA", timeout=120, every=0.5)


@dataclass
class Watch:
    """How many pods a model was to have, each second somebody looked."""

    lab: KindLab
    space: str
    #: Changes alone, and the seconds at which they were seen.
    seen: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> int:
        thing = self.lab.api.get("apps/v1", "Deployment", f"{NAME}-predictor", self.space) or {}
        now = int(thing["spec"]["replicas"])
        if not self.seen or self.seen[-1][1] != now:
            self.seen.append((time.monotonic(), now))
        return now

    def until(self, right: Callable[[], Any], what: str, longest: float) -> float:
        """Look until something is so, and give how long it took."""
        start = time.monotonic()

        def found() -> bool:
            self.look()
            return bool(right())

        try:
            wait_until(found, what=what, timeout=longest, every=1)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.numbers(0)}\n{self.why()}") from error
        return time.monotonic() - start

    def during(self, seconds: float) -> None:
        """Look for so long."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "the end", seconds + 60)

    def numbers(self, since: float) -> list[int]:
        """The numbers of pods that were wanted, each as long as it stayed."""
        before = [number for at, number in self.seen if at < since]
        return [*before[-1:], *(number for at, number in self.seen if at >= since)]

    def why(self) -> str:
        scaled = self.lab.kubectl("get", "scaledobject,hpa", "-n", self.space, "-o", "yaml")
        return f"{scaled[-4000:]}\n{self.lab.pods(self.space)}"

    def ready(self) -> int:
        found = pods(self.lab, self.space, NAME)
        return sum(condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"] for pod in found)


def by_the_formula(rate: float, number: int) -> bool:
    """Whether Kubernetes leaves this number of pods alone at this rate."""
    asked = max(LEAST, article(rate, MILLISECONDS))
    return number == ceil(asked) or abs(asked / number - 1) <= TOLERANCE


def rate_of(load: Load) -> float:
    return (len(load.seen) - 1) / (load.seen[-1].at - load.seen[0].at)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(780)
def test_pods_follow_the_load_and_hold_without_numbers(with_keda: KindLab, space: str) -> None:
    lab = with_keda
    lab.load(["tritonserver"])
    config = triton_config(NAME, "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]")
    uri = put_model(lab, NAME, {f"{NAME}/config.pbtxt": config, f"{NAME}/1/model.py": WAITING_MODEL})
    up(lab, space, NAME, {"runtime": "triton", "modelUri": uri, "modelName": NAME, "resources": SMALL}, TRAIT)
    wait_ready(lab, space, NAME)
    watch = Watch(lab, space)
    client = Client(lab, space, NAME)
    watch.until(lambda: watch.ready() == LEAST, f"{LEAST} pods", PATIENCE)
    watch.until(lambda: healthy(lab, space), "a healthy application", 60)

    # Up, by two steps, each with the time in which it could change its mind.
    with steady(client, PATH, ONE_NUMBER, PLATEAUS[0], 2 * PATIENCE) as load:
        climb(watch, PLATEAUS[0])
    loads = [load]
    with steady(client, PATH, ONE_NUMBER, PLATEAUS[1], 4 * PATIENCE + OUTAGE) as load:
        climb(watch, PLATEAUS[1])
        with_keda_anew(watch)
        without_numbers(watch)
    loads.append(load)
    for rate, load in zip(PLATEAUS, loads, strict=True):
        print(f"{rate_of(load):.1f} requests a second where {rate} were to be sent")

    # Down.
    with steady(client, PATH, ONE_NUMBER, QUIET, 2 * PATIENCE) as load:
        start = time.monotonic()
        took = watch.until(lambda: watch.ready() == LEAST, f"{LEAST} pods", PATIENCE)
        watch.during(LULL)
        falling = watch.numbers(start)
        print(f"{QUIET} requests a second: {LEAST} pods after {took:.0f} s, {falling}")
    loads.append(load)
    assert falling == sorted(set(falling), reverse=True), "a pod came back while the load fell"
    assert falling[-1] == LEAST

    failed = [one for load in loads for one in load.failed]
    print(f"{sum(len(load.seen) for load in loads)} requests, {len(failed)} failed")
    assert failed == []
    down(lab, space, NAME)


def climb(watch: Watch, rate: float) -> None:
    """Wait for the formula's pods while a load comes in."""
    start = time.monotonic()
    wanted = max(LEAST, ceil(article(rate, MILLISECONDS)))
    took = watch.until(lambda: watch.ready() == wanted, f"{wanted} pods at {rate} requests a second", PATIENCE)
    watch.during(LULL)
    numbers = watch.numbers(start)
    print(f"{rate} requests a second: {wanted} pods after {took:.0f} s, {numbers}")
    assert numbers == sorted(set(numbers)), "a pod went while the load rose"
    assert by_the_formula(rate, numbers[-1])


def with_keda_anew(watch: Watch) -> None:
    """End both of KEDA's pods under load; others come."""
    lab = watch.lab
    held = watch.look()
    left = time.monotonic()
    lab.kubectl("delete", "pods", "--all", "-n", keda.NAMESPACE)
    for name in keda.IMAGES:
        lab.wait_deployment(keda.NAMESPACE, name)
    watch.during(LULL)
    took = watch.until(lambda: is_fed(lab, watch.space), "numbers from the new KEDA", PATIENCE)
    print(f"{LULL + took:.0f} s after KEDA's pods were ended Kubernetes has numbers")
    watch.during(LULL)
    assert watch.numbers(left) == [held], "pods changed, and the load did not"


def without_numbers(watch: Watch) -> None:
    """Take Prometheus away under load, for longer than Kubernetes remembers, and bring it back with nothing in it."""
    lab, space = watch.lab, watch.space
    deployment = ("deployment", prometheus.NAME, "-n", prometheus.NAMESPACE)
    held = watch.look()
    assert BLIND not in told(lab, space)
    left = time.monotonic()
    lab.kubectl("scale", *deployment, "--replicas=0")
    try:
        watch.until(lambda: BLIND in told(lab, space), "the sentence", OUTAGE)
        print(f"without Prometheus it is said after {time.monotonic() - left:.0f} s: {told(lab, space)}")
        # It serves on: a workflow must not wait for Prometheus.
        assert healthy(lab, space)
        assert BLIND in vela(lab.kubeconfig, "status", NAME, "-n", space).stdout
        watch.during(OUTAGE - (time.monotonic() - left))
    finally:
        lab.kubectl("scale", *deployment, "--replicas=1")
        lab.wait_deployment(prometheus.NAMESPACE, prometheus.NAME)
    took = watch.until(lambda: is_fed(lab, space) and BLIND not in told(lab, space), "numbers again", PATIENCE)
    # Its first rates are of a window that is not full.
    watch.during(WINDOW + LULL)
    print(f"{took:.0f} s after Prometheus was back Kubernetes has numbers")
    assert watch.numbers(left) == [held], "pods changed, and the load did not"


def is_fed(lab: KindLab, space: str) -> bool:
    """Whether Kubernetes' autoscaler gets numbers."""
    found = lab.api.get("autoscaling/v2", "HorizontalPodAutoscaler", f"keda-hpa-{NAME}-autoscale", space)
    return condition(found, "ScalingActive") == "True"


def services(lab: KindLab, space: str) -> list[dict[str, Any]]:
    """What `vela status` says of the component, from where it takes it: starting vela each time is dear."""
    status = (lab.api.get("core.oam.dev/v1beta1", "Application", NAME, space) or {}).get("status", {})
    return list(status.get("services") or [])


def told(lab: KindLab, space: str) -> str:
    """What it says of the trait."""
    traits = [trait for one in services(lab, space) for trait in one.get("traits") or []]
    return " ".join(str(trait.get("message", "")) for trait in traits)


def healthy(lab: KindLab, space: str) -> bool:
    found = services(lab, space)
    return bool(found) and all(one.get("healthy") for one in found)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(240)
def test_a_rollout_has_the_pods_for_all_requests(with_keda: KindLab, space: str) -> None:
    """By its share alone either version would have fewer: of 28 requests a second half are two pods' by the formula."""
    lab, name, rate, wanted = with_keda, "grows", PLATEAUS[0], 3
    lab.load(["tritonserver"])
    rollout = Rollout(lab, space, name)
    trait = {**TRAIT, "properties": {**TRAIT["properties"], "maxReplicas": 4}}
    rollout.up(put_version(lab, space, 1), minReplicas=LEAST, traits=[trait])
    rollout.wait("done", revision=1)
    rollout.wait_answered()

    def number(of: str) -> int:
        found = lab.api.get("apps/v1", "Deployment", f"{of}-predictor", space) or {}
        return int(found.get("spec", {}).get("replicas", 0))

    #: With which weight, and how many pods the component and the candidate had: each once.
    seen: dict[tuple[int, int, int], None] = {}

    def look() -> bool:
        seen[rollout.weight, number(name), number(f"{name}-canary")] = None
        return rollout.phase in ("done", "failed") and not rollout.has_candidate

    with steady(rollout.client, ROLLOUT_PATH, ROLLOUT_BODY, rate, 900) as load:
        wait_until(lambda: number(name) >= wanted, what=f"{wanted} pods", timeout=PATIENCE, every=1)
        rollout.up(put_version(lab, space, 2), minReplicas=LEAST, traits=[trait])
        rollout.wait("prepare", "warm", "step", revision=2)
        wait_until(look, what="the end of the rollout", timeout=600, every=0.5)
        time.sleep(3)
    print(f"{len(load.seen)} requests, {len(load.failed)} failed; weight, pods, candidate's: {list(seen)}")
    assert rollout.phase == "done", rollout.state
    assert not load.failed, load.failed[:5]
    assert {weight for weight, _, _ in seen} == {0, 10, 50, 100}
    assert all(pods_of_stable >= wanted for _, pods_of_stable, _ in seen), seen
    assert all(pods_of_new >= wanted for weight, _, pods_of_new in seen if weight), seen
    down(lab, space, name)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.seconds(360)
def test_of_several_metrics_and_the_clock_the_one_that_asks_for_most_is_followed(with_keda: KindLab) -> None:
    """Requests a second, Little's law, and a minute by the clock."""
    with_keda.load(["python"])
    record = play(with_keda, RUNS_OF["several"], print)
    found = list(zip(record.spans, rows(record), strict=True))
    print([(span.what, row.pods, row.ready, by_answers(record, span)) for span, row in found])
    # What is asked for most is what runs, within Kubernetes' tolerance.
    assert all(holds(record, span, row) for span, row in found)
    assert [found[place][1].ready for place in (0, 2, 4)] == [2, MOST, 2]
    # Of 28 requests a second the first metric asks for two pods, and the second for three or more: a busy machine adds
    # to the time of a request.
    assert found[1][1].ready >= 3
    assert found[3][1].ready >= 3
    for place, by_clock in ((1, False), (2, True), (3, False)):
        *_, (first, second, clock) = [one for at, one in record.answers if at <= record.spans[place].end]
        assert first is not None
        assert second is not None
        assert (ceil(first), second > first, clock == MOST) == (2, True, by_clock)


@pytest.mark.slow
@pytest.mark.seconds(540)
def test_an_autoscaler_without_an_answer_rings_where_requests_come_in(with_keda: KindLab, space: str) -> None:
    """One that nobody asks has no answer either, and is well."""
    lab = with_keda
    lab.load(["tritonserver"])
    config = triton_config(NAME, "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]")
    uri = put_model(lab, NAME, {f"{NAME}/config.pbtxt": config, f"{NAME}/1/model.py": WAITING_MODEL})
    query = f'kube_configmap_info{{namespace="{space}",configmap="{GATE}"}}'
    custom = {"metric": "custom", "query": query, "target": 1, "maxReplicas": 2, "pollingSeconds": 5}
    scaler = {"type": "autoscale", "properties": custom}
    models = ("asked", "left")
    for name in models:
        up(lab, space, name, {"runtime": "triton", "modelUri": uri, "modelName": NAME, "resources": SMALL}, scaler)
    for name in models:
        wait_ready(lab, space, name)

    def number(query: str, name: str) -> float | None:
        matchers = query.replace("MODEL", name).replace("SPACE", space)
        return counted(lab.url("prometheus"), matchers)

    silent = (
        "kube_horizontalpodautoscaler_status_condition{namespace='SPACE',condition='ScalingActive',status='false',"
        "horizontalpodautoscaler='keda-hpa-MODEL-autoscale'}"
    )
    known = "ALERTS{alertname='ModelScalerHasNoAnswer',namespace='SPACE',version='MODEL'}"
    firing = known.replace("}", ",alertstate='firing'}")
    with steady(Client(lab, space, "asked"), PATH, ONE_NUMBER, 4, 900):
        began = time.monotonic()
        wait_until(lambda: all(number(silent, one) == 1 for one in models), what="no numbers", timeout=90, every=2)
        wait_until(lambda: number(firing, "asked") == 1, what="the alert", timeout=420, every=2)
        print(f"it rings after {time.monotonic() - began:.0f} s")
        # The other one has been without numbers as long: it would ring by now.
        time.sleep(30)
        assert number(silent, "left") == 1
        assert (number(known, "asked"), number(known, "left")) == (1, None)
        gate(lab.api, space)
        began = time.monotonic()
        wait_until(lambda: number(firing, "asked") is None, what="the end of the alert", timeout=120, every=2)
        print(f"it is over {time.monotonic() - began:.0f} s after there is an answer")
    for name in models:
        down(lab, space, name)
