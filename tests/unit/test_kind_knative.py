"""Knative in a kind lab: what is applied, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velagen.kubernetes.crds import crd_store
from velagen.lab import objects
from velagen.lab.images import recipes
from velagen.lab.kind import gateway, knative
from velagen.tools import source, table, wanted

Things = dict[tuple[str, str], dict[str, Any]]
ENVOY = "velagen.local/envoy:0"


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    things, late = knative.objects(ENVOY)
    return [*things, *late]


@pytest.fixture(scope="module")
def named(rendered: list[dict[str, Any]]) -> Things:
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in rendered}


def test_what_is_applied_is_what_kubernetes_takes(rendered: list[dict[str, Any]]) -> None:
    crds = knative.crds()
    kinds = {crd["spec"]["names"]["kind"] for crd in crds}
    assert {"Service", "Revision", "Configuration", "Route", "PodAutoscaler", "Metric", "Ingress", "Image"} <= kinds
    problems = [problem for thing in (*crds, *rendered) for problem in crd_store().check(thing)]
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert len(problems) <= 1, "of Knative's own Image alone no schema is known"
    order = [thing["kind"] for thing in rendered]
    assert order[0] == "Namespace"
    assert order.index("ValidatingWebhookConfiguration") < order.index("Deployment")
    assert order[-2:] == ["Image", "HTTPRoute"]


def test_pods_run_the_images_that_the_lab_has(named: Things) -> None:
    deployments = {name: thing for (kind, name), thing in named.items() if kind == "Deployment"}
    assert set(deployments) == {*knative.IMAGES, knative.ENVOY}
    for name, thing in deployments.items():
        (container,) = thing["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["requests"]["cpu"] == "20m"
        if name == knative.ENVOY:
            assert container["image"] == ENVOY
            continue
        assert container["image"] in recipes()[knative.IMAGES[name]].references
    proxy = recipes()[knative.PROXY].references[0]
    assert named["ConfigMap", "config-deployment"]["data"]["queue-sidecar-image"] == proxy
    assert named["Image", "queue-proxy"]["spec"]["image"] == proxy
    left = [thing for thing in named.values() if "ko://" in json.dumps(thing)]
    assert left == []
    for recipe in (*knative.IMAGES.values(), knative.PROXY):
        image = recipes()[recipe]
        (part,) = [part for part in image.parts if part.tool]
        row = table().row(*wanted(str(part.tool)))
        assert row.image is not None
        # Assembled, the image has the program where a registry's has it: upstream's manifests name none.
        assert part.path == image.entrypoint[0] == row.image.member
        assert image.references == (f"{row.image.repository}:{row.image.tag.format(version=row.version)}",)
        module = "kourier" if recipe == "kourier" else "knative"
        assert source(module).name.endswith(f"@v{row.version}")


def test_the_serving_that_kserve_is_built_with() -> None:
    pins = (Path(source("kserve")) / "go.mod").read_text(encoding="utf-8")
    assert f"knative.dev/serving v{table().row('knative-controller').version}\n" in pins


def test_what_is_set_otherwise_than_upstream_has_it(named: Things) -> None:
    network = named["ConfigMap", "config-network"]["data"]
    assert network["ingress-class"] == "kourier.ingress.networking.knative.dev"
    assert list(named["ConfigMap", "config-domain"]["data"]) == [knative.DOMAIN]
    # Of one label, which the gateway's wildcard stands for.
    host = network["domain-template"].replace("{{.Name}}", "m").replace("{{.Namespace}}", "n")
    assert host.replace("{{.Domain}}", knative.DOMAIN) == f"m-n.{knative.DOMAIN}"
    route = named["HTTPRoute", "knative"]["spec"]
    assert route["hostnames"] == [f"*.{knative.DOMAIN}"]
    assert route["parentRefs"] == [{"name": gateway.GATEWAY, "namespace": objects.KSERVE_NAMESPACE}]
    assert ("Service", route["rules"][0]["backendRefs"][0]["name"]) in named
    assert named["ConfigMap", "config-observability"]["data"]["request-metrics-protocol"] == "prometheus"
    skipped = named["ConfigMap", "config-deployment"]["data"]["registries-skipping-tag-resolving"].split(",")
    assert {"index.docker.io", "velagen.local", "nvcr.io", "gcr.io"} <= set(skipped)
    # An example of upstream's would be refused where its checksum is not the annotation's.
    for (kind, _), thing in named.items():
        if kind == "ConfigMap":
            assert "_example" not in thing["data"]
            assert "knative.dev/example-checksum" not in thing["metadata"].get("annotations", {})
