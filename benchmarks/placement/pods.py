"""Pods as the addon makes them: what a pod asks for is read off an application that KubeVela renders.

A thousand applications would measure vela-core and KServe, not the scheduler. So each kind of ask is rendered once, by
KubeVela's own code, and the pods of the mass are copies of it; tests/e2e/test_placement.py holds that KServe makes the
very same of them.
"""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from benchmarks.placement.mix import Ask

from velagen.check.dryrun import dry_run
from velagen.definition.catalog import Catalog, of_addon, of_kubevela
from velagen.documents import parse_documents
from velagen.errors import Problem, VelagenError
from velagen.gpu.parts import SHARED, WHOLE, fraction_of
from velagen.kubevela import RELEASES
from velagen.lab import GPUS
from velagen.tools import tool

ADDON: Final = Path(__file__).resolve().parents[2] / "addon" / "kfserving"
#: The name of the scheduler that the addon's parameter scheduler installs.
PACKING: Final = "gpu-binpack"
_PRODUCT, _REPLICAS = "nvidia.com/gpu.product", "nvidia.com/gpu.replicas"
_STRATEGY = "nvidia.com/gpu.sharing-strategy"
_ASKED = ("nodeSelector", "schedulerName")


def application(asks: Mapping[str, Ask], scheduler: str | None = None) -> dict[str, Any]:
    """An application of models that ask so, by their names."""
    components = [component(name, ask, scheduler) for name, ask in asks.items()]
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "models"},
        "spec": {"components": components},
    }


def component(name: str, ask: Ask, scheduler: str | None) -> dict[str, Any]:
    """A model that asks so: gpu-share for a part, resources for whole GPUs."""
    amounts = {"cpu": f"{4 * ask.count}", "memory": f"{16 * ask.count}Gi"}
    if ask.parts > 1:
        amounts = {"cpu": "500m", "memory": "2Gi"}
    whole = {WHOLE: ask.count} if ask.parts == 1 else {}
    properties: dict[str, Any] = {
        "runtime": "triton",
        "modelUri": "s3://models/sentiment/1",
        "minReplicas": 1,
        "nodeSelector": {_PRODUCT: GPUS[ask.gpu].product},
        "resources": {"requests": amounts, "limits": {**amounts, **whole}},
    }
    if scheduler is not None:
        properties["pod"] = {"schedulerName": scheduler}
    made: dict[str, Any] = {"name": name, "type": "kfserving", "properties": properties}
    if ask.parts > 1:
        made["traits"] = [{"type": "gpu-share", "properties": {"fraction": fraction_of(ask.parts)}}]
    return made


def asked(predictor: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler goes by, of the predictor of an InferenceService."""
    own = {key: predictor[key] for key in _ASKED if key in predictor}
    resources = predictor["model"]["resources"]
    # An extended resource has one amount: the API server takes the limit for the request.
    more = {key: value for key, value in resources["limits"].items() if key not in resources["requests"]}
    requests = {**resources["requests"], **more}
    return _plain({**own, "resources": {"requests": requests, "limits": resources["limits"]}})


def asked_by_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a pod that KServe made."""
    spec = pod["spec"]
    own = {key: spec[key] for key in _ASKED if key in spec and spec[key] != "default-scheduler"}
    (server,) = [one for one in spec["containers"] if one["name"] == "kserve-container"]
    return _plain({**own, "resources": server["resources"]})


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Amounts as text, as the API server gives them."""
    for amounts in found["resources"].values():
        amounts.update({key: str(value) for key, value in amounts.items()})
    return found


def rendered(asks: Iterable[Ask], scheduler: str | None = None) -> dict[Ask, dict[str, Any]]:
    """What the pods of each ask ask for, rendered by KubeVela from the addon.

    Raises:
        VelagenError: an application does not render.
    """
    release = RELEASES[0].version
    catalog = Catalog.of([*of_kubevela(release), *of_addon(ADDON)])
    names = {f"m{number}": ask for number, ask in enumerate(asks)}
    (document,) = parse_documents(yaml.safe_dump(application(names, scheduler)), "models.yaml")
    outcome = dry_run(document, catalog, kubevela=release)
    if outcome.problems:
        raise VelagenError(outcome.problems)
    services = [one.content for one in outcome.objects if one.content["kind"] == "InferenceService"]
    return {names[one["metadata"]["name"]]: asked(one["spec"]["predictor"]) for one in services}


def pod(name: str, asks: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A pod that asks so."""
    own = copy.deepcopy(dict(asks))
    resources = own.pop("resources")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "model", **(labels or {})}},
        "spec": {
            **own,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "kserve-container", "image": "model", "resources": resources}],
        },
    }


def ask_of(pod: Mapping[str, Any]) -> Ask:
    """What a pod asks for, read off the object."""
    spec = pod["spec"]
    selector, limits = spec["nodeSelector"], spec["containers"][0]["resources"]["limits"]
    gpu = next(key for key, one in GPUS.items() if one.product == selector[_PRODUCT])
    if SHARED in limits:
        return Ask(gpu, int(selector[_REPLICAS]), int(limits[SHARED]))
    return Ask(gpu, 1, int(limits[WHOLE]))


def packing_configuration() -> dict[str, Any]:
    """The configuration of the scheduler that the addon installs, as it stands in the addon's ConfigMap.

    Raises:
        VelagenError: the addon does not render.
    """
    (config_map,) = [one for one in packing_objects() if one["kind"] == "ConfigMap"]
    found: dict[str, Any] = yaml.safe_load(config_map["data"]["config.yaml"])
    return found


def packing_objects(image: str = "registry.example.com/kube-scheduler:v1.34.4") -> list[dict[str, Any]]:
    """All objects of that scheduler, by CUE from the addon's template, as KubeVela renders it (pkg/addon/render.go).

    Raises:
        VelagenError: the addon does not render.
    """
    metadata = yaml.safe_load((ADDON / "metadata.yaml").read_text(encoding="utf-8"))
    given = {"context": {"metadata": metadata}, "parameter": {"scheduler": {"image": image}}}
    with tempfile.TemporaryDirectory(prefix="velagen-placement-") as name:
        folder = Path(name)
        (folder / "main.cue").write_text((ADDON / "template.cue").read_text(encoding="utf-8"), encoding="utf-8")
        parameter = (ADDON / "parameter.cue").read_text(encoding="utf-8")
        text = "\n".join(["package main", parameter, *(f"{key}: {json.dumps(value)}" for key, value in given.items())])
        (folder / "parameter.cue").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [str(tool("cue", RELEASES[0].cue)), "export", "-e", "output", "main.cue", "parameter.cue"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode:
        raise VelagenError(Problem(f"the addon does not render: {done.stderr}"))
    components = json.loads(done.stdout)["spec"]["components"]
    (found,) = [one["properties"]["objects"] for one in components if one["name"] == "scheduler"]
    return list(found)
