"""The addon as its users meet it: enabled, used by every example, changed, refused, disabled; real webhooks."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.conftest import Cluster, namespace_of

from velagen.cli import main
from velagen.gpusim.config import parse_config
from velagen.gpusim.inventory import node_gpus, plugin_devices
from velagen.gpusim.labels import node_labels
from velagen.lab import Lab, condition, wait_until
from velagen.lab.objects import gpu_node
from velagen.lab.settle import apply_node
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ROOT = Path(__file__).parents[2]
ADDON = ROOT / "addon" / "kfserving"
#: test_rollout_notify runs the other, with somebody who is told.
EXAMPLES = sorted(file for file in (ROOT / "examples").glob("*.yaml") if file.stem != "rollout-notify")
DEFINITION_KINDS = {
    "component": "ComponentDefinition",
    "trait": "TraitDefinition",
    "workflowstep": "WorkflowStepDefinition",
    "policy": "PolicyDefinition",
}

#: What an example needs that the embedded control plane does not have. Its objects are accepted all the same.
WAITS_FOR = {
    "accelerator": "nodes with H100 or A100 GPUs",
    "autoscale-knative": "Knative Serving",
    "canary-knative": "Knative Serving",
    "gpu-dra": "the devices of a DRA driver",
    "gpu-memory": "HAMi's device plugin",
    "gpu-share-hami": "HAMi's device plugin",
    "gpu-share-kai": "the KAI scheduler",
    "gpu-share-mig": "nodes with MIG slices",
    "gpu-share-mps": "nodes that share GPUs by MPS",
    "gpu-share-time-slicing": "nodes that share GPUs by time-slicing",
    "gpu-share-volcano": "the Volcano scheduler",
    "pod": "a PriorityClass and a volume of the cluster's own",
}


#: What must be on the cluster before an example.
BEFORE: dict[str, dict[str, Any]] = {
    "named-runtime": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "storage-config"},
        "stringData": {"minio": json.dumps({"type": "s3", "access_key_id": "a", "secret_access_key": "b"})},
    },
}


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    """The addon, enabled from its folder: no network, no flag."""
    done = vela(lab.kubeconfig, "addon", "enable", ADDON)
    assert "enabled successfully" in done.stdout


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def available(cluster: Cluster, name: str) -> int:
    deployment = cluster.get("apps/v1", "Deployment", name) or {}
    return int(deployment.get("status", {}).get("availableReplicas", 0))


def components(path: Path) -> list[str]:
    return [
        component["name"]
        for document in documents(path)
        if document["kind"] == "Application"
        for component in document["spec"]["components"]
        if component["type"] == "kfserving"
    ]


# ---------------------------------------------------------------- the definitions


@pytest.mark.both
@pytest.mark.parametrize("file", sorted((ADDON / "definitions").glob("*.cue")), ids=lambda path: path.stem)
def test_a_definition_is_synced_and_its_form_exists(lab: Lab, file: Path) -> None:
    # Its type is on one of the first lines: the metadata comes first.
    kind = next(
        line.split('"')[1] for line in file.read_text(encoding="utf-8").splitlines() if line.strip().startswith("type:")
    ).replace("-", "")
    name = file.stem
    api = "core.oam.dev/v1beta1"

    def synced() -> dict[str, Any] | None:
        found = lab.api.get(api, DEFINITION_KINDS[kind], name, "vela-system")
        return found if condition(found, "Synced") == "True" else None

    definition = wait_until(synced, what=f"{kind} {name} Synced", timeout=30)
    assert definition is not None
    form = lab.api.get("v1", "ConfigMap", f"{kind}-schema-{name}", "vela-system")
    assert form is not None
    assert '"properties"' in form["data"]["openapi-v3-json-schema"]
    assert lab.api.get("v1", "ConfigMap", f"{kind}-uischema-{name}", "vela-system") is not None


# ---------------------------------------------------------------- the examples


@pytest.mark.both
@pytest.mark.usefixtures("ingress_gateway")
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted_and_runs(cluster: Cluster, file: Path) -> None:
    if file.stem in BEFORE:
        prepared = BEFORE[file.stem]
        cluster.api.apply({**prepared, "metadata": {**prepared["metadata"], "namespace": cluster.namespace}})
    cluster.up(file)
    (app,) = (document for document in documents(file) if document["kind"] == "Application")
    # An application with a topology policy places its components elsewhere.
    placed = [
        policy["properties"]["namespace"]
        for policy in app["spec"].get("policies", ())
        if policy["type"] == "topology" and "namespace" in policy.get("properties", {})
    ]
    namespace = placed[0] if placed else cluster.namespace
    for name in components(file):

        def there(name: str = name) -> dict[str, Any] | None:
            return cluster.api.get("serving.kserve.io/v1beta1", "InferenceService", name, namespace)

        cluster.wait_for(there, f"InferenceService {name}")
    if file.stem in WAITS_FOR:
        status = (cluster.application(app["metadata"]["name"]) or {}).get("status", {})
        assert status.get("status") != "workflowFailed"
        return
    cluster.wait_running(app["metadata"]["name"], timeout=90)


@contextmanager
def configured(lab: Lab, share: dict[str, Any], gpu: str) -> Iterator[None]:
    """A node more, with what the device plugin makes of what velagen gpu config writes for a share."""
    options = [item for key, value in share.items() for item in (f"--{key}", str(value))]
    done = CliRunner().invoke(main, ["gpu", "config", "--plain", *options])
    assert done.exit_code == 0, done.stderr
    config, inventory = parse_config(yaml.safe_load(done.stdout)), node_gpus("shares", [gpu])
    node = gpu_node("shares", gpus=0)
    node["metadata"]["labels"] |= node_labels(inventory, config)
    offered = {name: str(len(devices)) for name, devices in plugin_devices(inventory, config).items()}
    node["status"]["allocatable"] |= offered
    apply_node(lab.api, node)
    try:
        yield
    finally:
        lab.api.delete("v1", "Node", "shares")


@pytest.mark.both
@pytest.mark.parametrize(
    ("share", "scheduler", "gpu"),
    [
        # By the nodes' labels, which the scheduler does not name, and by the resource.
        ({"fraction": 0.5}, "2 node(s) didn't match Pod's node affinity/selector", "t4"),
        (
            {"fraction": 0.5, "mode": "mig", "gpu": "a100-40gb"},
            "2 Insufficient nvidia.com/mig-3g.20gb",
            "a100-40gb:3g.20gb,3g.20gb",
        ),
    ],
)
def test_a_fraction_that_no_node_offers_is_told_with_the_way_out(
    cluster: Cluster, share: dict[str, Any], scheduler: str, gpu: str
) -> None:
    """In vela status: the scheduler's sentence, and the command that writes what nodes need; with that, pods run."""
    (app,) = documents(ROOT / "examples" / "gpu-share-time-slicing.yaml")
    app["spec"]["components"][0]["traits"][0]["properties"] = share
    cluster.up(app)
    name = app["metadata"]["name"]
    wanted = (
        f"1 of its pods can't be scheduled: 0/2 nodes are available: {scheduler}",
        "of a GPU: velagen gpu config)",
    )

    def told() -> bool:
        said = cluster.vela("status", name, "-n", cluster.namespace).stdout
        return all(part in said for part in (*wanted, "0.5 of a GPU; where no node offers it: velagen gpu config"))

    cluster.wait_for(told, "the scheduler's reason and the way out")
    with configured(cluster.lab, share, gpu):
        cluster.wait_running(name)
        pods = cluster.list("v1", "Pod")
        assert [pod["spec"]["nodeName"] for pod in pods] == ["shares"]
        cluster.vela("delete", name, "-n", cluster.namespace, "-y")


def test_what_kubevela_1_11_adds_is_used(cluster: Cluster) -> None:
    """A component's errs are what is said first, and deploymentMode is not changed."""
    if cluster.lab.wanted().kubevela == "1.10.9":
        pytest.skip("KubeVela 1.10 has neither")
    app: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "sentiment.yaml").read_text(encoding="utf-8"))
    properties = app["spec"]["components"][0]["properties"]
    runtime = properties.pop("runtime")
    said = cluster.up(app, check=False).stderr
    assert "User Errors:\n  runtime is missing" in said.replace("\\n", "\n")
    properties |= {"runtime": runtime, "deploymentMode": "standard"}
    cluster.up(app)
    properties["deploymentMode"] = "knative"
    words = 'immutable field cannot be changed (current: "standard", new: "knative")'

    def refused() -> bool:
        # While KubeVela writes its status, a change may be refused for that alone.
        return words in cluster.up(app, check=False).stderr.replace('\\"', '"')

    cluster.wait_for(refused, words, 20)


def test_the_article_application_has_its_objects(cluster: Cluster) -> None:
    cluster.up(ROOT / "examples" / "sentiment.yaml")
    cluster.wait_running("sentiment")
    service = cluster.wait_ready("sentiment")
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    predictor = service["spec"]["predictor"]
    assert predictor["minReplicas"] == 2
    assert predictor["model"]["storageUri"] == "s3://models/sentiment/1"
    cluster.wait_for(lambda: available(cluster, "sentiment-predictor") == 2, "both replicas")
    deployment = cluster.get("apps/v1", "Deployment", "sentiment-predictor")
    assert deployment is not None
    (container,) = (
        one for one in deployment["spec"]["template"]["spec"]["containers"] if one["name"] == "kserve-container"
    )
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


def test_status_names_the_url_and_the_pods(cluster: Cluster) -> None:
    cluster.up(ROOT / "examples" / "sentiment.yaml")
    cluster.wait_running("sentiment")
    status = cluster.vela("status", "sentiment", "-n", cluster.namespace).stdout
    assert f"Ready at http://sentiment-{cluster.namespace}.example.com" in status
    assert "modelState: Loaded" in status
    cluster.wait_for(lambda: available(cluster, "sentiment-predictor") == 2, "both replicas")
    # The rules in the addon's ConfigMap lead from the InferenceService to its pods.
    pods = cluster.vela("status", "sentiment", "-n", cluster.namespace, "--pod").stdout
    assert pods.count("sentiment-predictor-") == 2
    query = f"application-resource-tree-view{{appName=sentiment,appNs={cluster.namespace}}}"
    tree = cluster.vela("ql", "--query", query).stdout
    assert '"kind": "Deployment"' in tree
    assert '"kind": "ReplicaSet"' in tree
    assert '"kind": "Pod"' in tree


# ---------------------------------------------------------------- a life


def app(properties: dict[str, Any], traits: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    component = {"name": "model", "type": "kfserving", "properties": properties, "traits": traits or []}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "life"},
        "spec": {"components": [component]},
    }


BASE = {"runtime": "triton", "modelUri": "s3://models/sentiment/1", "minReplicas": 1}


def test_an_application_is_changed_and_deleted(cluster: Cluster) -> None:
    unsized = {key: value for key, value in BASE.items() if key != "minReplicas"}
    cluster.up(app(unsized, [{"type": "autoscale", "properties": AUTOSCALE}]))
    cluster.wait_running("life")
    assert len(cluster.list("keda.sh/v1alpha1", "ScaledObject")) == 1

    # The trait goes, and what it wrote goes with it; the replicas are the component's again.
    cluster.up(app({**BASE, "minReplicas": 3, "modelUri": "s3://models/sentiment/2"}))
    cluster.wait_for(lambda: available(cluster, "model-predictor") == 3, "three replicas")
    cluster.wait_running("life")
    cluster.wait_for(lambda: not cluster.list("keda.sh/v1alpha1", "ScaledObject"), "the ScaledObject gone")
    service = cluster.inference_service("model")
    assert service is not None
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://models/sentiment/2"

    cluster.vela("delete", "life", "-n", cluster.namespace, "-y")
    cluster.wait_for(lambda: cluster.inference_service("model") is None, "the InferenceService gone")
    cluster.wait_for(lambda: not cluster.list("v1", "Pod"), "the pods gone")


AUTOSCALE: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "autoscale-article.yaml").read_text(encoding="utf-8"))[
    "spec"
]["components"][0]["traits"][0]["properties"]


def test_the_status_says_what_is_wrong(cluster: Cluster) -> None:
    cluster.up(app({**BASE, "storageKey": "nowhere"}))

    def told() -> bool:
        return "storage-config" in cluster.vela("status", "life", "-n", cluster.namespace, check=False).stdout

    cluster.wait_for(told, "the reason in vela status")


def test_a_deployment_mode_cannot_be_changed_and_the_user_is_told(cluster: Cluster) -> None:
    cluster.up(app(BASE))
    cluster.wait_running("life")
    cluster.up(app({**BASE, "deploymentMode": "knative"}))

    def told() -> bool:
        return "deploymentMode cannot be changed" in str((cluster.application("life") or {}).get("status"))

    cluster.wait_for(told, "KServe's refusal in the application's status")


def test_a_scope_never_takes_a_namespace_that_is_there(cluster: Cluster) -> None:
    with namespace_of(cluster.api, "payments") as taken:
        before = cluster.api.get("v1", "Namespace", taken)
        scoped = app(BASE)
        scope = {"namespace": taken, "mesh": "none"}
        scoped["spec"]["policies"] = [{"name": "bounds", "type": "model-scope", "properties": scope}]
        cluster.up(scoped)

        def told() -> bool:
            return f"Namespace /{taken} exists" in str((cluster.application("life") or {}).get("status"))

        cluster.wait_for(told, "KubeVela's refusal in the application's status")
        cluster.vela("delete", "life", "-n", cluster.namespace, "-y")
        cluster.wait_for(lambda: cluster.application("life") is None, "the application gone")
        assert cluster.api.get("v1", "Namespace", taken) == before


# ---------------------------------------------------------------- disabling


def test_disable_refuses_while_it_is_used(cluster: Cluster) -> None:
    cluster.up(app(BASE))
    cluster.wait_running("life")
    refused = cluster.vela("addon", "disable", "kfserving", check=False)
    assert refused.returncode != 0
    assert "life" in refused.stdout + refused.stderr


@pytest.mark.skipif("VELAGEN_TEST_LAB" in os.environ, reason="a lab that stands holds applications of its user's")
def test_disable_cleans_up_after(cluster: Cluster) -> None:
    def used() -> list[str]:
        names = [one["metadata"]["name"] for one in cluster.api.list("core.oam.dev/v1beta1", "Application")]
        return [name for name in names if not name.startswith("addon-")]

    # Each test takes its own with it, and KubeVela takes its time.
    try:
        cluster.wait_for(lambda: not used(), "the other tests' applications gone", timeout=120)
    except TimeoutError as error:
        raise AssertionError(f"still there: {used()}") from error
    cluster.vela("addon", "disable", "kfserving")

    def left() -> list[str]:
        definitions = [
            f"{kind} {one['metadata']['name']}"
            for kind in DEFINITION_KINDS.values()
            for one in cluster.api.list("core.oam.dev/v1beta1", kind, "vela-system")
            if one["metadata"]["name"] in {path.stem for path in (ADDON / "definitions").glob("*.cue")}
        ]
        maps = [
            f"ConfigMap {one['metadata']['name']}"
            for one in cluster.api.list("v1", "ConfigMap", "vela-system")
            if "uischema" in one["metadata"]["name"] or "kfserving-resource-tree" in one["metadata"]["name"]
        ]
        return definitions + maps

    cluster.wait_for(lambda: not left(), "all of the addon gone")
    cluster.vela("addon", "enable", ADDON)


# ---------------------------------------------------------------- a registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The addon packed and served by a plain HTTP server on loopback."""
    subprocess.run(
        [sys.executable, "-m", "velagen.cli", "package", "--out", tmp_path], check=True, cwd=ROOT, timeout=60
    )
    with served(tmp_path) as address:
        yield address


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder by a plain HTTP server on loopback."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_registry_serves_the_package(lab: Lab, cluster: Cluster, registry: str) -> None:
    # A registry that can't be reached would fail the enabling, since all are asked; a fresh lab has none.
    vela(lab.kubeconfig, "addon", "registry", "add", "mine", "--type=helm", f"--endpoint={registry}")
    try:
        assert "0.1.0" in vela(lab.kubeconfig, "addon", "status", "kfserving", "-v").stdout
        done = vela(lab.kubeconfig, "addon", "enable", "mine/kfserving")
        assert "enabled successfully" in done.stdout
        # Its definitions have a version there, and an application may ask for it.
        versioned = app(BASE)
        versioned["spec"]["components"][0]["type"] = "kfserving@v0.1.0"
        wait_until(lambda: cluster.up(versioned, check=False).returncode == 0, what="version 0.1.0", timeout=30)
        cluster.wait_running("life")
        versioned["spec"]["components"][0]["type"] = "kfserving@v0.9.0"
        assert "kfserving@v0.9.0" in cluster.up(versioned, check=False).stderr
    finally:
        vela(lab.kubeconfig, "addon", "registry", "delete", "mine", check=False)
        vela(lab.kubeconfig, "addon", "enable", ADDON)


# ---------------------------------------------------------------- KServe's charts


def chart(name: str, templates: dict[str, str]) -> bytes:
    """A chart of KServe's name and version, packed."""
    head = {"Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: v0.20.0\n"}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, content in {**head, **{f"templates/{path}": one for path, one in templates.items()}}.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return raw.getvalue()


#: What a chart was given, to look at. KServe's own charts need cert-manager, which the lab lacks.
VALUES = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-values", namespace: "{{ .Release.Namespace }}"}
data: {values: {{ .Values | toJson | quote }}}
"""
CONTROLLER = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: kserve-controller-manager, namespace: "{{ .Release.Namespace }}"}
spec:
  selector: {matchLabels: {app: controller}}
  template:
    metadata: {labels: {app: controller}}
    spec: {containers: [{name: manager, image: manager}]}
"""
CHARTS = {
    "kserve-crd": {"values.yaml": VALUES},
    "kserve-resources": {"values.yaml": VALUES, "controller.yaml": CONTROLLER},
    "kserve-runtime-configs": {"values.yaml": VALUES},
}


@pytest.fixture
def charts(tmp_path: Path) -> Iterator[str]:
    """A chart repository on loopback with charts of KServe's names."""
    entries = {}
    for name, templates in CHARTS.items():
        file = tmp_path / f"{name}-v0.20.0.tgz"
        file.write_bytes(chart(name, templates))
        entries[name] = [{"apiVersion": "v2", "name": name, "version": "v0.20.0", "urls": [file.name]}]
    (tmp_path / "index.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "entries": entries}))
    with served(tmp_path) as address:
        yield address


@pytest.mark.both
def test_kserves_charts_are_installed_by_kubevela_itself(cluster: Cluster, charts: str) -> None:
    """With installWith=helmchart, which KubeVela 1.10 lacks; they go when the addon is enabled without them."""
    given = ("install=true", "installWith=helmchart", f"chartUrl={charts}", f"namespace={cluster.namespace}")
    done = cluster.vela("addon", "enable", ADDON, *given, check=False)
    if cluster.lab.wanted().kubevela == "1.10.9":
        assert "component definition [helmchart]" in done.stdout + done.stderr
        return
    try:
        assert "enabled successfully" in done.stdout

        def installed() -> bool:
            found = cluster.api.get("core.oam.dev/v1beta1", "Application", "addon-kfserving", "vela-system") or {}
            services = found.get("status", {}).get("services", [])
            return found["status"].get("status") == "running" and all(one["healthy"] for one in services)

        cluster.wait_for(installed, "addon-kfserving running")
        maps = {one["metadata"]["name"]: one for one in cluster.list("v1", "ConfigMap")}
        values = json.loads(maps["kserve-resources-values"]["data"]["values"])
        assert values["kserve"]["controller"]["gateway"]["ingressGateway"]["enableGatewayApi"] is True
        assert {"kserve-crd-values", "kserve-runtime-configs-values"} <= maps.keys()
    finally:
        cluster.vela("addon", "enable", ADDON, "install=false")
    cluster.wait_for(lambda: not cluster.list("apps/v1", "Deployment"), "what the charts installed gone")
