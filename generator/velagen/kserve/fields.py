"""Each field of an InferenceService and where it is here; written into docs/kserve-fields.md, row by row of the CRD.

A field that the next KServe has and this table has not is told by :func:`without_a_place`, and a test fails until
somebody has decided.
"""

from __future__ import annotations

from collections.abc import Mapping

from velagen.kserve.cut import ALSO, PARTS, PASSED, inference_service

_SCALING = "the trait [autoscale](definitions/autoscale.md)"
_NONE = "nowhere: "
_FRAMEWORKS = (
    "huggingface",
    "lightgbm",
    "onnx",
    "paddle",
    "pmml",
    "pytorch",
    "sklearn",
    "tensorflow",
    "triton",
    "xgboost",
)

#: Of a predictor, a transformer and an explainer alike.
_OF_A_PART: Mapping[str, str] = {
    **{name: f"`pod.{name}`" for name in (*PASSED, *ALSO)},
    "annotations": "`pod.annotations`",
    "labels": "`pod.labels`",
    "minReplicas": "`minReplicas`",
    "maxReplicas": "`maxReplicas`",
    "scaleMetric": _SCALING,
    "scaleMetricType": _SCALING,
    "scaleTarget": _SCALING,
    "autoScaling": _SCALING,
    "serviceAccountName": "`serviceAccount` of the component, for all parts",
    "serviceAccount": f"{_NONE}Kubernetes' old name of serviceAccountName",
    "activeDeadlineSeconds": f"{_NONE}a Deployment's pods may not have it",
    "restartPolicy": f"{_NONE}a Deployment's pods always restart",
    "nodeName": f"{_NONE}it goes past the scheduler; `pod.nodeSelector` names a node by kubernetes.io/hostname",
    "overhead": f"{_NONE}Kubernetes fills it in by `pod.runtimeClassName`",
    "priority": f"{_NONE}Kubernetes fills it in by `pod.priorityClassName`",
    "resources": f"{_NONE}Kubernetes has it for a whole pod behind a gate; `resources` is the container's",
    "schedulingGates": f"{_NONE}a pod would wait until somebody takes the gate away",
    "hostnameOverride": f"{_NONE}all replicas would have one name; Kubernetes has it behind a gate",
    "canaryTrafficPercent": "the trait [canary](definitions/canary.md)",
}
_BATCHER_ELSEWHERE = f"{_NONE}KServe's agent makes batches before the model; `batcher` is the component's"
_PREDICTOR: Mapping[str, str] = {
    **_OF_A_PART,
    **dict.fromkeys(_FRAMEWORKS, "`runtime`, and `modelUri`"),
    "nodeSelector": "`nodeSelector`, or `pod.nodeSelector`",
    "tolerations": "`tolerations`, or `pod.tolerations`",
    "securityContext": "`pod.security`, `pod.securityContext`",
    "paddle": "`servingRuntime: kserve-paddleserver` with `modelFormat: {name: paddle}`",
    "pmml": "`servingRuntime: kserve-pmmlserver` with `modelFormat: {name: pmml}`",
    "model": "see the table below",
    "containers": "`image`, `port`, `command` for a server of your own; `pod.sidecars`; `transformer.collocated`",
    "name": f"{_NONE}KServe's name of a canary's predictor; see the trait [canary](definitions/canary.md)",
    "workerSpec": f"{_NONE}pods of several nodes must start together, which nothing here checks",
    "storageUris": "`modelUri` and `artifacts`; `models`",
    "storageContainerName": "`storageContainer`",
    "deploymentStrategy": "`rollout`",
    "timeout": "`timeoutSeconds`",
    "containerConcurrency": "`containerConcurrency`",
    "logger": "`logger`",
    "batcher": "`batcher`",
}
_COMPANION: Mapping[str, str] = {
    **_OF_A_PART,
    "securityContext": "`pod.security`, `pod.securityContext`",
    "containers": "`image`, `command`, `args`, `env`, `envFrom`, `resources`; further ones in `pod.sidecars`",
    "storageUris": "`artifactsUri`, one place",
    "deploymentStrategy": f"{_NONE}Kubernetes' own; `rollout` is the predictor's, which holds the GPUs",
    "timeout": f"{_NONE}the component's `timeoutSeconds` is the predictor's",
    "containerConcurrency": f"{_NONE}the component's is the predictor's",
    "logger": "`logger`",
    "scaleMetric": "`scaleMetric`",
    "scaleTarget": "`scaleTarget`",
    "scaleMetricType": f"{_NONE}it follows from `scaleMetric`",
    "autoScaling": f"{_NONE}`scaleMetric` and `scaleTarget` say one metric",
    "batcher": _BATCHER_ELSEWHERE,
    "art": f"{_NONE}KServe's image of ART; write `explainer.image`",
}
_FIXED = f"{_NONE}the component writes it"
_MODEL: Mapping[str, str] = {
    "args": "`args`",
    "command": "`args` where the server takes a whole command (mlflow); `servingRuntime`; `command` beside `image`",
    "confidential": f"{_NONE}it is KServe's trial of encrypted models",
    "env": "`env`",
    "envFrom": "`envFrom`",
    "image": "`runtimeVersion` for its tag, `servingRuntime` for another image; `image` for a server of your own",
    "imagePullPolicy": f"{_NONE}Kubernetes' own: once a node, of latest each time",
    "lifecycle": f"{_FIXED}: a pod answers while it ends",
    "livenessProbe": f"{_NONE}the ServingRuntime's own holds",
    "modelFormat": "`modelFormat`; it follows from `runtime`",
    "name": f"{_NONE}KServe allows none",
    "ports": "`protocol`",
    "protocolVersion": "`protocolVersion`",
    "readinessProbe": "`readiness`",
    "resizePolicy": f"{_NONE}KServe replaces pods to change their resources",
    "resources": "`resources`",
    "restartPolicy": f"{_NONE}it is an init container's",
    "restartPolicyRules": f"{_NONE}Kubernetes has it behind a gate",
    "runtime": "`runtime`, `servingRuntime`",
    "runtimeVersion": "`runtimeVersion`",
    "securityContext": "`runAsUser`, `pod.security`, `pod.containerSecurityContext`",
    "startupProbe": "`warmup`",
    "stdin": f"{_NONE}a server reads no keyboard",
    "stdinOnce": f"{_NONE}a server reads no keyboard",
    "storage": "`modelUri` with `storageKey`",
    "storageUri": "`modelUri`",
    "terminationMessagePath": f"{_NONE}Kubernetes' own",
    "terminationMessagePolicy": f"{_FIXED}: what a server says at its end is in `vela status`",
    "tty": f"{_NONE}a server has no terminal",
    "volumeDevices": f"{_NONE}model servers read files",
    "volumeMounts": "`pod.volumeMounts`, `pod.sharedMemory`",
    "workingDir": f"{_NONE}the ServingRuntime's own",
}
_SPEC: Mapping[str, str] = {
    "predictor": "the component itself",
    "transformer": "`transformer`",
    "explainer": "`explainer`",
    "canary": "the trait [canary](definitions/canary.md), or the step [rollout-model](definitions/rollout-model.md)",
}
#: By pointer: what stands there, and the places.
_TABLES: Mapping[str, Mapping[str, str]] = {
    "spec": _SPEC,
    "spec.predictor": _PREDICTOR,
    "spec.predictor.model": _MODEL,
    "spec.transformer": _COMPANION,
    "spec.explainer": _COMPANION,
}


def fields() -> dict[str, list[str]]:
    """The CRD's fields, by where they stand."""
    spec = inference_service()
    found = {"spec": sorted(spec)}
    found |= {f"spec.{part}": sorted(spec[part]["properties"]) for part in PARTS}
    found["spec.predictor.model"] = sorted(spec["predictor"]["properties"]["model"]["properties"])
    return found


def without_a_place(found: Mapping[str, list[str]]) -> list[str]:
    """The fields that the table does not tell of, and those it tells of that KServe has no more."""
    told = {where: set(table) for where, table in _TABLES.items()}
    for where in ("spec.transformer", "spec.explainer"):
        told[where] -= {"art"} - set(found[where])
    return sorted(f"{where}.{name}" for where in told for name in told[where] ^ set(found[where]))


def page(found: Mapping[str, list[str]]) -> str:
    """docs/kserve-fields.md."""
    lines = [
        "<!-- Written by `python -m velagen.kserve.make`; do not edit. -->",
        "# KServe's fields, and where they are here",
        "",
        "All fields of KServe 0.20's InferenceService, as its CRD has them. A field that is nowhere can be written by",
        "KubeVela's trait `json-merge-patch` ([builtin-traits.md](builtin-traits.md)).",
    ]
    for where, table in _TABLES.items():
        lines += ["", f"## {where}", "", "| field | here |", "|---|---|"]
        lines += [f"| `{name}` | {table.get(name, '')} |" for name in found[where]]
    return "\n".join([*lines, ""])
