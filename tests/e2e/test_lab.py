"""The lab itself: it comes up, stays right, survives crashes, lives beside another one, and goes without a trace."""

import base64
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from rich.console import Console

from velagen.errors import VelagenError
from velagen.lab import COMPONENTS, Lab, LabOptions, condition, gpu_node, wait_until
from velagen.lab.demo import demo
from velagen.lab.process import marked
from velagen.lab.state import LabState
from velagen.tools import cache_dir

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

FIXTURES = Path(__file__).parent / "fixtures"
TINY = FIXTURES / "tiny"
APP = FIXTURES / "tiny-app.yaml"


@pytest.fixture(scope="module")
def tiny(lab: Lab) -> None:
    """The tests' own addon, enabled in the shared lab."""
    from velagen.lab.vela import vela

    # Without -y: the version of KubeVela is found by the CLI and compared.
    vela(lab.kubeconfig, "addon", "enable", TINY)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Lab]:
    """A lab that may be hurt, beside the shared one."""
    other = Lab(
        "second",
        folder=tmp_path_factory.mktemp("second") / "state",
        options=LabOptions(nodes=1, gpus_per_node=4, gpu_model="A100-40GB", gpu_replicas=2),
    )
    with other:
        yield other


def state_of(lab: Lab) -> LabState:
    state = LabState.read(lab.folder / "state.json")
    assert state is not None
    return state


def kill(lab: Lab, *names: str) -> None:
    for name in names:
        process = state_of(lab).process(name)
        assert process is not None
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    wait_until(
        lambda: {part.name for part in lab.status() if part.state == "dead"} == set(names), what="dead", timeout=10
    )


def test_everything_is_ready_and_private(lab: Lab) -> None:
    assert [part.name for part in lab.status()] == list(COMPONENTS)
    assert lab.running
    assert lab.kubeconfig.stat().st_mode & 0o077 == 0
    assert lab.folder.stat().st_mode & 0o077 == 0
    nodes = lab.api.list("v1", "Node")
    assert [condition(node, "Ready") for node in nodes] == ["True", "True"]
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"2"}
    assert lab.api.list("serving.kserve.io/v1alpha1", "ClusterServingRuntime")
    for api_version, kind in (
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("networking.istio.io/v1beta1", "VirtualService"),
        ("keda.sh/v1alpha1", "ScaledObject"),
    ):
        assert lab.api.serves(api_version, kind), kind


def test_a_running_lab_is_left_as_it_is(lab: Lab) -> None:
    before = state_of(lab)
    started = time.monotonic()
    Lab(lab.name, folder=lab.folder).up()
    assert time.monotonic() - started < 5
    assert state_of(lab) == before


def test_kubevelas_own_definitions_are_synced(lab: Lab) -> None:
    assert (
        condition(lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "webservice", "vela-system"), "Synced")
        == "True"
    )


def test_a_wrong_application_is_denied_and_nothing_is_made(cluster: Any, tiny: None) -> None:
    app = yaml.safe_load(APP.read_text())
    app["spec"]["components"][0]["properties"]["modelUrl"] = "s3://x/y"
    done = cluster.up(app, check=False)
    assert done.returncode != 0
    assert "modelUrl: field not allowed" in done.stdout + done.stderr
    assert cluster.application("sentiment") is None
    assert cluster.list("serving.kserve.io/v1beta1", "InferenceService") == []


def test_kserves_webhooks_default_and_refuse(cluster: Any) -> None:
    service: dict[str, Any] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "m", "namespace": cluster.namespace},
        "spec": {"predictor": {"sklearn": {"storageUri": "s3://a/b"}}},
    }
    defaulted = cluster.api.apply(service, dry_run=True)
    assert defaulted["spec"]["predictor"]["model"]["modelFormat"]["name"] == "sklearn"
    service["spec"]["predictor"]["minReplicas"] = -1
    with pytest.raises(Exception, match="'MinReplicas' cannot be less than 0"):
        cluster.api.apply(service, dry_run=True, patience=0)


def test_a_model_becomes_ready_and_stays_ready(cluster: Any, tiny: None) -> None:
    cluster.up(APP)
    cluster.wait_running("sentiment")
    cluster.wait_ready("sentiment")

    def placed() -> list[dict[str, Any]]:
        pods = cluster.list("v1", "Pod")
        return pods if len(pods) == 2 and all(condition(pod, "Ready") == "True" for pod in pods) else []

    pods = cluster.wait_for(placed, "two pods Ready")
    assert {pod["spec"]["nodeName"] for pod in pods} <= {"gpu-node-0", "gpu-node-1"}
    # KServe's webhook for pods has been there.
    assert [part["name"] for part in pods[0]["spec"]["initContainers"]] == ["storage-initializer"]
    # KServe says Ready with the first pod, and takes it back for a moment when the second is added.
    calm_since = time.monotonic()

    def calm() -> bool:
        nonlocal calm_since
        deployment = cluster.get("apps/v1", "Deployment", "sentiment-predictor")
        available = deployment["status"].get("availableReplicas")
        if available != 2 or condition(cluster.inference_service("sentiment"), "Ready") != "True":
            calm_since = time.monotonic()
        return time.monotonic() - calm_since > 3

    cluster.wait_for(calm, "two pods available and Ready for 3 s")
    # Nodes whose heartbeat is missing turn NotReady after 40 s, and take the pods' Ready with them for good.
    deadline = time.monotonic() + 65
    while time.monotonic() < deadline:
        assert condition(cluster.inference_service("sentiment"), "Ready") == "True"
        assert {condition(node, "Ready") for node in cluster.api.list("v1", "Node")} == {"True"}
        time.sleep(2)
    assert placed()
    assert cluster.application("sentiment")["status"]["status"] == "running"


def test_a_second_lab_lives_beside_the_first(lab: Lab, second: Lab) -> None:
    assert lab.running
    assert second.running
    assert not set(state_of(lab).ports.values()) & set(state_of(second).ports.values())
    (node,) = second.api.list("v1", "Node")
    assert node["status"]["allocatable"]["nvidia.com/gpu.shared"] == "8"
    second.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-here"}})
    assert lab.api.get("v1", "Namespace", "only-here") is None


def as_somebody_else(look: Callable[[], object]) -> str:
    """What a function gives when another user of this machine calls it; the name of its error where it fails.

    In a child, so that nothing has to be readable for that user: all is loaded.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            said = repr(look())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode()[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_another_user_of_the_machine_gets_no_secret(lab: Lab) -> None:
    lab.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pin", "namespace": "default"},
            "stringData": {"pin": "for-nobody-else"},
        }
    )
    ports = state_of(lab).ports
    every_key = {"key": "AA==", "range_end": "AA==", "limit": 10000}

    def etcd(scheme: str, port: str, path: str, **certificate: Any) -> object:
        url = f"{scheme}://127.0.0.1:{ports[port]}{path}"
        method, body = ("POST", every_key) if "/v3/" in path else ("GET", None)
        # OSError: refused before anything is asked, or the connection is closed.
        return requests.request(method, url, json=body, timeout=5, verify=False, **certificate).text

    known = {"cert": tuple(str(lab.folder / "pki" / f"etcd-client.{end}") for end in ("crt", "key"))}
    # That the question is the right one: whoever has the certificate is told.
    assert base64.b64encode(b"/registry/secrets/default/pin").decode() in str(
        etcd("https", "etcd", "/v3/kv/range", **known)
    )
    for scheme in ("https", "http"):
        for port, path in (("etcd", "/v3/kv/range"), ("etcd", "/health"), ("etcd-peer", "/members")):
            said = as_somebody_else(lambda: etcd(scheme, port, path))  # noqa: B023  # called at once
            assert "Error" in said, (scheme, port, said)
    api = f"https://127.0.0.1:{ports['kube-apiserver']}/api/v1/namespaces/default/secrets/pin"
    assert "forbidden" in as_somebody_else(lambda: requests.get(api, timeout=5, verify=False).text)
    for folder in (lab.folder, cache_dir() / "lab-prepared"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert as_somebody_else(lambda: os.listdir(folder)).startswith("PermissionError")  # noqa: B023, PTH208


def test_a_node_can_be_added(second: Lab) -> None:
    second.add_node(gpu_node("late", model="H100-80GB", gpus=8))
    wait_until(lambda: condition(second.api.get("v1", "Node", "late"), "Ready") == "True", what="Ready", timeout=30)
    node = second.api.get("v1", "Node", "late")
    assert node is not None
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_what_died_is_started_again_and_nothing_is_lost(second: Lab) -> None:
    second.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}})
    untouched = state_of(second).process("kube-apiserver")
    kill(second, "vela-core", "kwok")
    assert not second.running
    second.up()
    assert second.running
    assert state_of(second).process("kube-apiserver") == untouched
    kill(second, "etcd", "kube-apiserver")
    second.up()
    assert second.running
    assert second.api.get("v1", "Namespace", "kept") is not None


def test_other_options_are_refused_while_it_runs(second: Lab) -> None:
    with pytest.raises(VelagenError, match="nodes: 1, not 3"):
        Lab(second.name, folder=second.folder, options=LabOptions(nodes=3)).up()
    assert second.running


def test_a_start_that_is_killed_leaves_nothing_after_down(tmp_path: Path) -> None:
    lab = Lab("killed", folder=tmp_path / "state")
    code = (
        f"from pathlib import Path\nfrom velagen.lab import Lab\nLab('killed', folder=Path({str(lab.folder)!r})).up()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: any(part.name == "kube-apiserver" for part in lab.status()), what="API server begun", timeout=60
        )
    finally:
        starter.kill()
        starter.wait()
    mark = state_of(lab).mark
    assert marked(mark)
    assert not lab.running
    lab.down()
    assert marked(mark) == []
    assert not lab.folder.exists()


def test_down_takes_its_own_and_leaves_the_other(lab: Lab, second: Lab) -> None:
    state = state_of(second)
    assert second.down() is True
    assert not any(process.alive for process in state.processes)
    assert marked(state.mark) == []
    assert not second.folder.exists()
    assert second.down() is False
    assert lab.running


def test_the_demo_ends_with_a_running_application_twice(lab: Lab, repository: Path) -> None:
    console = Console(force_terminal=False, width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for _ in range(2):
        lines = demo(repository, TINY, APP, lab, console, build=False)
        assert [(line.thing, line.state) for line in lines[:3]] == [
            ("Application sentiment", "running"),
            ("InferenceService sentiment", "Ready"),
            ("Deployment sentiment-predictor", "2 of 2 available"),
        ]
        assert all(line.state.startswith("Running on gpu-node-") for line in lines[3:])
    text = console.export_text()
    assert f"export KUBECONFIG={lab.kubeconfig}" in text
    assert "vela up -f" in text
