"""`velagen gpu config`: the device plugin takes what it writes, and nodes then offer what models ask for."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from click.testing import CliRunner, Result

from velagen.check.addon import _render_definition
from velagen.cli import main
from velagen.definition.build import build_definitions
from velagen.gpu.parts import (
    FEWER_MPS,
    GPU_MIB,
    ISOLATION,
    MIG_MIB,
    MIG_PROFILES,
    MOST_MPS,
    equal_parts,
    fraction_of,
    memory_mib,
    mig_layout,
    mig_part_with,
    parts_with,
)
from velagen.gpusim.config import parse_config
from velagen.gpusim.inventory import MODELS, node_gpus, plugin_devices
from velagen.gpusim.labels import node_labels
from velagen.kubevela import RELEASES
from velagen.oracle import VERSIONS, Oracle
from velagen.project import Project

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("gpu-share-*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
#: Whose own software divides GPUs.
OTHERS = {"hami", "volcano", "kai", "dra"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["gpu", "config", *map(str, arguments)])


def written(*arguments: object) -> dict[str, Any]:
    """The configurations that a command writes, by name, read as Kubernetes and the plugin read them."""
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(done.stdout)
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
    assert found["data"].pop("default") == "version: v1\n"
    return {name: yaml.safe_load(text) for name, text in found["data"].items()}


def node(document: Any, *gpus: str) -> tuple[dict[str, int], dict[str, str]]:
    """What a node with these GPUs offers under a configuration, and its labels; nothing in it may be ignored."""
    config = parse_config(document)
    assert not config.warnings
    inventory = node_gpus("node", gpus)
    offered = {name: len(devices) for name, devices in plugin_devices(inventory, config).items()}
    return offered, node_labels(inventory, config)


def application(tmp_path: Path, *shares: dict[str, Any], **properties: Any) -> Path:
    """A file with a component for each gpu-share."""
    components = [
        {
            "name": f"model-{number}",
            "type": "kfserving",
            "properties": properties,
            "traits": [{"type": "gpu-share", "properties": share}],
        }
        for number, share in enumerate(shares)
    ]
    path = tmp_path / "app.yaml"
    document = {"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "metadata": {"name": "app"}}
    path.write_text(yaml.safe_dump({**document, "spec": {"components": components}}, sort_keys=False))
    return path


# ---------------------------------------------------------------- what is written


def test_the_examples_have_these_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set VELAGEN_GOLDEN=write to take over what is written now."""
    monkeypatch.chdir(ROOT)
    done = run(*(path.relative_to(ROOT) for path in EXAMPLES), "--gpus-per-node", 2)
    assert done.exit_code == 0
    golden = GOLDEN / "gpu" / "shares.yaml"
    if os.environ.get("VELAGEN_GOLDEN") == "write":
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_node_with_it_has_a_place_for_the_example(example: Path) -> None:
    """Against the objects that KubeVela renders of the example, which other tests hold the golden files to."""
    objects = yaml.safe_load_all((GOLDEN / example.name).read_text())
    (service,) = (one for one in objects if one["kind"] == "InferenceService")
    predictor = service["spec"]["predictor"]
    mode = example.stem.removeprefix("gpu-share-")
    if mode in OTHERS:
        done = run(example)
        assert done.exit_code == 1
        assert f"with mode {mode} " in done.stderr
        assert "NVIDIA's device plugin needs no configuration" in done.stderr
        return
    (document,) = written(example).values()
    offered, labels = node(document, "a100-40gb:3g.20gb,3g.20gb" if mode == "mig" else "t4")
    (asked,) = (name for name in predictor["model"]["resources"]["limits"] if name.startswith("nvidia.com/"))
    assert offered[asked] > 1
    assert predictor.get("nodeSelector", {}).items() <= labels.items()


@pytest.mark.parametrize("mode", ["time-slicing", "mps"])
@pytest.mark.parametrize(("resource", "suffix"), [("nvidia.com/gpu.shared", ""), ("nvidia.com/gpu", "-as-gpu")])
@pytest.mark.parametrize(("fraction", "parts"), [(0.5, 2), (0.33, 3), (0.25, 4), (0.142857, 7), (0.1, 10), (0.021, 48)])
def test_equal_parts_are_offered_as_often_as_they_make_a_gpu(
    tmp_path: Path, mode: str, resource: str, suffix: str, fraction: float, parts: int
) -> None:
    found = written(application(tmp_path, {"fraction": fraction, "mode": mode, "resourceName": resource}))
    assert list(found) == [f"{mode}-{parts}{suffix}"]
    offered, labels = node(found[f"{mode}-{parts}{suffix}"], "t4x2")
    assert offered == {resource: 2 * parts}
    # What the trait selects nodes by.
    assert labels["nvidia.com/gpu.sharing-strategy"] == mode
    assert labels["nvidia.com/gpu.replicas"] == str(parts)


@pytest.mark.parametrize("gpu", sorted(set(MIG_PROFILES) & set(MODELS)))
def test_mig_parts_are_offered_with_the_layout_that_is_named(tmp_path: Path, gpu: str) -> None:
    for chosen in ([part] for part in MIG_PROFILES[gpu]), [list(MIG_PROFILES[gpu])]:
        for fractions in chosen:
            shares = [{"fraction": float(part), "mode": "mig", "gpu": gpu} for part in fractions]
            asked = {f"nvidia.com/mig-{MIG_PROFILES[gpu][part]}" for part in fractions}
            path = application(tmp_path, *shares)
            layout, counts = mig_layout(gpu, frozenset(name.partition("mig-")[2] for name in asked))
            profiles = ",".join(name for name, count in counts.items() for _ in range(count))
            offered, _ = node(written(path)[f"mig-{gpu}"], f"{gpu}:{profiles}")
            assert asked <= set(offered)
            text = run(path).stdout
            assert f"nvidia.com/mig.config={layout}" in text
            told = ", ".join(f"{name}: {count}" for name, count in offered.items())
            assert sorted(told.split(", ")) == sorted(text.split("offers ")[1].split(", and no")[0].split(", "))


def test_each_pool_of_nodes_has_its_own_and_equal_ones_are_one(tmp_path: Path) -> None:
    half, third = {"fraction": 0.5}, {"fraction": 0.33}
    found = written(application(tmp_path, half, third, half, {"fraction": 0.333}, {"fraction": 0.5, "mode": "mps"}))
    assert list(found) == ["mps-2", "time-slicing-2", "time-slicing-3"]


def test_the_command_names_the_nodes_that_the_component_selects(tmp_path: Path) -> None:
    product = {"nvidia.com/gpu.product": "Tesla-T4-SHARED", "pool": "a b"}
    same_name = {"fraction": 0.5, "resourceName": "nvidia.com/gpu"}
    text = run(application(tmp_path, same_name, nodeSelector=product)).stdout
    # As the label reads before the GPUs are shared.
    assert "kubectl label nodes -l 'nvidia.com/gpu.product=Tesla-T4,pool=a b' --overwrite " in text
    # One command would undo the other.
    text = run(application(tmp_path, {"fraction": 0.5}, {"fraction": 0.25}, nodeSelector={"pool": "t4"})).stdout
    assert "-l pool=t4" not in text
    assert "# some of the nodes with pool=t4 (time-slicing-4: others of them)" in text


def test_a_command_by_labels_reaches_no_node_of_another(tmp_path: Path) -> None:
    def commands(*selectors: dict[str, str]) -> list[str]:
        path = application(tmp_path, *({"fraction": 1 / number} for number in range(2, 2 + len(selectors))))
        document = yaml.safe_load(path.read_text())
        for component, selector in zip(document["spec"]["components"], selectors, strict=True):
            component["properties"] = {"nodeSelector": selector}
        path.write_text(yaml.safe_dump(document))
        lines = run(path).stdout.splitlines()
        return [line.split("nodes ")[1].split(" --")[0] for line in lines if "kubectl label" in line]

    assert commands({"pool": "a"}, {"pool": "b"}) == ["-l pool=a", "-l pool=b"]
    # Some nodes may have the labels of both.
    assert commands({"pool": "a"}, {"pool": "a", "zone": "x"}) == ["NODE", "NODE"]
    assert commands({"pool": "a"}, {"zone": "x"}) == ["NODE", "NODE"]
    # Whoever asks for no label takes the nodes that are left.
    assert commands({"pool": "a"}, {}) == ["-l pool=a", "NODE"]


def test_shares_by_name_and_by_memory() -> None:
    assert list(written("--fraction", 0.5, "--fraction", 0.25, "--mode", "mps")) == ["mps-2", "mps-4"]
    # 15360 MiB: three times 4 GiB, and a rest.
    assert list(written("--memory", "4Gi", "--gpu", "t4")) == ["time-slicing-3"]
    # The name of the profile rounds up: 1g.5gb has 4864 MiB.
    assert "all-1g.5gb" in run("--memory", "4864Mi", "--gpu", "a100-40gb", "--mode", "mig").stdout
    assert "all-2g.10gb" in run("--memory", "5Gi", "--gpu", "a100-40gb", "--mode", "mig").stdout
    text = run("--memory", "4Gi", "--gpu", "t4", "--pool", "pool=t4").stdout
    assert "fraction 0.33." in text
    assert "kubectl label nodes -l pool=t4 --overwrite nvidia.com/device-plugin.config=time-slicing-3" in text


def test_the_simulator_takes_the_file_and_shows_what_is_offered(tmp_path: Path) -> None:
    output = tmp_path / "mps.yaml"
    assert run("--plain", ROOT / "examples" / "gpu-share-mps.yaml", "-o", output).exit_code == 0
    done = CliRunner().invoke(main, ["gpusim", "show", "--config", str(output), "--gpu", "t4x2"])
    assert not done.stderr
    assert {name: len(ids) for name, ids in json.loads(done.stdout)["resources"].items()} == {
        "nvidia.com/gpu.shared": 8
    }
    refused = run("--plain", "--fraction", 0.5, "--fraction", 0.25)
    assert refused.exit_code == 1
    assert "these shares need time-slicing-2 and time-slicing-4" in refused.stderr


def test_a_name_from_elsewhere_stays_in_its_comment(tmp_path: Path) -> None:
    path = application(tmp_path, {"fraction": 0.5})
    path.write_text(path.read_text().replace("name: model-0", '"name": "x\\n  evil: |\\n    version: v1\\n  #"'))
    assert list(written(path)) == ["time-slicing-2"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    output = tmp_path / "out.yaml"
    assert run("--fraction", 0.5, "-o", output).exit_code == 0
    before = output.read_text()
    refused = run("--fraction", 0.25, "-o", output)
    assert refused.exit_code == 1
    assert "is there already" in refused.stderr
    assert output.read_text() == before
    assert run("--fraction", 0.25, "-o", output, "--overwrite").exit_code == 0
    assert "time-slicing-4" in output.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out.yaml"]


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        ({"fraction": 0.3}, "fraction 0.3 is not one of several equal parts"),
        ({"fraction": 0.995}, "fraction 0.995 is not one of several equal parts"),
        ({"fraction": 0.02, "mode": "mps"}, "fraction 0.02 needs 50 parts of a GPU, and MPS makes 48 at most"),
        ({"fraction": 0.3, "mode": "mig", "gpu": "a30"}, "fraction 0.3 is not a MIG part of a30"),
        ({"fraction": 0.5, "mode": "mig"}, "the parts depend on the GPU, and the GPU is not named"),
        ({"fraction": 1.5}, "fraction must be above 0 and below 1"),
        ({"memory": "4Gi"}, "which part of a GPU has 4Gi depends on the GPU's memory"),
        ({"memory": "8Gi", "gpu": "t4", "mode": "mps"}, "8Gi is more than half of the memory of t4, 15360 MiB"),
        ({"memory": "5Gi", "gpu": "l4", "mode": "mig"}, "gpu-share knows no MIG parts of l4"),
        (
            {"memory": "20Gi", "gpu": "a100-40gb", "mode": "mig"},
            "more than the largest MIG part of a100-40gb has, 20096",
        ),
        ({"memory": "100Mi", "gpu": "a30", "mode": "mps"}, "100Mi needs 245 parts of a GPU, and MPS makes 48 at most"),
        ({"memory": "8"}, "memory must be an amount of GPU memory with its unit"),
        ({"fraction": 0.5, "memory": "4Gi"}, "write one of fraction and memory"),
        ({}, "write one of fraction and memory"),
        ({"fraction": 0.5, "mode": "magic"}, "mode must be time-slicing, mps"),
        ("half", "write one of fraction and memory"),
    ],
)
def test_a_share_that_no_node_can_offer_is_told_at_its_line(tmp_path: Path, share: Any, sentence: str) -> None:
    done = run(application(tmp_path, share, {"fraction": 0.5}))
    assert done.exit_code == 1
    assert not done.stdout
    assert sentence in done.stderr
    assert "app.yaml:" in done.stderr


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = application(tmp_path, {"fraction": 0.3}, {"fraction": 0.5, "mode": "mig"})
    done = run(path, tmp_path / "absent.yaml", "--fraction", 2, "--memory", "4Gi", "--memory", "x", "--name", "A_")
    assert done.exit_code == 1
    for sentence in (
        "fraction 0.3 is not one",
        "the GPU is not named",
        "can't be read",
        "2 is not a part of a GPU",
        "which part of a GPU has 4Gi depends on the GPU's memory",
        "'x' is not an amount of memory",
        "'A_' is not a name Kubernetes takes",
        "7 errors",
    ):
        assert sentence in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--memory", "9Gi", "--gpu", "t4"], "more than half of the memory of t4, 15360 MiB"),
        (["--memory", "12Gi", "--gpu", "a30", "--mode", "mig"], "the largest MIG part of a30 has, 11968 MiB"),
        (["--memory", "0Gi", "--gpu", "a30"], "'0Gi' is not an amount of memory with its unit"),
        (["--fraction", "0.05", "--gpu", "v100", "--mode", "mps"], "MPS makes 16 at most"),
        (["--fraction", "0.5", "--gpu", "t4", "--mode", "mig"], "gpu-share knows no MIG parts of t4"),
        (["--fraction", "0.5", "--mode", "hami"], "with mode hami HAMi's device plugin divides the GPUs"),
        (["--fraction", "0.5", "--fraction", "0.33", "--pool", "a=b"], "fraction 0.33 needs 3 parts by time-slicing"),
        (["--fraction", "0.5", "--pool", "t4"], "'t4' is not a label"),
        (["--fraction", "nan"], "nan is not a part of a GPU"),
        ([ROOT / "examples" / "sentiment.yaml"], "nothing here asks for a part of a GPU"),
    ],
)
def test_a_wrong_option_is_told(arguments: list[object], sentence: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence in done.stderr


def test_a_part_that_is_asked_for_by_hand_is_told(tmp_path: Path) -> None:
    limits = {"resources": {"limits": {"nvidia.com/gpu.shared": 1}, "requests": {"nvidia.com/gpu.shared": 1}}}
    path = application(tmp_path, {"fraction": 0.5}, **limits)
    path.write_text(path.read_text().replace("type: gpu-share", "type: labels"))
    done = run(path, "--fraction", 0.5)
    assert done.exit_code == 0
    assert "model-0: nvidia.com/gpu.shared is asked for without gpu-share" in done.stderr
    assert done.stderr.count("asked for without") == 1
    assert run(path).exit_code == 1


def test_a_product_that_nodes_will_not_have_is_told(tmp_path: Path) -> None:
    product = {"nvidia.com/gpu.product": "Tesla-T4"}
    share = {"fraction": 0.5, "resourceName": "nvidia.com/gpu"}
    done = run(application(tmp_path, share, nodeSelector=product))
    assert done.exit_code == 1
    assert "have Tesla-T4-SHARED" in done.stderr
    # As the simulator labels them.
    (document,) = written("--fraction", 0.5).values()
    document["sharing"]["timeSlicing"]["renameByDefault"] = False
    assert node(document, "t4")[1]["nvidia.com/gpu.product"] == "Tesla-T4-SHARED"


@pytest.mark.parametrize("arguments", [[], ["--mode", "mps"], ["x.yaml", "--gpu", "t4"], ["--fraction", "half"]])
def test_a_command_that_asks_for_nothing_is_a_usage_error(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# ---------------------------------------------------------------- the tables


def test_the_tables_agree_with_the_simulator() -> None:
    assert {key: model.memory_mib for key, model in MODELS.items()}.items() <= GPU_MIB.items()
    for key, model in MODELS.items():
        assert FEWER_MPS.get(key, MOST_MPS) == model.most_mps
    for gpu, own in MIG_PROFILES.items():
        if gpu in MODELS:
            there = {profile.name: profile.memory_mib for profile in MODELS[gpu].profiles}
            assert {profile: MIG_MIB[gpu][part] for part, profile in own.items()}.items() <= there.items()
        assert MIG_MIB[gpu].keys() == own.keys()


def test_a_fraction_of_parts_gives_the_parts() -> None:
    assert [equal_parts(fraction_of(parts)) for parts in range(2, 200)] == list(range(2, 200))
    assert [fraction_of(parts) for parts in (2, 3, 4, 7, 8)] == [0.5, 0.33, 0.25, 0.143, 0.125]


@cache
def trait_template() -> str:
    """The trait at a component that Triton serves; a parameter is to follow."""
    (built,) = (one for one in build_definitions(Project(ROOT)) if one.name == "gpu-share")
    output = '{kind: "InferenceService", spec: predictor: model: modelFormat: name: "triton"}'
    return f'{_render_definition(built, RELEASES[0]).template}\ncontext: {{name: "m", output: {output}}}'


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trait_takes_the_fractions_that_make_equal_parts(version: Literal["0.9.2", "0.14.1"]) -> None:
    template = trait_template()
    fractions = [*(number / 100 for number in range(1, 100)), 0.995, 0.333, 0.142857, 0.0204, 0.021, 0.0206]
    with Oracle(version, seconds=60) as oracle:
        for mode in ("time-slicing", "mps"):
            most = MOST_MPS if mode == "mps" else 1000
            for fraction in fractions:
                asked = f'parameter: {{fraction: {fraction}, mode: "{mode}"}}'
                said = oracle.eval(f"{template}\n{asked}", "errs")
                assert said.ok, said.error
                parts = equal_parts(fraction)
                assert (said.result == []) == (parts is not None and parts <= most), (fraction, mode, said.result)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trait_finds_the_part_with_the_memory(version: Literal["0.9.2", "0.14.1"]) -> None:
    template = trait_template()
    memories = ["4864Mi", "4865Mi", "5G", "0.5Gi", "9984Mi", "10Gi", "20096Mi", "20Gi", "39.5Gi", "40Gi", "1Ti", "300M"]
    with Oracle(version, seconds=60) as oracle:
        for gpu in GPU_MIB:
            for memory in memories:
                mib = memory_mib(memory)
                assert mib is not None
                for mode in ("mps", "time-slicing", "mig"):
                    asked = f'parameter: {{memory: "{memory}", mode: "{mode}", gpu: "{gpu}"}}'
                    said = oracle.eval(f"{template}\n{asked}", "errs")
                    assert said.ok, said.error
                    part = mig_part_with(gpu, mib) if mode == "mig" and gpu in MIG_MIB else None
                    parts = parts_with(gpu, mib)
                    can_be = part is not None if mode == "mig" else 2 <= parts <= (MOST_MPS if mode == "mps" else parts)
                    assert (said.result == []) == can_be, (asked, said.result)
                    if not can_be:
                        continue
                    patch = oracle.eval(f"{template}\n{asked}", "patch.spec.predictor")
                    assert patch.ok, patch.error
                    predictor: Any = patch.result
                    limits = predictor["model"]["resources"]["limits"]
                    if part is not None:
                        assert limits == {f"nvidia.com/mig-{MIG_PROFILES[gpu][part]}": 1}
                        continue
                    assert predictor["nodeSelector"]["nvidia.com/gpu.replicas"] == str(parts)
                    required = predictor["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                    (term,) = required["nodeSelectorTerms"]
                    (rule,) = term["matchExpressions"]
                    # A node of this GPU fits, and one whose parts have less does not.
                    assert (rule["key"], rule["operator"]) == ("nvidia.com/gpu.memory", "Gt")
                    assert rule["values"] == [str(parts * mib - 1)]
                    assert GPU_MIB[gpu] > parts * mib - 1 >= parts * (mib - 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trait_refuses_what_a_mode_does_not_isolate(version: Literal["0.9.2", "0.14.1"]) -> None:
    template, levels = trait_template(), ["none", "memory", "fault"]
    more = {
        "dra": 'gpu: "a30"',
        "mig": 'gpu: "a30"',
        "kai": 'queue: "q"',
        "volcano": "",
        "hami": "",
        "mps": "",
        "time-slicing": "",
    }
    with Oracle(version, seconds=60) as oracle:
        for mode, given in ISOLATION.items():
            for asked in levels:
                parameter = f'parameter: {{fraction: 0.5, mode: "{mode}", isolation: "{asked}", {more[mode]}}}'
                said = oracle.eval(f"{template}\n{parameter}", "errs")
                assert said.ok, said.error
                if levels.index(asked) <= levels.index(given):
                    assert said.result == []
                    continue
                assert isinstance(said.result, list)
                (sentence,) = said.result
                assert sentence.startswith(f"isolation: {asked} can't be had with mode: {mode}, ")
                # What is written instead does isolate so much.
                named = sentence.rpartition("write mode: ")[2]
                instead = [one for one in ISOLATION if one in named]
                assert instead
                assert all(levels.index(ISOLATION[one]) >= levels.index(asked) for one in instead)
