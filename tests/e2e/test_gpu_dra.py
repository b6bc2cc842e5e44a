"""gpu-share with mode dra: the real API server, controller manager and scheduler, and devices that are announced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.conftest import Cluster, namespace_of
from tests.e2e.test_rollout import Rollout, serving

from velagen.cli import main
from velagen.lab import Lab, LabOptions
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(60)]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
API = "resource.k8s.io/v1"
DRIVER = "gpu.nvidia.com"
#: As NVIDIA's DRA driver makes them (deployments/helm/dra-driver-nvidia-gpu).
CLASSES = {"gpu.nvidia.com": "gpu", "mig.nvidia.com": "mig"}


def mig(number: int, profile: str, memory: str) -> dict[str, Any]:
    """A MIG device as the driver announces it."""
    return {
        "name": f"gpu-0-mig-{number}",
        "attributes": {"type": {"string": "mig"}, "profile": {"string": profile}},
        "capacity": {"memory": {"value": memory}},
    }


def shareable(number: int, memory: str, shares: int = 0) -> dict[str, Any]:
    """A GPU as the driver announces it with consumableShares: memory, or a number of shares."""
    whole = {"default": memory, "validRange": {"min": "1Mi", "max": memory, "step": "1Mi"}}
    free = {"default": "0", "validRange": {"min": "0", "max": memory, "step": "1Mi"}}
    capacity: dict[str, Any] = {"memory": {"value": memory, "requestPolicy": free if shares else whole}}
    if shares:
        steps = {"min": "1", "max": str(shares), "step": "1"}
        capacity["shares"] = {"value": str(shares), "requestPolicy": {"default": "1", "validRange": steps}}
    return {
        "name": f"gpu-{number}",
        "allowMultipleAllocations": True,
        "attributes": {"type": {"string": "gpu"}},
        "capacity": capacity,
    }


@contextmanager
def devices(lab: Lab, *announced: dict[str, Any]) -> Iterator[None]:
    """The driver's classes, and a node that has these devices."""
    for name, kind in CLASSES.items():
        expression = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == '{kind}'"
        selectors = [{"cel": {"expression": expression}}]
        lab.api.apply(
            {"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": name}, "spec": {"selectors": selectors}}
        )
    pool = {"name": "gpu-node-0", "generation": 1, "resourceSliceCount": len(announced)}
    # Each in a slice of its own: Kubernetes 1.34 compares the capacity that is asked for with a slice's first device
    # (dynamic-resource-allocation structured/internal/experimental, allocateDevice).
    for number, one in enumerate(announced):
        spec = {"driver": DRIVER, "nodeName": "gpu-node-0", "pool": pool, "devices": [one]}
        metadata = {"name": f"gpu-node-0-{number}"}
        lab.api.apply({"apiVersion": API, "kind": "ResourceSlice", "metadata": metadata, "spec": spec})
    try:
        yield
    finally:
        for number in range(len(announced)):
            lab.api.delete(API, "ResourceSlice", f"gpu-node-0-{number}")
        for name in CLASSES:
            lab.api.delete(API, "DeviceClass", name)


def app(name: str, *traits: dict[str, Any], **share: Any) -> dict[str, Any]:
    component = {
        "name": name,
        "type": "kfserving",
        "properties": {"runtime": "triton", "modelUri": "s3://models/m/1"},
        "traits": [{"type": "gpu-share", "properties": {"mode": "dra", **share}}, *traits],
    }
    check = {"name": "check", "type": "check-model", "properties": {"name": name}}
    deploy = {"name": "deploy", "type": "apply-component", "properties": {"component": name}}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": name},
        "spec": {"components": [component], "workflow": {"mode": {"steps": "DAG"}, "steps": [deploy, check]}},
    }


def allocated(cluster: Cluster) -> dict[str, str]:
    """The device of each claim that a pod has, by the pod's InferenceService."""
    services = {
        pod["metadata"]["name"]: pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]
        for pod in cluster.list("v1", "Pod")
        if pod["spec"].get("nodeName") == "gpu-node-0"
    }
    found = {}
    for claim in cluster.list(API, "ResourceClaim"):
        results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
        for reserved in claim.get("status", {}).get("reservedFor", []):
            if reserved["name"] in services:
                (result,) = results
                found[services[reserved["name"]]] = str(result["device"])
    return found


def waits(cluster: Cluster, name: str) -> None:
    """Its pod finds no device, and vela status says so in the scheduler's words."""

    wanted = (
        "1 of its pods can't be scheduled: 0/2 nodes are available",
        "cannot allocate all claims",
        "(which devices there are, and who has them: kubectl get resourceslices,resourceclaims -A)",
    )

    def told() -> bool:
        said = cluster.vela("status", name, "-n", cluster.namespace).stdout
        return all(part in said for part in wanted)

    cluster.wait_for(told, f"{name}: no device is left")


# ---------------------------------------------------------------- a device of its own


@pytest.fixture(scope="module")
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ADDON)


@pytest.mark.both
@pytest.mark.usefixtures("addon", "ingress_gateway")
def test_each_pod_has_a_mig_device_and_who_comes_too_late_is_told(cluster: Cluster) -> None:
    route = {
        "route": {"hosts": ["m.example.com"], "gateway": {"name": "kserve-ingress-gateway", "namespace": "kserve"}}
    }
    canary = {"type": "canary", "properties": {"modelUri": "s3://models/m/2", "weight": 10, **route}}
    with devices(cluster.lab, mig(0, "1g.5gb", "4864Mi"), mig(1, "3g.20gb", "20096Mi"), mig(2, "3g.20gb", "20096Mi")):
        # The new version of a canary has a claim of its own, from the same template.
        cluster.up(app("half", canary, fraction=0.5, gpu="a100-40gb", isolation="fault"))
        cluster.wait_running("half")
        cluster.wait_for(lambda: len(allocated(cluster)) == 2, "two claims")
        assert allocated(cluster).keys() == {"half", "half-canary"}
        assert set(allocated(cluster).values()) == {"gpu-0-mig-1", "gpu-0-mig-2"}
        # What is left has 4864 MiB.
        cluster.up(app("small", memory="4Gi"))
        cluster.wait_running("small")
        assert allocated(cluster)["small"] == "gpu-0-mig-0"
        cluster.up(app("late", memory="8Gi"))
        waits(cluster, "late")
        # Another amount is another template, and the pod that waited is replaced.
        cluster.vela("delete", "small", "-n", cluster.namespace, "-y")
        cluster.up(app("late", memory="4864Mi"))
        cluster.wait_running("late")
        assert allocated(cluster)["late"] == "gpu-0-mig-0"
        templates = [one["metadata"]["name"] for one in cluster.list(API, "ResourceClaimTemplate")]
        assert sorted(name.rpartition("-gpu-")[0] for name in templates) == ["half", "late"]


@pytest.mark.usefixtures("addon", "ingress_gateway")
def test_the_candidate_of_a_rollout_has_a_claim_of_its_own(cluster: Cluster) -> None:
    # One for the stable version, one for the candidate, one for the pod that replaces the stable one at the end.
    three = [mig(number, "3g.20gb", "20096Mi") for number in range(3)]
    with devices(cluster.lab, *three), serving() as metrics:
        rollout = Rollout(cluster, metrics)

        def up(version: int) -> None:
            one = app("m", fraction=0.5, gpu="a100-40gb")
            one["metadata"] |= {"name": "app", "annotations": rollout.annotations}
            one["spec"]["components"][0]["properties"]["modelUri"] = f"s3://models/m/{version}"
            one["spec"]["workflow"] = {"steps": rollout.steps}
            cluster.up(one)

        up(1)
        rollout.wait("done", "app-v1")
        up(2)
        cluster.wait_for(lambda: allocated(cluster).keys() == {"m", "m-canary"}, "two claims")
        assert len(set(allocated(cluster).values())) == 2
        rollout.wait("done", "app-v2")
        assert rollout.served() == "s3://models/m/2"

        def tidy() -> bool:
            templates = [one["metadata"]["name"] for one in cluster.list(API, "ResourceClaimTemplate")]
            return allocated(cluster).keys() == {"m"} and [name.rpartition("-gpu-")[0] for name in templates] == ["m"]

        cluster.wait_for(tidy, "the candidate's claim and template are gone")


@pytest.mark.usefixtures("addon")
def test_a_whole_gpu_with_enough_memory_is_found(cluster: Cluster) -> None:
    def gpu(number: int, memory: str) -> dict[str, Any]:
        return {key: value for key, value in shareable(number, memory).items() if key != "allowMultipleAllocations"} | {
            "capacity": {"memory": {"value": memory}}
        }

    with devices(
        cluster.lab, gpu(0, "15360Mi"), gpu(1, "81559Mi"), {"name": "odd", "attributes": {"type": {"string": "gpu"}}}
    ):
        cluster.up(app("large", memory="40Gi", deviceClass="gpu.nvidia.com"))
        cluster.wait_running("large")
        assert allocated(cluster) == {"large": "gpu-1"}


def test_the_command_names_mode_dra_where_devices_are_announced(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(yaml.safe_dump(app("half", fraction=0.5, isolation="fault")))
    command = ["gpu", "modes", str(file), "--kubeconfig", str(lab.kubeconfig)]
    with devices(lab, mig(0, "3g.20gb", "20096Mi")):
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, done.stdout) == (
            0,
            "half: fraction: 0.5, isolation: fault: write mode: dra, gpu: a100-40gb (gpu-node-0)\n",
        )
        nodes = CliRunner().invoke(main, [*command[:2], *command[3:]]).stdout
        assert "gpu-node-0: 2 whole; 1 device by dra" in nodes
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "half: no node offers fraction: 0.5, isolation: fault" in done.stderr


@pytest.mark.usefixtures("addon")
def test_an_api_server_that_can_not_share_a_device_says_so(cluster: Cluster) -> None:
    """It would drop the capacity that is asked for, and the pod would have a whole GPU."""
    cluster.up(app("shared", memory="7Gi", shared=True), check=False)

    def told() -> bool:
        return "allowMultipleAllocations" in str(cluster.application("shared"))

    cluster.wait_for(told, "the refusal")
    assert not cluster.list(API, "ResourceClaimTemplate")


# ---------------------------------------------------------------- a part of one


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose Kubernetes can share a device: alpha in 1.34."""
    options = LabOptions(feature_gates="DRAConsumableCapacity=true")
    with Lab("sharing", folder=tmp_path_factory.mktemp("sharing") / "state", options=options) as fresh:
        vela(fresh.kubeconfig, "addon", "enable", ADDON)
        yield fresh


@pytest.fixture
def shared(sharing: Lab) -> Iterator[Cluster]:
    with namespace_of(sharing.api, "s") as name:
        yield Cluster(sharing, name)


def test_two_models_that_ask_for_less_than_half_share_a_gpu(shared: Cluster) -> None:
    with devices(shared.lab, shareable(0, "15360Mi")):
        for name in ("one", "two"):
            shared.up(app(name, memory="7Gi", shared=True))
            shared.wait_running(name)
        assert allocated(shared) == {"one": "gpu-0", "two": "gpu-0"}
        shared.up(app("three", memory="7Gi", shared=True))
        waits(shared, "three")


def test_who_does_not_ask_for_a_part_is_alone_on_the_gpu(shared: Cluster) -> None:
    with devices(shared.lab, shareable(0, "15360Mi"), shareable(1, "15360Mi")):
        shared.up(app("alone", memory="7Gi", deviceClass="gpu.nvidia.com"))
        shared.wait_running("alone")
        for name in ("one", "two"):
            shared.up(app(name, memory="7Gi", shared=True))
            shared.wait_running(name)
        found = allocated(shared)
        assert found["one"] == found["two"] != found["alone"]


def test_halves_are_shares_of_a_gpu_that_has_two(shared: Cluster) -> None:
    with devices(shared.lab, shareable(0, "15360Mi", shares=3), shareable(1, "15360Mi", shares=2)):
        for name in ("one", "two"):
            shared.up(app(name, fraction=0.5, shared=True))
            shared.wait_running(name)
        assert allocated(shared) == {"one": "gpu-1", "two": "gpu-1"}
        shared.up(app("three", fraction=0.5, shared=True))
        waits(shared, "three")
        shared.up(app("third", fraction=0.33, shared=True))
        shared.wait_running("third")
        assert allocated(shared)["third"] == "gpu-0"
