"""The trait canary: a part of the traffic goes to a new version of the model, or to several.

In knative mode KServe splits between two revisions (canaryTrafficPercent). In standard mode KServe 0.20 routes nothing:
its spec.canary makes pods, takes the stable version's away before they are ready, and sets no weights. So the new
version is an InferenceService of its own, a copy of the component's with another model, and the route is ours.
So is each of several candidates. After 0.20 KServe's own route has the weights of spec.canary (provider: kserve).

Sources: KServe v0.20.0 pkg/controller/v1beta1/inferenceservice (reconcilers/knative, components/predictor.go,
reconcilers/ingress), its master of 2026-08-21 (reconcilers/ingress/httproute_reconciler.go, applyCanaryWeights;
components/predictor.go, reconcileCanaryDeployments), Gateway API v1 HTTPRoute, Istio VirtualService.
"""

from __future__ import annotations

from collections.abc import Mapping

from _kserve import (
    AUTOSCALER_CLASS,
    BUDGET,
    CANARY_OUTPUT,
    DEPLOYMENT_MODE,
    INFERENCE_SERVICE,
    KNATIVE,
    STANDARD,
    STOP,
    has_canary,
    longest_name,
    not_a_model,
)
from _pod import SERVER
from _routes import (
    GRPC_OF_ISTIO,
    GRPC_REQUEST,
    HTTP,
    backend,
    destination,
    http_route,
    in_cookies,
    kept_cookie,
    sets_cookie,
    sets_cookie_of_istio,
    testers,
    testers_of_istio,
    virtual_service,
)

from velagen import (
    Status,
    Trait,
    cases,
    comment,
    conditions,
    contains,
    context,
    each,
    first_given,
    flatten,
    floor,
    given,
    if_else,
    join,
    length,
    let,
    lower,
    matches,
    missing,
    one_of,
    optional,
    refuse,
    replace_list,
    retain_keys,
    to_json,
    total,
    unique,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Reference, Value

stable = context.output
predictor = stable.spec.predictor
mode_of_model = let(
    comment(
        "In Knative mode, and with provider: kserve, KServe splits the traffic itself (patch); else it routes nothing, "
        "so the new version and the route are objects of their own (outputs).",
        first_given(stable.metadata.annotations[DEPLOYMENT_MODE], ""),
    )
)
is_knative = mode_of_model == KNATIVE
route_provider = let(first_given(p.route.provider, "gateway-api"))
is_istio = route_provider == "istio"
is_kserve = ~is_knative & (route_provider == "kserve")
#: The new versions and the route are ours.
is_ours = ~is_knative & (route_provider != "kserve")

new_name = f"{context.name}-canary"
#: Not the new version's name: KServe makes a route for it, called like the InferenceService, and would write over ours
#: (pkg/controller/v1beta1/inferenceservice/reconcilers/ingress/httproute_reconciler.go, createRawTopLevelHTTPRoute).
route_name = f"{new_name}-split"
entry = let(
    comment(
        "Requests come in at the transformer where there is one.",
        if_else(given(stable.spec.transformer), "transformer", "predictor"),
    )
)
stable_host = f"{context.name}-{entry}.{context.namespace}.svc.cluster.local"
#: The component's Service without a part's name: KServe's address of the whole model.
service_host = f"{context.name}.{context.namespace}.svc.cluster.local"
versions = let(
    comment(
        "The new versions, one or each candidate: object is the InferenceService, output its key in outputs, of and "
        "shown are for sentences.",
        [
            when(
                missing(p.candidates),
                {
                    "name": "canary",
                    "object": new_name,
                    "output": CANARY_OUTPUT,
                    "of": "",
                    "shown": first_given(p.modelUri, ""),
                    "modelUri": first_given(p.modelUri, ""),
                    "weight": first_given(p.weight, 0),
                },
            ),
            each(
                first_given(p.candidates, []),
                lambda one: {
                    "name": one.name,
                    "object": f"{new_name}-{one.name}",
                    "output": f"{CANARY_OUTPUT}-{one.name}",
                    "of": f" of candidate {one.name}",
                    "shown": f"{one.name} ({one.modelUri})",
                    "modelUri": one.modelUri,
                    "weight": one.weight,
                },
            ),
        ],
    )
)
several = given(p.candidates)
weight_of_new = let(total([each(versions, lambda one: one.weight)]))
#: What the component's own version is called in a cookie, and no candidate may be.
STABLE = "stable"
shares = let(
    comment(
        "What answers requests, the component's own version first.",
        [
            {"name": STABLE, "object": context.name, "weight": 100 - weight_of_new},
            each(versions, lambda one: {"name": one.name, "object": one.object, "weight": one.weight}),
        ],
    )
)
ports_of_model = let(
    comment(
        "A model with two ports (protocol: both) takes gRPC on the second; a transformer has one.",
        first_given(predictor.model.ports, []),
    )
)
has_grpc = (entry == "predictor") & (length(ports_of_model) > 1)
grpc_port = ports_of_model[1].containerPort

#: Of what KServe makes of the new version's name, and Knative of the old version's, to which KServe gives a tag of its
#: own (reconcilers/knative/ksvc_reconciler.go): a Service and a host.
old_revision = f"prev-{context.name}-predictor"
most_in_knative = 63 - len("prev--predictor")
most_characters = let(
    comment(
        "KServe puts isvc. before a version's name in a label, the part and the namespace behind it in a host: each "
        "may have 63 characters.",
        longest_name(entry),
    ),
)
too_long = let([each(versions, lambda one: one.object, where=lambda one: length(one.object) > most_characters)])
most_of_name = most_characters - length(too_long[0]) + length(context.name)

#: An HTTPRoute has so many (Gateway API v1, spec.rules).
MOST_RULES = 16

#: What the copy must not take over: its replicas are fixed.
SCALING = ("model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "autoScaling")


def is_copied(key: Expression, _value: Expression) -> Expression:
    """All of the predictor but its model and its scaling."""
    return ~contains(list(SCALING), key)


def new_version(name: Value, model: Value, replicas: Value) -> dict[str, Value]:
    """The InferenceService of a new version."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "annotations": {
                DEPLOYMENT_MODE: STANDARD,
                AUTOSCALER_CLASS: comment("The new version's replicas are fixed.", "none"),
            },
        },
        "spec": {
            each(stable.spec, where=lambda key, _: key != "predictor"): lambda key, value: {key: value},
            "predictor": comment(
                "A copy of the component's, but for its model and its scaling.",
                {
                    each(predictor, where=is_copied): lambda key, value: {key: value},
                    "minReplicas": replicas,
                    "model": copied_model(model),
                },
            ),
        },
    }


def copied_model(location: Value) -> dict[object, Value]:
    """The component's model with another location."""
    return {
        each(predictor.model, where=lambda key, _: (key != "storageUri") & (key != "storage")): (
            lambda key, value: {key: value}
        ),
        "storageUri": location,
    }


def entry_of_kserve(name: Value, model: Value, weight: Value, replicas: Value) -> dict[str, Value]:
    """A version as an entry of spec.canary: KServe lays it over the stable predictor, and makes NAME-name-predictor."""
    return {
        "trafficPercent": weight,
        "predictor": {
            "name": name,
            "minReplicas": comment("Where it is missing, a version of weight 0 has no pod.", replicas),
            "model": {
                **copied_model(model),
                "name": comment("KServe's CRD asks for it here alone; the container is called so anyway.", SERVER),
            },
        },
    }


# ---------------------------------------------------------------- who gets which version in any case

matched = let(
    comment(
        "Candidates that testers choose, by headers or by a cookie.",
        [
            each(
                first_given(p.candidates, []),
                lambda one: {
                    "name": one.name,
                    "object": f"{new_name}-{one.name}",
                    "headers": [each(one.match.headers, lambda header: header)],
                    "cookies": [
                        when(given(one.match.cookie), in_cookies(one.match.cookie.name, one.match.cookie.value))
                    ],
                },
                where=lambda one: given(one.match),
            )
        ],
    )
)
#: Each version's answers set it.
AFFINITY_COOKIE = new_name
is_kept = given(p.route.affinity)
seconds_kept = floor(p.route.affinity.seconds)
keeping = let(
    comment(
        "Versions that keep the clients that they answered; one without a share lets them go.",
        [each(shares, lambda one: one, where=lambda one: is_kept & (one.weight > 0))],
    )
)


def cookie_set(one: Reference) -> str:
    """What a version's answers set."""
    return kept_cookie(AFFINITY_COOKIE, one.name, seconds_kept)


def cookies_of_kept(one: Reference) -> list[Value]:
    """What the requests of a version's clients have."""
    return [in_cookies(AFFINITY_COOKIE, one.name)]


protocols = let(
    comment(
        "The port of each protocol and how its requests are told, as KServe's own route does "
        "(reconcilers/ingress/httproute_reconciler.go): gRPC first, REST is what is left.",
        [
            when(has_grpc, {"port": grpc_port, "gatewayApi": [GRPC_REQUEST], "istio": GRPC_OF_ISTIO}),
            {"port": HTTP, "gatewayApi": [], "istio": {}},
        ],
    )
)

# ---------------------------------------------------------------- Gateway API


def of_version(one: Reference, port: Value, share: Value) -> dict[object, Value]:
    """A version as a backend."""
    return {**backend(f"{one.object}-{entry}", port, share), when(is_kept): sets_cookie(cookie_set(one))}


def rules(protocol: Reference) -> list[Value]:
    """The rules of one protocol: testers, then the clients that a version keeps, then the weights."""
    also = each(protocol.gatewayApi, lambda one: one)
    return [
        each(
            matched,
            lambda one: {
                "matches": testers(one.headers, one.cookies, {}, also),
                "backendRefs": [of_version(one, protocol.port, 100)],
            },
        ),
        each(
            keeping,
            lambda one: {
                "matches": testers(None, cookies_of_kept(one), {}, also),
                "backendRefs": [of_version(one, protocol.port, 100)],
            },
        ),
        {
            when(length(protocol.gatewayApi) > 0): {"matches": [{"headers": [also]}]},
            "backendRefs": [each(shares, lambda one: of_version(one, protocol.port, one.weight))],
        },
    ]


rules_of_gateway = let(
    comment(
        "Rules of the HTTPRoute, by protocol: testers, then the clients that a version keeps, then all by weight.",
        flatten([each(protocols, rules)]),
    )
)
route = http_route({"name": route_name}, p.route.gateway, optional(p.route.hosts), rules_of_gateway)


# ---------------------------------------------------------------- Istio


def to_version(one: Reference, port: Value, share: Value) -> dict[object, Value]:
    """A version as a destination."""
    return {
        **destination(f"{one.object}-{entry}.{context.namespace}.svc.cluster.local", port, share),
        when(is_kept): sets_cookie_of_istio(cookie_set(one)),
    }


def rules_for_istio(protocol: Reference) -> list[Value]:
    """The same for Istio."""
    also: dict[object, Value] = {each(protocol.istio): lambda key, value: {key: value}}
    return [
        each(
            matched,
            lambda one: {
                "match": testers_of_istio(one.headers, one.cookies, also),
                "route": [to_version(one, protocol.port, 100)],
            },
        ),
        each(
            keeping,
            lambda one: {
                "match": testers_of_istio(None, cookies_of_kept(one), also),
                "route": [to_version(one, protocol.port, 100)],
            },
        ),
        {
            when(length(protocol.istio) > 0): {"match": [{"headers": protocol.istio}]},
            "route": [each(shares, lambda one: to_version(one, protocol.port, one.weight))],
        },
    ]


rules_of_istio = let(
    comment(
        "The same of the VirtualServices, where the first that fits counts.",
        flatten([each(protocols, rules_for_istio)]),
    )
)


def service_of_istio(name: str, hosts: Value, gateway: Value, seen_by: Mapping[object, Value]) -> Value:
    """Istio's route for *hosts* at one *gateway*."""
    return virtual_service({"name": name}, hosts, gateway, seen_by, rules_of_istio)


#: In the mesh every caller of the stable version's Service is split, and needs no other name. A name of the user's has
#: an object of its own: in the same one it would hold in the whole mesh, whoever's name it is.
mesh_service = service_of_istio(route_name, [stable_host], "mesh", {})
hosts_service = service_of_istio(
    f"{route_name}-hosts",
    [each(p.route.hosts, lambda host: host)],
    if_else(given(p.route.gateway), f"{p.route.gateway.namespace}/{p.route.gateway.name}", "mesh"),
    {
        when(missing(p.route.gateway)): {
            "exportTo": comment(
                "Without a gateway it is seen by callers in its own namespace alone; a gateway may run in any.", ["."]
            )
        }
    },
)
is_in_cluster = r"[.]svc([.]|$)|[.]cluster[.]local$"
#: What no user wrote right, candidate by candidate.
same = let(
    comment(
        "New versions at the component's own location, as errs calls them.",
        [
            each(
                versions,
                lambda one: one.of,
                where=lambda one: first_given(predictor.model.storageUri, "") == one.modelUri,
            )
        ],
    )
)
least_of_stable = first_given(predictor.minReplicas, 1)
too_many = let(
    comment(
        "New versions with more pods than the component, which KServe does not give them (provider: kserve).",
        [
            when(missing(p.candidates) & (p.minReplicas > least_of_stable), ""),
            each(
                first_given(p.candidates, []),
                lambda one: one.name,
                where=lambda one: first_given(one.minReplicas, p.minReplicas) > least_of_stable,
            ),
        ],
    )
)
names = let([each(first_given(p.candidates, []), lambda one: one.name)])
are_distinct = let(length(unique(names)) == length(names))
#: route_name and the second one of Istio's are called so, and KServe makes a route for each version, called like it.
TAKEN = (STABLE, "split")
taken = let(
    comment(
        "Names that the cookie has for the component, and the route for itself.",
        [each(names, lambda name: name, where=lambda name: one_of(name, *TAKEN))],
    )
)
twice = let(
    comment(
        "Candidates that ask for one header twice, which no gateway takes.",
        [
            each(
                matched,
                lambda one: one.name,
                where=lambda one: (
                    length(unique([each(one.headers, lambda header: lower(header.name))])) < length(one.headers)
                ),
            )
        ],
    )
)
asked = [each(matched, lambda one: to_json([one.headers, one.cookies]))]
rules_made = length(rules_of_gateway)
foreign_hosts = let(
    comment(
        "Names of Services whose owner nothing here knows; only this component's may be split.",
        [
            each(
                p.route.hosts,
                lambda host: host,
                where=lambda host: matches(host, is_in_cluster) & (host != stable_host) & (host != service_host),
            )
        ],
    )
)
own_hosts = let(
    comment(
        "The name that Istio splits inside the mesh anyway.",
        [each(p.route.hosts, lambda host: host, where=lambda host: host == stable_host)],
    )
)

# Status: with knative, or KServe's own weights, nothing of it is an output here: the component's own status tells.
not_ready = let(
    comment(
        "New versions that are not Ready. Where KServe splits, none is an output, and the component's own status "
        "tells.",
        [
            each(
                versions,
                lambda one: one,
                where=lambda one: (
                    given(context.outputs[one.output].kind)
                    & (length(conditions(context.outputs[one.output].status.conditions, "Ready", "True")) == 0)
                ),
            )
        ],
    )
)
is_healthy = length(not_ready) == 0
OF_ITS_OWN = "The new version: an InferenceService of its own."

canary = Trait(
    name="canary",
    description="Sends a part of a model's traffic to a new version of it.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["canary"],
    pod_disruptive=False,
    patch={
        when(is_knative & given(p.weight) & given(p.modelUri)): {
            "spec": {
                "predictor": {
                    "canaryTrafficPercent": retain_keys(p.weight),
                    "model": {"storageUri": retain_keys(p.modelUri)},
                }
            }
        },
        when(is_kserve): {
            "spec": {
                "canary": replace_list(
                    [
                        when(
                            given(p.modelUri) & given(p.weight),
                            entry_of_kserve("canary", p.modelUri, p.weight, p.minReplicas),
                        ),
                        each(
                            first_given(p.candidates, []),
                            lambda one: entry_of_kserve(
                                f"canary-{one.name}",
                                one.modelUri,
                                one.weight,
                                first_given(one.minReplicas, p.minReplicas),
                            ),
                        ),
                    ]
                )
            }
        },
    },
    outputs={
        when(is_ours & given(p.modelUri)): {
            CANARY_OUTPUT: comment(OF_ITS_OWN, new_version(new_name, p.modelUri, p.minReplicas))
        },
        when(is_ours & is_istio): {
            "virtualService": comment("Istio, for callers in the mesh, who use the component's Service.", mesh_service),
            when(given(p.route.hosts)): {
                "virtualServiceOfHosts": comment("Istio, for names that clients outside call.", hosts_service)
            },
        },
        when(is_ours & ~is_istio): {
            "httpRoute": comment("Gateway API, for names that clients call at the gateway.", route)
        },
        # Behind the others, where both releases of KubeVela put names that are computed.
        when(is_ours & several & are_distinct): {
            each(p.candidates): lambda _, one: {
                f"{CANARY_OUTPUT}-{one.name}": new_version(
                    f"{new_name}-{one.name}", one.modelUri, first_given(one.minReplicas, p.minReplicas)
                )
            }
        },
    },
    checks=[
        not_a_model("canary"),
        refuse(
            given(predictor.canaryTrafficPercent) | has_canary,
            "another canary already splits this component's traffic: write one canary",
        ),
        refuse(
            given(context.outputs[BUDGET]),
            "write canary before availability, which then keeps pods of the new version too",
        ),
        refuse(
            is_knative & (length(context.name) > most_in_knative),
            f"the component's name may have at most {most_in_knative} characters with a canary here, and has "
            f"{length(context.name)}: Knative's Service {old_revision} may have 63",
        ),
        refuse(
            ~is_knative & (length(too_long) > 0),
            f"the component's name may have at most {most_of_name} characters with a canary here, and has "
            f"{length(context.name)}: KServe's host name {too_long[0]}-{entry}-{context.namespace} and label "
            f"isvc.{too_long[0]}-{entry} may have 63",
        ),
        refuse(
            is_knative & several,
            "candidates belong to deploymentMode: standard; in knative mode Knative splits between two revisions, the "
            "newest and the one before: write modelUri and weight, or make the component standard",
        ),
        refuse(
            weight_of_new > 100,
            f"the candidates' weights make {weight_of_new} together, and all requests are 100: what they leave goes to "
            "the component's own version",
        ),
        refuse(
            ~are_distinct,
            f"two candidates have one name ({join(names, ', ')}): give each a name of its own",
        ),
        refuse(
            length(taken) > 0,
            f"no candidate may be called {taken[0]}: {STABLE} is the component's own version in affinity's cookie, and "
            "split the route: call it b, or v2",
        ),
        refuse(
            length(twice) > 0,
            f"match of candidate {twice[0]} has one header twice, and no request fits both: write each header once",
        ),
        refuse(
            length(unique(asked)) < length(matched),
            "two candidates have the same match, and only the first would get those requests: let them differ",
        ),
        refuse(
            is_ours & ~is_istio & (rules_made > MOST_RULES),
            f"the route would have {rules_made} rules, and an HTTPRoute has {MOST_RULES} at most: REST and gRPC each "
            "need one for every match, and one for every version with affinity: write fewer candidates, or drop "
            "route.affinity",
        ),
        refuse(
            is_kserve & (given(p.route.hosts) | given(p.route.gateway) | is_kept | (length(matched) > 0)),
            "with provider: kserve the route is KServe's own, with its hosts, its gateway and only weights: drop "
            "hosts, gateway, affinity and match, or write provider: gateway-api",
        ),
        refuse(
            is_kserve & (given(stable.spec.transformer) | given(stable.spec.explainer)),
            "with provider: kserve requests would go past the transformer or explainer, since KServe gives each rule "
            "of its route the new versions' predictors: write provider: gateway-api or istio",
        ),
        refuse(
            is_kserve & (length(too_many) > 0),
            f"minReplicas of the new version may be {least_of_stable} at most with provider: kserve, as minReplicas of "
            "the component is: KServe takes no more",
        ),
        refuse(
            is_knative & given(p.route),
            "route belongs to deploymentMode: standard; in knative mode Knative splits the traffic: drop route",
        ),
        refuse(
            is_ours & ~is_istio & missing(p.route.hosts),
            "route.hosts is missing: a Gateway API route needs the host names that clients call, for example "
            "hosts: [sentiment.example.com] (or write provider: istio, which splits inside the mesh)",
        ),
        refuse(
            is_istio & given(p.route.gateway) & missing(p.route.hosts),
            "route.hosts is missing: at a gateway clients call a host name, for example hosts: [sentiment.example.com] "
            "(or drop route.gateway: inside the mesh the model's own Service is split without one)",
        ),
        refuse(
            length(foreign_hosts) > 0,
            f"route.hosts holds {foreign_hosts[0]}, a Service's name inside the cluster and none of this model's: its "
            f"requests would come here; write names that clients outside call (this model's own is {stable_host})",
        ),
        refuse(
            is_istio & missing(p.route.gateway) & (length(own_hosts) > 0),
            f"route.hosts holds {stable_host}, which is split in the mesh by itself: drop it",
        ),
        refuse(
            missing(predictor.model) & given(predictor.containers),
            "canary works with modelUri, and this component has an image of its own: bring another image in by the "
            "step rollout-model",
        ),
        refuse(
            given(stable.metadata.annotations[STOP]),
            "the component is stopped, and a canary would run beside no pod: drop stopped, or the canary",
        ),
        refuse(
            given(predictor.storageUris),
            "canary works with modelUri alone, and this component has artifacts or several models: put artifacts into "
            "the model's own folder, and bring another list of models in by the step rollout-model",
        ),
        refuse(
            given(predictor.model.storage),
            "canary works with modelUri alone, and this component has a storageKey: give the credentials by "
            "serviceAccount instead",
        ),
        refuse(
            length(same) > 0,
            f"modelUri{same[0]} is the component's own: a canary needs the location of a new version",
        ),
    ],
    status=Status(
        healthy=is_healthy,
        message=cases(
            (is_healthy & several, join([each(versions, lambda one: f"{one.weight} % to {one.name}")], ", ")),
            (is_healthy, f"{weight_of_new} % to {first_given(p.modelUri, '')}"),
            otherwise=join([each(not_ready, lambda one: f"{one.shown} is not ready yet")], ", "),
        ),
    ),
)
