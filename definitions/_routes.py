"""The routes that split a model's traffic between two versions: of Gateway API, and of Istio.

Sources: Gateway API v1 HTTPRoute, Istio VirtualService, KServe v0.20.0 pkg/controller/v1beta1/inferenceservice/
reconcilers/ingress/httproute_reconciler.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from velagen import Reference, comment, first_given, when
from velagen.template.expression import Expression, Value

#: What a route sends requests to: a Service's name, or its host for Istio, and its share in per cent. A share that is
#: there only sometimes stands under when(…).
HTTP = 80
#: Namespace and name of the gateway that KServe's charts make.
KSERVE_GATEWAY = ("kserve", "kserve-ingress-gateway")
GRPC_REQUEST = {"type": "RegularExpression", "name": "content-type", "value": "^application/grpc.*"}


def backend(name: Value, port: Value, weight: Value) -> dict[object, Value]:
    """A Service with its share of the requests, for a route of Gateway API."""
    return {"name": name, "port": port, "weight": weight}


def destination(host: Value, port: Value, weight: Value) -> dict[object, Value]:
    """The same for Istio."""
    return {"destination": {"host": host, "port": {"number": port}}, "weight": weight}


def http_route(
    metadata: Mapping[object, Value],
    gateway: Reference,
    hosts: Value,
    *,
    http: Value,
    grpc: Value,
    has_grpc: Expression,
) -> dict[str, Value]:
    """An HTTPRoute for *hosts* at *gateway* (KServe's own where it has no name); *http* and *grpc* are backends."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {
            "parentRefs": [
                {
                    "name": first_given(gateway.name, KSERVE_GATEWAY[1]),
                    "namespace": first_given(gateway.namespace, KSERVE_GATEWAY[0]),
                }
            ],
            "hostnames": hosts,
            "rules": [
                when(
                    has_grpc,
                    {
                        "matches": comment(
                            "gRPC, as in KServe's own route (reconcilers/ingress/httproute_reconciler.go).",
                            [{"headers": [GRPC_REQUEST]}],
                        ),
                        "backendRefs": grpc,
                    },
                ),
                {"backendRefs": http},
            ],
        },
    }


def virtual_service(
    metadata: Mapping[object, Value],
    hosts: Value,
    gateway: Value,
    seen_by: Mapping[object, Value],
    *,
    http: Value,
    grpc: Value,
    has_grpc: Expression,
) -> dict[object, Value]:
    """Istio's route for *hosts* at one *gateway*; ``mesh`` is all sidecars."""
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {
            "hosts": hosts,
            "gateways": [gateway],
            **seen_by,
            "http": [
                when(
                    has_grpc, {"match": [{"headers": {"content-type": {"prefix": "application/grpc"}}}], "route": grpc}
                ),
                {"route": http},
            ],
        },
    }
