"""Prometheus' own promtool, for tests of rules: what they make of series that are written down."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from velagen.tools import tool

#: Labels of a target, as the scrape configuration makes them.
OWNER = {"app": "shop", "component": "m", "namespace": "team", "version": "m"}


def promtool() -> str:
    """A promtool: that of PATH, whatever its version, as rules must hold for the Prometheus that people run."""
    return shutil.which("promtool") or str(tool("promtool"))


def run(*arguments: str | Path) -> str:
    """What it says; it must be content."""
    done = subprocess.run([promtool(), *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """One input series in promtool's notation: start+step x times."""
    return {"series": name + selector(labels), "values": values}


def of_pod(name: str, values: str, pod: str = "m-predictor-1", **labels: str) -> dict[str, str]:
    """A series of a model's pod, with the labels of its target."""
    return series(name, values, **{**OWNER, "part": "predictor", "pod": pod, "instance": pod, **labels})


def selector(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def expect(expr: str, at: str, *samples: tuple[dict[str, str], float]) -> dict[str, Any]:
    """An expression's samples at a time; numbers are rounded, as promtool compares them exactly."""
    return {
        "expr": f"round({expr}, 0.001)",
        "eval_time": at,
        "exp_samples": [{"labels": selector(labels), "value": value} for labels, value in samples],
    }


def holds(folder: Path, rules: str, *tests: dict[str, Any], every: str = "15s") -> None:
    """Run unit tests of a rule file in one go."""
    groups = _with_an_answer(yaml.safe_load(rules)["groups"], tests)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000), "utf-8")
    content = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": every,
        # Left alone promtool takes any order, and what one group reads of another is a look late.
        "group_eval_order": [group["name"] for group in groups],
        "tests": list(tests),
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=10_000), encoding="utf-8")
    run("test", "rules", folder / "tests.yaml")


def _with_an_answer(groups: list[dict[str, Any]], tests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups without the rules that read nothing that is there: they would be asked at each look, for nothing.

    A rule stays if a word of it is the name of an input series or of a rule that stays, or if its expression has an
    answer where nothing is there.
    """
    names = {re.split(r"[{\s]", one["series"])[0] for test in tests for one in test.get("input_series", ())}
    stays: list[dict[str, Any]] = []
    rules = [rule for group in groups for rule in group["rules"]]
    while found := [rule for rule in rules if rule not in stays and _reads(str(rule["expr"]), names)]:
        stays += found
        names |= {rule.get("record", rule.get("alert")) for rule in found} | {"ALERTS"}
    kept = [{**group, "rules": [rule for rule in group["rules"] if rule in stays]} for group in groups]
    return [group for group in kept if group["rules"]]


def _reads(expr: str, names: set[str]) -> bool:
    words = set(re.findall(r"[A-Za-z_:][\w:]*", expr))
    return bool(words & names) or bool(words & {"absent", "absent_over_time", "vector", "time"})
