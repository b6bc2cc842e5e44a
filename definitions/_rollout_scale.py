"""How many pods the two versions of a rollout have: each of them can take all requests at once.

An autoscaler goes by the requests that a version gets. Left alone it would give the new version a tenth of the pods at
10 %, and the next step would bring it five times the requests at once; and it would take the stable version's pods away
while the new one has its requests, although a version that goes back, and one that is promoted, leave all of them to
these pods from one second to the next. So the candidate begins with as many pods as the stable version has, and
the stable one has at least as many as the candidate while that is there (the trait autoscale's matchPodsOf).
"""

from __future__ import annotations

from _rollout_seen import answer, candidate_object, component

from velagen import Reference, cases, contains, each, first_given, given, let, maximum, minimum, missing, when
from velagen.template.expression import Expression, Value

AUTOSCALE = "autoscale"
properties = let(first_given(component.properties, {}))


def _scales_predictor(trait: Reference) -> Expression:
    return (first_given(trait.type, "") == AUTOSCALE) & (first_given(trait.properties.part, "predictor") == "predictor")


_of_predictor = let(
    [
        each(
            first_given(component.traits, []),
            lambda trait: first_given(trait.properties, {}),
            where=_scales_predictor,
        )
    ]
)
_least = let(first_given(_of_predictor[0].minReplicas, properties.minReplicas, 1))
_most = let(first_given(_of_predictor[0].maxReplicas, properties.maxReplicas, 0))
_running = let(first_given(answer("more", "liveDeployment").value.spec.replicas, 0))
#: As many as the stable version has now; 0 where that is what the candidate has anyway, and where it may have none.
begins_with = let(
    cases(
        ((_least > 0) & (_most > 0) & (minimum(_running, _most) > _least), minimum(_running, _most)),
        otherwise=0,
    )
)


def _with_pods(own: Reference) -> Value:
    """What the trait is told, with so many pods at least."""
    return {
        each(own, where=lambda key, _: ~contains(["minReplicas", "fallback"], key)): lambda key, value: {key: value},
        "minReplicas": begins_with,
        when(given(own.fallback)): {
            "fallback": {
                each(own.fallback, where=lambda key, _: key != "replicas"): lambda key, value: {key: value},
                "replicas": maximum(first_given(own.fallback.replicas, 1), begins_with),
            }
        },
    }


def trait_of_candidate(trait: Reference) -> Value:
    """A trait of the component, as the candidate has it."""
    is_meant = (begins_with > 0) & _scales_predictor(trait)
    return {
        each(trait, where=lambda key, _: (key != "properties") | ~is_meant): lambda key, value: {key: value},
        when(is_meant): {"properties": _with_pods(trait.properties)},
    }


def holding_pods(of: Reference) -> Value:
    """A component as it is applied itself: it has no fewer pods than the candidate, while there is one."""

    def holds(trait: Reference) -> Expression:
        return (
            (first_given(trait.type, "") == AUTOSCALE)
            & (first_given(trait.properties.engine, "keda") == "keda")
            & missing(trait.properties.matchPodsOf)
        )

    return {
        each(of, where=lambda key, _: key != "traits"): lambda key, value: {key: value},
        when(given(of.traits)): {
            "traits": [
                each(
                    of.traits,
                    lambda trait: {
                        each(trait): lambda key, value: {key: value},
                        when(holds(trait)): {"properties": {"matchPodsOf": candidate_object}},
                    },
                )
            ]
        },
    }
