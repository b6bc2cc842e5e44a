"""KEDA in a kind lab: what is applied, and where it comes from."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from velagen.kubernetes.crds import crd_store
from velagen.lab.images import recipes
from velagen.lab.kind import keda
from velagen.lab.kind.certs import issue
from velagen.tools import source, table, wanted

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def rendered() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return keda.objects(issue(keda.served()))


def test_what_is_applied_is_what_kubernetes_takes(rendered: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    crds, things = rendered
    assert {crd["spec"]["group"] for crd in crds} == {"keda.sh", "eventing.keda.sh"}
    # The operator watches all of them.
    assert len(crds) == 6
    problems = [problem for thing in (*crds, *things) for problem in crd_store().check(thing)]
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert len(problems) <= 1, "of the APIService alone no schema is known"


def test_pods_run_the_images_that_the_lab_has_as_upstreams_manifests_start_them(
    rendered: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    deployments = {thing["metadata"]["name"]: thing for thing in rendered[1] if thing["kind"] == "Deployment"}
    assert set(deployments) == set(keda.IMAGES)
    for name, recipe in keda.IMAGES.items():
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        image = recipes()[recipe]
        assert container["image"] in image.references
        assert container["imagePullPolicy"] == "IfNotPresent"
        # Assembled, the image has the program where the manifests look for it.
        (program,) = container["command"]
        (part,) = [part for part in image.parts if part.tool]
        assert part.path == program == image.entrypoint[0]
        row = table().row(*wanted(str(part.tool)))
        assert row.image is not None
        assert container["image"] == f"{row.image.repository}:{row.image.tag.format(version=row.version)}"
        assert row.image.member == program
        assert source("keda").name.endswith(f"@v{row.version}")


def test_one_certificate_that_everyone_trusts(rendered: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """The API server asks the metrics server, which asks the operator: each by the name of a Service."""
    things = {(thing["kind"], thing["metadata"]["name"]): thing for thing in rendered[1]}
    secret = things["Secret", keda.CERTIFICATE]["data"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    named = set(names.get_values_for_type(x509.DNSName))
    api = things["APIService", keda.API_SERVICE]["spec"]
    assert api["caBundle"] == secret["ca.crt"] == secret["tls.crt"]
    assert f"{api['service']['name']}.{api['service']['namespace']}.svc" in named
    assert ("Service", api["service"]["name"]) in things
    # pkg generateDefaultMetricsServiceAddr in cmd/adapter/main.go
    assert f"{keda.OPERATOR}.{keda.NAMESPACE}.svc.cluster.local" in named
    operator = things["Deployment", keda.OPERATOR]["spec"]["template"]["spec"]["containers"][0]
    assert not [argument for argument in operator["args"] if "cert-rotation" in argument]
    order = [thing["kind"] for thing in rendered[1]]
    assert order[0] == "Namespace"
    assert order[-1] == "APIService"
    assert order.index("Secret") < order.index("Deployment")


def test_what_the_trait_renders_is_what_this_keda_takes() -> None:
    """Against the CRDs of the pinned KEDA, which are newer than those that come with KServe's sources."""
    store = crd_store(Path(source("keda")) / "config/crd/bases")
    schema = store.schema("keda.sh/v1alpha1", "ScaledObject") or {}
    assert "scalingModifiers" in schema["properties"]["spec"]["properties"]["advanced"]["properties"]
    found = 0
    for path in sorted(GOLDEN.glob("autoscale-*.yaml")):
        for thing in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if thing and thing.get("kind") == "ScaledObject":
                found += 1
                assert store.check(thing) == [], path.name
    assert found >= 8
