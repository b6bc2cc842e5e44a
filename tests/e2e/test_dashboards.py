"""The dashboards on the real API server, by both KubeVelas: their size must fit what these keep of an object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from velagen.lab import Lab, wait_until
from velagen.lab.vela import vela
from velagen.monitoring.dashboards import UIDS, dashboard

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.both]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
SPACE = "vela-system"
GROUP, KIND = "o11y.prism.oam.dev", "GrafanaDashboard"
WANTED = {uid: json.loads(dashboard(name)) for name, uid in UIDS.items()}
#: The component of KubeVela's addon o11y-definitions, but for the object's name. That is UID@GRAFANA there, which only
#: prism takes: an API server that passes the object on to Grafana, and that the lab does not have.
COMPONENT = """
import "encoding/json"

"grafana-dashboard": {
	type: "component"
	attributes: workload: type: "autodetects.core.oam.dev"
}
template: {
	parameter: {
		grafana: *"default" | string
		uid:     string
		data:    string
	}
	output: {
		apiVersion: "o11y.prism.oam.dev/v1alpha1"
		kind:       "GrafanaDashboard"
		metadata: name: "\\(parameter.uid).\\(parameter.grafana)"
		spec: json.Unmarshal(parameter.data)
	}
}
"""


@pytest.fixture(autouse=True)
def back(lab: Lab) -> Iterator[None]:
    """The addon as other tests expect it."""
    yield
    vela(lab.kubeconfig, "addon", "enable", ADDON)


def test_dashboards_are_config_maps_for_grafanas_sidecar(lab: Lab) -> None:
    def found() -> dict[str, dict[str, Any]]:
        maps = lab.api.list("v1", "ConfigMap", SPACE, selector="grafana_dashboard=1")
        return {one["metadata"]["name"]: one for one in maps}

    vela(lab.kubeconfig, "addon", "enable", ADDON, "monitoring.dashboards=true", "monitoring.labels.team=models")
    wait_until(lambda: found().keys() == WANTED.keys(), what="the dashboards' ConfigMaps", timeout=60)
    assert {uid: json.loads(one["data"][f"{uid}.json"]) for uid, one in found().items()} == WANTED
    assert {one["metadata"]["labels"]["team"] for one in found().values()} == {"models"}
    # For a ConfigMap KubeVela keeps no copy in an annotation (pkg/utils/apply/apply.go), which holds 256 KiB at most.
    assert all(
        "app.oam.dev/last-applied-configuration" not in one["metadata"]["annotations"] for one in found().values()
    )
    vela(lab.kubeconfig, "addon", "enable", ADDON, "monitoring.dashboards=false")
    wait_until(lambda: not found(), what="no ConfigMap any more", timeout=60)


def test_dashboards_are_given_to_the_grafana_of_kubevelas_addon(lab: Lab, tmp_path: Path) -> None:
    names = {"plural": "grafanadashboards", "singular": "grafanadashboard", "kind": KIND, "listKind": f"{KIND}List"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    lab.api.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"grafanadashboards.{GROUP}"},
            "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
        }
    )
    (tmp_path / "grafana-dashboard.cue").write_text(COMPONENT)
    vela(lab.kubeconfig, "def", "apply", tmp_path / "grafana-dashboard.cue")

    def found() -> dict[str, Any]:
        given = lab.api.list(f"{GROUP}/v1alpha1", KIND)
        return {one["metadata"]["name"]: one["spec"] for one in given}

    vela(lab.kubeconfig, "addon", "enable", ADDON, "monitoring.grafana=default")
    wait_until(lambda: len(found()) == len(WANTED), what="the dashboards given to Grafana", timeout=60)
    assert found() == {f"{uid}.default": content for uid, content in WANTED.items()}
