"""What a check of the step rollout-model asks of webhooks, and what it makes of their answers.

A webhook is any server of the user's. It is told which version is being looked at, and answers with a verdict as JSON.
"""

from __future__ import annotations

from _rollout_refusals import webhooks
from _rollout_seen import candidate_is_ready, candidate_name, component, echoed, namespace, one_line, rules, stable_name
from _rollout_state import had, is_due, paused_at

from velagen import (
    Reference,
    cases,
    context,
    each,
    first_given,
    from_json,
    given,
    if_else,
    is_json,
    length,
    let,
    matches,
    one_of,
    operation,
    replace_pattern,
    result_of,
    to_json,
    when,
)
from velagen.template.expression import Expression, Value

#: Characters of a webhook's reason that are kept: the state holds a hundred of them.
REASON_KEPT = 200
is_asked = is_due & candidate_is_ready

told: dict[object, Value] = {
    "application": context.appName,
    "namespace": namespace,
    "component": stable_name,
    "candidate": candidate_name,
    "revision": context.appRevision,
    "modelUri": first_given(component.properties.modelUri, ""),
    when(given(component.properties.models)): {"models": component.properties.models},
    "weight": paused_at,
    "step": had.step + 1,
    "steps": length(rules.steps),
}
#: The texts that are posted, by the webhooks' names.
bodies: Value = {
    each(webhooks): lambda _, one: {f"{one.name}": to_json({**told, when(given(one.data)): {"data": one.data}})}
}
bodies_told = let(echoed("texts", "bodies"))

#: The requests, by the webhooks' names.
requests: dict[object, Value] = {
    each(webhooks): lambda _, one: {
        f"{one.name}": operation(
            "vela/http",
            "#HTTPDo",
            {
                "method": "POST",
                "url": one.url,
                "request": {
                    "timeout": "5s",
                    "header": {"Content-Type": "application/json"},
                    "body": first_given(bodies_told[one.name], ""),
                },
            },
        )
    }
}


def body_of(one: Reference) -> Expression:
    """What a webhook answered, as text."""
    return first_given(result_of("call")[one.name]["$returns"].body, "")


def is_object(text: Expression) -> Expression:
    """Whether a text is a JSON object."""
    return matches(text, r"^\s*[{]") & is_json(text)


answers = let(
    [
        each(
            webhooks,
            lambda one: {
                "name": one.name,
                "status": first_given(result_of("call")[one.name]["$returns"].statusCode, 0),
                "said": if_else(is_object(body_of(one)), from_json(body_of(one)), {}),
            },
        )
    ]
)


def reason_of(one: Reference) -> Expression:
    """What a webhook gave as its reason, where that is a text; on one line, and not too long."""
    reason = first_given(one.said.reason, "")
    kept = replace_pattern(one_line(reason), rf"^(.{{{REASON_KEPT}}}).+$", "${1} …")
    return cases((matches(to_json(reason), r'^".+"$'), kept), otherwise="no reason given")


#: pass, fail and inconclusive are known; all else, and an answer that is none, is nothing.
verdicts = let(
    [
        each(
            answers,
            lambda one: {
                "name": one.name,
                "status": one.status,
                "reason": reason_of(one),
                "said": if_else(
                    (one.status >= 200) & (one.status < 300), to_json(first_given(one.said.verdict, "")), ""
                ),
            },
        )
    ]
)
broken_webhooks: Value = [
    each(verdicts, lambda one: f"webhook {one.name}: {one.reason}", where=lambda one: one.said == '"fail"')
]
silent_webhooks: Value = [
    each(
        verdicts,
        lambda one: if_else(
            one.said == '"inconclusive"',
            f"webhook {one.name} has no verdict: {one.reason}",
            f"webhook {one.name} answered {one.status}, and not with a verdict",
        ),
        where=lambda one: ~one_of(one.said, '"pass"', '"fail"'),
    )
]
