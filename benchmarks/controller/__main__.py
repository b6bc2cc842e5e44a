"""What an application costs vela-core beside KubeVela's own webservice: processor time to make it and to look again.

A third component type, bare-model, makes a model's InferenceService and waits for it, and does nothing else: what a
definition of a model costs at the least.

``python -m benchmarks.controller``; see docs/benchmarks.md. Processor time of the process, not seconds on a clock: what
else the machine does meanwhile changes it little.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import click
import requests
from benchmarks import page

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.lab import Lab, LabOptions, wait_until
from velagen.lab.vela import vela
from velagen.tools import table
from velagen.tools.report import Reporter

#: The component types that are compared, the yardstick first.
KINDS = ("webservice", "bare-model", "kfserving")
BARE = Path(__file__).parent / "bare.cue"
PROPERTIES: dict[str, KubernetesObject] = {
    "webservice": {"image": "registry.example.com/web:1", "ports": [{"port": 8080, "expose": True}]},
    "bare-model": {"modelUri": "s3://models/sentiment/1", "minReplicas": 1},
    "kfserving": {"runtime": "triton", "modelUri": "s3://models/sentiment/1", "minReplicas": 1},
}
#: Seconds until all applications of a round run.
PATIENCE = 900.0
#: How often KubeVela looks again at a settled application here, in seconds.
RESYNC = 15
#: The same in a lab that fills up, so that a thousand applications leave it time for new ones.
GROWTH_RESYNC = 60
#: KServe asks a processor for each pod by default, and a node of the lab has 32.
PODS_A_NODE = 32
GOAL = 1.15
_APPLICATION = ("core.oam.dev/v1beta1", "Application")


@dataclass(frozen=True)
class Cost:
    """What one round found: processor milliseconds of vela-core, and its memory at the end."""

    #: To make one, without the re-syncs of those that ran already; then with them.
    made: float
    made_and_resynced: float
    #: How often one was looked at until it ran, and how often it was re-synced while others were made.
    looks: float
    resyncs: float
    looked: float
    reconciles: int
    megabytes: float


@dataclass(frozen=True)
class Growth:
    """What a step of a lab that fills up found, with so many *apps* in it: processor milliseconds, memory after it."""

    apps: int
    made: float
    looks: float
    resync: float
    megabytes: float


class Core:
    """The lab's vela-core, seen from outside."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        (part,) = [one for one in lab.status() if one.name == "vela-core"]
        if part.pid is None:
            raise VelagenError(Problem(f"vela-core of lab {lab.name} does not run"))
        self.pid = part.pid

    def milliseconds(self) -> float:
        """Processor time so far, its own and the kernel's for it. Source: proc(5), /proc/PID/stat."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Memory that it holds now."""
        (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(kilobytes) / 1024

    def reconciles(self) -> int:
        """How often an application was looked at so far, by controller-runtime's own count."""
        text = requests.get(f"{self.lab.metrics_url('vela-core')}/metrics", timeout=10).text
        found = re.findall(r'^controller_runtime_reconcile_total\{controller="application",[^}]*\} (\S+)$', text, re.M)
        return round(sum(float(one) for one in found))

    def looks(self) -> tuple[int, int]:
        """How often applications were looked at so far that did not run yet, and that did, by KubeVela's own count.

        Source: kubevela pkg/monitor/metrics/application.go.
        """
        text = requests.get(f"{self.lab.metrics_url('vela-core')}/metrics", timeout=10).text
        found = re.findall(
            r'^application_reconcile_time_seconds_count\{begin_phase="(\w*)",[^}]*\} (\S+)$', text, re.MULTILINE
        )
        again = sum(float(count) for phase, count in found if phase == "running")
        return round(sum(float(count) for _, count in found) - again), round(again)


def application(kind: str, number: int, namespace: str) -> KubernetesObject:
    """Give the application with one component of this type."""
    name = f"m{number}"
    return {
        "apiVersion": _APPLICATION[0],
        "kind": _APPLICATION[1],
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"components": [{"name": name, "type": kind, "properties": PROPERTIES[kind]}]},
    }


def running(lab: Lab, namespace: str) -> int:
    """How many applications of the namespace run."""
    found = lab.api.list(*_APPLICATION, namespace)
    return sum((one.get("status") or {}).get("status") == "running" for one in found)


def make(lab: Lab, kind: str, numbers: range, namespace: str, *, every: float = 0.5) -> None:
    """Apply applications, and wait until all of the namespace run, which is asked *every* so many seconds."""
    lab.api.apply_all([application(kind, number, namespace) for number in numbers])
    wait_until(
        lambda: running(lab, namespace) == numbers.stop,
        what=f"{numbers.stop} applications of type {kind}",
        timeout=PATIENCE,
        every=every,
    )


def measure(lab: Lab, core: Core, kind: str, apps: int, window: float) -> Cost:
    """Make *apps* applications in a namespace of their own, look on for *window* seconds, and remove them."""
    namespace = f"bench-{kind}"
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    before, (first, again) = core.milliseconds(), core.looks()
    make(lab, kind, range(apps), namespace)
    made, (last, again_last) = core.milliseconds() - before, core.looks()
    looks, resyncs = last - first, again_last - again
    # What follows the making (status, first re-sync) has its time to settle.
    time.sleep(RESYNC)
    before, counted = core.milliseconds(), core.reconciles()
    time.sleep(window)
    spent, reconciles = core.milliseconds() - before, core.reconciles() - counted
    megabytes = core.megabytes()
    for number in range(apps):
        lab.api.delete(*_APPLICATION, f"m{number}", namespace)
    wait_until(lambda: not lab.api.list(*_APPLICATION, namespace), what="the removal", timeout=PATIENCE, every=0.5)
    lab.api.delete("v1", "Namespace", namespace)
    wait_until(
        lambda: lab.api.get("v1", "Namespace", namespace) is None, what="the namespace's end", timeout=300, every=0.5
    )
    looked = spent / max(1, reconciles)
    alone = made - resyncs * looked
    return Cost(alone / apps, made / apps, looks / apps, resyncs / apps, looked, reconciles, megabytes)


def grow(lab: Lab, core: Core, apps: int, steps: int, say: Reporter) -> list[Growth]:
    """Make *apps* kfserving applications in *steps* steps, and look on after each until all were re-synced once.

    A step that does not end in time is the last, and is left out.
    """
    namespace = "bench-growth"
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    found: list[Growth] = []
    for step in range(1, steps + 1):
        first, last = apps * (step - 1) // steps, apps * step // steps
        spent, (looks, again) = core.milliseconds(), core.looks()
        try:
            make(lab, "kfserving", range(first, last), namespace, every=5)
        except TimeoutError as error:
            # What was measured up to here is worth telling.
            say.say(str(error))
            break
        spent, (looks_last, again_last) = core.milliseconds() - spent, core.looks()
        time.sleep(RESYNC)
        before, counted = core.milliseconds(), core.reconciles()
        time.sleep(GROWTH_RESYNC)
        resync = (core.milliseconds() - before) / max(1, core.reconciles() - counted)
        alone = spent - (again_last - again) * resync
        new = last - first
        found.append(Growth(last, alone / new, (looks_last - looks) / new, resync, core.megabytes()))
        one = found[-1]
        say.say(f"{last} applications: {one.made:.0f} ms made, {one.resync:.1f} ms a re-sync, {one.megabytes:.0f} MB")
    return found


#: What the page shows of a round.
_ROWS: dict[str, Callable[[Cost], float]] = {
    "made": lambda one: one.made,
    "made, with re-syncs of others meanwhile": lambda one: one.made_and_resynced,
    "looks until it runs": lambda one: one.looks,
    "ms a look of those": lambda one: one.made / max(one.looks, 1),
    "looked at again": lambda one: one.looked,
}
_GOALS = ("made", "looked at again")


def block(found: dict[str, list[Cost]], apps: int, kubevela: str) -> str:
    """Give the part of docs/benchmarks.md."""
    rows = []
    goals = []
    for title, value in _ROWS.items():
        values = {kind: [value(one) for one in costs] for kind, costs in found.items()}
        yardstick, *others = KINDS
        over = {kind: page.Spread.of(page.ratios(values[kind], values[yardstick])) for kind in others}
        rows.append(
            [
                title,
                *(page.Spread.of(values[kind]).text(1) for kind in KINDS),
                *(over[kind].text(2) for kind in others),
            ]
        )
        if title in _GOALS:
            ours = over["kfserving"]
            goals.append(f"{title} {ours.text(2)}, {'met' if ours.median <= GOAL else 'not met'}")
    lines = [
        f"{len(found[KINDS[0]])} rounds of {apps} applications each on KubeVela {kubevela}, alternated; processor "
        "milliseconds of vela-core for one application, median (least to greatest); ratios round by round. The lab "
        f"re-syncs applications every {RESYNC} s, KubeVela by itself every 5 minutes: re-syncs that fall into the "
        "making of others are a row of their own.",
        "",
        page.table(["", *(f"`{kind}`" for kind in KINDS), *(f"`{kind}`, ratio" for kind in KINDS[1:])], rows),
        "",
        "`bare-model` makes the InferenceService and waits for it, and does nothing else: no definition of a model "
        "costs less.",
        "",
        f"Goal, at most {GOAL} times webservice's: {'; '.join(goals)}.",
    ]
    return "\n".join(lines)


def growth_block(found: list[Growth], asked: int, kubevela: str) -> str:
    """Give the part of docs/benchmarks.md on a lab that fills up."""
    head = ["applications", "ms to make one", "looks until it runs", "ms a re-sync", "MB"]
    digits = (0, 1, 1, 1, 0)
    rows = [[page.number(one, places) for one, places in zip(astuple(step), digits, strict=True)] for step in found]
    first, last = found[0], found[-1]
    return "\n".join(
        [
            f"One lab on KubeVela {kubevela} that fills up with `kfserving` applications in {len(found)} steps: "
            "processor milliseconds of vela-core for one application of the step, then for one re-sync once all have "
            f"settled, and vela-core's memory. The lab re-syncs every {GROWTH_RESYNC} s; re-syncs of others are taken "
            "off the making."
            + ("" if found[-1].apps == asked else f" The step to {asked} applications did not end in time."),
            "",
            page.table(head, rows, right=0),
            "",
            f"From {first.apps} to {last.apps} applications: {last.made / first.made:.2f} times the time to make one, "
            f"{last.resync / first.resync:.2f} times that of a re-sync, "
            f"{(last.megabytes - first.megabytes) * 1000 / (last.apps - first.apps):.0f} kB more memory for each.",
        ]
    )


@click.command(epilog="Example: python -m benchmarks.controller --apps 100 --rounds 3")
@click.option("--apps", default=100, show_default=True, type=click.IntRange(1, 1000), help="Applications a round.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option("--window", default=60.0, show_default=True, help="Seconds that settled applications are watched.")
@click.option("--growth", default=0, help="Instead fill one lab with so many applications, in four steps.")
@click.option("--kubevela", default=None, help="KubeVela's version; the lab's default where it is not given.")
@click.option("--quick", is_flag=True, help="A trial: 20 applications, one round; the page is not written.")
@click.option(
    "--out",
    default=Path("dist/benchmark-controller"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for results.json.",
)
def main(apps: int, rounds: int, window: float, growth: int, kubevela: str | None, quick: bool, out: Path) -> None:
    """Measure vela-core's processor time an application; writes docs/benchmarks.md."""
    reporter = Reporter()
    version = kubevela or table().row("vela-core").version
    if quick:
        apps, rounds, window, growth = 20, 1, 2.0 * RESYNC, 0
    found: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
    grown: list[Growth] = []
    with tempfile.TemporaryDirectory(prefix="velagen-benchmark-") as folder:
        resync, nodes = (GROWTH_RESYNC, growth // PODS_A_NODE + 2) if growth else (RESYNC, 20)
        options = LabOptions(kubevela=version, resync_seconds=resync, nodes=nodes, gpus_per_node=0)
        with Lab("benchmark", folder=Path(folder) / "lab", options=options, reporter=reporter) as lab:
            vela(lab.kubeconfig, "addon", "enable", page.ROOT / "addon" / "kfserving", "-y")
            vela(lab.kubeconfig, "def", "apply", BARE)
            core = Core(lab)
            for kind in KINDS:
                measure(lab, core, kind, 5, 1)  # caches fill
            if growth:
                grown = grow(lab, core, growth, 4, reporter)
            else:
                for number in range(rounds):
                    for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
                        found[kind].append(measure(lab, core, kind, apps, window))
                        cost = found[kind][-1]
                        reporter.say(f"{kind}: {cost.made:.0f} ms made, {cost.looked:.1f} ms looked at again")
    out.mkdir(parents=True, exist_ok=True)
    raw = {kind: [asdict(one) for one in costs] for kind, costs in found.items()}
    results = {"kubevela": version, **raw, "growth": [asdict(one) for one in grown]}
    (out / "results.json").write_text(json.dumps(results, indent=1))
    text = growth_block(grown, growth, version) if grown else block(found, apps, version)
    click.echo(text)
    if not quick:
        page.write("controller growth" if grown else f"controller {version}", text)
        click.echo(f"written: {page.PAGE}", err=True)


if __name__ == "__main__":
    main()
