from pathlib import Path

import pytest
import yaml

from velagen.gpusim.config import Config, load_config, parse_config
from velagen.gpusim.errors import GpusimError
from velagen.gpusim.inventory import node_gpus, plugin_devices
from velagen.gpusim.labels import node_labels, stale


def config(text: str) -> Config:
    return parse_config(yaml.safe_load(text))


SLICED = """
version: v1
sharing:
  timeSlicing:
    renameByDefault: %s
    failRequestsGreaterThanOne: true
    resources:
    - name: nvidia.com/gpu
      replicas: 2
"""


def test_default_node_has_two_t4() -> None:
    devices = plugin_devices(node_gpus("a"), Config())
    assert list(devices) == ["nvidia.com/gpu"]
    assert [device.index for device in devices["nvidia.com/gpu"]] == ["0", "1"]
    labels = node_labels(node_gpus("a"), Config())
    assert labels["nvidia.com/gpu.product"] == "Tesla-T4"
    assert labels["nvidia.com/gpu.count"] == "2"
    assert labels["nvidia.com/gpu.memory"] == "15360"
    assert labels["nvidia.com/gpu.replicas"] == "1"
    assert labels["nvidia.com/gpu.sharing-strategy"] == "none"
    assert labels["nvidia.com/mig.capable"] == "false"
    assert "nvidia.com/mig.strategy" not in labels


def test_ids_depend_on_node_and_place_only() -> None:
    assert node_gpus("a") == node_gpus("a")
    ids = {gpu.uuid for node in ("a", "b") for gpu in node_gpus(node)}
    assert len(ids) == 4


@pytest.mark.parametrize(("rename", "resource", "product"), [
    ("false", "nvidia.com/gpu", "Tesla-T4-SHARED"),
    ("true", "nvidia.com/gpu.shared", "Tesla-T4"),
])  # fmt: skip
def test_time_slicing(rename: str, resource: str, product: str) -> None:
    parsed = config(SLICED % rename)
    devices = plugin_devices(node_gpus("a"), parsed)
    assert list(devices) == [resource]
    assert [device.id.partition("::")[2] for device in devices[resource]] == ["0", "1", "0", "1"]
    labels = node_labels(node_gpus("a"), parsed)
    assert labels["nvidia.com/gpu.product"] == product
    assert labels["nvidia.com/gpu.count"] == "2"
    assert labels["nvidia.com/gpu.replicas"] == "2"
    assert labels["nvidia.com/gpu.sharing-strategy"] == "time-slicing"
    assert labels["nvidia.com/mps.capable"] == "false"


def test_more_than_one_share_is_refused_by_default_with_mps_only() -> None:
    resources = "resources: [{name: gpu, replicas: 4}]"
    assert config(f"sharing: {{mps: {{{resources}}}}}").sharing.fail_requests_greater_than_one
    assert not config(f"sharing: {{timeSlicing: {{{resources}}}}}").sharing.fail_requests_greater_than_one
    relaxed = config(f"sharing: {{mps: {{failRequestsGreaterThanOne: false, {resources}}}}}")
    assert not relaxed.sharing.fail_requests_greater_than_one
    assert node_labels(node_gpus("a"), relaxed)["nvidia.com/mps.capable"] == "true"


def test_mig_mixed_and_single() -> None:
    gpus = node_gpus("a", ["a100-40gb:3g.20gb,3g.20gb", "a100-40gb"])
    mixed = config("{version: v1, flags: {migStrategy: mixed}}")
    devices = plugin_devices(gpus, mixed)
    assert {name: [device.index for device in each] for name, each in devices.items()} == {
        "nvidia.com/mig-3g.20gb": ["0:0", "0:1"],
        "nvidia.com/gpu": ["1"],
    }
    labels = node_labels(gpus, mixed)
    assert labels["nvidia.com/mig-3g.20gb.count"] == "2"
    assert labels["nvidia.com/mig-3g.20gb.product"] == "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    assert labels["nvidia.com/mig-3g.20gb.slices.gi"] == "3"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-40GB"
    assert labels["nvidia.com/mig.strategy"] == "mixed"

    single = config("{version: v1, flags: {migStrategy: single}}")
    uniform = node_gpus("a", ["a100-40gbx2:3g.20gb,3g.20gb"])
    assert len(plugin_devices(uniform, single)["nvidia.com/gpu"]) == 4
    assert node_labels(uniform, single)["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    assert node_labels(gpus, single)["nvidia.com/gpu.product"].endswith("-MIG-INVALID")
    for wrong in (["a100-40gb:3g.20gb,3g.20gb", "a100-40gb"], ["a100-40gb:3g.20gb,2g.10gb"]):
        with pytest.raises(GpusimError, match="migStrategy single"):
            plugin_devices(node_gpus("a", wrong), single)


def test_mps_does_not_share_mig_devices() -> None:
    parsed = config("{flags: {migStrategy: single}, sharing: {mps: {resources: [{name: gpu, replicas: 2}]}}}")
    with pytest.raises(GpusimError, match="MPS can't share MIG"):
        plugin_devices(node_gpus("a", ["a100-40gb:3g.20gb"]), parsed)


def test_mps_makes_no_more_shares_than_its_daemon_takes() -> None:
    def shares(gpu: str, replicas: int) -> int:
        parsed = config(f"sharing: {{mps: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}")
        return len(plugin_devices(node_gpus("a", [gpu]), parsed)["nvidia.com/gpu"])

    assert (shares("t4", 48), shares("v100", 16)) == (48, 16)
    for gpu, replicas in (("t4", 49), ("v100", 17)):
        with pytest.raises(GpusimError, match=f"at most, not {replicas}"):
            shares(gpu, replicas)


def test_a_configmap_is_no_configuration() -> None:
    with pytest.raises(GpusimError, match="this is a ConfigMap"):
        config("{apiVersion: v1, kind: ConfigMap, data: {a: 'version: v1'}}")


@pytest.mark.parametrize(("text", "pointer", "said"), [
    ("version: v2", "/version", "unknown version 'v2'"),
    ("sharing: {timeSlicing: {}}", "/sharing/timeSlicing/resources", "no resources"),
    ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 1}]}}",
     "/sharing/timeSlicing/resources/0/replicas", "2 or more"),
    ("sharing: {timeSlicing: {resources: [{replicas: 2}]}}",
     "/sharing/timeSlicing/resources/0/name", "no resource name"),
    ("sharing: {timeSlicing: {resources: [{name: GPU, replicas: 2}]}}",
     "/sharing/timeSlicing/resources/0/name", "is not a valid resource name"),
    ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: some}]}}",
     "/sharing/timeSlicing/resources/0/devices", "all"),
    ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: [x]}]}}",
     "/sharing/timeSlicing/resources/0/devices/0", "'x' is not a GPU index"),
    ("flags: {migStrategy: both}", "/flags/migStrategy", "'both' is not one of"),
    ("flags: {plugin: {deviceListStrategy: cdi-cri}}", "/flags/plugin/deviceListStrategy", "CDI"),
    ("{flags: {migStrategy: mixed}, sharing: {mps: {resources: [{name: gpu, replicas: 2}]}}}", "/sharing/mps", "mixed"),
])  # fmt: skip
def test_what_the_plugin_refuses(text: str, pointer: str, said: str) -> None:
    with pytest.raises(GpusimError) as caught:
        config(text)
    assert [(one.where, said in one.message) for one in caught.value.complaints] == [(f"<config> ({pointer})", True)]


def test_what_the_plugin_ignores_is_a_warning() -> None:
    parsed = config(
        "{resources: {gpus: [{pattern: '*', name: big}]},"
        " sharing: {timeSlicing: {resources: [{name: gpu, rename: half, devices: [0], replicas: 2}]}}, oops: 1}"
    )
    assert [warning.where for warning in parsed.warnings] == [
        "<config> (/oops)",
        "<config> (/resources)",
        "<config> (/sharing/timeSlicing/resources/0/devices)",
        "<config> (/sharing/timeSlicing/resources/0/rename)",
    ]
    # All GPUs are shared, under the resource's own name: that is what the real plugin would do with this file.
    assert len(plugin_devices(node_gpus("a"), parsed)["nvidia.com/gpu"]) == 4


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: v1\nsharing: [\n")
    with pytest.raises(GpusimError) as caught:
        load_config(path)
    assert caught.value.complaints[0].where.startswith(f"{path}:3:")
    with pytest.raises(GpusimError, match="can't be read"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("spec", ["t5", "t4x0", "t4:1g.5gb", "a100-40gb:3g.20gb,3g.20gb,1g.5gb", ""])
def test_gpus_that_do_not_exist(spec: str) -> None:
    with pytest.raises(GpusimError):
        node_gpus("a", [spec])


def test_old_labels_go_and_those_of_others_stay() -> None:
    wanted = node_labels(node_gpus("a"), Config())
    present = {
        *wanted,
        "nvidia.com/mig-3g.20gb.count",
        "nvidia.com/gpu.slices.gi",
        "nvidia.com/gpu.present",
        "nvidia.com/gpu.deploy.driver",
        "nvidia.com/device-plugin.config",
        "nvidia.com/mig.config",
        "kubernetes.io/os",
    }
    assert stale(present, wanted) == {"nvidia.com/mig-3g.20gb.count", "nvidia.com/gpu.slices.gi"}
