"""What a run of the step costs vela-core while there is only to wait, beside steps that do next to nothing.

``python -m benchmarks.rollout.waiting``; see docs/rollout.md. On an embedded lab of its own. Processor time is the
process', not seconds on a clock; that of a lab in which nothing waits is taken off.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.controller.__main__ import Core
from benchmarks.rollout.crowd import prometheus

from velagen.lab import Lab, LabOptions, wait_until
from velagen.lab.vela import vela
from velagen.tools import table
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "rollout.md"
#: Seconds until all of them wait.
PATIENCE: Final = 600.0
#: Seconds in which what went before comes to rest.
REST: Final = 30.0
#: So long that no check comes due.
INTERVAL: Final = 86_400
_APPLICATION: Final = ("core.oam.dev/v1beta1", "Application")
_WAIT: Final = 'builtin.#ConditionalWait & {$params: {continue: false, message: "it waits"}}'
_MODEL: Final = (
    'apiVersion: "serving.kserve.io/v1beta1", kind: "InferenceService", '
    "metadata: {name: context.appName, namespace: context.namespace}"
)
#: Steps that wait, by their types.
FLOORS: Final = {
    "waits": f'import "vela/builtin"\nwait: {_WAIT}\nparameter: {{}}\n',
    "reads": (
        'import (\n"vela/builtin"\n"vela/kube"\n)\n'
        f"read: kube.#Read & {{$params: value: {{{_MODEL}}}}} @step(1)\n"
        f"if read.$returns != _|_ {{wait: {_WAIT} @step(2)}}\nparameter: {{}}\n"
    ),
}
#: The route's gateway; nothing serves it.
_GATEWAY: Final = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "kserve-ingress-gateway", "namespace": "kserve"},
    "spec": {"gatewayClassName": "none", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
}
#: What waits, and how a table calls it.
KINDS: Final = {
    "suspend": "`suspend`: the workflow is suspended, and no step runs",
    "waits": "a step of one line, which waits",
    "reads": "a step of two lines, which reads the InferenceService and waits",
    "rollout": "`rollout-model` between two checks",
}


def application(kind: str, number: int, version: int, metrics: str) -> dict[str, Any]:
    """One with a model, and a step behind it that waits."""
    name = f"m{number}"
    properties = {"runtime": "sklearn", "modelUri": f"s3://models/{name}/{version}", "minReplicas": 1}
    settings = {
        "component": name,
        "prometheus": metrics,
        "route": {"hosts": [f"{name}.example.com"]},
        "steps": [20],
        "interval": INTERVAL,
        "checks": 1,
        "deadline": 2 * INTERVAL,
        "settle": 0,
    }
    applied = {"name": "apply", "type": "apply-component", "properties": {"component": name}}
    steps = [applied, {"name": "wait", "type": kind}]
    if kind == "rollout":
        steps = [{"name": "wait", "type": "rollout-model", "properties": settings}]
    return {
        "apiVersion": _APPLICATION[0],
        "kind": _APPLICATION[1],
        "metadata": {"name": name, "namespace": f"bench-{kind}"},
        "spec": {
            "components": [{"name": name, "type": "kfserving", "properties": properties}],
            "workflow": {"steps": steps},
        },
    }


def definition(name: str) -> dict[str, Any]:
    """The definition of one of FLOORS."""
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "WorkflowStepDefinition",
        "metadata": {"name": name, "namespace": "vela-system"},
        "spec": {"schematic": {"cue": {"template": FLOORS[name]}}},
    }


def phases(lab: Lab, kind: str) -> list[str]:
    """Of the rollouts of a namespace."""
    found = [one.get("data", {}) for one in lab.api.list("v1", "ConfigMap", f"bench-{kind}")]
    return [json.loads(one["state"])["phase"] for one in found if "state" in one]


def waiting(lab: Lab, kind: str) -> int:
    """How many of a namespace wait."""
    if kind == "rollout":
        return phases(lab, kind).count("step")
    found = [
        step
        for one in lab.api.list(*_APPLICATION, f"bench-{kind}")
        for step in one.get("status", {}).get("workflow", {}).get("steps", [])
    ]
    return sum(step["name"] == "wait" and step["phase"] in ("running", "suspending") for step in found)


def make(lab: Lab, kind: str, count: int, metrics: str) -> None:
    """Make them, and wait until all of them wait."""
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"bench-{kind}"}})
    versions = (1, 2) if kind == "rollout" else (1,)
    for version in versions:
        lab.api.apply_all([application(kind, number, version, metrics) for number in range(count)])
        if version < versions[-1]:
            wait_until(
                lambda: phases(lab, kind).count("done") == count,
                what=f"{count} models at version {version}",
                timeout=PATIENCE,
                every=2,
            )
    wait_until(lambda: waiting(lab, kind) == count, what=f"{count} of {kind} that wait", timeout=PATIENCE, every=2)


def remove(lab: Lab, kind: str, count: int) -> None:
    """Delete them, and wait until they are gone."""
    for number in range(count):
        lab.api.delete(*_APPLICATION, f"m{number}", f"bench-{kind}")
    wait_until(
        lambda: not lab.api.list(*_APPLICATION, f"bench-{kind}"),
        what=f"{count} of {kind} to be gone",
        timeout=PATIENCE,
        every=2,
    )


def spent(core: Core, seconds: float) -> tuple[float, int]:
    """Processor milliseconds and runs in so many seconds."""
    time.sleep(REST)
    before, looks = core.milliseconds(), core.looks()
    time.sleep(seconds)
    return core.milliseconds() - before, sum(core.looks()) - sum(looks)


def measure(
    lab: Lab, kinds: tuple[str, ...], count: int, seconds: float, metrics: str, say: Reporter
) -> list[list[str]]:
    """The rows of the table, one for each of *kinds*."""
    core = Core(lab)
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
    lab.api.apply_all([_GATEWAY, *(definition(name) for name in FLOORS)])
    idle, _ = spent(core, seconds)
    say.say(f"a lab in which nothing waits: {idle / seconds:.1f} ms of processor time a second")
    rows = []
    for kind in kinds:
        make(lab, kind, count, metrics)
        used, runs = spent(core, seconds)
        rows.append([KINDS[kind], str(runs), f"{(used - idle) / runs:.0f}"])
        say.say(f"{kind}: {rows[-1][2]} ms a run, {runs} runs")
        remove(lab, kind, count)
    return rows


@click.command(epilog="Example: python -m benchmarks.rollout.waiting --count 10 --seconds 90 --write")
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 100), help="How many wait at once.")
@click.option("--seconds", default=90.0, show_default=True, type=click.FloatRange(10), help="How long is looked on.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only this; may be repeated.")
@click.option("--addon", default=page.ROOT / "addon" / "kfserving", type=Path, help="Another folder of the addon.")
@click.option("--kubevela", default=None, help="KubeVela's version; the lab's default where it is not given.")
@click.option("--write", is_flag=True, help="Put the table into docs/rollout.md.")
def main(count: int, seconds: float, kinds: tuple[str, ...], addon: Path, kubevela: str | None, write: bool) -> None:
    """Measure waiting steps on an embedded lab of its own."""
    version = kubevela or table().row("vela-core").version
    options = LabOptions(kubevela=version, gpus_per_node=0)
    with (
        prometheus() as metrics,
        tempfile.TemporaryDirectory(prefix="velagen-benchmark-") as folder,
        Lab("benchmark", folder=Path(folder) / "lab", options=options, reporter=Reporter()) as lab,
    ):
        vela(lab.kubeconfig, "addon", "enable", addon, "-y")
        rows = measure(lab, kinds or tuple(KINDS), count, seconds, metrics, Reporter())
    text = f"{count} at once for {seconds:.0f} s each, on KubeVela {version}:\n\n"
    text += page.table(["what waits", "runs", "processor milliseconds a run"], rows)
    click.echo(text)
    if write:
        page.write("waiting", text, PAGE)


if __name__ == "__main__":
    main()
