"""The scheduler that the addon's parameter scheduler installs: its objects, its rights, and what it is told."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.addon_template import component, rendered

from velagen.gpu.parts import MIG_PROFILES
from velagen.kubernetes.crds import CrdStore
from velagen.kubevela import VERSIONS, release
from velagen.tools import source, tool

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
IMAGE = "registry.example.com:5000/kube-scheduler:v1.34.4"


@pytest.fixture(scope="module", params=VERSIONS)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is installed where only the image is named."""
    folder = tmp_path_factory.mktemp("addon")
    application, _ = rendered(ADDON, folder, {"scheduler": {"image": IMAGE}}, kubevela=request.param)
    return component(application, "scheduler")


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def test_none_is_installed_unless_it_is_asked_for(tmp_path: Path) -> None:
    application, _ = rendered(ADDON, tmp_path, {}, kubevela=VERSIONS[0])
    assert component(application, "scheduler") == []


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ({}, "scheduler.image is required"),
        ({"image": "kube-scheduler"}, "scheduler.image must be an image of kube-scheduler with its tag or digest"),
        ({"image": IMAGE, "name": "GPU"}, "scheduler.name must be small letters"),
        ({"image": IMAGE, "name": "a" * 41}, "scheduler.name must be small letters"),
    ],
)
def test_what_is_missing_or_wrong_is_said(tmp_path: Path, parameter: dict[str, str], words: str) -> None:
    with suppress(AssertionError):  # without the image there is no object either
        rendered(ADDON, tmp_path, {"scheduler": parameter}, kubevela=VERSIONS[0])
    cue = str(tool("cue", release(VERSIONS[0]).cue))
    done = subprocess.run([cue, "vet", "main.cue", "parameter.cue"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert words in done.stderr


def test_kubernetes_schemas_take_the_objects(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    store = CrdStore({"kubernetes": source("kubernetes")}, tmp_path)
    assert [one["kind"] for one in objects] == [
        "ServiceAccount",
        "ConfigMap",
        "ClusterRoleBinding",
        "ClusterRoleBinding",
        "RoleBinding",
        "Role",
        "RoleBinding",
        "Deployment",
    ]
    assert [problem for one in objects for problem in store.check(one)] == []


def test_it_packs_whatever_a_pod_asks_gpus_by(objects: list[dict[str, Any]]) -> None:
    (config_map,) = of_kind(objects, "ConfigMap")
    told = yaml.safe_load(config_map["data"]["config.yaml"])
    (profile,) = told["profiles"]
    assert profile["schedulerName"] == "gpu-binpack"
    (fit,) = profile["pluginConfig"]
    strategy = fit["args"]["scoringStrategy"]
    assert strategy["type"] == "MostAllocated"
    profiles = {f"nvidia.com/mig-{name}" for own in MIG_PROFILES.values() for name in own.values()}
    assert {one["name"] for one in strategy["resources"]} == {"nvidia.com/gpu", "nvidia.com/gpu.shared", *profiles}
    assert told["percentageOfNodesToScore"] == 100


def test_it_takes_nothing_from_the_clusters_own_scheduler(objects: list[dict[str, Any]]) -> None:
    (config_map,) = of_kind(objects, "ConfigMap")
    told = yaml.safe_load(config_map["data"]["config.yaml"])
    assert told["leaderElection"]["resourceName"] == "kfserving-gpu-binpack"
    roles = [one["roleRef"]["name"] for one in objects if "roleRef" in one]
    assert roles == [
        "system:kube-scheduler",
        "system:volume-scheduler",
        "extension-apiserver-authentication-reader",
        "kfserving-gpu-binpack",
    ]
    (own,) = of_kind(objects, "Role")
    (rule,) = own["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["leases"], ["kfserving-gpu-binpack"])
    assert {one["metadata"]["name"].removesuffix("-volumes") for one in of_kind(objects, "ClusterRoleBinding")} == {
        "kfserving-gpu-binpack"
    }


def test_its_pod_may_little_and_goes_with_its_configuration(objects: list[dict[str, Any]]) -> None:
    (config_map,), (deployment,) = of_kind(objects, "ConfigMap"), of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    digest = hashlib.sha256(config_map["data"]["config.yaml"].encode()).hexdigest()
    assert template["metadata"]["annotations"] == {"kfserving/configuration": digest}
    (container,) = template["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    (volume,) = template["spec"]["volumes"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]


def test_another_name_is_another_scheduler(tmp_path: Path) -> None:
    parameter = {"scheduler": {"image": IMAGE, "name": "packed"}}
    made = component(rendered(ADDON, tmp_path, parameter, kubevela=VERSIONS[0])[0], "scheduler")
    assert {one["metadata"]["name"].split("-")[1] for one in made} == {"packed"}
    (config_map,) = of_kind(made, "ConfigMap")
    assert yaml.safe_load(config_map["data"]["config.yaml"])["profiles"][0]["schedulerName"] == "packed"
