"""vela-core is killed in each phase of a rollout: what clients notice, and how the rollout ends.

``python -m benchmarks.rollout.kills``; see docs/rollout.md. One good version and one that fails each request come in
under requests at a fixed rate. Whoever else uses the lab's KubeVela is disturbed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.kind import Load, down, namespace, steady
from benchmarks.rollout.live import BODY, PATH, VELA_CORE, Rollout, answer_of, kill_vela_core, put_version
from benchmarks.standing import standing

from velagen.errors import VelagenError
from velagen.lab import condition
from velagen.lab.kind import KindLab
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "rollout.md"
#: Requests a second, and the seconds after which they end whatever the cluster does.
RATE: Final = 10.0
LONGEST: Final = 900.0
#: In words, by the phase; a check that failed is the state in which the next one decides.
PHASES: Final = ("prepare", "warm", "step", "a failed check", "promote", "settle", "return", "drain", "failed")
#: How a rollout of each version ends.
ENDS: Final = {"good": "done", "error": "failed"}


def place(state: Mapping[str, Any]) -> str:
    """The phase of a state, or what is like one."""
    failed_once = state.get("phase") == "step" and state.get("failed")
    return "a failed check" if failed_once else str(state.get("phase", ""))


@dataclass
class Killer:
    """Ends vela-core's pod once in each phase, as soon as the phase is seen."""

    rollout: Rollout
    revision: str
    start: float = field(default_factory=time.perf_counter)
    #: Seconds after the start of each kill, and until another pod was ready.
    killed: dict[str, float] = field(default_factory=dict)
    away: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Kill it if the phase is a new one; note since when it is back."""
        lab, now = self.rollout.lab, time.perf_counter() - self.start
        last = next(reversed(self.killed), "")
        if last and last not in self.away:
            pods = lab.api.list("v1", "Pod", "vela-system", selector=VELA_CORE)
            if any(condition(pod, "Ready") == "True" for pod in pods):
                self.away[last] = now - self.killed[last]
        if self.rollout.data.get("revision") != self.revision:
            return
        here = place(self.rollout.state)
        if here in PHASES and here not in self.killed:
            kill_vela_core(lab)
            self.killed[here] = now


@contextmanager
def _killing(killer: Killer) -> Iterator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            killer.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class Run:
    """One rollout with its kills."""

    killer: Killer
    load: Load
    took: float
    phase: str
    reason: str
    #: Its candidate's share, and whether the candidate is there still.
    left: tuple[int, bool]

    @property
    def versions(self) -> dict[int, int]:
        """Requests that each version answered."""
        found: dict[int, int] = {}
        for one in self.load.seen:
            if one.status == 200:
                found[answer_of(one.text)] = found.get(answer_of(one.text), 0) + 1
        return found


def run(lab: KindLab, space: str, fault: str, reporter: Reporter) -> Run:
    """Bring a version in."""
    rollout = Rollout(lab, space, fault)
    rollout.up(put_version(lab, space, 1))
    rollout.wait("done", revision=1)
    rollout.wait_answered()
    second = put_version(lab, space, 2, fault)
    with steady(rollout.client, PATH, BODY, RATE, LONGEST) as load:
        rollout.up(second)
        killer = Killer(rollout, f"{fault}-v2")
        with _killing(killer):
            rollout.wait(*ENDS.values(), revision=2, timeout=LONGEST)
            took = time.perf_counter() - killer.start
            # Of one that went back the end is a phase too; what it leaves to be done is done by the next vela-core.
            rollout.wait_weight(0)
            rollout.wait_gone()
        time.sleep(5)
    reporter.say(f"{fault}: {rollout.phase} after {took:.0f} s, killed in {', '.join(killer.killed)}")
    found = Run(
        killer, load, took, rollout.phase, str(rollout.state["reason"]), (rollout.weight, rollout.has_candidate)
    )
    down(lab, space, fault)
    return found


def text(runs: Mapping[str, Run]) -> str:
    """The part of docs/rollout.md."""
    head = ["vela-core is killed in", *(f"{fault}: seconds after the change (away for)" for fault in runs)]
    rows = []
    for phase in PHASES:
        cells = []
        for one in runs.values():
            at, away = one.killer.killed.get(phase), one.killer.away.get(phase)
            cells.append("" if at is None else f"{at:.0f}" + (f" ({away:.0f})" if away is not None else ""))
        if any(cells):
            rows.append([phase, *cells])
    lines = [page.table(head, rows), ""]
    for fault, one in runs.items():
        answered = ", ".join(
            f"{count} answered by version {version}" for version, count in sorted(one.versions.items())
        )
        how = f"{one.phase} after {one.took:.0f} s" + (f" ({one.reason})" if one.reason else "")
        lines.append(
            f"- {fault}: {how}; {len(one.load.failed)} of {len(one.load.seen)} requests failed, {answered}; at the end "
            f"the candidate has {one.left[0]} % and is {'still there' if one.left[1] else 'gone'}."
        )
    return "\n".join(lines)


@click.command(epilog="Example: python -m benchmarks.rollout.kills --lab /tmp/lab --write")
@click.option(
    "--lab", "which", default="default", show_default=True, help="A running kind lab: its name or its folder."
)
@click.option("--version", "faults", multiple=True, type=click.Choice(list(ENDS)), help="This one alone.")
@click.option("--write", is_flag=True, help="Put the table into docs/rollout.md.")
def main(which: str, faults: tuple[str, ...], write: bool) -> None:
    """Kill vela-core in each phase of a good and of a bad version's rollout on a kind lab."""
    reporter = Reporter()
    try:
        lab = standing(which)
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    lab.load(["tritonserver"])
    with namespace(lab, "bench-kills") as space:
        runs = {fault: run(lab, space, fault, reporter) for fault in faults or tuple(ENDS)}
    said = text(runs)
    click.echo(said)
    if write:
        page.write("kills", said, PAGE)


if __name__ == "__main__":
    main()
