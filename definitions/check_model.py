"""The workflow step check-model: waits until a model answers, and fails at once where KServe can't load it.

Sources: KServe v0.20.0 pkg/apis/serving/v1beta1/inference_service_status.go (conditions, modelStatus) and
pkg/constants (the pods' label), kubevela/workflow pkg/providers/{kube,builtin} (#Read, #List, #Fail, #ConditionalWait).
"""

from __future__ import annotations

from velagen import (
    WorkflowStep,
    cases,
    concat,
    conditions,
    contains_text,
    context,
    each,
    first_given,
    flatten,
    given,
    if_else,
    join,
    length,
    let,
    matches,
    one_of,
    operation,
    optional,
    replace_pattern,
    result_of,
    unique,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Reference, Value

status = result_of("model")["$returns"].value.status
namespace = first_given(p.namespace, context.namespace)

conditions_seen = let(first_given(status.conditions, []))
ready_conditions = let(conditions(conditions_seen, "Ready", "True"))
loading = let(first_given(status.modelStatus.transitionStatus, "UpToDate"))
failure = status.modelStatus.lastFailureInfo
reason = let(first_given(f"{failure.reason}: {first_given(failure.message, '')}", "KServe gives no reason"))
#: What a pod waits for that asks for a part of a GPU: by the label that the trait gpu-share selects nodes by, which the
#: scheduler does not name, or by the resource that it does.
SHARE_LABEL = "nvidia.com/gpu.replicas"
SHARE = "Insufficient nvidia.com/(gpu.shared|mig-)"
WAY_OUT = " (how nodes come to offer such a part of a GPU: velagen gpu config)"
#: What the scheduler says where no device is left for a claim, which mode dra of gpu-share makes.
CLAIM = "cannot allocate all claims"
DEVICES = " (which devices there are, and who has them: kubectl get resourceslices,resourceclaims -A)"


def said_of(pod: Reference, condition: Reference) -> Value:
    """The scheduler's sentence, and the way out where there is one."""
    sentence = first_given(condition.message, "no reason is given")
    is_share = given(pod.spec.nodeSelector[SHARE_LABEL]) | matches(sentence, SHARE)
    way_out = cases((is_share, WAY_OUT), (contains_text(sentence, CLAIM), DEVICES), otherwise="")
    return f"{sentence}{way_out}"


pods = let(first_given(result_of("pods")["$returns"].values["items"], []))
#: Neither the Deployment nor KServe passes on what the scheduler says of a pod it finds no node for; the pod does.
unplaced = let(
    [
        each(
            pods,
            lambda pod: conditions(
                pod.status.conditions,
                "PodScheduled",
                "False",
                give=lambda condition: said_of(pod, condition),
            ),
        )
    ]
)
no_node = let([each(unplaced, lambda said: said[0], where=lambda said: length(said) > 0)])
#: Reasons of the kubelet for a container that has no image (pkg/kubelet/images/types.go, k8s.io/cri-api pkg/errors).
NO_IMAGE = (
    "^(ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError|RegistryUnavailable|"
    "SignatureValidationFailed)$"
)
#: Between two tries the kubelet puts this before what it said at the last (pkg/kubelet/images/image_manager.go).
BACK_OFF = "^Back-off pulling image [^ ]+: [A-Za-z]+: "
#: Words in which registries and container runtimes refuse whoever gives no password, or a wrong one.
NOT_ALLOWED = r"(?i)\b40[13]\b|unauthorized|authorization|denied|forbidden|credentials"


def containers_of(pod: Reference) -> Value:
    """A pod's containers, with the part whose pod it is, and what the kubelet says of them while they wait."""
    status = pod.status
    return each(
        concat(first_given(status.initContainerStatuses, []), first_given(status.containerStatuses, [])),
        lambda container: {
            "part": first_given(pod.metadata.labels.component, "predictor"),
            "reason": first_given(container.state.waiting.reason, ""),
            "said": replace_pattern(first_given(container.state.waiting.message, "no reason is given"), BACK_OFF, ""),
        },
    )


def without_image(container: Reference) -> Value:
    """Why a container has no image, and what to write where the registry asks for a password."""
    at = if_else(container.part == "predictor", "", f"{container.part}.")
    wanted = f" ({at}pod.imagePullSecrets must name a secret that the registry accepts)"
    return f"{container.part}: {container.said}{if_else(matches(container.said, NOT_ALLOWED), wanted, '')}"


containers = let(flatten([each(pods, lambda pod: [containers_of(pod)])]))
no_image = let([each(containers, without_image, where=lambda container: matches(container.reason, NO_IMAGE))])
#: Replicas say the same.
images_missing = let(unique(no_image))
PARTS = "^(Predictor|Transformer|Explainer)Ready$"
#: KServe's Ready says nothing of transformer and explainer where it makes no route.
failed = let(conditions(conditions_seen, status="False", matching=PARTS))
#: Pods that Kubernetes does not take: a quota, Pod Security. KServe passes on the Deployment's ReplicaFailure with its
#: reason (pkg/apis/serving/v1beta1/inference_service_status.go, PropagateRawStatus).
not_created = let(
    conditions(
        conditions_seen,
        status="False",
        matching=PARTS,
        reason="FailedCreate",
        give=lambda condition: f"{first_given(condition.type, '')}: {first_given(condition.message, 'no reason')}",
    )
)
#: No pod runs of a model that is Ready where minReplicas is 0 and nobody asks: for KServe it is one not loaded yet.
state = let(first_given(status.modelStatus.states.targetModelState, ""))
is_loaded = (loading == "UpToDate") | (state == "Pending")
is_ready = (length(ready_conditions) > 0) & (length(failed) == 0) & is_loaded

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
                    "metadata": {"name": p.name, "namespace": namespace},
                },
            },
        ),
        "pods": operation(
            "vela/kube",
            "#List",
            {
                "cluster": optional(p.cluster),
                "resource": {"apiVersion": "v1", "kind": "Pod"},
                "filter": {
                    "namespace": namespace,
                    "matchingLabels": {"serving.kserve.io/inferenceservice": p.name},
                },
            },
        ),
        # The engine looks for the fields at the top before it runs the first: what depends on an answer lies below one.
        "stop": {
            when(one_of(loading, "BlockedByFailedLoad", "InvalidSpec")): {
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
                "message": cases(
                    (is_ready, f"{p.name} is ready"),
                    (
                        length(not_created) > 0,
                        f"{p.name} is not ready yet, Kubernetes does not take its pods: {not_created[0]}",
                    ),
                    (
                        length(no_node) > 0,
                        f"{p.name} is not ready yet, {length(no_node)} of its pods can't be scheduled: {no_node[0]}",
                    ),
                    (
                        length(images_missing) > 0,
                        f"{p.name} is not ready yet, an image can't be pulled: {join(images_missing, '; ')}",
                    ),
                    otherwise=f"{p.name} is not ready yet, its model is {loading}",
                ),
            },
        ),
    },
)
