"""metrics-server in a kind lab: what is applied, and where it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from velagen.kubernetes.crds import crd_store
from velagen.lab.images import recipes
from velagen.lab.kind import metrics_server
from velagen.lab.kind.certs import issue
from velagen.tools import source, table, wanted


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    return metrics_server.objects(issue(metrics_server.served()))


def test_what_is_applied_is_what_kubernetes_takes(rendered: list[dict[str, Any]]) -> None:
    problems = [problem for thing in rendered for problem in crd_store().check(thing)]
    assert [problem for problem in problems if problem.severity == "error"] == []
    # Discovery asks for the API from the moment it is there.
    assert [thing["kind"] for thing in rendered][-2:] == ["Deployment", "APIService"]
    assert rendered[-1]["metadata"]["name"] == metrics_server.API_SERVICE
    # It is the one that is asked, and no other that answers at its address.
    assert "insecureSkipTLSVerify" not in rendered[-1]["spec"]
    (secret,) = [thing for thing in rendered if thing["kind"] == "Secret"]
    assert rendered[-1]["spec"]["caBundle"] == secret["data"]["tls.crt"]
    assert {thing["metadata"].get("namespace", metrics_server.NAMESPACE) for thing in rendered} == {"kube-system"}


def test_its_pod_runs_the_image_that_the_lab_has(rendered: list[dict[str, Any]]) -> None:
    (deployment,) = [thing for thing in rendered if thing["kind"] == "Deployment"]
    assert deployment["metadata"]["name"] == metrics_server.NAME
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image = recipes()[metrics_server.IMAGE]
    assert container["image"] in image.references
    assert container["imagePullPolicy"] == "IfNotPresent"
    (part,) = image.parts
    row = table().row(*wanted(str(part.tool)))
    assert row.image is not None
    assert container["image"] == f"{row.image.repository}:{row.image.tag.format(version=row.version)}"
    assert [row.image.member] == list(image.entrypoint) == [part.path]
    assert source("metrics-server").name.endswith(f"@v{row.version}")
    # Upstream's own arguments, and the one that a kind cluster needs.
    assert container["args"][-1] == "--kubelet-insecure-tls"
    assert any(argument.startswith("--secure-port=") for argument in container["args"])
