"""`velagen gpu modes`: what nodes offer, and the mode that a model is to write; the trait then fits the node."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from velagen.cli import main
from velagen.errors import Place
from velagen.gpu.modes import ORDER, Cluster, offers
from velagen.gpu.parts import GPU_MIB, ISOLATION, SHARED, Isolation, memory_mib
from velagen.gpu.shares import Asked
from velagen.gpusim.config import parse_config
from velagen.gpusim.inventory import node_gpus, plugin_devices
from velagen.gpusim.labels import node_labels


def node(
    name: str,
    *gpus: str,
    mode: str = "",
    parts: int = 1,
    rename: bool = True,
    annotations: dict[str, str] | None = None,
    more: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A node as the device plugin and GPU feature discovery make it, as far as the simulator plays them."""
    document: dict[str, Any] = {"version": "v1", "flags": {"migStrategy": "none" if mode else "mixed"}}
    if mode:
        resources = [{"name": "nvidia.com/gpu", "replicas": parts}]
        document["sharing"] = {mode: {"renameByDefault": rename, "resources": resources}}
    config, inventory = parse_config(document), node_gpus(name, gpus)
    offered = {key: str(len(devices)) for key, devices in plugin_devices(inventory, config).items()}
    metadata = {"name": name, "labels": node_labels(inventory, config), "annotations": annotations or {}}
    return {"kind": "Node", "metadata": metadata, "status": {"allocatable": {"cpu": "8", **offered, **(more or {})}}}


def devices(node: str, *profiles: str) -> dict[str, Any]:
    """What a DRA driver announces of a node: MIG devices, or whole GPUs by an empty profile."""
    announced = [
        {"name": f"d{number}", "attributes": {"profile": {"string": profile}} if profile else {}}
        for number, profile in enumerate(profiles)
    ]
    return {"kind": "ResourceSlice", "metadata": {"name": node}, "spec": {"nodeName": node, "devices": announced}}


QUEUE = {"apiVersion": "scheduling.run.ai/v2", "kind": "Queue", "metadata": {"name": "inference"}}
HALVES = node("halves", "t4", mode="timeSlicing", parts=2)
MPS = node("mps", "t4", mode="mps", parts=3)
A100 = node("a100", "a100-40gb:3g.20gb,3g.20gb")
PLAIN = node("plain", "t4")
HAMI = node("hami", "t4", annotations={"hami.io/node-nvidia-register": "[]"})
VOLCANO = node("volcano", more={"volcano.sh/vgpu-number": "10"})
SLICES = devices("dra", "1g.5gb", "3g.20gb")
ALL = [HALVES, MPS, A100, PLAIN, HAMI, VOLCANO, SLICES, QUEUE]


def modes(*objects: dict[str, Any], fraction: float | None = None, **asked: Any) -> list[str]:
    share = Asked(fraction, "time-slicing", asked.pop("gpu", None), Place(), **asked)
    return [one.written for one in offers(Cluster.of(objects), share)]


def test_what_isolates_most_comes_first() -> None:
    assert [ISOLATION[mode] for mode in ORDER] == sorted(
        (ISOLATION[mode] for mode in ORDER), key=["fault", "memory", "none"].index
    )
    assert set(ORDER) == set(ISOLATION)
    assert modes(*ALL, fraction=0.5) == [
        "mode: mig, gpu: a100-40gb",
        "mode: dra, gpu: a100-40gb",
        "mode: hami",
        "mode: volcano",
        "mode: time-slicing",
        "mode: kai, queue: inference",
    ]


@pytest.mark.parametrize(("isolation", "first"), [("none", 6), ("memory", 4), ("fault", 2)])
def test_no_mode_that_isolates_less_than_is_asked_for(isolation: Isolation, first: int) -> None:
    assert modes(*ALL, fraction=0.5, isolation=isolation) == modes(*ALL, fraction=0.5)[:first]


def test_the_order_of_objects_changes_nothing() -> None:
    expected = modes(*ALL, memory="4Gi")
    assert expected[0] == "mode: dra, gpu: a100-40gb"
    assert all(
        modes(*some, memory="4Gi") == expected for some in itertools.islice(itertools.permutations(ALL), 0, 5040, 97)
    )


def test_an_amount_of_memory_finds_parts_that_have_it() -> None:
    # 15360 MiB in 3 parts.
    assert modes(MPS, memory="4Gi") == ["mode: mps, gpu: t4"]
    assert modes(MPS, memory="5120Mi") == ["mode: mps, gpu: t4"]
    assert modes(MPS, memory="5121Mi") == []
    # With less memory the trait would look for nodes that divide in more parts.
    assert modes(MPS, memory="1Gi") == []
    # The trait asks for the smallest profile, 1g.5gb, and no other.
    assert modes(A100, memory="4Gi") == []
    assert modes(A100, memory="10Gi") == ["mode: mig, gpu: a100-40gb"]
    assert modes(devices("dra", "1g.5gb"), memory="4Gi") == ["mode: dra, gpu: a100-40gb"]
    assert modes(devices("dra", ""), memory="4Gi") == []


def test_the_name_of_the_resource_is_the_nodes_own() -> None:
    same = node("same", "t4", mode="mps", parts=2, rename=False)
    assert modes(same, fraction=0.5) == ["mode: mps, resourceName: nvidia.com/gpu"]


def test_what_is_written_fits_the_node() -> None:
    """By the rules of the trait: as many parts, and so much memory."""
    for gpu, parts, memory in itertools.product(["t4", "l4", "a100-40gb"], range(2, 9), ["1Gi", "2Gi", "7Gi", "10Gi"]):
        one = node("n", gpu, mode="mps", parts=parts)
        mib = memory_mib(memory)
        assert mib is not None
        for written in modes(one, memory=memory):
            named = written.rpartition("gpu: ")[2]
            assert GPU_MIB[named] // mib == parts == int(one["metadata"]["labels"]["nvidia.com/gpu.replicas"])
            assert int(one["metadata"]["labels"]["nvidia.com/gpu.memory"]) > parts * mib - 1
            assert int(one["status"]["allocatable"][SHARED])


# ---------------------------------------------------------------- the command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["gpu", "modes", *map(str, arguments)])


def written_down(tmp_path: Path, share: dict[str, Any], *objects: dict[str, Any]) -> tuple[Path, Path]:
    """An application, and what `kubectl get -o yaml` gives."""
    component = {
        "name": "m",
        "type": "kfserving",
        "properties": {},
        "traits": [{"type": "gpu-share", "properties": share}],
    }
    app = {"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "metadata": {"name": "app"}}
    (tmp_path / "app.yaml").write_text(yaml.safe_dump({**app, "spec": {"components": [component]}}))
    (tmp_path / "nodes.yaml").write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": list(objects)}))
    return tmp_path / "app.yaml", tmp_path / "nodes.yaml"


def test_the_command_names_the_mode_to_write(tmp_path: Path) -> None:
    app, nodes = written_down(tmp_path, {"fraction": 0.5, "mode": "auto"}, *ALL)
    done = run(app, "--from", nodes)
    assert done.exit_code == 0, done.output
    first, *others = done.stdout.splitlines()
    assert first == "m: fraction: 0.5: write mode: mig, gpu: a100-40gb (a100)"
    assert others[0] == "  or mode: dra, gpu: a100-40gb (dra)"
    assert "  or mode: time-slicing (halves)" in others


def test_a_model_without_a_place_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    app, nodes = written_down(tmp_path, {"fraction": 0.5, "isolation": "fault"}, HALVES)
    done = run(app, "--from", nodes)
    assert done.exit_code == 1
    assert "m: no node offers fraction: 0.5, isolation: fault" in done.stderr
    assert "velagen gpu config" in done.stderr
    assert "app.yaml:" in done.stderr


def test_without_files_it_shows_the_nodes(tmp_path: Path) -> None:
    _, nodes = written_down(tmp_path, {"fraction": 0.5}, *ALL, {"kind": "Node", "metadata": {"name": "cpu"}})
    assert run("--from", nodes).stdout.splitlines() == [
        "a100: 2 by mig of 3g.20gb",
        "halves: 2 by time-slicing, 2 of a GPU, 7680 MiB each",
        "hami: parts by hami",
        "mps: 3 by mps, 3 of a GPU, 5120 MiB each",
        "plain: 1 whole, parts of them by kai",
        "volcano: parts by volcano",
    ]
    _, none = written_down(tmp_path, {"fraction": 0.5})
    assert "no node has a GPU" in run("--from", none).stderr


@pytest.mark.parametrize(
    ("share", "sentence"),
    [({"fraction": 2}, "fraction must be above 0 and below 1"), ({}, "write one of fraction and memory")],
)
def test_what_is_wrong_in_the_application_is_told(tmp_path: Path, share: dict[str, Any], sentence: str) -> None:
    app, nodes = written_down(tmp_path, share, *ALL)
    done = run(app, "--from", nodes)
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence in done.stderr
