"""From ``vela up`` to the first right answer, by phase, beside ``kubectl apply`` of the same InferenceService.

``python -m benchmarks.startup``; see docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import click
import requests
import yaml
from benchmarks import page
from benchmarks.serving.sides import upload
from benchmarks.standing import standing
from benchmarks.startup.moments import PHASES, Watch, phases

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.api import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local
from velagen.lab.vela import vela
from velagen.tools.report import Reporter

#: Moments in seconds, by way, round by round.
Found = dict[str, list[dict[str, float]]]

NAME = "startup"
#: Seconds a start may take.
PATIENCE = 240.0
#: Seconds, roughly, of a start and its removal.
EACH = 35.0
WAYS = ("vela up", "kubectl apply")
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]})
ANSWER = [2.0, 4.0, 6.0, 8.0]


def application(namespace: str, uri: str) -> KubernetesObject:
    """Give the application that is started."""
    properties = {
        "runtime": "triton",
        "modelUri": uri,
        "modelName": "tiny",
        "minReplicas": 1,
        "maxReplicas": 1,
        "dynamicBatching": {"preferredBatchSizes": [4, 8]},
    }
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"components": [{"name": NAME, "type": "kfserving", "properties": properties}]},
    }


def plain(service: KubernetesObject) -> KubernetesObject:
    """Give an InferenceService as a person would have written it: without what the cluster and KubeVela noted on it."""
    metadata = service["metadata"]
    kept = {
        kind: {key: value for key, value in metadata.get(kind, {}).items() if "oam.dev" not in key}
        for kind in ("labels", "annotations")
    }
    return {
        "apiVersion": service["apiVersion"],
        "kind": service["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], **kept},
        "spec": service["spec"],
    }


class Starts:
    """Starts the same model in one way or the other, and removes it again."""

    def __init__(self, lab: KindLab, namespace: str, folder: Path) -> None:
        self.lab, self.namespace, self.folder = lab, namespace, folder
        self.api = lab.api

    def prepare(self) -> None:
        """Bring image and model; start once, so that caches are warm and the InferenceService can be read."""
        self.lab.load(["tritonserver"])
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        thing = application(self.namespace, upload(self.lab, "tiny"))
        (self.folder / "application.yaml").write_text(yaml.safe_dump(thing))
        self.once("vela up")
        service = self.api.get("serving.kserve.io/v1beta1", "InferenceService", NAME, self.namespace)
        if service is None:
            raise VelagenError(Problem("KubeVela made no InferenceService"))
        (self.folder / "inferenceservice.yaml").write_text(yaml.safe_dump(plain(service)))
        self.remove()

    def once(self, way: str) -> dict[str, float]:
        """Start it; give the moments, in seconds from the start of the command.

        Raises:
            VelagenError: the command failed, or no right answer came.
        """
        watch = Watch(self.lab.kubeconfig, self.namespace)
        session = local()
        url = f"{self.lab.url('gateway')}/v2/models/tiny/infer"
        headers = {"Host": f"{NAME}-{self.namespace}.example.com", "Content-Type": "application/json"}

        said = ""

        def right() -> bool:
            nonlocal said
            try:
                answer = session.post(url, data=BODY, headers=headers, timeout=5)
                said = f"{answer.status_code} {answer.text[:300]}"
                return answer.ok and answer.json()["outputs"][0]["data"] == ANSWER
            except (requests.RequestException, KeyError, ValueError) as error:
                said = said or str(error)
                return False

        watch.start()
        try:
            if way == "vela up":
                vela(self.lab.kubeconfig, "up", "-f", self.folder / "application.yaml", "-n", self.namespace)
            else:
                self.lab.kubectl("apply", "-f", str(self.folder / "inferenceservice.yaml"))
            watch.note("returned")
            if not watch.wait(right, PATIENCE):
                raise VelagenError(
                    Problem(f"{way}: no right answer, the last was {said}\n{self.lab.pods(self.namespace)}")
                )
            watch.note("answered")
            time.sleep(0.2)  # an event may still be on its way
        finally:
            watch.stop()
        return dict(watch.seen)

    def remove(self) -> None:
        """Remove it, and wait until nothing of it is left."""
        self.api.delete("core.oam.dev/v1beta1", "Application", NAME, self.namespace)
        self.api.delete("serving.kserve.io/v1beta1", "InferenceService", NAME, self.namespace)

        def gone() -> bool:
            kinds = (
                ("core.oam.dev/v1beta1", "Application"),
                ("serving.kserve.io/v1beta1", "InferenceService"),
                ("apps/v1", "Deployment"),
                ("gateway.networking.k8s.io/v1", "HTTPRoute"),
                ("v1", "Pod"),
            )
            return not any(self.api.list(*kind, self.namespace) for kind in kinds)

        wait_until(gone, what="the removal", timeout=120, every=0.5)


def measure(
    starts: Starts, rounds: int, step: Callable[[str, dict[str, float]], None]
) -> dict[str, list[dict[str, float]]]:
    """Start the model in both ways, in turns.

    Args:
        step: told of each start.

    Returns:
        moments by way, round by round.
    """
    found: Found = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            found[way].append(starts.once(way))
            step(way, found[way][-1])
            starts.remove()
    return found


def block(found: Found) -> str:
    """Give the part of docs/benchmarks.md."""
    parts = {way: [phases(moments) for moments in runs] for way, runs in found.items()}
    rows = []
    for name, title in PHASES.items():
        cells = []
        for way in WAYS:
            took = [part[name] for part in parts[way] if name in part]
            cells.append(page.Spread.of(took).text(2) if took else "-")
        rows.append([title, *cells])
    totals = {way: [moments["answered"] for moments in runs] for way, runs in found.items()}
    rows.append(["**in all**", *(f"**{page.Spread.of(totals[way]).text(2)}**" for way in WAYS)])
    returned = [page.Spread.of([moments["returned"] for moments in found[way]]).text(2) for way in WAYS]
    rows.append(["(the command returns after)", *returned])
    over = page.Spread.of(page.ratios(*(totals[way] for way in WAYS)))
    more = page.Spread.of([mine - other for mine, other in zip(*(totals[way] for way in WAYS), strict=True)])
    met = "met" if over.median < GOAL else "not met"
    return "\n".join(
        [
            f"{len(totals[WAYS[0]])} rounds, alternated; median (least to greatest), in seconds.",
            "",
            page.table(["phase", *(f"`{way}`" for way in WAYS)], rows),
            "",
            f"`vela up` takes {over.text(2)} times as long as `kubectl apply`, round by round: a difference of "
            f"{more.text(2)} s. "
            f"Goal, less than {GOAL - 1:.0%} more: {met}.",
        ]
    )


GOAL = 1.1


def go(which: str, rounds: int, out: Path, namespace: str) -> Found:
    """Measure.

    Args:
        which: a lab's name, or its folder.

    Raises:
        VelagenError: there is no such lab, or no right answer came.
    """
    reporter = Reporter()
    lab = standing(which)
    out.mkdir(parents=True, exist_ok=True)
    reporter.say(f"about {math.ceil((2 * rounds + 1) * EACH / 60)} minutes; raw results: {out}")
    starts = Starts(lab, namespace, out)
    try:
        with reporter.bar("starting", total=2 * rounds + 1, unit="starts") as bar:
            starts.prepare()
            bar.advance()

            def step(way: str, moments: dict[str, float]) -> None:
                bar.advance()
                reporter.say(f"{way}: first right answer after {moments['answered']:.1f} s")

            return measure(starts, rounds, step)
    finally:
        with contextlib.suppress(TimeoutError):
            starts.remove()
        lab.api.delete("v1", "Namespace", namespace)


@click.command(epilog="Example: python -m benchmarks.startup --lab default --rounds 5")
@click.option(
    "--lab", "which", default="default", show_default=True, help="A running kind lab: its name or its folder."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
@click.option("--quick", is_flag=True, help="A trial: one round; the page is not written.")
@click.option(
    "--out",
    default=Path("dist/benchmark-startup"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for results.json and the two files that are applied.",
)
@click.option("--namespace", default="benchmark-startup", show_default=True)
def main(which: str, rounds: int, quick: bool, out: Path, namespace: str) -> None:
    """Time `vela up` to the first right answer, beside `kubectl apply`; writes docs/benchmarks.md."""
    try:
        found = go(which, 1 if quick else rounds, out, namespace)
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    (out / "results.json").write_text(json.dumps(found, indent=1))
    text = block(found)
    click.echo(text)
    if not quick:
        page.write("startup", text)
        click.echo(f"written: {page.PAGE}", err=True)


if __name__ == "__main__":
    main()
