"""The addon's admission policies on the real API server: what they let pass, what they refuse, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cluster

from velagen.lab import Lab, wait_until
from velagen.lab.api import Api, ApiError
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
#: Two tenants, and a namespace of the platform.
TEAM, OTHER, EXEMPT = "admission-a", "admission-b", "istio-system"
PROMETHEUS, PROXY = "http://prometheus.monitoring.svc:9090", "http://proxy.admission-b.svc:8080/team"
SETTINGS = (
    f"admission.prometheus[0].addresses[0]={PROMETHEUS}",
    f"admission.prometheus[1].namespaces[0]={OTHER}",
    f"admission.prometheus[1].addresses[0]={PROXY}",
    "admission.queries=own-namespace",
    "admission.hosts[0].hosts[0]=*-NAMESPACE.example.com",
    f"admission.hosts[1].namespaces[0]={TEAM}",
    "admission.hosts[1].hosts={sentiment.example.com,*.a.example.com}",
    "admission.gateways[0].gateways[0]=kserve/kserve-ingress-gateway",
    f"admission.gateways[1].namespaces[0]={TEAM}",
    "admission.gateways[1].gateways[0]=NAMESPACE/own-*",
)
POLICIES = 10
#: Kinds that are bounded and that the lab does not have: group, version, plural, kind.
MORE_KINDS = (
    ("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute"),
    ("gateway.networking.k8s.io", "v1alpha2", "tcproutes", "TCPRoute"),
    ("networking.istio.io", "v1", "serviceentries", "ServiceEntry"),
    ("networking.istio.io", "v1", "gateways", "Gateway"),
    ("serving.knative.dev", "v1beta1", "domainmappings", "DomainMapping"),
    ("keda.sh", "v1alpha1", "scaledjobs", "ScaledJob"),
)


def crd(group: str, version: str, plural: str, kind: str) -> dict[str, Any]:
    """A kind that takes anything; approved, as Gateway API's group is one of Kubernetes' own."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


def policies(api: Api) -> list[str]:
    found = api.list("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")
    return [one["metadata"]["name"] for one in found if one["metadata"]["name"].startswith("kfserving-")]


@pytest.fixture(scope="module")
def api(lab: Lab) -> Iterator[Api]:
    """The lab with the policies in force; they are gone afterwards."""
    for name in (TEAM, OTHER, EXEMPT):
        lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for kind in MORE_KINDS:
        lab.api.apply(crd(*kind))
    # From before the rules: it breaks them.
    lab.api.apply(OLD)
    vela(lab.kubeconfig, "addon", "enable", ADDON, *SETTINGS)
    wait_until(lambda: len(policies(lab.api)) == POLICIES, what="the policies", timeout=60)
    for breaking in (http_route(["*"]), ingress(None), virtual_service(["*"]), scaled_object(of="external")):
        wait_until(partial(refusal, lab.api, breaking), what=f"{breaking['kind']} refused", timeout=30)
    yield lab.api
    vela(lab.kubeconfig, "addon", "enable", ADDON)
    wait_until(lambda: not policies(lab.api), what="the policies gone", timeout=60)
    for name in (TEAM, OTHER):
        lab.api.delete("v1", "Namespace", name)
    for group, _, plural, _ in MORE_KINDS:
        lab.api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.{group}")


def refusal(api: Api, thing: dict[str, Any]) -> str:
    """What the API server says to an object; empty where it takes it. Nothing is made."""
    try:
        api.apply(thing, dry_run=True)
    except ApiError as error:
        return str(error)
    return ""


def thing(api_version: str, kind: str, spec: dict[str, Any], namespace: str = TEAM, name: str = "x") -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def http_route(hosts: list[str], namespace: str = TEAM, gateway: Any = None, kind: str = "HTTPRoute") -> dict[str, Any]:
    parent = {"name": "kserve-ingress-gateway", "namespace": "kserve"} if gateway is None else gateway
    spec: dict[str, Any] = {"parentRefs": [parent]} | ({"hostnames": hosts} if hosts else {})
    return thing("gateway.networking.k8s.io/v1", kind, spec, namespace)


def virtual_service(hosts: list[str], namespace: str = TEAM, **spec: Any) -> dict[str, Any]:
    route = {"http": [{"route": [{"destination": {"host": "a"}}]}]}
    return thing("networking.istio.io/v1beta1", "VirtualService", {"hosts": hosts, **route, **spec}, namespace)


def service_entry(hosts: list[str], **spec: Any) -> dict[str, Any]:
    return thing("networking.istio.io/v1", "ServiceEntry", {"hosts": hosts, **spec})


def ingress(host: str | None, **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    rule: dict[str, Any] = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    rules = [rule | ({"host": host} if host else {})]
    return thing("networking.k8s.io/v1", "Ingress", {"rules": rules, **spec})


#: Queries bound to the namespace; the trait's own are below.
BOUND = f'sum(rate(nv_inference_count{{namespace="{TEAM}",pod=~"m-.*"}}[1m]))'


def scaled_object(
    address: str | None = PROMETHEUS, query: str = BOUND, namespace: str = TEAM, of: str = "prometheus", **more: Any
) -> dict[str, Any]:
    metadata = {"query": query, "threshold": "1", **more} | ({"serverAddress": address} if address else {})
    spec = {"scaleTargetRef": {"name": "m"}, "triggers": [{"type": of, "metadata": metadata}]}
    return thing("keda.sh/v1alpha1", "ScaledObject", spec, namespace)


OLD = http_route(["payments.example.com"])
OLD["metadata"]["name"] = "old"

HOSTS, GATEWAYS = "hosts not granted to namespace", "gateways not granted to namespace"
ADDRESS, TYPES, QUERY = "Prometheus address not granted to namespace", "triggers of these types", "each selector"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (http_route(["m-admission-a.example.com", "m-predictor-admission-a.example.com"]), ""),
        (http_route(["sentiment.example.com"]), ""),
        (http_route(["x.a.example.com"]), ""),
        (http_route(["*.a.example.com"]), ""),
        (
            http_route(["sentiment.example.com"], OTHER),
            f"{HOSTS} {OTHER} (addon kfserving, admission.hosts): sentiment",
        ),
        (http_route(["m-admission-b.example.com"]), HOSTS),
        (http_route(["sentiment.example.com", "payments.example.com"]), "admission.hosts): payments.example.com"),
        (http_route(["sentimentxexample.com"]), HOSTS),
        (http_route(["*.example.com"]), HOSTS),
        (http_route([]), "admission.hosts): *"),
        (http_route([], gateway={"kind": "Service", "group": "", "name": "m"}), ""),
        (http_route([], EXEMPT, {"name": "any"}), ""),
        (http_route(["sentiment.example.com"], kind="GRPCRoute"), ""),
        (http_route(["payments.example.com"], kind="GRPCRoute"), HOSTS),
        (ingress("sentiment.example.com"), ""),
        (ingress("payments.example.com"), HOSTS),
        (ingress(None), HOSTS),
        (
            ingress("sentiment.example.com", defaultBackend={"service": {"name": "a", "port": {"number": 80}}}),
            HOSTS,
        ),
        (virtual_service(["m-predictor.admission-a.svc.cluster.local"]), ""),
        (virtual_service(["m", "m.admission-a.svc"]), ""),
        # In a namespace called dev or app this would be a name of the internet.
        (virtual_service(["m.admission-a"]), HOSTS),
        (virtual_service(["payments.billing.svc.cluster.local"]), "admission.hosts): payments.billing"),
        (virtual_service(["payments.billing"]), HOSTS),
        (virtual_service(["m.admission-a.svc.billing.svc.cluster.local"]), HOSTS),
        (virtual_service(["*"]), HOSTS),
        (virtual_service(["m-admission-a.example.com"], gateways=["kserve/kserve-ingress-gateway"]), ""),
        (service_entry(["api.example.org"]), HOSTS),
        (service_entry(["api.example.org"], exportTo=["."]), ""),
        (service_entry(["api.example.org"], exportTo=[".", "*"]), HOSTS),
        (service_entry(["api.example.org"], exportTo=[]), HOSTS),
        (thing("serving.knative.dev/v1beta1", "DomainMapping", {}, name="sentiment.example.com"), ""),
        (thing("serving.knative.dev/v1beta1", "DomainMapping", {}, name="payments.example.com"), HOSTS),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else None,
)
def test_a_host_belongs_to_its_namespace(api: Api, made: dict[str, Any], says: str) -> None:
    said = refusal(api, made)
    assert says in said
    assert bool(said) == bool(says), said


_EDGE = {"name": "edge", "namespace": "edge"}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            http_route(["sentiment.example.com"], gateway=_EDGE),
            f"{GATEWAYS} {TEAM} (addon kfserving, admission.gateways)",
        ),
        (http_route(["sentiment.example.com"], gateway={"name": "own-1"}), ""),
        (http_route(["m-admission-b.example.com"], OTHER, {"name": "own-1"}), "admission.gateways): admission-b/own-1"),
        (thing("gateway.networking.k8s.io/v1alpha2", "TCPRoute", {"parentRefs": [_EDGE]}), GATEWAYS),
        (virtual_service(["m"], gateways=["mesh"]), ""),
        (virtual_service(["m"], gateways=["own-1"]), ""),
        (virtual_service(["m"], gateways=["mesh", "edge/edge"]), "admission.gateways): edge/edge"),
        (virtual_service(["m"], gateways=["edge.edge.svc.cluster.local"]), GATEWAYS),
        (thing("networking.istio.io/v1", "Gateway", {"servers": []}, name="own-1"), ""),
        (thing("networking.istio.io/v1", "Gateway", {"servers": []}, name="edge"), GATEWAYS),
        (
            thing(
                "gateway.networking.k8s.io/v1",
                "Gateway",
                {"gatewayClassName": "a", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]},
                name="edge",
            ),
            GATEWAYS,
        ),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else None,
)
def test_a_route_hangs_on_gateways_that_are_granted(api: Api, made: dict[str, Any], says: str) -> None:
    said = refusal(api, made)
    assert says in said
    assert bool(said) == bool(says), said


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (scaled_object(), ""),
        (scaled_object(PROXY, BOUND.replace(TEAM, OTHER), OTHER), ""),
        (scaled_object(PROXY), f"{ADDRESS} {TEAM} (addon kfserving, admission.prometheus): {PROXY}"),
        (scaled_object("http://169.254.169.254/latest"), ADDRESS),
        (scaled_object(f"{PROMETHEUS}@169.254.169.254"), ADDRESS),
        (scaled_object(f"{PROMETHEUS}/"), ADDRESS),
        (scaled_object(None), "admission.prometheus): none"),
        (scaled_object(of="cpu"), ""),
        (scaled_object(of="metrics-api", url="http://169.254.169.254"), f"{TYPES} may ask any address"),
        (scaled_object(of="external-push"), TYPES),
        (scaled_object("http://a.example.com", namespace=EXEMPT, query="up"), ""),
        (scaled_object(customHeaders="X-Scope-OrgID=other"), QUERY),
        (scaled_object(queryParameters="query=up"), QUERY),
        (scaled_object(namespace=TEAM, cortexOrgID="other"), QUERY),
        ({**scaled_object("http://a.example.com"), "kind": "ScaledJob"}, ADDRESS),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else None,
)
def test_a_trigger_asks_addresses_that_are_granted(api: Api, made: dict[str, Any], says: str) -> None:
    said = refusal(api, made)
    assert says in said
    assert bool(said) == bool(says), said


OWN = f'namespace="{TEAM}"'


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        (f"up{{{OWN}}}", True),
        (f'sum by (le) (rate(a_bucket{{{OWN},le!~"x"}}[5m])) / 1000 >= 0', True),
        (f'sum(rate(a:b_total{{pod=~"a|b\\\\d\\"c", {OWN} }}[1m:10s] offset 5m)) or vector(0)', True),
        (f'{{__name__="up",{OWN}}} and on (pod) group_left () b{{{OWN}}}', True),
        (f"histogram_quantile(0.95, sum by (le) (rate(a_bucket{{{OWN}}}[2m]))) > 1e3", True),
        (f'label_replace(a{{{OWN}}}, "b", "$1", "c", "(.*)")', True),
        (f'a{{destination_service_namespace="{TEAM}"}}', True),
        (f'a{{envoy_cluster_name="{TEAM}_m-predictor_80"}}', True),
        (f'a{{envoy_cluster_name="service/{TEAM}/m-predictor/80"}}', True),
        (f'a{{envoy_cluster_name="service/{TEAM}/m-predictor/8081/http2"}}', True),
        (f'a{{envoy_cluster_name="{TEAM}/m-predictor"}}', True),
        (f'a{{envoy_cluster_name="httproute/{TEAM}/m/rule/0"}}', True),
        (f'a{{envoy_cluster_name="service/{OTHER}/{TEAM}/80"}}', False),
        (f'a{{envoy_cluster_name="httproute/{OTHER}/{TEAM}/rule/0"}}', False),
        (f'a{{envoy_cluster_name="{TEAM}/m-predictor|{OTHER}/m-predictor"}}', False),
        (f'a{{envoy_cluster_name=~"service/{TEAM}/m/80"}}', False),
        (f'a{{envoy_cluster_name!="{TEAM}/m-predictor"}}', False),
        (f'a{{envoy_cluster_name="service/{TEAM}/m/80/x"}} or up{{b="/x"}}', False),
        ("up", False),
        ("sum(up)", False),
        (f"up{{{OWN}}} + up", False),
        (f"up{{{OWN}}} or(up)", False),
        (f"up{{{OWN}}} or_up", False),
        (f"sum by (up) (up) + a{{{OWN}}}", False),
        (f"up{{{OWN}}} unless sum(count(secret))", False),
        ("up{}", False),
        ('up{namespace="admission-b"}', False),
        ('up{namespace=~"admission-a|admission-b"}', False),
        (f'up{{exported_namespace="{TEAM}"}}', False),
        (f'up{{pod="{TEAM}"}}', False),
        (f'up{{pod="namespace=\\"{TEAM}\\""}}', False),
        (f'up{{pod="x" or {OWN}}}', False),
        (f"up{{{OWN}}} # \nup", False),
        (f'{{"up",{OWN}}} + {{"up"}}', False),
        (f"WITH (x = up) x + up{{{OWN}}}", False),
    ],
)
def test_each_selector_names_the_own_namespace(api: Api, query: str, taken: bool) -> None:
    said = refusal(api, scaled_object(query=query))
    assert taken == (not said), said
    assert taken or QUERY in said


def test_what_was_there_before_is_labelled_and_deleted_but_not_changed(api: Api) -> None:
    labelled = {**OLD, "metadata": {**OLD["metadata"], "labels": {"a": "b"}, "finalizers": ["example.com/wait"]}}
    api.apply(labelled)
    changed = http_route(["payments.example.com", "more.example.com"])
    changed["metadata"]["name"] = "old"
    assert HOSTS in refusal(api, changed)
    api.delete("gateway.networking.k8s.io/v1", "HTTPRoute", "old", TEAM)
    api.apply({**OLD, "metadata": {**OLD["metadata"], "finalizers": []}})
    wait_until(
        lambda: api.get("gateway.networking.k8s.io/v1", "HTTPRoute", "old", TEAM) is None, what="gone", timeout=10
    )


#: Each source, with a model whose server exports it.
SOURCES = {"istio": "triton", "envoy": "triton", "triton": "triton", "mlserver": "mlflow"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("metric", ["qps", "latency", "concurrency"])
def test_what_the_trait_autoscale_asks_is_bound(api: Api, metric: str, source: str) -> None:
    """The queries of the trait, as KubeVela renders them, in the team's namespace."""
    from tests.unit.test_definitions import render, trait

    found = render(
        {"runtime": SOURCES[source], "modelUri": "s3://models/a/1"},
        trait("autoscale", metric=metric, target=5, maxReplicas=3, source=source, prometheusAddress=PROMETHEUS),
    )["ScaledObject/m-autoscale"]
    text = found["spec"]["triggers"][0]["metadata"]["query"]
    query = text.replace('namespace="default"', OWN).replace('"default_', f'"{TEAM}_')
    trigger = found["spec"]["triggers"][0]["metadata"] | {"query": query}
    made = thing("keda.sh/v1alpha1", "ScaledObject", {**found["spec"]})
    made["spec"]["triggers"] = [{**found["spec"]["triggers"][0], "metadata": trigger}]
    assert refusal(api, made) == ""


def test_kubevela_is_refused_too_and_says_so(api: Api, cluster: Cluster) -> None:
    """The objects of a trait are KubeVela's, which is cluster admin."""
    app: dict[str, Any] = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "bounded"},
        "spec": {
            "components": [
                {
                    "name": "model",
                    "type": "kfserving",
                    "properties": {"runtime": "triton", "modelUri": "s3://models/a/1", "minReplicas": 1},
                    "traits": [
                        {"type": "autoscale", "properties": {"metric": "qps", "target": 5, "maxReplicas": 3}},
                    ],
                }
            ]
        },
    }
    cluster.up(app)
    cluster.wait_for(
        lambda: ADDRESS in str((cluster.application("bounded") or {}).get("status")), "the refusal in the status"
    )
    assert cluster.list("keda.sh/v1alpha1", "ScaledObject") == []
    app["spec"]["components"][0]["traits"][0]["properties"]["prometheusAddress"] = PROMETHEUS
    # KubeVela writes its status at the same time.
    cluster.wait_for(lambda: cluster.up(app, check=False).returncode == 0, "vela up")
    cluster.wait_for(lambda: cluster.list("keda.sh/v1alpha1", "ScaledObject"), "the ScaledObject")
