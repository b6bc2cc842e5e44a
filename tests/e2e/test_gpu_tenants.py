"""examples/admission/gpu-tenants.yaml on the real API server: parts of GPUs only on nodes of the tenant's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cluster

from velagen.lab import Lab, wait_until
from velagen.lab.api import ApiError
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ROOT = Path(__file__).parents[2]
TENANT = "example.com/tenant"


@pytest.fixture(scope="module")
def policies(lab: Lab) -> Iterator[None]:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    objects = list(yaml.safe_load_all((ROOT / "examples/admission/gpu-tenants.yaml").read_text()))
    for one in objects:
        lab.api.apply(one)
    yield
    for one in objects:
        lab.api.delete(one["apiVersion"], one["kind"], one["metadata"]["name"])


@pytest.fixture
def tenant(lab: Lab, policies: None) -> Iterator[Cluster]:
    """A namespace of tenant a, in which the policies are in force."""
    name = f"tenant-{secrets.token_hex(4)}"
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {TENANT: "a"}}})
    cluster = Cluster(lab, name)
    wait_until(lambda: "nodes of the tenant" in said_of(cluster, limits=HALF), what="the policy's refusal", timeout=30)
    yield cluster
    for app in lab.api.list("core.oam.dev/v1beta1", "Application", name):
        lab.api.delete("core.oam.dev/v1beta1", "Application", app["metadata"]["name"], name)
    lab.api.delete("v1", "Namespace", name)


HALF = {"nvidia.com/gpu.shared": "1"}


def pod(namespace: str, limits: dict[str, str], init: bool = False, **more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "registry.example.com/c", "resources": {"limits": limits}}
    plain = {"name": "plain", "image": "registry.example.com/c"}
    containers = {"containers": [plain], "initContainers": [container]} if init else {"containers": [plain, container]}
    annotations = more.pop("annotations", {})
    metadata = {"name": f"p-{secrets.token_hex(4)}", "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**containers, **more}}


def said_of(cluster: Cluster, limits: dict[str, str], **more: Any) -> str:
    """What the API server says to a pod; empty where it takes it."""
    try:
        cluster.api.create(pod(cluster.namespace, limits, **more))
    except ApiError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "limits",
    [
        HALF,
        {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "8192"},
        {"nvidia.com/gpu": "1", "nvidia.com/gpumem-percentage": "50"},
        {"volcano.sh/vgpu-number": "1", "volcano.sh/vgpu-memory": "8192"},
        {"nvidia.com/mig-1g.5gb.shared": "1"},
    ],
    ids=lambda limits: list(limits)[-1],
)
@pytest.mark.parametrize("init", [False, True])
def test_a_part_of_a_gpu_is_on_the_tenants_nodes(tenant: Cluster, limits: dict[str, str], init: bool) -> None:
    assert "write nodeSelector: {example.com/tenant: a}" in said_of(tenant, limits, init=init)
    assert "write nodeSelector" in said_of(tenant, limits, init=init, nodeSelector={TENANT: "b"})
    assert said_of(tenant, limits, init=init, nodeSelector={TENANT: "a"}) == ""


def test_a_part_by_kai_is_one_too(tenant: Cluster) -> None:
    for name in ("gpu-fraction", "gpu-memory"):
        asked = {"annotations": {name: "1"}, "schedulerName": "kai-scheduler"}
        assert "write nodeSelector" in said_of(tenant, {}, **asked)
        assert said_of(tenant, {}, nodeSelector={TENANT: "a"}, **asked) == ""


@pytest.mark.parametrize("limits", [{}, {"nvidia.com/gpu": "1"}, {"nvidia.com/mig-1g.5gb": "1"}, {"cpu": "1"}])
def test_what_nobody_else_is_on_goes_everywhere(tenant: Cluster, limits: dict[str, str]) -> None:
    assert said_of(tenant, limits) == ""


@pytest.mark.usefixtures("policies")
def test_a_namespace_of_no_tenant_has_no_parts(cluster: Cluster) -> None:
    assert "this namespace is none" in said_of(cluster, HALF, nodeSelector={TENANT: "a"})
    assert said_of(cluster, {"nvidia.com/gpu": "1"}) == ""


def test_vela_status_has_the_sentence_and_what_it_says_helps(tenant: Cluster) -> None:
    app = yaml.safe_load((ROOT / "examples" / "gpu-share-time-slicing.yaml").read_text())
    name = app["metadata"]["name"]
    tenant.up(app, check=False)

    def told() -> bool:
        return "write nodeSelector: {example.com/tenant: a}" in str(tenant.application(name))

    tenant.wait_for(told, "the policy's sentence")
    assert tenant.inference_service(name) is None
    app["spec"]["components"][0]["properties"]["nodeSelector"] = {TENANT: "a"}
    tenant.up(app)
    tenant.wait_for(lambda: tenant.inference_service(name), "the InferenceService")
    selector = (tenant.inference_service(name) or {})["spec"]["predictor"]["nodeSelector"]
    assert selector[TENANT] == "a"
    assert selector["nvidia.com/gpu.sharing-strategy"] == "time-slicing"
