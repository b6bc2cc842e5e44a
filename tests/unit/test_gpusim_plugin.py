import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner
from tests.unit.fake_kubelet import FakeKubelet

from velagen.gpusim.command import gpusim_group
from velagen.gpusim.config import Config, parse_config
from velagen.gpusim.inventory import node_gpus
from velagen.gpusim.node import real_gpus
from velagen.gpusim.paths import Paths, plug, unplug
from velagen.gpusim.simulator import Simulator

GPU = "nvidia.com/gpu"


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[FakeKubelet]:
    folder = tmp_path / "dp"
    folder.mkdir()
    fake = FakeKubelet(folder)
    yield fake
    fake.stop()


def paths(kubelet: FakeKubelet) -> Paths:
    return Paths(kubelet.folder, kubelet.folder / "kubelet.sock", kubelet.folder.parent / "state")


@contextmanager
def running(
    kubelet: FakeKubelet, text: str = "version: v1", gpus: Sequence[str] = ("t4x2",), **settings: Any
) -> Iterator[Simulator]:
    settings = {"poll_seconds": 0.05, "retry_seconds": 0.3, **settings}
    simulator = Simulator(
        "node-1", node_gpus("node-1", gpus), parse_config(yaml.safe_load(text)), paths(kubelet), **settings
    )
    stop = threading.Event()
    thread = threading.Thread(target=simulator.run, args=(stop,))
    thread.start()
    try:
        yield simulator
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_registers_and_lists_healthy_devices(kubelet: FakeKubelet) -> None:
    kubelet.start()
    with running(kubelet):
        request = kubelet.registered()
        assert (request.version, request.endpoint, request.resource_name) == ("v1beta1", "nvidia-gpu.sock", GPU)
        assert request.options.get_preferred_allocation_available
        assert not request.options.pre_start_required
        resource, devices = kubelet.devices()
        assert resource == GPU
        assert devices == {gpu.uuid: "Healthy" for gpu in node_gpus("node-1")}
    assert not (kubelet.folder / "nvidia-gpu.sock").exists()


def test_a_container_sees_the_gpus_it_was_given(kubelet: FakeKubelet) -> None:
    kubelet.start()
    first, second = (gpu.uuid for gpu in node_gpus("node-1"))
    with running(kubelet, environment={"VELAGEN_GPUSIM_URL": "http://x"}):
        kubelet.registered()
        answer = kubelet.allocate(GPU, second, first)
        assert dict(answer.envs) == {"NVIDIA_VISIBLE_DEVICES": f"{second},{first}", "VELAGEN_GPUSIM_URL": "http://x"}
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.allocate(GPU, "GPU-none")
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        assert "unknown device: GPU-none" in (caught.value.details() or "")


@pytest.mark.parametrize(("flags", "env", "mounts"), [
    ("{deviceIDStrategy: index}", "1", []),
    ("{deviceIDStrategy: index, deviceListStrategy: [volume-mounts]}", "/var/run/nvidia-container-devices",
     [("/dev/null", "/var/run/nvidia-container-devices/1")]),
])  # fmt: skip
def test_how_devices_are_named(kubelet: FakeKubelet, flags: str, env: str, mounts: list[tuple[str, str]]) -> None:
    kubelet.start()
    with running(kubelet, f"flags: {{plugin: {flags}}}"):
        kubelet.registered()
        answer = kubelet.allocate(GPU, node_gpus("node-1")[1].uuid)
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == env
        assert [(mount.host_path, mount.container_path) for mount in answer.mounts] == mounts


SHARED = (
    "sharing: {timeSlicing: {renameByDefault: true, failRequestsGreaterThanOne: %s,"
    " resources: [{name: gpu, replicas: 2}]}}"
)


def test_shares(kubelet: FakeKubelet) -> None:
    kubelet.start()
    first, second = (gpu.uuid for gpu in node_gpus("node-1"))
    resource = "nvidia.com/gpu.shared"
    with running(kubelet, SHARED % "true"):
        assert kubelet.registered().endpoint == "nvidia-gpu.shared.sock"
        ids = list(kubelet.devices()[1])
        assert ids == [f"{first}::0", f"{first}::1", f"{second}::0", f"{second}::1"]
        assert kubelet.allocate(resource, ids[1]).envs["NVIDIA_VISIBLE_DEVICES"] == first
        with pytest.raises(grpc.RpcError, match="maximum request size for shared resources is 1; found 2"):
            kubelet.allocate(resource, ids[0], ids[2])
        # One share of the first GPU is taken: the next goes to the second.
        assert kubelet.preferred(resource, ids[1:], [], 1) == [ids[2]]
        assert kubelet.preferred(resource, ids[1:], [ids[1]], 2) == [ids[1], ids[2]]
        with pytest.raises(grpc.RpcError, match="not enough available devices"):
            kubelet.preferred(resource, ids[:1], [], 2)


def test_two_shares_of_one_gpu_are_one_device_in_the_container(kubelet: FakeKubelet) -> None:
    kubelet.start()
    first = node_gpus("node-1")[0].uuid
    with running(kubelet, SHARED % "false"):
        kubelet.registered()
        answer = kubelet.allocate("nvidia.com/gpu.shared", f"{first}::0", f"{first}::1")
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == first


def test_packed_policy_fills_a_gpu_first(kubelet: FakeKubelet) -> None:
    kubelet.start()
    text = (
        "{flags: {plugin: {sharedDevicesAllocationPolicy: packed}},"
        " sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2}]}}}"
    )
    with running(kubelet, text):
        kubelet.registered()
        ids = list(kubelet.devices()[1])
        assert kubelet.preferred(GPU, [ids[0], ids[1], ids[3]], [], 1) == [ids[3]]


def test_mps_gives_pipe_and_shared_memory(kubelet: FakeKubelet) -> None:
    kubelet.start()
    with running(kubelet, "{flags: {mpsRoot: /run/mps}, sharing: {mps: {resources: [{name: gpu, replicas: 2}]}}}"):
        kubelet.registered()
        answer = kubelet.allocate(GPU, next(iter(kubelet.devices()[1])))
        assert answer.envs["CUDA_MPS_PIPE_DIRECTORY"] == "/mps/nvidia.com/gpu/pipe"
        assert [(mount.host_path, mount.container_path) for mount in answer.mounts] == [
            ("/run/mps/nvidia.com/gpu/pipe", "/mps/nvidia.com/gpu/pipe"),
            ("/run/mps/shm", "/mps/shm"),
        ]


def test_mixed_mig_is_one_plugin_a_resource(kubelet: FakeKubelet) -> None:
    kubelet.start()
    with running(kubelet, "flags: {migStrategy: mixed}", ["a100-40gb:3g.20gb,3g.20gb", "t4"]):
        endpoints = {kubelet.registered().endpoint for _ in range(2)}
        assert endpoints == {"nvidia-mig-3g.20gb.sock", "nvidia-gpu.sock"}
        seen = dict(kubelet.devices() for _ in range(2))
        assert {name: len(devices) for name, devices in seen.items()} == {"nvidia.com/mig-3g.20gb": 2, GPU: 1}


def test_unplugged_gpu_is_unhealthy_until_the_next_start(kubelet: FakeKubelet) -> None:
    kubelet.start()
    state = paths(kubelet).state
    first, second = (gpu.uuid for gpu in node_gpus("node-1"))
    with running(kubelet) as simulator:
        kubelet.registered()
        assert set(kubelet.devices()[1].values()) == {"Healthy"}
        unplug(state, 1)
        assert kubelet.devices()[1] == {first: "Healthy", second: "Unhealthy"}
        plug(state, 1)
        # The real plugin has no way back either.
        with pytest.raises(queue.Empty):
            kubelet.devices(timeout=0.5)
        simulator.restart()
        kubelet.registered()
        assert set(kubelet.devices()[1].values()) == {"Healthy"}


def test_all_shares_of_an_unplugged_gpu_go_and_recover_if_asked(kubelet: FakeKubelet) -> None:
    kubelet.start()
    state = paths(kubelet).state
    unplug(state, 0)
    with running(kubelet, SHARED % "true", recover=True):
        kubelet.registered()
        assert list(kubelet.devices()[1].values()) == ["Unhealthy", "Unhealthy", "Healthy", "Healthy"]
        plug(state, 0)
        assert set(kubelet.devices()[1].values()) == {"Healthy"}


def test_kubelet_restart(kubelet: FakeKubelet) -> None:
    kubelet.start()
    with running(kubelet):
        kubelet.registered()
        before = kubelet.devices()[1]
        for _ in range(3):
            kubelet.stop()
            kubelet.start()
            kubelet.registered()
            assert kubelet.devices()[1] == before
            answer = kubelet.allocate(GPU, next(iter(before)))
            assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == next(iter(before))
        with pytest.raises(queue.Empty):
            kubelet.registered(timeout=0.5)


def test_kubelet_that_comes_late(kubelet: FakeKubelet) -> None:
    with running(kubelet, retry_seconds=60):
        time.sleep(0.3)
        kubelet.start()
        assert kubelet.registered(timeout=20).resource_name == GPU


def test_refused_registration_is_tried_again(kubelet: FakeKubelet) -> None:
    kubelet.refuse = "resource is taken"
    kubelet.start()
    with running(kubelet):
        with pytest.raises(queue.Empty):
            kubelet.registered(timeout=0.5)
        kubelet.refuse = ""
        assert kubelet.registered().resource_name == GPU


def test_killed_plugin_comes_back_with_the_same_devices(kubelet: FakeKubelet) -> None:
    kubelet.start()
    command: list[str | Path] = [
        *(
            sys.executable,
            "-c",
            "from velagen.gpusim.command import gpusim_group; gpusim_group()",
            "run",
            "--no-cluster",
        ),
        "--beside-real-gpu",  # a developer's machine may have one
        *("--node", "node-1", "--plugin-dir", kubelet.folder, "--pod-resources", kubelet.folder / "kubelet.sock"),
        *("--state-dir", paths(kubelet).state, "--metrics-port", "0", "--poll-seconds", "0.1"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    seen = []
    for ending in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            kubelet.registered(timeout=30)
            seen.append(kubelet.devices()[1])
        finally:
            process.send_signal(ending)
            code = process.wait(15)
        assert code == (-signal.SIGKILL if ending is signal.SIGKILL else 0)
        # A killed plugin leaves its socket; one that is told to stop clears up.
        assert (kubelet.folder / "nvidia-gpu.sock").exists() == (ending is signal.SIGKILL)
    assert seen[0] == seen[1] == {gpu.uuid: "Healthy" for gpu in node_gpus("node-1")}


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Another's plugin, as far as a socket shows it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield server


def test_a_plugin_that_runs_keeps_its_socket_and_its_resource(kubelet: FakeKubelet) -> None:
    kubelet.start()
    theirs = kubelet.folder / "nvidia-gpu.sock"
    with listening(theirs), running(kubelet):
        before = theirs.lstat().st_ino
        with pytest.raises(queue.Empty):
            kubelet.registered(timeout=1)
        assert theirs.lstat().st_ino == before
    # Their plugin ended, and left its socket: no process listens on it.
    with running(kubelet):
        assert kubelet.registered().endpoint == "nvidia-gpu.sock"


def test_a_plugin_that_comes_later_keeps_its_socket_when_ours_ends(kubelet: FakeKubelet) -> None:
    kubelet.start()
    place = kubelet.folder / "nvidia-gpu.sock"
    with ExitStack() as stack:
        with running(kubelet):
            kubelet.registered()
            place.unlink()  # as NVIDIA's does at its start
            stack.enter_context(listening(place))
        assert place.is_socket()
        assert [path.name for path in kubelet.folder.iterdir() if path != place] == ["kubelet.sock"]


def test_a_file_that_is_no_socket_stays(kubelet: FakeKubelet) -> None:
    kubelet.start()
    file = kubelet.folder / "nvidia-gpu.sock"
    file.write_text("kept")
    with running(kubelet), pytest.raises(queue.Empty):
        kubelet.registered(timeout=1)
    assert file.read_text() == "kept"


REAL = {
    "the driver": {"proc/driver/nvidia/version": "NVRM version"},
    "its module": {"sys/module/nvidia/version": "570"},
    "a device file": {"dev/nvidia0": ""},
    "a card without a driver": {
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
    },
    "Tegra": {"dev/nvhost-ctrl-gpu": ""},
}
NONE = {
    "nothing": {"proc/version": ""},
    "another maker's card": {
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x1002\n",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    },
    "NVIDIA's network card": {
        "sys/bus/pci/devices/0000:02:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:02:00.0/class": "0x020000\n",
    },
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("files", REAL.values(), ids=REAL)
def test_a_node_with_a_real_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    found = real_gpus(machine(tmp_path / "root", files))
    assert found
    monkeypatch.setattr("velagen.gpusim.command.real_gpus", lambda: found)
    said = CliRunner().invoke(gpusim_group, ["run", "--no-cluster", "--plugin-dir", str(tmp_path)])
    assert said.exit_code == 1
    assert f"this node has a real GPU or its driver: {', '.join(found)}" in said.output
    assert "--node-selector" in said.output


@pytest.mark.parametrize("files", NONE.values(), ids=NONE)
def test_a_node_without_one_is_not(tmp_path: Path, files: dict[str, str]) -> None:
    assert real_gpus(machine(tmp_path, files)) == []


def test_a_live_plugin_is_refused_whatever_is_asked(tmp_path: Path) -> None:
    with listening(tmp_path / "nvidia-mig-1g.5gb.sock"):
        said = CliRunner().invoke(
            gpusim_group, ["run", "--no-cluster", "--plugin-dir", str(tmp_path), "--beside-real-gpu"]
        )
    assert said.exit_code == 1
    assert f"a device plugin listens on {tmp_path}/nvidia-mig-1g.5gb.sock" in said.output


def test_a_failing_label_call_does_not_end_the_plugin(kubelet: FakeKubelet) -> None:
    kubelet.start()
    calls = threading.Semaphore(0)

    def labels() -> None:
        calls.release()
        raise RuntimeError("the API server is away")

    with running(kubelet, set_labels=labels, label_seconds=0.05):
        kubelet.registered()
        assert all(calls.acquire(timeout=5) for _ in range(3))
        assert kubelet.allocate(GPU, node_gpus("node-1")[0].uuid).envs


def test_config_that_does_not_fit_is_refused_at_once(kubelet: FakeKubelet) -> None:
    from velagen.gpusim.errors import GpusimError

    with pytest.raises(GpusimError, match="one profile"):
        Simulator("n", node_gpus("n", ["a100-40gb:3g.20gb,2g.10gb"]), Config(mig_strategy="single"), paths(kubelet))
