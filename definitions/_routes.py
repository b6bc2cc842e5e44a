"""The routes that split a model's traffic between its versions: of Gateway API, and of Istio.

Sources: Gateway API v1 HTTPRoute, Istio VirtualService, KServe v0.20.0 pkg/controller/v1beta1/inferenceservice/
reconcilers/ingress/httproute_reconciler.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from velagen import Reference, each, first_given, length, when
from velagen.template.expression import Value

#: What a route sends requests to: a Service's name, or its host for Istio, and its share in per cent. A share that is
#: there only sometimes stands under when(…).
HTTP = 80
#: Namespace and name of the gateway that KServe's charts make.
KSERVE_GATEWAY = ("kserve", "kserve-ingress-gateway")
GRPC_REQUEST = {"type": "RegularExpression", "name": "content-type", "value": "^application/grpc.*"}
GRPC_OF_ISTIO: dict[object, Value] = {"content-type": {"prefix": "application/grpc"}}


def backend(name: Value, port: Value, weight: Value) -> dict[object, Value]:
    """A Service with its share of the requests, for a route of Gateway API."""
    return {"name": name, "port": port, "weight": weight}


def destination(host: Value, port: Value, weight: Value) -> dict[object, Value]:
    """The same for Istio."""
    return {"destination": {"host": host, "port": {"number": port}}, "weight": weight}


# ---------------------------------------------------------------- cookies


def sets_cookie(cookie: Value) -> dict[object, Value]:
    """A backend whose answers set *cookie*, for a route of Gateway API."""
    add = {"add": [{"name": "Set-Cookie", "value": cookie}]}
    return {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": add}]}


def sets_cookie_of_istio(cookie: Value) -> dict[object, Value]:
    """The same for Istio."""
    return {"headers": {"response": {"add": {"Set-Cookie": cookie}}}}


def kept_cookie(name: Value, value: Value, seconds: Value) -> str:
    """What Set-Cookie says of a cookie that is kept for so long."""
    return f"{name}={value}; Max-Age={seconds}; Path=/; HttpOnly"


# ---------------------------------------------------------------- testers


def in_cookies(name: Value, value: Value) -> str:
    """The header cookie where it has this one; gateways match it as a whole."""
    return f"(.*; ?)?{name}={value}(;.*)?"


def testers(headers: Reference | None, cookies: Value, path: Mapping[object, Value], *also: Value) -> list[Value]:
    """What the requests with all *headers*, or one of *cookies*, look like, for a route of Gateway API."""

    def match(*more: Value) -> dict[object, Value]:
        return {**path, "headers": [*also, *more]}

    found = [each(cookies, lambda one: match({"type": "RegularExpression", "name": "cookie", "value": one}))]
    if headers is None:
        return found
    exact = each(headers, lambda one: {"type": "Exact", "name": one.name, "value": one.value})
    return [when(length(headers) > 0, match(exact)), *found]


def testers_of_istio(headers: Reference | None, cookies: Value, also: Mapping[object, Value]) -> list[Value]:
    """The same for Istio."""
    found = [each(cookies, lambda one: {"headers": {**also, "cookie": {"regex": one}}})]
    if headers is None:
        return found
    exact = {"headers": {**also, each(headers): lambda _, one: {f"{one.name}": {"exact": one.value}}}}
    return [when(length(headers) > 0, exact), *found]


# ---------------------------------------------------------------- routes


def http_route(metadata: Mapping[object, Value], gateway: Reference, hosts: Value, rules: Value) -> dict[str, Value]:
    """An HTTPRoute for *hosts* at *gateway* (KServe's own where it has no name)."""
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
            "rules": rules,
        },
    }


def virtual_service(
    metadata: Mapping[object, Value],
    hosts: Value,
    gateway: Value,
    seen_by: Mapping[object, Value],
    rules: Value,
) -> dict[object, Value]:
    """Istio's route for *hosts* at one *gateway*; ``mesh`` is all sidecars."""
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": metadata,
        "spec": {"hosts": hosts, "gateways": [gateway], **seen_by, "http": rules},
    }
