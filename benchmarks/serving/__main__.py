"""Flask beside the addon: the same model, the same core, the same client, on a kind cluster of the lab.

``python -m benchmarks.serving``; see docs/benchmarks.md for how it measures.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import requests
from benchmarks import page
from benchmarks.serving import cgroups, load, report
from benchmarks.serving.sides import GUNICORN, MODELS, TOLERANCE, Bench, Node, bodies, client
from benchmarks.standing import standing

from velagen.errors import Problem, VelagenError
from velagen.lab.api import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local
from velagen.tools.report import Reporter

#: Seconds at the start of each run that are not measured.
WARM = 3.0
#: Seconds that one way to deploy Flask is tried for.
TRIAL = 6.0
#: Shares of Flask's top rate for the open loop.
SHARES = (0.8, 1.0)
#: Seconds, roughly: deploying both sides of a model, and one start of Flask.
DEPLOY, RESTART = 60.0, 12.0
CLIENT_LIMIT = 0.7

# Runs in the server's container, with its own model file: what a batch is worth before any server takes part.
BATCHES = """
import json, sys, time
import numpy as np
folder, model = sys.argv[1:]
sys.path.insert(0, folder)
from pathlib import Path
from net import Net
net, draw, found = Net(Path(folder)), np.random.default_rng(0), {}
def numpy(given):
    x = given["x"]
    for weight in weights:
        x = np.maximum(x @ weight, 0)
def times(call):
    call()
    took = []
    for _ in range(7):
        start = time.thread_time()
        call()
        took.append(time.thread_time() - start)
    return sorted(took)[3] * 1000
if model == "matrix":
    from net import layers
    weights = layers()
for size in (1, 2, 4, 8, 16, 32):
    if model == "matrix":
        given = {"x": draw.standard_normal((size, 64), dtype=np.float32)}
    else:
        given = {"input_ids": draw.integers(1000, 30000, (size, 32)), "attention_mask": np.ones((size, 32), np.int64)}
    found.setdefault("ONNX Runtime", {})[size] = times(lambda: net.predict(given)) / size
    if model == "matrix":
        found.setdefault("numpy", {})[size] = times(lambda: numpy(given)) / size
print(json.dumps(found))
"""
VERSIONS = """
import json, platform, sys
from importlib import metadata
print(json.dumps({"Python": platform.python_version(), **{name: metadata.version(name) for name in sys.argv[1:]}}))
"""


class Results:
    """What was measured so far; every step is on disk, so that a broken run can be resumed."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
        """Start, or read what is there.

        Raises:
            VelagenError: what is there was measured with other settings, or nothing is there to be resumed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.json"
        self.data: dict[str, Any] = {"settings": settings, "models": {}}
        if not resume:
            return
        if not self.path.exists():
            raise VelagenError(Problem(f"{self.path} is not there: nothing can be resumed"))
        self.data = json.loads(self.path.read_text())
        # One model may be measured today and the other one tomorrow.
        if {**self.data["settings"], "models": settings["models"]} != settings:
            raise VelagenError(
                Problem(
                    f"{self.path} was measured with other settings: {self.data['settings']}",
                    hint="Give the same options, or leave --resume out.",
                )
            )

    def save(self) -> None:
        """Write all of it."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1))
        part.replace(self.path)


class Measuring:
    """One model: both sides are up, and take turns."""

    def __init__(
        self, bench: Bench, results: Results, reporter: Reporter, cores: tuple[int, int], tick: Callable[[float], None]
    ) -> None:
        self.bench, self.results, self.reporter, self.tick = bench, results, reporter, tick
        self.client_core, self.server_core = cores
        self.settings = results.data["settings"]
        self.found = results.data["models"].setdefault(
            bench.model.name, {"runs": [], "tried": {}, "batching": bench.batching}
        )
        self.bodies = bodies(bench.model.name)

    def turn(self, name: str) -> None:
        """Give the server's core to one side; all else of the node, the other side too, goes to the client's."""
        bench = self.bench
        bench.choose(name)
        if not self.settings["pin"]:
            return
        for side in bench.sides.values():
            cgroups.pin(side.cores, self.server_core if side.name == name else self.client_core)
        node = Node(bench.lab, bench.pod(bench.sides[name].selector)["spec"]["nodeName"])
        cgroups.move(list(node.others([side.cores for side in bench.sides.values()])), {self.client_core})

    def meter(self, name: str) -> load.Meter:
        """Give what reads processor seconds: of the side, of the idle one, of the client, of the server's core."""
        sides = self.bench.sides
        idle = [side.time for side in sides.values() if side.name != name]
        ticks = os.sysconf("SC_CLK_TCK")

        def read() -> dict[str, float]:
            core = cgroups.core(self.server_core, Path("/proc/stat").read_text(), ticks)
            return {
                "side": cgroups.seconds(sides[name].time),
                "idle": sum(map(cgroups.seconds, idle)),
                "client": time.process_time(),
                "core": core.busy,
                "steal": core.steal,
            }

        return read

    def run(self, name: str, number: int, share: float | None = None) -> None:
        """Measure one side once, unless that is done already.

        Args:
            share: of Flask's top rate, for the open loop; None = the closed loop.
        """
        seconds, key = self.settings["seconds"], {"side": name, "round": number, "share": share}
        if any(all(run[part] == value for part, value in key.items()) for run in self.found["runs"]):
            self.tick(seconds + WARM)
            return
        self.turn(name)
        count, calls = self.bench.counted() if name == "addon" else (0.0, 0.0)
        if share is None:
            measured = load.closed(
                self.bench.url,
                self.bodies,
                concurrency=self.settings["concurrency"],
                warm=WARM,
                seconds=seconds,
                meter=self.meter(name),
            )
        else:
            moments = load.arrivals(self.found["top"] * share, seconds + WARM, seed=number)
            measured = load.opened(self.bench.url, self.bodies, moments=moments, warm=WARM, meter=self.meter(name))
        found = {**key, **load.summary(measured)}
        if name == "addon":
            after, calls_after = self.bench.counted()
            found["batch"] = (after - count) / max(1.0, calls_after - calls)
        self.found["runs"].append(found)
        self.results.save()
        self.tick(seconds + WARM)
        self._say(found)

    def _say(self, found: dict[str, Any]) -> None:
        how = "closed loop" if found["share"] is None else f"{self.found['top'] * found['share']:.0f} a second"
        self.reporter.say(
            f"{self.bench.model.name}, round {found['round'] + 1}, {how}, {found['side']}: {found['qps']:.1f} a second,"
            f" P50 {found['p50']:.0f}, P99 {found['p99']:.0f} ms, {report.cpu(found):.2f} processor ms a request"
        )
        used = found["used"]["client"] / found["seconds"]
        if used > CLIENT_LIMIT:
            self.reporter.say(f"warning: the client used {used:.0%} of its core: it may be what is measured")
        if found["failures"]:
            self.reporter.say(f"warning: requests failed: {found['failures']}")

    def choose_gunicorn(self, ways: tuple[tuple[str, ...], ...]) -> None:
        """Try the ways to deploy Flask, and leave the quickest one running."""
        if "gunicorn" not in self.found:
            tried: dict[str, float] = {}
            for flags in ways:
                self.bench.deploy_flask(flags)
                if len(ways) > 1:
                    self.turn("flask")
                    measured = load.closed(
                        self.bench.url,
                        self.bodies,
                        concurrency=self.settings["concurrency"],
                        warm=1,
                        seconds=TRIAL,
                    )
                    tried[" ".join(flags)] = load.summary(measured)["qps"]
                    self.reporter.say(f"gunicorn {' '.join(flags)}: {tried[' '.join(flags)]:.1f} requests a second")
                self.tick(TRIAL + 1 + RESTART)
            self.found["tried"] = tried
            self.found["gunicorn"] = list(max(ways, key=lambda flags: tried.get(" ".join(flags), 0.0)))
            self.results.save()
            if self.found["gunicorn"] == list(ways[-1]):
                return
        self.bench.deploy_flask(tuple(self.found["gunicorn"]))

    def compare(self) -> None:
        """Ask both sides the same, the addon's all at once so that it makes batches.

        Raises:
            VelagenError: the answers differ.
        """
        answers: dict[str, list[dict[str, list[float]]]] = {}
        for name in report.SIDES:
            self.turn(name)
            session = client()

            def ask(body: bytes, session: requests.Session = session) -> dict[str, list[float]]:
                answer = session.post(self.bench.url, data=body, timeout=60)
                answer.raise_for_status()
                return {output["name"]: output["data"] for output in answer.json()["outputs"]}

            with ThreadPoolExecutor(16) as pool:
                answers[name] = list(pool.map(ask, self.bodies))
        worst = 0.0
        for theirs, ours in zip(answers["flask"], answers["addon"], strict=True):
            if theirs.keys() != ours.keys():
                raise VelagenError(Problem(f"Flask answers {sorted(theirs)}, the addon {sorted(ours)}"))
            for name, data in theirs.items():
                worst = max([worst, *(abs(one - other) for one, other in zip(data, ours[name], strict=True))])
        if not worst < TOLERANCE:
            raise VelagenError(Problem(f"the answers of the two sides differ by {worst:g}"))
        self.found["difference"] = worst
        self.reporter.say(
            f"{self.bench.model.name}: {len(self.bodies)} answers are the same on both sides ({worst:.1g})"
        )

    def batches(self) -> None:
        """Measure what a batch costs the model alone."""
        if "batches" in self.found:
            return
        name = self.bench.model.name
        self.turn("flask")
        said = self.bench.execute("flask", "python", "-", f"/mnt/models/{name}/1", name, given=BATCHES)
        self.found["batches"] = json.loads(said)
        self.results.save()

    def measure(self, ways: tuple[tuple[str, ...], ...]) -> None:
        """Do all of it."""
        self.bench.deploy_addon()
        self.choose_gunicorn(ways)
        self.tick(DEPLOY)
        self.compare()
        self.batches()
        for number in range(self.settings["rounds"]):
            for name in order(number):
                self.run(name, number)
        if "top" not in self.found:
            self.found["top"] = statistics.median(report.values(self.found["runs"], "flask", "qps"))
            self.results.save()
        for share in self.settings["shares"]:
            for number in range(self.settings["rounds"]):
                for name in order(number):
                    self.run(name, number, share)


#: Settings of the addon that are tried by --tune: instances of the model, dynamicBatching.
TUNINGS: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {"preferredBatchSizes": [4, 8]}),
    (1, {"preferredBatchSizes": [4, 8], "maxQueueDelayMicroseconds": 5000}),
    (1, {"preferredBatchSizes": [8, 16]}),
    (1, {"preferredBatchSizes": [8, 16, 32]}),
    (2, {"preferredBatchSizes": [4, 8]}),
    (1, {"preferredBatchSizes": [1], "maxBatchSize": 1}),
)


def tune(
    lab: KindLab,
    names: list[str],
    results: Results,
    namespace: str,
    reporter: Reporter,
    cores: tuple[int, int],
    tick: Callable[[float], None],
) -> None:
    """Measure the addon's side of each model with other settings: closed loop, and half the first one's rate."""
    seconds = results.data["settings"]["seconds"]
    for name in names:
        found = results.data["models"].setdefault(name, {"tunings": [], "runs": []})
        for number, (instances, batching) in enumerate(TUNINGS):
            if number < len(found["tunings"]):
                continue
            with Bench(lab, namespace, MODELS[name], batching, instances) as bench:
                measuring = Measuring(bench, results, reporter, cores, tick)
                bench.deploy_addon()
                measuring.run("addon", number)
                full = found["runs"][-1]
                found.setdefault("top", full["qps"])
                measuring.run("addon", number, 0.5)
                found["tunings"].append({"instances": instances, "batching": batching})
                results.data["versions"] = f"Triton {triton(bench)}"
                results.data["machine"] = machine()
                results.save()
            tick(seconds)


def order(number: int) -> tuple[str, ...]:
    """Give who goes first in a round: A B, B A, A B, ..., so that a drift of the machine favours nobody."""
    return report.SIDES if number % 2 == 0 else report.SIDES[::-1]


def estimate(settings: dict[str, Any], ways: int) -> float:
    """Give the seconds that a run takes, roughly."""
    if settings["tune"]:
        return float(len(TUNINGS) * (DEPLOY + 3 * settings["seconds"]) * len(settings["models"]))
    runs = settings["rounds"] * len(report.SIDES) * (1 + len(settings["shares"]))
    # A turn is given in about two seconds.
    one = DEPLOY + ways * (TRIAL + 1 + RESTART) + runs * (settings["seconds"] + WARM + 2)
    return float(one * len(settings["models"]))


def machine() -> str:
    """Describe this machine."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        kind = "version 1" if (Path("/sys/fs/cgroup") / "cpuacct").exists() else "version 2"
        system = f"Linux {platform.release().partition('-')[0]}, control groups {kind}"
        return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB, {system}"
    return platform.platform()


def versions(bench: Bench) -> str:
    """Give the versions of both sides.

    Raises:
        VelagenError: they differ.
    """
    both = ("numpy", "onnxruntime")
    flask = json.loads(bench.execute("flask", "python", "-", *both, "flask", "gunicorn", given=VERSIONS))
    addon = json.loads(bench.execute("addon", "python", "-", *both, given=VERSIONS))
    if any(flask[name] != version for name, version in addon.items()):
        raise VelagenError(Problem(f"the sides have different versions: {flask}, {addon}"))
    shared = ", ".join(f"{name} {version}" for name, version in addon.items())
    return f"Both sides: {shared}. Flask {flask['flask']}, gunicorn {flask['gunicorn']}; Triton {triton(bench)}"


def triton(bench: Bench) -> str:
    """Give Triton's version, as it says it."""
    bench.choose("addon")
    return str(local().get(f"{bench.lab.url('open')}/v2", timeout=10).json()["version"])


@contextlib.contextmanager
def own_core(core: int) -> Iterator[None]:
    """Keep this process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """Let SIGTERM end this process as ^C does, so that what was moved and made is put back."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def restore(lab: KindLab) -> None:
    """Let all of a lab run on every core again."""
    for thing in lab.api.list("v1", "Node"):
        node = Node(lab, thing["metadata"]["name"])
        cgroups.move(list(node.others([])), os.sched_getaffinity(0))


@click.command(epilog="Example: python -m benchmarks.serving --lab default --out /tmp/serving")
@click.option(
    "--lab", "which", default="default", show_default=True, help="A running kind lab: its name or its folder."
)
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)), help="One model; default: all.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(1, 120), help="Of each measurement.")
@click.option("--concurrency", default=32, show_default=True, type=click.IntRange(1, 128), help="In the closed loop.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.FloatRange(0.1, 1.5),
    help=f"Rates of the open loop, as shares of Flask's top rate. Default: {', '.join(map(str, SHARES))}.",
)
@click.option(
    "--batch", "sizes", multiple=True, type=click.IntRange(1, 128), help="dynamicBatching.preferredBatchSizes"
)
@click.option("--delay", type=click.IntRange(0), help="dynamicBatching.maxQueueDelayMicroseconds")
@click.option("--most", type=click.IntRange(1), help="dynamicBatching.maxBatchSize")
@click.option("--tune", "tuning", is_flag=True, help="Measure the addon alone with other batches and instances.")
@click.option("--quick", is_flag=True, help="A trial: one round of 5 s, Flask on one thread; the page is not written.")
@click.option(
    "--pin/--no-pin",
    default=True,
    help="Give the servers a core of their own, and move all else of the lab to the client's; without it figures mean "
    "little, and others can use the lab.",
)
@click.option(
    "--out",
    default=Path("dist/benchmark-serving"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for results.json and what is made of it.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, or add a model to it.")
@click.option("--namespace", default="benchmark-serving", show_default=True)
def main(
    which: str,
    names: tuple[str, ...],
    rounds: int,
    seconds: float,
    concurrency: int,
    shares: tuple[float, ...],
    sizes: tuple[int, ...],
    delay: int | None,
    most: int | None,
    tuning: bool,
    quick: bool,
    pin: bool,
    out: Path,
    resume: bool,
    namespace: str,
) -> None:
    """Compare Flask behind gunicorn with the addon, on one core each; writes docs/benchmarks.md and its plot."""
    given = {"preferredBatchSizes": list(sizes), "maxQueueDelayMicroseconds": delay, "maxBatchSize": most}
    settings = {
        "models": list(names or MODELS),
        "rounds": 1 if quick else rounds,
        "seconds": 5.0 if quick else seconds,
        "concurrency": concurrency,
        "shares": sorted(shares or SHARES),
        "quick": quick,
        "tune": tuning,
        "pin": pin,
        "batching": {key: value for key, value in given.items() if value not in (None, [])},
    }
    try:
        results = go(which, settings, out, resume=resume, namespace=namespace)
        text = report.tunings(results) if tuning else report.block(results)
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)
    if quick or not pin:
        return
    if not tuning:
        _plot(results, page.PAGE.with_suffix(".png"))
    page.write("tuning" if tuning else "serving", text)
    click.echo(f"written: {page.PAGE}", err=True)


def _plot(results: dict[str, Any], path: Path) -> None:
    try:
        report.plot(results, path)
    except ImportError as error:
        raise click.ClickException(f"no plot: {error} (pip install matplotlib, then --resume)") from error


def go(which: str, settings: dict[str, Any], out: Path, *, resume: bool, namespace: str) -> dict[str, Any]:
    """Measure.

    Args:
        which: a lab's name, or its folder.

    Returns:
        what is in results.json.

    Raises:
        VelagenError: there is no such lab, this machine can't measure, or something does not come up.
    """
    if len(os.sched_getaffinity(0)) < 2:  # one for each side of the wire
        raise VelagenError(Problem("server and client need a core each: this machine gives one"))
    first, second, *_ = sorted(os.sched_getaffinity(0))
    cores = first, second
    reporter = Reporter()
    lab = standing(which)
    ways = GUNICORN[:1] if settings["quick"] else GUNICORN
    results = Results(out, settings, resume=resume)
    total = estimate(settings, len(ways))
    reporter.say(
        f"about {math.ceil(total / 60)} minutes; client on core {cores[0]}, servers on core {cores[1]}; "
        f"raw results: {out}"
    )
    try:
        with (
            own_core(cores[0]) if settings["pin"] else contextlib.nullcontext(),
            reporter.bar("measuring", total=total, unit="s") as bar,
        ):
            if settings["tune"]:
                tune(lab, settings["models"], results, namespace, reporter, cores, bar.advance)
            for name in settings["models"] if not settings["tune"] else ():
                model = MODELS[name]
                with Bench(lab, namespace, model, {**model.batching, **settings["batching"]}) as bench:
                    measuring = Measuring(bench, results, reporter, cores, bar.advance)
                    measuring.measure(ways)
                    results.data["versions"] = versions(bench)
                    results.data["machine"] = machine()
                    results.save()
    finally:
        if settings["pin"]:
            restore(lab)
        lab.api.delete("v1", "Namespace", namespace)

    def gone() -> bool:
        return lab.api.get("v1", "Namespace", namespace) is None

    with contextlib.suppress(TimeoutError):
        wait_until(gone, what="the namespace's end", timeout=60, every=1)
    return results.data


if __name__ == "__main__":
    main()
