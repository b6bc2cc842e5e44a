"""Which property of the component says what a field of an InferenceService says: the one table of it.

A test holds it against schemas/kfserving.json, so that a new property has a row, or a line that says why it has none.
A row whose property the schema lacks is left out. What has no row goes into a trait json-merge-patch, field by field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from velagen.kserve.cut import PASSED


def _same(value: Any) -> Any:
    return value


def _positive(value: Any) -> Any:
    """0 is KServe's word for "no bound"."""
    return value or None


#: The component's ways of replacing pods.
_WAYS: Final = {
    "surge": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    "in-place": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    "recreate": {"type": "Recreate"},
}


def _way(value: Any) -> Any:
    return next((name for name, way in _WAYS.items() if way == value), None)


def _user(value: Any) -> Any:
    """The user of a security context that names nothing else."""
    return value["runAsUser"] if isinstance(value, dict) and set(value) == {"runAsUser"} else None


def _more_than_a_user(value: Any) -> Any:
    return value if _user(value) is None else None


#: Fields of a pod's spec that ``pod`` has under the same name.
_OF_THE_POD: Final = tuple(sorted((*PASSED, "annotations", "labels", "securityContext")))


def _amounts(value: Any) -> Any:
    """Amounts as text and devices as numbers, which is how the property writes them."""

    def one(name: str, amount: Any) -> Any:
        is_device = "/" in name and str(amount).isdecimal()
        return int(amount) if is_device else str(amount)

    if not isinstance(value, dict) or not all(isinstance(part, dict) for part in value.values()):
        return value
    return {kind: {name: one(name, amount) for name, amount in part.items()} for kind, part in value.items()}


@dataclass(frozen=True)
class Row:
    """A property and the field it comes from."""

    #: Both dotted. The field is below ``spec.predictor``, or for `COMPANION_ROWS` below transformer or explainer,
    #: where ``container`` is the one container.
    property: str
    field: str
    #: The field's value as the property's; None where the property can't say it.
    how: Callable[[Any], Any] = _same


ROWS: Final = (
    Row("minReplicas", "minReplicas"),
    Row("maxReplicas", "maxReplicas", _positive),
    Row("timeoutSeconds", "timeout"),
    Row("containerConcurrency", "containerConcurrency"),
    Row("serviceAccount", "serviceAccountName"),
    Row("nodeSelector", "nodeSelector"),
    Row("tolerations", "tolerations"),
    Row("modelUri", "model.storageUri"),
    Row("modelFormat.version", "model.modelFormat.version"),
    Row("runtimeVersion", "model.runtimeVersion"),
    Row("args", "model.args"),
    Row("env", "model.env"),
    Row("envFrom", "model.envFrom"),
    Row("resources", "model.resources", _amounts),
    Row("runAsUser", "model.securityContext", _user),
    Row("pod.containerSecurityContext", "model.securityContext", _more_than_a_user),
    Row("logger", "logger"),
    Row("batcher.maxBatchSize", "batcher.maxBatchSize"),
    Row("batcher.maxLatencyMilliseconds", "batcher.maxLatency"),
    Row("rollout", "deploymentStrategy", _way),
    Row("storageContainer", "storageContainerName"),
    Row("pod.volumes", "volumes"),
    Row("pod.volumeMounts", "model.volumeMounts"),
    Row("pod.sidecars", "containers"),
    *(Row(f"pod.{name}", name) for name in _OF_THE_POD),
)
#: Of a predictor that is a container of its own; ``container`` is the one that serves.
OWN_ROWS: Final = (
    Row("image", "container.image"),
    Row("command", "container.command"),
    *(
        Row(row.property, row.field.replace("model.", "container."), row.how)
        for row in ROWS
        if row.property not in ("modelUri", "modelFormat.version", "runtimeVersion")
    ),
)
COMPANION_ROWS: Final = (
    Row("minReplicas", "minReplicas"),
    Row("maxReplicas", "maxReplicas", _positive),
    Row("scaleMetric", "scaleMetric"),
    Row("scaleTarget", "scaleTarget"),
    Row("logger", "logger"),
    Row("image", "container.image"),
    Row("command", "container.command"),
    Row("args", "container.args"),
    Row("env", "container.env"),
    Row("envFrom", "container.envFrom"),
    Row("resources", "container.resources", _amounts),
    Row("runAsUser", "container.securityContext", _user),
    *(
        Row(row.property, row.field.replace("model.", "container."), row.how)
        for row in ROWS
        if row.property.startswith("pod.")
    ),
    *(Row(f"pod.{name}", name) for name in ("nodeSelector", "tolerations")),
)
#: Properties that say something of several fields at once (`velagen.adopt.convert`).
BY_RULE: Final = {
    "runtime": "the ServingRuntime and the format together",
    "servingRuntime": "a ServingRuntime that runtime has no name for",
    "modelFormat": "where it is not the runtime's own",
    "modelName": "the flag that names the model",
    "protocol": "the protocol version and the ports",
    "protocolVersion": "the protocol version",
    "deploymentMode": "the annotation, KServe's status, or --default-mode",
    "storageKey": "storage.key, with its bucket and path in modelUri",
    "scrape": "the annotation enable-prometheus-scraping, in Knative mode",
    "stopped": "the annotation serving.kserve.io/stop",
    "artifacts": "storageUris behind the first, which is modelUri",
    "models": "storageUris of Triton, each in a folder of its own",
    "image": "OWN_ROWS",
    "command": "OWN_ROWS",
    "port": "the one port of a container of its own",
    "transformer": "COMPANION_ROWS",
    "explainer": "COMPANION_ROWS",
}
#: Properties that come of no field of their own.
OF_NO_FIELD: Final = {
    "dynamicBatching": "the component makes a volume and a command of it, which nobody has written by hand",
    "warmup": "the same",
    "readiness": "a probe that was written is taken over as it is",
}

#: The component's runtimes: the ServingRuntime and the format of each, as definitions/_runtimes.py has them.
RUNTIMES: Final = {
    "triton": ("kserve-tritonserver", "triton"),
    "onnx": ("kserve-tritonserver", "onnx"),
    "sklearn": ("kserve-sklearnserver", "sklearn"),
    "xgboost": ("kserve-xgbserver", "xgboost"),
    "lightgbm": ("kserve-lgbserver", "lightgbm"),
    "mlflow": ("kserve-mlserver", "mlflow"),
    "pytorch": ("kserve-torchserve", "pytorch"),
    "tensorflow": ("kserve-tensorflow-serving", "tensorflow"),
    "huggingface": ("kserve-huggingfaceserver", "huggingface"),
    "vllm": ("kserve-vllmserver", "vLLM"),
}
NAME_FLAGS: Final = {
    **dict.fromkeys(("sklearn", "xgboost", "lightgbm", "tensorflow", "huggingface"), "--model_name"),
    "vllm": "--served-model-name",
}
#: The protocol version that the component writes where none is asked for, if not v2.
REST_VERSIONS: Final = dict.fromkeys(("sklearn", "xgboost", "lightgbm", "pytorch", "tensorflow"), "v1")
#: Runtimes that list gRPC's protocols as v2 and not as grpc-v2, as for definitions/_runtimes.py's lists_grpc.
WITHOUT_GRPC_PREFIX: Final = frozenset(("sklearn", "xgboost", "lightgbm", "mlflow"))
#: What KServe itself chooses, of what it ships, for a format and, where that matters, a protocol version. Source:
#: KServe v0.20.0 config/runtimes (autoSelect, priority) and getSupportingRuntimes of .../inferenceservice/utils.
CHOSEN: Final = {
    ("sklearn", "v2"): "kserve-mlserver",
    ("xgboost", "v2"): "kserve-mlserver",
    ("lightgbm", "v2"): "kserve-mlserver",
    ("onnx", ""): "kserve-tritonserver",
    ("onnx", "v1"): "kserve-openvino",
    ("tensorrt", ""): "kserve-tritonserver",
    ("tensorflow", "v2"): "kserve-tritonserver",
    ("tensorflow", "grpc-v2"): "kserve-tritonserver",
    ("pmml", ""): "kserve-pmmlserver",
    ("paddle", ""): "kserve-paddleserver",
    ("autogluon", ""): "kserve-autogluonserver",
    ("openvino", ""): "kserve-openvino",
    **{(form, ""): name for name_of, (name, form) in RUNTIMES.items() if name_of != "onnx"},
}

#: What the component writes beside what is asked for, as paths below spec with ``*`` for any part. Where the object had
#: nothing there, it is not counted as a difference.
ADDED: Final[dict[tuple[str, ...], str]] = {
    ("*", "terminationGracePeriodSeconds"): "10 s more, for lifecycle",
    ("*", "securityContext", "seccompProfile"): "Pod Security restricted",
    **{
        ("*", kind, name): "empty, since KubeVela's own would replace the pods at each edit"
        for kind, names in (
            ("labels", ("app.oam.dev/appRevision", "app.oam.dev/app-revision-hash", "oam.dev/render-hash")),
            (
                "annotations",
                (
                    "app.oam.dev/last-applied-configuration",
                    "app.oam.dev/last-applied-time",
                    "oam.dev/kubevela-version",
                ),
            ),
        )
        for name in names
    },
    **{
        ("*", "annotations", f"prometheus.io/{name}"): "metrics; scrape: false leaves it out"
        for name in ("scrape", "port", "path")
    },
    ("*", "model", "lifecycle"): "a pod that is to end answers until gateways have heard of it",
    ("*", "model", "readinessProbe"): "asks whether the model is loaded, not whether the port is open",
    ("*", "model", "terminationMessagePolicy"): "the server's last words in the status",
    ("*", "model", "securityContext"): "Pod Security restricted",
    ("*", "containers", "*", "terminationMessagePolicy"): "the server's last words in the status",
    ("*", "containers", "*", "lifecycle"): "a pod that is to end answers until gateways have heard of it",
    ("*", "containers", "*", "securityContext"): "Pod Security restricted",
}
#: Annotations and labels that other tools wrote, for themselves: two tools that apply one object fight over it.
OTHER_TOOLS: Final = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "meta.helm.sh/",
    "helm.sh/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "app.oam.dev/",
    "oam.dev/",
    "workload.oam.dev/",
)
