"""The trait availability: how many of a model's pods a drain of nodes may take at once, as PodDisruptionBudgets.

Sources: Kubernetes pkg/controller/disruption (percentages are rounded up, of the replicas that the Deployment wants),
policy/v1; KServe v0.20.0 pkg/constants, GetRawServiceLabel (the label app of a part's pods).
"""

from __future__ import annotations

from _kserve import BUDGET, CANARY_OUTPUT, DEPLOYMENT_MODE, INFERENCE_SERVICE, KNATIVE, not_a_model

from velagen import (
    Status,
    Trait,
    cases,
    ceil,
    comment,
    context,
    each,
    first_given,
    given,
    has_prefix,
    if_else,
    length,
    let,
    matches,
    missing,
    optional,
    refuse,
    to_number,
    trim_prefix,
    trim_suffix,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Reference, Value

stable = context.output
PARTS = ("predictor", "transformer", "explainer")


def pods_of(part: str, least: Value) -> Value:
    """A Deployment of KServe's: its name, the budget's among the outputs, and the replicas it has at its fewest."""
    names = {"name": f"{context.name}-{part}", "output": f"{part}-budget"}
    return when(given(stable.spec[part]), {**names, "part": part, "replicas": least})


def pods_of_new(part: str) -> Value:
    """The same of each new version that the trait canary made."""
    return each(
        context.outputs,
        lambda output, newer: {
            "name": f"{context.name}-canary{trim_prefix(output, CANARY_OUTPUT)}-{part}",
            "output": f"{output}-{part}-budget",
            "part": part,
            "replicas": first_given(newer.spec[part].minReplicas, 1),
        },
        where=lambda output, newer: has_prefix(output, CANARY_OUTPUT) & given(newer.spec[part]),
    )


scaled_to = first_given(context.outputs.scaledObject.spec.minReplicaCount, stable.spec.predictor.minReplicas, 1)
deployments = let(
    comment(
        "What KServe makes: a Deployment for each part, and the same of a canary's new versions. One replica where "
        "nothing is written.",
        [
            pods_of("predictor", scaled_to),
            *(pods_of(part, first_given(stable.spec[part].minReplicas, 1)) for part in PARTS[1:]),
            *map(pods_of_new, PARTS),
            each(
                stable.spec.canary,
                lambda one: {
                    "name": f"{context.name}-{first_given(one.predictor.name, 'canary')}-predictor",
                    "output": f"{first_given(one.predictor.name, 'canary')}-predictor-budget",
                    "part": "predictor",
                    "replicas": first_given(one.predictor.minReplicas, 1),
                },
            ),
        ],
    )
)

least = let(f"{first_given(p.minAvailable, 0)}")
least_number = let(comment("Pods, or per cent of them.", to_number(trim_suffix(least, "%"))))


def must_stay(one: Reference) -> Expression:
    """How many pods of a Deployment at its fewest must stay: a part of a pod is a whole one."""
    return if_else(matches(least, "%$"), ceil(one.replicas * least_number / 100), least_number)


stuck = let(
    comment(
        "Deployments none of whose pods could ever go while they have their fewest.",
        [
            each(
                deployments,
                lambda one: one,
                where=lambda one: must_stay(one) >= one.replicas,
            )
        ],
    )
)


def budget(one: Reference) -> dict[object, Value]:
    """The PodDisruptionBudget of one Deployment."""
    return {
        f"{one.output}": {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": one.name},
            "spec": {
                "minAvailable": optional(p.minAvailable),
                "maxUnavailable": optional(p.maxUnavailable),
                "selector": {"matchLabels": {"app": f"isvc.{one.name}"}},
                "unhealthyPodEvictionPolicy": comment(
                    "A pod that is not ready serves nobody; kept, it would hold the drain until somebody repairs it.",
                    "AlwaysAllow",
                ),
            },
        }
    }


availability = Trait(
    name="availability",
    description="Says how many of a model's pods may be taken at once when nodes are drained.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["availability"],
    pod_disruptive=False,
    outputs={each(deployments): lambda _, one: budget(one)},
    checks=[
        not_a_model("availability"),
        refuse(
            first_given(stable.metadata.annotations[DEPLOYMENT_MODE], "") == KNATIVE,
            "availability needs deploymentMode: standard: in knative mode each revision has pods of its own and may "
            "have none, and a budget over all of them says nothing: drop the trait",
        ),
        refuse(
            given(context.outputs[BUDGET]),
            "another availability already stands at this component: write it once",
        ),
        refuse(
            given(p.minAvailable) & given(p.maxUnavailable),
            "minAvailable and maxUnavailable say the same from two sides, and Kubernetes takes one: keep one of them",
        ),
        refuse(
            missing(p.minAvailable) & missing(p.maxUnavailable),
            "availability promises nothing: write maxUnavailable: 1, or minAvailable with the pods that must stay",
        ),
        refuse(
            length(stuck) > 0,
            f"minAvailable: {least} is all that {stuck[0].name} has at its fewest (minReplicas: "
            f"{stuck[0].replicas}), so none of its nodes could ever be drained: raise minReplicas of the "
            f"{stuck[0].part}, lower minAvailable, or write maxUnavailable: 1",
        ),
    ],
    status=Status(
        message=cases(
            (given(p.minAvailable), f"at least {p.minAvailable} of each part's pods stay in a drain"),
            otherwise=f"at most {first_given(p.maxUnavailable, 1)} of each part's pods go at once in a drain",
        ),
    ),
)
