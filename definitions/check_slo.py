"""The workflow step check-slo: goes on while enough is left of a component's error budget, and says what is left.

KubeVela does a waiting step again every few seconds, so what it reads is what is left now. Without an answer it never
goes on unless it is told to, and then its message says so.

Sources: kubevela/workflow pkg/providers/{http,builtin} (#HTTPDo, which sends an address as it is written, #Fail,
#ConditionalWait), Prometheus docs/querying/api.md.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from _prometheus import is_number, vector

from velagen import (
    WorkflowStep,
    cases,
    context,
    each,
    first_given,
    floor,
    if_else,
    join,
    length,
    let,
    operation,
    raw_cue,
    result_of,
    to_number,
    when,
)
from velagen import parameter as p
from velagen.monitoring.objectives import ACHIEVED, LEFT, OBJECTIVE
from velagen.template.expression import Expression, Reference, Value

namespace = first_given(p.namespace, context.namespace)
#: Names need no encoding.
query = (
    quote(f'{{__name__=~"{OBJECTIVE}|{ACHIEVED}|{LEFT}",component="')
    + f"{p.component}"
    + quote('",namespace="')
    + f"{namespace}"
    + quote('"}')
)

# The answer -------------------------------------------------------------------------------------------------------

answered = result_of("ask")["$returns"]
status = let(first_given(answered.statusCode, 0))
body = let(first_given(answered.body, ""))
is_answer, samples = vector(status, body)

seen = let(
    [
        each(
            samples,
            lambda one: {
                "record": first_given(one.metric["__name__"], ""),
                "slo": first_given(one.metric.slo, ""),
                "window": first_given(one.metric.window, ""),
                "number": first_given(one.value[1], ""),
            },
        )
    ]
)


def named(record: str, give: Callable[[Reference], Value]) -> Value:
    """Of the samples of a record that are numbers."""
    return [each(seen, give, where=lambda one: (one.record == record) & is_number(one.number))]


#: Also one whose number is none: it was promised.
objectives = let([each(seen, lambda one: one, where=lambda one: one.record == OBJECTIVE)])
budgets = let(named(LEFT, lambda one: {"slo": one.slo, "left": to_number(one.number)}))
achieved = let(named(ACHIEVED, lambda one: {"slo": one.slo, "share": to_number(one.number)}))
#: An objective without a budget is one of which nothing is known, whatever the other says.
unknown = let(
    [
        each(
            objectives,
            lambda one: one.slo,
            where=lambda one: (
                length([each(budgets, lambda budget: budget.slo, where=lambda budget: budget.slo == one.slo)]) == 0
            ),
        )
    ]
)
has_data = let((length(objectives) > 0) & (length(unknown) == 0))
too_little = let([each(budgets, lambda one: one.slo, where=lambda one: one.left * 100 < p.minimumBudget)])
is_short = has_data & (length(too_little) > 0)


def digits(number: Expression, decimals: int) -> Expression:
    """A number with so many decimals at most, cut and not rounded: 99.996 is not 100."""
    scale = 10**decimals
    cut = floor(number * scale) / scale
    return raw_cue(f"strconv.FormatFloat({cut}, 102, -1, 64)", imports=("strconv",))


def in_words(one: Reference) -> Value:
    """availability: 99.95 % of 30d, budget left 52 %."""
    left = [each(budgets, lambda b: digits(b.left * 100, 0), where=lambda b: b.slo == one.slo)]
    share = [each(achieved, lambda a: digits(a.share * 100, 3), where=lambda a: a.slo == one.slo)]
    return f"{one.slo}: {join(share, '')} % of {one.window}, budget left {join(left, '')} %"


said = let(join([each(objectives, in_words)], "; "))
why_unknown = let(
    cases(
        (status == 0, f"Prometheus at {p.prometheus} was not asked yet"),
        (~is_answer, f"{p.prometheus} does not answer as Prometheus does (status {status})"),
        (
            length(objectives) == 0,
            f"Prometheus knows no objective of {p.component} in {namespace}: it needs the trait slo, and Prometheus "
            "its rules",
        ),
        otherwise=f"nothing is counted yet for the {join(unknown, ' and the ')} of {p.component}",
    )
)

goes_on = if_else(has_data, ~is_short, (status > 0) & (p.onNoData == "pass"))
message = let(
    cases(
        (is_short, f"{said}: waits for {p.minimumBudget} %"),
        (has_data, f"{said}"),
        (p.onNoData == "pass", f"went on although no error budget is known: {why_unknown}"),
        otherwise=f"waits, no error budget is known: {why_unknown}",
    )
)

check_slo = WorkflowStep(
    name="check-slo",
    description="Goes on while enough is left of a component's error budget, and says what is left.",
    category="Application Delivery",
    body={
        "ask": operation(
            "vela/http",
            "#HTTPDo",
            {
                "method": "GET",
                "url": f"{p.prometheus}/api/v1/query?query={query}",
                "request": {"timeout": "5s"},
            },
        ),
        "stop": {
            when((status > 0) & ~has_data & (p.onNoData == "fail")): {
                "fail": operation("vela/builtin", "#Fail", {"message": f"no error budget is known: {why_unknown}"}),
            },
            when(is_short & (p.onShortBudget == "fail")): {
                "fail": operation(
                    "vela/builtin", "#Fail", {"message": f"{said}: below the {p.minimumBudget} % that must be left"}
                ),
            },
        },
        "wait": operation("vela/builtin", "#ConditionalWait", {"continue": goes_on, "message": message}),
        # The engine shows what a step waits for, and of one that has gone on nothing but this.
        "tell": operation("vela/builtin", "#Message", {"message": message}),
    },
)
