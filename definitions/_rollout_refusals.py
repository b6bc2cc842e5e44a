"""What the step rollout-model refuses, in the sentence that ``velagen check`` and ``vela status`` say."""

from __future__ import annotations

from _rollout_seen import answer, component, route_asked, rules
from _routes import KSERVE_GATEWAY

from velagen import cases, contains, contains_text, each, first_given, given, length, let, matches, missing
from velagen import parameter as p
from velagen.template.expression import Expression

queries = first_given(p.analysis.queries, [])
hosts = first_given(route_asked.hosts, [])
gateway_name = first_given(route_asked.gateway.name, KSERVE_GATEWAY[1])
gateway_namespace = first_given(route_asked.gateway.namespace, KSERVE_GATEWAY[0])
is_istio = let(first_given(route_asked.provider, "gateway-api") == "istio")


def rises(number: Expression, one: Expression) -> Expression:
    """Whether a step is above the one before it."""
    return cases((number > 0, one > first_given(rules.steps[number - 1], 0)), otherwise=True)


#: Steps that are not above the one before.
falling = let([each(rules.steps, lambda _, one: one, where=lambda number, one: ~rises(number, one))])
traits_of_component = [each(first_given(component.traits, []), lambda trait: first_given(trait.type, ""))]
unbounded = let([each(queries, lambda one: one.name, where=lambda one: missing(one.atLeast) & missing(one.atMost))])
is_in_cluster = r"[.]svc([.]|$)|[.]cluster[.]local$"
foreign = let([each(hosts, lambda host: host, where=lambda host: matches(host, is_in_cluster))])
nothing_measured = (
    (p.analysis.successRatio == 0)
    & (p.analysis.latency.timesStable == 0)
    & missing(p.analysis.latency.milliseconds)
    & (length(queries) == 0)
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
            contains(traits_of_component, "canary"),
            f"{p.component} has the trait canary, and both would split the same traffic: drop the trait, or the step",
        ),
        (
            first_given(component.properties.deploymentMode, "") == "knative",
            "rollout-model works in standard mode: drop deploymentMode, or use the trait canary",
        ),
        (length(falling) > 0, f"steps must rise, and {falling[0]} does not: write [10, 30, 60]"),
        (
            ~is_istio & (length(hosts) == 0),
            "route.hosts is missing: a Gateway API route needs the host names that clients call, for example "
            "hosts: [sentiment.example.com] (or write provider: istio, which splits inside the mesh)",
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
            contains_text(first_given(answer("there", "gateway").err, ""), "not found"),
            f"there is no Gateway {gateway_namespace}/{gateway_name}: write the one that clients come in by as "
            "route.gateway, with name and namespace",
        ),
        (nothing_measured, "analysis looks at nothing: leave successRatio or latency on, or write a query"),
        (
            length(unbounded) > 0,
            f"the query {unbounded[0]} of analysis has no bound: write atLeast or atMost",
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
