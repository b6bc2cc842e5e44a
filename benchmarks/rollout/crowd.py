"""Many rollouts at once on the embedded lab: what a run of the step costs vela-core, and whether checks come in time.

``python -m benchmarks.rollout.crowd``; see docs/rollout.md. Nothing serves: a stand-in for Prometheus answers each
check with the numbers of a good version. Processor time is the process', not seconds on a clock.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.controller.__main__ import Core

from velagen.lab import Lab, LabOptions, wait_until
from velagen.lab.vela import vela
from velagen.tools import table
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "rollout.md"
NAMESPACE: Final = "bench-rollouts"
#: Seconds that all of them may take.
PATIENCE: Final = 1200.0
STEPS: Final = [20, 60]
INTERVAL: Final = 30
#: Of a good version. As Prometheus writes it: without spaces.
NUMBERS: Final = {"requests": "500", "success ratio": "1", "beside stable": "1.02"}
_RESULT = [{"metric": {"rollout": name}, "value": [1, value]} for name, value in NUMBERS.items()]
_ANSWER = json.dumps(
    {"status": "success", "data": {"resultType": "vector", "result": _RESULT}}, separators=(",", ":")
).encode()


class _Prometheus(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # http.server's name
        self.send_response(200)
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        pass


@contextmanager
def prometheus() -> Iterator[str]:
    """A stand-in for Prometheus while it is needed; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Prometheus)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def application(number: int, version: int, prometheus: str) -> dict[str, Any]:
    """One of them, with this version of its model."""
    name = f"m{number}"
    settings = {
        "component": name,
        "prometheus": prometheus,
        "route": {"provider": "istio"},
        "steps": STEPS,
        "interval": INTERVAL,
        "checks": 1,
        "settle": 5,
    }
    properties = {"runtime": "sklearn", "modelUri": f"s3://models/{name}/{version}", "minReplicas": 1}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "components": [{"name": name, "type": "kfserving", "properties": properties}],
            "workflow": {"steps": [{"name": "rollout", "type": "rollout-model", "properties": settings}]},
        },
    }


def ended(lab: Lab, revision: str) -> int:
    """How many of this revision are through."""
    found = [one.get("data", {}) for one in lab.api.list("v1", "ConfigMap", NAMESPACE)]
    return sum(
        one.get("revision", "").endswith(f"-{revision}") and json.loads(one["state"])["phase"] == "done"
        for one in found
        if "state" in one
    )


def lateness(lab: Lab) -> list[float]:
    """By how many seconds each check was later than its interval says."""
    late = []
    for one in lab.api.list("v1", "ConfigMap", NAMESPACE):
        lines = [json.loads(line) for line in one.get("data", {}).get("history", "").splitlines()]
        for before, after in pairwise(lines):
            if after["check"] != "none":
                took = datetime.fromisoformat(after["at"]) - datetime.fromisoformat(before["at"])
                late.append(took.total_seconds() - INTERVAL)
    return late


def measure(lab: Lab, core: Core, rollouts: int, prometheus: str, say: Reporter) -> list[list[str]]:
    """Bring version 2 of all models in at once; gives the rows of the table."""

    def up(version: int) -> float:
        start = time.monotonic()
        lab.api.apply_all([application(number, version, prometheus) for number in range(rollouts)])
        wait_until(
            lambda: ended(lab, f"v{version}") == rollouts,
            what=f"{rollouts} models at version {version}",
            timeout=PATIENCE,
            every=2,
        )
        return time.monotonic() - start

    say.say(f"version 1 of {rollouts} models is there after {up(1):.0f} s")
    spent, (looks, _) = core.milliseconds(), core.looks()
    took = up(2)
    spent, looks = core.milliseconds() - spent, core.looks()[0] - looks
    late = page.Spread.of(lateness(lab))
    return [
        ["rollouts at once", str(rollouts)],
        ["seconds until all are promoted", f"{took:.0f}"],
        ["processor seconds of vela-core a rollout", f"{spent / rollouts / 1000:.1f}"],
        ["runs a rollout", f"{looks / rollouts:.0f}"],
        ["processor milliseconds a run", f"{spent / looks:.0f}"],
        ["processors busy meanwhile", f"{spent / 1000 / took:.2f}"],
        [f"seconds that a check was later than {INTERVAL}", late.text(0)],
        ["megabytes of vela-core", f"{core.megabytes():.0f}"],
    ]


@click.command(epilog="Example: python -m benchmarks.rollout.crowd --rollouts 20 --write")
@click.option("--rollouts", default=20, show_default=True, type=click.IntRange(1, 200), help="How many at once.")
@click.option("--kubevela", default=None, help="KubeVela's version; the lab's default where it is not given.")
@click.option("--write", is_flag=True, help="Put the table into docs/rollout.md.")
def main(rollouts: int, kubevela: str | None, write: bool) -> None:
    """Measure many rollouts at once on an embedded lab of its own."""
    reporter = Reporter()
    version = kubevela or table().row("vela-core").version
    with prometheus() as metrics, tempfile.TemporaryDirectory(prefix="velagen-benchmark-") as folder:
        options = LabOptions(kubevela=version, gpus_per_node=0)
        with Lab("benchmark", folder=Path(folder) / "lab", options=options, reporter=reporter) as lab:
            vela(lab.kubeconfig, "addon", "enable", page.ROOT / "addon" / "kfserving", "-y")
            lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            rows = measure(lab, Core(lab), rollouts, metrics, reporter)
    text = f"`python -m benchmarks.rollout.crowd --rollouts {rollouts}` on KubeVela {version}:\n\n"
    text += page.table(["", ""], rows)
    click.echo(text)
    if write:
        page.write("crowd", text, PAGE)


if __name__ == "__main__":
    main()
