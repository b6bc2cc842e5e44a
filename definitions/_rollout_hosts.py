"""The host names and the gateway of a rollout's route, and who else has them.

Sources: KServe v0.20.0 pkg/controller/v1beta1/inferenceservice/reconcilers/ingress/httproute_reconciler.go.
"""

from __future__ import annotations

from _rollout_seen import answer, component, is_kserve, live, route_asked
from _routes import KSERVE_GATEWAY

from velagen import (
    cases,
    contains,
    context,
    each,
    first_given,
    flatten,
    given,
    has_prefix,
    length,
    let,
    matches,
    split,
)
from velagen import parameter as p

is_istio = let(first_given(route_asked.provider, "gateway-api") == "istio")
#: Names of Services.
IN_CLUSTER = r"[.]svc([.]|$)|[.]cluster[.]local$"

#: The route that KServe makes for the stable version.
kserve_route = answer("more", "kserveRoute").value
url = first_given(live.status.url, "")
host_of_url = let(split(split(first_given(split(url, "://")[1], url), "/")[0], ":")[0])
#: The names by which KServe serves the model. With a path template one is the domain itself, which all models share.
kserve_hosts = let(
    cases(
        (
            length(first_given(kserve_route.spec.hostnames, [])) > 0,
            [
                each(
                    first_given(kserve_route.spec.hostnames, []),
                    lambda _, host: host,
                    where=lambda number, host: (number == 0) | has_prefix(host, f"{p.component}-"),
                )
            ],
        ),
        ((host_of_url != "") & ~matches(host_of_url, IN_CLUSTER), [host_of_url]),
        otherwise=[],
    )
)
hosts = let(
    cases(
        (is_kserve, []),
        (given(route_asked.hosts), route_asked.hosts),
        (is_istio, []),
        otherwise=kserve_hosts,
    )
)
#: Whether KServe's own route is for the same names.
beside_kserve = let(length([each(hosts, lambda host: host, where=lambda host: contains(kserve_hosts, host))]) > 0)
gateway_name = let(first_given(route_asked.gateway.name, kserve_route.spec.parentRefs[0].name, KSERVE_GATEWAY[1]))
gateway_namespace = let(
    first_given(route_asked.gateway.namespace, kserve_route.spec.parentRefs[0].namespace, KSERVE_GATEWAY[0])
)

# ---------------------------------------------------------------- who else has them

top_steps = first_given(answer("more", "app").value.spec.workflow.steps, [])
all_steps = let(
    [
        each(top_steps, lambda step: step),
        each(flatten([each(top_steps, lambda step: first_given(step.subSteps, []))]), lambda step: step),
    ]
)
#: The other rollouts of the application.
rollouts = let(
    [
        each(
            all_steps,
            lambda step: {"name": first_given(step.name, ""), "properties": first_given(step.properties, {})},
            where=lambda step: (
                (first_given(step.type, "") == "rollout-model")
                & (first_given(step.name, "") != context.stepName)
                & ~first_given(step.properties.tidy, False)
            ),
        )
    ]
)
twice = let(
    [
        each(
            rollouts,
            lambda one: one.name,
            where=lambda one: first_given(one.properties.component, "") == p.component,
        )
    ]
)
hosts_of_rollouts = flatten([each(rollouts, lambda one: first_given(one.properties.route.hosts, []))])
traits_of_others = flatten(
    [
        each(
            first_given(answer("objects", "components").value, {}),
            lambda _, one: first_given(one.traits, []),
            where=lambda name, _: name != p.component,
        )
    ]
)
hosts_of_traits = flatten([each(traits_of_others, lambda trait: first_given(trait.properties.route.hosts, []))])
#: Those of its hosts that something else of the application has.
shared = let(
    [
        each(
            hosts,
            lambda host: host,
            where=lambda host: contains(hosts_of_rollouts, host) | contains(hosts_of_traits, host),
        )
    ]
)
#: Routes at the same gateway that have one of its hosts, and are neither KServe's of this model nor this one.
foreign_routes = let(
    [
        each(
            first_given(answer("more", "routes")["values"]["items"], []),
            lambda one: first_given(one.metadata.name, ""),
            where=lambda one: (
                ~contains([p.component, f"{p.component}-rollout"], first_given(one.metadata.name, p.component))
                & (first_given(one.spec.parentRefs[0].name, "") == gateway_name)
                & (
                    length(
                        [
                            each(
                                first_given(one.spec.hostnames, []),
                                lambda host: host,
                                where=lambda host: contains(hosts, host),
                            )
                        ]
                    )
                    > 0
                )
            ),
        )
    ]
)
traits_of_component = [each(first_given(component.traits, []), lambda trait: first_given(trait.type, ""))]
