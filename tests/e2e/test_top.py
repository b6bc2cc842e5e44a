"""velagen top against a real API server: what it reads of objects, and a Prometheus that is asked through it."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.conftest import Cluster
from tests.unit.prometheus_server import Series, holding

from velagen.cli import main
from velagen.lab import Api, Lab
from velagen.lab.vela import vela
from velagen.monitoring import cluster as module
from velagen.monitoring.cluster import DEFAULT_PROMETHEUS, ClusterError, prometheus_address

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving", timeout=300)


@pytest.fixture
def canary(cluster: Cluster, repository: Path) -> str:
    """Two versions of a model, 90 to 10."""
    cluster.up(repository / "examples/canary-gateway.yaml")
    cluster.wait_ready("sentiment-canary")
    cluster.wait_ready("sentiment-canary-canary")

    def whole() -> bool:
        found = cluster.get("apps/v1", "Deployment", "sentiment-canary-predictor") or {}
        return bool(found.get("status", {}).get("readyReplicas") == 2)

    # Ready is said of the first pod.
    cluster.wait_for(whole, "both pods of sentiment-canary")
    return "sentiment-canary"


def top(cluster: Cluster, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["top", "--kubeconfig", str(cluster.kubeconfig), *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def series_of(namespace: str, app: str) -> list[Series]:
    def of(version: str, **more: str) -> dict[str, str]:
        return {"app": app, "component": app, "namespace": namespace, "version": version, **more}

    return [
        ("model:info", of(app), lambda ago: 1),
        ("model:info", of(f"{app}-canary"), lambda ago: 1),
        ("model:requests:rate1m", of(app, route="envoy"), lambda ago: 90),
        ("model:requests:rate1m", of(f"{app}-canary", route="envoy"), lambda ago: 10),
        # Of a version that is gone.
        ("model:requests:rate1m", of(f"{app}-old", route="envoy"), lambda ago: 5),
    ]


def test_the_cluster_is_shown_without_a_prometheus(cluster: Cluster, canary: str) -> None:
    here = ["-n", cluster.namespace, "--prometheus", "http://127.0.0.1:1"]
    answer: dict[str, Any] = {}

    def seen() -> dict[str, Any]:
        answer.update(json.loads(top(cluster, canary, *here, "-o", "json")))
        return {one["version"]: (one["weightPercent"], one["replicas"], one["ready"]) for one in answer["models"]}

    wanted = {
        canary: (90, {"ready": 2, "wanted": 2}, True),
        f"{canary}-canary": (10, {"ready": 1, "wanted": 1}, True),
    }
    # KServe says Ready with the first pod, and takes it back for a moment when the second is added.
    cluster.wait_for(lambda: seen() == wanted, f"both versions ready: {wanted}")
    assert [one["requestsPerSecond"] for one in answer["models"]] == [None, None]
    assert "127.0.0.1:1 does not answer: connection refused" in answer["problems"][0]["message"]
    table = top(cluster, *here)
    assert "2/2" in table
    assert "connection refused" in table


def test_a_prometheus_inside_of_the_cluster_is_asked_through_the_api_server(
    cluster: Cluster, canary: str, tmp_path: Path
) -> None:
    """A pod at this machine's own address stands for Prometheus: the API server sends nothing to loopback."""
    address = own_address()
    with holding(tmp_path, series_of(cluster.namespace, canary), back=300, host=address) as url:
        port = int(url.rpartition(":")[2])
        service(cluster.api, cluster.namespace, address, port)
        inside = f"http://prometheus.{cluster.namespace}.svc:80"
        here = [canary, "-n", cluster.namespace, "-o", "json", "--prometheus", inside]

        def answered() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(top(cluster, *here))
            return found if not found["problems"] else None

        answer = cluster.wait_for(answered, "an answer through the API server")
    assert answer
    assert {one["version"]: one["requestsPerSecond"] for one in answer["models"]} == {
        canary: 90,
        f"{canary}-canary": 10,
    }


def test_what_the_api_server_does_not_find_or_allow_is_told(cluster: Cluster, tmp_path: Path) -> None:
    reader = reader_of(cluster, tmp_path)
    answer = json.loads(
        top(cluster, "-n", cluster.namespace, "-o", "json", "--prometheus", "http://none.default.svc:9")
    )
    assert 'services "none" not found' in answer["problems"][0]["message"]
    with pytest.raises(ClusterError, match="may not be asked through the API server") as caught:
        reader.prometheus("http://prometheus.default.svc:9090").instant("up")
    assert "services/proxy" in caught.value.problems[0].hint
    with pytest.raises(ClusterError, match=r"refused \(403\): .*inferenceservices"):
        reader.list("serving.kserve.io/v1beta1", "inferenceservices")
    assert prometheus_address(reader) == DEFAULT_PROMETHEUS


def test_it_looks_again_until_it_is_interrupted(cluster: Cluster, canary: str) -> None:
    """On a terminal: drawn more than once, and what was seen last stays when Ctrl-C ends it."""
    arguments = [sys.executable, "-m", "velagen.cli", "top", canary, "-n", cluster.namespace, "--every", "1"]
    arguments += ["--kubeconfig", str(cluster.kubeconfig), "--prometheus", "http://127.0.0.1:1"]
    terminal, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    # A shell starts what it runs in the background with the signal ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        arguments, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True, preexec_fn=heard
    )
    os.close(inner)
    seen = b""
    with suppress(OSError):  # the end of a terminal
        while more := os.read(terminal, 65_536):
            seen += more
            if b"MODEL" in more and seen.count(b"MODEL") == 3:
                process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, seen
    left_behind = seen.rpartition(b"\x1b[?1049l")[2]
    assert left_behind.count(b"MODEL") == 1
    assert canary.encode() in left_behind


def test_an_application_that_is_not_there(cluster: Cluster, canary: str) -> None:
    done = CliRunner().invoke(
        main, ["top", "sentiment-canry", "--kubeconfig", str(cluster.kubeconfig), "-n", cluster.namespace]
    )
    assert done.exit_code == 1
    assert f"there is no application sentiment-canry in namespace {cluster.namespace}" in " ".join(done.output.split())
    assert "did you mean sentiment-canary?" in done.output


def test_the_addons_parameter_says_which_prometheus(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    given = json.dumps({"monitoring": {"prometheus": "http://prometheus.monitoring.svc:9090"}})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "addon-secret-kfserving", "namespace": cluster.namespace},
        "data": {"addonParameterDataKey": base64.b64encode(given.encode()).decode()},
    }
    cluster.api.apply(secret)
    monkeypatch.setattr(module, "_PARAMETERS", module._PARAMETERS.replace("vela-system", cluster.namespace))
    found = prometheus_address(module.Cluster.connect(cluster.kubeconfig))
    assert found == "http://prometheus.monitoring.svc:9090"


def test_a_report_tells_revisions_and_events(cluster: Cluster, canary: str, tmp_path: Path) -> None:
    """What KubeVela keeps of a revision, and what the cluster says of the objects, as they really are."""
    app = yaml.safe_load((ROOT / "examples/canary-gateway.yaml").read_text(encoding="utf-8"))
    app["spec"]["components"][0]["traits"][0]["properties"]["weight"] = 30
    cluster.up(app)

    def published() -> bool:
        return len(cluster.list("core.oam.dev/v1beta1", "ApplicationRevision")) == 2

    cluster.wait_for(published, "the second revision")
    path = tmp_path / "report.html"
    with holding(tmp_path, series_of(cluster.namespace, canary), back=600) as url:
        here = ["--kubeconfig", str(cluster.kubeconfig), "-n", cluster.namespace, "--prometheus", url]
        done = CliRunner().invoke(main, ["report", canary, "-o", str(path), *here])
    assert done.exit_code == 0, done.output
    text = path.read_text(encoding="utf-8")
    for said in (
        f"revision {canary}-v1, {canary}: 10 % to its new version",
        f"revision {canary}-v2, {canary}: 30 % to its new version",
        f"Deployment {canary}-canary-predictor",
        "InferenceServiceReady",
        f"{canary}-old",
    ):
        assert said in text


# ---------------------------------------------------------------- helpers


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def service(api: Api, namespace: str, address: str, port: int) -> None:
    """A Service whose one pod is at *address*: on a node that is not there nobody runs it, and its status is ours."""
    metadata = {"name": "prometheus", "namespace": namespace, "labels": {"app": "prometheus"}}
    container = {"name": "p", "image": "p", "ports": [{"containerPort": port}]}
    spec: dict[str, Any] = {"nodeName": "nowhere", "containers": [container]}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
    api.request(
        "PATCH",
        api.path("v1", "Pod", "prometheus", namespace) + "/status",
        headers={"Content-Type": "application/merge-patch+json"},
        data=json.dumps({"status": status}),
    )
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    spec = {"selector": metadata["labels"], "ports": ports}
    api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def reader_of(cluster: Cluster, folder: Path) -> module.Cluster:
    """Somebody who may read nothing."""
    metadata = {"name": "nobody", "namespace": cluster.namespace}
    cluster.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    path = cluster.api.path("v1", "ServiceAccount", "nobody", cluster.namespace) + "/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    config = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": cluster.api.request("POST", path, json=wanted)["status"]["token"]}
    (folder / "nobody").write_text(yaml.safe_dump(config), encoding="utf-8")
    return module.Cluster.connect(folder / "nobody")
