"""The view of models on a terminal: a table of as many columns as there is room for, and what is to be said with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from velagen.monitoring.models import Model, View, Wanted
from velagen.page.figures import UNKNOWN, percent, rate, seconds, span

_NINETY_NINE: Final = 99
#: Between columns.
_GAP: Final = 2
#: A name is cut to this many characters before a column is left out.
_SHORTEST_NAME: Final = 20


#: The worst first.
_SEVERITIES: Final = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Model], str | Text]
    #: Those of a higher number go first where there is no room.
    rank: int
    #: Whether it holds figures of Prometheus, which may be old.
    figures: bool = False
    #: Left out where it would say nothing of any model.
    optional: bool = False


def _weight(model: Model) -> str:
    if len(model.revisions) > 1:
        return "+".join(f"{weight:.0f}" for weight in model.revisions.values()) + " %"
    if model.share.mirrored:
        return "copies"
    return UNKNOWN if model.share.weight is None else percent(model.share.weight / 100)


def _ready(model: Model) -> Text:
    if model.replicas_wanted is None or model.replicas_ready is None:
        return Text(UNKNOWN, "" if model.ready else "red")
    well = model.ready and model.replicas_ready >= model.replicas_wanted
    return Text(f"{model.replicas_ready}/{model.replicas_wanted}", "" if well else "red")


def _errors(model: Model) -> Text:
    allowed = model.objective.availability
    bad = bool(model.errors and (allowed is None or model.errors > 1 - allowed / 100))
    return Text(percent(model.errors), "red" if bad else "")


def _slowest(model: Model) -> Text:
    limit = model.objective.latency_milliseconds
    # Of another percentile's objective a P99 says nothing.
    broken = limit and model.p99 and model.objective.percentile in (None, _NINETY_NINE) and model.p99 * 1000 > limit
    return Text(seconds(model.p99), "red" if broken else "")


def objective_in_words(model: Model) -> str:
    """``99.9 %, 200 ms``: what is promised."""
    said = []
    if model.objective.availability is not None:
        said.append(f"{model.objective.availability:g} %")
    if model.objective.latency_milliseconds is not None:
        said.append(f"{model.objective.latency_milliseconds:g} ms")
    return ", ".join(said) or UNKNOWN


def _budget(model: Model) -> Text:
    style = "red" if model.budget_left is not None and model.budget_left <= 0 else ""
    return Text(percent(model.budget_left), style)


_COLUMNS: Final = (
    _Column("MODEL", lambda one: one.version, 0),
    _Column("NAMESPACE", lambda one: one.namespace, 3),
    _Column("APP", lambda one: one.app or UNKNOWN, 12),
    _Column("WEIGHT", _weight, 2),
    _Column("READY", _ready, 1),
    _Column("REQ/S", lambda one: rate(one.requests), 1, figures=True),
    _Column("ERRORS", _errors, 1, figures=True),
    _Column("P50", lambda one: seconds(one.p50), 5, figures=True, optional=True),
    _Column("P99", _slowest, 1, figures=True, optional=True),
    # A server without a histogram knows its mean alone, which is called a mean.
    _Column("MEAN", lambda one: seconds(one.mean if one.p99 is None else None), 2, figures=True, optional=True),
    _Column("WAITING", lambda one: rate(one.waiting), 7, figures=True),
    _Column("IN FLIGHT", lambda one: rate(one.inflight), 8, figures=True),
    _Column("GPU", lambda one: percent(one.gpu), 6, figures=True),
    _Column("OBJECTIVE", objective_in_words, 10),
    _Column("BUDGET", _budget, 4, figures=True),
    _Column("ALERTS", lambda one: Text(str(len(one.alerts)), "red") if one.alerts else Text(UNKNOWN), 11),
    _Column("COUNTED BY", lambda one: one.route or UNKNOWN, 9),
)


class Screen:
    """A view, drawn at the width there is."""

    def __init__(self, view: View, wanted: Wanted) -> None:
        self.view = view
        self.wanted = wanted

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The heading, the table, alerts, and what is missing."""
        yield Text(self._heading(), "dim", overflow="ellipsis", no_wrap=True)
        if self.view.models:
            yield self._table(options.max_width)
        else:
            yield Text("no models here")
        yield from self._below()

    def _heading(self) -> str:
        where = f"namespace {self.wanted.namespace}" if self.wanted.namespace else "all namespaces"
        shown = f"application {self.wanted.app} in {where}" if self.wanted.app else where
        by = f"Prometheus {self.view.prometheus}" if self.view.prometheus else "no Prometheus"
        return f"{time.strftime('%H:%M:%S', time.localtime(self.view.at))}  {shown}, {by}"

    def _table(self, width: int) -> Table:
        columns = [one for one in _COLUMNS if self._says_something(one)]
        cells = {one.title: [self._cell(one, model) for model in self.view.models] for one in columns}
        wide = {one.title: max(len(one.title), *(cell_len(cell.plain) for cell in cells[one.title])) for one in columns}

        def needed() -> int:
            name = min(wide["MODEL"], _SHORTEST_NAME)
            return name + sum(wide[one.title] for one in columns[1:]) + _GAP * (len(columns) - 1)

        while len(columns) > 1 and needed() > width:
            columns.remove(max(columns, key=lambda one: one.rank))
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", expand=False)
        room = width - needed() + min(wide["MODEL"], _SHORTEST_NAME)
        for one in columns:
            first = one.title == "MODEL"
            text = one.title in {"MODEL", "NAMESPACE", "APP", "OBJECTIVE", "COUNTED BY"}
            table.add_column(
                one.title,
                justify="left" if text else "right",
                no_wrap=True,
                overflow="ellipsis",
                width=min(wide[one.title], room) if first else wide[one.title],
            )
        names = [Text(shortened(cell.plain, room), cell.style) for cell in cells["MODEL"]]
        for row in zip(names, *(cells[one.title] for one in columns[1:]), strict=True):
            table.add_row(*row)
        return table

    def _says_something(self, column: _Column) -> bool:
        if column.title == "NAMESPACE":
            return self.wanted.namespace is None
        if column.title == "APP":
            return self.wanted.app is None
        empty = (UNKNOWN, "")
        return not column.optional or any(str(column.cell(one)) not in empty for one in self.view.models)

    def _cell(self, column: _Column, model: Model) -> Text:
        found = column.cell(model)
        cell = found if isinstance(found, Text) else Text(found)
        if column.figures and model.old and cell.plain != UNKNOWN:
            return Text(f"({cell.plain})", "dim")
        return cell

    def _below(self) -> Iterable[RenderableType]:
        several = len({one.namespace for one in self.view.models}) > 1
        names = {one: f"{one.namespace}/{one.version}" if several else one.version for one in self.view.models}
        firing = [(alert, name) for model, name in names.items() for alert in model.alerts]
        for alert, name in sorted(firing, key=lambda one: _SEVERITIES.get(one[0].severity, len(_SEVERITIES))):
            colour = {"critical": "bold red", "warning": "yellow"}.get(alert.severity, "")
            yield Text.assemble((f"{alert.severity or 'alert'}: ", colour), f"{alert.name} on {name}")
        for model, name in names.items():
            if not model.ready:
                yield Text(f"{name} is not Ready", "red")
            if model.old:
                yield Text(f"({name}: the figures are {span(model.age or 0)} old)", "yellow")
        for problem in self.view.problems:
            yield Text(problem.message, "red" if problem.severity == "error" else "yellow")
            if problem.hint:
                yield Text(f"    {problem.hint}", "cyan")


def shortened(name: str, most: int) -> str:
    """A name in so many characters: versions differ at its end, so the middle goes."""
    if len(name) <= most:
        return name
    end = most // 2
    return f"{name[: most - end - 1]}…{name[-end:]}"


def as_json(view: View) -> dict[str, object]:
    """For scripts: the keys of docs/monitoring.md. What is not known is null."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(view.at)),
        "prometheus": view.prometheus or None,
        "models": [_model_as_json(one) for one in view.models],
        "problems": [
            {"severity": one.severity, "message": one.message, "hint": one.hint or None} for one in view.problems
        ],
    }


def _model_as_json(model: Model) -> dict[str, object]:
    return {
        "namespace": model.namespace,
        "app": model.app,
        "component": model.component,
        "version": model.version,
        "ready": model.ready,
        "weightPercent": model.share.weight,
        "mirrored": model.share.mirrored,
        "revisions": [{"name": name, "weightPercent": weight} for name, weight in model.revisions.items()],
        "replicas": {"ready": model.replicas_ready, "wanted": model.replicas_wanted},
        "route": model.route,
        "routes": list(model.routes),
        "requestsPerSecond": model.requests,
        "errorRatio": model.errors,
        "latencySeconds": {"p50": model.p50, "p99": model.p99, "mean": model.mean},
        "inFlight": model.inflight,
        "waiting": model.waiting,
        "gpuUtilization": model.gpu,
        "objective": {
            "availabilityPercent": model.objective.availability,
            "latencyMilliseconds": model.objective.latency_milliseconds,
            "percentile": model.objective.percentile,
            "window": model.objective.window,
        }
        if model.objective
        else None,
        "budgetLeft": {kind: model.budgets.get(kind) for kind in ("availability", "latency")}
        if model.budgets
        else None,
        "alerts": [{"name": one.name, "severity": one.severity or None} for one in model.alerts],
        "ageSeconds": model.age,
        "stale": model.old,
    }
