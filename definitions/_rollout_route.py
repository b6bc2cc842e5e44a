"""The route of the step rollout-model: both versions with their weights."""

from __future__ import annotations

from _rollout_next import phase, properties, weight
from _rollout_refusals import hosts
from _rollout_seen import answer, candidate_name, found_routes, live, namespace, route_asked, stable_name, weights
from _routes import HTTP, backend, destination, http_route, virtual_service

from velagen import (
    cases,
    comment,
    each,
    first_given,
    given,
    if_else,
    length,
    let,
    one_of,
    operation,
    to_json,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Value

#: Requests come in at the transformer where there is one.
entry = let(if_else(given(properties.transformer), "transformer", "predictor"))
ports = let(first_given(live.spec.predictor.model.ports, []))
has_grpc = let((entry == "predictor") & (length(ports) > 1))
grpc_port = first_given(ports[1].containerPort, 9000)
#: The candidate is a backend as soon as it is ready, before its first request: a proxy may hear of a route before it
#: knows where the backends are, and answers 503 meanwhile. Earlier it may not have a Service yet.
is_split = let(one_of(phase, "warm", "step", "promote", "settle", "return", "drain"))
domain = f"{namespace}.svc.cluster.local"
stable_host = f"{stable_name}-{entry}.{domain}"
route_name = f"{p.component}-rollout"

found_version = first_given(
    answer("seen", "httpRoute").value.metadata.resourceVersion,
    answer("seen", "virtualService").value.metadata.resourceVersion,
    "",
)


wanted_weights = let(to_json(cases((is_split, [100 - weight, weight]), otherwise=[100])))
drifted = let([each(found_routes, weights, where=lambda of: weights(of) != wanted_weights)])


def route_metadata(name: Value) -> dict[object, Value]:
    """Name and namespace, and what makes a change by hand be written over."""
    return {
        "name": name,
        "namespace": namespace,
        when(length(drifted) > 0): {
            "annotations": {
                "rollout.velagen/written-over": comment(
                    "An equal object is not written, and what somebody changed by hand would stay.",
                    found_version,
                )
            }
        },
    }


def backends(port: Value) -> Value:
    """Both versions, for a route of Gateway API."""
    return [
        backend(f"{stable_name}-{entry}", port, 100 - weight),
        when(is_split, backend(f"{candidate_name}-{entry}", port, weight)),
    ]


def destinations(port: Value) -> Value:
    """The same for Istio."""
    return [
        destination(stable_host, port, 100 - weight),
        when(is_split, destination(f"{candidate_name}-{entry}.{domain}", port, weight)),
    ]


def service_of_istio(name: str, of: Value, gateway: Value, seen_by: dict[object, Value]) -> Expression:
    """Istio's route for the hosts *of* at one *gateway*."""
    value = virtual_service(
        route_metadata(name),
        of,
        gateway,
        seen_by,
        http=destinations(HTTP),
        grpc=destinations(grpc_port),
        has_grpc=has_grpc,
    )
    return operation("vela/kube", "#Apply", {"value": value})


gateway_route = operation(
    "vela/kube",
    "#Apply",
    {
        "value": http_route(
            route_metadata(route_name),
            route_asked.gateway,
            [each(hosts, lambda host: host)],
            http=backends(HTTP),
            grpc=backends(grpc_port),
            has_grpc=has_grpc,
        )
    },
)
