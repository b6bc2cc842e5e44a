"""What KServe's webhook makes of an InferenceService before it keeps it, as far as two objects may differ by it alone.

Source: KServe v0.20.0 pkg/apis/serving/v1beta1/inference_service_defaults.go (DefaultInferenceService and what it
calls), component.go. What it takes from the cluster's configuration (resources of custom containers, local models,
automountServiceAccountToken) is the same for both objects, and left out here.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from velagen.kserve.cut import PARTS

MODE: Final = "serving.kserve.io/deploymentMode"
_OLD_MODES: Final = {"RawDeployment": "Standard", "Serverless": "Knative"}
#: Fields of a predictor that are a framework's; "vllm" is not one.
FRAMEWORKS: Final = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
#: Frameworks that get v2 as a field of their own, and formats that get it in any case.
_V2_FRAMEWORKS: Final = frozenset(("triton", "onnx", "huggingface"))
_V2_FORMATS: Final = frozenset(("triton", "vLLM", "vllm"))
#: constants.GetProtocolVersionString and the predictor's GetProtocol: what holds where none is written.
_PROTOCOL: Final = "v1"


def defaulted(service: dict[str, Any]) -> dict[str, Any]:
    """A copy of an InferenceService as the webhook would keep it."""
    found = copy.deepcopy(service)
    metadata = found["metadata"] = dict(found.get("metadata") or {})
    annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
    if annotations.get(MODE) in _OLD_MODES:
        annotations[MODE] = _OLD_MODES[annotations[MODE]]
    spec = found.get("spec") or {}
    for part in PARTS:
        if isinstance(spec.get(part), dict):
            _container(spec[part], part)
            if spec[part].get("maxReplicas") == 0:
                # An int32 with omitempty (component.go): 0 is what is not there.
                del spec[part]["maxReplicas"]
    predictor = spec.get("predictor")
    if isinstance(predictor, dict):
        _model(predictor)
        form = ((predictor.get("model") or {}).get("modelFormat") or {}).get("name")
        if form:
            annotations.setdefault("modelFormat", form)
    return found


def _container(part: dict[str, Any], kind: str) -> None:
    """The container that serves has KServe's name (predictor_custom.go, transformer_custom.go, explainer_custom.go).

    Of a predictor it is the only one, or the first without a name; with a model beside it it is none, and keeps its
    name. Of the others it is the first.
    """
    containers = part.get("containers")
    if not isinstance(containers, list) or not containers or not isinstance(containers[0], dict):
        return
    has_model = any(name in part for name in ("model", *FRAMEWORKS))
    is_first = not has_model and (len(containers) == 1 or not containers[0].get("name"))
    if kind != "predictor" or is_first:
        containers[0]["name"] = "kserve-container"


def _model(predictor: dict[str, Any]) -> None:
    framework = next((one for one in FRAMEWORKS if isinstance(predictor.get(one), dict)), None)
    if framework is not None and "model" not in predictor:
        own = predictor.pop(framework)
        # The field's own modelFormat does not exist; everything else is what model has too.
        predictor["model"] = {"modelFormat": {"name": framework}, **own}
        if framework in _V2_FRAMEWORKS:
            predictor["model"].setdefault("protocolVersion", "v2")
    model = predictor.get("model")
    if not isinstance(model, dict):
        return
    form = str((model.get("modelFormat") or {}).get("name", ""))
    if "protocolVersion" not in model:
        by_server = model.get("runtime") == "kserve-mlserver" or form == "mlflow"
        model["protocolVersion"] = "v2" if form in _V2_FORMATS or by_server else _PROTOCOL
