"""What one render of a plain application costs CUE, kfserving beside KubeVela's own webservice.

``python -m benchmarks.rendering``; see docs/benchmarks.md. Processor time of an evaluator that is linked with the CUE
of each KubeVela, without a cluster and without all else that vela-core does, which ``benchmarks.controller`` measures.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from benchmarks import page

from velagen.check.dryrun import offline_environment
from velagen.definition.catalog import of_kubevela
from velagen.errors import Problem, VelagenError
from velagen.kubevela import KubeVela
from velagen.oracle import Oracle
from velagen.tools import tool

#: The component types that are compared, the yardstick first, and a plain application of each.
PROPERTIES: dict[str, dict[str, Any]] = {
    "webservice": {"image": "registry.example.com/web:1", "ports": [{"port": 8080, "expose": True}]},
    "kfserving": {"runtime": "triton", "modelUri": "s3://models/sentiment/1", "minReplicas": 1},
}
#: Renders between two looks at the clock of the process, which ticks a hundred times a second.
RENDERS = {"webservice": 60, "kfserving": 20}
#: What KubeVela puts beside a template.
CONTEXT = 'context: {name: "m", appName: "m", namespace: "default", appRevision: "m-v1", cluster: "local"}'


@dataclass
class Costs:
    """Processor milliseconds a render, round by round."""

    of: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PROPERTIES})

    @property
    def ratio(self) -> float:
        """Ours over KubeVela's own: of the medians, since what else the machine does costs both in their turns."""
        return statistics.median(self.of["kfserving"]) / statistics.median(self.of["webservice"])


def template_of(cue: str, kubevela: KubeVela) -> str:
    """What KubeVela keeps of a definition, and evaluates at each render.

    Raises VelagenError where it does not take the definition.
    """
    with tempfile.TemporaryDirectory(prefix="velagen-rendering-") as name:
        file, made = Path(name) / "definition.cue", Path(name) / "definition.yaml"
        file.write_text(cue, encoding="utf-8")
        done = subprocess.run(
            [str(tool("vela", kubevela.version)), "def", "render", str(file), "-o", str(made)],
            env=offline_environment(Path(name)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise VelagenError(Problem(f"vela def render ended with status {done.returncode}: {done.stderr[-500:]}"))
        return str(yaml.load(made.read_bytes(), Loader=yaml.CSafeLoader)["spec"]["schematic"]["cue"]["template"])


def templates(kubevela: KubeVela) -> dict[str, str]:
    """The template of each component type."""
    (webservice,) = (
        one for one in of_kubevela(kubevela.version) if (one.kind, one.name) == ("component", "webservice")
    )
    own = (page.ROOT / "addon" / "kfserving" / "definitions" / "kfserving.cue").read_text(encoding="utf-8")
    return {"webservice": template_of(str(webservice.cue), kubevela), "kfserving": template_of(own, kubevela)}


def rounds(kubevela: KubeVela) -> Iterator[Costs]:
    """The costs found so far, after each round; each type has an evaluator of its own, and they take turns.

    Raises VelagenError where one does not render.
    """
    texts, costs = templates(kubevela), Costs()
    with Oracle(kubevela.cue, seconds=60) as webservice, Oracle(kubevela.cue, seconds=60) as kfserving:
        evaluators = {"webservice": webservice, "kfserving": kfserving}
        for name, oracle in evaluators.items():
            _render(oracle, name, texts[name], 5)  # caches fill
        while True:
            for name, oracle in evaluators.items():
                # KubeVela 1.11 rewrites a text for its CUE once and keeps it, the evaluator does so at each question:
                # the difference of two questions has none of it.
                before = oracle.processor_seconds()
                _render(oracle, name, texts[name], 1)
                once = oracle.processor_seconds()
                _render(oracle, name, texts[name], 1 + RENDERS[name])
                spent = oracle.processor_seconds() - once - (once - before)
                costs.of[name].append(spent * 1000 / RENDERS[name])
            yield costs


def _render(oracle: Oracle, name: str, text: str, times: int) -> None:
    wrong = [one.error for one in oracle.render(text, [PROPERTIES[name]] * times, context=CONTEXT) if not one.ok]
    if wrong:
        raise VelagenError(Problem(f"{name} does not render: {wrong[0]}"))


def block(found: dict[str, Costs]) -> str:
    """Give the part of docs/benchmarks.md."""
    head = ["KubeVela (CUE)", "`webservice`, ms", "`kfserving`, ms", "ratio of the medians"]
    rows = [
        [title, *(page.Spread.of(costs.of[name]).text(1) for name in PROPERTIES), f"{costs.ratio:.2f}"]
        for title, costs in found.items()
    ]
    return "\n".join(
        [
            f"{len(next(iter(found.values())).of['kfserving'])} rounds, alternated; processor milliseconds of one "
            "render of a plain application, median (least to greatest).",
            "",
            page.table(head, rows),
        ]
    )
