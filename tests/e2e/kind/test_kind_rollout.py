"""The step rollout-model under real traffic: a good version comes in without a failed request.

Requests come in at a fixed rate whatever becomes of them; each is counted, and its answer names the version.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from tests.e2e.kind.rollouts import BODY, PATH, Rollout, answer_of, put_version
from tests.e2e.kind.serving import Load, crowd, down, steady

from velagen.lab import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.vela import vela

#: Requests a second.
RATE = 10.0
#: Seconds after which requests end, whatever the cluster does.
LONGEST = 900.0


def kill_vela_core(lab: KindLab) -> None:
    """Its pod ends without a word, as by a node that fails; another takes its place."""
    selector = "app.kubernetes.io/name=vela-core"
    (pod,) = lab.api.list("v1", "Pod", "vela-system", selector=selector)
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "-n", "vela-system", "--grace-period=0", "--force")


@pytest.mark.alone
@pytest.mark.seconds(180)
def test_a_good_version_is_promoted_without_a_failed_request(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["tritonserver"])
    rollout = Rollout(kind_lab, space, "good")
    rollout.up(put_version(kind_lab, space, 1))
    rollout.wait("done", revision=1)
    rollout.wait_answered()
    second = put_version(kind_lab, space, 2)
    client = rollout.client
    start = time.perf_counter()
    with steady(client, PATH, BODY, RATE, LONGEST) as load:
        rollout.up(second)
        rollout.wait_weight(10)
        at_ten = time.perf_counter() - start
        # The gateway may be seconds behind what is written.
        wait_until(lambda: answer_of(client.send(PATH, BODY).text) == 2, what="version 2", timeout=120, every=0.05)
        # A person holds it, and looks closely.
        vela(kind_lab.kubeconfig, "workflow", "suspend", "good", "-n", space)
        assert rollout.weight == 10
        split = crowd(client, PATH, lambda _: BODY, 2000, 8)
        assert rollout.weight == 10
        vela(kind_lab.kubeconfig, "workflow", "resume", "good", "-n", space)
        rollout.wait_weight(50)
        kill_vela_core(kind_lab)
        rollout.wait("done", revision=2)
        done = time.perf_counter() - start
        time.sleep(3)
    shown = Counter(answer_of(one.text) for one in split.seen if one.status == 200)
    print(
        f"{len(load.seen)} requests in {done:.0f} s, {len(load.failed)} failed;"
        f" {100 * shown[2] / 2000:.1f} % of 2000 at weight 10"
    )
    assert not load.failed, (failures(load), rollout.history)
    assert not split.failed, split.failed[:5]
    # Envoy draws lots: 2 points are three standard deviations.
    assert abs(100 * shown[2] / 2000 - 10) <= 2, shown
    answers = [(one.at, answer_of(one.text)) for one in load.seen]
    assert {version for _, version in answers} == {1, 2}
    assert {version for at, version in answers if at < at_ten - 5} == {1}
    assert {version for at, version in answers if at > done} == {2}
    assert done + 3 < LONGEST, "the requests ended before the rollout did"
    weights = [one["weight"] for one in rollout.history]
    assert list(dict.fromkeys(weights)) == [0, 10, 50, 100]
    assert kind_lab.api.get("serving.kserve.io/v1beta1", "InferenceService", "good-canary", space) is None
    down(kind_lab, space, "good")


def failures(load: Load) -> list[tuple[float, float, int, str]]:
    """The first and the last ones that failed: when, after how long, and how."""
    told = [(round(one.at, 1), round(one.took, 1), one.status, one.text[:80]) for one in load.failed]
    return [*told[:3], *told[-3:]]
