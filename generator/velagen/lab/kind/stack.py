"""What runs in the cluster: KubeVela, KServe, the addon; each layer whole before the next."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import requests

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.lab import objects
from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.kind import (
    alerting,
    gateway,
    gpus,
    keda,
    knative,
    kserve,
    kubevela,
    metrics_server,
    models,
    prometheus,
)
from velagen.lab.kind.certs import issue
from velagen.lab.kind.layer import Site
from velagen.lab.kind.options import EXTRA, LAYERS, NODE_PORTS
from velagen.lab.kind.upstream import kustomized
from velagen.lab.models import sentiment
from velagen.lab.traffic import local as local
from velagen.tools import tool


def install(lab: Site, layers: Iterable[str], addon: Path | None) -> dict[str, float]:
    """Put layers into a cluster.

    Args:
        layers: keys of `LAYERS` and `EXTRA`, in order.
        addon: the addon's folder, for the layer ``addon``.

    Returns:
        seconds each layer took.

    Raises:
        VelagenError: an unknown layer, or one that does not come up; the message says what its pods say.
    """
    took: dict[str, float] = {}
    for name in layers:
        if name not in (*LAYERS, *EXTRA):
            known = ", ".join((*LAYERS, *EXTRA))
            raise VelagenError(Problem(f"no layer is called {name!r}", hint=f"Layers: {known}."))
        if name == "addon" and addon is None:
            lab.reporter.say("no addon is given: none is enabled")
            continue
        lab.reporter.say(f"kind cluster {lab.cluster}: {name}")
        started = time.monotonic()
        try:
            if name == "addon":
                enable(lab, addon or Path())
            else:
                _INSTALL[name](lab)
        except (ApiError, LookupError, TimeoutError, requests.RequestException) as error:
            raise VelagenError(Problem(f"{name}: {error}\n{lab.pods()}")) from error
        took[name] = round(time.monotonic() - started, 1)
    return took


# -- KubeVela


def _kubevela(lab: Site) -> None:
    version = lab.started_with.kubevela
    lab.load([f"vela-core-{version}"])
    api = lab.api
    namespace = objects.SYSTEM_NAMESPACE
    pair = issue([f"{kubevela.WEBHOOK}.{namespace}.svc", f"{kubevela.WEBHOOK}.{namespace}.svc.cluster.local"])
    api.apply_all([_namespace(namespace)])
    _crds(api, objects.vela_crds(version))
    # The embedded lab's list ends with a Deployment without pods; here the real one takes its place.
    api.apply_all([thing for thing in objects.vela_definitions(version) if thing["kind"] != "Deployment"])
    api.apply_all(kubevela.vela_objects(pair, version))
    lab.wait_deployment(namespace, kubevela.NAME)
    api.apply_all(kubevela.in_cluster(objects.vela_webhooks(0, b""), kubevela.WEBHOOK, namespace, pair.certificate))
    wrong = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "velagen-probe", "namespace": "default"},
        "spec": {"components": [{"name": "probe", "type": "no-such-definition", "properties": {}}]},
    }
    _wait_denied(api, wrong, "KubeVela's webhooks")


# -- the gateway


def _gateway(lab: Site) -> None:
    lab.load(["contour", "envoy"])
    api = lab.api
    api.apply_all([_namespace(gateway.NAMESPACE), _namespace(objects.KSERVE_NAMESPACE)])
    _crds(api, gateway.crds())
    api.apply_all(gateway.contour(gateway.envoy_image(lab), NODE_PORTS["gateway"]))
    api.apply_all(gateway.gateway())
    lab.wait_deployment(gateway.NAMESPACE, "contour")

    def programmed() -> bool:
        thing = api.get("gateway.networking.k8s.io/v1", "Gateway", gateway.GATEWAY, objects.KSERVE_NAMESPACE)
        envoy = (api.get("apps/v1", "DaemonSet", "envoy", gateway.NAMESPACE) or {}).get("status", {})
        return (
            condition(thing, "Programmed") == "True"
            and envoy.get("numberReady", 0) > 0
            and envoy.get("numberReady") == envoy.get("desiredNumberScheduled")
        )

    wait_until(programmed, what="the gateway", timeout=120, every=0.5)


# -- KServe


def _kserve(lab: Site) -> None:
    lab.load(["kserve-controller", "storage-initializer"])
    api = lab.api
    namespace = objects.KSERVE_NAMESPACE
    pair = issue([f"kserve-webhook-server-service.{namespace}.svc"])
    api.apply_all([_namespace(namespace), _namespace("knative-serving")])
    config = objects.kserve_config("Standard")
    routes = objects.route_crds()
    if api.serves("gateway.networking.k8s.io/v1", "GatewayClass"):
        config = [gateway.routed(thing) if "ingress" in thing["data"] else thing for thing in config]
        # The gateway's own are newer, and hold more.
        routes = [crd for crd in routes if crd.get("spec", {}).get("group") != "gateway.networking.k8s.io"]
    _crds(api, [*objects.kserve_crds(), *routes])
    api.apply_all(kserve.pinned(config))
    things, hooks = kserve.kserve_objects(kustomized("kserve", "config/default"), pair)
    # The kustomization has the ConfigMap as upstream ships it; ours is applied already.
    api.apply_all([thing for thing in things if thing["metadata"]["name"] != "inferenceservice-config"])
    lab.wait_deployment(namespace, "kserve-controller-manager")
    api.apply_all(hooks)
    wrong = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "velagen-probe", "namespace": "default"},
        "spec": {"predictor": {"minReplicas": 3, "maxReplicas": 1, "model": {"modelFormat": {"name": "sklearn"}}}},
    }
    _wait_denied(api, wrong, "KServe's webhooks")
    api.apply_all(kserve.light(kserve.pinned(thing)) for thing in objects.kserve_runtimes())


# -- GPUs


def _gpu(lab: Site) -> None:
    options = lab.started_with
    if not options.gpus:
        lab.reporter.say("no GPUs are asked for: nodes have none")
        return
    gpus.install(lab, options.gpus, options.gpu_config)


# -- where models are kept


def _seed(lab: Site) -> str:
    """Bring the sentiment model to every node, for the object store to begin with; give its name, or nothing."""
    try:
        model = sentiment.repository(lab.reporter)
    except VelagenError as error:
        lab.reporter.say(f"s3://models/sentiment/1 stays empty: {error}")
        return ""
    lab.put(model, f"{models.SEED}/models/sentiment/1")
    return model.name


def _models(lab: Site) -> None:
    lab.load(["object-store"])
    api = lab.api
    api.apply_all([_namespace(models.STORE_NAMESPACE)])
    api.apply_all(models.store_objects(_seed(lab)))
    lab.wait_deployment(models.STORE_NAMESPACE, "object-store")
    api.apply_all(
        models.with_store(kserve.light(kserve.pinned(thing)))
        for thing in objects.kserve_runtimes()
        if thing["kind"] == "ClusterStorageContainer"
    )
    # S3's way to make a bucket; the server takes any name and key.
    address = f"{lab.url('models')}/models"

    def made() -> bool:
        try:
            return bool(local().put(address, timeout=5).ok)
        except requests.RequestException:
            return False

    wait_until(made, what="the bucket models", timeout=30, every=0.5)


# -- the model servers

#: Every runtime of the addon that can be assembled here; where a registry answers, nodes pull what is asked for.
SERVERS = ("tritonserver", "sklearnserver", "xgbserver", "lgbserver", "mlserver")


def _servers(lab: Site) -> None:
    lab.load(SERVERS)


# -- metrics


def _prometheus(lab: Site) -> None:
    lab.load(["prometheus", "python"])
    lab.api.apply_all(prometheus.objects(NODE_PORTS["prometheus"]))
    lab.wait_deployment(prometheus.NAMESPACE, prometheus.NAME)


def _alerts(lab: Site) -> None:
    lab.load(["alertmanager", "kube-state-metrics"])
    lab.api.apply_all([*alerting.alertmanager(NODE_PORTS["alertmanager"]), *alerting.state_metrics()])
    for name in (prometheus.ALERTMANAGER, prometheus.STATE):
        lab.wait_deployment(prometheus.NAMESPACE, name)


# -- KEDA


def _keda(lab: Site) -> None:
    lab.load(keda.IMAGES.values())
    api = lab.api
    crds, things = keda.objects(issue(keda.served()))
    _crds(api, crds)
    api.apply_all(things)
    for name in keda.IMAGES:
        lab.wait_deployment(keda.NAMESPACE, name)
    _wait_available(api, keda.API_SERVICE)


# -- metrics-server


def _metrics_server(lab: Site) -> None:
    lab.load([metrics_server.IMAGE])
    *things, service = metrics_server.objects(issue(metrics_server.served()))
    lab.api.apply_all(things)
    lab.wait_deployment(metrics_server.NAMESPACE, metrics_server.NAME)
    # Only now: the API server looks at once, by an address that leads out of the cluster until kube-proxy has the
    # Service, and keeps the connection to whatever answers there (its check trusts anybody).
    lab.api.apply(service)
    _wait_available(lab.api, metrics_server.API_SERVICE)


# -- Knative


def _knative(lab: Site) -> None:
    lab.load([*knative.IMAGES.values(), knative.PROXY, "envoy"])
    api = lab.api
    _crds(api, knative.crds())
    things, late = knative.objects(gateway.envoy_image(lab))
    api.apply_all([thing for thing in things if thing["kind"] == "Namespace"])
    first = [thing for thing in things if thing["kind"] not in {"Namespace", "Deployment"}]
    api.apply_all(first)
    api.apply_all([thing for thing in things if thing["kind"] == "Deployment"])
    for name in knative.IMAGES:
        lab.wait_deployment(knative.NAMESPACE, name)
    lab.wait_deployment(knative.KOURIER_NAMESPACE, knative.ENVOY)
    wrong = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "velagen-probe", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    _wait_denied(api, wrong, "Knative's webhooks")
    api.apply_all(late)


# -- the addon


def enable(lab: Site, folder: Path) -> None:
    """Enable an addon from its folder, as a user does.

    Raises:
        VelagenError: vela refuses it, or its application does not run within three minutes.
    """
    done = subprocess.run(
        [str(tool("vela", lab.started_with.kubevela)), "addon", "enable", str(folder), "-y"],
        env=lab.environment(),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    name = f"addon-{folder.name}"
    if done.returncode != 0 and lab.api.get("core.oam.dev/v1beta1", "Application", name, "vela-system") is None:
        raise VelagenError(Problem(f"vela addon enable: {(done.stderr or done.stdout).strip()[-1500:]}"))

    def runs() -> bool:
        thing = lab.api.get("core.oam.dev/v1beta1", "Application", name, "vela-system") or {}
        return bool(thing.get("status", {}).get("status") == "running")

    wait_until(runs, what=f"Application {name}", timeout=180, every=0.5)


# -- what the layers share


def _namespace(name: str) -> KubernetesObject:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _crds(api: Api, crds: list[KubernetesObject]) -> None:
    api.apply_all(crds, workers=3)
    for crd in crds:
        # Some of upstream's files hold a namespace beside their CRDs.
        if crd["kind"] == "CustomResourceDefinition":
            _wait_served(api, crd)


def _wait_served(api: Api, crd: KubernetesObject) -> None:
    # Asked of discovery, not of the CRD: the biggest have two megabytes.
    spec = crd["spec"]
    kind = str(spec["names"]["kind"])
    version = next(entry["name"] for entry in spec["versions"] if entry["served"])
    wait_until(lambda: api.serves(f"{spec['group']}/{version}", kind), what=f"CRD {kind}", timeout=90, every=0.2)


def _wait_available(api: Api, name: str) -> None:
    """Wait until the API server reaches the server behind an APIService."""

    def available() -> bool:
        return condition(api.get("apiregistration.k8s.io/v1", "APIService", name), "Available") == "True"

    wait_until(available, what=f"APIService {name}", timeout=120, every=0.5)


def _wait_denied(api: Api, wrong: Mapping[str, Any], what: str) -> None:
    """Wait until a wrong object is refused by a webhook: the caches of API server and webhook are warm then."""

    def look() -> bool:
        try:
            api.apply(wrong, dry_run=True, patience=0)
        except ApiError as error:
            return "denied the request" in str(error)
        return False

    wait_until(look, what=what, timeout=60, every=0.3)


_INSTALL: dict[str, Callable[[Site], None]] = {
    "kubevela": _kubevela,
    "gateway": _gateway,
    "kserve": _kserve,
    "gpu": _gpu,
    "models": _models,
    "prometheus": _prometheus,
    "alerts": _alerts,
    "keda": _keda,
    "metrics-server": _metrics_server,
    "knative": _knative,
    "servers": _servers,
}
