"""metrics-server in a kind lab: what is applied, where it comes from, and that only who asks for it waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests import budget

from velagen.cli import main
from velagen.kubernetes.crds import crd_store
from velagen.lab.images import recipes
from velagen.lab.kind import LAYERS, KindLab, KindOptions, metrics_server
from velagen.lab.kind.certs import issue
from velagen.lab.kind.options import layers_with
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


def test_only_who_asks_for_it_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[KindOptions] = []
    monkeypatch.setattr(KindLab, "up", lambda lab: built.append(lab.options))
    monkeypatch.setattr(KindLab, "ports", lambda lab: {})
    for arguments in ([], ["--metrics-server"], ["--keda", "--metrics-server"]):
        CliRunner().invoke(main, ["lab", "up", "--kind", "--dir", str(tmp_path / "lab"), *arguments])
    both = layers_with("keda", "metrics-server")
    assert [options.layers for options in built] == [LAYERS, layers_with("metrics-server"), both]
    assert both.index("prometheus") < both.index("metrics-server") < both.index("addon")
    said = CliRunner().invoke(main, ["lab", "up", "--metrics-server", "--dir", str(tmp_path / "lab")])
    assert said.exit_code != 0
    assert "--metrics-server is for kind clusters" in said.output


def test_a_run_with_a_bound_on_its_time_never_builds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    assert metrics_server.IMAGE not in budget.of_every_cluster()
    monkeypatch.setenv(budget.UNTIL, "1e12")
    with pytest.raises(pytest.skip.Exception, match=r"left out: metrics-server 0\.9\.0 would have to be built first"):
        budget.leave_out_if_unbuilt([metrics_server.IMAGE])
