"""The rollout's state as the last run left it, and whether a check is due in this one."""

from __future__ import annotations

from _rollout_refusals import is_fit, webhooks
from _rollout_seen import (
    answer,
    candidate,
    candidate_is_ready,
    created,
    has_all,
    is_kserve,
    is_new,
    is_of_this_revision,
    is_ready,
    is_routed_away,
    is_whole,
    latest_ready,
    live,
    live_is_absent,
    percent_written,
    phase_then,
    rolled_out,
    rules,
    stable_has_all,
    stable_target,
    state_then,
    stored,
    target,
    trouble,
    waited,
)

from velagen import cases, context, first_given, floor, if_else, length, let, one_of
from velagen import parameter as p
from velagen.rollout import transitions
from velagen.template.expression import Expression

same_session = let(first_given(stored.session, "") == context.stepSessionID)


def of_state(name: str) -> Expression:
    """A field of the state as it is stored; what an earlier release did not write is as at the beginning."""
    value = first_given(state_then[name], transitions.BLANK[name])
    return floor(value) if isinstance(transitions.BLANK[name], int) else value


had = let(
    {
        **{name: of_state(name) for name in transitions.BLANK},
        # The engine counts a step's errors anew in each run of the workflow.
        "errors": if_else(same_session, of_state("errors"), 0),
    }
)
#: Seconds after which an object counts as written as it was before, where KServe makes no revision of it.
UNCHANGED = 60
#: What a rollback leaves standing; empty where the model was there before the step.
stored_stable = first_given(stored.stableComponent, "")
has_ended = one_of(phase_then, *transitions.ENDS)
is_changed = let(
    ~p.tidy
    & (
        (first_given(stored.target, "") != target)
        | (has_ended & (first_given(stored.revision, "") != context.appRevision))
    )
)
#: A version that went back is not tried again in the same revision: its objects are the stable version's by now, and
#: nothing would tell these from the version that is to be promoted.
is_run_again = (phase_then == "failed") & ~same_session
in_place = let(
    cases(
        # KServe splits nothing before a revision had all requests.
        (is_kserve & (rolled_out == ""), True),
        (stable_target != "", stable_target == target),
        (phase_then == "deploy", True),
        otherwise=live_is_absent,
    )
)
#: The run that reaches this has passed the operation that suspends the workflow: a person resumed it.
is_paused = let(is_fit & (phase_then == "pause") & ~is_changed & ~p.tidy)
#: Whether the newest revision may get what is not pinned: it is of what is written now, and ready. A revision that is
#: about to be taken back must not become the newest ready one while all goes to that.
is_guarded = first_given(stored.before, "") != ""
is_safe = let(
    ~is_guarded | ((created == latest_ready) & (is_new | ((latest_ready == rolled_out) & (waited >= UNCHANGED))))
)
live_by_kserve = (
    is_of_this_revision
    & is_ready(live)
    & if_else(
        (phase_then == "revert") & (stored_stable == ""),
        percent_written == 0,
        has_all & (~one_of(phase_then, "deploy", "revert") | ~is_guarded | (is_safe & (percent_written == 100))),
    )
)
replicas = first_given(answer("more", "candidateDeployment").value.spec.replicas, 0)
replicas_asked = first_given(candidate.spec.predictor.minReplicas, 0)
#: KServe begins with one pod where an autoscaler sets the number: it has to have seen how many there are to be.
is_short = let(candidate_is_ready & ~is_kserve & (replicas > 0) & (replicas < replicas_asked))
shortage = let(if_else(is_short, f": its autoscaler gave it {replicas} of {replicas_asked} replicas", ""))
before_check = let(
    {
        **transitions.unseen(),
        "changed": is_changed,
        "inPlace": in_place,
        "aborted": p.tidy,
        "ready": candidate_is_ready
        & if_else(
            is_kserve,
            is_of_this_revision & is_new & (created == latest_ready),
            is_whole(answer("more", "candidateDeployment").value) & ~is_short,
        ),
        "live": if_else(
            is_kserve,
            live_by_kserve,
            is_of_this_revision & is_ready(live) & is_whole(answer("more", "liveDeployment").value),
        ),
        "routed": if_else(is_kserve, (phase_then != "warm") | stable_has_all, is_routed_away),
        "strayed": is_kserve & (first_given(stored.pinned, "") != "") & (first_given(stored.pinned, "") != rolled_out),
        "resumed": is_paused,
        "waited": waited,
        "trouble": f"{trouble}{shortage}",
        "asks": f"the endpoint of the metrics{if_else(length(webhooks) > 0, ' or a webhook', '')}",
    }
)
is_due = let(is_fit & ~is_changed & ~p.tidy & transitions.due(had, before_check, rules))
#: At which share it is paused.
paused_at = let(transitions.weight(had, rules))
marked = let(transitions.asking(had, before_check, rules))
begin = let({name: if_else(is_due, marked[name], had[name]) for name in transitions.BLANK})
