"""Whether a run of the step rollout-model only waits: then what the last one left is all that there is to say.

Most runs are such ones. KubeVela's engine evaluates a step anew after each operation, so they read little, and what a
run works out otherwise stands in a block that they leave alone.
"""

from __future__ import annotations

from _rollout_seen import (
    candidate,
    candidate_is_ready,
    found_routes,
    is_kserve,
    is_of_this_revision,
    is_ready,
    live,
    percent_written,
    phase_then,
    revision_of,
    rolled_out,
    rules,
    state_then,
    stored,
    target,
    trouble,
    waited,
    weights,
)
from _rollout_state import same_session

from velagen import cases, context, div, each, first_given, if_else, let, one_of, to_json
from velagen import parameter as p
from velagen.template.expression import Expression


def wait_in_words(phase: Expression) -> Expression:
    """What is added to what a run says of its *phase* while nothing happens.

    Another text lets the engine look again at once, an equal one lets it back off up to a minute: so it changes when
    the next check comes near.
    """
    in_wait = if_else(waited >= 30, f", for {div(waited, 30) * 30} s by now", "")
    return cases(
        (phase == "step", if_else(10 * waited >= 7 * rules.interval, ", the next one is due", "")),
        (phase == "prepare", f"{trouble}{in_wait}"),
        (one_of(phase, "deploy", "promote", "revert"), in_wait),
        otherwise="",
    )


#: The shares as they are, to be compared with those that the last run wrote.
split_found = if_else(is_kserve, f"{percent_written}", to_json([each(found_routes, weights)]))
is_split_as_written = let(split_found == first_given(stored.routed, ""))
is_candidate_written = let(revision_of(candidate) == context.appRevision)
#: The engine makes a new session of each revision, and of each start of a workflow.
is_settled = let(
    same_session
    & ~p.tidy
    & (first_given(stored.revision, "") == context.appRevision)
    & (first_given(stored.target, "") == target)
    & (first_given(stored.said, "") != "")
    & one_of(first_given(stored.pinned, ""), "", rolled_out)
)
is_quiet = let(
    cases(
        (~is_settled, False),
        (
            phase_then == "step",
            (first_given(state_then.asked, 1) == 0)
            & (first_given(state_then.errors, 1) == 0)
            & (waited < rules.interval)
            & ~one_of(first_given(stored.weight, "0"), "0")
            & is_split_as_written
            & is_candidate_written,
        ),
        (phase_then == "prepare", is_candidate_written & ~candidate_is_ready & (waited < rules.deadline)),
        (
            one_of(phase_then, "deploy", "promote") & ~is_kserve,
            is_of_this_revision & ~is_ready(live) & (waited < rules.deadline),
        ),
        otherwise=False,
    )
)
quiet_message = f"{first_given(stored.said, '')}{wait_in_words(phase_then)}"
