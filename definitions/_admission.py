r"""What the cluster is to refuse, whoever asks for it: ValidatingAdmissionPolicies for the addon's parameter admission.

A definition sees what its own user writes; routes and scalers can be made without it, and whose a host name is, or
where a name leads, no definition knows. So these rules are on the objects themselves.

Sources: Kubernetes admissionregistration.k8s.io/v1 (generally available since 1.30); Gateway API v1 (hostnames,
parentRefs), Istio networking v1 (hosts, gateways, exportTo), Knative serving v1beta1 DomainMapping (its name is the
host); KEDA pkg/scalers/prometheus_scaler.go (serverAddress comes from the trigger alone; queryParameters, customHeaders
and namespace go along with the query as they are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from velagen import each, first_given, given, to_json, when
from velagen import parameter as p
from velagen.monitoring.sources import ENVOY_CLUSTER, NAMED, NAMINGS
from velagen.template.body import When
from velagen.template.expression import Expression, Reference, Value

settings = p.admission

#: CEL: the object's own namespace; the patterns granted to it as regular expressions, a list for each rule.
#: In a pattern * stands for any letters, digits, - and . (and for the * of a wildcard name), NAMESPACE for the
#: object's own namespace.
OWN = "object.metadata.namespace"
_REGEX = f"p.replace('.', '[.]').replace('*', '[-*a-z0-9.]+').replace('NAMESPACE', {OWN})"
GRANTED = (
    f"variables.rules.filter(r, r.namespaces.exists(n, n == '*' || n == {OWN}))"
    f".map(r, r.granted.map(p, '^' + {_REGEX} + '$'))"
)


def is_granted(item: str) -> str:
    """CEL: whether a rule grants *item*."""
    return f"variables.granted.exists(g, g.exists(p, {item}.matches(p)))"


@dataclass(frozen=True)
class Kinds:
    """Objects that a rule reads alike; *found* is CEL for a list of texts of the object, each to be granted.

    *but* is CEL for texts (``x``) that need no grant.
    """

    name: str
    group: str
    resources: tuple[str, ...]
    found: str
    but: str = "false"
    #: The object's name is what counts, and never changes.
    by_name: bool = False


#: A Service of the object's own namespace. Not m.NAMESPACE: in a namespace called dev that is a name of the internet.
_OWN_SERVICE = f"x.matches('^[-a-z0-9]+([.]' + {OWN} + '[.]svc([.]cluster[.]local)?)?$')"
_ROUTES = ("httproutes", "grpcroutes", "tlsroutes")
_SERVICE_PARENTS = "(has(object.spec.parentRefs) && object.spec.parentRefs.all(r, has(r.kind) && r.kind == 'Service'))"

#: A route that names no host takes them all.
HOSTS = (
    Kinds(
        "routes",
        "gateway.networking.k8s.io",
        _ROUTES,
        "has(object.spec.hostnames) && size(object.spec.hostnames) > 0 ? object.spec.hostnames : "
        f"{_SERVICE_PARENTS} ? [] : ['*']",
    ),
    Kinds(
        "ingresses",
        "networking.k8s.io",
        ("ingresses",),
        "(has(object.spec.rules) ? object.spec.rules.map(r, has(r.host) ? r.host : '*') : []) + "
        "(has(object.spec.defaultBackend) ? ['*'] : [])",
    ),
    Kinds(
        "virtual-services",
        "networking.istio.io",
        ("virtualservices",),
        "has(object.spec.hosts) ? object.spec.hosts : []",
        _OWN_SERVICE,
    ),
    Kinds(
        # What only its own namespace sees takes nothing from others.
        "service-entries",
        "networking.istio.io",
        ("serviceentries",),
        "has(object.spec.exportTo) && object.spec.exportTo.all(n, n == '.') && size(object.spec.exportTo) > 0 ? [] : "
        "object.spec.hosts",
        _OWN_SERVICE,
    ),
    Kinds(
        "domain-mappings", "serving.knative.dev", ("domainmappings",), "[string(object.metadata.name)]", by_name=True
    ),
)

_PARENTS = (
    "has(object.spec.parentRefs) ? object.spec.parentRefs.filter(r, !(has(r.kind) && r.kind == 'Service'))"
    f".map(r, (has(r.namespace) ? r.namespace : {OWN}) + '/' + r.name) : []"
)
_ITSELF = f"[{OWN} + '/' + object.metadata.name]"
GATEWAYS = (
    Kinds("routes", "gateway.networking.k8s.io", (*_ROUTES, "tcproutes", "udproutes"), _PARENTS),
    Kinds(
        "virtual-services",
        "networking.istio.io",
        ("virtualservices",),
        f"has(object.spec.gateways) ? object.spec.gateways.map(g, g.contains('/') ? g : g == 'mesh' ? g : {OWN} + '/' "
        "+ g) : []",
        "x == 'mesh'",
    ),
    Kinds("gateways", "gateway.networking.k8s.io", ("gateways",), _ITSELF, by_name=True),
    Kinds("istio-gateways", "networking.istio.io", ("gateways",), _ITSELF, by_name=True),
)

#: A query of which each selector is bound to the namespace: it is made of nothing but these. Names of series stand
#: before braces alone, so a bare one fits nothing.
_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_MATCHER = rf"\s*[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*{_TEXT}\s*"
_NAME = "[-a-z0-9]+"
#: What Envoy counts by for any Service or route of the namespace, as each controller writes it.
_CLUSTER = "|".join(one.of("NAMESPACE", _NAME, "[0-9]+", "[-.a-z0-9]+") for one in NAMINGS)
_BOUND = (
    rf'\s*(?:(?:{"|".join(("namespace", *(one.namespace for one in NAMED.values())))})\s*=\s*"NAMESPACE"'
    rf'|{ENVOY_CLUSTER}\s*=\s*"(?:{_CLUSTER})")\s*'
)
_QUERY = "|".join(
    (
        rf"(?:[a-zA-Z_:][\w:]*\s*)?\{{(?:{_MATCHER},)*{_BOUND}(?:,{_MATCHER})*,?\s*\}}",
        r"\[[0-9a-z:\s]*\]",
        r"(?:[a-z][a-z0-9_]*\s+)?(?:by|without)\s*\([\w\s,]*\)",
        r"(?:on|ignoring|group_left|group_right)\s*\([\w\s,]*\)",
        r"[a-z][a-z0-9_]*\s*\(",
        r"(?:and|or|unless|offset)\b",
        r"[0-9.][0-9a-zA-Z.]*",
        _TEXT,
        r"[-+*/%^()<>=!,\s]",
    )
)
#: What may stand beside a query that is bound: other keys choose another tenant, or go along with the query.
_KEYS = (
    "serverAddress",
    "query",
    "threshold",
    "activationThreshold",
    "ignoreNullValues",
    "metricName",
    "timeout",
    "unsafeSsl",
    "authModes",
)
_IS_PROMETHEUS = "object.spec.triggers.filter(t, t.type == 'prometheus').all(t, has(t.metadata) && {})"
_PRINTED = "string(has(t.metadata) && 'serverAddress' in t.metadata ? t.metadata.serverAddress : 'none')"

#: The spec is new or other than it was: an object from before the rule can be labelled, and its finalizers removed.
CHANGES = {
    "name": "changes",
    "expression": "request.operation != 'UPDATE' || object.spec != oldObject.spec",
}


def policy(
    name: str,
    group: str,
    resources: tuple[str, ...],
    variables: Mapping[str, Value],
    rules: list[Value],
    *,
    created_only: bool = False,
) -> list[Value]:
    """A policy and its binding, which together hold in all namespaces but the exempt ones."""
    about = {"name": f"kfserving-{name}"}
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": about,
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [group],
                            "apiVersions": ["*"],
                            "operations": ["CREATE"] if created_only else ["CREATE", "UPDATE"],
                            "resources": list(resources),
                            "scope": "Namespaced",
                        }
                    ]
                },
                **({} if created_only else {"matchConditions": [CHANGES]}),
                "variables": [{"name": key, "expression": value} for key, value in variables.items()],
                "validations": rules,
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": about,
            "spec": {
                "policyName": f"kfserving-{name}",
                "validationActions": [settings.action],
                "matchResources": {
                    "namespaceSelector": {
                        "matchExpressions": [
                            {
                                "key": "kubernetes.io/metadata.name",
                                "operator": "NotIn",
                                "values": settings.exemptNamespaces,
                            }
                        ]
                    }
                },
            },
        },
    ]


def rules_of(given_rules: Reference, what: str) -> Value:
    """CEL, which JSON is: who is granted what."""
    return to_json(
        [each(given_rules, lambda rule: {"namespaces": first_given(rule.namespaces, ["*"]), "granted": rule[what]})]
    )


def by_grant(topic: str, what: str, given_rules: Reference, kinds: tuple[Kinds, ...]) -> list[Value]:
    """Policies of which each text that is found must be granted to the object's namespace."""
    found = []
    for one in kinds:
        variables = {
            "rules": rules_of(given_rules, topic),
            "granted": GRANTED,
            "refused": f"({one.found}).filter(x, !({one.but}) && !{is_granted('x')})",
        }
        rule = {
            "expression": "size(variables.refused) == 0",
            "messageExpression": f"'{what} not granted to namespace ' + {OWN} + ' (addon kfserving, admission.{topic})"
            ": ' + variables.refused.map(x, string(x)).join(', ')",
            "message": f"{what} not granted to this namespace (addon kfserving, admission.{topic})",
            "reason": "Forbidden",
        }
        found += policy(f"{topic}-{one.name}", one.group, one.resources, variables, [rule], created_only=one.by_name)
    return found


def of_prometheus() -> list[Value]:
    """What KEDA asks, and whom."""
    variables = {
        "rules": rules_of(settings.prometheus, "addresses"),
        "addresses": f"variables.rules.filter(r, r.namespaces.exists(n, n == '*' || n == {OWN})).map(r, r.granted)",
        "triggers": to_json(settings.triggers),
        "query": f"r'^(?:{_QUERY})*$'.replace('NAMESPACE', {OWN})",
        "keys": to_json(list(_KEYS)),
    }
    rules = [
        {
            "expression": "object.spec.triggers.all(t, t.type == 'prometheus' || t.type in variables.triggers)",
            "messageExpression": "'triggers of these types may ask any address (addon kfserving, admission.triggers): '"
            " + object.spec.triggers.filter(t, t.type != 'prometheus' && !(t.type in variables.triggers))"
            ".map(t, string(t.type)).join(', ')",
            "reason": "Forbidden",
        },
        {
            "expression": _IS_PROMETHEUS.format(
                "'serverAddress' in t.metadata && variables.addresses.exists(a, t.metadata.serverAddress in a)"
            ),
            "messageExpression": f"'Prometheus address not granted to namespace ' + {OWN} + ' (addon kfserving, "
            f"admission.prometheus): ' + object.spec.triggers.filter(t, t.type == 'prometheus').map(t, {_PRINTED})"
            ".join(', ')",
            "reason": "Forbidden",
        },
        when(
            settings.queries == "own-namespace",
            {
                "expression": _IS_PROMETHEUS.format(
                    "'query' in t.metadata && t.metadata.query.matches(variables.query) && "
                    f"t.metadata.all(k, k in variables.keys || (k == 'namespace' && t.metadata[k] == {OWN}))"
                ),
                "messageExpression": "'each selector of the query must name the namespace (namespace=\"' + "
                f"{OWN} + '\"), and the trigger may hold nothing but ' + variables.keys.join(', ') + ' (addon "
                "kfserving, admission.queries)'",
                "reason": "Forbidden",
            },
        ),
    ]
    return policy("prometheus", "keda.sh", ("scaledobjects", "scaledjobs"), variables, rules)


def component(name: str, condition: Expression, objects: list[Value]) -> When:
    """Objects of the addon's Application, where something is asked for: they go when it is asked for no more."""
    return when(condition, {"name": name, "type": "k8s-objects", "properties": {"objects": objects}})


components: list[Value] = [
    component("admission-prometheus", given(settings.prometheus), of_prometheus()),
    component("admission-hosts", given(settings.hosts), by_grant("hosts", "hosts", settings.hosts, HOSTS)),
    component(
        "admission-gateways", given(settings.gateways), by_grant("gateways", "gateways", settings.gateways, GATEWAYS)
    ),
]
