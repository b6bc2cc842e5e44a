"""How the dashboards look: their panels, rows and variables, in the words of `velagen.monitoring.dashboards.make`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: Grafana's names of units.
RATIO, SECONDS, REQUESTS, BYTES, PLAIN = "percentunit", "s", "reqps", "bytes", "short"
_SOURCE: Final = grafana.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: Width of the whole dashboard, and heights, in Grafana's grid.
_WIDTH: Final = 24
_TALL, _LOW = 8, 4
_TAG: Final = "kfserving"

Panel = stat.Panel | table.Panel | timeseries.Panel
Variable = build.QueryVariable | build.TextBoxVariable
#: A query and how its lines are called: plain text with {{label}}.
Target = tuple[str, str]
#: Of a table: its title, query and unit.
Column = tuple[str, str, str]


def dashboard_of(
    uid: str, title: str, about: str, variables: Sequence[Variable], rows: Mapping[str, Sequence[Panel]]
) -> str:
    """The JSON of panels in rows by their titles; the first row, without a title, is what is seen at a glance."""
    made = (
        build.Dashboard(f"Serving / {title}")
        .uid(uid)
        .description(about)
        .tags([_TAG])
        .tooltip(grafana.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .link(
            build.DashboardLink("Serving")
            .type(grafana.DashboardLinkType.DASHBOARDS)
            .icon("external link")
            .tags([_TAG])
            .keep_time(True)
        )
    )
    for variable in (build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"), *variables):
        made.with_variable(variable)
    for row, panels in rows.items():
        if row:
            made.with_row(build.Row(row))
        # Six or fewer in a line, or two lines of as many.
        line = len(panels) if len(panels) <= 6 else len(panels) // 2
        for panel in panels:
            made.with_panel(panel.span(_WIDTH // line))
    content = made.build()
    # Grafana 8 and 9 keep variables by id, which is the name where there is none (sharedReducer.ts, addVariable). The
    # library writes the same id for all, and the last would take the place of the others.
    for one in content.templating.list_val or []:
        one.id_val = one.name
    # Where a panel has no number Grafana gives it one, and no link to it would hold.
    for number, each in enumerate(content.panels or [], 1):
        each.id_val = number
    return json.dumps(content, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def one_of(name: str, query: str, about: str = "", *, part: str = "") -> build.QueryVariable:
    """A variable whose values Prometheus knows, of which one is chosen.

    Of each value the first group of *part*, a regular expression for all of it, where that is given.
    """
    variable = (
        build.QueryVariable(name)
        .label(name.capitalize())
        .query(query)
        .datasource(_SOURCE)
        .refresh(grafana.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(grafana.VariableSort.ALPHABETICAL_ASC)
    )
    if part:
        variable = variable.regex(f"/^{part}$/")
    return variable.description(about) if about else variable


def text_box(name: str, title: str, about: str, default: str) -> build.TextBoxVariable:
    """A variable that people write themselves."""
    return build.TextBoxVariable(name).label(title).description(about).default_value(default)


def some_of(name: str, query: str) -> build.QueryVariable:
    """The same, and any number of them."""
    return one_of(name, query).multi(True).include_all(True)


def _targets(targets: Sequence[Target]) -> Iterator[prometheus.Dataquery]:
    for letter, (expr, title) in zip(ascii_uppercase[: len(targets)], targets, strict=True):
        yield prometheus.Dataquery().expr(expr).legend_format(title).ref_id(letter).datasource(_SOURCE)


def graph(title: str, about: str, unit: str, *targets: Target, least: float | None = 0) -> timeseries.Panel:
    """Lines over time, from *least* on where that is given."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(_SOURCE)
        .height(_TALL)
        .unit(unit)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if least is not None:
        panel.min(least)
    for target in _targets(targets):
        panel.with_target(target.range())
    return panel


def numbers(
    title: str,
    about: str,
    unit: str,
    *targets: Target,
    steps: Sequence[float] = (),
    colours: Sequence[str] = ("green", "yellow", "red"),
) -> stat.Panel:
    """Numbers of now over a small line. From each of *steps* on they have the next of *colours*."""
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(_SOURCE)
        .height(_LOW)
        .unit(unit)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .graph_mode(BigValueGraphMode.AREA if len(targets) == 1 else BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.AUTO)
    )
    thresholds = [
        grafana.Threshold(value=value, color=colour) for value, colour in zip((None, *steps), colours, strict=False)
    ]
    panel.thresholds(build.ThresholdsConfig().mode(grafana.ThresholdsMode.ABSOLUTE).steps(thresholds))
    for target in _targets(targets):
        panel.with_target(target.range())
    return panel


def table_of(
    title: str,
    about: str,
    columns: Sequence[Column],
    *,
    keys: Sequence[str],
    link: str = "",
) -> table.Panel:
    """A line for each set of *keys*, labels that all queries have. A column without a title does not show its number.

    A version leads to the dashboard whose uid is *link*.
    """
    panel = (
        table.Panel().title(title).description(about).datasource(_SOURCE).height(_TALL).show_header(True).no_value("-")
    )
    # Grafana calls a single query's number Value, and those of several Value #A and so on.
    values = [f"Value #{letter}" if len(columns) > 1 else "Value" for letter in ascii_uppercase[: len(columns)]]
    for target in _targets([(expr, "") for _, expr, _ in columns]):
        panel.with_target(target.instant().format(PromQueryFormat.TABLE))
    for name, _, unit in columns:
        if name:
            panel.override_by_name(name, [grafana.DynamicConfigValue("unit", unit)])
    if link:
        chosen = "&".join(f"var-{key}=${{__data.fields.{key}}}" for key in keys)
        url = f"/d/{link}?{chosen}&var-datasource=${{datasource}}&${{__url_time_range}}"
        panel.override_by_name("version", [grafana.DynamicConfigValue("links", [{"title": "Model", "url": url}])])
    titles = dict(zip(values, (name for name, _, _ in columns), strict=True))
    return panel.with_transformation(grafana.DataTransformerConfig("merge", options={})).with_transformation(
        grafana.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"Time": True} | {value: True for value, name in titles.items() if not name},
                "indexByName": {name: index for index, name in enumerate([*keys, *values])},
                "renameByName": {value: name for value, name in titles.items() if name},
            },
        )
    )
