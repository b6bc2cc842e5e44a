"""Every way in which the trait autoscale scales by KEDA, on a kind lab under one open-loop load, second by second.

``python -m benchmarks.autoscale.policies --lab DIR``; each run is kept in runs/NAME.json, in the form of `velagen demo
autoscale --record`, and ``--write`` makes the table of docs/autoscale.md of what is kept. The simulator is held against
Little's law and the crowd (``python -m benchmarks.autoscale.real``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import click
import requests
from benchmarks.kind import namespace
from benchmarks.page import ROOT, write
from benchmarks.standing import standing

from velagen import autoscaling
from velagen.kubernetes.quantity import amount
from velagen.lab import wait_until
from velagen.lab.api import Api, ApiError
from velagen.lab.images import recipes
from velagen.lab.kind import KindLab, keda, stack
from velagen.lab.traffic import local
from velagen.monitoring.sources import CONTOUR, ENVOY_CLUSTER, SOURCES
from velagen.scaling.demo import Now, Scaled, follow, in_words, load_of
from velagen.scaling.load import Load
from velagen.scaling.record import Plateau, Record, Row, Span, least_of, rows

DOCS: Final = ROOT / "docs" / "autoscale.md"
RUNS: Final = Path(__file__).parent / "runs"
NAME: Final = "waits"
#: The model's server: it starts at once and takes next to nothing, so that a laptop bears six of them under load.
SERVER: Final = """
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

turns = threading.Semaphore({at_once})

class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer in one piece.
    wbufsize = -1

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with turns:
            {work}
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{{}}")

    def log_message(self, *_):
        pass

ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("", 8080), Model).serve_forever()
"""
#: What it does with a request: nothing, or nothing but work, whatever share of a processor it has.
WAITS: Final = "time.sleep({seconds})"
BURNS: Final = "end = time.thread_time() + {seconds}\n            while time.thread_time() < end: pass"
IMAGE: Final = "python"
#: Seconds that the model waits with each request, of which a pod works on so many at once: it bears 28 a second. What a
#: busy machine adds to a request is little beside it.
MODEL_SECONDS: Final = 0.84
AT_ONCE: Final = 24
LEAST, MOST = 2, 6
#: One pod for each 10 requests a second, or nearly so, whatever the policy.
EACH: Final = 10
#: The shortest that the trait takes, so that a run is over in five minutes.
SHORT: Final[Mapping[str, Any]] = {"window": "30s", "pollingSeconds": 5, "scaleDownSeconds": 30}
BOUNDS: Final[Mapping[str, Any]] = {"minReplicas": LEAST, "maxReplicas": MOST}
#: The part of a pod that Little's law plans with, so that it stands for eleven requests a second.
PART: Final = 0.4
#: So much of a processor that on a busy machine pods have it when they need it, and so little that ten fit into a lab.
LIGHT: Final = {"requests": {"cpu": "60m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
#: A pod that can't have more of a processor than it asks for: what it uses is at most all of it.
TENTH: Final = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "256Mi"}}
#: Seconds between two looks at the triggers' numbers.
LOOKS: Final = 5.0
#: A ConfigMap in the run's namespace: without it a query that names it has no answer.
GATE: Final = "answers"
MINUTE: Final = 60.0
#: Seconds until a model is up at the latest.
_AHEAD: Final = 300.0
_HPA: Final = ("autoscaling/v2", "HorizontalPodAutoscaler")

#: The trait in a namespace, at a time.
Properties = Callable[[str, float], Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """A trait under a load."""

    name: str
    #: What it shows, in a few words.
    about: str
    trait: Properties
    plateaus: Sequence[Plateau]
    #: Whether its times are of the clock: it is written again when the model is up.
    by_clock: bool = False
    model_seconds: float = MODEL_SECONDS
    #: Whether that is a processor's time, which needs metrics-server.
    burns: bool = False
    at_once: int = AT_ONCE
    resources: Mapping[str, Any] = field(default_factory=lambda: LIGHT)
    #: By plateau: what is done at its beginning.
    events: Mapping[int, Callable[[Api, str], None]] = field(default_factory=dict)


# ---------------------------------------------------------------- the runs


def cluster(space: str) -> str:
    """The name of the model's cluster in Contour's Envoy."""
    return CONTOUR.of(space, f"{NAME}-predictor", "80", NAME)


def answered(space: str) -> str:
    """PromQL: answers in a second, those of a gateway without a pod too."""
    (requests,) = SOURCES["envoy"].requests
    return f'sum(rate({requests.name}{{{ENVOY_CLUSTER}="{cluster(space)}"}}[30s]))'


def at(seconds: float) -> str:
    """A minute of today as cron writes it, in UTC."""
    then = time.gmtime(seconds)
    return f"{then.tm_min} {then.tm_hour} * * *"


def full_minute(seconds: float) -> float:
    """The next full minute."""
    return math.ceil(seconds / MINUTE) * MINUTE


LAW: Final[Mapping[str, Any]] = {
    "metric": "concurrency",
    "policy": "littles-law",
    "concurrencyPerReplica": AT_ONCE,
    "utilization": PART,
    "source": "envoy",
    **BOUNDS,
    **SHORT,
}
SLO: Final[Mapping[str, Any]] = {
    **LAW,
    "metric": "latency",
    "policy": "slo",
    "targetLatencyMilliseconds": 800,
}


def custom(query: str, **more: Any) -> dict[str, Any]:
    """The trait with a query of one's own."""
    return {"metric": "custom", "query": query, "target": EACH, **BOUNDS, **SHORT, **more}


def several(_: str, now: float) -> dict[str, Any]:
    """Two metrics, of which the second asks for more, and a minute in which the clock asks for most."""
    law = {"policy": "littles-law", "concurrencyPerReplica": AT_ONCE, "utilization": PART}
    begins = full_minute(now + 150)
    return {
        "metric": "qps",
        "source": "envoy",
        "target": 16,
        "triggers": [{"metric": "concurrency", **law}],
        "schedule": [{"start": at(begins), "end": at(begins + MINUTE), "replicas": MOST}],
        **BOUNDS,
        **SHORT,
    }


def clock(_: str, now: float) -> dict[str, Any]:
    """Two pods until a minute from now, none for two minutes, and three for a minute."""
    ends = full_minute(now + 40)
    times = [(now - 10 * MINUTE, ends, 2), (ends + 2 * MINUTE, ends + 3 * MINUTE, 3)]
    return {
        "metric": "schedule",
        "minReplicas": 0,
        "maxReplicas": MOST,
        "schedule": [{"start": at(start), "end": at(end), "replicas": pods} for start, end, pods in times],
        "pollingSeconds": 5,
        "scaleDownSeconds": 30,
    }


def gate(api: Api, space: str) -> None:
    """Let queries that name it answer."""
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": GATE, "namespace": space}})


def no_gate(api: Api, space: str) -> None:
    """Take it away."""
    api.delete("v1", "ConfigMap", GATE, space)


def gated(space: str) -> str:
    """The rate, where the gate is there."""
    return f'{answered(space)} and on () kube_configmap_info{{namespace="{space}",configmap="{GATE}"}}'


def steps(*pods: int | None) -> tuple[Plateau, ...]:
    """The load of all policies, with the pods that it is to have; None: by the formula and the time measured."""
    rates = (8.0, 28.0, 48.0, 8.0)
    return tuple(
        # A rate is known once its window is full, and a plateau may begin with the pods that it is to end with.
        Plateau(rate, least=45, longest=60 if not place else 110, pods=number)
        for place, (rate, number) in enumerate(zip(rates, pods, strict=True))
    )


RUNS_OF: Final = {
    one.name: one
    for one in (
        Run("littles-law", "Little's law", lambda *_: LAW, steps(None, None, None, None)),
        # The gateway's histogram knows 500 and 1000 ms: what takes 700 counts as 975 at its 95th percentile.
        Run(
            "slo",
            "an objective of 800 ms, and requests of 700 that count for 975",
            lambda *_: SLO,
            steps(2, 3, 5, 2),
            model_seconds=0.7,
        ),
        Run(
            "crowd",
            "4 requests a second, 48 at once, and 4 again; Little's law at its default of 0.8",
            lambda *_: {key: value for key, value in LAW.items() if key != "utilization"},
            # Two pods are too few by four requests a second: as many wait as a client can have under way.
            (
                Plateau(4, 45, 45),
                Plateau(48, 120, 200, what="the crowd"),
                Plateau(4, 45, 120, what="it is over"),
            ),
            model_seconds=1.08,
        ),
        Run(
            "custom",
            "a query of one's own for all pods together (`aggregation: total`): the rate that each has",
            lambda space, _: custom(
                f"{answered(space)} / on () sum(kube_deployment_status_replicas_ready"
                f'{{namespace="{space}",deployment="{NAME}-predictor"}})',
                aggregation="total",
            ),
            steps(2, 3, 5, 2),
        ),
        Run(
            "several",
            "two metrics, and a minute of the clock",
            several,
            (
                Plateau(8, 45, 60, 2),
                Plateau(28, 30, 75, 3, "the second metric asks for more"),
                Plateau(28, 20, 150, 6, "the clock's minute"),
                Plateau(28, 20, 150, 3, "after it"),
                Plateau(8, 45, 110, 2),
            ),
            by_clock=True,
        ),
        Run(
            "schedule",
            "the clock alone, down to no pod",
            clock,
            (
                Plateau(8, 20, 110, 2, "two pods by the clock"),
                Plateau(8, 40, 150, 0, "none"),
                Plateau(8, 20, 180, 3, "three pods by the clock"),
                Plateau(8, 20, 150, 0, "none"),
            ),
            by_clock=True,
        ),
        Run(
            "zero",
            "a query of one's own that has an answer without a pod, down to no pod and back",
            lambda space, _: custom(f"{answered(space)} or vector(0)", minReplicas=0),
            (
                Plateau(8, 45, 60, 1),
                Plateau(0, 40, 150, 0, "nobody asks"),
                Plateau(8, 45, 120, 1, "the first requests after that"),
            ),
        ),
        Run(
            "fallback",
            "a query without an answer for a while, with `fallback: {replicas: 4}`",
            lambda space, _: custom(gated(space), fallback={"replicas": 4}),
            (
                Plateau(8, 45, 60, 2),
                Plateau(28, 45, 110, 3),
                Plateau(28, 20, 110, 4, "no answer"),
                Plateau(48, 60, 110, 4, "no answer, and more requests"),
                Plateau(48, 45, 110, 5, "an answer again"),
                Plateau(8, 45, 110, 2),
            ),
            events={0: gate, 2: no_gate, 4: gate},
        ),
        Run(
            "held",
            "two metrics, of which one has no answer for a while, and no fallback",
            lambda space, _: {**LAW, "triggers": [{"metric": "custom", "query": gated(space), "target": EACH}]},
            (
                Plateau(28, 60, 120, 3),
                Plateau(48, 60, 110, 5, "the second has no answer"),
                Plateau(8, 100, 100, 5, "fewer requests, still without"),
                Plateau(8, 20, 110, 2, "an answer again"),
            ),
            events={0: gate, 1: no_gate, 3: gate},
        ),
        Run(
            "cpu",
            "Kubernetes' own autoscaler on the CPU (`engine: hpa`), a model that computes for 8 ms on a tenth of a "
            "processor",
            lambda *_: {"engine": "hpa", "metric": "cpu", "target": 70, **BOUNDS},
            (
                Plateau(8, 60, 75, 2),
                Plateau(20, 60, 120, 3),
                # Down again would be Kubernetes' own five minutes.
                Plateau(28, 60, 120, 4),
            ),
            model_seconds=0.008,
            burns=True,
            at_once=1,
            resources=TENTH,
        ),
        Run(
            "cpu-keda",
            "the same by KEDA's trigger",
            lambda *_: {
                "metric": "cpu",
                "target": 70,
                **BOUNDS,
                **{key: value for key, value in SHORT.items() if key != "window"},
            },
            (
                Plateau(8, 60, 75, 2),
                Plateau(28, 60, 150, 4),
                Plateau(8, 45, 150, 2),
            ),
            model_seconds=0.008,
            burns=True,
            at_once=1,
            resources=TENTH,
        ),
    )
}


# ---------------------------------------------------------------- the triggers' numbers


def number(quantity: str) -> float:
    """A quantity of Kubernetes': ``2800m`` is 2.8."""
    found = amount(quantity)
    if found is None:
        raise ValueError(f"{quantity} is no quantity")
    return float(found)


@dataclass
class Answers:
    """What Kubernetes' autoscaler has of each trigger, looked at now and then, in pods: as it last took it.

    KEDA itself is not asked: a question without an answer counts towards its fallback.
    """

    api: Api
    space: str
    scaler: str = f"keda-hpa-{NAME}-autoscale"
    seen: list[tuple[float, tuple[float | None, ...]]] = field(default_factory=list)

    def look(self, seconds: float) -> None:
        """Look, where the last time is long enough ago."""
        if self.seen and seconds - self.seen[-1][0] < LOOKS:
            return
        try:
            scaler = self.api.get(*_HPA, self.scaler, self.space) or {}
        except (ApiError, requests.RequestException):
            return
        metrics, status = scaler.get("spec", {}).get("metrics", []), scaler.get("status", {})
        running = int(status.get("currentReplicas") or 0)
        had = {
            _named(one): _of(one).get("current", {}) for one in status.get("currentMetrics") or [] if one.get("type")
        }
        pods = [_pods(_of(one)["target"], had.get(_named(one), {}), running) for one in metrics]
        self.seen.append((round(seconds, 1), tuple(pods)))


def _of(metric: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = metric[str(metric["type"])[0].lower() + str(metric["type"])[1:]]
    return found


def _named(metric: Mapping[str, Any]) -> str:
    one = _of(metric)
    return str(one["metric"]["name"] if "metric" in one else one["name"])


def _pods(target: Mapping[str, Any], current: Mapping[str, Any], running: int) -> float | None:
    """Before rounding; all three kinds of target say by how much the number of pods is wrong."""
    kind = {"Value": "value", "AverageValue": "averageValue", "Utilization": "averageUtilization"}[target["type"]]
    if kind not in current or not running:
        return None
    return round(running * number(str(current[kind])) / number(str(target[kind])), 3)


def counted(prometheus: str, query: str) -> float | None:
    """A query's one number; None where it has none."""
    answer = local().get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=10)
    found = answer.json().get("data", {}).get("result", []) if answer.ok else []
    value = float(found[0]["value"][1]) if len(found) == 1 else math.nan
    return None if math.isnan(value) else value


def milliseconds(prometheus: str, space: str, span: Span, begun: float) -> float:
    """How long a request took in a plateau by the gateway; 0 where it does not say."""
    mean = SOURCES["envoy"].mean
    assert mean
    where = f'{{{ENVOY_CLUSTER}="{cluster(space)}"}}[{max(10, round(span.end - span.start) - 15)}s]'
    until = f"@ {begun + span.end:.0f}"
    total, count = (f"sum(increase({name}{where} {until}))" for name in (mean.total, mean.count))
    return round(counted(prometheus, f"{total} / {count}") or 0.0, 1)


# ---------------------------------------------------------------- a run


def application(run: Run, trait: Mapping[str, Any]) -> dict[str, Any]:
    """The model, with the trait."""
    work = (BURNS if run.burns else WAITS).format(seconds=run.model_seconds)
    properties = {
        "image": recipes()[IMAGE].references[0],
        "port": 8080,
        "command": ["python", "-u", "-c", SERVER.format(at_once=run.at_once, work=work)],
        "readiness": {"path": "/"},
        "resources": dict(run.resources),
    }
    traits = [{"type": "autoscale", "properties": dict(trait)}]
    component = {"name": NAME, "type": "kfserving", "properties": properties, "traits": traits}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": NAME},
        "spec": {"components": [component]},
    }


def play(lab: KindLab, run: Run, say: Callable[[str], None]) -> Record:
    """Play a run in a namespace of its own, and give its record.

    Raises VelagenError where the model does not come up.
    """
    with namespace(lab, f"policy-{run.name}") as space:

        def put(ahead: float = 0.0) -> Scaled:
            trait = run.trait(space, time.time() + ahead)
            app = application(run, trait)
            lab.api.apply({**app, "metadata": {"name": NAME, "namespace": space}})
            return Scaled(app, trait, NAME, NAME, NAME, "")

        # Until the model is up, nothing is to change by the clock.
        scaled = put(_AHEAD if run.by_clock else 0)
        load: Load = load_of(lab, scaled, space)
        if run.by_clock:
            scaled = put()
        answers, begun = Answers(lab.api, space), -1
        if scaled.trait.get("engine") == "hpa":
            answers.scaler = f"{NAME}-predictor"
        said: list[tuple[int, int, int]] = []

        def draw(now: Now) -> None:
            nonlocal begun
            if now.plateau != begun:
                begun = now.plateau
                if begun in run.events:
                    run.events[begun](lab.api, space)
            answers.look(now.seconds)
            if (shown := (now.plateau, now.asked, now.ready)) not in said[-1:]:
                said.append(shown)
                say(f"{run.name}: {in_words(now)}")

        # A model that is up may have one pod of several yet.
        first = run.plateaus[0].pods or least_of(scaled.trait)

        def up() -> bool:
            found = lab.api.get("apps/v1", "Deployment", f"{NAME}-predictor", space) or {}
            return int(found.get("status", {}).get("readyReplicas") or 0) == first

        try:
            wait_until(up, what=f"{first} pods", timeout=60, every=0.5)
        except TimeoutError as error:
            say(f"{run.name}: {error}")
        record = follow(lab, scaled, space, load, run.plateaus, draw)
        quiet = min((one for one in record.spans if one.rate and one.pods != 0), key=lambda one: one.rate)
        return replace(
            record,
            model_seconds=run.model_seconds,
            counted_milliseconds=milliseconds(lab.url("prometheus"), space, quiet, record.at),
            answers=tuple(answers.seen),
        )


# ---------------------------------------------------------------- the table

HEAD: Final = (
    "run",
    "requests a second",
    "pods, by the triggers' numbers",
    "to be",
    "asked for",
    "ready at the end",
    "after",
    "not answered",
)


def by_answers(record: Record, span: Span) -> float | None:
    """The most pods that a trigger asks for at a plateau's end, before rounding; None where one has no answer."""
    seen = [pods for when, pods in record.answers if span.start < when <= span.end]
    if not seen or not seen[-1] or None in seen[-1]:
        return None
    return max(one for one in seen[-1] if one is not None)


def holds(record: Record, span: Span, row: Row) -> bool:
    """Whether Kubernetes leaves the pods of a plateau's end as they are, by the triggers' numbers."""
    asks = by_answers(record, span)
    if asks is None:
        return row.ready == row.formula
    wanted = autoscaling.wanted(asks, row.pods[-1])
    return min(max(wanted, least_of(record.trait)), int(record.trait["maxReplicas"])) == row.pods[-1] == row.ready


def kept() -> dict[str, Record]:
    """The records in the repository, by run."""
    files = {name: RUNS / f"{name}.json" for name in RUNS_OF}
    return {name: Record.of(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def table(records: Mapping[str, Record]) -> str:
    """All plateaus of all runs, in Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for name, record in records.items():
        for place, (span, row) in enumerate(zip(record.spans, rows(record), strict=True)):
            asks = by_answers(record, span)
            what = f"{span.rate:g}{': ' * bool(span.what)}{span.what}"
            took = "not within it" if row.took is None else f"{row.took:.0f} s"
            cells = [
                name if not place else "",
                what,
                "-" if asks is None else f"{asks:.2f}",
                "-" if row.formula is None else str(row.formula),
                ", ".join(map(str, row.pods)),
                str(row.ready),
                took,
                f"{row.failed} of {row.requests}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(records: Mapping[str, Record]) -> str:
    """How many plateaus ended as they should, and where they did not."""
    every = [
        (name, span, row)
        for name, record in records.items()
        for span, row in zip(record.spans, rows(record), strict=True)
    ]
    wrong = [(name, span, row) for name, span, row in every if row.took is None]
    known = [one for one in every if by_answers(records[one[0]], one[1]) is not None]
    unlike = [(name, span) for name, span, row in known if not holds(records[name], span, row)]
    said = f"{len(every) - len(wrong)} of {len(every)} plateaus ended with the pods that they were to have"
    said += "".join(f"; {name} at {span.rate:g} with {row.ready} and not {row.formula}" for name, span, row in wrong)
    said += (
        f". In {len(known)} Kubernetes had a number of each trigger, and left the pods as they were by the greatest "
    )
    said += f"in {len(known) - len(unlike)}"
    said += "".join(f"; not in {name} at {span.rate:g}" for name, span in unlike)
    sent, failed = (sum(sum(getattr(one, what)) for one in records.values()) for what in ("sent", "failed"))
    return f"{said}. {sent:,} requests, {failed:,} not answered."


def page(records: Mapping[str, Record]) -> str:
    """What docs/autoscale.md has of them."""
    return f"{table(records)}\n\n{verdict(records)}"


@click.command()
@click.option("--lab", "which", help="A kind lab that is up: its name, or its folder.")
@click.option("--only", multiple=True, type=click.Choice(sorted(RUNS_OF)), help="These runs. [default: all]")
@click.option(
    "--to", type=click.Path(file_okay=False, path_type=Path), default=RUNS, help="Where records go. [default: runs/]"
)
@click.option("--write/--no-write", "writes", default=False, help="Put the table of what is kept into the docs.")
def main(which: str | None, only: Sequence[str], to: Path, *, writes: bool) -> None:
    """Run the trait's policies on a kind lab that is up, five minutes each; without --lab show what is kept."""
    if which:
        lab = standing(which)
        if lab.api.get("v1", "Namespace", keda.NAMESPACE) is None:
            stack.install(lab, ["keda"], None)
        lab.load([IMAGE])
        burning = any(RUNS_OF[name].burns for name in only or RUNS_OF)
        if burning and not lab.api.serves("metrics.k8s.io/v1beta1", "PodMetrics"):
            stack.install(lab, ["metrics-server"], None)
        to.mkdir(parents=True, exist_ok=True)
        for name in only or RUNS_OF:
            record = play(lab, RUNS_OF[name], click.echo)
            (to / f"{name}.json").write_text(record.text(), encoding="utf-8")
            click.echo(page({name: record}))
        return
    records = kept()
    click.echo(page(records))
    if writes:
        write("policy runs", page(records), DOCS)


if __name__ == "__main__":
    main()
