"""The trait autoscale: the number of pods follows the load, by KEDA, Kubernetes' autoscaler or Knative's.

With KEDA the ScaledObject is ours: KServe's own can set neither polling, nor what an empty answer means, nor the
metric's type (pkg/controller/v1beta1/inferenceservice/reconcilers/keda). autoscalerClass external keeps KServe out.

Sources: KEDA docs, Prometheus scaler; Kubernetes pkg/controller/podautoscaler/replica_calculator.go (a metric shared by
the pods: ceil(metric / threshold), within a tolerance of 10 %); metric names: velagen/monitoring/sources.py.
"""

from __future__ import annotations

from _kserve import AUTOSCALER_CLASS, DEPLOYMENT_MODE, INFERENCE_SERVICE, KNATIVE, not_a_model
from _runtimes import SERVING_RUNTIMES, SHIPPED

from velagen import (
    Status,
    Trait,
    cases,
    choose,
    comment,
    conditions,
    context,
    first_given,
    floor,
    given,
    if_else,
    length,
    let,
    missing,
    one_of,
    refuse,
    retain_keys,
    when,
)
from velagen import parameter as p
from velagen.monitoring.sources import MILLISECONDS, SOURCES, Source

predictor = context.output.spec.predictor
companions = context.output.spec
noted = context.output.metadata.annotations
is_keda, is_hpa, is_kpa = p.engine == "keda", p.engine == "hpa", p.engine == "kpa"
mode_of_model = let(first_given(noted[DEPLOYMENT_MODE], ""))

least = let(first_given(p.minReplicas, predictor.minReplicas, 1))
window = p.window
quantile = let(first_given(p.percentile, 0.95))

#: Of the ServingRuntimes that KServe ships (config/runtimes), those whose server exports what a source reads; any other
#: name is a runtime of the user's own, of whose metrics nothing is known.
EXPORTS = {"triton": SERVING_RUNTIMES["triton"], "mlserver": SERVING_RUNTIMES["mlflow"]}
KNOWN_SERVERS = dict.fromkeys(SHIPPED, True)
server_of_model = let(first_given(predictor.model.runtime, ""))
is_known_server = let(choose(server_of_model, KNOWN_SERVERS, False))
exporter = let(choose(p.source, EXPORTS, ""))
from_server = one_of(p.source, "triton", "mlserver")
measures = is_keda & ~one_of(p.metric, "cpu", "custom")

# What is asked of Prometheus --------------------------------------------------------------------------------------

workload = f"{context.name}-predictor"
envoy_name = let(first_given(p.envoyCluster, f"{context.namespace}_{workload}_80"))
#: The labels that Prometheus' discovery of pods gives the servers' own metrics.
POD = f'namespace="{context.namespace}",pod=~"{workload}-.*"'
LABELS = {
    "istio": f'destination_workload="{workload}",destination_workload_namespace="{context.namespace}"',
    "envoy": f'envoy_cluster_name="{envoy_name}"',
    "triton": POD,
    "mlserver": POD,
}


def per_second(series: str, source: Source, where: str) -> str:
    """The growth of a counter in a second, over all pods."""
    return f"sum(rate({series}{{{selector(source, where)}}}[{window}]))"


def selector(source: Source, where: str) -> str:
    """What is asked for of this model alone."""
    return ",".join(part for part in (where, LABELS[source.name]) if part)


def requests(source: Source) -> str:
    """Answered requests in a second."""
    return per_second(source.answered.name, source, source.answered.where)


def concurrency(source: Source) -> str:
    """Little's law: arrival rate times mean time = the growth of the sum of all times, in seconds a second."""
    assert source.mean
    total = per_second(source.mean.total, source, source.mean.where)
    return total if source.mean.per_second == 1 else f"{total} / {source.mean.per_second}"


def latency(source: Source) -> str:
    """Milliseconds within which *quantile* of the requests are answered; of a server's own metrics, their mean.

    Without requests these are 0/0, not a number, which KEDA would take for one: the comparison drops it, and no answer
    keeps the pods as they are.
    """
    if source.route != "server":
        assert source.histogram
        assert source.histogram.per_second == MILLISECONDS
        buckets = f"{source.histogram.name}_bucket{{{selector(source, source.histogram.where)}}}"
        return f"histogram_quantile({quantile}, sum by (le) (rate({buckets}[{window}]))) >= 0"
    assert source.mean
    ratio = " / ".join(per_second(name, source, source.mean.where) for name in (source.mean.total, source.mean.count))
    if source.mean.per_second == 1:
        return f"{ratio} * {MILLISECONDS} >= 0"
    return f"{ratio} / {source.mean.per_second // MILLISECONDS} >= 0"


READ = [SOURCES[name] for name in LABELS]
QPS = {source.name: requests(source) for source in READ}
CONCURRENCY = {source.name: concurrency(source) for source in READ}
LATENCY = {source.name: latency(source) for source in READ}
measured = let(
    choose(
        p.metric,
        {
            "qps": choose(p.source, QPS),
            "latency": choose(p.source, LATENCY),
            "concurrency": choose(p.source, CONCURRENCY),
        },
        first_given(p.query, ""),
    ),
)
#: The article's formula, ceil(qps * 0.8 / target latency), with the latency in milliseconds and one pod a unit.
prom_query = let(
    if_else(p.policy == "article", f"{measured} * 0.8 / {first_given(p.targetLatencyMilliseconds, 1)}", measured),
)
pods_worth = let(
    choose(
        p.policy,
        {
            "article": "1",
            "littles-law": f"{first_given(p.concurrencyPerReplica, 1) * first_given(p.utilization, 0.8)}",
            "target": f"{first_given(p.target, 0)}",
        },
    ),
)
#: AverageValue: the pods share the metric, ceil(metric / threshold) of them are wanted. Value: the metric is what it is
#: whatever their number, and their number is changed by its ratio to the threshold.
metric_type = if_else(
    (p.metric == "latency") | ((p.metric == "custom") & (p.aggregation == "total")), "Value", "AverageValue"
)

conditions_seen = let(first_given(context.outputs.scaledObject.status.conditions, []))
#: KubeVela's status sees the properties as they were written, without defaults: engine may be absent there.
waits_for_keda = given(context.outputs.scaledObject.kind) & (length(conditions_seen) == 0)
not_scaling = let(
    conditions(conditions_seen, "Ready", "False", give=lambda condition: f"{first_given(condition.message, '')}")
)

# The trait --------------------------------------------------------------------------------------------------------

autoscale = Trait(
    name="autoscale",
    description="Lets the number of a model's pods follow its load.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    # All of these set the number of replicas too.
    conflicts_with=["autoscale", "scaler", "cpuscaler", "hpa", "keda-auto-scaler"],
    pod_disruptive=False,
    # KubeVela merges the patch before it looks at the checks: what another trait set must not clash before the check
    # that says so.
    patch={
        when(~is_kpa): {
            "metadata": {"annotations": {AUTOSCALER_CLASS: retain_keys(if_else(is_hpa, "hpa", "external"))}},
        },
        "spec": {
            "predictor": {
                when(~is_keda): {
                    "minReplicas": retain_keys(least),
                    "maxReplicas": retain_keys(p.maxReplicas),
                    "scaleMetric": retain_keys(choose(p.metric, {"qps": "rps", "concurrency": "concurrency"}, "cpu")),
                    when(given(p.target)): {"scaleTarget": retain_keys(floor(p.target))},
                },
            }
        },
    },
    outputs={
        when(is_keda): {
            "scaledObject": {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": f"{context.name}-autoscale"},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
                    "minReplicaCount": least,
                    "maxReplicaCount": p.maxReplicas,
                    "pollingInterval": first_given(p.pollingSeconds, 15),
                    "cooldownPeriod": first_given(p.scaleDownSeconds, 300),
                    "advanced": {
                        "horizontalPodAutoscalerConfig": {
                            "behavior": {
                                "scaleDown": {"stabilizationWindowSeconds": first_given(p.scaleDownSeconds, 300)}
                            }
                        }
                    },
                    when(p.metric == "cpu"): {
                        "triggers": [
                            {"type": "cpu", "metricType": "Utilization", "metadata": {"value": pods_worth}},
                        ]
                    },
                    when(p.metric != "cpu"): {
                        "triggers": [
                            {
                                "type": "prometheus",
                                "metricType": metric_type,
                                "metadata": {
                                    "serverAddress": p.prometheusAddress,
                                    "query": prom_query,
                                    "threshold": pods_worth,
                                    "ignoreNullValues": comment(
                                        "An empty answer is an error and keeps the pods: it does not mean no load.",
                                        "false",
                                    ),
                                },
                            }
                        ]
                    },
                },
            }
        }
    },
    checks=[
        not_a_model("autoscale"),
        refuse(
            given(noted[AUTOSCALER_CLASS]) | given(predictor.scaleMetric),
            "another trait already scales this component: write one autoscale",
        ),
        refuse(
            is_kpa & (mode_of_model != KNATIVE),
            "engine: kpa needs deploymentMode: knative on the component; in standard mode use engine: keda or hpa",
        ),
        refuse(
            ~is_kpa & (mode_of_model == KNATIVE),
            f"engine: {p.engine} scales Deployments, and this component has deploymentMode: knative: write engine: kpa",
        ),
        refuse(
            given(p.minReplicas) & given(predictor.minReplicas) & (p.minReplicas != predictor.minReplicas),
            f"minReplicas is {p.minReplicas} here and {predictor.minReplicas} on the component: write it once",
        ),
        refuse(
            given(predictor.maxReplicas) & (p.maxReplicas != predictor.maxReplicas),
            f"maxReplicas is {p.maxReplicas} here and {predictor.maxReplicas} on the component: write it once",
        ),
        refuse(
            least > p.maxReplicas,
            f"maxReplicas: {p.maxReplicas} is below the component's minReplicas ({least}): raise maxReplicas",
        ),
        refuse(
            is_keda & (given(companions.transformer.scaleMetric) | given(companions.explainer.scaleMetric)),
            "engine: keda keeps KServe's own autoscalers out, and scaleMetric of the transformer or explainer would do "
            "nothing: drop it, or write engine: hpa",
        ),
        refuse(
            (least == 0) & is_hpa,
            "minReplicas: 0 (scale to zero) is more than engine: hpa can do: write 1, or engine: kpa on "
            "deploymentMode: knative",
        ),
        refuse(
            (least == 0) & is_keda & (p.metric != "custom"),
            f"minReplicas: 0 (scale to zero) can't be had with metric: {p.metric}: where no pod runs there is nothing "
            "to measure; write 1, use engine: kpa on deploymentMode: knative, or metric: custom with a query that "
            "has an answer then",
        ),
        refuse(
            (p.policy == "target") & missing(p.target),
            "target is missing: write what one pod should bear (metric qps, concurrency: a number; cpu: percent; "
            "latency: milliseconds), or policy: article or littles-law",
        ),
        refuse(
            (p.policy != "target") & given(p.target),
            f"target is not used with policy: {p.policy}, which computes it: drop target",
        ),
        refuse(
            (p.policy == "article") & missing(p.targetLatencyMilliseconds),
            "targetLatencyMilliseconds is missing: policy: article divides by it",
        ),
        refuse(
            (p.policy != "article") & given(p.targetLatencyMilliseconds),
            "targetLatencyMilliseconds belongs to policy: article: drop it, or use metric: latency with target",
        ),
        refuse(
            (p.policy != "littles-law") & (given(p.concurrencyPerReplica) | given(p.utilization)),
            "concurrencyPerReplica and utilization belong to policy: littles-law: drop them",
        ),
        refuse(
            measures & from_server & is_known_server & (server_of_model != exporter),
            f"source: {p.source} has no metrics of this model, whose server {server_of_model} does not export them: "
            "triton is for runtime triton and onnx, mlserver for mlflow; write source: istio or envoy, which count the "
            "requests of any server, or metric: custom with a query of your own",
        ),
        refuse(
            given(p.percentile) & ((p.metric != "latency") | from_server),
            "percentile belongs to metric: latency from source: istio or envoy (triton and mlserver give a mean "
            "only): drop percentile, or write another source",
        ),
        refuse(
            given(p.envoyCluster) & ((p.source != "envoy") | ~measures),
            "envoyCluster belongs to source: envoy: drop envoyCluster, or write source: envoy",
        ),
        refuse(
            (p.metric == "custom") & missing(p.query),
            "query is missing: metric: custom needs a PromQL query",
        ),
        refuse((p.metric != "custom") & given(p.query), "query belongs to metric: custom: drop query"),
        refuse(
            ~is_keda & given(p.target) & (floor(p.target) < p.target),
            f"target must be a whole number with engine: {p.engine}",
        ),
        refuse(
            (p.metric == "cpu") & is_hpa & given(p.target) & (p.target > 100),
            "target must be at most 100 percent with metric: cpu and engine: hpa",
        ),
        refuse(
            ~is_keda & (given(p.pollingSeconds) | given(p.scaleDownSeconds)),
            "pollingSeconds and scaleDownSeconds belong to engine: keda: drop them",
        ),
    ],
    status=Status(
        # hpa and kpa have no object here. A ScaledObject without conditions has not been looked at yet.
        healthy=length(not_scaling) == 0,
        message=cases(
            (length(not_scaling) > 0, f"KEDA can't scale: {not_scaling[0]}"),
            (waits_for_keda, "KEDA has not looked at it yet"),
            otherwise=f"at most {p.maxReplicas} pods",
        ),
    ),
)
