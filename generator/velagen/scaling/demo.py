"""The demo of autoscaling on a kind lab: a load in steps, the pods that follow it, and a table and a page at the end.

Pods, gateway, Prometheus, KEDA and requests are real. What limits the rates is that a laptop bears them: the model does
nothing but wait, and the application's formula is made for few requests.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import requests
import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from velagen.errors import Place, Problem, VelagenError
from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.traffic import put_model_file, python_model_config, remove_application
from velagen.lab.vela import vela
from velagen.scaling.load import Load
from velagen.scaling.page import page, settings
from velagen.scaling.record import HEAD, Plateau, Record, Row, Span, formula, rows, tolerated

NAMESPACE: Final = "autoscale-demo"
#: Rates that are far from where Kubernetes' tolerance begins: 2, 3, 5 pods by the example's formula, and 2 again.
PLATEAUS: Final = (
    # A rate is known once its window is full.
    Plateau(8, least=40, longest=60),
    Plateau(28, least=20, longest=75),
    Plateau(48, least=20, longest=75),
    Plateau(8, least=20, longest=75),
)
#: Seconds that the model waits with each request.
_WAIT: Final = 0.005
#: Seconds for which the pods must be those of the formula before the load changes.
_HOLD: Final = 10.0
#: Seconds until a new model answers.
_PATIENCE: Final = 240.0
_SERVICE: Final = ("serving.kserve.io/v1beta1", "InferenceService")
_PROGRAM: Final = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({seconds})
        inputs = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one.as_numpy())]) for one in inputs]
"""
_BODY: Final = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}


@dataclass(frozen=True)
class Scaled:
    """An application of one model with the trait autoscale."""

    app: Mapping[str, Any]
    trait: Mapping[str, Any]
    name: str
    component: str
    model: str
    uri: str

    @classmethod
    def of(cls, app: Any, file: str) -> Scaled:
        """Find the parts. Raises VelagenError where one is missing."""
        try:
            (component,) = app["spec"]["components"]
            properties = component["properties"]
            (trait,) = (one["properties"] for one in component["traits"] if one["type"] == "autoscale")
            model, uri = properties["modelName"], properties["modelUri"]
            return cls(app, trait, app["metadata"]["name"], component["name"], model, uri)
        except (KeyError, TypeError, ValueError) as error:
            said = "not an Application of one model with modelName, modelUri and the trait autoscale"
            raise VelagenError(Problem(said, Place(file=file))) from error


@dataclass
class Now:
    """How things stand, for whoever draws them."""

    plateau: int
    rate: float
    sent: float
    formula: int | None
    asked: int
    ready: int
    requests: int
    failed: int
    seconds: float


@dataclass
class _Pods:
    """The pods of a model, looked at again and again; what changed is kept."""

    api: Api
    space: str
    component: str
    asked: list[tuple[float, int]] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    #: Of each pod that was seen to be ready.
    took: dict[str, float] = field(default_factory=dict)

    def look(self, at: float) -> bool:
        """Look once; whether there was an answer."""
        try:
            thing = self.api.get("apps/v1", "Deployment", f"{self.component}-predictor", self.space) or {}
            asked = int(thing.get("spec", {}).get("replicas", 0))
            ready = int(thing.get("status", {}).get("readyReplicas") or 0)
            if not self.ready or self.ready[-1][1] != ready:
                self._note_pods()
        except (ApiError, requests.RequestException):
            return False  # a busy machine: the next look is in a second
        for kept, number in ((self.asked, asked), (self.ready, ready)):
            if not kept or kept[-1][1] != number:
                kept.append((round(at, 1), number))
        return bool(thing)

    def _note_pods(self) -> None:
        for pod in self.api.list(
            "v1", "Pod", self.space, selector=f"serving.kserve.io/inferenceservice={self.component}"
        ):
            ready = [one for one in pod.get("status", {}).get("conditions", []) if one["type"] == "Ready"]
            if ready and ready[0]["status"] == "True" and "deletionTimestamp" not in pod["metadata"]:
                times = (ready[0]["lastTransitionTime"], pod["metadata"]["creationTimestamp"])
                until, since = (datetime.fromisoformat(one) for one in times)
                self.took.setdefault(pod["metadata"]["name"], (until - since).total_seconds())


# ---------------------------------------------------------------- the parts of it


def put_model(lab: Any, scaled: Scaled, *, seconds: float) -> None:
    """Put the model into the lab's store where the application looks for it: one that waits, and answers."""
    prefix = scaled.uri.removeprefix("s3://models/")
    for name, content in (
        ("config.pbtxt", python_model_config(scaled.model)),
        ("1/model.py", _PROGRAM.format(seconds=seconds)),
    ):
        put_model_file(lab.url("models"), f"{prefix}/{scaled.model}/{name}", content)


def up(lab: Any, scaled: Scaled, space: str) -> None:
    """Deploy it by ``vela up``, anew."""
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    remove_application(lab.api, scaled.name, space)
    with tempfile.TemporaryDirectory(prefix="velagen-demo-") as folder:
        file = Path(folder) / "app.yaml"
        file.write_text(yaml.safe_dump(dict(scaled.app)), encoding="utf-8")
        vela(lab.kubeconfig, "up", "-f", file, "-n", space, "-y")


def load_of(lab: Any, scaled: Scaled, space: str) -> Load:
    """Wait until the model answers through the gateway; give the load for it.

    Raises VelagenError where it does not within four minutes.
    """
    api: Api = lab.api

    def host() -> str:
        model = api.get(*_SERVICE, scaled.component, space) or {}
        url = str(model.get("status", {}).get("url", "")) if condition(model, "Ready") == "True" else ""
        return url.partition("://")[2]

    try:
        known = wait_until(host, what=f"model {scaled.component} ready", timeout=_PATIENCE, every=0.5)
        load = Load(lab.url("gateway"), known, f"/v2/models/{scaled.model}/infer", _BODY)
        wait_until(load.answers, what="the first answer through the gateway", timeout=60, every=0.5)
    except TimeoutError as error:
        raise VelagenError(Problem(f"{error}\n{lab.pods(space)}")) from error
    return load


def follow(
    lab: Any,
    scaled: Scaled,
    space: str,
    load: Load,
    plateaus: Sequence[Plateau],
    draw: Callable[[Now], None],
) -> Record:
    """Let the load come in, plateau by plateau, and keep what the pods do; it ends by itself.

    A plateau ends when the pods have been those it is to end with for a while, or after its longest time.
    """
    pods = _Pods(lab.api, space, scaled.component)
    # As it is before the first request.
    wait_until(lambda: pods.look(0.0), what="the model's Deployment", timeout=30, every=0.5)
    before = set(pods.took)
    spans: list[Span] = []
    load.rate = plateaus[0].rate
    begun = time.time()
    with load.coming_in(sum(one.longest for one in plateaus) + 60):
        for place, plateau in enumerate(plateaus):
            load.rate, start = plateau.rate, load.seconds
            right = None
            while (passed := load.seconds - start) < plateau.longest:
                pods.look(load.seconds)
                asked, ready = pods.asked[-1][1], pods.ready[-1][1]
                now = load.seconds
                wanted, fits = plateau.pods, False
                if wanted is None:
                    each = load.milliseconds()
                    wanted = formula(scaled.trait, plateau.rate, each)
                    fits = tolerated(scaled.trait, plateau.rate, asked, each)
                right = (right if right is not None else now) if asked == ready and (fits or wanted == asked) else None
                draw(Now(place, plateau.rate, load.recent(), wanted, asked, ready, load.sent, load.failed, now))
                if passed >= plateau.least and right is not None and now - right >= _HOLD:
                    break
                time.sleep(min(1.0, max(0.05, plateau.longest - passed)))
            end = round(load.seconds, 1)
            spans.append(Span(plateau.rate, round(start, 1), end, plateau.pods, plateau.what))
    sent, failed, took = load.by_second()
    whole = int(spans[-1].end)
    return Record(
        begun,
        dict(scaled.trait),
        tuple(spans),
        sent[:whole],
        failed[:whole],
        took[:whole],
        tuple(pods.asked),
        tuple(pods.ready),
        tuple(seconds for name, seconds in pods.took.items() if name not in before),
    )


# ---------------------------------------------------------------- the demo


def demo(example: Path, lab: Any, console: Console, output: Path, kept: Path | None = None) -> Record:
    """Play it on a kind lab that has KEDA.

    Args:
        example: examples/autoscale-demo.yaml.
        output: the page.
        kept: where the record goes, as JSON.

    Raises:
        VelagenError: the model does not come up, or the pods do not follow the load.
    """
    started = time.monotonic()
    scaled = Scaled.of(yaml.safe_load(example.read_text(encoding="utf-8")), str(example))
    console.print(f"[bold]{example.name}[/bold]: a load in steps, and the pods that follow it", highlight=False)
    console.print("Pods, gateway, requests, Prometheus and KEDA are real; the model only waits.", highlight=False)
    console.print(f"autoscale: {settings(scaled.trait)}", highlight=False)
    put_model(lab, scaled, seconds=_WAIT)
    up(lab, scaled, NAMESPACE)
    load = load_of(lab, scaled, NAMESPACE)
    console.print(f"the model answers after {time.monotonic() - started:.0f} s", highlight=False)
    with _Screen(console, len(PLATEAUS)) as screen:
        made = follow(lab, scaled, NAMESPACE, load, PLATEAUS, screen.draw)
    record = replace(made, model_seconds=_WAIT)
    found = rows(record)
    console.print()
    console.print(table(found))
    why = f": {load.why()}" if load.failed else ""
    console.print(f"{sum(record.sent)} requests, {sum(record.failed)} failed{why}", highlight=False)
    output.write_text(page(record, scaled.name).html(), encoding="utf-8")
    console.print(f"the plot: {output}", highlight=False, soft_wrap=True)
    if kept is not None:
        kept.write_text(record.text(), encoding="utf-8")
    console.print(f"{time.monotonic() - started:.0f} s in all. Next:\n", highlight=False)
    space = f"-n {NAMESPACE}"
    console.print(f"  export KUBECONFIG={lab.kubeconfig}", highlight=False, soft_wrap=True)
    for command, what in (
        (f"kubectl get scaledobject,hpa {space}", "what KEDA and Kubernetes made of it"),
        (f"velagen report {scaled.name} {space} -o report.html", "the same from Prometheus"),
        (f"vela delete {scaled.name} {space} -y", "remove it again"),
    ):
        console.print(f"  {command:<70} # {what}", highlight=False, soft_wrap=True)
    missed = [one for one in found if one.took is None]
    if missed:
        said = "; ".join(f"{one.ready} pods at {one.rate:.0f} a second, and {one.formula} wanted" for one in missed)
        raise VelagenError(
            Problem(
                f"the pods did not follow in time: {said}",
                hint="A busy machine is late: run it again. kubectl describe hpa says what Kubernetes saw.",
            )
        )
    return record


def table(found: Sequence[Row]) -> Table:
    """The plateaus on a terminal."""
    shown = Table(*HEAD)
    for one in found:
        shown.add_row(*one.cells())
    return shown


class _Screen:
    """The load and the pods as they are now; without a terminal, a line for each change."""

    def __init__(self, console: Console, plateaus: int) -> None:
        self.console = console
        self.plateaus = plateaus
        self._said: tuple[int, int, int] | None = None
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> _Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def draw(self, now: Now) -> None:
        """Show it."""
        if self.console.is_terminal:
            self._live.update(drawn(now, self.plateaus), refresh=True)
            return
        said = (now.plateau, now.asked, now.ready)
        if said != self._said:
            self._said = said
            self.console.print(f"  {in_words(now)}", highlight=False, soft_wrap=True)


def in_words(now: Now) -> str:
    """In a line: ``62 s: 28 requests a second, 3 pods by the formula, 3 asked for, 2 ready; 800 requests, …``."""
    wanted = "" if now.formula is None else f"{now.formula} pods by the formula, "
    return (
        f"{now.seconds:.0f} s: {now.rate:g} requests a second, {wanted}{now.asked} asked for, {now.ready} ready; "
        f"{now.requests} requests, {now.failed} failed"
    )


def drawn(now: Now, plateaus: int) -> RenderableType:
    """As bars, for a terminal."""
    bars = Table.grid(padding=(0, 2))
    bars.add_row("requests a second", f"{now.sent:.0f}", Text("▪" * min(60, round(now.sent)), "cyan"))
    if now.formula is not None:
        bars.add_row("pods by the formula", str(now.formula), Text("■ " * now.formula, "yellow"))
    bars.add_row("asked for", str(now.asked), Text("■ " * now.asked, "dim"))
    ready = Text("■ " * min(now.ready, now.asked), "green") + Text("□ " * max(0, now.asked - now.ready), "dim")
    bars.add_row("ready", str(now.ready), ready)
    head = f"{now.seconds:.0f} s, plateau {now.plateau + 1} of {plateaus}: {now.rate:g} requests a second"
    failed = Text(f"{now.requests} requests, {now.failed} failed", "red" if now.failed else "")
    return Group(Text(head, "bold"), bars, failed)
