"""The report of an application as a page: its versions side by side, charts, and what happened meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from velagen.monitoring.history import WHOLE_STEP, History, Published, Rang, Values
from velagen.monitoring.models import Objective
from velagen.monitoring.sources import Route
from velagen.page import (
    Bar,
    Chart,
    Dot,
    Lane,
    Limit,
    Moment,
    Note,
    Page,
    Section,
    Series,
    Table,
    Tile,
    Tiles,
    Timeline,
    utc,
)
from velagen.page.chart import COLOURS, Form, Tone, Unit
from velagen.page.figures import UNKNOWN, percent, rate, seconds, span
from velagen.page.scale import longest

#: Seconds; Kubernetes' default (kube-apiserver --event-ttl).
_EVENTS_KEPT: Final = 3_600
_MOST_EVENTS: Final = 100
_ROUTE_IN_WORDS: Final[dict[Route, str]] = {
    "envoy": "the gateway (Envoy)",
    "istio": "the mesh (Istio)",
    "knative": "Knative's queue-proxy",
    "server": "the model server",
}

_REQUESTS: Final = "model:requests:rate1m"
_ERRORS: Final = "model:errors:rate1m"
_P50: Final = "model:latency_seconds:p50"
_P99: Final = "model:latency_seconds:p99"
_MEAN: Final = "model:latency_seconds:mean"


def page(history: History) -> Page:
    """The report of an application."""
    when = history.period
    several = len(history.components) > 1
    overview = [Note(f"{one.message}. {one.hint}".strip(), "warning") for one in history.problems]
    sections = [Section("", [*overview, _timeline(history)])]
    for name in history.components:
        sections.append(Section(name if several else "", _Component(history, name).blocks()))
    sections.append(Section("What happened", [_alert_table(history), _event_table(history)]))
    same_day = utc(when.start).rpartition(" ")[0] == utc(when.end).rpartition(" ")[0]
    return Page(
        title=history.app,
        subtitle=f"Namespace {history.namespace}, {utc(when.start)} to {utc(when.end, date=not same_day)} UTC"
        f" ({span(when.end - when.start)})",
        sections=sections,
        notes=_notes(history),
        kind="Model report",
    )


# ---------------------------------------------------------------- a component


@dataclass(frozen=True)
class _Component:
    """One component of the application: its versions, compared by one count."""

    history: History
    name: str

    @cached_property
    def route(self) -> Route | None:
        return self.history.route_of(self.name)

    @cached_property
    def versions(self) -> list[str]:
        return self.history.versions(self.name)

    @cached_property
    def objective(self) -> Objective:
        """As it is now."""
        return next((one.objective for one in self.history.models if one.component == self.name), Objective())

    @cached_property
    def alerts(self) -> list[Rang]:
        return [one for one in self.history.alerts if one.whose in (*self.versions, self.name)]

    @cached_property
    def moments(self) -> list[Moment]:
        """What is marked in each chart."""
        rang = [Moment(one.start, f"{one.name} on {one.whose}", one.end, _tone(one.severity)) for one in self.alerts]
        return rang + [Moment(one.at, _revision_in_words(one)) for one in self.history.published]

    @property
    def whole(self) -> bool:
        """Whether a point stands for all of its step."""
        return self.history.period.step >= WHOLE_STEP

    @property
    def each(self) -> str:
        return f" of each {span(self.history.period.step)}" if self.whole else ""

    def of(self, record: str, one: str) -> Values:
        """A record's values for a version, by the component's route."""
        return self.history.of(record, self.name, one, self.route)

    def slot(self, one: str) -> int:
        """A version's colour."""
        return self.versions.index(one) % COLOURS

    def blocks(self) -> list[Tiles | Table | Chart]:
        """What the page says of it."""
        charts = [self._requests(), self._failed(), self._latency()]
        if len(self.versions) > 1:
            charts.append(self._shares())
        charts += [self._replicas(), self._in_the_system()]
        # What a cluster without GPUs or objectives never has is not a gap.
        charts += [one for one in (self._gpus(), self._budget()) if one.has_data]
        return [self._tiles(), self._comparison(), *charts]

    # ------------------------------------------------------------ charts

    def _chart(
        self,
        title: str,
        unit: Unit,
        series: Iterable[Series],
        about: str,
        *,
        limit: Limit | None = None,
        missing: str = "Nothing was measured.",
        at_least: float = 0.0,
    ) -> Chart:
        return Chart(title, unit, self.history.times, list(series), about, limit, self.moments, missing, at_least)

    def _lines(self, record: str, form: Form = "line", more: str = "", route: Route | None = None) -> list[Series]:
        """A line for each version; *more* follows its name."""
        by = route or self.route
        return [
            Series(f"{one}{more}", self.history.of(record, self.name, one, by), self.slot(one), form)
            for one in self.versions
        ]

    def _requests(self) -> Chart:
        about = f"Mean{self.each}." if self.whole else "Over one minute."
        return self._chart(
            "Requests a second", "rate", self._lines(_REQUESTS), about, missing="Nobody counted requests."
        )

    def _failed(self) -> Chart:
        allowed = self.objective.availability
        return self._chart(
            "Failed requests",
            "ratio",
            [Series(one, self._error_ratio(one), self.slot(one)) for one in self.versions],
            "By the server's fault, as a share of all; a gap where there were no requests.",
            limit=Limit(1 - allowed / 100, f"allowed by the objective ({allowed:g} %)") if allowed else None,
            missing="Nobody tells failed requests apart.",
        )

    def _latency(self) -> Chart:
        """Percentiles; of a version without them the mean, which is called so."""
        limit = self.objective.latency_milliseconds
        promised = f"objective: {self.objective.percentile or 99:g} % within {limit:g} ms" if limit else ""
        without = [self.slot(one) for one in self.versions if not _there(self.of(_P99, one))]
        means = [one for one in self._lines(_MEAN, "dotted", " mean") if one.slot in without]
        return self._chart(
            "Latency",
            "seconds",
            [*self._lines(_P99, "line", " P99"), *self._lines(_P50, "dashed", " P50"), *means],
            f"P99: the highest{self.each}." if self.whole else "Over five minutes.",
            limit=Limit(limit / 1000, promised) if limit else None,
            missing="Nobody measured latency.",
        )

    def _shares(self) -> Chart:
        """What was counted, and the weight that the application's revisions gave."""
        counts = {one: self.of(_REQUESTS, one) for one in self.versions}
        together = [sum(value or 0.0 for value in column) for column in zip(*counts.values(), strict=True)]
        counted = [
            Series(f"{one} counted", [_share(*pair) for pair in zip(values, together, strict=True)], self.slot(one))
            for one, values in counts.items()
        ]
        written = [
            Series(f"{one} written", self.history.written(self.name, one), self.slot(one), "dashed-step")
            for one in self.versions
        ]
        about = "Counted (solid), and written in the application's revisions (dotted)."
        return self._chart("Share of requests", "ratio", [*counted, *written], about, at_least=1.0)

    def _replicas(self) -> Chart:
        series = [
            Series(one, self.history.of("model:replicas", self.name, one, None), self.slot(one), "step")
            for one in self.versions
        ]
        fewest = f", the fewest{self.each}" if self.whole else ""
        return self._chart("Replicas", "number", series, f"Predictor pods whose metrics answer{fewest}.")

    def _in_the_system(self) -> Chart:
        about = "Requests that are worked on, and that wait for their turn."
        series = []
        for record, more, form in _IN_THE_SYSTEM:
            own = self._lines(record, form, more)
            # The server knows, where a gateway does not.
            series += own if any(_there(one.values) for one in own) else self._lines(record, form, more, "server")
        return self._chart("In the system", "number", series, about)

    def _gpus(self) -> Chart:
        series = [
            Series(one, self.history.of("model:gpu_utilization:avg", self.name, one, None), self.slot(one))
            for one in self.versions
        ]
        return self._chart("GPUs", "ratio", series, "Mean use of those that its pods hold.", at_least=1.0)

    def _budget(self) -> Chart:
        found = sorted(self.history.budgets.get(self.name, {}).items())
        window = f" ({self.objective.window})" if self.objective.window else ""
        return self._chart(
            "Error budget left",
            "ratio",
            [Series(name, values, place) for place, (name, values) in enumerate(found)],
            f"Of the objective's window{window}; what is overspent is drawn as 0.",
            at_least=1.0,
        )

    def _error_ratio(self, one: str) -> Values:
        """Over long steps the failed of all requests of the step, which a mean of shares is not."""
        if not self.whole:
            return self.of("model:errors:ratio5m", one)
        return [_share(*pair) for pair in zip(self.of(_ERRORS, one), self.of(_REQUESTS, one), strict=True)]

    # ------------------------------------------------------------ figures

    def _figure(self, name: str, one: str, route: str | None = None) -> float | None:
        """A figure of all of the while, by the component's route; of what has no route *route* is empty."""
        by = self.route or "" if route is None else route
        return self.history.figures[name].get((self.name, one, by))

    def _failed_share(self, *versions: str) -> float | None:
        """Of the requests of those whose failures are told."""
        told = [one for one in versions if self._figure("errors", one) is not None]
        bad = sum(self._figure("errors", one) or 0.0 for one in told)
        return _share(bad, sum(self._figure("requests", one) or 0.0 for one in told))

    def _tiles(self) -> Tiles:
        counts = [count for one in self.versions if (count := self._figure("requests", one)) is not None]
        columns = zip(*(self.of(_REQUESTS, one) for one in self.versions), strict=True)
        peak = longest(sum(value or 0.0 for value in column) for column in columns)
        failed, allowed = self._failed_share(*self.versions), self.objective.availability
        tone: Tone = "plain"
        if failed is not None and allowed is not None:
            tone = "critical" if failed > 1 - allowed / 100 else "good"
        severities = {one.severity for one in self.alerts}
        worst: Tone = "critical" if "critical" in severities else "warning" if severities else "good"
        names = ", ".join(dict.fromkeys(one.name for one in self.alerts))
        return Tiles(
            [
                Tile("Requests", rate(round(sum(counts))), f"at most {rate(peak)} a second")
                if counts
                else Tile("Requests", UNKNOWN),
                Tile("Failed", percent(failed), f"objective: {allowed:g} % good" if allowed else "", tone),
                self._slowest(),
                Tile("Alerts", str(len(self.alerts) or "none"), names, worst),
            ]
        )

    def _slowest(self) -> Tile:
        for figure, name in (("p99 highest", "Highest P99"), ("mean highest", "Highest mean latency")):
            found = [(value, one) for one in self.versions if (value := self._figure(figure, one)) is not None]
            if found:
                value, whose = max(found)
                return Tile(name, seconds(value), "of five minutes" + (f", {whose}" if len(self.versions) > 1 else ""))
        return Tile("Latency", UNKNOWN)

    def _comparison(self) -> Table:
        """Versions side by side, in columns that say something of one of them at least."""
        rows = {one: self._figures(one) for one in self.versions}
        titles = list(next(iter(rows.values()), {}))
        always = ("Weight now", "Requests", "Failed", "Replicas")
        shown = [one for one in titles if one in always or any(row[one] != UNKNOWN for row in rows.values())]
        return Table(
            "Versions side by side" if len(rows) > 1 else "In figures",
            ["Version", *shown],
            [[one, *(row[title] for title in shown)] for one, row in rows.items()],
            slots=[self.slot(one) for one in rows],
            missing="No version was seen.",
        )

    def _figures(self, one: str) -> dict[str, str]:
        every = sum(self._figure("requests", name) or 0.0 for name in self.versions)
        count = self._figure("requests", one)
        p99 = self._figure("p99 median", one)
        few, many = self._figure("replicas least", one, ""), self._figure("replicas most", one, "")
        return {
            "Weight now": self._weight(one),
            "Requests": UNKNOWN if count is None else rate(round(count)),
            "Counted share": percent(_share(count, every)),
            "Failed": percent(self._failed_share(one)),
            "P50, median": seconds(self._figure("p50 median", one)),
            "P99, median": seconds(p99),
            "P99, highest": seconds(self._figure("p99 highest", one)),
            "Mean latency": seconds(self._figure("mean median", one)) if p99 is None else UNKNOWN,
            "Replicas": rate(few) if few == many else f"{rate(few)} to {rate(many)}",
        }

    def _weight(self, one: str) -> str:
        model = next((model for model in self.history.models if model.version == one), None)
        if model is None:
            return "gone"
        if model.share.mirrored:
            return "copies"
        return UNKNOWN if model.share.weight is None else percent(model.share.weight / 100)


_IN_THE_SYSTEM: Final[tuple[tuple[str, str, Form], ...]] = (
    ("model:inflight", " in flight", "line"),
    ("model:waiting", " waiting", "dashed"),
)


def _there(values: Values) -> list[float]:
    return [value for value in values if value is not None]


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


# ---------------------------------------------------------------- what happened


def _timeline(history: History) -> Timeline:
    when = history.period
    warnings, others = (
        [
            Dot(one.at, f"{utc(one.at, date=False)} {one.whose}: {one.reason}", "warning" if warning else "plain")
            for one in history.events
            if one.warning == warning
        ]
        for warning in (True, False)
    )
    revisions = [
        Dot(one.at, f"{utc(one.at, date=False)} {_revision_in_words(one)}", "good") for one in history.published
    ]
    alerts = [
        Bar(one.start, one.end, f"{utc(one.start, date=False)} {one.name} on {one.whose}", _tone(one.severity))
        for one in history.alerts
    ]
    lanes = [
        Lane("Revisions", revisions),
        Lane("Alerts", alerts),
        Lane("Warnings", warnings),
        Lane("Events", others),
    ]
    return Timeline("What happened when", when.start, when.end, lanes)


def _alert_table(history: History) -> Table:
    last = history.times[-1]
    rows = []
    for one in history.alerts:
        lasted = span(max(one.end - one.start, history.period.step)) + (", still firing" if one.end >= last else "")
        rows.append([utc(one.start), one.name, one.severity, one.whose, lasted])
    return Table(
        "Alerts",
        ["From (UTC)", "Alert", "Severity", "On", "For"],
        rows,
        [_tone(one.severity) for one in history.alerts],
        figures=False,
        missing="No alert fired.",
    )


def _event_table(history: History) -> Table:
    """Warnings stay where there are too many, and of the others the newest."""
    shown = sorted(history.events, key=lambda one: (one.warning, one.at))[-_MOST_EVENTS:]
    left_out = len(history.events) - len(shown)
    rows: list[tuple[float, Tone, list[str]]] = []
    for one in shown:
        often = f" ({one.count} times)" if one.count > 1 else ""
        cells = [utc(one.at), one.reason, one.whose, one.message + often]
        rows.append((one.at, "warning" if one.warning else "plain", cells))
    for revision in history.published:
        cells = [utc(revision.at), "Published", f"ApplicationRevision {revision.name}", _revision_in_words(revision)]
        rows.append((revision.at, "plain", cells))
    rows.sort(key=lambda row: row[0])
    return Table(
        "Events of its objects" + (f" ({left_out} more are left out)" if left_out else ""),
        ["Time (UTC)", "Reason", "Object", "Message"],
        [cells for _, _, cells in rows],
        [tone for _, tone, _ in rows],
        figures=False,
        missing="The cluster has no events of that time.",
    )


def _revision_in_words(one: Published) -> str:
    said = [f"revision {one.name}"]
    for component, weights in (one.weights or {}).items():
        whose = {f"{component}-canary": "its new version"}
        shares = " and ".join(f"{weight:g} % to {whose.get(name, name)}" for name, weight in weights.items())
        said.append(f"{component}: {shares}")
    return ", ".join(said)


def _tone(severity: str) -> Tone:
    return "critical" if severity == "critical" else "warning"


def _notes(history: History) -> list[str]:
    when = history.period
    routes = {name: history.route_of(name) for name in history.components}
    counted = "; ".join(f"{name} as {_ROUTE_IN_WORDS[route]} counts" for name, route in routes.items() if route)
    notes = [
        f"Figures are from Prometheus at {history.prometheus}, by velagen's recording rules, every {span(when.step)}.",
        f"Requests of {counted}. Where several count one request, one of them is shown, never their sum.",
        "A gap is a time at which nothing was measured; it is not 0. A server without a histogram has no percentiles: "
        "its mean is shown, and called a mean.",
        "Kubernetes keeps events for one hour unless it is told otherwise: older ones are missing here.",
        f"Written {utc(time.time())} UTC by velagen {_own_version()}.",
    ]
    missing = [notes[1]] * (not counted) + [notes[3]] * (when.end - when.start <= _EVENTS_KEPT)
    return [one for one in notes if one not in missing]


def _own_version() -> str:
    try:
        return version("velagen")
    except PackageNotFoundError:
        return "(not installed)"
