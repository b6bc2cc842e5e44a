"""The trait canary: a part of the traffic goes to a new version of the model.

In knative mode KServe splits between two revisions (canaryTrafficPercent). In standard mode KServe 0.20 routes nothing:
its spec.canary makes pods, takes the stable version's away before they are ready, and sets no weights. So the new
version is an InferenceService of its own, a copy of the component's with another model, and the route is ours.

Sources: KServe v0.20.0 pkg/controller/v1beta1/inferenceservice (reconcilers/knative, components/predictor.go,
reconcilers/ingress), Gateway API v1 HTTPRoute, Istio VirtualService.
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
    longest_name,
    not_a_model,
)
from _routes import HTTP, backend, destination, http_route, virtual_service

from velagen import (
    Status,
    Trait,
    comment,
    conditions,
    contains,
    context,
    each,
    first_given,
    given,
    if_else,
    length,
    let,
    matches,
    missing,
    optional,
    refuse,
    retain_keys,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Value

stable = context.output
predictor = stable.spec.predictor
mode_of_model = let(
    comment(
        "In Knative mode KServe splits the traffic itself (patch); in standard mode it routes nothing, so the new "
        "version and the route are objects of their own (outputs).",
        first_given(stable.metadata.annotations[DEPLOYMENT_MODE], ""),
    )
)
is_knative = mode_of_model == KNATIVE
route_provider = let(first_given(p.route.provider, "gateway-api"))
is_istio = route_provider == "istio"

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
new_host = f"{new_name}-{entry}.{context.namespace}.svc.cluster.local"
stable_weight = 100 - p.weight
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
most_characters = let(
    comment(
        "What KServe and Knative call the new version's objects, or the old one's, has to fit 63 characters.",
        if_else(is_knative, 63 - len("prev--predictor"), longest_name(entry, added=len("-canary"))),
    )
)
longest_made = if_else(
    is_knative,
    f"Knative's Service {old_revision}",
    f"KServe's host name {new_name}-{entry}-{context.namespace} and label isvc.{new_name}-{entry}",
)

#: What the copy must not take over: its replicas are fixed.
SCALING = ("model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "autoScaling")


def is_copied(key: Expression, _value: Expression) -> Expression:
    """All of the predictor but its model and its scaling."""
    return ~contains(list(SCALING), key)


new_version = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {
        "name": new_name,
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
                "minReplicas": p.minReplicas,
                "model": {
                    each(predictor.model, where=lambda key, _: (key != "storageUri") & (key != "storage")): (
                        lambda key, value: {key: value}
                    ),
                    "storageUri": p.modelUri,
                },
            },
        ),
    },
}


def backends(port: Value) -> Value:
    """Both versions with their weights, for a route of Gateway API."""
    return [
        backend(f"{context.name}-{entry}", port, stable_weight),
        backend(f"{new_name}-{entry}", port, p.weight),
    ]


def destinations(port: Value) -> Value:
    """The same for Istio."""
    return [destination(stable_host, port, stable_weight), destination(new_host, port, p.weight)]


route = http_route(
    {"name": route_name},
    p.route.gateway,
    optional(p.route.hosts),
    http=backends(HTTP),
    grpc=backends(grpc_port),
    has_grpc=has_grpc,
)


def service_of_istio(name: str, hosts: Value, gateway: Value, seen_by: Mapping[object, Value]) -> Value:
    """Istio's route for *hosts* at one *gateway*."""
    return virtual_service(
        {"name": name},
        hosts,
        gateway,
        seen_by,
        http=destinations(HTTP),
        grpc=destinations(grpc_port),
        has_grpc=has_grpc,
    )


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

# Status: with knative nothing of it is an output here, and the component's own status tells.
conditions_seen = let(first_given(context.outputs[CANARY_OUTPUT].status.conditions, []))
ready_conditions = let(conditions(conditions_seen, "Ready", "True"))
has_version = let(given(context.outputs[CANARY_OUTPUT].kind))
is_healthy = ~has_version | (length(ready_conditions) > 0)

canary = Trait(
    name="canary",
    description="Sends a part of a model's traffic to a new version of it.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["canary"],
    pod_disruptive=False,
    patch={
        when(is_knative): {
            "spec": {
                "predictor": {
                    "canaryTrafficPercent": retain_keys(p.weight),
                    "model": {"storageUri": retain_keys(p.modelUri)},
                }
            }
        }
    },
    outputs={
        when(~is_knative): {CANARY_OUTPUT: comment("The new version: an InferenceService of its own.", new_version)},
        when(~is_knative & is_istio): {
            "virtualService": comment("Istio, for callers in the mesh, who use the component's Service.", mesh_service),
            when(given(p.route.hosts)): {
                "virtualServiceOfHosts": comment("Istio, for names that clients outside call.", hosts_service)
            },
        },
        when(~is_knative & ~is_istio): {
            "httpRoute": comment("Gateway API, for names that clients call at the gateway.", route)
        },
    },
    checks=[
        not_a_model("canary"),
        refuse(
            given(predictor.canaryTrafficPercent) | given(context.outputs[CANARY_OUTPUT]),
            "another canary already splits this component's traffic: write one canary",
        ),
        refuse(
            given(context.outputs[BUDGET]),
            "write canary before availability, which then keeps pods of the new version too",
        ),
        refuse(
            length(context.name) > most_characters,
            f"the component's name may have at most {most_characters} characters with a canary here, and has "
            f"{length(context.name)}: {longest_made} may have 63",
        ),
        refuse(
            is_knative & given(p.route),
            "route belongs to deploymentMode: standard; in knative mode Knative splits the traffic: drop route",
        ),
        refuse(
            ~is_knative & ~is_istio & missing(p.route.hosts),
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
            "canary works with modelUri alone, and this component has artifacts: put them into the model's own folder",
        ),
        refuse(
            given(predictor.model.storage),
            "canary works with modelUri alone, and this component has a storageKey: give the credentials by "
            "serviceAccount instead",
        ),
        refuse(
            (first_given(predictor.model.storageUri, "") == p.modelUri),
            "modelUri is the component's own: a canary needs the location of a new version",
        ),
    ],
    status=Status(
        healthy=is_healthy,
        message=if_else(is_healthy, f"{p.weight} % to {p.modelUri}", f"{p.modelUri} is not ready yet"),
    ),
)
