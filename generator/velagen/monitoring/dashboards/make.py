"""Writes the dashboards' files: ``python -m velagen.monitoring.dashboards.make``, after a change here or of a record.

It needs grafana-foundation-sdk, Grafana's own typed builders. That is in the extra ``dev`` only: each of its releases
is for one version of Grafana, and a team that builds dashboards of its own may need another one. We use the one that
writes schema version 36. Grafana 8.5 reads that, which KubeVela's addon grafana installs (kubevela/catalog
addons/grafana/parameter.cue), and a later Grafana migrates an older dashboard when it loads it.

Panels query the records of `velagen.monitoring.rules`, kube-state-metrics and Prometheus' own ALERTS. Requests that are
counted in several places are never added up: the model's dashboard shows one route, the platform's the highest count.
"""

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

from velagen.monitoring.alerts import IDLE
from velagen.monitoring.dashboards import UIDS, path_of
from velagen.monitoring.rules import Rule, recording_rules
from velagen.monitoring.sources import CLUSTER

_SOURCE: Final = grafana.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: Grafana's names of units.
_RATIO, _SECONDS, _REQUESTS, _BYTES, _PLAIN = "percentunit", "s", "reqps", "bytes", "short"
#: Width of the whole dashboard, and heights, in Grafana's grid.
_WIDTH: Final = 24
_TALL, _LOW = 8, 4
_COMPONENT: Final = 'namespace="$namespace",app="$app",component="$component"'
_MODEL: Final = f'{_COMPONENT},version=~"$version"'
_NAMESPACES: Final = 'namespace=~"$namespace"'
_WHOSE: Final = "namespace, app, component, version"
_TITLE: Final = "{{namespace}}/{{version}}"
#: The alerts of `velagen.monitoring.alerts` that fire.
_FIRING: Final = 'alertstate="firing",alertname=~"Model.+|ClusterStateMissing"'
_HISTOGRAMS: Final = "Empty where who counts has no histogram, as Triton: see the mean, which is no percentile."
_CLUSTER: Final = "From kube-state-metrics."
_GPUS: Final = "From NVIDIA's DCGM exporter."

Panel = stat.Panel | table.Panel | timeseries.Panel
#: A query and how its lines are called: plain text with {{label}}.
Target = tuple[str, str]


def made() -> dict[str, str]:
    """The dashboards' JSON by name: same records, same bytes."""
    return {"model": _text(_model()), "platform": _text(_platform())}


# ---------------------------------------------------------------- a model


def _model() -> build.Dashboard:
    def of(record: str) -> str:
        """A record of the chosen model; where several count, of the chosen route."""
        by = {rule.labels.get("route") for rule in _records() if rule.record == record}
        return f"{record}{{{_MODEL}" + (',route="$route"}' if len(by) > 1 else "}")

    def lines(record: str, title: str = "{{version}}") -> Target:
        return of(record), title

    def percentiles(of_what: str) -> list[Target]:
        return [lines(f"{of_what}:{name}", f"{name.upper()} {{{{version}}}}") for name in ("p50", "p95", "p99")]

    def deployments(name: str) -> str:
        matchers = 'namespace="$namespace",deployment=~"${version}-predictor"'
        return f'label_replace({name}{{{matchers}}}, "version", "$1", "deployment", "(.+)-predictor")'

    scalers = 'namespace="$namespace",horizontalpodautoscaler=~"(keda-hpa-)?${version}-(autoscale|predictor)"'
    most = (
        f'label_replace({CLUSTER.scaler_most}{{{scalers}}}, "version", "$1", "horizontalpodautoscaler", '
        '"(?:keda-hpa-)?(.+)-(?:autoscale|predictor)")'
    )
    shares = f"{of('model:requests:rate1m')} / on () group_left () (sum({of('model:requests:rate1m')}) > 0)"
    firing = f'ALERTS{{{_FIRING},namespace="$namespace",version=~"$version"}}'
    columns = [
        ("Requests a second", of("model:requests:rate1m"), _REQUESTS),
        ("Errors", of("model:errors:ratio5m"), _RATIO),
        ("P50", of("model:latency_seconds:p50"), _SECONDS),
        ("P99", of("model:latency_seconds:p99"), _SECONDS),
        ("Mean", of("model:latency_seconds:mean"), _SECONDS),
        ("In flight", of("model:inflight"), _PLAIN),
        ("Batch, mean", of("model:batch_size:mean"), _PLAIN),
        ("Replicas", of("model:replicas"), _PLAIN),
        ("GPU use", of("model:gpu_utilization:avg"), _RATIO),
    ]
    return _dashboard(
        "model",
        "Model",
        "What one model does: requests, errors, latency, load, GPUs, and its versions side by side.",
        [
            _query("namespace", "label_values(model:info, namespace)"),
            _query("app", 'label_values(model:info{namespace="$namespace"}, app)'),
            _query("component", 'label_values(model:info{namespace="$namespace",app="$app"}, component)'),
            _several("version", f"label_values(model:info{{{_COMPONENT}}}, version)"),
            _query("route", f"label_values(model:requests:rate1m{{{_MODEL}}}, route)").description(
                "Who counts: the server itself, Knative's proxy, the gateway (envoy) or the mesh (istio). One request "
                "may be counted by several."
            ),
        ],
        {
            "": [
                _number("Requests", "Requests a second, over one minute.", _REQUESTS, lines("model:requests:rate1m")),
                _number(
                    "Errors",
                    "Share of requests that failed by the server's fault, over five minutes. Empty where who counts "
                    "does not tell them, and while nothing is asked.",
                    _RATIO,
                    lines("model:errors:ratio5m"),
                    worse=(0.01, 0.05),
                ),
                _number(
                    "Mean latency", "Over five minutes; no percentile.", _SECONDS, lines("model:latency_seconds:mean")
                ),
                _number("P99 latency", _HISTOGRAMS, _SECONDS, lines("model:latency_seconds:p99")),
                _number("Replicas", "Pods whose metrics answer.", _PLAIN, lines("model:replicas")),
                _number("Alerts", "Alerts that fire now.", _PLAIN, (f"count({firing}) or vector(0)", ""), worse=(1,)),
            ],
            "Versions side by side": [
                _table(
                    "Versions",
                    "One line a version, now.",
                    [(name, f"max by (version) ({expr})", unit) for name, expr, unit in columns],
                    keys=("version",),
                ),
                _graph(
                    "Share of traffic", "Of all requests of this model, by version.", _RATIO, (shares, "{{version}}")
                ),
            ],
            "Traffic": [
                _graph("Requests", "Requests a second, over one minute.", _REQUESTS, lines("model:requests:rate1m")),
                _graph(
                    "Errors",
                    "Requests a second that failed by the server's fault.",
                    _REQUESTS,
                    lines("model:errors:rate1m"),
                ),
                _graph(
                    "Error ratio",
                    "Share of requests that failed, over five minutes; no value while nothing is asked.",
                    _RATIO,
                    lines("model:errors:ratio5m"),
                ),
            ],
            "Latency": [
                _graph(
                    "Latency, percentiles",
                    f"Over five minutes. {_HISTOGRAMS}",
                    _SECONDS,
                    *percentiles("model:latency_seconds"),
                ),
                _graph(
                    "Latency, mean",
                    "Mean of all requests of five minutes: a mean, and no percentile.",
                    _SECONDS,
                    lines("model:latency_seconds:mean"),
                ),
                _graph(
                    "Time in the queue, mean",
                    "Mean time that a request waited in the server before it was worked on. Given by Triton and "
                    "TorchServe.",
                    _SECONDS,
                    lines("model:queue_seconds:mean"),
                ),
            ],
            "Load": [
                _graph(
                    "In flight",
                    "Requests in the system: a gauge where there is one, else arrival rate times mean time.",
                    _PLAIN,
                    lines("model:inflight"),
                ),
                _graph(
                    "Waiting",
                    "Requests that wait for their turn. Given by Triton and vLLM.",
                    _PLAIN,
                    lines("model:waiting"),
                ),
                _graph(
                    "Batch size, mean",
                    "Inferences an execution, over five minutes. Given by Triton.",
                    _PLAIN,
                    lines("model:batch_size:mean"),
                ),
                _graph(
                    "Replicas",
                    "Pods whose metrics answer, pods that are wanted, and the most that the autoscaler may ask for. "
                    f"The last two: {_CLUSTER[0].lower()}{_CLUSTER[1:]}",
                    _PLAIN,
                    lines("model:replicas", "answering {{version}}"),
                    (f"max by (version) ({deployments(CLUSTER.wanted)})", "wanted {{version}}"),
                    (f"max by (version) ({most})", "at most {{version}}"),
                ),
            ],
            "GPU": [
                _graph(
                    "GPUs", f"That its pods hold; of a shared one an equal part. {_GPUS}", _PLAIN, lines("model:gpus")
                ),
                _graph(
                    "GPU use",
                    f"Mean over the GPUs that its pods hold; of a shared one, all that use it. {_GPUS}",
                    _RATIO,
                    lines("model:gpu_utilization:avg"),
                ),
                _graph(
                    "GPU memory",
                    f"Used on the GPUs that its pods hold; of a shared one, all that use it. {_GPUS}",
                    _BYTES,
                    lines("model:gpu_memory_bytes:sum"),
                ),
            ],
            "Language models": [
                _graph("Tokens", "Generated tokens a second. Given by vLLM.", _PLAIN, lines("model:tokens:rate1m")),
                _graph(
                    "Time to first token",
                    "Percentiles over five minutes. Given by vLLM.",
                    _SECONDS,
                    *percentiles("model:first_token_seconds"),
                ),
            ],
            "Alerts": [
                _table(
                    "Alerts that fire",
                    "Empty while all is well.",
                    [("", f"max by (alertname, severity, version) ({firing})", _PLAIN)],
                    keys=("alertname", "severity", "version"),
                ),
            ],
        },
    )


# ---------------------------------------------------------------- the platform


def _platform() -> build.Dashboard:
    def of(record: str) -> str:
        """A record of each model: of those who count its requests the highest number, and no sum of them."""
        return f"max by ({_WHOSE}) ({record}{{{_NAMESPACES}}})"

    def top(record: str) -> Target:
        return f"topk(10, {of(record)})", _TITLE

    requests, errors = of("model:requests:rate1m"), of("model:errors:rate1m")
    told = f"sum({errors}) / (sum({requests} and {errors}) > 0)"
    gpus = f"model:gpus{{{_NAMESPACES}}}"
    idle = f"({gpus} and model:gpu_utilization:avg < {IDLE})"
    pending = f'{CLUSTER.unschedulable}{{{_NAMESPACES},pod=~".+-predictor-.+"}}'
    # Without a pod that waits there is no series: zero only where kube-state-metrics answers at all.
    none = f'{CLUSTER.available}{{{_NAMESPACES},deployment=~".+-predictor"}}'
    # An alert on the whole cluster has no namespace.
    firing = f'ALERTS{{{_FIRING},namespace=~"$namespace|"}}'

    def hours(series: str) -> str:
        """GPU hours in the time that is shown, of what is looked at once a minute."""
        return f"sum_over_time({series}[$__range:1m]) / 60"

    columns = [
        ("Requests a second", requests, _REQUESTS),
        ("Errors", of("model:errors:ratio5m"), _RATIO),
        ("P99", of("model:latency_seconds:p99"), _SECONDS),
        ("Mean", of("model:latency_seconds:mean"), _SECONDS),
        ("In flight", of("model:inflight"), _PLAIN),
        ("Replicas", of("model:replicas"), _PLAIN),
        ("GPUs", of("model:gpus"), _PLAIN),
        ("GPU use", of("model:gpu_utilization:avg"), _RATIO),
    ]
    spent = [
        ("GPU hours", f"sum by (namespace, app, component) ({hours(gpus)})", _PLAIN),
        ("Cost", f"sum by (namespace, app, component) ({hours(gpus)}) * $price", _PLAIN),
        ("Of it idle", f"sum by (namespace, app, component) ({hours(idle)}) * $price", _PLAIN),
    ]
    return _dashboard(
        "platform",
        "Models",
        "All models: requests, errors, alerts, and what their GPUs cost.",
        [
            _several("namespace", "label_values(model:info, namespace)"),
            build.TextBoxVariable("price")
            .label("Price of a GPU hour")
            .description("In any currency: costs are GPU hours times this number.")
            .default_value("1"),
        ],
        {
            "": [
                _number(
                    "Models",
                    "Components that have pods to scrape.",
                    _PLAIN,
                    (f"count(count by (namespace, app, component) (model:info{{{_NAMESPACES}}}))", ""),
                ),
                _number(
                    "Requests",
                    "Requests a second of all models; of a model that several count, the highest number.",
                    _REQUESTS,
                    (f"sum({requests})", ""),
                ),
                _number(
                    "Errors",
                    "Share of requests that failed, over one minute, of the models whose errors are told.",
                    _RATIO,
                    (told, ""),
                    worse=(0.01, 0.05),
                ),
                _number(
                    "Pods that wait",
                    f"Of models, for room or for a GPU. {_CLUSTER}",
                    _PLAIN,
                    (f"sum({pending}) or sum({none}) * 0", ""),
                    worse=(1,),
                ),
                _number(
                    "GPUs held",
                    f"By models, of all there are. {_GPUS}",
                    _PLAIN,
                    (f"sum({gpus})", "by models"),
                    ("cluster:gpus:free", "free"),
                    ("cluster:gpus:total", "of"),
                ),
                _number("Alerts", "Alerts that fire now.", _PLAIN, (f"count({firing}) or vector(0)", ""), worse=(1,)),
            ],
            "Models": [
                _table(
                    "All models",
                    "One line a version, now. A click on a version shows the model.",
                    columns,
                    keys=("namespace", "app", "component", "version"),
                    link=True,
                ),
            ],
            "Most and worst": [
                _graph("Requests", "The ten that are asked most.", _REQUESTS, top("model:requests:rate1m")),
                _graph("Error ratio", "The ten worst, over five minutes.", _RATIO, top("model:errors:ratio5m")),
                _graph("P99 latency", f"The ten slowest. {_HISTOGRAMS}", _SECONDS, top("model:latency_seconds:p99")),
                _graph(
                    "Mean latency",
                    "The ten slowest: a mean, and no percentile.",
                    _SECONDS,
                    top("model:latency_seconds:mean"),
                ),
            ],
            "GPUs": [
                _graph(
                    "GPUs",
                    f"Held by models, of these idle (used less than {IDLE:.0%}), free, and all. {_GPUS}",
                    _PLAIN,
                    (f"sum({gpus})", "held by models"),
                    (f"sum({idle}) or sum({gpus}) * 0", "of these idle"),
                    ("cluster:gpus:free", "free"),
                    ("cluster:gpus:total", "all"),
                ),
                _graph(
                    "GPU use",
                    f"The ten that use them least. {_GPUS}",
                    _RATIO,
                    (f"bottomk(10, {of('model:gpu_utilization:avg')})", _TITLE),
                ),
            ],
            "Cost": [
                _graph(
                    "Cost an hour",
                    "GPUs that are held, times the price of an hour.",
                    _PLAIN,
                    (f"sum by (namespace, app, component) ({gpus}) * $price", "{{namespace}}/{{component}}"),
                ),
                _table(
                    "Cost in the time shown",
                    f"GPUs that are held, used or not; idle is what is used less than {IDLE:.0%}.",
                    spent,
                    keys=("namespace", "app", "component"),
                ),
            ],
            "Pods that wait, and alerts": [
                _graph(
                    "Pods that wait",
                    f"Of models, for room or for a GPU. {_CLUSTER}",
                    _PLAIN,
                    (f"sum by (namespace) ({pending}) or sum by (namespace) ({none}) * 0", "{{namespace}}"),
                ),
                _table(
                    "Alerts that fire",
                    "Empty while all is well.",
                    [("", f"max by (alertname, severity, namespace, version) ({firing})", _PLAIN)],
                    keys=("alertname", "severity", "namespace", "version"),
                ),
            ],
        },
    )


# ---------------------------------------------------------------- parts


def _records() -> list[Rule]:
    return [rule for group in recording_rules() for rule in group.rules if isinstance(rule, Rule)]


def _dashboard(
    name: str,
    title: str,
    about: str,
    variables: Sequence[build.QueryVariable | build.TextBoxVariable],
    rows: Mapping[str, Sequence[Panel]],
) -> build.Dashboard:
    """Panels in rows by their titles, the first row, without a title, is seen at a glance."""
    made = (
        build.Dashboard(f"Serving / {title}")
        .uid(UIDS[name])
        .description(about)
        .tags(["kfserving"])
        .tooltip(grafana.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .link(
            build.DashboardLink("Serving")
            .type(grafana.DashboardLinkType.DASHBOARDS)
            .icon("external link")
            .tags(["kfserving"])
            .keep_time(True)
        )
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        made.with_variable(variable)
    for row, panels in rows.items():
        if row:
            made.with_row(build.Row(row))
        for panel in panels:
            made.with_panel(panel.span(_WIDTH // len(panels)))
    return made


def _text(made: build.Dashboard) -> str:
    """The JSON, with a number for each panel: Grafana would number them anew, and no link would hold."""
    content = made.build()
    for number, panel in enumerate(content.panels or [], 1):
        panel.id_val = number
    return json.dumps(content, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _query(name: str, query: str) -> build.QueryVariable:
    """A variable whose values Prometheus knows, of which one is chosen."""
    return (
        build.QueryVariable(name)
        .label(name.capitalize())
        .query(query)
        .datasource(_SOURCE)
        .refresh(grafana.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(grafana.VariableSort.ALPHABETICAL_ASC)
    )


def _several(name: str, query: str) -> build.QueryVariable:
    """The same, and any number of them."""
    return _query(name, query).multi(True).include_all(True)


def _targets(targets: Sequence[Target]) -> Iterator[prometheus.Dataquery]:
    for letter, (expr, title) in zip(ascii_uppercase, targets, strict=False):
        yield prometheus.Dataquery().expr(expr).legend_format(title).ref_id(letter).datasource(_SOURCE)


def _graph(title: str, about: str, unit: str, *targets: Target) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(_SOURCE)
        .height(_TALL)
        .unit(unit)
        .min(0)
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
    for target in _targets(targets):
        panel.with_target(target.range())
    return panel


def _number(title: str, about: str, unit: str, *targets: Target, worse: Sequence[float] = ()) -> stat.Panel:
    """Numbers of now over a small line. *worse*: from where on it is yellow, and from where on red."""
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
    steps = [
        grafana.Threshold(value=value, color=color)
        for value, color in zip((None, *worse), ("green", "yellow", "red"), strict=False)
    ]
    panel.thresholds(build.ThresholdsConfig().mode(grafana.ThresholdsMode.ABSOLUTE).steps(steps))
    for target in _targets(targets):
        panel.with_target(target.range())
    return panel


def _table(
    title: str,
    about: str,
    columns: Sequence[tuple[str, str, str]],
    *,
    keys: Sequence[str],
    link: bool = False,
) -> table.Panel:
    """A line for each set of *keys*, labels that all queries have. A column without a title does not show its number.

    With *link*, a version leads to the model's dashboard.
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
        url = f"/d/{UIDS['model']}?{chosen}&var-datasource=${{datasource}}&${{__url_time_range}}"
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


def main() -> None:
    """Write the files."""
    for name, text in made().items():
        path_of(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
