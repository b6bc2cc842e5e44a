"""An InferenceService as properties of the component kfserving, by the table and a few rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from velagen.adopt.compare import named
from velagen.adopt.defaults import MODE, defaulted
from velagen.adopt.table import (
    CHOSEN,
    COMPANION_ROWS,
    NAME_FLAGS,
    OWN_ROWS,
    REST_VERSIONS,
    ROWS,
    RUNTIMES,
    WITHOUT_GRPC_PREFIX,
    Row,
)

Mode = Literal["standard", "knative"]
_MODES: Final = {"Standard": "standard", "Knative": "knative"}
_SCRAPED: Final = "serving.kserve.io/enable-prometheus-scraping"
#: What KServe scales by in each mode -> the metric of the trait autoscale.
_OF_STANDARD: Final = {"cpu": "cpu"}
_OF_KNATIVE: Final = {"concurrency": "concurrency", "rps": "qps"}
#: KServe's name of the container that serves.
_SERVER: Final = "kserve-container"
#: Flags by which a server fetches the model itself, without KServe.
_HUB_FLAGS: Final = ("--model_id", "--model")


@dataclass
class Draft:
    """What can be said of an object with the component."""

    properties: dict[str, Any] = field(default_factory=dict)
    #: Properties of the trait autoscale, for what KServe's own autoscalers read of the predictor; empty without them.
    autoscale: dict[str, Any] = field(default_factory=dict)
    #: What a reader of the Application has to know.
    notes: list[str] = field(default_factory=list)
    #: Why the component can't say it at all; empty where it can.
    impossible: str = ""


def drafted(service: dict[str, Any], known: Collection[str], default_mode: Mode) -> Draft:
    """The properties for an InferenceService, as far as they go: rendering shows what they do not reach.

    In: the object; the dotted properties that the component's schema has; the mode where the object does not say it.
    """
    draft = Draft()
    service = defaulted(service)
    spec = service.get("spec") or {}
    predictor = spec.get("predictor") or {}
    model = predictor.get("model")
    _mode(service, default_mode, draft)
    if draft.impossible:
        return draft
    if isinstance(model, dict):
        runtime = _runtime(service, model, draft)
        _rows(ROWS, predictor, draft.properties, known, "")
    else:
        runtime, model = "", {}
        _own_server(predictor, known, draft)
    draft.autoscale = _autoscale(predictor, is_knative=draft.properties.get("deploymentMode") == "knative")
    if "stopped" in known and _annotation(service, "serving.kserve.io/stop") == "true":
        draft.properties["stopped"] = True
    if "version" in draft.properties.get("modelFormat", {}):
        draft.properties["modelFormat"] = {"name": model["modelFormat"]["name"], **draft.properties["modelFormat"]}
    if "models" in known and runtime in ("triton", "onnx") and "modelUri" not in draft.properties:
        _models(predictor.get("storageUris"), draft.properties)
    if "artifacts" in known and not {"modelUri", "models"} & draft.properties.keys():
        _artifacts(predictor.get("storageUris"), draft.properties)
    if model:
        _location(model, draft)
        _protocol(model, runtime, draft)
    name = str((service.get("metadata") or {}).get("name", ""))
    _model_name(draft.properties, runtime, name)
    for part in ("transformer", "explainer"):
        companion = _companion(spec.get(part), known, part)
        if companion:
            draft.properties[part] = companion
    if model and not {"modelUri", "models"} & draft.properties.keys() and not draft.impossible:
        draft.impossible = "it has no storageUri: its server brings the model from elsewhere, or has it in its image"
    return draft


def _mode(service: dict[str, Any], default_mode: Mode, draft: Draft) -> None:
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    said = annotations.get(MODE) or (service.get("status") or {}).get("deploymentMode")
    said = {"RawDeployment": "Standard", "Serverless": "Knative"}.get(str(said), said)
    if said is None:
        mode: str = default_mode
        draft.notes.append(
            f"deploymentMode: the object does not say it, and KServe's configuration decides; {mode} is assumed "
            "(--default-mode)"
        )
    elif said in _MODES:
        mode = _MODES[said]
    else:
        draft.impossible = f"its deployment mode is {said}, which the component does not have"
        return
    if mode != "standard":
        draft.properties["deploymentMode"] = mode
        if annotations.get(_SCRAPED) != "true":
            draft.properties["scrape"] = False


def _annotation(service: dict[str, Any], name: str) -> Any:
    return ((service.get("metadata") or {}).get("annotations") or {}).get(name)


def _runtime(service: dict[str, Any], model: dict[str, Any], draft: Draft) -> str:
    """Fill in runtime, servingRuntime and modelFormat; the runtime's name, "" where it has none such."""
    form = str((model.get("modelFormat") or {}).get("name", ""))
    status = service.get("status") or {}
    server = model.get("runtime") or status.get("servingRuntimeName") or status.get("clusterServingRuntimeName")
    if not server:
        protocol = str(model.get("protocolVersion", ""))
        server = CHOSEN.get((form, protocol)) or CHOSEN.get((form, ""))
        if server:
            draft.notes.append(f"runtime: KServe chose it; {server} is what KServe 0.20 ships for {form}")
    if not server:
        draft.impossible = (
            f"KServe chose the ServingRuntime for the format {form or 'that is missing'}, and none is known here"
        )
        return ""
    fits = [name for name, (own, forms) in RUNTIMES.items() if own == server and forms == form]
    if fits:
        draft.properties["runtime"] = fits[0]
        return fits[0]
    if server == "kserve-tritonserver":
        draft.properties |= {"runtime": "triton", "modelFormat": {"name": form}}
        return "triton"
    draft.properties |= {"servingRuntime": server, "modelFormat": {"name": form}}
    return ""


def _autoscale(predictor: dict[str, Any], *, is_knative: bool) -> dict[str, Any]:
    """The trait autoscale for what KServe's own autoscaler of a mode is told; empty where the trait can't say it."""
    metric, target, most = (predictor.get(name) for name in ("scaleMetric", "scaleTarget", "maxReplicas"))
    known_as = _OF_KNATIVE if is_knative else _OF_STANDARD
    if metric not in known_as or not isinstance(target, int) or not isinstance(most, int) or most < 1:
        return {}
    said = {"metric": known_as[metric], "engine": "kpa" if is_knative else "hpa", "target": target}
    least = predictor.get("minReplicas")
    return {**said, **({} if least is None else {"minReplicas": least}), "maxReplicas": most}


def _own_server(predictor: dict[str, Any], known: Collection[str], draft: Draft) -> None:
    """A predictor that is a container of its own; KServe serves by the one of its name."""
    containers = [one for one in predictor.get("containers") or () if isinstance(one, dict)]
    servers = [one for one in containers if one.get("name") == _SERVER]
    if "image" not in known or len(servers) != 1 or not servers[0].get("image"):
        draft.impossible = f"its predictor has no container {_SERVER} with an image"
        return
    (server,) = servers
    beside = [one for one in containers if one is not server]
    _rows(OWN_ROWS, {**predictor, "containers": beside, "container": server}, draft.properties, known, "")
    env = draft.properties.get("env", [])
    for name, written in (("STORAGE_URI", "modelUri"), ("PROTOCOL", "protocolVersion")):
        values = [one.get("value") for one in env if one.get("name") == name]
        if values and values[0]:
            draft.properties[written] = values[0]
            env = [one for one in env if one.get("name") != name]
    if env:
        draft.properties["env"] = env
    else:
        draft.properties.pop("env", None)
    ports = server.get("ports")
    if isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], dict):
        draft.properties["port"] = ports[0].get("containerPort")
        if ports[0].get("name") == "h2c":
            draft.properties["protocol"] = "grpc"


def _protocol(model: dict[str, Any], runtime: str, draft: Draft) -> None:
    said = str(model.get("protocolVersion", ""))
    ports = {str(one.get("name", "")) for one in model.get("ports") or () if isinstance(one, dict)}
    version = said.removeprefix("grpc-")
    if {"http1", "h2c"} <= ports:
        draft.properties["protocol"] = "both"
    elif said.startswith("grpc-") or (runtime in WITHOUT_GRPC_PREFIX and ports == {"h2c"}):
        draft.properties["protocol"] = "grpc"
    usual = REST_VERSIONS.get(runtime, "v2")
    if draft.properties.get("protocol") == "grpc":
        usual = "v1" if runtime == "tensorflow" else "v2"
    if version in ("v1", "v2") and version != usual and runtime != "vllm":
        draft.properties["protocolVersion"] = version


def _artifacts(uris: Any, properties: dict[str, Any]) -> None:
    """The first of several places is modelUri, the others are artifacts."""
    listed = [one for one in uris if isinstance(one, dict)] if isinstance(uris, list) else []
    if len(listed) > 1 and all(one.get("uri") and one.get("mountPath") for one in listed):
        properties["modelUri"] = listed[0]["uri"]
        properties["artifacts"] = [{"uri": one["uri"], "path": one["mountPath"]} for one in listed[1:]]


def _models(uris: Any, properties: dict[str, Any]) -> None:
    """Places that each have a folder of their own right below /mnt/models, where Triton takes each for a model."""
    listed = [one for one in uris if isinstance(one, dict)] if isinstance(uris, list) else []
    names = [re.fullmatch(r"/mnt/models/([A-Za-z0-9][-_.A-Za-z0-9]*)", str(one.get("mountPath"))) for one in listed]
    if listed and all(names) and all(one.get("uri") for one in listed):
        properties["models"] = [
            {"name": name[1], "uri": one["uri"]} for name, one in zip(names, listed, strict=True) if name
        ]


def _location(model: dict[str, Any], draft: Draft) -> None:
    """modelUri, where it is not storageUri's own."""
    if "models" in draft.properties:
        return
    storage = model.get("storage")
    if "modelUri" not in draft.properties and isinstance(storage, dict) and storage.get("path"):
        bucket = (storage.get("parameters") or {}).get("bucket")
        draft.properties["modelUri"] = f"s3://{bucket or 'default'}/{str(storage['path']).lstrip('/')}"
        if storage.get("key"):
            draft.properties["storageKey"] = storage["key"]
        if not bucket:
            draft.notes.append(
                "modelUri: the bucket stands in the Secret storage-config alone; `default` stands for it"
            )
    listed = model.get("args") if isinstance(model.get("args"), list) else []
    for flag in _HUB_FLAGS:
        identifier, _ = named(listed, flag)
        if "modelUri" not in draft.properties and identifier and re.fullmatch(r"[\w.-]+/[\w.-]+", identifier):
            draft.properties["modelUri"] = f"hf://{identifier}"
            draft.properties.pop("args", None)
            draft.notes.append(
                f"modelUri: the server fetches the model itself, by {flag}; the trait keeps it so. Without the trait "
                "KServe fetches it, which storage credentials and local caches are made for"
            )


def _model_name(properties: dict[str, Any], runtime: str, name: str) -> None:
    """The flag that names the model is the component's own; TorchServe has none, and readiness is asked by name."""
    flag = NAME_FLAGS.get(runtime)
    if flag and "args" in properties:
        said, rest = named(properties["args"], flag)
        if said is not None and said != name:
            properties["modelName"] = said
        if said is not None:
            properties["args"] = rest
        if not properties["args"]:
            del properties["args"]
    if runtime == "pytorch":
        properties["modelName"] = name


def _companion(part: Any, known: Collection[str], name: str) -> dict[str, Any]:
    """The properties of a transformer or explainer; empty where it has no container of its own, or several."""
    containers = part.get("containers") if isinstance(part, dict) else None
    if not isinstance(containers, list) or not containers or not isinstance(containers[0], dict):
        return {}
    found: dict[str, Any] = {}
    whole = {**part, "containers": containers[1:], "container": containers[0]}
    _rows(COMPANION_ROWS, whole, found, known, f"{name}.")
    if "image" not in found:
        return {}
    if "args" in found:
        _, rest = named(found["args"], "--model_name")
        found["args"] = rest
        if not rest:
            del found["args"]
    env = [one for one in found.get("env", ()) if one.get("name") != "STORAGE_URI"]
    uri = [one.get("value") for one in found.get("env", ()) if one.get("name") == "STORAGE_URI"]
    if uri and uri[0]:
        found["artifactsUri"] = uri[0]
        found["env"] = env
        if not env:
            del found["env"]
    return found


def _rows(
    rows: Iterable[Row], source: dict[str, Any], into: dict[str, Any], known: Collection[str], prefix: str
) -> None:
    for row in rows:
        if f"{prefix}{row.property}" not in known:
            continue
        value: Any = source
        for part in row.field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        value = row.how(value) if value is not None else None
        if value is None or value in ({}, []):
            continue
        here = into
        *above, last = row.property.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
