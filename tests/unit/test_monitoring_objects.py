"""What the addon's parameter monitoring makes: objects of the Prometheus operator, and defaults of its definitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.addon_template import assert_is_that_of_the_file, component, rendered
from tests.unit.promtool import run
from tests.unit.test_monitoring import relabeled

from velagen.cli.metrics import metrics_group
from velagen.kubernetes.crds import CrdStore
from velagen.kubernetes.structural import check_against
from velagen.kubevela import VERSIONS
from velagen.monitoring.objects import operator_relabelings
from velagen.monitoring.scrape import from_pods, scrape_config
from velagen.tools import source

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
GOLDEN = Path(__file__).parent / "golden" / "monitoring"
ADDRESS = "https://prometheus.example.com:9090/a_b/"


@pytest.fixture(scope="module", params=VERSIONS)
def kubevela(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def all_of_it(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    parameter = {
        "monitoring": {
            "objects": "pod-monitor",
            "rules": True,
            "interval": "5s",
            "namespace": "monitoring",
            "labels": {"release": "kube-prometheus-stack"},
        }
    }
    return rendered(ADDON, tmp_path_factory.mktemp("addon"), parameter, kubevela=VERSIONS[0])


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> CrdStore:
    """The operator's own CustomResourceDefinitions."""
    folder = source("prometheus-operator") / "example/prometheus-operator-crd"
    return CrdStore({"kubernetes": source("kubernetes")}, tmp_path_factory.mktemp("cache"), (folder,))


# ---------------------------------------------------------------- objects of the operator


def test_the_operators_schemas_take_the_objects(
    all_of_it: tuple[dict[str, Any], dict[str, dict[str, Any]]], operator: CrdStore
) -> None:
    application, _ = all_of_it
    objects = [*component(application, "monitoring-pods"), *component(application, "monitoring-rules")]
    assert [one["kind"] for one in objects] == ["PodMonitor", "PodMonitor", "PrometheusRule"]
    for one in objects:
        assert check_against(one, operator.schema, operator.kinds) == []
        assert one["metadata"] == {
            "name": one["metadata"]["name"],
            "namespace": "monitoring",
            "labels": {"release": "kube-prometheus-stack"},
        }
    broken = {**objects[0], "spec": {"podMetricsEndpoints": [{"relabelings": [{"source_labels": ["a"]}]}]}}
    assert check_against(broken, operator.schema, operator.kinds), "the schema is one that refuses"


def test_the_pod_monitors(all_of_it: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    made = component(all_of_it[0], "monitoring-pods")
    assert made == list(yaml.safe_load_all((GOLDEN / "pod-monitors.yaml").read_text(encoding="utf-8")))


def test_the_prometheus_rule_holds_what_velagen_prints_and_promtool_takes_it(
    all_of_it: tuple[dict[str, Any], dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    (made,) = component(all_of_it[0], "monitoring-rules")
    assert made["spec"] == yaml.safe_load(CliRunner().invoke(metrics_group, ["rules"]).output)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made["spec"], width=10_000), encoding="utf-8")
    assert "SUCCESS" in run("check", "rules", tmp_path / "rules.yaml")


def pods_targets(steps: list[dict[str, Any]]) -> Iterator[dict[str, str] | None]:
    """A pod with two containers as Prometheus discovers it, with the labels that the operator adds before ours."""
    meta = "__meta_kubernetes_pod"
    for name, port in (("kserve-container", "8080"), ("queue-proxy", "9091")):
        yield relabeled(
            {
                "__address__": f"10.0.0.7:{port}",
                "container": name,
                "__meta_kubernetes_namespace": "team",
                f"{meta}_name": "m-predictor-1",
                f"{meta}_ip": "10.0.0.7",
                f"{meta}_phase": "Running",
                f"{meta}_annotation_prometheus_io_scrape": "true",
                f"{meta}_annotation_prometheus_io_port": "8002",
                f"{meta}_label_app_oam_dev_name": "shop",
                f"{meta}_label_app_oam_dev_component": "m",
                f"{meta}_label_serving_kserve_io_inferenceservice": "m",
                f"{meta}_label_component": "predictor",
            },
            steps,
        )


def test_a_pod_with_two_containers_is_one_target_with_the_labels_of_a_plain_prometheus() -> None:
    words = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    operators = [
        {words.get(key, key): value for key, value in one.items()} for one in operator_relabelings(from_pods())
    ]
    first, second = pods_targets(operators)
    assert first == second
    (plain, _) = scrape_config()
    (expected, _) = pods_targets(plain["relabel_configs"])
    assert expected is not None
    assert first == {name: value for name, value in expected.items() if name != "container"}


def test_nothing_is_installed_unasked(tmp_path: Path, kubevela: str) -> None:
    application, _ = rendered(ADDON, tmp_path, {}, kubevela=kubevela)
    assert application["spec"] == {"components": []}


# ---------------------------------------------------------------- defaults that the addon gives


def test_a_definition_of_the_template_is_that_of_the_file(tmp_path: Path, kubevela: str) -> None:
    """With the addon's own defaults; KubeVela applies the former and looks at the latter."""
    application, outputs = rendered(ADDON, tmp_path / "cue", {}, kubevela=kubevela)
    made = {name: one for name, one in outputs.items() if one["kind"].endswith("Definition")}
    assert {"component-kfserving", "trait-autoscale"} <= set(made)
    for one in made.values():
        assert_is_that_of_the_file(one, ADDON, tmp_path, kubevela)
    # What is bound is not noted by KubeVela: so all of the kind are made here, and noted here.
    noted = application["metadata"]["annotations"]
    kinds = {"component": "component", "trait": "trait", "workflow-step": "workflowStep"}
    assert noted == {
        f"addon.oam.dev/{theirs}Definitions": ",".join(sorted(of_kind(kind))) for kind, theirs in kinds.items()
    }
    assert sorted(made) == sorted(f"{kind}-{name}" for kind in kinds for name in of_kind(kind))


def of_kind(kind: str) -> list[str]:
    """The names of all definitions of a kind in the addon's folder."""
    files = (ADDON / "definitions").glob("*.cue")
    return [
        one.stem for one in files if re.search(rf'^\ttype: +"{kind}"$', one.read_text(encoding="utf-8"), re.MULTILINE)
    ]


@pytest.mark.parametrize(("objects", "scrape"), [("none", "false"), ("annotations", "true"), ("pod-monitor", "true")])
def test_what_the_addon_is_enabled_with_is_the_default(
    tmp_path: Path, kubevela: str, objects: str, scrape: str
) -> None:
    parameter = {"monitoring": {"prometheus": ADDRESS, "objects": objects}}
    _, outputs = rendered(ADDON, tmp_path, parameter, kubevela=kubevela)

    def template(name: str) -> list[str]:
        text = str(outputs[name]["spec"]["schematic"]["cue"]["template"])
        return [" ".join(line.split()) for line in text.splitlines()]

    # At render, and in the form.
    found = [line for line in template("trait-autoscale") if line.startswith("prometheusAddress: *")]
    assert len(found) == 2
    assert all(line.startswith(f'prometheusAddress: *"{ADDRESS}" | ') for line in found)
    found = [line for line in template("component-kfserving") if line.startswith("scrape: *")]
    assert found == [f"scrape: *{scrape} | _", f"scrape: *{scrape} | bool"]
