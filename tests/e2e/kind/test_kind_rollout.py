"""The step rollout-model under real traffic: a good version loses no request, a bad one goes back by itself.

Requests come in at a fixed rate whatever becomes of them; each is counted, and its answer names the version.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from benchmarks.kind import Load, crowd, down, steady
from benchmarks.rollout.live import (
    BODY,
    CHANGES,
    PATH,
    Rollout,
    answer_of,
    kill_vela_core,
    put_judge,
    put_version,
    settings_for,
)

from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab
from velagen.lab.vela import vela

#: Requests a second.
RATE = 10.0
#: Seconds after which requests end, whatever the cluster does.
LONGEST = 900.0
#: What the reason of a version that goes back says.
BAD = {
    "error": r"success ratio 0(\.\d+)? < 0\.99.* in 2 checks at 10 %",
    # Its server is down when it is looked at, or what it left unanswered is counted.
    "crash": r"(was not ready|success ratio 0(\.\d+)? < 0\.99).* in 2 checks at 10 %",
    "slow": r"latency \(p95\) [\d.]+ ms > 700 ms.* in 2 checks at 10 %",
    # With the last of what the server said.
    "load": r"was not ready within 60 s: ModelLoadFailed: … .{150,200}failed to load all models ?$",
    "overload": r"(was not ready|success ratio 0(\.\d+)? < 0\.99).* in 2 checks at 50 %",
    "wrong": r"webhook golden-answers: 5 of 5 answers differ.* in 2 checks at 10 %",
    "vanish": r"no verdict in 4 checks at 10 %: the number of requests is not known",
}
#: Its share of the traffic when it is caught, at most.
CAUGHT_AT = {"error": 10, "crash": 10, "slow": 10, "load": 0, "overload": 50, "wrong": 10, "vanish": 10}


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


@pytest.mark.alone
@pytest.mark.seconds(200)
@pytest.mark.parametrize("faults", [("error", "crash", "slow"), ("load", "overload", "wrong", "vanish")], ids="-".join)
def test_bad_versions_go_back_by_themselves(kind_lab: KindLab, space: str, faults: tuple[str, ...]) -> None:
    """Models at once, each with a version that is bad in another way."""
    kind_lab.load(["tritonserver", "object-store"])
    if "wrong" in faults:
        put_judge(kind_lab, space)
    rollouts = {fault: Rollout(kind_lab, space, fault, settings_for(fault, space)) for fault in faults}
    first = put_version(kind_lab, space, 1)
    for one in rollouts.values():
        one.up(first)
    for one in rollouts.values():
        one.wait("done", revision=1)
        one.wait_answered()
    before = {fault: generation(one) for fault, one in rollouts.items()}
    back: dict[str, float] = {}
    with ExitStack() as stack:
        start = time.perf_counter()
        loads = {
            fault: stack.enter_context(steady(one.client, PATH, BODY, RATE, LONGEST)) for fault, one in rollouts.items()
        }
        for fault, one in rollouts.items():
            one.up(put_version(kind_lab, space, 2, fault), **CHANGES.get(fault, {}))
        for fault, one in rollouts.items():
            one.wait("failed", "done", revision=2)
            one.wait_weight(0)
            back[fault] = time.perf_counter() - start
        time.sleep(5)
    for fault, one in rollouts.items():
        load, words, share = loads[fault], BAD[fault], CAUGHT_AT[fault]
        reason = one.state["reason"]
        wrong = [seen for seen in load.seen if seen.status == 200 and answer_of(seen.text) not in (1, 2)]
        print(f"{fault}: {len(load.seen)} requests, {len(load.failed)} failed, {len(wrong)} wrong; {reason}")
        assert one.phase == "failed"
        assert re.search(words, reason), reason
        # It never got more than that step's share, of which this is far above what chance gives.
        touched = [seen for seen in load.seen if seen.status != 200 or answer_of(seen.text) != 1]
        assert len(touched) <= (share / 100 + 0.15 if share else 0) * len(load.seen)
        after = [seen for seen in load.seen if seen.at > back[fault] + 2]
        assert after
        assert {(seen.status, answer_of(seen.text)) for seen in after} == {(200, 1)}
        # The stable version was not touched.
        assert generation(one) == before[fault]
        service = kind_lab.api.get("serving.kserve.io/v1beta1", "InferenceService", fault, space)
        assert condition(service, "Ready") == "True"
        told = [event for event in kind_lab.api.list("v1", "Event", space) if event.get("reason") == "RolledBack"]
        assert any(reason in event["message"] for event in told)
    for fault in rollouts:
        down(kind_lab, space, fault)


def failures(load: Load) -> list[tuple[float, float, int, str]]:
    """The first and the last ones that failed: when, after how long, and how."""
    told = [(round(one.at, 1), round(one.took, 1), one.status, one.text[:80]) for one in load.failed]
    return [*told[:3], *told[-3:]]


def generation(rollout: Rollout) -> int:
    """Of the stable version's Deployment."""
    found = rollout.lab.api.get("apps/v1", "Deployment", f"{rollout.name}-predictor", rollout.space)
    assert found
    return int(found["metadata"]["generation"])
