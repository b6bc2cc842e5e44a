"""What follows in this run of the step rollout-model, as it is stored, and what is applied by it."""

from __future__ import annotations

from _rollout_analysis import bounds, check, has_answer, requests_seen, seen_now, why
from _rollout_history import appended, labels
from _rollout_scale import begins_with, holding_pods, properties, trait_of_candidate
from _rollout_seen import (
    SETTINGS,
    candidate,
    candidate_object,
    component,
    created,
    has_all,
    is_kserve,
    is_of_this_revision,
    namespace,
    now_at,
    percent_written,
    revision_of,
    rolled_out,
    route_asked,
    rules,
    second_of,
    stable_target,
    state_name,
    stored,
    target,
)
from _rollout_state import before_check, begin, had, is_safe

from velagen import (
    Reference,
    cases,
    comment,
    contains,
    context,
    each,
    first_given,
    from_json,
    given,
    if_else,
    let,
    one_of,
    to_json,
    when,
)
from velagen import parameter as p
from velagen.rollout import transitions
from velagen.template.expression import Expression, Value

row = let(transitions.happened(begin, seen_now, rules))
following = let(transitions.following(row, begin, seen_now, rules))
weight = let(transitions.weight(following, rules))
phase = following.phase
is_over = one_of(phase, *transitions.ENDS)

#: Each row that was taken is a line of the history: a report is made of them.
line = let(
    to_json(
        {
            "at": second_of(now_at),
            "row": row,
            "revision": if_else(p.tidy, first_given(stored.revision, ""), context.appRevision),
            "phase": phase,
            "step": following.step,
            "weight": weight,
            "check": check,
            "why": if_else(phase == "failed", following.reason, why),
            when(has_answer): {"requests": requests_seen, "bounds": bounds},
        }
    )
)
is_shadow = let(transitions.is_shadow(following, rules))
settings_now = to_json({**{name: rules[name] for name in SETTINGS}, "route": route_asked})
history_then = let(first_given(stored.history, ""))

is_done = phase == "done"
#: The newest revision when the phase began, where another one has to be told from it: see is_new and is_safe.
newest = if_else(created != "", created, rolled_out)
before = let(
    cases(
        (row == "begun", newest),
        (
            row == "deployed anew",
            if_else(one_of(had.phase, "", "deploy", "done") | ((had.phase == "failed") & has_all), "", newest),
        ),
        ((phase == "revert") & (had.phase != "revert"), newest),
        otherwise=first_given(stored.before, ""),
    )
)
kept = let(
    {
        "state": to_json(following),
        "stable": if_else(is_done & ~p.tidy, target, stable_target),
        "stableComponent": if_else(is_done & ~p.tidy, to_json(component), first_given(stored.stableComponent, "")),
        "target": if_else(p.tidy, first_given(stored.target, ""), target),
        "revision": if_else(p.tidy, first_given(stored.revision, ""), context.appRevision),
        "why": if_else(check == "inconclusive", why, first_given(stored.why, "")),
        "session": if_else(p.tidy, first_given(stored.session, ""), context.stepSessionID),
        "settings": if_else(
            p.tidy,
            first_given(stored.settings, "{}"),
            settings_now,
        ),
        "history": if_else(row == "", history_then, appended(history_then, line)),
        when(is_kserve): {
            "before": before,
            "pinned": if_else(row == "begun", rolled_out, first_given(stored.pinned, "")),
        },
    }
)


#: All of it but the state.
KEPT = ("stable", "stableComponent", "target", "revision", "session", "settings", "why", "history", "said", "routed")
#: The same where KServe splits.
KEPT_BY_KSERVE = ("before", "pinned")


def state_object(of: Reference, weight: Expression, data: Value) -> Value:
    """The ConfigMap that holds the state *of*, with the candidate's *weight* in it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": state_name, "namespace": namespace, "labels": labels(of, weight)},
        "data": data,
    }


#: The candidate is the component once more, with the name that clients call the model by.
DROPPED_TRAITS = ("canary",)
has_name = let(
    comment(
        "Triton names models by their folders, and is asked after all of them where no name is given: by the "
        "component's name the candidate would be asked after a folder that may not be there. A transformer is told a "
        "name in any case.",
        given(properties.modelName)
        | given(properties.transformer)
        | ~one_of(first_given(properties.runtime, ""), "triton", "onnx"),
    )
)
as_candidate = {
    each(component, where=lambda key, _: ~contains(["name", "properties", "traits"], key)): lambda key, value: {
        key: value
    },
    "name": candidate_object,
    "properties": {
        each(
            properties, where=lambda key, _: (key != "modelName") & ((key != "minReplicas") | (begins_with == 0))
        ): lambda key, value: {key: value},
        when(begins_with > 0): {"minReplicas": begins_with},
        when(has_name): {"modelName": first_given(properties.modelName, p.component)},
    },
    "traits": [
        each(
            first_given(component.traits, []),
            trait_of_candidate,
            where=lambda trait: ~contains(list(DROPPED_TRAITS), first_given(trait.type, "")),
        )
    ],
}
is_of_revision = revision_of(candidate) == context.appRevision
brings_in = one_of(phase, "prepare", "warm", "step", "pause")
wants_candidate = brings_in & ~is_kserve & ~is_of_revision

#: What a rollback leaves standing, as it was when it became stable; none where the model was there before the step.
stable_component = let(if_else(kept.stableComponent != "", from_json(kept.stableComponent), {}))
knows_stable = let(kept.stableComponent != "")

# ---------------------------------------------------------------- split by KServe

#: Over a version that was not to get requests.
is_deployed_over = (phase == "deploy") & (before != "")
#: At 100 the newest revision has all, as without a number; but by that KubeVela sees that there is something to write.
percent = let(
    if_else(
        one_of(phase, "deploy", "revert"),
        if_else((row == "") & is_safe & ((phase == "deploy") | knows_stable), 100, 0),
        weight,
    )
)
wants_percent = let(
    is_kserve
    & (
        (phase == "revert")
        | (
            (brings_in | one_of(phase, "promote", "settle") | (is_deployed_over & ~p.tidy))
            & (~is_of_this_revision | (percent_written != percent))
        )
    )
)
with_percent = if_else((phase == "revert") & knows_stable, stable_component, component)
wants_component = ~p.tidy & cases(
    (is_kserve, (phase == "done") | ((phase == "deploy") & (before == ""))),
    otherwise=one_of(phase, "deploy", "promote", "done"),
)
#: Where KServe splits, the stable version is there once it has been taken back.
is_back = ~is_kserve | before_check["live"]
wants_stable = (phase == "failed") & knows_stable & is_back
#: What is applied under the component's own name.
itself = let(if_else(wants_stable, stable_component, component))
itself_with_pods = holding_pods(itself)


def is_named(one: Reference) -> Expression:
    """Whether it can be deleted by what is known of it."""
    return given(one.apiVersion) & given(one.kind) & given(one.name)
