"""What runs in the cluster: KubeVela, KServe, the addon; each layer whole before the next."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml

from velagen.errors import Problem, VelagenError
from velagen.lab import objects
from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.images import recipes
from velagen.lab.kind import alerting, gateway, gpus, prometheus
from velagen.lab.kind.certs import Pair, issue
from velagen.lab.models import sentiment
from velagen.tools import source, table, tool

if TYPE_CHECKING:
    from velagen.lab.kind.cluster import KindLab

Thing = dict[str, Any]

#: Seconds after which KubeVela looks again at an application that has settled (KubeVela's own default is 300).
RESYNC_SECONDS = 15
_VELA = "kubevela-vela-core"
_VELA_LABELS = {"app.kubernetes.io/name": "vela-core", "app.kubernetes.io/instance": "kubevela"}
_VELA_WEBHOOK = "vela-core-webhook"
STORE_NAMESPACE = "model-store"
#: On the nodes: a folder for each bucket of the object store, which begins with what is in it.
SEED = "/kind/store"
#: What can be reached from this machine on 127.0.0.1, and the NodePort behind it.
NODE_PORTS = {"gateway": 30080, "models": 30086, "prometheus": 30090, "alertmanager": 30093, "open": 30085}
_KSERVE_CERT = "kserve-webhook-server-cert"


def install(lab: KindLab, layers: Iterable[str], addon: Path | None) -> dict[str, float]:
    """Put layers into a cluster.

    :param layers: keys of `LAYERS`, in order.
    :param addon: the addon's folder, for the layer ``addon``.
    :return: seconds each layer took.
    :raises VelagenError: an unknown layer, or one that does not come up; the message says what its pods say.
    """
    took: dict[str, float] = {}
    for name in layers:
        if name not in LAYERS:
            raise VelagenError(Problem(f"no layer is called {name!r}", hint=f"Layers: {', '.join(LAYERS)}."))
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


def vela_objects(pair: Pair, version: str) -> list[Thing]:
    """Give KubeVela's controller as its chart installs it, with the webhooks on.

    :param pair: of the webhook's Service.
    :param version: of KubeVela.
    """
    namespace = objects.SYSTEM_NAMESPACE
    core = objects.vela_core(version)
    certificates = "/k8s-webhook-server/serving-certs"
    probe = {"periodSeconds": 2, "timeoutSeconds": 3}
    container = {
        "name": "kubevela",
        "image": f"oamdev/vela-core:v{version}",
        "imagePullPolicy": "IfNotPresent",
        "args": core.arguments(
            metrics_addr=":8080",
            health_addr=":9440",
            use_webhook=True,
            webhook_port=9443,
            webhook_cert_dir=certificates,
            system_definition_namespace=namespace,
            application_re_sync_period=f"{RESYNC_SECONDS}s",
        ),
        "env": [{"name": name, "value": value} for name, value in core.environment.items()],
        "ports": [
            {"containerPort": 9443, "name": "webhook-server"},
            {"containerPort": 9440, "name": "healthz"},
            {"containerPort": 8080, "name": "metrics"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "healthz"}, **probe},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "healthz"},
            "initialDelaySeconds": 90,
            "periodSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"mountPath": certificates, "name": "certificate", "readOnly": True}],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": _VELA,
            "namespace": namespace,
            "labels": {**_VELA_LABELS, "controller.oam.dev/name": "vela-core"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _VELA_LABELS},
            "template": {
                "metadata": {
                    "labels": _VELA_LABELS,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": "8080",
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "serviceAccountName": _VELA,
                    "containers": [container],
                    "volumes": [{"name": "certificate", "secret": {"secretName": f"{_VELA}-admission"}}],
                },
            },
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _VELA, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{_VELA}:manager-rolebinding"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": _VELA, "namespace": namespace}],
        },
        secret(f"{_VELA}-admission", namespace, pair),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _VELA_WEBHOOK, "namespace": namespace},
            "spec": {
                "selector": _VELA_LABELS,
                "ports": [{"name": "https", "port": 443, "targetPort": 9443, "protocol": "TCP"}],
            },
        },
        deployment,
    ]


def secret(name: str, namespace: str, pair: Pair) -> Thing:
    """Give a Secret that holds a certificate and its key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {
            "tls.crt": base64.b64encode(pair.certificate).decode(),
            "tls.key": base64.b64encode(pair.key).decode(),
        },
    }


def in_cluster(hooks: Iterable[Thing], service: str, namespace: str, authority: bytes) -> list[Thing]:
    """Give webhook configurations that call a Service of the cluster instead of a process of this machine.

    :param hooks: configurations whose clientConfig is a url or a service; the path is kept.
    :param authority: PEM of what signed the server's certificate.
    """
    found = []
    for given in hooks:
        thing = copy.deepcopy(given)
        thing["metadata"].pop("creationTimestamp", None)
        for hook in thing["webhooks"]:
            client = hook["clientConfig"]
            path = client["service"]["path"] if "service" in client else "/" + client["url"].split("/", 3)[3]
            hook["clientConfig"] = {
                "service": {"name": service, "namespace": namespace, "path": path, "port": 443},
                "caBundle": base64.b64encode(authority).decode(),
            }
        found.append(thing)
    return found


def _kubevela(lab: KindLab) -> None:
    version = lab.given.kubevela
    lab.load([f"vela-core-{version}"])
    api = lab.api
    namespace = objects.SYSTEM_NAMESPACE
    pair = issue([f"{_VELA_WEBHOOK}.{namespace}.svc", f"{_VELA_WEBHOOK}.{namespace}.svc.cluster.local"])
    api.apply_all([_namespace(namespace)])
    _crds(api, objects.vela_crds(version))
    # The embedded lab's list ends with a Deployment without pods; here the real one takes its place.
    api.apply_all([thing for thing in objects.vela_definitions(version) if thing["kind"] != "Deployment"])
    api.apply_all(vela_objects(pair, version))
    lab.wait_deployment(namespace, _VELA)
    api.apply_all(in_cluster(objects.vela_webhooks(0, b""), _VELA_WEBHOOK, namespace, pair.certificate))
    wrong = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "velagen-probe", "namespace": "default"},
        "spec": {"components": [{"name": "probe", "type": "no-such-definition", "properties": {}}]},
    }
    _wait_denied(api, wrong, "KubeVela's webhooks")


# -- the gateway


def _gateway(lab: KindLab) -> None:
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


def pinned(thing: Any) -> Any:
    """Give an object with KServe's own images at the release, where upstream's sources say ``latest``.

    A tag ``latest`` would be asked of a registry at every start, and mean something else tomorrow.
    """
    version = next(row.version for row in table().sources if row.name == "kserve")
    if isinstance(thing, dict):
        return {key: pinned(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return [pinned(value) for value in thing]
    if isinstance(thing, str) and "kserve/" in thing and ":latest" in thing:
        # In a ConfigMap the reference is inside a JSON text.
        head = thing.split(":latest")
        return f":{version}".join(head)
    return thing


@cache
def _kustomized() -> str:
    done = subprocess.run(
        [str(tool("kubectl")), "kustomize", str(source("kserve") / "config/default")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise VelagenError(Problem(f"kubectl kustomize: {done.stderr.strip()[-800:]}"))
    return done.stdout


def kserve_objects(text: str, pair: Pair) -> tuple[list[Thing], list[Thing]]:
    """Give KServe's controller as upstream's kustomization has it, and its webhooks.

    Left out: the CRDs, which are applied before; cert-manager's certificate, whose place `pair` takes; and the proxy
    before the metrics, which are read inside the cluster only.

    :param text: what ``kubectl kustomize config/default`` prints.
    """
    things: list[Thing] = []
    hooks: list[Thing] = []
    namespace = objects.KSERVE_NAMESPACE
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for thing in yaml.load_all(text, loader):
        kind = (thing or {}).get("kind")
        if kind in {None, "CustomResourceDefinition", "Certificate", "Issuer"}:
            continue
        thing["metadata"].pop("creationTimestamp", None)
        if kind.endswith("WebhookConfiguration"):
            thing["metadata"].get("annotations", {}).pop("cert-manager.io/inject-ca-from", None)
            hooks += in_cluster([thing], "kserve-webhook-server-service", namespace, pair.certificate)
            continue
        if kind == "Deployment":
            _trim(thing)
        things.append(pinned(thing))
    return [*things, secret(_KSERVE_CERT, namespace, pair)], hooks


def _trim(deployment: Thing) -> None:
    pod = deployment["spec"]["template"]
    containers = [entry for entry in pod["spec"]["containers"] if entry["name"] == "manager"]
    pod["spec"]["containers"] = containers
    (manager,) = containers
    manager["imagePullPolicy"] = "IfNotPresent"
    manager["args"] = ["--metrics-addr=:8080", "--leader-elect"]
    # A tenth of a core, upstream's limit, makes a start take minutes on a busy machine.
    manager["resources"] = {"requests": {"cpu": "50m", "memory": "200Mi"}, "limits": {"memory": "1Gi"}}
    manager["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    pod["metadata"].setdefault("annotations", {}).update(
        {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    )


def _kserve(lab: KindLab) -> None:
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
    api.apply_all(pinned(config))
    things, hooks = kserve_objects(_kustomized(), pair)
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
    api.apply_all(light(pinned(thing)) for thing in objects.kserve_runtimes())


#: What a server asks the scheduler for in the lab; upstream's whole core each would leave no room for a second model on
#: a laptop. The limits stay upstream's.
_REQUESTS = {"cpu": "100m", "memory": "128Mi"}


def light(runtime: Thing) -> Thing:
    """Give a runtime whose containers reserve little; other objects as they are."""
    if runtime["kind"] != "ClusterServingRuntime":
        return runtime
    thing = copy.deepcopy(runtime)
    for container in thing["spec"]["containers"]:
        container.setdefault("resources", {})["requests"] = dict(_REQUESTS)
    return thing


# -- GPUs


def _gpu(lab: KindLab) -> None:
    options = lab.given
    if not options.gpus:
        lab.reporter.say("no GPUs are asked for: nodes have none")
        return
    gpus.install(lab, options.gpus, options.gpu_config)


# -- where models are kept


def store_objects(holds: str = "") -> list[Thing]:
    """Give an S3 server for models: ``s3://models`` in the cluster, ``models`` of `NODE_PORTS` on this machine.

    :param holds: names what `SEED` on the nodes holds; another name starts the server anew.
    """
    namespace = STORE_NAMESPACE
    labels = {"app": "object-store"}
    probe = {"httpGet": {"path": "/moto-api/", "port": 5000}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = {
        "name": "server",
        "image": recipes()["object-store"].references[0],
        "imagePullPolicy": "IfNotPresent",
        # It forgets all when it ends: each start begins with what the node has.
        "command": ["python", "-c", Path(__file__).with_name("store.py").read_text(), "/seed"],
        "args": ["-H", "0.0.0.0", "-p", "5000"],
        "volumeMounts": [{"name": "seed", "mountPath": "/seed", "readOnly": True}],
        # Without it the first part of the Service's name would be taken for a bucket.
        "env": [{"name": "S3_IGNORE_SUBDOMAIN_BUCKETNAME", "value": "true"}],
        "ports": [{"containerPort": 5000, "name": "s3"}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "object-store", "namespace": namespace},
            "spec": {
                "replicas": 1,
                # It keeps everything in memory: two of them would hold different things.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": {"velagen.dev/holds": holds}},
                    "spec": {
                        "containers": [container],
                        "volumes": [{"name": "seed", "hostPath": {"path": SEED, "type": "DirectoryOrCreate"}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "object-store", "namespace": namespace},
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"name": "s3", "port": 5000, "targetPort": 5000, "nodePort": NODE_PORTS["models"]}],
            },
        },
    ]


def with_store(container: Thing) -> Thing:
    """Give a ClusterStorageContainer that finds the lab's S3 server, so that an application needs no secret."""
    thing = copy.deepcopy(container)
    env = {
        "AWS_ENDPOINT_URL": f"http://object-store.{STORE_NAMESPACE}:5000",
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_USE_HTTPS": "0",
    }
    thing["spec"]["container"]["env"] = [{"name": name, "value": value} for name, value in env.items()]
    return thing


def _seed(lab: KindLab) -> str:
    """Bring the sentiment model to every node, for the object store to begin with; give its name, or nothing."""
    try:
        model = sentiment.repository(lab.reporter)
    except VelagenError as error:
        lab.reporter.say(f"s3://models/sentiment/1 stays empty: {error}")
        return ""
    lab.put(model, f"{SEED}/models/sentiment/1")
    return model.name


def _models(lab: KindLab) -> None:
    lab.load(["object-store"])
    api = lab.api
    api.apply_all([_namespace(STORE_NAMESPACE)])
    api.apply_all(store_objects(_seed(lab)))
    lab.wait_deployment(STORE_NAMESPACE, "object-store")
    api.apply_all(
        with_store(pinned(thing)) for thing in objects.kserve_runtimes() if thing["kind"] == "ClusterStorageContainer"
    )
    # S3's way to make a bucket; the server takes any name and key.
    address = f"{lab.url('models')}/models"

    def made() -> bool:
        try:
            return bool(local().put(address, timeout=5).ok)
        except requests.RequestException:
            return False

    wait_until(made, what="the bucket models", timeout=30, every=0.5)


def local() -> requests.Session:
    """Give an HTTP client for this machine's loopback: no proxy of the environment stands between."""
    session = requests.Session()
    session.trust_env = False
    return session


# -- the model servers

#: Every runtime of the addon that can be assembled here; where a registry answers, nodes pull what is asked for.
SERVERS = ("tritonserver", "sklearnserver", "xgbserver", "lgbserver", "mlserver")


def _servers(lab: KindLab) -> None:
    lab.load(SERVERS)


# -- metrics


def _prometheus(lab: KindLab) -> None:
    lab.load(["prometheus"])
    lab.api.apply_all(prometheus.objects(NODE_PORTS["prometheus"]))
    lab.wait_deployment(prometheus.NAMESPACE, prometheus.NAME)


def _alerts(lab: KindLab) -> None:
    lab.load(["alertmanager", "kube-state-metrics"])
    lab.api.apply_all([*alerting.alertmanager(NODE_PORTS["alertmanager"]), *alerting.state_metrics()])
    for name in (prometheus.ALERTMANAGER, prometheus.STATE):
        lab.wait_deployment(prometheus.NAMESPACE, name)


# -- the addon


def enable(lab: KindLab, folder: Path) -> None:
    """Enable an addon from its folder, as a user does.

    :raises VelagenError: vela refuses it, or its application does not run within three minutes.
    """
    done = subprocess.run(
        [str(tool("vela", lab.given.kubevela)), "addon", "enable", str(folder), "-y"],
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


def _namespace(name: str) -> Thing:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _crds(api: Api, crds: list[Thing]) -> None:
    api.apply_all(crds, workers=3)
    for crd in crds:
        # Some of upstream's files hold a namespace beside their CRDs.
        if crd["kind"] == "CustomResourceDefinition":
            _wait_served(api, crd)


def _wait_served(api: Api, crd: Thing) -> None:
    # Asked of discovery, not of the CRD: the biggest have two megabytes.
    spec = crd["spec"]
    kind = str(spec["names"]["kind"])
    version = next(entry["name"] for entry in spec["versions"] if entry["served"])
    wait_until(lambda: api.serves(f"{spec['group']}/{version}", kind), what=f"CRD {kind}", timeout=90, every=0.2)


def _wait_denied(api: Api, wrong: Mapping[str, Any], what: str) -> None:
    """Wait until a wrong object is refused by a webhook: the caches of API server and webhook are warm then."""

    def look() -> bool:
        try:
            api.apply(wrong, dry_run=True, patience=0)
        except ApiError as error:
            return "denied the request" in str(error)
        return False

    wait_until(look, what=what, timeout=60, every=0.3)


def config_of(api: Api) -> dict[str, Any]:
    """Give KServe's configuration, its JSON texts parsed."""
    thing = api.get("v1", "ConfigMap", "inferenceservice-config", objects.KSERVE_NAMESPACE) or {"data": {}}
    return {key: json.loads(value) for key, value in thing["data"].items() if value.lstrip().startswith("{")}


_INSTALL: dict[str, Callable[[KindLab], None]] = {
    "kubevela": _kubevela,
    "gateway": _gateway,
    "kserve": _kserve,
    "gpu": _gpu,
    "models": _models,
    "prometheus": _prometheus,
    "alerts": _alerts,
    "servers": _servers,
}

#: All layers, in the order they stand on each other.
LAYERS = (*_INSTALL, "addon")
