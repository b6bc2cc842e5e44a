"""A Gateway API gateway on Envoy: Contour as upstream's own manifests run it."""

from __future__ import annotations

import json

import yaml

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.images import recipes
from velagen.lab.kind.layer import Site
from velagen.lab.kind.upstream import parse
from velagen.lab.objects import KSERVE_NAMESPACE
from velagen.tools import source

NAMESPACE = "projectcontour"
#: The name KServe's configuration has by itself.
GATEWAY = "kserve-ingress-gateway"
CLASS = "contour"
_CONTROLLER = "projectcontour.io/gateway-controller"
_PATIENT = {"timeoutSeconds": 5, "failureThreshold": 6}


def crds() -> list[KubernetesObject]:
    """Give the CRDs of Gateway API (experimental: Contour watches its TCP and TLS routes too) and Contour's own."""
    folder = source("gateway-api") / "config/crd/experimental"
    things = parse((source("contour") / "examples/contour/01-crds.yaml").read_text())
    for path in sorted(folder.glob("gateway.networking.k8s.io_*.yaml")):
        things += [thing for thing in parse(path.read_text()) if thing["kind"] == "CustomResourceDefinition"]
    return things


def contour(envoy: str, node_port: int) -> list[KubernetesObject]:
    """Give Contour and Envoy, one of each, Envoy's HTTP port open on every node.

    Args:
        envoy: reference of Envoy's image.
        node_port: where the nodes listen.
    """
    folder = source("contour") / "examples/contour"
    things: list[KubernetesObject] = []
    for name in (
        "00-common.yaml",
        "02-job-certgen.yaml",
        "02-rbac.yaml",
        "02-role-contour.yaml",
        "02-service-contour.yaml",
        "02-service-envoy.yaml",
        "03-contour.yaml",
        "03-envoy.yaml",
    ):
        things += parse((folder / name).read_text())
    config = {"gateway": {"gatewayRef": {"name": GATEWAY, "namespace": KSERVE_NAMESPACE}}}
    things.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "contour", "namespace": NAMESPACE},
            "data": {"contour.yaml": yaml.safe_dump(config)},
        }
    )
    for thing in things:
        named = (thing["kind"], thing["metadata"]["name"])
        if named == ("Deployment", "contour"):
            thing["spec"]["replicas"] = 1
            container = thing["spec"]["template"]["spec"]["containers"][0]
            # On a machine with more work than cores a second is not enough for an answer.
            container["readinessProbe"] |= {"periodSeconds": 2, **_PATIENT}
            container["livenessProbe"] |= _PATIENT
        elif named == ("DaemonSet", "envoy"):
            pod = thing["spec"]["template"]
            for container in pod["spec"]["containers"]:
                if container["name"] == "envoy":
                    container["image"] = envoy
                    # Nodes share this machine: the way in is the NodePort, not the nodes' ports 80 and 443.
                    for port in container["ports"]:
                        port.pop("hostPort", None)
                    # There is one Envoy: taken out for a slow answer, all models are out.
                    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2, **_PATIENT}
                    # Upstream asks for nothing: on a busy machine it had what all others left, and answers took 20 s.
                    container["resources"] = {"requests": {"cpu": "50m"}}
            pod["spec"]["terminationGracePeriodSeconds"] = 30
            pod["metadata"].setdefault("annotations", {}).update(
                {
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": "8002",
                    "prometheus.io/path": "/stats/prometheus",
                }
            )
        elif named == ("Service", "envoy"):
            spec = thing["spec"]
            spec["type"] = "NodePort"
            spec.pop("externalTrafficPolicy", None)
            spec["ports"] = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": node_port}]
    return things


def gateway() -> list[KubernetesObject]:
    """Give the class and the gateway that KServe's routes name."""
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": _CONTROLLER},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": KSERVE_NAMESPACE},
            "spec": {
                "gatewayClassName": CLASS,
                "listeners": [
                    {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}
                ],
            },
        },
    ]


def routed(config: KubernetesObject) -> KubernetesObject:
    """Give KServe's ConfigMap so that it makes HTTPRoutes on the gateway for each model."""
    ingress = json.loads(config["data"]["ingress"])
    ingress |= {
        "enableGatewayApi": True,
        "kserveIngressGateway": f"{KSERVE_NAMESPACE}/{GATEWAY}",
        "disableIngressCreation": False,
        "disableIstioVirtualHost": True,
    }
    return {**config, "data": {**config["data"], "ingress": json.dumps(ingress)}}


def envoy_image(lab: Site) -> str:
    """Give the reference of Envoy's image in a cluster."""
    recipe = recipes()["envoy"]
    return recipe.references[0] if lab.assembled else (recipe.official or recipe.references[0])
