"""The trait slo: what it becomes is what the module of objectives says of the same values."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from velagen.check.dryrun import dry_run
from velagen.cli import main
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog, of_kubevela
from velagen.documents import read_documents
from velagen.kubevela import VERSIONS
from velagen.monitoring.objectives import Objective, Slo, of_component
from velagen.monitoring.objects import groups_of
from velagen.project import Project

ROOT = Path(__file__).parents[2]
OWNER = {"app": "shop", "component": "m", "namespace": "team"}


@cache
def catalog(kubevela: str) -> Catalog:
    return Catalog.of([*of_kubevela(kubevela), *(one.known() for one in build_definitions(Project(ROOT)))])


def rendered(folder: Path, kubevela: str, properties: dict[str, Any], runtime: str = "mlflow") -> dict[str, Any]:
    """The object of the trait."""
    model = {"runtime": runtime, "modelUri": "s3://models/m/1"}
    app = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "shop", "namespace": "team"},
        "spec": {
            "components": [
                {
                    "name": "m",
                    "type": "kfserving",
                    "properties": model,
                    "traits": [{"type": "slo", "properties": properties}],
                }
            ]
        },
    }
    file = folder / "app.yaml"
    file.write_text(yaml.safe_dump(app), encoding="utf-8")
    (document,) = read_documents(file)
    outcome = dry_run(document, catalog(kubevela), kubevela=kubevela)
    assert not outcome.problems
    (found,) = (one.content for one in outcome.objects if one.definition == "slo")
    return found


def objective(slo: Slo, percent: str, route: str, window: str, milliseconds: str = "", bound: str = "") -> Objective:
    return Objective(
        **OWNER, slo=slo, route=route, percent=percent, window=window, milliseconds=milliseconds, bound=bound
    )


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    ("properties", "objectives"),
    [
        ({"availability": 99.9}, [objective("availability", "99.9", "envoy", "30d")]),
        ({"availability": 99, "window": "7d", "route": "server"}, [objective("availability", "99", "server", "7d")]),
        (
            {"latencyMilliseconds": 2500, "percentile": 99.5, "route": "istio"},
            [objective("latency", "99.5", "istio", "30d", "2500", "2500")],
        ),
        (
            {"latencyMilliseconds": 7500, "availability": 99.95, "window": "28d", "route": "server"},
            [
                objective("availability", "99.95", "server", "28d"),
                objective("latency", "99", "server", "28d", "7500", "7.5"),
            ],
        ),
        ({"latencyMilliseconds": 0.5}, [objective("latency", "99", "envoy", "30d", "0.5", "0.5")]),
    ],
    ids=str,
)  # fmt: skip
def test_the_traits_rules_are_those_of_the_module(
    tmp_path: Path, kubevela: str, properties: dict[str, Any], objectives: list[Objective]
) -> None:
    wanted = [of_component(**OWNER, objectives=objectives).content()]
    by_operator = rendered(tmp_path, kubevela, {**properties, "prometheusRule": True, "labels": {"release": "prom"}})
    assert by_operator["kind"] == "PrometheusRule"
    assert by_operator["metadata"]["labels"]["release"] == "prom"
    assert groups_of(by_operator) == wanted
    plain = rendered(tmp_path, kubevela, properties)
    assert plain["kind"] == "ConfigMap"
    assert groups_of(plain) == wanted


def test_the_command_prints_what_the_trait_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = CliRunner().invoke(main, ["metrics", "rules", "--app", "examples/slo.yaml"])
    assert printed.exit_code == 0, printed.output
    own = {"app": "sentiment-slo", "component": "sentiment-slo", "namespace": "default"}
    common = {**own, "route": "envoy", "window": "30d"}
    objectives = [
        Objective(**common, slo="availability", percent="99.9"),
        Objective(**common, slo="latency", percent="99", milliseconds="250", bound="250"),
    ]
    assert yaml.safe_load(printed.stdout)["groups"] == [of_component(**own, objectives=objectives).content()]
    for file, says in {
        "examples/grpc.yaml": "no component here has the trait slo",
        "tests/bad-input/slo-latency-between-buckets.yaml": "write 250 or 500",
    }.items():
        refused = CliRunner().invoke(main, ["metrics", "rules", "--app", file])
        assert refused.exit_code == 1
        assert says in refused.output
        assert refused.stdout == ""
