"""The trait slo: an objective of a model, and rules for Prometheus that say how much of its error budget is left.

The rules are those of `velagen.monitoring.objectives`, written of this trait's properties; velagen metrics rules --app
prints them. What is common to all models the addon's own rules compute.

Sources: Google's Site Reliability Workbook, chapter 5 (alerting on burn rates); prometheus-operator v0.85.0
(PrometheusRule); what counts, and at which bounds: velagen/monitoring/sources.py.
"""

from __future__ import annotations

from _kserve import DEPLOYMENT_MODE, INFERENCE_SERVICE, KNATIVE, not_a_model
from _runtimes import SERVING_RUNTIMES

from velagen import (
    Status,
    Trait,
    as_string,
    cases,
    choose,
    context,
    each,
    first_given,
    given,
    length,
    let,
    maximum,
    missing,
    optional,
    otherwise,
    refuse,
    to_yaml,
    when,
)
from velagen import parameter as p
from velagen.monitoring.objectives import Objective, Slo, bounds, of_component
from velagen.monitoring.objects import API
from velagen.monitoring.sources import SOURCES
from velagen.template.expression import Value

predictor = context.output.spec.predictor
mode_of_model = let(first_given(context.output.metadata.annotations[DEPLOYMENT_MODE], ""))
is_knative = mode_of_model == KNATIVE
server = let(first_given(predictor.model.runtime, ""))
at_server = p.route == "server"
quick_percent = let(first_given(p.percentile, 99))
threshold = let(first_given(p.latencyMilliseconds, 0))

# What each counts -------------------------------------------------------------------------------------------------

#: The sources of the servers' own metrics; the Hugging Face server gives two, as its backend is.
OF_RUNTIME = {
    "triton": ("triton",),
    "mlflow": ("mlserver",),
    "sklearn": ("kserve",),
    "xgboost": ("kserve",),
    "lightgbm": ("kserve",),
    "huggingface": ("kserve", "vllm"),
    "vllm": ("vllm",),
    "pytorch": ("torchserve",),
}
SERVERS = {SERVING_RUNTIMES[name]: [SOURCES[one] for one in sources] for name, sources in OF_RUNTIME.items()}
KNOWN = dict.fromkeys(SERVERS, True)
TELLS_ERRORS = {name: True for name, sources in SERVERS.items() if all(one.errors for one in sources)}
GATEWAYS = ("envoy", "istio", "knative")
LE = {name: bounds(SOURCES[name]) for name in GATEWAYS}
#: At the bounds that all of a server's sources have.
LE_OF_SERVER = {
    name: {key: le for key, le in bounds(first).items() if all(key in bounds(one) for one in others)}
    for name, (first, *others) in SERVERS.items()
}
LE["server"] = {key: le for table in LE_OF_SERVER.values() for key, le in table.items()}


def numbers(table: dict[str, str]) -> Value:
    """The bounds as numbers."""
    return [float(one) if "." in one else int(one) for one in table]


is_known = let(choose(server, KNOWN, False))
tells_errors = let(choose(server, TELLS_ERRORS, False))
bounds_of_server = choose(server, {name: numbers(table) for name, table in LE_OF_SERVER.items()}, [])
counted_at = let(choose(p.route, {name: numbers(LE[name]) for name in GATEWAYS}, bounds_of_server))
is_bound = length([each(counted_at, lambda bound: bound, where=lambda bound: bound == threshold)]) > 0
below = let([each(counted_at, lambda bound: bound, where=lambda bound: bound < threshold)])
above = let([each(counted_at, lambda bound: bound, where=lambda bound: bound > threshold)])
next_below = let(cases((length(below) > 0, maximum(below)), otherwise=0))
next_above = let(first_given(above[0], 0))
bound = let(choose(p.route, {name: choose(as_string(threshold), table, "") for name, table in LE.items()}))

#: gRPC alone has one port, and it is called h2c.
first_port = let(first_given(predictor.model.ports[0].name, ""))
SEES_REST_ALONE = {name: True for name, (one, *_) in SERVERS.items() if one.histogram and one.histogram.only}
misses_grpc = let(choose(server, SEES_REST_ALONE, False))

# The rules --------------------------------------------------------------------------------------------------------


def objective(slo: Slo, percent: Value) -> Objective:
    """One of the two that may be promised."""
    return Objective(
        app=f"{context.appName}",
        component=f"{context.name}",
        namespace=f"{context.namespace}",
        slo=slo,
        route=f"{p.route}",
        percent=f"{percent}",
        window=f"{p.window}",
        milliseconds=f"{threshold}",
        bound=f"{bound}",
    )


def group() -> Value:
    """The component's group of rules, each objective's where it is promised."""
    own = {"app": f"{context.appName}", "component": f"{context.name}", "namespace": f"{context.namespace}"}
    content = of_component(**own, objectives=[]).content()
    promised = {
        "availability": (given(p.availability), objective("availability", p.availability)),
        "latency": (given(p.latencyMilliseconds), objective("latency", quick_percent)),
    }
    rules = [when(wanted, rule.content()) for wanted, one in promised.values() for rule in one.rules()]
    return {**content, "rules": [*rules, *content["rules"]]}


rule_groups = let([group()])
metadata = {"name": f"{context.name}-slo", "labels": optional(p.labels)}

promised_availability = f"{p.availability} % of requests succeed"
promised_latency = f"{first_given(p.percentile, 99)} % within {threshold} ms"

slo = Trait(
    name="slo",
    description="Promises what share of a model's requests succeeds, and how fast, and rings while the budget burns.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["slo"],
    pod_disruptive=False,
    outputs={
        when(p.prometheusRule): {
            "slo": {"apiVersion": API, "kind": "PrometheusRule", "metadata": metadata, "spec": {"groups": rule_groups}}
        },
        otherwise(): {
            "slo": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {f"{context.name}-slo.rules.yaml": to_yaml({"groups": rule_groups})},
            }
        },
    },
    checks=[
        not_a_model("slo"),
        refuse(
            given(context.outputs.slo),
            "another slo already promises something of this component: write one slo, with availability and "
            "latencyMilliseconds",
        ),
        refuse(
            missing(p.availability) & missing(p.latencyMilliseconds),
            "slo promises nothing: write availability: 99.9, latencyMilliseconds: 250, or both",
        ),
        refuse(
            given(p.percentile) & missing(p.latencyMilliseconds),
            "percentile is of the latency: write latencyMilliseconds too, or drop percentile",
        ),
        refuse(
            is_knative & (p.route == "envoy"),
            "route: envoy counts by the Services of standard mode, and this component has deploymentMode: knative: "
            "write route: knative or istio",
        ),
        refuse(
            ~is_knative & (p.route == "knative"),
            "route: knative needs deploymentMode: knative on the component: write route: envoy, istio or server",
        ),
        refuse(
            at_server & ~is_known,
            f"route: server needs a server whose metrics are known, and of {server} nothing is: write route: envoy or "
            "istio (knative in that mode), which count the requests of any server",
        ),
        refuse(
            at_server & is_known & given(p.availability) & ~tells_errors,
            f"availability: {server} does not tell requests that failed: write route: envoy or istio (knative in that "
            "mode), or drop availability",
        ),
        refuse(
            at_server & is_known & given(p.latencyMilliseconds) & (length(counted_at) == 0),
            f"latencyMilliseconds: {server} gives the mean of its times alone, and no percentile can be told from a "
            "mean: write route: envoy or istio (knative in that mode), or drop latencyMilliseconds",
        ),
        refuse(
            at_server & given(p.latencyMilliseconds) & misses_grpc & (first_port == "h2c"),
            f"latencyMilliseconds: {server} times REST alone, and this component answers gRPC: write route: envoy or "
            "istio (knative in that mode), or drop latencyMilliseconds",
        ),
        refuse(
            given(p.latencyMilliseconds) & (length(counted_at) > 0) & ~is_bound,
            f"latencyMilliseconds: {threshold} is not a bucket boundary of the histogram that is counted here: write "
            + cases(
                (length(below) == 0, f"{next_above}"),
                (length(above) == 0, f"{next_below}"),
                otherwise=f"{next_below} or {next_above}",
            ),
        ),
    ],
    status=Status(
        message=cases(
            (given(p.availability) & given(p.latencyMilliseconds), f"{promised_availability}, {promised_latency}"),
            (given(p.availability), promised_availability),
            otherwise=promised_latency,
        ),
    ),
)
