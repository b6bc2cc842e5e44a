"""What the step rollout-model refuses, in the sentence that ``velagen check`` and ``vela status`` say."""

from __future__ import annotations

from _rollout_hosts import (
    IN_CLUSTER,
    foreign_routes,
    gateway_name,
    gateway_namespace,
    hosts,
    is_istio,
    shared,
    traits_of_component,
    twice,
)
from _rollout_seen import (
    answer,
    component,
    is_knative,
    is_kserve,
    live,
    phase_then,
    route_asked,
    rules,
    stable_target,
    target,
)

from velagen import (
    cases,
    contains,
    contains_text,
    each,
    first_given,
    given,
    join,
    length,
    let,
    matches,
    missing,
    one_of,
    unique,
)
from velagen import parameter as p
from velagen.rollout import transitions
from velagen.template.expression import Expression

queries = first_given(p.analysis.queries, [])
webhooks = first_given(p.analysis.webhooks, [])


def rises(number: Expression, one: Expression) -> Expression:
    """Whether a step is above the one before it."""
    return cases((number > 0, one > first_given(rules.steps[number - 1], 0)), otherwise=True)


#: Steps that are not above the one before.
falling = let([each(rules.steps, lambda _, one: one, where=lambda number, one: ~rises(number, one))])
#: A step of 0 % where nothing is measured, and that nobody lets pass.
is_blind = contains(rules.steps, 0) & (rules.shadow == 0) & ~contains(rules.pauseAt, 0)
no_steps = let([each(rules.pauseAt, lambda one: one, where=lambda one: ~contains(rules.steps, one))])
unbounded = let([each(queries, lambda one: one.name, where=lambda one: missing(one.atLeast) & missing(one.atMost))])
foreign = let([each(hosts, lambda host: host, where=lambda host: matches(host, IN_CLUSTER))])
nothing_measured = (
    (p.analysis.successRatio == 0)
    & (p.analysis.latency.timesStable == 0)
    & missing(p.analysis.latency.milliseconds)
    & (length(queries) == 0)
    & missing(p.analysis.budgetLeft)
    & (length(webhooks) == 0)
)
names_of_webhooks = let([each(webhooks, lambda one: one.name)])


#: Where a version is about to be brought in. Before a first deployment KServe has not named the model yet.
starts = one_of(phase_then, "", *transitions.ENDS)
needs_hosts = given(live.metadata.uid) & (stable_target != target) & starts & ~is_kserve
#: Alerts know the model and not its revisions: that of one that is asked for by its version never rings.
blind_alerts = let(
    [each(first_given(p.analysis.alerts, []), lambda one: one.name, where=lambda one: missing(one.selector))]
)
#: What the API server said of reads that this account may not do: "... is forbidden: User ... cannot get ...".
READS = {
    "seen": ("state",),
    "clock": ("leases",),
    "objects": ("live", "httpRoute", "virtualService"),
    "more": ("kserveRoute", "gateway", "routes", "app", "event", "liveDeployment"),
}
denied = let(
    [
        each(
            [first_given(answer(group, name).err, "") for group, names in READS.items() for name in names],
            lambda one: one,
            # In Knative mode the step makes no route.
            where=lambda one: contains_text(one, "is forbidden") & ~(is_kserve & contains_text(one, '"httproutes"')),
        )
    ]
)

#: The first of them is said, and nothing is created.
refusal = let(
    cases(
        (
            missing(component.type),
            f"the application has no component {p.component}: write the name of the component that is rolled out",
        ),
        (
            component.type != "kfserving",
            f"rollout-model works on a component of type kfserving, and {p.component} is of type {component.type}",
        ),
        (p.tidy, ""),
        (
            starts & (length(denied) > 0),
            f"the account that this application acts as lacks a right that rollout-model needs: {denied[0]}",
        ),
        (
            contains(traits_of_component, "canary"),
            f"{p.component} has the trait canary, and both would split the same traffic: drop the trait, or the step",
        ),
        (
            first_given(component.properties.stopped, False),
            f"{p.component} is stopped, and a version that runs nowhere can't be measured: drop stopped to roll it "
            "out, or the step to keep it stopped",
        ),
        (
            ~is_kserve & is_knative,
            f"via: route splits the requests between two objects of standard mode, and {p.component} has "
            "deploymentMode: knative: drop via, and KServe splits them between two revisions",
        ),
        (
            is_kserve & ~is_knative,
            f"via: kserve needs deploymentMode: knative, and {p.component} is in standard mode, where KServe 0.20 "
            "splits nothing: drop via, and a route splits the requests",
        ),
        (
            is_kserve & given(p.route),
            f"{p.component} has deploymentMode: knative, where Knative's own route splits the requests, by their share "
            "alone: drop route (with match and affinity it needs standard mode)",
        ),
        (
            is_kserve & (rules.shadow > 0),
            f"{p.component} has deploymentMode: knative, and Knative copies no requests: drop shadow, or use standard "
            "mode",
        ),
        (
            is_kserve & contains(rules.steps, 100),
            "steps holds 100, at which KServe forgets which revision was the stable one: write steps below 100; behind "
            "the last one the new version gets all",
        ),
        (
            is_kserve & (length(blind_alerts) > 0),
            f"the alert {blind_alerts[0]} of analysis knows {p.component} and not its revisions: write a selector, for "
            f'example component="{p.component}"',
        ),
        (length(falling) > 0, f"steps must rise, and {falling[0]} does not: write [10, 30, 60]"),
        (
            is_blind,
            "steps begins with 0, where nobody's requests reach the new version and nothing can be measured: add "
            "pauseAt: [0] (a person lets it go on) or shadow: {} (it gets copies of the requests)",
        ),
        (
            length(no_steps) > 0,
            f"pauseAt holds {no_steps[0]}, which is not in steps: write a percentage that is",
        ),
        (
            length(twice) > 0,
            f"another step, {twice[0]}, rolls out {p.component} too, and a component has one new version at a time: "
            "write one step for it (and one with tidy: true)",
        ),
        (
            length(shared) > 0,
            f"route.hosts holds {shared[0]}, and so does another component's route: their requests could not be told "
            "apart; write a host name of its own for each",
        ),
        (
            length(foreign_routes) > 0,
            f"the HTTPRoute {foreign_routes[0]} in this namespace is for a host of {p.component} at the same gateway "
            f"({join(hosts, ', ')}), and both would split its requests: write another host, or delete that route",
        ),
        (
            ~is_istio & (length(hosts) == 0) & needs_hosts,
            "route.hosts is missing, and KServe gives the model no address outside the cluster: write the host names "
            "that clients call, for example hosts: [sentiment.example.com] (or provider: istio, which splits inside "
            "the mesh)",
        ),
        (
            is_istio & given(route_asked.gateway) & (length(hosts) == 0),
            "route.hosts is missing: at a gateway clients call a host name, for example hosts: [sentiment.example.com] "
            "(or drop route.gateway: inside the mesh the model's own Service is split without one)",
        ),
        (
            length(foreign) > 0,
            f"route.hosts holds {foreign[0]}, a Service's name inside the cluster: write names that "
            "clients outside call",
        ),
        (
            contains_text(first_given(answer("more", "gateway").err, ""), "not found"),
            f"there is no Gateway {gateway_namespace}/{gateway_name}: write the one that clients come in by as "
            "route.gateway, with name and namespace",
        ),
        (
            given(p.analysis.budgetLeft) & ~contains(traits_of_component, "slo"),
            f"analysis.budgetLeft needs an error budget: give {p.component} the trait slo, or drop it",
        ),
        (nothing_measured, "analysis looks at nothing: leave successRatio or latency on, or write a query"),
        (
            length(unbounded) > 0,
            f"the query {unbounded[0]} of analysis has no bound: write atLeast or atMost",
        ),
        (
            length(unique(names_of_webhooks)) < length(names_of_webhooks),
            f"analysis.webhooks has two of one name ({join(names_of_webhooks, ', ')}), and a reason could not tell "
            "them apart: give each a name of its own",
        ),
        (
            rules.deadline < rules.interval * rules.checks,
            f"deadline is {rules.deadline} s, and the {rules.checks} checks of a step take "
            f"{rules.interval * rules.checks} s: raise it, or lower interval or checks",
        ),
        otherwise="",
    )
)
is_fit = let(refusal == "")
