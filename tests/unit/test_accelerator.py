"""The trait accelerator: nodes by the labels that vendors set, whole GPUs, and what contradicts them."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_definitions import outcome_of, render, trait

from velagen.gpusim.config import Config
from velagen.gpusim.inventory import MODELS, node_gpus
from velagen.gpusim.labels import node_labels
from velagen.lab.objects import GPUS as LAB_GPUS
from velagen.lab.objects import gpu_node

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "definitions"))
import _accelerators as table  # noqa: E402  # found by the line above

VLLM: dict[str, Any] = {"runtime": "vllm", "modelUri": "hf://a/b"}
OWN: dict[str, Any] = {"image": "registry.example.com/scorer:3"}
CANARY = trait("canary", modelUri="hf://a/c", weight=10, route={"hosts": ["m.example.com"]})


def predictor(properties: dict[str, Any], *traits: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = render(properties, *traits)["InferenceService/m"]["spec"]["predictor"]
    return found


def said(properties: dict[str, Any], *traits: dict[str, Any]) -> str:
    return outcome_of(properties, *traits).raw[0]


def fits(pod: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes component-helpers scheduling/corev1/nodeaffinity: one of the terms, and all in it."""
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return any(
        bool(term.get("matchExpressions")) and all(holds(one, labels) for one in term["matchExpressions"])
        for term in required["nodeSelectorTerms"]
    )


def holds(one: dict[str, Any], labels: dict[str, str]) -> bool:
    value = labels.get(one["key"])
    answers = {
        "In": value in one.get("values", ()),
        "NotIn": value not in one.get("values", ()),
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers[one["operator"]]


#: A node of each GPU that the lab plays, and one of each vendor's whose GPUs it does not.
NODES = {
    **{name: gpu_node(name.lower(), model=name)["metadata"]["labels"] for name in LAB_GPUS},
    "none": gpu_node("none", gpus=0)["metadata"]["labels"],
    "L40S": node_labels(node_gpus("n", ("l40s",)), Config()),
    "MI300X": {table.AMD.label: "AMD_Instinct_MI300X_OAM"},
    "MI355X": {table.AMD.label: "AMD_Instinct_MI355X_OAM"},
}


@pytest.mark.parametrize(
    ("kind", "nodes", "limits"),
    [
        ("t4", {"T4"}, {"nvidia.com/gpu": 1}),
        ("l40s", {"L40S"}, {"nvidia.com/gpu": 1}),
        ("a100", {"A100-40GB", "A100-80GB"}, {"nvidia.com/gpu": 1}),
        ("h100", {"H100-80GB"}, {"nvidia.com/gpu": 1}),
        ("mi300x", {"MI300X"}, {"amd.com/gpu": 1}),
        ("any", {*LAB_GPUS, "L40S"}, {"nvidia.com/gpu": 1}),
        ("cpu", {"none"}, None),
    ],
)
def test_a_kind_has_its_nodes_and_asks_for_its_gpu(kind: str, nodes: set[str], limits: dict[str, int] | None) -> None:
    found = predictor({**VLLM, "servingRuntime": "vllm-of-ours"}, trait("accelerator", type=kind))
    assert {name for name, labels in NODES.items() if fits(found, labels)} == nodes
    assert found["model"].get("resources", {}).get("limits") == limits
    assert "preferredDuringSchedulingIgnoredDuringExecution" not in found["affinity"]["nodeAffinity"]


def test_the_table_has_the_labels_that_the_simulators_set() -> None:
    """Each GPU that a simulator plays and whose name begins with a kind's is of that kind."""
    of_lab = {name.lower(): gpu.product for name, gpu in LAB_GPUS.items()}
    of_gpusim = {key: node_labels(node_gpus("n", (key,)), Config())[table.NVIDIA.label] for key in MODELS}
    for name, product in (*of_lab.items(), *of_gpusim.items()):
        kinds = {kind for kind, gpu in table.GPUS.items() if product in gpu.products}
        assert kinds == {kind for kind in table.GPUS if name.split("-")[0] == kind}, name
    for kind, gpu in table.GPUS.items():
        for model in (model for key, model in MODELS.items() if key.split("-")[0] == kind):
            assert model.compute == gpu.compute


def test_the_table_the_schema_and_the_page_name_the_same_kinds() -> None:
    properties = json.loads((ROOT / "schemas" / "accelerator.json").read_text())["properties"]
    assert properties["type"]["enum"] == [*table.GPUS, table.CPU, table.ANY]
    assert properties["anyOf"]["items"]["enum"] == [*table.GPUS]
    page = (ROOT / "docs" / "definitions" / "accelerator.md").read_text()
    for kind, gpu in table.GPUS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {kind} |"))
        assert f"`{gpu.vendor.resource}`" in row
        assert all(f"`{product}`" in row for product in gpu.products)
    products = [product for gpu in table.GPUS.values() for product in gpu.products]
    assert len(products) == len({*products}), "a node is of one kind"
    assert table.WITHOUT_BFLOAT16 == {"t4": True}


def test_the_order_has_equal_steps_and_the_last_is_not_preferred() -> None:
    found = predictor(VLLM, trait("accelerator", anyOf=["h100", "a100", "l40s", "t4"]))["affinity"]["nodeAffinity"]
    liked = [
        (one["weight"], one["preference"]["matchExpressions"][0]["values"])
        for one in found["preferredDuringSchedulingIgnoredDuringExecution"]
    ]
    assert liked == [
        (weight, [*table.GPUS[kind].products]) for weight, kind in ((100, "h100"), (66, "a100"), (33, "l40s"))
    ]


@pytest.mark.parametrize("pair", [*combinations(["t4", "l40s", "a100", "h100"], 2)], ids="-".join)
def test_any_of_two_has_the_nodes_of_both(pair: tuple[str, str]) -> None:
    both = predictor(VLLM, trait("accelerator", anyOf=[*pair]))
    each = [predictor(VLLM, trait("accelerator", type=one)) for one in pair]
    for labels in NODES.values():
        assert fits(both, labels) == any(fits(one, labels) for one in each)


def test_the_components_own_nodes_are_narrowed_and_never_widened() -> None:
    """Terms are alternatives: ours is in each, and one without a condition, which fits no node, stays out."""
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    pool = {"key": "pool", "operator": "Exists"}
    liked = [{"weight": 7, "preference": {"matchExpressions": [pool]}}]
    node_affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [zone]}, {}, {"matchExpressions": [pool]}]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": liked,
    }
    affinity = {"nodeAffinity": node_affinity, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    given = {**VLLM, "nodeSelector": {"disk": "ssd"}, "pod": {"affinity": affinity}}
    found = predictor(given, trait("accelerator", anyOf=["h100", "a100"]))
    assert found["nodeSelector"] == {"disk": "ssd"}
    assert found["affinity"]["podAffinity"] == affinity["podAffinity"]
    own = found["affinity"]["nodeAffinity"]
    assert len(own["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]) == 2
    assert own["preferredDuringSchedulingIgnoredDuringExecution"][0] == liked[0]
    assert len(own["preferredDuringSchedulingIgnoredDuringExecution"]) == 2
    h100 = NODES["H100-80GB"]
    assert not fits(found, h100)
    assert fits(found, {**h100, "zone": "a"})
    assert fits(found, {**h100, "pool": "x"})
    assert not fits(found, {**NODES["T4"], "zone": "a"})


@pytest.mark.parametrize("asked", [1, "2"])
def test_what_the_component_asks_for_is_left(asked: int | str) -> None:
    """On nodes that share GPUs under their old name too: what a device is there is the component's matter."""
    given = {**VLLM, "resources": {"limits": {"nvidia.com/gpu": asked, "memory": "4Gi"}}}
    for count in ({}, {"count": int(asked)}):
        found = predictor(given, trait("accelerator", type="t4", **count))
        assert found["model"]["resources"]["limits"] == {"nvidia.com/gpu": asked, "memory": "4Gi"}
        assert fits(found, {table.NVIDIA.label: "Tesla-T4-SHARED"})
    assert not fits(predictor(VLLM, trait("accelerator", type="t4")), {table.NVIDIA.label: "Tesla-T4-SHARED"})
    other = {**VLLM, "resources": {"limits": {"nvidia.com/gpu": 3}}}
    assert "count: 2 contradicts what is asked for already (nvidia.com/gpu)" in said(
        other, trait("accelerator", type="t4", count=2)
    )


def test_any_takes_no_part_for_a_whole_gpu() -> None:
    found = predictor(VLLM, trait("accelerator", type="any", count=2))
    assert found["model"]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert fits(found, {table.NVIDIA.label: "NVIDIA-B200"})
    assert not fits(found, {table.NVIDIA.label: "Tesla-T4-SHARED", "nvidia.com/gpu.sharing-strategy": "mps"})


@pytest.mark.parametrize(
    "share",
    [
        {"fraction": 0.5},
        {"fraction": 0.5, "mode": "mps", "resourceName": "nvidia.com/gpu"},
        {"fraction": 0.5, "mode": "hami"},
        {"fraction": 0.5, "mode": "volcano"},
        {"fraction": 0.5, "mode": "mig", "gpu": "a100-40gb"},
        {"memory": "8Gi", "mode": "dra"},
        {"memory": "8Gi", "mode": "kai", "queue": "q"},
        {"memory": "4Gi", "mode": "mps", "gpu": "a100-40gb"},
    ],
    ids=lambda share: "-".join(str(value) for value in share.values()),
)
def test_a_part_of_a_gpu_stays_one(share: dict[str, Any]) -> None:
    given = {**VLLM, "runtimeVersion": "v0.24.0"}
    alone = predictor(given, trait("gpu-share", **share))
    found = predictor(given, trait("gpu-share", **share), trait("accelerator", type="a100"))
    assert found["model"] == alone["model"]
    a100 = {**NODES["A100-40GB"], "nvidia.com/gpu.memory": "40960"}
    expressions = found["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = expressions["nodeSelectorTerms"]
    assert any(holds(one, a100) for one in term["matchExpressions"] if one["key"] == table.NVIDIA.label)
    assert len(term["matchExpressions"]) == (2 if share.get("gpu") and share["mode"] == "mps" else 1)
    refused = said(given, trait("gpu-share", **share), trait("accelerator", type="cpu"))
    assert "type: cpu keeps the pods off nodes with GPUs, and they ask for one" in refused


def test_a_server_of_ones_own_has_the_gpu_in_its_container() -> None:
    given = {**OWN, "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "2Gi"}}}
    found = predictor(given, trait("accelerator", type="mi300x", count=8))
    (container,) = found["containers"]
    assert container["resources"]["limits"] == {"memory": "2Gi", "amd.com/gpu": 8}
    assert container["image"] == OWN["image"]
    assert "model" not in found
    asked = {**OWN, "resources": {"limits": {"amd.com/gpu": 2}}}
    assert predictor(asked, trait("accelerator", type="mi300x"))["containers"][0]["resources"]["limits"] == {
        "amd.com/gpu": 2
    }


def test_a_transformer_in_the_models_pod_has_no_gpu() -> None:
    beside = {"image": "registry.example.com/text:1", "collocated": True, "resources": {"limits": {"cpu": 1}}}
    given = {"runtime": "sklearn", "modelUri": "s3://m/1", "transformer": beside}
    found = predictor(given, trait("accelerator", type="t4"))
    assert found["model"]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert all("nvidia.com/gpu" not in one["resources"]["limits"] for one in found["containers"])


@pytest.mark.parametrize("own", [{"servingRuntime": "vllm-rocm"}, {"runtimeVersion": "v0.24.0-rocm"}])
def test_amds_gpu_has_an_image_that_somebody_names(own: dict[str, Any]) -> None:
    assert predictor({**VLLM, **own}, trait("accelerator", type="mi300x"))["model"]["resources"]["limits"] == {
        "amd.com/gpu": 1
    }
    assert "KServe's runtimes name images for CUDA" in said(
        {**VLLM, "servingRuntime": "kserve-vllmserver"}, trait("accelerator", type="mi300x")
    )


@pytest.mark.parametrize(
    ("runtime", "args", "is_refused"),
    [
        ("vllm", ["--dtype=bfloat16"], True),
        ("vllm", ["--max-model-len=1", "--dtype", "bfloat16"], True),
        ("huggingface", ["--dtype=bfloat16"], True),
        ("huggingface", ["--backend=huggingface", "--dtype=bfloat16"], False),
        ("vllm", ["--dtype=half"], False),
        ("vllm", ["--kv-cache-dtype=bfloat16"], False),
        ("vllm", [], False),
    ],
)
def test_a_t4_has_no_bfloat16(runtime: str, args: list[str], is_refused: bool) -> None:
    given = {**VLLM, "runtime": runtime, "args": args}
    outcome = outcome_of(given, trait("accelerator", anyOf=["a100", "t4"]))
    assert ("args hold --dtype=bfloat16, which a t4 does not have" in str(outcome.raw)) == is_refused
    assert bool(outcome.problems) == is_refused


def test_an_a100_has_bfloat16() -> None:
    args = ["--dtype=bfloat16"]
    assert predictor({**VLLM, "args": args}, trait("accelerator", type="a100"))["model"]["args"][-1:] == args


def test_the_new_version_of_a_canary_is_on_the_same_hardware() -> None:
    found = render(VLLM, trait("accelerator", anyOf=["h100", "a100"]), CANARY)
    stable, new = (found[f"InferenceService/{name}"]["spec"]["predictor"] for name in ("m", "m-canary"))
    assert new["affinity"] == stable["affinity"]
    assert new["model"]["resources"] == stable["model"]["resources"] == {"limits": {"nvidia.com/gpu": 1}}
