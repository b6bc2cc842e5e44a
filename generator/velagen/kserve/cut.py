"""The pod of an InferenceService as the component's users write it, cut out of KServe's CustomResourceDefinition.

Types, names, enums and bounds are the CRD's. It has no prose; the sentence about each field is Kubernetes' own.
``python -m velagen.kserve.make`` writes schemas/pod.json from it, a test holds the two against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from velagen.kubernetes.crds import crd_store
from velagen.schema.opened import OPEN
from velagen.tools import source

JsonObject = dict[str, Any]

#: Fields of the pod that go to KServe as they are written.
PASSED = (
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    "os",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "runtimeClassName",
    "schedulerName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "topologySpreadConstraints",
)
#: Those that the component adds to, or that have a word of ours.
ALSO = ("volumes", "nodeSelector", "tolerations", "securityContext")
#: Of the model server's container, which a transformer's and an explainer's are too.
OF_CONTAINER = ("volumeMounts", "envFrom")
#: Below env[].valueFrom, apart from keys of Secrets and ConfigMaps.
OF_ENV = ("fieldRef", "resourceFieldRef", "fileKeyRef")
PARTS = ("predictor", "transformer", "explainer")


def inference_service() -> JsonObject:
    """The CRD's schema of an InferenceService's spec."""
    found = crd_store().schema("serving.kserve.io/v1beta1", "InferenceService")
    assert found is not None
    spec: JsonObject = found["properties"]["spec"]["properties"]
    return spec


def pod_schema() -> JsonObject:
    """schemas/pod.json: a definition for each field."""
    predictor = inference_service()["predictor"]["properties"]
    model = predictor["model"]["properties"]
    value_from = model["env"]["items"]["properties"]["valueFrom"]["properties"]
    pod, container = _prose("PodSpec"), _prose("Container")
    selector = _prose("EnvVarSource")
    found = {name: _cut(predictor[name], pod[name]) for name in (*PASSED, *ALSO)}
    found |= {name: _cut(model[name], container[name]) for name in OF_CONTAINER}
    found |= {name: _cut(value_from[name], selector[name]) for name in OF_ENV}
    found["containerSecurityContext"] = _cut(
        model["securityContext"], "The container's security context, in the place of the one that security gives."
    )
    # A sidecar is what an init container is, and the word is ours.
    found["sidecars"] = _cut(predictor["containers"], "Containers beside the part's own, in the same pod.")
    logger = predictor["logger"]["properties"]
    found["loggerStorage"] = _plain(logger["storage"]) | {
        "description": "Credentials and form of the events, where they go to a bucket."
    }
    for name in ("metadataHeaders", "metadataAnnotations"):
        found[name] = _plain(logger[name])
    return {
        "$comment": "Written by python -m velagen.kserve.make from KServe's InferenceService; do not edit.",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": dict(sorted(found.items())),
    }


def printed(schema: Mapping[str, Any]) -> str:
    """The file's text: a definition a line, which differs where KServe's field does."""
    lines = [f"    {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in schema["$defs"].items()]
    head = [f"  {json.dumps(name)}: {json.dumps(schema[name])}," for name in ("$comment", "$schema")]
    return "\n".join(["{", *head, '  "$defs": {', ",\n".join(lines), "  }", "}", ""])


def _prose(component: str) -> dict[str, str]:
    """What Kubernetes says of each field of a component, in one sentence."""
    file = source("kubernetes") / "api" / "openapi-spec" / "v3" / "api__v1_openapi.json"
    fields = json.loads(file.read_bytes())["components"]["schemas"][f"io.k8s.api.core.v1.{component}"]["properties"]
    return {name: _first_sentence(one.get("description", "")) for name, one in fields.items()}


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.])\s+(?=[A-Z])|\n", text.strip(), maxsplit=1)[0].strip()
    return first if first.endswith(".") else f"{first}."


def _cut(schema: Mapping[str, Any], prose: str) -> JsonObject:
    found = _plain(schema)
    about: JsonObject = {"description": prose}
    if found.get("type") in {"object", "array"}:
        about[OPEN] = True
    return about | found


def _plain(schema: Mapping[str, Any]) -> JsonObject:
    """JSON Schema of a structural schema (Kubernetes apiextensions v1): objects are closed but for free maps."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {"type": "object"}
    found: JsonObject = {"type": schema["type"]} if "type" in schema else {}
    for word in ("enum", "required", "minLength", "maxLength", "minimum", "maximum", "pattern", "minItems"):
        if word in schema:
            found[word] = schema[word]
    if "items" in schema:
        found["items"] = _plain(schema["items"])
    if schema.get("type") == "object":
        below = schema.get("additionalProperties")
        if "properties" in schema:
            found["additionalProperties"] = False
            found["properties"] = {name: _plain(one) for name, one in schema["properties"].items()}
            # What has a default is there before it is asked for.
            filled = {name for name, one in schema["properties"].items() if "default" in one}
            found["required"] = [name for name in schema.get("required", ()) if name not in filled]
            if not found["required"]:
                del found["required"]
        elif isinstance(below, Mapping):
            found["additionalProperties"] = _plain(below)
    return found
