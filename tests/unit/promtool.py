"""Prometheus' own promtool, for tests of rules: what they make of series that are written down."""

from __future__ import annotations

import shutil
import subprocess
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
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    content = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": every,
        # Left alone promtool takes any order, and what one group reads of another is a look late.
        "group_eval_order": [group["name"] for group in yaml.safe_load(rules)["groups"]],
        "tests": list(tests),
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=10_000), encoding="utf-8")
    run("test", "rules", folder / "tests.yaml")
