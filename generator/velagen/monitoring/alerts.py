"""Alerts on models, over the recording rules and over what kube-state-metrics says of their objects.

KServe calls a model's Deployment NAME-predictor, and the trait autoscale its ScaledObject NAME-autoscale, of which KEDA
makes an autoscaler keda-hpa-NAME-autoscale; by these names the label version, the InferenceService's name, is told.
"""

from __future__ import annotations

from typing import Final

from velagen.monitoring.rules import Alert, Group
from velagen.monitoring.sources import CLUSTER

_DEPLOYMENT: Final = "(.+)-predictor"
_POD: Final = "(.+)-predictor-.+"
_SCALER: Final = "(?:keda-hpa-)?(.+)-(?:autoscale|predictor)"
#: KServe's containers (pkg/constants): the model server, and what brings the model.
_SERVER: Final = 'container="kserve-container"'
_BRINGER: Final = 'container="storage-initializer"'
_WHOSE: Final = "{{ $labels.namespace }}/{{ $labels.version }}"
#: How a container waits that does not come up by itself.
_FAILED: Final = 'reason=~"CrashLoopBackOff|Error|CreateContainerError|RunContainerError"'
_GPU: Final = 'resource=~"nvidia_com_.+"'
#: Past its progressDeadlineSeconds a Deployment makes no progress; an autoscaler that gets no metric does not scale.
_STUCK: Final = 'condition="Progressing",status="false"'
_SILENT: Final = 'condition="ScalingActive",status="false"'
_ROLLOUT_SILENT: Final = 'label_rollout_velagen_check="inconclusive"'
#: A rollout writes its state at each check. It may take half an hour, its default deadline, until a version is ready.
_ROLLOUT_MOVES: Final = "45m"
#: So long ago a model must have been available, and wanted ever since: not one that is loaded, nor one that was scaled
#: to zero and is called again. After that ModelNotReady has rung for a while.
_BEFORE: Final = "10m"
#: Requests came in, whoever counted them.
_ASKED: Final = "max by (namespace, version) (model:requests:increase5m) > 0"
#: Below this share a GPU counts as idle.
IDLE: Final = 0.05


def alerts() -> Group:
    """All alerts that need no objective."""
    restarts = _pods(CLUSTER.restarts, _SERVER)
    return Group(
        "model-alerts",
        (
            Alert(
                "ModelDown",
                f"{_deployment(CLUSTER.available)} == 0"
                f" and {_deployment(CLUSTER.available, over='max_over_time')} > 0"
                f" and {_deployment(CLUSTER.wanted, over='min_over_time')} > 0",
                # Two looks of 15 s: nobody is answered, and a minute is long for that.
                "15s",
                "critical",
                f"The last pod of the model {_WHOSE} is gone or does not answer",
                keeps="1m",
            ),
            Alert(
                "ModelNotReady",
                f"{_deployment(CLUSTER.available)} == 0 and {_deployment(CLUSTER.wanted)} > 0",
                "5m",
                "critical",
                f"No pod of the model {_WHOSE} is available",
            ),
            Alert(
                "ModelLoadFailed",
                f"{_pod(CLUSTER.init_waiting, _BRINGER, _FAILED)} > 0 or {_pod(CLUSTER.waiting, _SERVER, _FAILED)} > 0",
                "2m",
                "critical",
                f"A pod of the model {_WHOSE} can't load it",
            ),
            Alert(
                "ModelServerRestarts",
                # Of pods that are there: what was within a window outlives its pod.
                f"{_by_pod(f'increase({restarts}[15m]) and {restarts}')} > 2",
                "1m",
                "warning",
                f"The server of the model {_WHOSE} restarts again and again",
            ),
            Alert(
                "ModelPendingForGpu",
                f"max by (namespace, version) ({_named(_pods(CLUSTER.unschedulable), 'pod', _POD)}"
                f" * on (namespace, pod) group_left () max by (namespace, pod)"
                f" ({_pods(CLUSTER.requests, _GPU)} > bool 0)) > 0",
                "5m",
                "warning",
                f"A pod of the model {_WHOSE} waits for a GPU",
            ),
            Alert(
                "ModelRolloutStuck",
                f"{_deployment(CLUSTER.deployment_condition, _STUCK)} > 0 or {_unmoved_rollout()}",
                "1m",
                "warning",
                f"The rollout of the model {_WHOSE} makes no progress",
            ),
            Alert(
                "ModelRolledBack",
                f"{_rollout(_phase('failed'))} > 0",
                # The step has decided, after checks of its own.
                "0s",
                "warning",
                f"The new version of the model {_WHOSE} was taken back",
            ),
            Alert(
                "ModelRolloutInconclusive",
                f"{_rollout(_phase('step'), _ROLLOUT_SILENT)} > 0",
                "10m",
                "warning",
                f"The checks of the new version of the model {_WHOSE} say nothing",
            ),
            Alert(
                "ModelScalerHasNoAnswer",
                # One at zero does not scale by metrics. KServe makes one for each model, also where there is nothing to
                # choose. A model that nobody asks has no answer to give, and needs no other number of pods.
                f"{_scaler(CLUSTER.scaler_condition, _SILENT)} > 0 and {_of_each_part(_ASKED)}"
                f" unless {_scaler(CLUSTER.scaler_now)} == 0"
                f" unless {_scaler(CLUSTER.scaler_most)} <= {_scaler(CLUSTER.scaler_least)}",
                "5m",
                "warning",
                f"The autoscaler of the model {_WHOSE} gets no answer and leaves the pods as they are",
            ),
            Alert(
                "ModelSaturated",
                "(max by (namespace, version) (deriv(model:waiting[5m]) > 0 and model:waiting)"
                " or max by (namespace, version) (deriv(model:inflight[5m]) > 0.01 and model:inflight))"
                f" unless {_scaler(CLUSTER.scaler_now)} < {_scaler(CLUSTER.scaler_most)}",
                "5m",
                "warning",
                f"More and more requests wait for the model {_WHOSE}, which has all the pods it may have",
            ),
            Alert(
                "ModelGpuIdle",
                f"max by (namespace, version) (model:gpu_utilization:avg) < {IDLE}",
                "2h",
                "info",
                f"The GPUs of the model {_WHOSE} have been idle for two hours",
            ),
            Alert(
                "ModelScrapeFailed",
                'max by (namespace, version) (up{component!="",part="predictor"} == bool 0) > 0',
                "2m",
                "warning",
                f"Metrics of a pod of the model {_WHOSE} can't be read",
            ),
            Alert(
                "ModelScrapeMissing",
                f"{_deployment(CLUSTER.available)} > 0 unless max by (namespace, version) (model:info)",
                "5m",
                "warning",
                f"The model {_WHOSE} runs, and nothing is known of its requests",
            ),
            Alert(
                "ClusterStateMissing",
                f"absent({CLUSTER.available})",
                "5m",
                "warning",
                "kube-state-metrics gives nothing: most alerts on models can't ring",
            ),
        ),
    )


# ---------------------------------------------------------------- expressions


def _named(expr: str, label: str, expression: str) -> str:
    """The series with the label version, read from the name of an object."""
    return f'label_replace({expr}, "version", "$1", "{label}", "{expression}")'


def _deployment(name: str, *where: str, over: str = "") -> str:
    """A model's value; with *over*, a function over a time range, that of the last while."""
    matchers = ",".join((f'deployment=~"{_DEPLOYMENT}"', *where))
    expr = f"{name}{{{matchers}}}"
    if over:
        expr = f"{over}({expr}[{_BEFORE}])"
    return f"max by (namespace, version) ({_named(expr, 'deployment', _DEPLOYMENT)})"


def _scaler(name: str, *where: str) -> str:
    matchers = ",".join((f'horizontalpodautoscaler=~"{_SCALER}"', *where))
    expr = _named(f"{name}{{{matchers}}}", "horizontalpodautoscaler", _SCALER)
    return f"max by (namespace, version) ({expr})"


def _of_each_part(expr: str) -> str:
    """A model's value, also by the name that `_scaler` tells where the trait scales its transformer or explainer."""
    others = (
        f'label_replace({expr}, "version", "$1-{part}", "version", "(.+)")' for part in ("transformer", "explainer")
    )
    return f"({' or '.join((expr, *others))})"


def _phase(name: str, operator: str = "=") -> str:
    return f'label_rollout_velagen_phase{operator}"{name}"'


def _rollout(*where: str) -> str:
    """The rollouts by the step rollout-model whose state is so."""
    series = f"{CLUSTER.rollout}{{{','.join(where)}}}"
    return f"max by (namespace, version) ({_named(series, 'label_rollout_velagen_component', '(.+)')})"


def _unmoved_rollout() -> str:
    """One that was under way this long ago and has written nothing since."""
    same = "on (namespace, configmap)"
    version = CLUSTER.rollout_version
    there = f" and {same} {version} offset {_ROLLOUT_MOVES}"
    still = f" unless {same} changes({version}[{_ROLLOUT_MOVES}]) > 0"
    series = f"({CLUSTER.rollout}{{{_phase('done|failed|', '!~')}}}{there}{still})"
    return f"max by (namespace, version) ({_named(series, 'label_rollout_velagen_component', '(.+)')}) > 0"


def _pods(name: str, *where: str) -> str:
    matchers = ",".join((f'pod=~"{_POD}"', *where))
    return f"{name}{{{matchers}}}"


def _by_pod(expr: str) -> str:
    """The worst pod of a version."""
    return f"max by (namespace, version) ({_named(expr, 'pod', _POD)})"


def _pod(name: str, *where: str) -> str:
    return _by_pod(_pods(name, *where))
