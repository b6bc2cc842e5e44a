"""What follows in this run of the step rollout-model, as it is stored, and what is applied by it."""

from __future__ import annotations

from _rollout_analysis import bounds, check, has_answer, requests_seen, seen_now, why
from _rollout_history import appended, labels
from _rollout_seen import (
    SETTINGS,
    candidate,
    candidate_name,
    component,
    namespace,
    now_at,
    revision_of,
    route_asked,
    rules,
    second_of,
    stable_target,
    state_name,
    stored,
    target,
)
from _rollout_state import begin

from velagen import (
    Reference,
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
    }
)


#: All of it but the state.
KEPT = ("stable", "stableComponent", "target", "revision", "session", "settings", "why", "history")


def state_object(of: Reference, data: Value) -> Value:
    """The ConfigMap that holds the state *of*."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": state_name, "namespace": namespace, "labels": labels(of)},
        "data": data,
    }


#: The candidate is the component once more, with the name that clients call the model by.
DROPPED_TRAITS = ("canary",)
properties = let(first_given(component.properties, {}))
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
    "name": candidate_name,
    "properties": {
        each(properties, where=lambda key, _: key != "modelName"): lambda key, value: {key: value},
        when(has_name): {"modelName": first_given(properties.modelName, p.component)},
    },
    "traits": [
        each(
            first_given(component.traits, []),
            lambda trait: trait,
            where=lambda trait: ~contains(list(DROPPED_TRAITS), first_given(trait.type, "")),
        )
    ],
}
is_of_revision = revision_of(candidate) == context.appRevision
wants_candidate = one_of(phase, "prepare", "warm", "step", "pause") & ~is_of_revision
wants_component = one_of(phase, "deploy", "promote", "done") & ~p.tidy


#: What a rollback leaves standing, as it was when it became stable; none where the model was there before the step.
stable_component = let(if_else(kept.stableComponent != "", from_json(kept.stableComponent), {}))
knows_stable = let(kept.stableComponent != "")


def is_named(one: Reference) -> Expression:
    """Whether it can be deleted by what is known of it."""
    return given(one.apiVersion) & given(one.kind) & given(one.name)
