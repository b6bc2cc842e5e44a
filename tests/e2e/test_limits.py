"""Where KServe itself ends: the longest names, and the strings that it takes for a template."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cluster

from velagen.lab import Lab
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ROOT = Path(__file__).parents[2]
KSERVE = "serving.kserve.io/v1beta1"
SKLEARN = {"runtime": "sklearn", "modelUri": "s3://models/m"}
BESIDE = {"image": "registry.example.com/text:1"}


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")


@pytest.fixture
def short(lab: Lab) -> Iterator[Cluster]:
    """A namespace of four characters, in which a label ends sooner than a host name."""
    name = "t" + secrets.token_hex(2)[:3]
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Cluster(lab, name)
    for app in lab.api.list("core.oam.dev/v1beta1", "Application", name):
        lab.api.delete("core.oam.dev/v1beta1", "Application", app["metadata"]["name"], name)
    lab.api.delete("v1", "Namespace", name)


def app(name: str, properties: dict[str, Any], *traits: dict[str, Any]) -> dict[str, Any]:
    component = {"name": name, "type": "kfserving", "properties": properties, "traits": list(traits)}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "limits"},
        "spec": {"components": [component]},
    }


def service(cluster: Cluster, name: str, **spec: Any) -> None:
    """An InferenceService that KubeVela has not looked at."""
    cluster.api.apply(
        {
            "apiVersion": KSERVE,
            "kind": "InferenceService",
            "metadata": {
                "name": name,
                "namespace": cluster.namespace,
                "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
            },
            "spec": {
                "predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/m", **spec}}
            },
        }
    )


def said_of(cluster: Cluster, name: str) -> str:
    """What KServe's controller says in the events of an InferenceService."""
    events = [one for one in cluster.list("v1", "Event") if one["involvedObject"]["name"] == name]
    return "\n".join(str(one.get("message")) for one in events)


def ready(cluster: Cluster, name: str, properties: dict[str, Any], *traits: dict[str, Any]) -> None:
    """An application of a component of this name runs; one character more is refused."""
    done = cluster.up(app(f"{name}x", properties, *traits), check=False)
    assert f"and has {len(name) + 1}: KServe's host name" in done.stdout + done.stderr
    cluster.up(app(name, properties, *traits))
    cluster.wait_ready(name)


def test_the_longest_host_name(cluster: Cluster) -> None:
    name = "m" * (52 - len(cluster.namespace))
    ready(cluster, name, SKLEARN)
    service(cluster, f"{name}x")
    cluster.wait_for(lambda: "no more than 63 characters" in said_of(cluster, f"{name}x"), "what KServe says")
    assert cluster.get("apps/v1", "Deployment", f"{name}x-predictor") is None


def test_the_longest_host_name_of_a_transformer(cluster: Cluster) -> None:
    ready(cluster, "m" * (50 - len(cluster.namespace)), {**SKLEARN, "transformer": BESIDE, "explainer": BESIDE})


def test_the_longest_label(short: Cluster) -> None:
    name = "m" * 48
    ready(short, name, SKLEARN)
    service(short, f"{name}x")
    short.wait_for(lambda: "no more than 63 characters" in said_of(short, f"{name}x"), "what Kubernetes says")
    assert short.get("apps/v1", "Deployment", f"{name}x-predictor") is None


def test_the_longest_name_of_a_canary(cluster: Cluster) -> None:
    name = "m" * (43 - len(cluster.namespace))
    route = {"provider": "istio"}
    canary = {"type": "canary", "properties": {"modelUri": "s3://models/n", "weight": 10, "route": route}}
    ready(cluster, name, {**SKLEARN, "transformer": BESIDE}, canary)
    cluster.wait_ready(f"{name}-canary")


def test_braces_are_a_template_to_kserve_in_the_model_server_alone(cluster: Cluster) -> None:
    word = "--template={{ m }}"
    cluster.up(app("braces", {**SKLEARN, "transformer": {**BESIDE, "args": [word]}}))
    found = cluster.wait_for(lambda: cluster.get("apps/v1", "Deployment", "braces-transformer"), "the transformer")
    assert found is not None
    assert word in found["spec"]["template"]["spec"]["containers"][0]["args"]
    service(cluster, "broken", args=[word])
    cluster.wait_for(lambda: 'function "m" not defined' in said_of(cluster, "broken"), "what KServe says")


def test_of_its_own_canary_kserve_makes_the_pods(cluster: Cluster) -> None:
    """What 0.20 does with provider: kserve of the trait canary, whose weights a later KServe routes.

    Its controller makes no routes in this lab.
    """
    name = "sentiment-kserve"
    parts = {f"{name}-canary-b-predictor": 1, f"{name}-canary-c-predictor": 2, f"{name}-predictor": 1}

    def made() -> dict[str, int]:
        return {one["metadata"]["name"]: one["spec"]["replicas"] for one in cluster.list("apps/v1", "Deployment")}

    cluster.up(ROOT / "examples" / "canary-kserve.yaml")
    # The stable version has 4, and loses as many as the new ones have.
    cluster.wait_for(lambda: made() == parts, f"{parts}")
    cluster.wait_ready(name)

    def told() -> list[tuple[str, bool, int]]:
        status = (cluster.inference_service(name) or {}).get("status") or {}
        return [(one["name"], one["ready"], one["trafficPercent"]) for one in status.get("canaryStatuses") or ()]

    cluster.wait_for(lambda: told() == [("canary-b", True, 10), ("canary-c", True, 20)], "both candidates ready")
    plain = app(name, {"runtime": "triton", "modelUri": "s3://models/sentiment/1", "minReplicas": 4})
    cluster.up({**plain, "metadata": {"name": name}})
    cluster.wait_for(lambda: made() == {f"{name}-predictor": 4}, "the stable version alone, with its pods")
