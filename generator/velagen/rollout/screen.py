"""Rollouts on a terminal: the way they take, both versions' shares and figures, the last checks, and why they wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from velagen.monitoring.models import Wanted
from velagen.monitoring.table import Screen as Models
from velagen.page.figures import UNKNOWN
from velagen.rollout.look import Rollout, Seen, in_words
from velagen.rollout.state import Entry, Stored

#: So many checks are shown.
_LAST: Final = 6
_STYLES: Final = {"good": "green", "bad": "red", "inconclusive": "yellow", "failed": "red", "done": "green"}
_WAY: Final = ("prepare", "warm", "step", "promote", "settle", "return", "drain", "done")
_BAR: Final = 50


class Screen:
    """All rollouts of an application, drawn at the width there is."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One rollout under the other; what is missing comes last."""
        for rollout in self.seen.rollouts:
            yield from self._one(rollout)
        for problem in self.seen.view.problems:
            yield Text(problem.message, "red" if problem.severity == "error" else "yellow")
            if problem.hint:
                yield Text(f"    {problem.hint}", "cyan")

    def _one(self, rollout: Rollout) -> Iterator[RenderableType]:
        stored = rollout.stored
        at = time.strftime("%H:%M:%S", time.localtime(self.seen.at))
        revision = f", revision {stored.revision}" if stored.revision else ""
        where = f"application {rollout.app} in namespace {rollout.namespace}{revision}"
        yield Text(f"{at}  rollout of {rollout.component}, {where}", "dim")
        yield way(stored)
        if (bar := _bar(rollout)) is not None:
            yield bar
        for line in in_words(rollout, self.seen.at):
            yield Text(line, "red" if stored.phase == "failed" else "")
        if rollout.models:
            yield Models(
                replace(self.seen.view, models=rollout.models, problems=()), Wanted(rollout.namespace, rollout.app)
            )
        if stored.checks:
            yield _checks(stored, stored.checks[-_LAST:])


def way(stored: Stored) -> Text:
    """``prepare > warm > 10 % > 30 % > 60 % > promote > done``, with where it is by now."""
    phase = stored.phase
    if phase in ("", "deploy"):
        return Text(phase or "not begun", "bold")
    if phase == "failed":
        reached = stored.run[-2].phase if len(stored.run) > 1 else ""
        step = stored.run[-2].step if len(stored.run) > 1 else 0
    else:
        reached, step = phase, int(stored.state["step"])
    text = Text()
    # It pauses at a step's weight.
    reached = "step" if reached == "pause" else reached
    here = _WAY.index(reached) if reached in _WAY else len(_WAY)
    for name, is_past, is_here in _stations(stored, here, step):
        style = "dim"
        if is_here:
            style = "bold red reverse" if phase == "failed" else "bold reverse"
        elif is_past:
            style = "green"
        if text:
            text.append(" > ", "dim")
        text.append(f" {name} " if is_here else name, style)
    if phase == "failed":
        text.append(" > ", "dim")
        text.append("rolled back", "bold red")
    return text


def _stations(stored: Stored, here: int, step: int) -> Iterator[tuple[str, bool, bool]]:
    """Each station's name, whether it is past, and whether it is this one."""
    for place, name in enumerate(_WAY):
        if name == "step":
            for number, share in enumerate(stored.steps):
                mine = here == place
                yield f"{share} %", here > place or (mine and step > number), mine and step == number
        elif name in ("prepare", "warm", "promote", "done"):
            last = {"promote": _WAY.index("drain")}.get(name, place)
            yield name, here > last or (name == "done" and here == place), place <= here <= last and name != "done"


def _bar(rollout: Rollout) -> Text | None:
    """What each version gets of the requests, as the route on the cluster says, else the state."""
    stored = rollout.stored
    if stored.phase in ("", "deploy"):
        return None
    model = next((one for one in rollout.models if one.version == rollout.candidate), None)
    share = float(stored.weight) if model is None or model.share.weight is None else model.share.weight
    if stored.has_ended:
        share = 0.0
    wide = round(_BAR * share / 100)
    text = Text.assemble(
        (f"{rollout.component} {100 - share:.0f} % ", "blue"),
        ("█" * (_BAR - wide), "blue"),
        ("█" * wide, "magenta"),
        (f" {share:.0f} % {rollout.candidate}", "magenta"),
    )
    if model is not None and not stored.has_ended and round(share) != stored.weight:
        text.append(f"  (the step wants {stored.weight} %)", "yellow")
    return text


def _checks(stored: Stored, checks: Sequence[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("CHECK", "AT", "VERDICT", "REQUESTS", "NUMBERS"):
        table.add_column(title, justify="right" if title in ("AT", "REQUESTS") else "left")
    for one in checks:
        verdict = "inconclusive" if one.row == "no answer" else one.verdict
        numbers = "; ".join(str(bound) for bound in one.bounds)
        table.add_row(
            clock(one.at),
            stored.share_checked(one),
            Text(verdict, _STYLES.get(verdict, "")),
            one.requests or UNKNOWN,
            numbers or one.why or one.words,
        )
    return table


def clock(at: float | None) -> str:
    """A time of day."""
    return UNKNOWN if at is None else time.strftime("%H:%M:%S", time.localtime(at))


def line(rollout: Rollout, entry: Entry) -> str:
    """One thing that happened, as a line of a log."""
    why = f": {entry.why}" if entry.why else ""
    return f"{clock(entry.at)} {rollout.component}: {entry.words}, {entry.weight} % to {rollout.candidate}{why}"


def as_json(seen: Seen) -> dict[str, object]:
    """For scripts: the keys of docs/rollout.md. What is not known is null."""
    return {
        "time": _written(seen.at),
        "prometheus": seen.view.prometheus or None,
        "rollouts": [_rollout_as_json(one, seen.at) for one in seen.rollouts],
        "problems": [
            {"severity": one.severity, "message": one.message, "hint": one.hint or None} for one in seen.view.problems
        ],
    }


def _rollout_as_json(rollout: Rollout, now: float) -> dict[str, object]:
    stored, state = rollout.stored, rollout.stored.state
    return {
        "application": rollout.app,
        "namespace": rollout.namespace,
        "component": rollout.component,
        "revision": stored.revision or None,
        "phase": stored.phase or None,
        "ended": rollout.has_ended,
        "steps": list(stored.steps),
        "step": state["step"] + 1 if stored.phase == "step" else None,
        "weightPercent": stored.weight,
        "checks": {
            "passed": state["passed"],
            "failed": state["failed"],
            "withoutVerdict": state["silent"],
            "needed": stored.settings.get("checks"),
            "failureLimit": stored.settings.get("failureLimit"),
        },
        "reason": state["reason"] or None,
        "says": in_words(rollout, now),
        "workflow": {
            "phase": rollout.workflow.phase or None,
            "suspended": rollout.workflow.suspended,
            "finished": rollout.workflow.finished,
            "message": rollout.workflow.said or None,
        },
        "versions": [
            {
                "version": one.version,
                "ready": one.ready,
                "weightPercent": one.share.weight,
                "replicas": {"ready": one.replicas_ready, "wanted": one.replicas_wanted},
                "requestsPerSecond": one.requests,
                "errorRatio": one.errors,
                "latencySeconds": {"p50": one.p50, "p99": one.p99, "mean": one.mean},
            }
            for one in rollout.models
        ],
        "history": [entry_as_json(one) for one in stored.run],
    }


def entry_as_json(one: Entry) -> dict[str, object]:
    """One thing that happened."""
    return {
        "time": None if one.at is None else _written(one.at),
        "what": one.words,
        "row": one.row,
        "phase": one.phase,
        "step": one.step + 1,
        "weightPercent": one.weight,
        "verdict": None if one.verdict == "none" else one.verdict,
        "why": one.why or None,
        "requests": one.requests or None,
        "bounds": [
            {
                "name": bound.name,
                "value": bound.value or None,
                "unit": bound.unit.strip() or None,
                "atMost" if bound.at_most else "atLeast": bound.limit,
            }
            for bound in one.bounds
        ],
    }


def _written(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
