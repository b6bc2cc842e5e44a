"""The workflow step check-model: waits until a model answers, and fails at once where KServe can't load it.

Sources: KServe v0.20.0 pkg/apis/serving/v1beta1/inference_service_status.go (conditions, modelStatus) and
pkg/constants (the pods' label), kubevela/workflow pkg/providers/{kube,builtin} (#Read, #Fail, #ConditionalWait).
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
    raw_cue,
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
#: kube.#List by what it is made of: its $params have "resource", and the code behind it reads "value" and falls over
#: a missing one (kubevela/workflow pkg/providers/kube/{kube.cue,kube.go}, ResourceVars).
PODS = """{
	#do:       "list"
	#provider: "kube"
	$params: {
		cluster: [if parameter.cluster != _|_ {parameter.cluster}, ""][0]
		value: {apiVersion: "v1", kind: "Pod"}
		filter: {
			namespace: [if parameter.namespace != _|_ {parameter.namespace}, context.namespace][0]
			matchingLabels: "serving.kserve.io/inferenceservice": parameter.name
		}
	}
	$returns?: {...}
}"""
#: Neither the Deployment nor KServe passes on what the scheduler says of a pod it finds no node for; the pod does.
unplaced = let(
    "unplaced",
    [
        each(
            first_given(result_of("pods")["$returns"].values["items"], []),
            lambda pod: [
                each(
                    first_given(pod.status.conditions, []),
                    lambda condition: first_given(condition.message, "no reason is given"),
                    where=lambda condition: (
                        (first_given(condition.type, "") == "PodScheduled")
                        & (first_given(condition.status, "") == "False")
                    ),
                )
            ],
        )
    ],
)
no_node = let("noNode", [each(unplaced, lambda said: said[0], where=lambda said: length(said) > 0)])
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
        "pods": raw_cue(PODS),
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
                    is_ready,
                    f"{p.name} is ready",
                    if_else(
                        length(no_node) > 0,
                        f"{p.name} is not ready yet, there is no node for {length(no_node)} of its pods: {no_node[0]}",
                        f"{p.name} is not ready yet, its model is {loading}",
                    ),
                ),
            },
        ),
    },
)
