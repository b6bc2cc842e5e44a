"""What the lab puts into an empty API server: CRDs, definitions, runtimes, webhooks, nodes.

All of it but the nodes is read from the pinned upstream modules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.tools import cache_dir, source, table

SYSTEM_NAMESPACE = "vela-system"
KSERVE_NAMESPACE = "kserve"

#: The only template expression in the chart files the lab reads.
_NAMESPACE_EXPRESSION = '{{ include "systemDefinitionNamespace" . }}'

#: CRDs of projects that traits write objects for; kserve keeps them for its own tests.
_ROUTE_CRDS = (
    "gatewayapi_gateway.yaml",
    "gatewayapi_gatewayclasses.yaml",
    "gatewayapi_httproute.yaml",
    "istio_virtualservice.yaml",
    "keda.yaml",
    "knative_service.yaml",
)

_CORE_WEBHOOKS = {
    "mutating": ("applications", "componentdefinitions"),
    "validating": (
        "applications",
        "componentdefinitions",
        "traitdefinitions",
        "policydefinitions",
        "workflowstepdefinitions",
    ),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU model, in the words of GPU feature discovery's labels."""

    product: str
    memory_mib: int
    family: str
    compute: str


GPUS = {
    "T4": Gpu("Tesla-T4", 15360, "turing", "7.5"),
    "V100": Gpu("Tesla-V100-SXM2-16GB", 16384, "volta", "7.0"),
    "L4": Gpu("NVIDIA-L4", 23034, "ada-lovelace", "8.9"),
    "A100-40GB": Gpu("NVIDIA-A100-SXM4-40GB", 40960, "ampere", "8.0"),
    "A100-80GB": Gpu("NVIDIA-A100-SXM4-80GB", 81920, "ampere", "8.0"),
    "H100-80GB": Gpu("NVIDIA-H100-80GB-HBM3", 81559, "hopper", "9.0"),
}


def _load_all(text: str) -> list[KubernetesObject]:
    # libyaml reads the 2 MB of the InferenceService CRD in a second, pure Python in ten.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [thing for thing in yaml.load_all(text, loader) if thing]


def _read(folder: Path, names: Iterable[str]) -> list[KubernetesObject]:
    return [thing for name in names for thing in _load_all((folder / name).read_text())]


def _without_prose(node: Any) -> Any:
    """Drop the descriptions of a schema: two thirds of its bytes, and the API server reads each CRD several times."""
    if isinstance(node, list):
        return [_without_prose(item) for item in node]
    if isinstance(node, dict):
        # A property that is called "description" is a schema, not a string.
        return {
            key: _without_prose(value)
            for key, value in node.items()
            if not (key == "description" and isinstance(value, str))
        }
    return node


def _read_crds(folder: Path, names: Iterable[str]) -> list[KubernetesObject]:
    things = [thing for thing in _read(folder, names) if thing["kind"] == "CustomResourceDefinition"]
    return [{**thing, "spec": _without_prose(thing["spec"])} for thing in things]


def _yaml_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")


def fingerprint() -> bytes:
    """Give what the objects depend on, as a hash: the pinned versions of the sources, and this module."""
    key = hashlib.sha256(Path(__file__).read_bytes())
    key.update(repr([(row.module, row.version) for row in table().sources]).encode())
    return key.digest()


def _remembered(name: str, make: Callable[[], list[KubernetesObject]]) -> list[KubernetesObject]:
    """Keep parsed objects as JSON in velagen's cache: reading them again takes milliseconds instead of seconds."""
    path = cache_dir() / "lab-objects" / f"{name}-{fingerprint().hex()[:16]}.json"
    if path.is_file():
        known: list[KubernetesObject] = json.loads(path.read_text())
        return known
    things = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    part.write_text(json.dumps(things))
    part.replace(path)
    return things


def vela_crds(version: str) -> list[KubernetesObject]:
    """Give the CRDs of a KubeVela."""

    def make() -> list[KubernetesObject]:
        folder = source("kubevela", version) / "charts/vela-core/crds"
        return _read_crds(folder, _yaml_names(folder))

    return _remembered(f"vela-crds-{version}", make)


def vela_definitions(version: str) -> list[KubernetesObject]:
    """Give the built-in definitions and velaQL views of a KubeVela, and a Deployment without pods.

    ``vela addon enable`` reads the version of KubeVela off that Deployment's image.
    """

    def make() -> list[KubernetesObject]:
        templates = source("kubevela", version) / "charts/vela-core/templates"
        things = []
        for folder in (templates / "defwithtemplate", templates / "velaql"):
            for name in _yaml_names(folder):
                text = (folder / name).read_text().replace(_NAMESPACE_EXPRESSION, SYSTEM_NAMESPACE)
                if "{{-" in text or "{{ include" in text:
                    raise VelagenError(Problem(f"{folder / name} holds a template expression the lab does not know"))
                things += _load_all(text)
        return things

    labels = {"app.kubernetes.io/name": "vela-core", "app.kubernetes.io/instance": "kubevela"}
    marker = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "kubevela-vela-core",
            "namespace": SYSTEM_NAMESPACE,
            "labels": {**labels, "controller.oam.dev/name": "vela-core"},
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "kubevela", "image": f"oamdev/vela-core:v{version}"}]},
            },
        },
    }
    return [*_remembered(f"vela-definitions-{version}", make), marker]


#: A line of the controller's arguments in the chart, such as ``- "--feature-gates=ApplyOnce={{- .Values.a.b -}}"``.
_CHART_FLAG = re.compile(r"""^- "--(?P<name>[\w-]+)(?:=(?P<value>.*))?"$""")
_CHART_VALUE = re.compile(r"\s*\{\{-? *\.Values\.(?P<path>[\w.]+) *(?:\| *toString *)?-?\}\}")
_CHART_VARIABLE = re.compile(r'- name: (\w+)\n\s+value: "([^"]*)"')


@dataclass(frozen=True)
class VelaCore:
    """How a KubeVela's chart starts vela-core where nobody sets a value."""

    #: ``--name=value`` by name; those that may be given several times have several.
    flags: dict[str, tuple[str, ...]]
    environment: dict[str, str]

    def arguments(self, **own: str | int | bool) -> list[str]:
        """Give the arguments, with some flags of one's own.

        Args:
            own: value by the flag's name, _ for -.
        """
        given = {name.replace("_", "-"): _flag(value) for name, value in own.items()}
        chart = [f"--{name}={value}" for name, values in self.flags.items() if name not in given for value in values]
        return [*chart, *(f"--{name}={value}" for name, value in given.items())]


def vela_core(version: str) -> VelaCore:
    """Read off a KubeVela's chart how it starts vela-core: its flags with the feature gates, and its environment.

    Flags under a condition are left out, as are those whose value is not a plain value of the chart: all are off,
    or the lab sets them.
    """
    chart = source("kubevela", version) / "charts/vela-core"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    text = (chart / "templates/kubevela-controller.yaml").read_text()
    flags: dict[str, tuple[str, ...]] = {}
    depth = 0
    _, _, arguments = text.partition(" args:\n")
    for line in map(str.strip, arguments.partition(" image:")[0].splitlines()):
        depth += line.startswith("{{ if") - line.startswith("{{ end")
        flag = _CHART_FLAG.match(line)
        if flag is None or depth:
            continue
        value = _CHART_VALUE.sub(lambda found: _value(values, found["path"]), flag["value"] or "true")
        if "{{" not in value:
            flags[flag["name"]] = (*flags.get(flag["name"], ()), value)
    return VelaCore(flags, dict(_CHART_VARIABLE.findall(text)))


def _value(values: Any, path: str) -> str:
    for step in path.split("."):
        values = values[step]
    return _flag(values)


def _flag(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def kserve_crds() -> list[KubernetesObject]:
    """Give KServe's full CRDs (LLMInferenceService apart: it has a controller of its own)."""

    def make() -> list[KubernetesObject]:
        full = source("kserve") / "config/crd/full"
        things = []
        for folder in (full, full / "clusterstoragecontainer", full / "localmodel"):
            things += _read_crds(folder, _yaml_names(folder))
        return things

    return _remembered("kserve-crds", make)


def route_crds() -> list[KubernetesObject]:
    """Give the CRDs of Gateway API, Istio, KEDA and Knative that objects are written for; nobody acts on them here."""
    return _remembered("route-crds", lambda: _read_crds(source("kserve") / "test/crds", _ROUTE_CRDS))


def kserve_config(mode: str) -> list[KubernetesObject]:
    """Give KServe's ConfigMap, with what differs where there is no gateway.

    Args:
        mode: the default deployment mode, Standard or Knative.
    """
    (config,) = _remembered(
        "kserve-config", lambda: _read(source("kserve") / "config/configmap", ["inferenceservice.yaml"])
    )
    data = dict(config["data"])
    data.pop("_example", None)
    ingress = json.loads(data["ingress"])
    ingress["disableIngressCreation"] = True
    data["ingress"] = json.dumps(ingress)
    data["deploy"] = json.dumps({"defaultDeploymentMode": mode})
    # KServe reads Knative's autoscaler settings in Knative mode; an empty map means Knative's defaults.
    autoscaler = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
        "data": {},
    }
    return [{**config, "data": data}, autoscaler]


#: What KServe's chart gives the container that fetches models and its plain manifests do not, and seccompProfile: all
#: that a namespace with Pod Security restricted asks for.
STORAGE_SECURITY: KubernetesObject = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def kserve_runtimes() -> list[KubernetesObject]:
    """Give KServe's ClusterServingRuntimes and storage containers, with the image names its kustomization fills in.

    The storage containers run where Pod Security is restricted, too.
    """

    def make() -> list[KubernetesObject]:
        config = source("kserve") / "config"
        things = []
        for folder in (config / "runtimes", config / "storagecontainers"):
            (kustomization,) = _load_all((folder / "kustomization.yaml").read_text())
            images = {entry["name"]: entry for entry in kustomization.get("images", ())}
            for thing in _read(folder, kustomization["resources"]):
                _fill_images(thing, images)
                things.append(thing)
        return things

    found = _remembered("kserve-runtimes", make)
    for thing in found:
        if thing["kind"] == "ClusterStorageContainer":
            thing["spec"]["container"]["securityContext"] = STORAGE_SECURITY
    return found


def _fill_images(node: Any, images: dict[str, KubernetesObject]) -> None:
    if isinstance(node, list):
        for item in node:
            _fill_images(item, images)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "image" and isinstance(value, str):
                entry = images.get(value.rpartition(":")[0] or value)
                if entry:
                    node[key] = f"{entry.get('newName', entry['name'])}:{entry.get('newTag', 'latest')}"
            else:
                _fill_images(value, images)


def namespaces() -> list[KubernetesObject]:
    """Give the namespaces the controllers live in."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in (SYSTEM_NAMESPACE, KSERVE_NAMESPACE, "knative-serving")
    ]


def kserve_webhooks(port: int, ca: bytes) -> list[KubernetesObject]:
    """Give KServe's own webhook configurations, pointed at a process on this machine.

    Args:
        port: where kserve-manager's webhook server listens on 127.0.0.1.
        ca: PEM of the authority that signed its certificate.
    """
    things = _remembered("kserve-webhooks", lambda: _read(source("kserve") / "config/webhook", ["manifests.yaml"]))
    for thing in things:
        thing["metadata"].pop("creationTimestamp", None)
        for hook in thing["webhooks"]:
            hook["clientConfig"] = _client(port, hook["clientConfig"]["service"]["path"], ca)
    return things


def vela_webhooks(port: int, ca: bytes) -> list[KubernetesObject]:
    """Give the webhooks KubeVela's chart registers, pointed at a process on this machine; as `kserve_webhooks`."""
    things = []
    for sort, plurals in _CORE_WEBHOOKS.items():
        hooks = [
            {
                "name": f"{sort}.core.oam.dev.v1beta1.{plural}",
                "clientConfig": _client(port, f"/{sort}-core-oam-dev-v1beta1-{plural}", ca),
                "rules": [
                    {
                        "apiGroups": ["core.oam.dev"],
                        "apiVersions": ["v1beta1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [plural],
                    }
                ],
                "admissionReviewVersions": ["v1beta1", "v1"],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "timeoutSeconds": 10,
            }
            for plural in plurals
        ]
        kind = "MutatingWebhookConfiguration" if sort == "mutating" else "ValidatingWebhookConfiguration"
        things.append(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": "kubevela-vela-core-admission"},
                "webhooks": hooks,
            }
        )
    return things


def _client(port: int, path: str, ca: bytes) -> KubernetesObject:
    return {"url": f"https://127.0.0.1:{port}{path}", "caBundle": base64.b64encode(ca).decode()}


def stages() -> str:
    """Give kwok's stages (YAML): nodes that stay Ready by their lease, pods that run, complete and go."""
    folder = source("kwok") / "kustomize/stage"
    names = (
        "node/fast/node-initialize.yaml",
        "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
        "pod/fast/pod-ready.yaml",
        "pod/fast/pod-complete.yaml",
        "pod/fast/pod-delete.yaml",
    )
    return "\n---\n".join((folder / name).read_text() for name in names)


def gpu_node(name: str, *, model: str = "T4", gpus: int = 2, replicas: int = 1) -> KubernetesObject:
    """Give a node kwok plays, labelled as GPU feature discovery labels a real one.

    Args:
        model: a key of `GPUS`.
        gpus: cards in the node; 0 = a node without GPUs.
        replicas: above 1 the cards are time-sliced: gpus times replicas of ``nvidia.com/gpu.shared``.

    Raises:
        VelagenError: an unknown model, or a negative number.
    """
    if model not in GPUS:
        raise VelagenError(Problem(f"no GPU model is called {model!r}", hint=f"Known models: {', '.join(GPUS)}."))
    if gpus < 0 or replicas < 1:
        raise VelagenError(Problem(f"{name}: {gpus} GPUs with {replicas} replicas make no node"))
    resources = {"cpu": "32", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "110"}
    labels = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    if gpus:
        gpu = GPUS[model]
        shared = replicas > 1
        resources["nvidia.com/gpu.shared" if shared else "nvidia.com/gpu"] = str(gpus * replicas)
        major, _, minor = gpu.compute.partition(".")
        labels |= {
            "nvidia.com/gpu.present": "true",
            # Without the suffix -SHARED, since the shares have a name of their own.
            "nvidia.com/gpu.product": gpu.product,
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.replicas": str(replicas),
            "nvidia.com/gpu.memory": str(gpu.memory_mib),
            "nvidia.com/gpu.family": gpu.family,
            "nvidia.com/gpu.compute.major": major,
            "nvidia.com/gpu.compute.minor": minor,
            "nvidia.com/gpu.sharing-strategy": "time-slicing" if shared else "none",
            "nvidia.com/mig.capable": str(gpu.family in {"ampere", "hopper"}).lower(),
        }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"capacity": resources, "allocatable": resources},
    }
