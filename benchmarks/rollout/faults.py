"""Bad versions under real requests: by the step rollout-model, by a plain ``vela up``, and by KServe alone.

``python -m benchmarks.rollout.faults``; see docs/rollout.md. The three serve the same model side by side, get the same
bad version at the same moment, and requests at the same rate; each is counted, and its answer checked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.kind import ISVC, Load, Seen, namespace, steady
from benchmarks.rollout.live import (
    BODY,
    CHANGES,
    PATH,
    Rollout,
    answer_of,
    put_judge,
    put_version,
    settings_for,
)
from benchmarks.standing import standing

from velagen.errors import VelagenError
from velagen.lab import wait_until
from velagen.lab.kind import KindLab
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "rollout.md"
FAULTS: Final = {
    "good": "nothing is wrong with it",
    "error": "fails each request",
    "crash": "ends its server at each request",
    "slow": "takes a second for each",
    "load": "does not load",
    "overload": "fails above 3 requests a second",
    "wrong": "gives wrong answers",
    "vanish": "its metrics vanish",
}
#: Seconds before the change, and after the last rollout has ended.
BEFORE, AFTER = 10.0, 15.0
#: Seconds after which a client goes, and the request is lost.
TIMEOUT: Final = 10.0
#: Of all ways together. Docker's proxy before the gateway's port keeps the pipes of connections that have ended, and
#: ends for good ("accept4: too many open files") where it may open no more: seen twice where 660 were allowed at once,
#: beside other loads, with a limit of 20000 files.
CONNECTIONS: Final = 400
#: Seconds above which an answer is late.
LATE: Final = 1.0
#: Seconds in which a version comes in without the step, if it ever does.
STARTS: Final = 240.0
#: The step's deadline, and the seconds that a rollout may take.
DEADLINE: Final = 480
LONGEST: Final = 900.0
#: More is reserved than for a test: a busy machine gives a server that starts what is reserved for it.
RESOURCES: Final = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


class ByStep(Rollout):
    """The application with the step."""

    title = "`rollout-model`"

    def wait_first(self) -> None:
        """Wait for version 1."""
        self.wait("done", revision=1)
        self.wait_answered(LONGEST)

    @property
    def ended(self) -> str:
        """How the rollout of version 2 ended; empty while it is under way."""
        if self.data.get("revision") != f"{self.name}-v2" or self.weight:
            return ""
        return {"done": "promoted", "failed": "taken back"}.get(self.phase, "")

    def remove(self) -> None:
        """Have it removed."""
        self.lab.api.delete("core.oam.dev/v1beta1", "Application", self.name, self.space)


class ByVela(ByStep):
    """The same application as ``vela up`` brings it in without a workflow."""

    title = "`vela up` without the step"

    @property
    def host(self) -> str:
        """KServe's own."""
        return f"{self.name}-{self.space}.example.com"

    def up(self, uri: str, *, plain: bool = True, **more: Any) -> None:
        """Deploy a version."""
        super().up(uri, plain=plain, **more)

    def wait_first(self) -> None:
        """Wait for version 1."""
        self.wait_answered(LONGEST)

    @property
    def ended(self) -> str:
        """Nobody decides."""
        return ""

    def is_in(self, uri: str) -> bool:
        """Whether its pod is of this version, and ready."""
        found = self.lab.api.get("apps/v1", "Deployment", f"{self.name}-predictor", self.space) or {}
        status = found.get("status", {})
        return (
            uri in json.dumps(found.get("spec", {}))
            and status.get("observedGeneration") == found["metadata"]["generation"]
            and all(status.get(count, 0) == 1 for count in ("replicas", "updatedReplicas", "availableReplicas"))
        )


class ByKServe(ByVela):
    """An InferenceService as one writes it by hand; KubeVela knows nothing of it."""

    title = "KServe alone"

    def up(self, uri: str, **_: Any) -> None:
        """Apply the InferenceService with a version."""
        model = {
            "modelFormat": {"name": "triton"},
            "runtime": "kserve-tritonserver",
            "protocolVersion": "v2",
            "storageUri": uri,
            "resources": RESOURCES,
        }
        self.lab.api.apply(
            {
                "apiVersion": ISVC[0],
                "kind": ISVC[1],
                "metadata": {
                    "name": self.name,
                    "namespace": self.space,
                    "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
                },
                "spec": {"predictor": {"minReplicas": 1, "model": model}},
            }
        )

    def remove(self) -> None:
        """Have it removed."""
        self.lab.api.delete(*ISVC, self.name, self.space)


WAYS: Final[dict[str, type[ByStep]]] = {"step": ByStep, "vela": ByVela, "kserve": ByKServe}


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of one way after the change."""

    fault: str
    way: str
    requests: int
    lost: int
    wrong: int
    late: int
    #: Seconds after the change of the first and the last request that was marred; None where there was none.
    first: float | None
    last: float | None
    #: Whether requests were marred until the end.
    lasts: bool
    #: How the rollout ended, and how many seconds after the change.
    ended: str
    after: float
    reason: str
    #: The versions that answered at the end.
    serves: tuple[int, ...]
    #: By how many seconds the client itself sent later than its rate says, at the 99th percentile.
    behind: float
    #: The machine's load average meanwhile.
    busy: float


def outcome(
    fault: str, way: str, load: Load, change: float, until: float, ended: tuple[str, float, str], rate: float
) -> Outcome:
    """Count a load's requests from the *change* on; all are seconds of the load."""
    seen = [one for one in load.seen if change <= one.at < until]
    counted = [(one, _version(one)) for one in seen]
    lost = [one for one, version in counted if version is None]
    wrong = [one for one, version in counted if version is not None and version not in (1, 2)]
    late = [one for one, version in counted if version in (1, 2) and one.took > LATE]
    marred = sorted(one.at - change for one in (*lost, *wrong, *(late if fault == "slow" else ())))
    behind = sorted(one.at - number / rate for number, one in enumerate(load.seen))
    how, after, reason = ended
    return Outcome(
        fault,
        way,
        len(seen),
        len(lost),
        len(wrong),
        len(late),
        marred[0] if marred else None,
        marred[-1] if marred else None,
        bool(marred) and marred[-1] > until - change - AFTER + 5,
        how,
        after,
        reason,
        tuple(sorted({version for one, version in counted if version is not None and one.at > until - AFTER + 5})),
        behind[int(0.99 * (len(behind) - 1))] if behind else 0.0,
        os.getloadavg()[0],
    )


def _version(one: Seen) -> int | None:
    """What a request was answered; None where it is lost."""
    try:
        return answer_of(one.text) if one.status == 200 else None
    except (ValueError, KeyError, IndexError):
        return None


def compare(
    lab: KindLab, space: str, faults: Sequence[str], rate: float, bound: float, reporter: Reporter
) -> list[Outcome]:
    """Bring versions with these faults in, in all ways at once.

    Args:
        rate: requests a second, for each.
        bound: seconds that are watched, at least, once the new version is in where nothing takes it back.
    """
    sides = {
        (fault, way): make(lab, space, f"{fault}-{way}", {"deadline": DEADLINE, **settings_for(fault, space)})
        for fault in faults
        for way, make in WAYS.items()
    }
    first = put_version(lab, space, 1)
    second = {fault: put_version(lab, space, 2, fault) for fault in faults}
    for side in sides.values():
        side.up(first, resources=RESOURCES)
    for side in sides.values():
        side.wait_first()
    reporter.say(f"{', '.join(faults)}: version 1 serves in all ways")
    ended: dict[tuple[str, str], tuple[str, float, str]] = {}
    with ExitStack() as stack:
        loads = {which: stack.enter_context(_load(side, rate)) for which, side in sides.items()}
        time.sleep(BEFORE)
        changed = {}
        for which, side in sides.items():
            changed[which] = time.perf_counter()
            side.up(second[which[0]], resources=RESOURCES, **CHANGES.get(which[0], {}))
        begun = time.perf_counter()
        came: dict[tuple[str, str], float] = {}
        while time.perf_counter() < begun + LONGEST:
            for which, side in sides.items():
                if isinstance(side, ByVela):
                    if which not in came and side.is_in(second[which[0]]):
                        came[which] = time.perf_counter()
                elif which not in ended and (how := side.ended):
                    ended[which] = (how, time.perf_counter() - changed[which], str(side.state["reason"]))
                    reporter.say(f"{which[0]}: {how} after {ended[which][1]:.0f} s {ended[which][2]}")
            if len(ended) == len(faults) and _seen_enough(came, sides, begun, bound):
                break
            time.sleep(0.5)
        time.sleep(AFTER)
        until = time.perf_counter()
    found = [
        outcome(
            *which,
            load,
            changed[which] - load.start,
            until - load.start,
            ended.get(which, ("", 0.0, "")),
            rate,
        )
        for which, load in loads.items()
    ]
    for side in sides.values():
        side.remove()
    of_models = "serving.kserve.io/inferenceservice"
    wait_until(
        lambda: not lab.api.list("v1", "Pod", space, selector=of_models), what="the end of all pods", timeout=240
    )
    return found


def _seen_enough(
    came: Mapping[tuple[str, str], float], sides: Mapping[tuple[str, str], ByStep], begun: float, bound: float
) -> bool:
    """Whether each way without the step was watched for long enough with the new version, or waited for in vain."""
    now = time.perf_counter()
    plain = [which for which, side in sides.items() if isinstance(side, ByVela)]
    return all(now > came[which] + bound if which in came else now > begun + STARTS for which in plain)


def connections(rate: float) -> int:
    """How many requests of one way may be under way: all that are sent until a client goes, and some."""
    return int(rate * TIMEOUT) + 10


@contextmanager
def _load(side: ByStep, rate: float) -> Iterator[Load]:
    client = side.client
    client.timeout = TIMEOUT
    with steady(client, PATH, BODY, rate, BEFORE + LONGEST + 300, connections(rate)) as load:
        yield load


def cell(one: Outcome) -> str:
    """What is said of one way."""
    late = one.late if one.fault == "slow" else 0
    counts = [(one.lost, "lost"), (one.wrong, "wrong"), (late, f"later than {LATE:.0f} s")]
    parts = [", ".join(f"{count} {what}" for count, what in counts if count) or "none"]
    if one.lasts:
        # Late answers alone may be the machine's.
        parts += ["not over by itself"] if one.lost or one.wrong else []
    elif one.first is not None and one.last is not None:
        parts.append(f"over within {one.last - one.first:.0f} s")
    if one.way == "step":
        parts.append(f"{one.ended} after {one.after:.0f} s" if one.ended else "not ended")
    elif not one.lasts:
        parts.append(f"version {' and '.join(map(str, one.serves))} serves" if one.serves else "nobody answers")
    return "; ".join(parts)


def text(outcomes: Iterable[Outcome], rate: float) -> str:
    """The part of docs/rollout.md."""
    found = {(one.fault, one.way): one for one in outcomes}
    rows = []
    for fault, title in FAULTS.items():
        ways = [found[fault, way] for way in WAYS if (fault, way) in found]
        if len(ways) == len(WAYS):
            counts = {one.requests for one in ways}
            rows.append(
                [
                    title,
                    str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}",
                    *map(cell, ways),
                ]
            )
    all_of_them = list(found.values())
    busy = page.Spread.of([one.busy for one in all_of_them])
    behind = max(one.behind for one in all_of_them)
    late = [one.late / one.requests for one in all_of_them if one.fault == "good"]
    noise = (
        f" Of the good version's answers {100 * max(late):.0f} % at most came after {LATE:.0f} s, in each way."
        if late
        else ""
    )
    head = ["the new version", "requests each", *(way.title for way in WAYS.values())]
    return "\n".join(
        [
            f"{rate:.0f} requests a second for each, whatever becomes of them; lost is what has no answer of status "
            f"200 within {TIMEOUT:.0f} s. {os.cpu_count()} cores, load average {busy.low:.0f} to {busy.high:.0f}; the "
            f"client itself sent 99 % of its requests within {behind:.2f} s of their moment.{noise}",
            "",
            page.table(head, rows, right=1),
        ]
    )


def _kept(path: Path | None) -> list[Outcome]:
    if path is None or not path.exists():
        return []
    return [Outcome(**{**one, "serves": tuple(one["serves"])}) for one in json.loads(path.read_text())]


@click.command(epilog="Example: python -m benchmarks.rollout.faults --lab /tmp/lab --write")
@click.option(
    "--lab", "which", default="default", show_default=True, help="A running kind lab: its name or its folder."
)
@click.option("--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="These alone.")
@click.option("--at-once", default=1, show_default=True, help="So many faults, in three applications each, at once.")
@click.option("--rate", default=10.0, show_default=True, help="Requests a second for each application.")
@click.option("--seconds", default=60.0, show_default=True, help="Watched once a version is in for good, at least.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keeps the figures; those of an earlier run that are not measured again stay in the table.",
)
@click.option("--write", is_flag=True, help="Put the table into docs/rollout.md.")
def main(
    which: str, faults: tuple[str, ...], at_once: int, rate: float, seconds: float, results: Path | None, write: bool
) -> None:
    """Bring bad versions in on a kind lab in three ways, and count what clients get."""
    if at_once * len(WAYS) * connections(rate) > CONNECTIONS:
        raise click.UsageError(
            f"--at-once {at_once} at {rate:.0f} requests a second may need more than {CONNECTIONS} connections, and "
            "Docker's proxy before the gateway may end: take less of one of them."
        )
    reporter = Reporter()
    try:
        lab = standing(which)
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    lab.load(["tritonserver", "object-store"])
    found = {(one.fault, one.way): one for one in _kept(results)}
    asked = faults or tuple(FAULTS)
    with namespace(lab, "bench-faults") as space:
        put_judge(lab, space)
        for start in range(0, len(asked), at_once):
            some = asked[start : start + at_once]
            found |= {(one.fault, one.way): one for one in compare(lab, space, some, rate, seconds, reporter)}
            if results is not None:
                results.write_text(json.dumps([asdict(one) for one in found.values()], indent=1))
    said = text(found.values(), rate)
    click.echo(said)
    if write:
        page.write("faults", said, PAGE)


if __name__ == "__main__":
    main()
