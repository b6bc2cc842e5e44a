"""What becomes of KubeVela's own traits on a kfserving component, and that what is to be written instead works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.builtin_traits import TRAITS
from tests.conftest import Cluster, namespace_of

from velagen.lab import Lab
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ADDON)


def app(*traits: dict[str, Any]) -> dict[str, Any]:
    properties = {"runtime": "triton", "modelUri": "s3://models/a/1", "minReplicas": 1}
    component = {"name": "m", "type": "kfserving", "properties": properties, "traits": list(traits)}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "m"},
        "spec": {"components": [component]},
    }


def made(cluster: Cluster) -> dict[str, Any]:
    """The InferenceService, without what KubeVela and the API server write about it."""
    found = cluster.wait_for(lambda: cluster.inference_service("m"), "the InferenceService")
    assert found is not None
    labels = {key: value for key, value in found["metadata"]["labels"].items() if "oam.dev" not in key}
    annotations = {key: value for key, value in found["metadata"]["annotations"].items() if "oam.dev" not in key}
    return {"labels": labels, "annotations": annotations, "spec": found["spec"]}


@pytest.fixture(scope="module")
def plain(lab: Lab) -> dict[str, Any]:
    """What a component without traits makes."""
    with namespace_of(lab.api, "plain") as namespace:
        cluster = Cluster(lab, namespace)
        cluster.up(app())
        return made(cluster)


@pytest.mark.parametrize("trait", TRAITS)
def test_what_becomes_of_a_trait(cluster: Cluster, plain: dict[str, Any], trait: str) -> None:
    properties, end = TRAITS[trait]
    done = cluster.up(app({"type": trait, "properties": properties}), check=False)
    said = done.stdout + done.stderr
    if end in {"refused", "fails"}:
        assert done.returncode != 0
        assert end == "fails" or "this trait writes spec.template" in said
        assert cluster.application("m") is None
        return
    assert done.returncode == 0, said
    if end == "breaks":
        cluster.wait_for(lambda: "no matches for kind" in str(cluster.application("m")), "the reason in the status")
        assert cluster.inference_service("m") is None
        return
    found = made(cluster)
    # What nocalhost writes for its own tool is an annotation.
    found["annotations"] = {key: value for key, value in found["annotations"].items() if "nocalhost" not in key}
    assert (found != plain) == (end == "works")


def test_a_patch_by_json_reaches_the_pods(cluster: Cluster) -> None:
    """What the table names instead of traits for pods."""
    sidecar = {"name": "beside", "image": "registry.example.com/a:1"}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    }
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    pod = {
        "affinity": affinity,
        "containers": [sidecar],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
        "initContainers": [{"name": "first", "image": "registry.example.com/a:1"}],
        "securityContext": {"runAsUser": 1000},
        "topologySpreadConstraints": [spread],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    container = {
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
        "securityContext": {"runAsNonRoot": True},
        "startupProbe": {"httpGet": {"path": "/", "port": 8080}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    predictor = {**pod, "deploymentStrategy": {"type": "Recreate"}, "model": container}
    cluster.up(app({"type": "json-merge-patch", "properties": {"spec": {"predictor": predictor}}}))

    def deployment() -> dict[str, Any] | None:
        return cluster.get("apps/v1", "Deployment", "m-predictor")

    found = cluster.wait_for(deployment, "the Deployment")
    assert found is not None
    assert found["spec"]["strategy"]["type"] == "Recreate"
    spec = found["spec"]["template"]["spec"]
    for field in ("affinity", "hostAliases", "topologySpreadConstraints"):
        assert spec[field] == pod[field]
    assert spec["securityContext"]["runAsUser"] == 1000
    assert {"first"} <= {one["name"] for one in spec["initContainers"]}
    assert {"scratch"} <= {one["name"] for one in spec["volumes"]}
    containers = {one["name"]: one for one in spec["containers"]}
    assert "beside" in containers
    model = containers["kserve-container"]
    assert model["lifecycle"] == container["lifecycle"]
    assert model["securityContext"]["runAsNonRoot"] is True
    assert model["startupProbe"]["httpGet"]["port"] == 8080
    assert {"scratch"} <= {one["name"] for one in model["volumeMounts"]}


def test_a_service_by_the_components_label_has_all_the_pods(cluster: Cluster) -> None:
    """Why expose and gateway are not for a model."""
    route = {"hosts": ["a.example.com"]}
    canary = {"weight": 0, "modelUri": "s3://models/a/2", "route": route}
    wanted = app({"type": "expose", "properties": {"port": [8080]}}, {"type": "canary", "properties": canary})
    wanted["spec"]["components"][0]["properties"]["transformer"] = {"image": "registry.example.com/a:1"}
    cluster.up(wanted)

    def behind() -> set[str]:
        slices = cluster.api.list(
            "discovery.k8s.io/v1", "EndpointSlice", cluster.namespace, selector="kubernetes.io/service-name=m"
        )
        names = [one["targetRef"]["name"] for found in slices for one in found.get("endpoints") or ()]
        return {name.rsplit("-", 2)[0] for name in names}

    parts = {"m-predictor", "m-transformer", "m-canary-predictor", "m-canary-transformer"}
    cluster.wait_for(lambda: behind() == parts, "all four behind one Service")
