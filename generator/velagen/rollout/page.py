"""The last rollout of each component as a page: weights over time, checks with their numbers, and what happened."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from velagen.errors import Problem, VelagenError
from velagen.monitoring.cluster import Cluster
from velagen.monitoring.history import Event, Period, Values, events_of
from velagen.monitoring.models import NEAREST_FIRST, Wanted
from velagen.monitoring.prometheus import Prometheus, quoted
from velagen.page import Chart, Dot, Lane, Limit, Moment, Note, Page, Section, Series, Table, Tile, Tiles, Timeline, utc
from velagen.page.chart import Form, Tone, Unit
from velagen.page.figures import UNKNOWN, rate, span
from velagen.rollout.look import Rollout, Seen, in_words
from velagen.rollout.state import Entry

#: What is drawn of both versions -> title, unit.
_RECORDS: Final[Mapping[str, tuple[str, Unit]]] = {
    "model:requests:rate1m": ("Requests a second", "rate"),
    "model:errors:ratio5m": ("Failed requests", "ratio"),
    "model:latency_seconds:p99": ("Latency, P99", "seconds"),
    "model:latency_seconds:mean": ("Latency, mean", "seconds"),
}
_TONES: Final[Mapping[str, Tone]] = {"good": "good", "bad": "critical", "inconclusive": "warning"}
#: Seconds before the first and after the last thing that happened, which charts show too.
_MARGIN: Final = 60.0


@dataclass(frozen=True)
class Run:
    """One rollout with all that a page shows of it."""

    rollout: Rollout
    period: Period
    #: Record -> version -> values at the period's times.
    figures: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)
    #: Who counted, as the record's label route says.
    route: str = ""
    events: tuple[Event, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What happened, with a time."""
        return tuple(one for one in self.rollout.stored.run if one.at is not None)

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the charts."""
        count = round((self.period.end - self.period.start) / self.period.step)
        return tuple(self.period.start + self.period.step * place for place in range(count + 1))


def gather(cluster: Cluster, prometheus: Prometheus, seen: Seen) -> list[Run]:
    """The last rollouts, with what Prometheus and the cluster's events tell of their time.

    Raises VelagenError where none has happened yet.
    """
    runs = []
    for rollout in seen.rollouts:
        at = [one.at for one in rollout.stored.run if one.at is not None]
        if not at:
            continue
        end = at[-1] + _MARGIN if rollout.has_ended else seen.at
        length = max(end - at[0] + _MARGIN, 2 * _MARGIN)
        runs.append(_run(cluster, prometheus, rollout, Period.until(min(end, seen.at), length)))
    if not runs:
        names = ", ".join(one.component for one in seen.rollouts)
        raise VelagenError(
            Problem(
                f"nothing has happened yet in the rollout of {names}",
                hint=f"velagen rollout status {seen.rollouts[0].app} says why",
            )
        )
    return runs


def _run(cluster: Cluster, prometheus: Prometheus, rollout: Rollout, when: Period) -> Run:
    problems: list[Problem] = []
    versions = (rollout.component, rollout.candidate)
    route = ""
    figures: Mapping[str, Mapping[str, Values]] = {}
    try:
        route, figures = _measured(prometheus, rollout, when)
    except VelagenError as error:
        problems += error.problems
    events = events_of(cluster, Wanted(rollout.namespace, rollout.app), when, set(versions), problems)
    return Run(rollout, when, figures, route, events, tuple(problems))


def _measured(prometheus: Prometheus, rollout: Rollout, when: Period) -> tuple[str, dict[str, dict[str, Values]]]:
    """By the count that is nearest to the client and knows both versions, else one of them."""
    wanted = f"namespace={quoted(rollout.namespace)},version=~{quoted(f'{rollout.component}|{rollout.candidate}')}"
    found: dict[str, dict[str, dict[str, Values]]] = {}
    for record in _RECORDS:
        lines = prometheus.range(f"max by (version, route) ({record}{{{wanted}}})", when.start, when.end, when.step)
        for line in lines.lines:
            of_route = found.setdefault(line.labels.get("route", ""), {})
            of_route.setdefault(record, {})[line.labels.get("version", "")] = line.values
    known = [one for one in NEAREST_FIRST if one in found]
    if not known:
        return "", {}
    most = max(len(found[one].get("model:requests:rate1m", {})) for one in known)
    best = next(one for one in known if len(found[one].get("model:requests:rate1m", {})) == most)
    return best, found[best]


# ---------------------------------------------------------------- the page


def page(runs: Sequence[Run], seen: Seen) -> Page:
    """The page of these rollouts."""
    first = runs[0]
    sections = []
    for run in runs:
        title = run.rollout.component if len(runs) > 1 else ""
        sections.append(Section(title, _blocks(run, seen)))
        sections.append(Section("Checks", [_checks(run)]))
        sections.append(Section("What happened", [_happened(run), _events(run)]))
    start, end = min(one.period.start for one in runs), max(one.period.end for one in runs)
    return Page(
        title=first.rollout.app,
        subtitle=f"Namespace {first.rollout.namespace}, {utc(start)} to {utc(end)} UTC ({span(end - start)})",
        sections=sections,
        notes=_notes(runs, seen),
        kind="Rollout report",
    )


def _blocks(run: Run, seen: Seen) -> list[Note | Tiles | Timeline | Chart]:
    rollout = run.rollout
    failed = rollout.stored.phase == "failed"
    notes = [Note(one, "critical" if failed else "plain") for one in in_words(rollout, seen.at)]
    notes += [Note(f"{one.message}. {one.hint}".strip(), "warning") for one in run.problems]
    return [_tiles(run), *notes, _timeline(run), *_charts(run)]


def _tiles(run: Run) -> Tiles:
    stored = run.rollout.stored
    name: str
    tone: Tone
    match stored.phase:
        case "failed":
            name, tone = "rolled back", "critical"
        case "done":
            name, tone = ("deployed" if stored.run[0].row == "deployed anew" else "promoted"), "good"
        case other:
            name, tone = f"under way: {other}", "plain"
    checks = stored.checks
    count = {one: sum(check.verdict == one for check in checks) for one in ("good", "bad")}
    silent = len(checks) - sum(count.values())
    at = [one.at for one in run.entries if one.at is not None]
    return Tiles(
        [
            Tile("Result", name, f"revision {stored.revision}" if stored.revision else "", tone),
            Tile("Took", span(at[-1] - at[0]) if stored.has_ended else f"{span(seen_for(run))} so far"),
            Tile("Most traffic", f"{max(one.weight for one in stored.run)} %", f"of {run.rollout.candidate}"),
            Tile(
                "Checks",
                str(len(checks)),
                f"{count['good']} passed, {count['bad']} failed, {silent} without a verdict",
            ),
        ]
    )


def seen_for(run: Run) -> float:
    """Seconds since its beginning."""
    at = [one.at for one in run.entries if one.at is not None]
    return run.period.end - at[0]


def _weights(run: Run) -> Values:
    """The new version's share at each time, as the step wrote it; None before the rollout."""
    values: list[float | None] = []
    for at in run.times:
        last = next((one for one in reversed(run.entries) if one.at is not None and one.at <= at), None)
        values.append(None if last is None else last.weight / 100)
    return values


def _moments(run: Run) -> list[Moment]:
    moments = []
    for one in run.entries:
        tone: Tone = _TONES.get(one.verdict, "plain")
        if one.phase == "failed":
            tone = "critical"
        if one.at is not None:
            moments.append(Moment(one.at, f"{utc(one.at, date=False)} {one.words}", tone=tone))
    return moments


def _charts(run: Run) -> list[Chart]:
    rollout, moments = run.rollout, _moments(run)
    weights = _weights(run)
    share: Form = "step"
    charts = [
        Chart(
            "Share of the traffic",
            "ratio",
            run.times,
            [
                Series(rollout.component, [None if one is None else 1 - one for one in weights], 0, share),
                Series(rollout.candidate, weights, 1, share),
            ],
            "As the step wrote it into the route.",
            moments=moments,
            at_least=1.0,
        )
    ]
    for record, (title, unit) in _RECORDS.items():
        lines = run.figures.get(record, {})
        series = [
            Series(name, lines.get(name, (None,) * len(run.times)), slot)
            for slot, name in enumerate((rollout.component, rollout.candidate))
        ]
        limit = _limit(run) if record == "model:errors:ratio5m" else None
        chart = Chart(title, unit, run.times, series, limit=limit, moments=moments)
        # A server that has percentiles needs no mean beside them.
        if record != "model:latency_seconds:mean" or not charts[-1].has_data:
            charts.append(chart)
    return charts


def _limit(run: Run) -> Limit | None:
    """What the checks allowed of failures."""
    for check in reversed(run.rollout.stored.checks):
        for bound in check.bounds:
            if bound.name == "success ratio" and not bound.at_most:
                return Limit(1 - bound.limit, f"allowed: {100 * (1 - bound.limit):.3g} %")
    return None


def _timeline(run: Run) -> Timeline:
    checks: list[Dot] = []
    others: list[Dot] = []
    for one in run.entries:
        assert one.at is not None
        dot = Dot(one.at, f"{utc(one.at, date=False)} {one.words}", _TONES.get(one.verdict, "plain"))
        (checks if one.is_check else others).append(dot)
    events = [
        Dot(one.at, f"{utc(one.at, date=False)} {one.whose}: {one.reason}", "warning" if one.warning else "plain")
        for one in run.events
    ]
    lanes = [Lane("Rollout", others), Lane("Checks", checks), Lane("Events", events)]
    return Timeline("What happened when", run.period.start, run.period.end, lanes)


def _checks(run: Run) -> Table:
    rows, tones = [], []
    for one in run.rollout.stored.checks:
        verdict = "inconclusive" if one.row == "no answer" else one.verdict
        numbers = "; ".join(str(bound) for bound in one.bounds)
        rows.append(
            [
                UNKNOWN if one.at is None else utc(one.at),
                run.rollout.stored.share_checked(one),
                verdict,
                one.requests or UNKNOWN,
                numbers or UNKNOWN,
                one.why,
            ]
        )
        tones.append(_TONES.get(verdict, "plain"))
    head = ["Time (UTC)", "Share", "Verdict", "Requests", "Numbers", "Why"]
    return Table("Checks and their numbers", head, rows, tones, figures=False, missing="No check was made.")


def _happened(run: Run) -> Table:
    rows, tones = [], []
    for one in run.rollout.stored.run:
        rows.append([UNKNOWN if one.at is None else utc(one.at), one.words, one.phase, f"{one.weight} %", one.why])
        tones.append("critical" if one.phase == "failed" else _TONES.get(one.verdict, "plain"))
    return Table("From beginning to end", ["Time (UTC)", "What", "Phase", "Share", "Why"], rows, tones, figures=False)


def _events(run: Run) -> Table:
    rows: list[list[str]] = []
    tones: list[Tone] = []
    for one in run.events:
        often = f" ({rate(one.count)} times)" if one.count > 1 else ""
        rows.append([utc(one.at), one.reason, one.whose, one.message + often])
        tones.append("warning" if one.warning else "plain")
    return Table(
        "Events of its objects",
        ["Time (UTC)", "Reason", "Object", "Message"],
        rows,
        tones,
        figures=False,
        missing="The cluster has no events of that time.",
    )


def _notes(runs: Sequence[Run], seen: Seen) -> list[str]:
    counted = sorted({one.route for one in runs if one.route})
    notes = [
        "Phases, shares and checks are what the step wrote into its ConfigMap, which keeps the last 100 lines.",
        "Times of the step are late by 10 s at most: its clock is a lease of the API server.",
        "Kubernetes keeps events for one hour unless it is told otherwise.",
        f"Written {utc(time.time())} UTC.",
    ]
    if counted:
        notes.insert(0, f"Figures are from Prometheus at {seen.view.prometheus}, as {', '.join(counted)} counts.")
    return notes
