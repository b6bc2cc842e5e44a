import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.fake_kubelet import FakeKubelet

from velagen.gpusim.cluster import NodeClient
from velagen.gpusim.command import gpusim_group
from velagen.gpusim.config import Config, parse_config
from velagen.gpusim.errors import GpusimError
from velagen.gpusim.inventory import node_gpus
from velagen.gpusim.load import MOST_REPORTS, Load, LoadBook, Pod, busy_seconds, fetch_page, parse_report
from velagen.gpusim.manifest import manifest
from velagen.gpusim.metrics import MetricsServer
from velagen.gpusim.paths import Paths, unplug
from velagen.gpusim.proto import podresources_pb2 as pr
from velagen.gpusim.simulator import Simulator


def series(text: str) -> dict[tuple[str, ...], dict[str, float]]:
    """(UUID, MIG id, namespace, pod, share) -> metric -> value."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = tuple(sample.labels[name] for name in ("UUID", "GPU_I_ID", "namespace", "pod", "vgpu"))
            found.setdefault(key, {})[sample.name.removeprefix("DCGM_FI_DEV_")] = sample.value
    return found


def pod_resources(*held: tuple[str, str, str]) -> pr.ListPodResourcesResponse:
    return pr.ListPodResourcesResponse(
        pod_resources=[
            pr.PodResources(
                name=pod,
                namespace="models",
                containers=[
                    pr.ContainerResources(
                        name="kserve-container",
                        devices=[pr.ContainerDevices(resource_name=resource, device_ids=[device])],
                    )
                ],
            )
            for pod, resource, device in held
        ]
    )


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[FakeKubelet]:
    folder = tmp_path / "dp"
    folder.mkdir()
    fake = FakeKubelet(folder)
    fake.start()
    yield fake
    fake.stop()


def served(
    kubelet: FakeKubelet, text: str = "version: v1", gpus: Sequence[str] = ("t4x2",)
) -> tuple[Simulator, MetricsServer]:
    where = Paths(kubelet.folder, kubelet.folder / "kubelet.sock", kubelet.folder.parent / "state")
    simulator = Simulator("n", node_gpus("n", gpus), parse_config(yaml.safe_load(text)), where)
    return simulator, MetricsServer(simulator.collector(), simulator.book, simulator.may_report)


def get(server: MetricsServer, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def post(server: MetricsServer, document: object) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/load", data=json.dumps(document).encode())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_metrics_follow_the_load_that_pods_report(kubelet: FakeKubelet, tmp_path: Path) -> None:
    first, second = (gpu.uuid for gpu in node_gpus("n"))
    kubelet.pods = pod_resources(("sentiment-0", "nvidia.com/gpu", first), ("other", "example.com/nic", second))
    _, server = served(kubelet)
    server.start()
    try:
        idle = series(get(server))
        assert idle[first, "", "models", "sentiment-0", ""] == {
            "GPU_UTIL": 0,
            "FB_USED": 0,
            "FB_FREE": 15360,
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0,
            "XID_ERRORS": 0,
        }
        assert (second, "", "", "", "") in idle
        report = {"namespace": "models", "pod": "sentiment-0", "utilization": 82, "memoryMiB": 1200}
        assert post(server, report) == 204
        busy = series(get(server))[first, "", "models", "sentiment-0", ""]
        assert (busy["GPU_UTIL"], busy["FB_USED"], busy["FB_FREE"]) == (82, 1200, 14160)
        unplug(tmp_path / "state", 0)
        assert series(get(server))[first, "", "models", "sentiment-0", ""]["XID_ERRORS"] == 79
        assert get(server, "/healthz") == "ok\n"
        wrong: list[object] = [[], {"pod": "x", "utilization": 101}, {"pod": ""}]
        assert [post(server, one) for one in wrong] == [400] * 3
        with pytest.raises(urllib.error.HTTPError):
            get(server, "/other")
    finally:
        server.stop()


def reported(server: MetricsServer, text: str | bytes, length: str | None = None, source: str = "127.0.0.1") -> str:
    """The first line of the answer to a report, as it is sent."""
    body = text if isinstance(text, bytes) else text.encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10, source_address=(source, 0)) as client:
        head = "" if length == "" else f"Content-Length: {length or len(body)}\r\n"
        client.sendall(f"POST /load HTTP/1.0\r\n{head}\r\n".encode("latin-1") + body)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").readline().decode()


BAD: dict[str, str | bytes] = {
    "no JSON": "{",
    "no object": "[]",
    "no UTF-8": b'{"pod": "\xff"}',
    "no pod": '{"utilization": 1}',
    "no name": '{"pod": ""}',
    "a name that is a number": '{"pod": 7}',
    "a long name": f'{{"pod": "{"a" * 254}"}}',
    "below": '{"pod": "a", "utilization": -1}',
    "above": '{"pod": "a", "seconds": 1e9}',
    "a truth": '{"pod": "a", "utilization": true}',
    "NaN": '{"pod": "a", "utilization": NaN}',
    "infinity": '{"pod": "a", "memoryMiB": Infinity}',
    "a long number": f'{{"pod": "a", "memoryMiB": {"9" * 4000}}}',
    "nested deeply": "[" * 4000,
}


def test_a_bad_report_is_a_400_and_a_long_one_is_not_read(kubelet: FakeKubelet) -> None:
    simulator, server = served(kubelet)
    server.start()
    try:
        for name, text in BAD.items():
            answer = reported(server, text)
            assert answer.startswith("HTTP/1.0 400"), (name, answer)
        good = '{"pod": "a", "utilization": 5}'
        for length in ("", "\xb2", "-5", "+5", "1e1", "0x5", "9" * 20):
            assert reported(server, good, length).startswith("HTTP/1.0 400"), length
        assert reported(server, good, "20").startswith("HTTP/1.0 400"), "cut off"
        assert reported(server, good + " " * 4096).startswith("HTTP/1.0 413")
        assert simulator.book.of("default", "a") == Load()
        assert reported(server, good).startswith("HTTP/1.0 204")
        assert simulator.book.of("default", "a") == Load(5)
    finally:
        server.stop()


def test_a_pod_reports_for_itself_only(kubelet: FakeKubelet) -> None:
    # Each has an address of this machine's loopback, which is all of 127/8 on Linux.
    there = [Pod("models", "a", "127.0.0.2"), Pod("models", "b", "127.0.0.3"), Pod("models", "not-yet", "")]
    asked = []

    def pods() -> list[Pod]:
        asked.append(1)
        return there

    where = Paths(kubelet.folder, kubelet.folder / "kubelet.sock", kubelet.folder.parent / "state")
    simulator = Simulator("n", node_gpus("n"), Config(), where, pods=pods, stranger_seconds=0)
    server = MetricsServer(simulator.collector(), simulator.book, simulator.may_report)
    server.start()

    def report(pod: str, source: str) -> str:
        text = json.dumps({"namespace": "models", "pod": pod, "utilization": 80})
        return reported(server, text, source=source).split()[1]

    try:
        assert report("a", "127.0.0.2") == "204", "it runs, and nobody has looked since"
        assert report("a", "127.0.0.3") == "403"
        assert report("b", "127.0.0.3") == "204"
        assert report("not-yet", "127.0.0.1") == "403"
        assert {report(f"of-another-node-{number}", "127.0.0.2") for number in range(20)} == {"403"}
        assert simulator.book.of("models", "a") == simulator.book.of("models", "b") == Load(80)
        assert len(asked) <= 3, "asking is not what a pod can make us do at will"
    finally:
        server.stop()


def test_a_report_waits_for_the_address_of_a_pod_that_has_just_begun(kubelet: FakeKubelet) -> None:
    asked = []

    def pods() -> list[Pod]:
        asked.append(1)
        # The kubelet tells the API server a moment after the container runs.
        return [Pod("models", "a", "127.0.0.2" if len(asked) > 1 else "")]

    where = Paths(kubelet.folder, kubelet.folder / "kubelet.sock", kubelet.folder.parent / "state")
    simulator = Simulator("n", node_gpus("n"), Config(), where, pods=pods)
    assert simulator.may_report("127.0.0.2", ("models", "a"))
    assert len(asked) == 2
    began = time.monotonic()
    assert not simulator.may_report("127.0.0.2", ("models", "b"))
    assert not simulator.may_report("127.0.0.9", ("models", "a"))
    assert time.monotonic() - began < 1, "an address that is another's, and a pod that has one, are refused at once"


def test_the_reports_that_are_kept_are_bounded() -> None:
    now = 0.0
    book = LoadBook(clock=lambda: now)
    for number in range(MOST_REPORTS):
        book.report(("m", str(number)), Load(1), 10)
    with pytest.raises(ValueError, match="1024 pods have reported"):
        book.report(("m", "one more"), Load(1), 10)
    book.report(("m", "7"), Load(2), 10)
    now = 11.0
    book.report(("m", "one more"), Load(1), 10)


def test_a_pod_can_not_send_the_scraper_elsewhere() -> None:
    def pod(path: str, port: str = "8002") -> Pod:
        return Pod("m", "a", "10.0.0.7", (("prometheus.io/port", port), ("prometheus.io/path", path)))

    assert pod("/x").metrics_url == "http://10.0.0.7:8002/x"
    assert pod("@169.254.169.254/latest").metrics_url is None
    assert pod("/x", "\u0663").metrics_url is None


class Page(BaseHTTPRequestHandler):
    """A model server that answers what it likes."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/metrics")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        line = b"request_predict_seconds_sum 2.5\n"
        self.wfile.write(line if self.path == "/metrics" else b"# \n" * (2 * 1024 * 1024))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        del format, args


def test_the_page_of_a_pod_is_bounded() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        where = f"http://127.0.0.1:{server.server_address[1]}"
        assert busy_seconds(fetch_page(f"{where}/metrics")) == 2.5
        assert busy_seconds(fetch_page(f"{where}/moved")) is None
        with pytest.raises(ValueError, match="more than"):
            fetch_page(f"{where}/long")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_shares_of_one_gpu_add_up_to_at_most_all_of_it(kubelet: FakeKubelet) -> None:
    gpu = node_gpus("n")[0].uuid
    name = "nvidia.com/gpu.shared"
    kubelet.pods = pod_resources(("a", name, f"{gpu}::0"), ("b", name, f"{gpu}::1"))
    text = "sharing: {%s: {renameByDefault: true, resources: [{name: gpu, replicas: 2}]}}"
    for strategy, used in (("timeSlicing", 13000.0), ("mps", 7680.0 + 3000.0)):
        simulator, server = served(kubelet, text % strategy)
        server.start()
        try:
            simulator.book.report(("models", "a"), Load(70, 10000), 60)
            simulator.book.report(("models", "b"), Load(50, 3000), 60)
            found = series(get(server))
            for share, pod in (("0", "a"), ("1", "b")):
                values = found[gpu, "", "models", pod, share]
                # The device's own figures, as DCGM's exporter gives them; an MPS client can't have more than its part.
                assert (values["GPU_UTIL"], values["FB_USED"]) == (100, used), strategy
        finally:
            server.stop()


def test_mig_has_its_own_memory_and_no_gpu_util(kubelet: FakeKubelet) -> None:
    gpu = node_gpus("n", ["a100-40gb:3g.20gb,3g.20gb"])[0]
    kubelet.pods = pod_resources(("a", "nvidia.com/mig-3g.20gb", gpu.mig[1].uuid))
    simulator, server = served(kubelet, "flags: {migStrategy: mixed}", ["a100-40gb:3g.20gb,3g.20gb"])
    server.start()
    try:
        simulator.book.report(("models", "a"), Load(40, 5000), 60)
        found = series(get(server))
        assert found[gpu.uuid, "2", "models", "a", ""] == {
            "FB_USED": 5000,
            "FB_FREE": 15096,
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.4,
            "XID_ERRORS": 0,
        }
        assert found[gpu.uuid, "1", "", "", ""]["FB_USED"] == 0
        assert found[gpu.uuid, "", "", "", ""]["FB_USED"] == 5000
    finally:
        server.stop()


def test_silent_kubelet_leaves_idle_gpus(tmp_path: Path) -> None:
    where = Paths(tmp_path, tmp_path / "none.sock", tmp_path)
    simulator = Simulator("n", node_gpus("n"), Config(), where)
    server = MetricsServer(simulator.collector(), simulator.book, simulator.may_report)
    server.start()
    try:
        assert len(series(get(server))) == 2
    finally:
        server.stop()


TRITON = """
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="a",version="1"} %d
nv_inference_compute_infer_duration_us{model="b",version="1"} 500000
nv_inference_count{model="a"} 7
"""


def test_utilisation_from_a_model_servers_own_metrics() -> None:
    now, page = 0.0, TRITON % 0
    pod = Pod("models", "a", "10.0.0.7", (("prometheus.kserve.io/port", "8002"),))
    assert pod.metrics_url == "http://10.0.0.7:8002/metrics"
    book = LoadBook(clock=lambda: now, fetch=lambda url: page)
    book.look([pod])
    assert book.of("models", "a").utilization == 0
    now, page = 10.0, TRITON % 4_000_000
    book.look([pod])
    assert book.of("models", "a").utilization == pytest.approx(40)
    now, page = 20.0, TRITON % 100
    book.look([pod])
    assert book.of("models", "a").utilization == 0, "the server started anew"
    book.look([])
    assert book.of("models", "a") == Load()


def test_reports_win_for_as_long_as_they_hold() -> None:
    now = 0.0
    notes = (("velagen.dev/gpu-utilization", "30"), ("velagen.dev/gpu-memory-mib", "x"))
    pods = [Pod("m", "a", "", notes), Pod("m", "b", "1.2.3.4", (("prometheus.io/port", "1"),))]

    def refuse(url: str) -> str:
        raise requests.ConnectionError(url)

    book = LoadBook(clock=lambda: now, fetch=refuse)
    book.look(pods)
    assert book.of("m", "a") == Load(30, 0)
    book.report(*parse_report({"namespace": "m", "pod": "a", "utilization": 90, "seconds": 5}))
    assert book.of("m", "a") == Load(90, 0)
    now = 5.1
    assert book.of("m", "a") == Load(30, 0)


@pytest.mark.parametrize(("text", "seconds"), [
    ("request_predict_seconds_sum{model_name=\"a\"} 2.5\n", 2.5),
    ("# TYPE model_infer_request_duration summary\nmodel_infer_request_duration_sum 3\n", 3.0),
    ("up 1\n", None),
])  # fmt: skip
def test_busy_seconds(text: str, seconds: float | None) -> None:
    assert busy_seconds(text) == seconds


class Core:
    """The calls of CoreV1Api that the simulator makes."""

    def __init__(self) -> None:
        self.labels = {"nvidia.com/mig.strategy": "mixed", "kubernetes.io/os": "linux"}
        self.selector = ""

    def read_node(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(metadata=SimpleNamespace(labels=self.labels))

    def patch_node(self, name: str, body: dict[str, Any]) -> None:
        for key, value in body["metadata"]["labels"].items():
            if value is None:
                self.labels.pop(key)
            else:
                self.labels[key] = value

    def list_pod_for_all_namespaces(self, field_selector: str, _request_timeout: float) -> SimpleNamespace:
        self.selector = field_selector
        metadata = SimpleNamespace(namespace="m", name="a", annotations=None)
        return SimpleNamespace(items=[SimpleNamespace(metadata=metadata, status=SimpleNamespace(pod_ip=None))])


def test_node_gets_labels_and_loses_old_ones() -> None:
    core = Core()
    client = NodeClient(core, "n")
    client.set_labels(node_gpus("n"), Config())
    assert core.labels["nvidia.com/gpu.product"] == "Tesla-T4"
    assert core.labels["kubernetes.io/os"] == "linux"
    assert core.labels["nvidia.com/gfd.timestamp"].isdigit()
    assert "nvidia.com/mig.strategy" not in core.labels
    assert client.pods() == [Pod("m", "a")]
    assert core.selector == "spec.nodeName=n,status.phase=Running"


def test_show_and_unplug(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: gpu, rename: x, replicas: 2}]}}"
    )
    shown = CliRunner().invoke(gpusim_group, ["show", "--config", str(config), "--node", "n"])
    assert shown.exit_code == 0
    assert "names of one's own are ignored" in shown.stderr
    document = json.loads(shown.stdout)
    assert {name: len(ids) for name, ids in document["resources"].items()} == {"nvidia.com/gpu.shared": 4}
    assert document["labels"]["nvidia.com/gpu.replicas"] == "2"
    wrong = CliRunner().invoke(gpusim_group, ["show", "--gpu", "t5"])
    assert wrong.exit_code == 1
    assert "names no GPU" in wrong.output
    for command, there in (("unplug", True), ("plug", False)):
        assert CliRunner().invoke(gpusim_group, [command, "1", "--state-dir", str(tmp_path)]).exit_code == 0
        assert (tmp_path / "unplugged" / "1").exists() == there


@pytest.mark.parametrize(("selectors", "said"), [
    ([], "Missing option '--node-selector'"),
    (["pool"], "'pool' is not a label"),
    (["=gpu"], "'=gpu' is not a label"),
    (["a b=c", "ok=1"], "'a b=c' is not a label"),
])  # fmt: skip
def test_manifest_asks_which_nodes(selectors: list[str], said: str) -> None:
    arguments = [word for selector in selectors for word in ("--node-selector", selector)]
    done = CliRunner().invoke(gpusim_group, ["manifest", "--image", "i", *arguments])
    assert done.exit_code != 0
    assert said in done.output
    assert "DaemonSet" not in done.output
    with pytest.raises(GpusimError, match="say which nodes"):
        manifest("i", node_selector={})


def test_manifest_runs_what_the_command_takes(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("version: v1\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: 2}]}}\n")
    command = [
        "manifest",
        "--image",
        "lab/velagen:1",
        "--config",
        str(config),
        "--gpu",
        "l4",
        "--node-selector",
        "pool=gpu",
    ]
    done = CliRunner().invoke(gpusim_group, command)
    assert done.exit_code == 0, done.output
    objects = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert list(objects) == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]
    assert objects["ConfigMap"]["data"]["config.yaml"] == config.read_text()
    spec = objects["DaemonSet"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert not any("real" in argument for argument in spec["containers"][0]["args"])
    (container,) = spec["containers"]
    assert {volume["name"] for volume in spec["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    assert container["args"][:2] == ["gpusim", "run"]
    context = gpusim_group.commands["run"].make_context("run", container["args"][2:])
    assert context.params["gpus"] == ("l4",)
    assert str(context.params["plugin_dir"]) == "/var/lib/kubelet/device-plugins"
    config.write_text("version: v2")
    assert "unknown version" in CliRunner().invoke(gpusim_group, command).output
