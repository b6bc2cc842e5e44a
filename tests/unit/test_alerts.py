"""The alerts: each fires, does not fire beside it, resolves, and without data only what tells of it rings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.promtool import holds, of_pod, selector, series

from velagen.monitoring.alerts import alerts
from velagen.monitoring.objectives import of_component
from velagen.monitoring.objects import all_groups
from velagen.monitoring.rules import INFO, Alert, Rule, recording_rules, rules_file
from velagen.monitoring.sources import CLUSTER, GPU

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks"
_READ = " ".join((INFO, *(rule.expr for rule in alerts().rules)))
#: The alerts, and of all records those that they read, as promtool takes its time for each.
RULES = rules_file(
    (
        *(
            replace(group, rules=kept)
            for group in recording_rules()
            if (kept := tuple(rule for rule in group.rules if isinstance(rule, Rule) and rule.record in _READ))
        ),
        alerts(),
    )
)
ALERTS = [rule for rule in alerts().rules if isinstance(rule, Alert)]

Input = dict[str, str]


def deployment(name: str, values: str, of: str = "m-predictor", **labels: str) -> Input:
    return series(name, values, namespace="team", deployment=of, **labels)


def pod(name: str, values: str, of: str = "m-predictor-6f7-abcde", **labels: str) -> Input:
    return series(name, values, namespace="team", pod=of, **labels)


def scaler(name: str, values: str, of: str = "keda-hpa-m-autoscale", **labels: str) -> Input:
    return series(name, values, namespace="team", horizontalpodautoscaler=of, **labels)


def chooses(of: str = "keda-hpa-m-autoscale") -> list[Input]:
    """An autoscaler at one pod that may have three."""
    numbers = ((CLUSTER.scaler_now, "1x60"), (CLUSTER.scaler_least, "1x60"), (CLUSTER.scaler_most, "3x60"))
    return [scaler(name, values, of) for name, values in numbers]


def rollout(values: str, phase: str, check: str = "none", of: str = "m") -> Input:
    told = {"component": of, "phase": phase, "check": check, "weight": "10"}
    labels = {f"label_rollout_velagen_{name}": value for name, value in told.items()}
    return series(CLUSTER.rollout, values, namespace="team", configmap=f"{of}-rollout", **labels)


def written(values: str) -> Input:
    """The version of the object, which grows whenever the step writes its state."""
    return series(CLUSTER.rollout_version, values, namespace="team", configmap="m-rollout")


#: What is there when all is well: the pods are available and scraped.
WELL = [deployment(CLUSTER.available, "1x240"), deployment(CLUSTER.wanted, "1x240"), of_pod("up", "1x240")]


def rings(at: str, *names: str, version: str | None = "m") -> dict[str, Any]:
    """These alerts and no other are firing at a time."""
    whose = {} if version is None else {"namespace": "team", "version": version}
    return {
        "expr": 'count by (alertname, namespace, version) (ALERTS{alertstate="firing"})',
        "eval_time": at,
        "exp_samples": [{"labels": selector({"alertname": name, **whose}), "value": 1} for name in names],
    }


def case(inputs: list[Input], *tests: dict[str, Any]) -> dict[str, Any]:
    return {"interval": "1m", "input_series": inputs, "promql_expr_test": list(tests)}


def but(*names: str) -> list[Input]:
    """What is there when all is well, but for some series."""
    return [one for one in WELL if not one["series"].startswith(tuple(f"{name}{{" for name in names))]


def test_each_alert_fires_and_resolves(tmp_path: Path) -> None:
    broken = "{0}x9 {1}x20 {0}x30"

    def seen(alert: str, *inputs: Input, without: tuple[str, ...] = (), fires: str = "28m") -> dict[str, Any]:
        return case([*but(*without), *inputs], rings("9m"), rings(fires, alert), rings("58m"))

    failing = {"container": "kserve-container", "reason": "CrashLoopBackOff"}
    bringing = {"container": "storage-initializer", "reason": "Error"}
    gpu = {"container": "kserve-container", "resource": "nvidia_com_gpu"}
    of_transformer = "keda-hpa-m-transformer-autoscale"
    stuck = {"condition": "Progressing", "status": "false"}
    silent = {"condition": "ScalingActive", "status": "false"}
    cases = {
        # At once it is down; later it may be that it never comes.
        "ModelDown": case(
            [*but(CLUSTER.available), deployment(CLUSTER.available, "1x9 0x2 1x9 0x6 1x30")],
            rings("9m"),
            rings("11m", "ModelDown"),
            # Back for less than a minute, and then longer.
            rings("13m", "ModelDown"),
            rings("15m"),
            rings("26m", "ModelDown"),
            rings("29m", "ModelDown", "ModelNotReady"),
            rings("58m"),
        ),
        "ModelNotReady": seen(
            "ModelNotReady", deployment(CLUSTER.available, broken.format(1, 0)), without=(CLUSTER.available,)
        ),
        "ModelLoadFailed": seen("ModelLoadFailed", pod(CLUSTER.waiting, broken.format(0, 1), **failing)),
        "of the storage initializer": seen("ModelLoadFailed", pod(CLUSTER.init_waiting, "_x9 1x20 stale", **bringing)),
        "ModelServerRestarts": seen(
            "ModelServerRestarts",
            pod(CLUSTER.restarts, "0x9 0+1x20 20x40", container="kserve-container"),
        ),
        "ModelPendingForGpu": seen(
            "ModelPendingForGpu",
            pod(CLUSTER.unschedulable, broken.format(0, 1)),
            pod(CLUSTER.requests, "1x60", **gpu),
        ),
        "ModelRolloutStuck": seen(
            "ModelRolloutStuck", deployment(CLUSTER.deployment_condition, broken.format(0, 1), **stuck)
        ),
        "of the step, whose controller is gone": case(
            [*WELL, rollout("1x90 stale", "step", "good"), rollout("_x91 1x30", "done"), written("7x20 8x70 9x30")],
            rings("20m"),
            # It wrote at 21 minutes.
            rings("60m"),
            rings("80m", "ModelRolloutStuck"),
            rings("100m"),
        ),
        "ModelRolledBack": case(
            [
                *WELL,
                rollout("1x9 stale", "step", "bad"),
                rollout("_x10 1x20 stale", "failed"),
                rollout("_x31 1x30", "done"),
            ],
            rings("9m"),
            rings("10m", "ModelRolledBack"),
            rings("28m", "ModelRolledBack"),
            rings("40m"),
        ),
        "ModelRolloutInconclusive": case(
            [*WELL, rollout("1x9 _x20 1x30", "step", "good"), rollout("_x10 1x19 stale", "step", "inconclusive")],
            rings("19m"),
            rings("28m", "ModelRolloutInconclusive"),
            rings("40m"),
        ),
        "ModelScalerHasNoAnswer": seen(
            "ModelScalerHasNoAnswer",
            scaler(CLUSTER.scaler_condition, broken.format(0, 1), **silent),
            *chooses(),
            of_pod("nv_inference_request_success", "0+60x60"),
        ),
        "of a transformer": case(
            [
                *WELL,
                scaler(CLUSTER.scaler_condition, broken.format(0, 1), of_transformer, **silent),
                *chooses(of_transformer),
                of_pod("nv_inference_request_success", "0+60x60"),
            ],
            rings("9m"),
            rings("28m", "ModelScalerHasNoAnswer", version="m-transformer"),
            rings("58m"),
        ),
        "ModelSaturated": seen(
            "ModelSaturated",
            of_pod("vllm:num_requests_waiting", "0x9 2+2x20 0x40"),
            scaler(CLUSTER.scaler_now, "3x60"),
            scaler(CLUSTER.scaler_most, "3x60"),
        ),
        "ModelScrapeFailed": seen("ModelScrapeFailed", of_pod("up", broken.format(1, 0)), without=("up",)),
        "ModelScrapeMissing": seen("ModelScrapeMissing", of_pod("up", "1x9 _x20 1x30"), without=("up",)),
        "ClusterStateMissing": case(
            [of_pod("up", "1x60"), deployment(CLUSTER.available, "1x9 _x20 1x30"), deployment(CLUSTER.wanted, "1x60")],
            rings("9m"),
            rings("28m", "ClusterStateMissing", version=None),
            rings("58m"),
        ),
        "ModelGpuIdle": case(
            [
                *WELL,
                series(GPU.utilization, "60x9 1x180 60x30", namespace="team", pod="m-predictor-1", UUID="GPU-1"),
            ],
            rings("9m"),
            rings("2h", *()),
            rings("2h30m", "ModelGpuIdle"),
            rings("3h30m"),
        ),
    }
    assert {alert.name for alert in ALERTS} <= set(cases)
    holds(tmp_path, RULES, *cases.values(), every="1m")


def test_what_looks_like_it_does_not_ring(tmp_path: Path) -> None:
    quiet = {
        "no data at all": case([], rings("4m"), rings("30m", "ClusterStateMissing", version=None)),
        "all is well": case(WELL, rings("30m")),
        "scaled to zero": case(
            [
                *but(CLUSTER.available, CLUSTER.wanted, "up"),
                deployment(CLUSTER.available, "0x60"),
                deployment(CLUSTER.wanted, "0x60"),
                scaler(CLUSTER.scaler_condition, "1x60", condition="ScalingActive", status="false"),
                scaler(CLUSTER.scaler_now, "0x60"),
                scaler(CLUSTER.scaler_least, "1x60"),
                scaler(CLUSTER.scaler_most, "3x60"),
            ],
            rings("30m"),
        ),
        "a model that nobody has asked yet, whose server counts or has no series": case(
            [
                *WELL,
                scaler(CLUSTER.scaler_condition, "1x60", condition="ScalingActive", status="false"),
                *chooses(),
                of_pod("nv_inference_request_success", "0x60"),
                scaler(
                    CLUSTER.scaler_condition, "1x60", "keda-hpa-n-autoscale", condition="ScalingActive", status="false"
                ),
                *chooses("keda-hpa-n-autoscale"),
            ],
            rings("30m"),
        ),
        # Scaled by its latency, which is 0/0 a minute after the last request.
        "a model that nobody asks at night": case(
            [
                *WELL,
                scaler(CLUSTER.scaler_condition, "0x10 1x49", condition="ScalingActive", status="false"),
                *chooses(),
                of_pod("nv_inference_request_success", "0+60x9 540x50"),
            ],
            *(rings(f"{minute}m") for minute in range(11, 22)),
        ),
        "an autoscaler of KServe's own, for one pod": case(
            [
                *WELL,
                scaler(CLUSTER.scaler_condition, "1x60", "m-predictor", condition="ScalingActive", status="false"),
                *(
                    scaler(name, "1x60", "m-predictor")
                    for name in (CLUSTER.scaler_now, CLUSTER.scaler_least, CLUSTER.scaler_most)
                ),
            ],
            rings("30m"),
        ),
        "a rollout that goes on, and one that has ended": case(
            [
                *WELL,
                rollout("1x120", "step", "good"),
                written("0+1x120"),
                rollout("1x120", "done", of="other"),
                series(CLUSTER.rollout_version, "3x120", namespace="team", configmap="other-rollout"),
            ],
            rings("30m"),
            rings("110m"),
        ),
        "a rollout that has just begun": case(
            [*WELL, rollout("_x50 1x30", "prepare"), written("_x50 4x30")], rings("60m"), rings("78m")
        ),
        "rollouts whose labels are not told": case(
            [*WELL, series(CLUSTER.rollout, "1x120", namespace="team", configmap="m-rollout"), written("3x120")],
            rings("110m"),
        ),
        "a check without a verdict, now and then": case(
            [*WELL, rollout("1x9 stale", "step", "inconclusive"), rollout("_x10 1x30", "step", "good")],
            rings("9m"),
            rings("30m"),
        ),
        "loaded for the first time, for less than five minutes": case(
            [*but(CLUSTER.available), deployment(CLUSTER.available, "0x3 1x30")], rings("3m"), rings("20m")
        ),
        "called after it was scaled to zero": case(
            [
                *but(CLUSTER.available, CLUSTER.wanted),
                deployment(CLUSTER.available, "1x3 0x6 1x30"),
                deployment(CLUSTER.wanted, "1x3 0x3 1x30"),
            ],
            *(rings(f"{minute}m") for minute in range(3, 13)),
        ),
        "no model's": case(
            [
                *WELL,
                deployment(CLUSTER.available, "0x60", "shop"),
                deployment(CLUSTER.wanted, "1x60", "shop"),
                pod(CLUSTER.waiting, "1x60", "shop-1", container="shop", reason="CrashLoopBackOff"),
                series("up", "0x60", namespace="team", pod="shop-1"),
            ],
            rings("30m"),
        ),
        "restarts of a pod that is gone, and a queue that grew in it": case(
            [
                deployment(CLUSTER.available, "0x60", "other-predictor"),
                pod(CLUSTER.restarts, "0+1x4 stale", container="kserve-container"),
                of_pod("up", "1x4 stale"),
                of_pod("vllm:num_requests_waiting", "2+2x4 stale"),
            ],
            *(rings(f"{minute}m") for minute in (6, 7, 9, 12)),
        ),
        "a restart, once": case([*WELL, pod(CLUSTER.restarts, "0x9 1x60", container="kserve-container")], rings("15m")),
        "a container that is being made": case(
            [*WELL, pod(CLUSTER.waiting, "1x60", container="kserve-container", reason="ContainerCreating")],
            rings("30m"),
        ),
        "pending, without a GPU": case([*WELL, pod(CLUSTER.unschedulable, "1x60")], rings("30m")),
        "the queue grows, and there may be more pods": case(
            [
                *WELL,
                of_pod("vllm:num_requests_waiting", "0+2x60"),
                scaler(CLUSTER.scaler_now, "1x60"),
                scaler(CLUSTER.scaler_most, "3x60"),
            ],
            rings("30m"),
        ),
        "a long queue that does not grow": case([*WELL, of_pod("vllm:num_requests_waiting", "90x60")], rings("30m")),
    }
    holds(tmp_path, RULES, *quiet.values(), every="1m")


def test_each_alert_has_a_page_that_says_what_to_do() -> None:
    groups = (*all_groups(), of_component("shop", "m", "team", []))
    every = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    assert {alert.runbook for alert in every} == {path.name for path in RUNBOOKS.glob("*.md")}
    listed = (RUNBOOKS.parent / "monitoring.md").read_text(encoding="utf-8")
    for alert in every:
        text = (RUNBOOKS / alert.runbook).read_text(encoding="utf-8")
        assert text.startswith(f"# {alert.name}\n\nSeverity: {alert.severity}.")
        for heading in ("## When it rings", "## Look", "## Do"):
            assert f"\n{heading}\n" in text
        assert f"| [{alert.name}](runbooks/{alert.runbook}) | {alert.severity} | {alert.lasting} |" in listed
