"""Writes the dashboards' files: ``python -m velagen.monitoring.dashboards.make``, after a change here or of a record.

It needs grafana-foundation-sdk, Grafana's own typed builders. That is in the extra ``dev`` only: each of its releases
is for one version of Grafana, and a team that builds dashboards of its own may need another one. We use the one that
writes schema version 36. Grafana 8.5 reads that, which KubeVela's addon grafana installs (kubevela/catalog
addons/grafana/parameter.cue), and a later Grafana migrates an older dashboard when it loads it.

Panels query the records of `velagen.monitoring.rules`, kube-state-metrics and Prometheus' own ALERTS. Requests that are
counted in several places are never added up: the model's dashboard shows one route, the platform's the highest count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from velagen.monitoring.alerts import IDLE
from velagen.monitoring.dashboards import UIDS, path_of
from velagen.monitoring.dashboards.parts import (
    BYTES,
    PLAIN,
    RATIO,
    REQUESTS,
    SECONDS,
    Column,
    Target,
    dashboard_of,
    graph,
    numbers,
    one_of,
    some_of,
    table_of,
    text_box,
)
from velagen.monitoring.objectives import ACHIEVED, BURN, LEFT, OBJECTIVE
from velagen.monitoring.rules import Rule, recording_rules
from velagen.monitoring.sources import CLUSTER

_COMPONENT: Final = 'namespace="$namespace",app="$app",component="$component"'
#: The step rollout-model brings a new version in as a component NAME-canary: it is a version of NAME's model.
_VERSIONS: Final = 'namespace="$namespace",app="$app",component=~"$component(-canary)?"'
_MODEL: Final = f'{_VERSIONS},version=~"$version"'
_NAMESPACES: Final = 'namespace=~"$namespace"'
_WHOSE: Final = "namespace, app, component, version"
_OBJECTIVE: Final = ("namespace", "app", "component", "slo", "route")
_TITLE: Final = "{{namespace}}/{{version}}"
#: The alerts of `velagen.monitoring.alerts` that fire.
#: What is told of a rollout's state (velagen.monitoring.sources.ROLLOUT_LABELS).
_ROLLOUT: Final = ("phase", "weight", "check")
_FIRING: Final = 'alertstate="firing",alertname=~"Model.+|ClusterStateMissing"'
_HISTOGRAMS: Final = "Empty if the route has no histogram, as Triton itself: see the mean, which is not a percentile."
_BUDGETS: Final = "Needs the trait slo. At 0 % the error budget is used up; below that it is overspent."
_CLUSTER: Final = "From kube-state-metrics."
_GPUS: Final = "From NVIDIA's DCGM exporter."


def made() -> dict[str, str]:
    """The dashboards' JSON by name: same records, same bytes."""
    return {"model": _model(), "platform": _platform()}


# ---------------------------------------------------------------- a model


def _model() -> str:
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
    # An alert is about a version, or about all of a component.
    firing = " or ".join(
        f'ALERTS{{{_FIRING},namespace="$namespace",{whose}}}'
        for whose in ('version=~"$version"', 'app="$app",component=~"$component(-canary)?"')
    )
    left = [(f"{LEFT}{{{_COMPONENT}}}", "{{slo}}")]
    rollout = f'{CLUSTER.rollout}{{namespace="$namespace",label_rollout_velagen_component="$component"}}'
    for told in _ROLLOUT:
        rollout = f'label_replace({rollout}, "{told}", "$1", "label_rollout_velagen_{told}", "(.+)")'
    columns = [
        ("Requests a second", of("model:requests:rate1m"), REQUESTS),
        ("Errors", of("model:errors:ratio5m"), RATIO),
        ("P50", of("model:latency_seconds:p50"), SECONDS),
        ("P99", of("model:latency_seconds:p99"), SECONDS),
        ("Mean", of("model:latency_seconds:mean"), SECONDS),
        ("In flight", of("model:inflight"), PLAIN),
        ("Batch, mean", of("model:batch_size:mean"), PLAIN),
        ("Replicas", of("model:replicas"), PLAIN),
        ("GPU use", of("model:gpu_utilization:avg"), RATIO),
    ]
    return dashboard_of(
        UIDS["model"],
        "Model",
        "What one model does: requests, errors, latency, load, GPUs, and its versions side by side.",
        [
            one_of("namespace", "label_values(model:info, namespace)"),
            one_of("app", 'label_values(model:info{namespace="$namespace"}, app)'),
            one_of(
                "component",
                'label_values(model:info{namespace="$namespace",app="$app"}, component)',
                part="(.+?)(?:-canary)?",
            ),
            some_of("version", f"label_values(model:info{{{_VERSIONS}}}, version)"),
            # In the order of the alphabet the first is the nearest to the client: envoy, istio, knative, server.
            one_of(
                "route",
                f"label_values(model:requests:rate1m{{{_MODEL}}}, route)",
                "Who counts the requests: the gateway (envoy), the mesh (istio), Knative's proxy, or the server. One "
                "request may be counted by several.",
            ),
        ],
        {
            "": [
                numbers("Requests", "Requests a second, over one minute.", REQUESTS, lines("model:requests:rate1m")),
                numbers(
                    "Errors",
                    "Share of requests that failed because of the server, over five minutes. Empty if the route does "
                    "not count errors, and while there are no requests.",
                    RATIO,
                    lines("model:errors:ratio5m"),
                    steps=(0.01, 0.05),
                ),
                numbers(
                    "Mean latency",
                    "Over five minutes. A mean is not a percentile.",
                    SECONDS,
                    lines("model:latency_seconds:mean"),
                ),
                numbers("P99 latency", _HISTOGRAMS, SECONDS, lines("model:latency_seconds:p99")),
                numbers("In flight", "Requests in the system.", PLAIN, lines("model:inflight")),
                numbers("Replicas", "Pods whose metrics can be read.", PLAIN, lines("model:replicas")),
                numbers(
                    "Error budget left", _BUDGETS, RATIO, *left, steps=(0, 0.25), colours=("red", "yellow", "green")
                ),
                numbers("Alerts", "Alerts that are firing.", PLAIN, (f"count({firing}) or vector(0)", ""), steps=(1,)),
            ],
            "Versions side by side": [
                table_of(
                    "Versions",
                    "One row per version, now.",
                    [(name, f"max by (version) ({expr})", unit) for name, expr, unit in columns],
                    keys=("version",),
                ),
                table_of(
                    "Rollout",
                    "Of the step rollout-model: its phase, the new version's weight in per cent, and what the last "
                    "check said. Needs kube-state-metrics with --metric-labels-allowlist.",
                    [("", f"max by ({', '.join(_ROLLOUT)}) ({rollout})", PLAIN)],
                    keys=_ROLLOUT,
                ),
                graph(
                    "Share of traffic", "Each version's share of the model's requests.", RATIO, (shares, "{{version}}")
                ),
            ],
            "Objectives": [
                table_of(
                    "Objectives",
                    f"Of the component, all its versions together. {_BUDGETS}",
                    _objectives(("slo", "route"), _COMPONENT),
                    keys=("slo", "route"),
                ),
                graph("Error budget left", _BUDGETS, RATIO, *left, least=None),
                graph(
                    "Burn rate",
                    "At 1 the budget lasts exactly for its window, at 2 for half of it. Needs the trait slo.",
                    PLAIN,
                    *((f"{BURN}{window}{{{_COMPONENT}}}", f"{{{{slo}}}} over {window}") for window in ("1h", "6h")),
                ),
            ],
            "Traffic": [
                graph("Requests", "Requests a second, over one minute.", REQUESTS, lines("model:requests:rate1m")),
                graph(
                    "Errors",
                    "Requests a second that failed because of the server.",
                    REQUESTS,
                    lines("model:errors:rate1m"),
                ),
                graph(
                    "Error ratio",
                    "Share of requests that failed, over five minutes; no value while there are no requests.",
                    RATIO,
                    lines("model:errors:ratio5m"),
                ),
            ],
            "Latency": [
                graph(
                    "Latency, percentiles",
                    f"Over five minutes. {_HISTOGRAMS}",
                    SECONDS,
                    *percentiles("model:latency_seconds"),
                ),
                graph(
                    "Latency, mean",
                    "Mean of all requests of five minutes. A mean is not a percentile.",
                    SECONDS,
                    lines("model:latency_seconds:mean"),
                ),
                graph(
                    "Time in the queue, mean",
                    "Mean time that a request waited in the server before it was processed. Only Triton and TorchServe "
                    "report it.",
                    SECONDS,
                    lines("model:queue_seconds:mean"),
                ),
            ],
            "Load": [
                graph(
                    "In flight",
                    "Requests in the system: a gauge where there is one, else arrival rate times mean time.",
                    PLAIN,
                    lines("model:inflight"),
                ),
                graph(
                    "Waiting",
                    "Requests that wait for their turn. Only Triton and vLLM report it.",
                    PLAIN,
                    lines("model:waiting"),
                ),
                graph(
                    "Batch size, mean",
                    "Inferences per execution, over five minutes. Only Triton reports it.",
                    PLAIN,
                    lines("model:batch_size:mean"),
                ),
                graph(
                    "Replicas",
                    "Pods whose metrics can be read. kube-state-metrics tells the wanted pods and the maximum.",
                    PLAIN,
                    lines("model:replicas", "answering {{version}}"),
                    (f"max by (version) ({deployments(CLUSTER.wanted)})", "wanted {{version}}"),
                    (f"max by (version) ({most})", "at most {{version}}"),
                ),
            ],
            "GPU": [
                graph(
                    "GPUs",
                    f"GPUs that its pods hold; a shared GPU counts in equal parts. {_GPUS}",
                    PLAIN,
                    lines("model:gpus"),
                ),
                graph(
                    "GPU use",
                    f"Mean over the GPUs that its pods hold; for a shared GPU, of all that use it. {_GPUS}",
                    RATIO,
                    lines("model:gpu_utilization:avg"),
                ),
                graph(
                    "GPU memory",
                    f"Used on the GPUs that its pods hold; for a shared GPU, by all that use it. {_GPUS}",
                    BYTES,
                    lines("model:gpu_memory_bytes:sum"),
                ),
            ],
            "Language models": [
                graph(
                    "Tokens", "Generated tokens a second. Only vLLM reports it.", PLAIN, lines("model:tokens:rate1m")
                ),
                graph(
                    "Time to first token",
                    "Percentiles over five minutes. Only vLLM reports it.",
                    SECONDS,
                    *percentiles("model:first_token_seconds"),
                ),
            ],
            "Alerts": [
                table_of(
                    "Firing alerts",
                    "Empty while all is well.",
                    [("", f"max by (alertname, severity, version) ({firing})", PLAIN)],
                    keys=("alertname", "severity", "version"),
                ),
            ],
        },
    )


# ---------------------------------------------------------------- the platform


def _platform() -> str:
    def of(record: str) -> str:
        """A record of each model: of those who count its requests the highest number, and no sum of them."""
        return f"max by ({_WHOSE}) ({record}{{{_NAMESPACES}}})"

    def top(record: str) -> Target:
        return f"topk(10, {of(record)})", _TITLE

    requests, errors = of("model:requests:rate1m"), of("model:errors:rate1m")
    told = f"sum({errors}) / (sum({requests} and {errors}) > 0)"
    gpus = f"model:gpus{{{_NAMESPACES}}}"
    idle = f"({gpus} and model:gpu_utilization:avg < {IDLE})"
    # Zero only where an exporter tells of GPUs at all.
    no_gpu = "cluster:gpus:total * 0"
    pending = f'{CLUSTER.unschedulable}{{{_NAMESPACES},pod=~".+-predictor-.+"}}'
    # Without a pod that waits there is no series: zero only where kube-state-metrics answers at all.
    none = f'{CLUSTER.available}{{{_NAMESPACES},deployment=~".+-predictor"}}'
    # An alert on the whole cluster has no namespace.
    firing = f'ALERTS{{{_FIRING},namespace=~"$namespace|"}}'

    def hours(series: str) -> str:
        """GPU hours in the time that is shown, of what is looked at once a minute."""
        return f"sum_over_time({series}[$__range:1m]) / 60"

    columns = [
        ("Requests a second", requests, REQUESTS),
        ("Errors", of("model:errors:ratio5m"), RATIO),
        ("P99", of("model:latency_seconds:p99"), SECONDS),
        ("Mean", of("model:latency_seconds:mean"), SECONDS),
        ("In flight", of("model:inflight"), PLAIN),
        ("Replicas", of("model:replicas"), PLAIN),
        ("GPUs", of("model:gpus"), PLAIN),
        ("GPU use", of("model:gpu_utilization:avg"), RATIO),
    ]
    spent = [
        ("GPU hours", f"sum by (namespace, app, component) ({hours(gpus)})", PLAIN),
        ("Cost", f"sum by (namespace, app, component) ({hours(gpus)}) * $price", PLAIN),
        ("Of it idle", f"sum by (namespace, app, component) ({hours(idle)}) * $price", PLAIN),
    ]
    return dashboard_of(
        UIDS["platform"],
        "Models",
        "All models: requests, errors, alerts, and what their GPUs cost.",
        [
            some_of("namespace", "label_values(model:info, namespace)"),
            text_box("price", "Price of a GPU hour", "In any currency: costs are GPU hours times this number.", "1"),
        ],
        {
            "": [
                numbers(
                    "Models",
                    "Components that have pods to scrape.",
                    PLAIN,
                    (f"count(count by (namespace, app, component) (model:info{{{_NAMESPACES}}}))", ""),
                ),
                numbers(
                    "Requests",
                    "Requests a second of all models. Where several routes count a model, the highest count.",
                    REQUESTS,
                    (f"sum({requests})", ""),
                ),
                numbers(
                    "Errors",
                    "Share of requests that failed, over one minute, of the models whose errors are counted.",
                    RATIO,
                    (told, ""),
                    steps=(0.01, 0.05),
                ),
                numbers(
                    "Replicas", "Pods whose metrics can be read.", PLAIN, (f"sum(model:replicas{{{_NAMESPACES}}})", "")
                ),
                numbers(
                    "Budgets spent",
                    "Objectives with no error budget left. Needs the trait slo.",
                    PLAIN,
                    (f"count({LEFT}{{{_NAMESPACES}}} <= 0) or count({LEFT}{{{_NAMESPACES}}}) * 0", ""),
                    steps=(1,),
                ),
                numbers(
                    "Pending pods",
                    f"Model pods that can't be scheduled: no node has room, or no GPU is free. {_CLUSTER}",
                    PLAIN,
                    (f"sum({pending}) or sum({none}) * 0", ""),
                    steps=(1,),
                ),
                numbers(
                    "GPUs held",
                    f"Held by models, free, and in total. {_GPUS}",
                    PLAIN,
                    (f"sum({gpus}) or {no_gpu}", "by models"),
                    ("cluster:gpus:free", "free"),
                    ("cluster:gpus:total", "in total"),
                ),
                numbers("Alerts", "Alerts that are firing.", PLAIN, (f"count({firing}) or vector(0)", ""), steps=(1,)),
            ],
            "Models": [
                table_of(
                    "All models",
                    "One row per version, now. Click on a version to see its model.",
                    columns,
                    keys=("namespace", "app", "component", "version"),
                    link=UIDS["model"],
                ),
            ],
            "Busiest and worst": [
                graph("Requests", "The ten with the most requests.", REQUESTS, top("model:requests:rate1m")),
                graph("Error ratio", "The ten worst, over five minutes.", RATIO, top("model:errors:ratio5m")),
                graph("P99 latency", f"The ten slowest. {_HISTOGRAMS}", SECONDS, top("model:latency_seconds:p99")),
                graph(
                    "Mean latency",
                    "The ten slowest. A mean is not a percentile.",
                    SECONDS,
                    top("model:latency_seconds:mean"),
                ),
            ],
            "Objectives": [
                table_of(
                    "Objectives",
                    f"Of components, all their versions together. {_BUDGETS}",
                    _objectives(_OBJECTIVE, _NAMESPACES),
                    keys=_OBJECTIVE,
                ),
            ],
            "GPUs": [
                graph(
                    "GPUs",
                    f"Held by models, idle among these (less than {IDLE:.0%} used), free, and all. {_GPUS}",
                    PLAIN,
                    (f"sum({gpus}) or {no_gpu}", "held by models"),
                    (f"sum({idle}) or {no_gpu}", "of these idle"),
                    ("cluster:gpus:free", "free"),
                    ("cluster:gpus:total", "all"),
                ),
                graph(
                    "GPU use",
                    f"The ten that use them least. {_GPUS}",
                    RATIO,
                    (f"bottomk(10, {of('model:gpu_utilization:avg')})", _TITLE),
                ),
            ],
            "Cost": [
                graph(
                    "Cost an hour",
                    "GPUs that are held, times the price of an hour.",
                    PLAIN,
                    (f"sum by (namespace, app, component) ({gpus}) * $price", "{{namespace}}/{{component}}"),
                ),
                table_of(
                    "Cost in the time shown",
                    f"GPUs that are held, used or not. Idle: less than {IDLE:.0%} used.",
                    spent,
                    keys=("namespace", "app", "component"),
                ),
            ],
            "Pending pods and alerts": [
                graph(
                    "Pending pods",
                    f"Model pods that can't be scheduled: no node has room, or no GPU is free. {_CLUSTER}",
                    PLAIN,
                    (f"sum by (namespace) ({pending}) or sum by (namespace) ({none}) * 0", "{{namespace}}"),
                ),
                table_of(
                    "Firing alerts",
                    "Empty while all is well.",
                    [("", f"max by (alertname, severity, namespace, component, version) ({firing})", PLAIN)],
                    keys=("alertname", "severity", "namespace", "component", "version"),
                ),
            ],
        },
    )


def _records() -> list[Rule]:
    return [rule for group in recording_rules() for rule in group.rules if isinstance(rule, Rule)]


def _objectives(keys: Sequence[str], where: str) -> list[Column]:
    """The columns of a table of objectives."""
    columns = {"Objective": OBJECTIVE, "Achieved": ACHIEVED, "Budget left": LEFT, "Burn rate of 1 h": f"{BURN}1h"}
    return [
        (title, f"max by ({', '.join(keys)}) ({name}{{{where}}})", PLAIN if "Burn" in title else RATIO)
        for title, name in columns.items()
    ]


def main() -> None:
    """Write the files."""
    for name, text in made().items():
        path_of(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
