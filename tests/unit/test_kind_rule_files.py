"""What the container beside the lab's Prometheus does with the rule files that it finds in ConfigMaps."""

from __future__ import annotations

from pathlib import Path

import yaml

from velagen.lab.kind.prometheus import NAME, RULES, configuration, objects
from velagen.lab.kind.rule_files import wanted, write


def config_map(namespace: str, **files: str) -> dict[str, object]:
    return {"metadata": {"namespace": namespace, "name": "m-slo"}, "data": files}


def test_files_come_change_and_go(tmp_path: Path) -> None:
    both = {"items": [config_map("a", rules="one"), config_map("b", rules="two"), {**config_map("c"), "data": None}]}
    assert write(wanted(both), tmp_path)
    there = {path.name: path.read_text() for path in tmp_path.iterdir()}
    # Models of one name in two namespaces.
    assert there == {"a.m-slo.rules": "one", "b.m-slo.rules": "two"}
    assert not write(wanted(both), tmp_path)
    assert write(wanted({"items": [config_map("a", rules="other")]}), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.m-slo.rules": "other"}
    assert write(wanted({"items": None}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_prometheus_reads_where_they_are_put() -> None:
    (deployment,) = [one for one in objects(30000) if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    prometheus, beside = pod["containers"]
    (place,) = beside["volumeMounts"]
    assert {**place, "readOnly": True} in prometheus["volumeMounts"]
    assert f"{place['mountPath']}/*" in configuration()["rule_files"]
    label, folder, reload = beside["args"]
    assert (dict([label.split("=")]), folder) == (RULES, place["mountPath"])
    assert reload.endswith("/-/reload")
    assert "--web.enable-lifecycle" in prometheus["args"]
    (role,) = [one for one in objects(30000) if one["kind"] == "ClusterRole"]
    assert "configmaps" in yaml.safe_dump(role["rules"])
    assert deployment["metadata"]["name"] == NAME
