"""The route of the step rollout-model: both versions with their weights."""

from __future__ import annotations

from _rollout_hosts import beside_kserve, gateway_name, gateway_namespace, hosts
from _rollout_next import is_shadow, phase, weight
from _rollout_scale import properties
from _rollout_seen import (
    answer,
    candidate_object,
    found_routes,
    live,
    namespace,
    route_asked,
    rules,
    stable_name,
    target,
    weights,
)
from _routes import (
    GRPC_OF_ISTIO,
    GRPC_REQUEST,
    HTTP,
    backend,
    destination,
    in_cookies,
    kept_cookie,
    sets_cookie,
    sets_cookie_of_istio,
    testers,
    testers_of_istio,
)

from velagen import (
    cases,
    comment,
    context,
    each,
    first_given,
    floor,
    given,
    if_else,
    length,
    let,
    one_of,
    sha256,
    to_json,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Value

#: Requests come in at the transformer where there is one.
entry = let(if_else(given(properties.transformer), "transformer", "predictor"))
ports = let(first_given(live.spec.predictor.model.ports, []))
has_grpc = let((entry == "predictor") & (length(ports) > 1))
grpc_port = first_given(ports[1].containerPort, 9000)
#: The candidate is a backend as soon as it is ready, before its first request: a proxy may hear of a route before it
#: knows where the backends are, and answers 503 meanwhile. Earlier it may not have a Service yet.
is_split = let(one_of(phase, "warm", "step", "pause", "promote", "settle", "return", "drain"))
domain = f"{namespace}.svc.cluster.local"
stable_host = f"{stable_name}-{entry}.{domain}"
candidate_host = f"{candidate_object}-{entry}.{domain}"
route_name = f"{p.component}-rollout"

# ---------------------------------------------------------------- who gets the candidate in any case

matched = route_asked.match
#: The candidate's answers set it; another rollout's has another value.
AFFINITY_COOKIE = f"{p.component}-rollout"
is_kept = given(route_asked.affinity)
seconds_kept = floor(first_given(route_asked.affinity.seconds, 3600))
set_cookie = let(kept_cookie(AFFINITY_COOKIE, target, seconds_kept))
#: Not while the candidate is about to be taken away.
has_testers = let((given(matched) | is_kept) & one_of(phase, "step", "pause", "promote", "settle"))


cookies = let(
    [
        when(
            given(matched.cookie),
            in_cookies(first_given(matched.cookie.name, ""), first_given(matched.cookie.value, "")),
        ),
        when(is_kept, in_cookies(AFFINITY_COOKIE, target)),
    ]
)
headers_matched = let(
    [
        each(
            first_given(matched.headers, []),
            lambda one: {"name": first_given(one.name, ""), "value": first_given(one.value, "")},
        )
    ]
)

# ---------------------------------------------------------------- drift

found_version = first_given(
    answer("objects", "httpRoute").value.metadata.resourceVersion,
    answer("objects", "virtualService").value.metadata.resourceVersion,
    "",
)


of_split = let(to_json(cases((is_split, [100 - weight, weight]), otherwise=[100])))
#: Rule by rule, as they are written below.
wanted_weights = let(
    [
        when(has_grpc & has_testers, "[100]"),
        when(has_grpc, of_split),
        when(has_testers, "[100]"),
        of_split,
    ]
)
split_wanted = let(to_json(wanted_weights))
has_drifted = let((length(found_routes) > 0) & (to_json([each(found_routes, weights)]) != split_wanted))


#: What makes a change by hand be written over.
written_over: dict[object, Value] = {
    when(has_drifted): {
        "rollout.velagen/written-over": comment(
            "An equal object is not written, and what somebody changed by hand would stay.",
            found_version,
        )
    }
}


def route_metadata(name: Value) -> dict[object, Value]:
    """Name and namespace."""
    return {"name": name, "namespace": namespace}


# ---------------------------------------------------------------- Gateway API

#: KServe's own route is for ^/.*$ of the same host, and for gRPC's path. Of two regular expressions the longer one is
#: asked first by Contour, Envoy Gateway and Istio; Gateway API itself leaves that to them.
ANY_PATH: dict[object, Value] = {when(beside_kserve): {"path": {"type": "RegularExpression", "value": "^/(.*)$"}}}
ANY_GRPC_PATH: dict[object, Value] = {
    when(beside_kserve): {"path": {"type": "RegularExpression", "value": "^/(inference[.]GRPCInferenceService/.*|.*)$"}}
}


def of_candidate(port: Value, share: Value) -> dict[object, Value]:
    """The candidate as a backend."""
    return {
        **backend(f"{candidate_object}-{entry}", port, share),
        when(is_kept): sets_cookie(set_cookie),
    }


def split_rule(port: Value) -> dict[object, Value]:
    """Both versions by their weights, and copies for the candidate."""
    mirror = {"backendRef": {"name": f"{candidate_object}-{entry}", "port": port}, "percent": rules.shadow}
    return {
        "backendRefs": [
            backend(f"{stable_name}-{entry}", port, 100 - weight),
            when(is_split, of_candidate(port, weight)),
        ],
        when(is_shadow): {"filters": [{"type": "RequestMirror", "requestMirror": mirror}]},
    }


gateway_spec = let(
    {
        "parentRefs": [{"name": gateway_name, "namespace": gateway_namespace}],
        "hostnames": [each(hosts, lambda host: host)],
        "rules": [
            when(
                has_grpc & has_testers,
                {
                    "matches": testers(headers_matched, cookies, ANY_GRPC_PATH, GRPC_REQUEST),
                    "backendRefs": [of_candidate(grpc_port, 100)],
                },
            ),
            when(
                has_grpc,
                {"matches": [{**ANY_GRPC_PATH, "headers": [GRPC_REQUEST]}], **split_rule(grpc_port)},
            ),
            when(
                has_testers,
                {"matches": testers(headers_matched, cookies, ANY_PATH), "backendRefs": [of_candidate(HTTP, 100)]},
            ),
            {when(beside_kserve): {"matches": [ANY_PATH]}, **split_rule(HTTP)},
        ],
    }
)
#: The route bears the sum of what it was written from: an equal one is not written again, which would cost an
#: evaluation of all of this. Each session writes it once, for its revision's ResourceTracker.
SUM = "rollout.velagen/sum"
sum_of_route = let(sha256(to_json({"session": context.stepSessionID, "spec": gateway_spec})))
is_route_written = ~has_drifted & (
    first_given(answer("objects", "httpRoute").value.metadata.annotations[SUM], "") == sum_of_route
)
gateway_route: Value = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {**route_metadata(route_name), "annotations": {SUM: sum_of_route, **written_over}},
    "spec": gateway_spec,
}

# ---------------------------------------------------------------- Istio


def destination_of_candidate(port: Value, share: Value) -> dict[object, Value]:
    """The candidate as a destination."""
    return {
        **destination(candidate_host, port, share),
        when(is_kept): sets_cookie_of_istio(set_cookie),
    }


def split_of_istio(port: Value) -> dict[object, Value]:
    """Both versions by their weights, and copies for the candidate."""
    return {
        "route": [
            destination(stable_host, port, 100 - weight),
            when(is_split, destination_of_candidate(port, weight)),
        ],
        when(is_shadow): {
            "mirror": {"host": candidate_host, "port": {"number": port}},
            "mirrorPercentage": {"value": rules.shadow},
        },
    }


#: For the mesh and for names of the user's.
rules_of_istio = let(
    [
        when(
            has_grpc & has_testers,
            {
                "match": testers_of_istio(headers_matched, cookies, GRPC_OF_ISTIO),
                "route": [destination_of_candidate(grpc_port, 100)],
            },
        ),
        when(has_grpc, {"match": [{"headers": GRPC_OF_ISTIO}], **split_of_istio(grpc_port)}),
        when(
            has_testers,
            {
                "match": testers_of_istio(headers_matched, cookies, {}),
                "route": [destination_of_candidate(HTTP, 100)],
            },
        ),
        split_of_istio(HTTP),
    ]
)


def service_of_istio(name: str, of: Value, gateway: Value, seen_by: dict[object, Value]) -> Value:
    """Istio's route for the hosts *of* at one *gateway*."""
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {**route_metadata(name), when(has_drifted): {"annotations": written_over}},
        "spec": {
            "hosts": of,
            "gateways": [gateway],
            **seen_by,
            "http": rules_of_istio,
        },
    }
