"""The trait autoscale: the number of pods follows the load, by KEDA, Kubernetes' autoscaler or Knative's.

With KEDA the ScaledObject is ours: KServe's own can set neither polling, nor what an empty answer means, nor the
metric's type (pkg/controller/v1beta1/inferenceservice/reconcilers/keda). autoscalerClass external keeps KServe out.

Sources: KEDA docs, Prometheus and cron scalers; KEDA apis/keda/v1alpha1/scaledobject_types.go (fallback); Kubernetes
pkg/controller/podautoscaler/replica_calculator.go (a metric shared by the pods: ceil(metric / threshold), within a
tolerance of 10 %).
"""

from __future__ import annotations

from _autoscale_queries import (
    CACHE,
    MEANS,
    OF_SERVERS,
    QUEUE,
    asked,
    is_given,
    metric_type,
    pods_worth,
    query,
    workload,
)
from _kserve import AUTOSCALER_CLASS, DEPLOYMENT_MODE, INFERENCE_SERVICE, KNATIVE, not_a_model
from _runtimes import SERVING_RUNTIMES, SHIPPED

from velagen import (
    Reference,
    Status,
    Trait,
    Value,
    as_string,
    cases,
    choose,
    comment,
    conditions,
    context,
    each,
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
from velagen.autoscaling import POLLING_SECONDS, SCALE_DOWN_SECONDS
from velagen.template.body import Refusal

PARTS = ("predictor", "transformer", "explainer")
#: The ScaledObject's name among the trait's outputs, by part.
OUTPUTS = {"predictor": "scaledObject", "transformer": "transformerScaledObject", "explainer": "explainerScaledObject"}

spec = context.output.spec
noted = context.output.metadata.annotations
is_keda, is_hpa, is_kpa = p.engine == "keda", p.engine == "hpa", p.engine == "kpa"
mode_of_model = let(first_given(noted[DEPLOYMENT_MODE], ""))
is_by_clock = p.metric == "schedule"


def of_part(part: str) -> Reference:
    """What the component made of a part of the service."""
    found: Reference = getattr(spec, part)
    return found


least = let(
    cases(
        *(
            (p.part == part, first_given(p.minReplicas, of_part(part).minReplicas, 1))
            for part in PARTS
            if part != "predictor"
        ),
        otherwise=first_given(p.minReplicas, spec.predictor.minReplicas, 1),
    )
)

#: Of the ServingRuntimes that KServe ships (config/runtimes), those whose server exports what a source reads; any other
#: name is a runtime of the user's own, of whose metrics nothing is known.
_OF_KSERVE = (
    *("sklearnserver", "xgbserver", "lgbserver", "huggingfaceserver", "huggingfaceserver-multinode"),
    *("autogluonserver", "paddleserver", "pmmlserver", "predictiveserver"),
)
_OF_VLLM = ("vllmserver", "huggingfaceserver", "huggingfaceserver-multinode")
EXPORTS = {
    "triton": [SERVING_RUNTIMES["triton"]],
    "mlserver": [SERVING_RUNTIMES["mlflow"]],
    "vllm": [f"kserve-{name}" for name in _OF_VLLM],
    "kserve": [f"kserve-{name}" for name in _OF_KSERVE],
    "torchserve": [SERVING_RUNTIMES["pytorch"]],
    "tensorflow": [SERVING_RUNTIMES["tensorflow"]],
}
KNOWN_SERVERS = dict.fromkeys(SHIPPED, True)
EXPORTED = {f"{source} {server}": True for source, servers in EXPORTS.items() for server in servers}
server_of_model = let(first_given(spec.predictor.model.runtime, ""))
is_known_server = let(choose(server_of_model, KNOWN_SERVERS, False))

# The triggers -----------------------------------------------------------------------------------------------------


def trigger(one: Reference) -> Value:
    """A trigger of KEDA's."""
    return if_else(
        one.metric == "cpu",
        {"type": "cpu", "metricType": "Utilization", "metadata": {"value": pods_worth(one)}},
        {
            "type": "prometheus",
            "metricType": metric_type(one),
            "metadata": {
                "serverAddress": p.prometheusAddress,
                "query": query(one),
                "threshold": pods_worth(one),
                "ignoreNullValues": comment(
                    "An empty answer is an error and keeps the pods: it does not mean no load.", "false"
                ),
                when(is_given(one, "activation")): {"activationThreshold": as_string(one.activation)},
            },
        },
    )


def time(one: Reference) -> Value:
    """A trigger of KEDA's that asks for so many pods from one time to another."""
    return {
        "type": "cron",
        "metadata": {
            "timezone": first_given(one.timezone, "Etc/UTC"),
            "start": one.start,
            "end": one.end,
            "desiredReplicas": as_string(one.replicas),
        },
    }


#: KServe's label of the pods of a part (GetRawServiceLabel, pkg/constants). Sources: KEDA docs, Kubernetes Workload.
as_many = {
    "type": "kubernetes-workload",
    "metadata": {"podSelector": f"app=isvc.{p.matchPodsOf}-{p.part}", "value": "1"},
}


def limit(own: Reference, stabilization: Value | None) -> dict[object, Value]:
    """How fast the pods change in one direction. Source: Kubernetes autoscaling/v2 HPAScalingRules."""
    period = first_given(own.periodSeconds, 15)
    fields: dict[object, Value] = {
        when(given(own.disabled)): {when(own.disabled): {"selectPolicy": "Disabled"}},
        when(given(own.pods) | given(own.percent)): {
            "policies": [
                when(given(own.pods), {"type": "Pods", "value": own.pods, "periodSeconds": period}),
                when(given(own.percent), {"type": "Percent", "value": own.percent, "periodSeconds": period}),
            ]
        },
    }
    if stabilization is not None:
        fields["stabilizationWindowSeconds"] = stabilization
    else:
        fields[when(given(own.stabilizationSeconds))] = {"stabilizationWindowSeconds": own.stabilizationSeconds}
    return fields


lull = first_given(p.scaleDownSeconds, SCALE_DOWN_SECONDS)
scaled = let(
    {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
        "minReplicaCount": least,
        "maxReplicaCount": p.maxReplicas,
        "pollingInterval": first_given(p.pollingSeconds, POLLING_SECONDS),
        "cooldownPeriod": first_given(p.cooldownSeconds, lull),
        when(given(p.fallback)): {
            "fallback": {
                "failureThreshold": first_given(p.fallback.failures, 3),
                "replicas": p.fallback.replicas,
            }
        },
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    when(given(p.scaleUp)): {"scaleUp": limit(p.scaleUp, None)},
                    "scaleDown": limit(p.scaleDown, first_given(p.scaleDown.stabilizationSeconds, lull)),
                }
            }
        },
        "triggers": [
            each(asked, trigger, where=lambda one: one.metric != "schedule"),
            each(first_given(p.schedule, []), time),
            when(given(p.matchPodsOf), as_many),
        ],
    }
)


def of_kserve(part: str) -> dict[object, Value]:
    """What KServe's own autoscalers read of a part."""
    return {
        when(~is_keda & (p.part == part)): {
            part: {
                "minReplicas": retain_keys(least),
                "maxReplicas": retain_keys(p.maxReplicas),
                "scaleMetric": retain_keys(choose(p.metric, {"qps": "rps", "concurrency": "concurrency"}, "cpu")),
                when(given(p.target)): {"scaleTarget": retain_keys(floor(p.target))},
            }
        }
    }


# What is refused ----------------------------------------------------------------------------------------------------


def _refused(one: Reference) -> Value:
    """The sentences about one trigger."""
    at = one.at
    is_slo, is_law, is_article = one.policy == "slo", one.policy == "littles-law", one.policy == "article"
    computes = is_slo | is_law | is_article
    measures = is_keda & one_of(one.metric, "qps", "latency", "concurrency", "queue", "kv-cache")
    from_server = one_of(one.source, *OF_SERVERS)
    of_percentile = (one.metric == "latency") | is_slo
    return [
        when(
            (one.policy == "target") & ~is_given(one, "target") & (one.metric != "schedule"),
            f"{at}target is missing: write what one pod should bear (metric qps, concurrency, queue: a number; cpu, "
            "gpu, kv-cache: percent; latency: milliseconds), or policy: article, littles-law or slo",
        ),
        when(
            computes & is_given(one, "target"),
            f"{at}target is not used with policy: {one.policy}, which computes it: drop target",
        ),
        when(
            is_article & (one.metric != "qps"),
            f"{at}policy: article is a formula of the requests per second: write metric: qps",
        ),
        when(
            is_law & (one.metric != "concurrency"),
            f"{at}policy: littles-law is a formula of the requests in the system: write metric: concurrency",
        ),
        when(
            is_slo & (one.metric != "latency"),
            f"{at}policy: slo keeps an objective of the latency: write metric: latency",
        ),
        when(
            is_article & ~is_given(one, "targetLatencyMilliseconds"),
            f"{at}targetLatencyMilliseconds is missing: policy: article divides by it",
        ),
        when(
            is_slo & ~is_given(one, "targetLatencyMilliseconds"),
            f"{at}targetLatencyMilliseconds is missing: it is the objective of policy: slo",
        ),
        when(
            ~is_article & ~is_slo & is_given(one, "targetLatencyMilliseconds"),
            f"{at}targetLatencyMilliseconds belongs to policy: article and slo: drop it, or use metric: latency with "
            "target",
        ),
        when(
            ~is_law & ~is_slo & (is_given(one, "concurrencyPerReplica") | is_given(one, "utilization")),
            f"{at}concurrencyPerReplica and utilization belong to policy: littles-law and slo: drop them",
        ),
        when(
            measures & (p.part == "predictor") & from_server & is_known_server & ~_exports(one),
            f"{at}source: {one.source} has no metrics of this model, whose server {server_of_model} does not export "
            "them: triton is for runtime triton and onnx, mlserver for mlflow, vllm for vllm and huggingface, kserve "
            "for sklearn, xgboost, lightgbm and huggingface, torchserve for pytorch, tensorflow for tensorflow; write "
            "source: istio or envoy, which count the requests of any server, or metric: custom with a query of your "
            "own",
        ),
        when(
            measures & (p.part != "predictor") & from_server & (one.source != "kserve"),
            f"{at}source: {one.source} is the model server's, and part: {p.part} is another container: write source: "
            "istio, envoy or, where it is built with KServe's SDK, kserve",
        ),
        when(
            (one.metric == "queue") & ~one_of(one.source, *QUEUE),
            f"{at}metric: queue is not given by source: {one.source}: write source: {' or '.join(QUEUE)}",
        ),
        when(
            (one.metric == "kv-cache") & ~one_of(one.source, *CACHE),
            f"{at}metric: kv-cache is not given by source: {one.source}: write source: {' or '.join(CACHE)}",
        ),
        when(
            (one.metric == "gpu") & (p.part != "predictor"),
            f"{at}metric: gpu belongs to part: predictor, whose pods hold the GPUs: write another metric",
        ),
        when(
            is_given(one, "percentile") & (~of_percentile | one_of(one.source, *MEANS)),
            f"{at}percentile belongs to metric: latency from a source with a histogram "
            f"({' and '.join(MEANS)} give a mean only): drop percentile, or write another source",
        ),
        when(
            is_given(one, "envoyCluster") & ((one.source != "envoy") | ~measures),
            f"{at}envoyCluster belongs to source: envoy: drop envoyCluster, or write source: envoy",
        ),
        when(
            (one.metric == "custom") & ~is_given(one, "query"),
            f"{at}query is missing: metric: custom needs a PromQL query",
        ),
        when((one.metric != "custom") & is_given(one, "query"), f"{at}query belongs to metric: custom: drop query"),
        when(
            is_given(one, "activation") & ((one.metric != "custom") | (least != 0)),
            f"{at}activation says when the first pod starts: it needs minReplicas: 0 and metric: custom",
        ),
    ]


def _exports(one: Reference) -> Value:
    return choose(f"{one.source} {server_of_model}", EXPORTED, False)


refused = let([each(asked, _refused)])
refusals = let([each(refused, lambda found: found[0], where=lambda found: length(found) > 0)])
#: Triggers and times that ask for more than there may be.
over_most = let(
    [each(first_given(p.schedule, []), lambda one: one.replicas, where=lambda one: one.replicas > p.maxReplicas)]
)
same_times = let([each(first_given(p.schedule, []), lambda one: one.start, where=lambda one: one.start == one.end)])
by_clock_inside = let(
    [each(first_given(p.triggers, []), lambda one: one.metric, where=lambda one: one.metric == "schedule")]
)
not_by_cpu = let([each(asked, lambda one: one.metric, where=lambda one: one.metric != "cpu")])
own_class = if_else(is_hpa, "hpa", "external")
others_class = let(first_given(noted[AUTOSCALER_CLASS], own_class))
only_keda = [p.pollingSeconds, p.scaleDownSeconds, p.cooldownSeconds, p.scaleUp, p.scaleDown, p.fallback, p.schedule]
only_keda += [p.triggers, p.matchPodsOf]
uses_keda = given(only_keda[0])
for field in only_keda[1:]:
    uses_keda = uses_keda | given(field)
#: KServe is kept out, and not by the trait of another part.
is_scaled = is_keda & given(noted[AUTOSCALER_CLASS])
for output in OUTPUTS.values():
    is_scaled = is_scaled & missing(context.outputs[output])


def twice(part: str) -> list[Refusal]:
    """This part has an autoscaler already, or its number of pods written in two places."""
    own = of_part(part)
    is_part = p.part == part
    again = given(own.scaleMetric) | given(context.outputs[OUTPUTS[part]])
    return [
        refuse(is_part & again, "another trait already scales this component: write one autoscale for each part"),
        *(
            refuse(
                is_part & given(mine) & given(theirs) & (mine != theirs),
                f"{name} is {mine} here and {theirs} on the component: write it once",
            )
            for name, mine, theirs in (
                ("minReplicas", p.minReplicas, own.minReplicas),
                ("maxReplicas", p.maxReplicas, own.maxReplicas),
            )
        ),
    ]


# The status -------------------------------------------------------------------------------------------------------


def _object(part: str) -> Reference:
    found: Reference = context.outputs[OUTPUTS[part]]
    return found


#: By the object: KubeVela's status sees the properties as they were written, without defaults, so part and engine may
#: be absent there.
conditions_seen = let(
    cases(
        *((given(_object(part).kind), first_given(_object(part).status.conditions, [])) for part in PARTS[1:]),
        otherwise=first_given(_object("predictor").status.conditions, []),
    )
)
is_made = given(_object("predictor").kind) | given(_object("transformer").kind) | given(_object("explainer").kind)
waits_for_keda = is_made & (length(conditions_seen) == 0)
#: KEDA's reasons where triggers alone are wrong, all or some of them (pkg/scaling/executor/scale_scaledobjects.go). A
#: model that nobody has asked yet has no series, and a Prometheus may be away: the pods stay, and the model is well.
NO_ANSWER, PARTLY = "TriggerError", "PartialTriggerError"
unanswered = let(conditions(conditions_seen, "Ready", "False", reason=NO_ANSWER))
partly_answered = let(conditions(conditions_seen, "Ready", "Unknown", reason=PARTLY))
not_ready = let(
    conditions(conditions_seen, "Ready", "False", give=lambda condition: f"{first_given(condition.message, '')}")
)
cannot_scale = (length(not_ready) > 0) & (length(unanswered) == 0)
falls_back = let(conditions(conditions_seen, "Fallback", "True"))
#: What Kubernetes' autoscaler says where it gets no numbers, such as without KEDA's metrics server.
unfed = let(
    conditions(conditions_seen, "HPAActive", "False", give=lambda condition: f"{first_given(condition.message, '')}")
)

# The trait --------------------------------------------------------------------------------------------------------

autoscale = Trait(
    name="autoscale",
    description="Lets the number of a model's pods follow its load.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    # All of these set the number of replicas too.
    conflicts_with=["scaler", "cpuscaler", "hpa", "keda-auto-scaler"],
    pod_disruptive=False,
    # KubeVela merges the patch before it looks at the checks: what another trait set must not clash before the check
    # that says so.
    patch={
        when(~is_kpa): {"metadata": {"annotations": {AUTOSCALER_CLASS: retain_keys(own_class)}}},
        "spec": {
            **of_kserve("predictor"),
            **of_kserve("transformer"),
            **of_kserve("explainer"),
        },
    },
    outputs={
        when(is_keda & (p.part == part)): {
            OUTPUTS[part]: {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": f"{context.name}{infix}-autoscale"},
                "spec": scaled,
            }
        }
        for part, infix in zip(PARTS, ("", "-transformer", "-explainer"), strict=True)
    },
    checks=[
        not_a_model("autoscale"),
        *(
            refuse(
                (p.part == part) & missing(of_part(part)),
                f"part: {part} is not there: the component has no {part}: write it on the component, or drop part",
            )
            for part in PARTS[1:]
        ),
        refuse(
            is_scaled | (others_class != own_class),
            "another trait already scales this component: write one autoscale for each part, all with the same engine",
        ),
        *(check for part in PARTS for check in twice(part)),
        refuse(
            is_kpa & (mode_of_model != KNATIVE),
            "engine: kpa needs deploymentMode: knative on the component; in standard mode use engine: keda or hpa",
        ),
        refuse(
            ~is_kpa & (mode_of_model == KNATIVE),
            f"engine: {p.engine} scales Deployments, and this component has deploymentMode: knative: write engine: kpa",
        ),
        refuse(
            least > p.maxReplicas,
            f"maxReplicas: {p.maxReplicas} is below the component's minReplicas ({least}): raise maxReplicas",
        ),
        refuse(
            is_keda & (given(spec.transformer.scaleMetric) | given(spec.explainer.scaleMetric)),
            "engine: keda keeps KServe's own autoscalers out, and scaleMetric of the transformer or explainer would do "
            "nothing: drop it and write the trait with its part, or write engine: hpa",
        ),
        refuse(
            (least == 0) & is_hpa,
            "minReplicas: 0 (scale to zero) is more than engine: hpa can do: write 1, or engine: kpa on "
            "deploymentMode: knative",
        ),
        refuse(
            (least == 0) & is_keda & ~one_of(p.metric, "custom", "schedule"),
            f"minReplicas: 0 (scale to zero) can't be had with metric: {p.metric}: where no pod runs there is nothing "
            "to measure; write 1, use engine: kpa on deploymentMode: knative, metric: schedule, or metric: custom with "
            "a query that has an answer then",
        ),
        refuse(length(refusals) > 0, f"{refusals[0]}"),
        refuse(
            is_by_clock & missing(p.schedule),
            "schedule is missing: metric: schedule scales by the clock alone, so write its times with start, end and "
            "replicas",
        ),
        refuse(
            length(by_clock_inside) > 0,
            "triggers may not hold metric: schedule: write the times in schedule, beside triggers",
        ),
        refuse(
            length(over_most) > 0,
            f"schedule asks for {over_most[0]} replicas, and maxReplicas is {p.maxReplicas}: raise maxReplicas",
        ),
        refuse(
            length(same_times) > 0,
            f"schedule starts and ends at the same time ({same_times[0]}): write another end",
        ),
        refuse(
            given(p.fallback) & ((p.fallback.replicas > p.maxReplicas) | (p.fallback.replicas < least)),
            f"fallback.replicas is {p.fallback.replicas}, outside of minReplicas to maxReplicas ({least} to "
            f"{p.maxReplicas}): write a number of pods that may run",
        ),
        refuse(
            given(p.fallback) & (length(not_by_cpu) == 0),
            "fallback needs a metric other than cpu, which KEDA does not read itself: drop fallback, or write another "
            "metric beside it",
        ),
        refuse(
            given(p.scaleDownSeconds) & given(p.scaleDown.stabilizationSeconds),
            "scaleDownSeconds and scaleDown.stabilizationSeconds are the same: keep one of them",
        ),
        *(
            refuse(
                given(own.periodSeconds) & missing(own.pods) & missing(own.percent),
                f"{name}.periodSeconds is the time in which pods and percent are counted: write one of them, or drop "
                "it",
            )
            for name, own in (("scaleUp", p.scaleUp), ("scaleDown", p.scaleDown))
        ),
        refuse(
            ~is_keda & given(p.target) & (floor(p.target) < p.target),
            f"target must be a whole number with engine: {p.engine}",
        ),
        refuse(
            (p.metric == "cpu") & is_hpa & given(p.target) & (p.target > 100),
            "target must be at most 100 percent with metric: cpu and engine: hpa",
        ),
        refuse(
            ~is_keda & uses_keda,
            "pollingSeconds, scaleDownSeconds, cooldownSeconds, scaleUp, scaleDown, fallback, schedule, triggers and "
            "matchPodsOf belong to engine: keda: drop them",
        ),
        refuse(
            first_given(p.matchPodsOf, "") == context.name,
            f"matchPodsOf: {context.name} is this component itself, which would never have fewer pods than it has: "
            "write another model's name",
        ),
    ],
    status=Status(
        # hpa and kpa have no object here. A ScaledObject without conditions has not been looked at yet.
        healthy=~cannot_scale,
        message=cases(
            (cannot_scale, f"KEDA can't scale: {not_ready[0]}"),
            (
                length(unanswered) > 0,
                "KEDA gets no answer to its queries and leaves the pods as they are: no request was counted yet, or "
                "Prometheus does not answer",
            ),
            (length(falls_back) > 0, "KEDA gets no answer to a query and runs the fallback's pods"),
            (
                length(partly_answered) > 0,
                "KEDA gets no answer to some of its queries: pods are added, and none is taken away",
            ),
            (length(unfed) > 0, f"The pods stay as they are: {unfed[0]}"),
            (waits_for_keda, "KEDA has not looked at it yet"),
            otherwise=f"at most {p.maxReplicas} pods",
        ),
    ),
)
