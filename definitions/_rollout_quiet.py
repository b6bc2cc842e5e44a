"""Whether a run of the step rollout-model only waits: then what the last one left is all that there is to say.

Most runs are such ones. KubeVela's engine evaluates a step anew after each operation, so a run looks first at the state
and the clock. Where these say that there may be nothing to do, it reads the one or two objects that can say otherwise,
and nothing else; what a run works out besides stands in a block that it leaves alone.
"""

from __future__ import annotations

from _rollout_hosts import is_istio
from _rollout_route import route_name
from _rollout_seen import (
    answer,
    candidate_object,
    new_version_is_ready,
    percent_of,
    phase_then,
    read,
    revision_of,
    rolled_out_of,
    settings_then,
    stable_name,
    state_then,
    stored,
    trouble_of,
    waited,
    weights,
)
from _rollout_state import same_session

from velagen import cases, context, each, first_given, if_else, let, one_of, to_json, when
from velagen import parameter as p
from velagen.rollout import pace
from velagen.template.expression import Expression, Value


def wait_in_words(phase: Expression, trouble: Expression, interval: Expression) -> Expression:
    """What is added to what a run says of its *phase* while nothing happens; velagen.rollout.pace says why."""
    in_wait = if_else(span > 0, f", for {span} s by now", "")
    return cases(
        (phase == "step", if_else(pace.is_near(waited, interval), ", the next one is due", "")),
        (phase == "prepare", f"{trouble}{in_wait}"),
        (one_of(phase, "deploy", "promote", "revert"), in_wait),
        otherwise="",
    )


span = let(pace.span(waited))
via_then = let(first_given(settings_then.via, ""))
#: The engine makes a new session of each revision, and of each start of a workflow. In the same revision the component
#: and these settings are what the last run saw. An earlier release wrote no via.
is_settled = let(
    same_session
    & ~p.tidy
    & (first_given(stored.revision, "") == context.appRevision)
    & (first_given(stored.said, "") != "")
    & one_of(via_then, "route", "kserve")
)
#: By the state alone.
is_patient = let(
    cases(
        (~is_settled, False),
        (
            phase_then == "step",
            (first_given(state_then.asked, 1) == 0)
            & (first_given(state_then.errors, 1) == 0)
            & ~one_of(first_given(stored.weight, "0"), "0"),
        ),
        (one_of(phase_then, "deploy", "promote"), via_then == "route"),
        otherwise=phase_then == "prepare",
    )
)
#: What is read where nothing else is: the split while there is one, and the version that is waited for.
glance: dict[object, Value] = {
    when(is_patient & (phase_then == "step") & (via_then == "route")): {
        "route": read(
            if_else(is_istio, "networking.istio.io/v1beta1", "gateway.networking.k8s.io/v1"),
            if_else(is_istio, "VirtualService", "HTTPRoute"),
            route_name,
        ),
    },
    when(is_patient): {
        "model": read(
            "serving.kserve.io/v1beta1",
            "InferenceService",
            if_else((via_then == "route") & one_of(phase_then, "prepare", "step"), candidate_object, stable_name),
        ),
    },
}
route = answer("glance", "route").value
model = answer("glance", "model").value
#: The shares as they are, to be compared with those that the last run wrote.
split_found = if_else(
    via_then == "kserve",
    f"{percent_of(model)}",
    to_json([each(first_given(route.spec.rules, route.spec["http"], []), weights)]),
)
is_quiet = let(
    is_patient
    & (waited < if_else(phase_then == "step", p.interval, p.deadline))
    & (revision_of(model) == context.appRevision)
    & one_of(first_given(stored.pinned, ""), "", rolled_out_of(model))
    & cases(
        (phase_then == "step", split_found == first_given(stored.routed, "")),
        otherwise=~new_version_is_ready(model, via_then == "kserve"),
    )
)
quiet_message = f"{first_given(stored.said, '')}{wait_in_words(phase_then, trouble_of(model), p.interval)}"
