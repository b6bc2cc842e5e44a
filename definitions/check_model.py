"""The workflow step check-model: waits until a model answers, and fails at once where KServe can't load it.

Sources: KServe v0.20.0 pkg/apis/serving/v1beta1/inference_service_status.go (conditions, modelStatus),
kubevela/workflow pkg/providers/{kube,builtin} (#Read, #Fail, #ConditionalWait).
"""

from __future__ import annotations

from velagen import (
    If,
    WorkflowStep,
    context,
    each,
    first_given,
    if_else,
    length,
    let,
    operation,
    optional,
    result_of,
)
from velagen import parameter as p

found = result_of("model")["$returns"]
status = found.value.status

ready = let(
    "readyConditions",
    [
        each(
            first_given(status.conditions, []),
            lambda condition: first_given(condition.type, ""),
            where=lambda condition: (
                (first_given(condition.type, "") == "Ready") & (first_given(condition.status, "") == "True")
            ),
        )
    ],
)
loading = let("loading", first_given(status.modelStatus.transitionStatus, "UpToDate"))
reason = let(
    "reason",
    first_given(
        f"{status.modelStatus.lastFailureInfo.reason}: {first_given(status.modelStatus.lastFailureInfo.message, '')}",
        "KServe gives no reason",
    ),
)
is_ready = (length(ready) > 0) & (loading == "UpToDate")
is_blocked = (loading == "BlockedByFailedLoad") | (loading == "InvalidSpec")

check_model = WorkflowStep(
    name="check-model",
    description="Waits until a model answers, and fails with KServe's reason where it can't be loaded.",
    category="Application Delivery",
    body={
        "model": operation(
            "vela/kube",
            "#Read",
            {
                "cluster": optional(p.cluster),
                "value": {
                    "apiVersion": "serving.kserve.io/v1beta1",
                    "kind": "InferenceService",
                    "metadata": {"name": p.name, "namespace": first_given(p.namespace, context.namespace)},
                },
            },
        ),
        # The engine looks for the fields at the top before it runs the first: what depends on an answer lies below one.
        "stop": {
            If(is_blocked): {
                "fail": operation(
                    "vela/builtin", "#Fail", {"message": f"{p.name} can't be loaded: {loading}: {reason}"}
                ),
            },
        },
        "wait": operation(
            "vela/builtin",
            "#ConditionalWait",
            {
                "continue": is_ready,
                "message": if_else(
                    is_ready, f"{p.name} is ready", f"{p.name} is not ready yet, its model is {loading}"
                ),
            },
        ),
    },
)
