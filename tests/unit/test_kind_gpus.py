"""The GPU simulator as a layer of the kind lab: its image, its options, and when a node counts as done."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from velagen.cli import main
from velagen.errors import VelagenError
from velagen.gpusim.manifest import manifest
from velagen.lab.images import assemble, recipes
from velagen.lab.images.recipe import SITE, Part
from velagen.lab.kind import KindLab, KindOptions, gpus
from velagen.lab.kind.engine import Engine
from velagen.lab.kind.options import WHOLE
from velagen.lab.kind.state import KindState

MIG = "version: v1\nflags: {migStrategy: mixed}\n"


# -- the image


def test_the_image_holds_the_simulator_which_needs_nothing_else_of_velagen(tmp_path: Path) -> None:
    for part in recipes()["gpusim"].parts:
        assemble.put(part, tmp_path)
    site = tmp_path / SITE.lstrip("/")
    assert [path.name for path in (site / "velagen").iterdir()] == ["gpusim"]
    program = (tmp_path / "usr/local/bin/velagen").read_text()

    def python(code: str) -> subprocess.CompletedProcess[str]:
        # With the libraries of this environment, and without the velagen that is installed in it.
        path = [str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {path!r}\n{code}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    for arguments in (["gpusim", "show", "--node", "n"], ["gpusim", "run", "--help"]):
        done = python(f"sys.argv[1:] = {arguments!r}\n{program}")
        assert done.returncode == 0, done.stderr
    other = python(f"sys.argv[1:] = ['check']\n{program}")
    assert other.returncode == 1
    assert other.stderr == "velagen: only the simulator is in this image: velagen gpusim --help\n"
    # What `run` imports once it has read its options.
    modules = ", ".join(f"velagen.gpusim.{name}" for name in ("cluster", "metrics", "simulator"))
    done = python(f"import {modules}\nprint(sorted(name for name in sys.modules if name.startswith('velagen.')))")
    assert done.returncode == 0, done.stderr
    assert all(name.startswith("velagen.gpusim") for name in ast.literal_eval(done.stdout))


def test_an_images_key_follows_the_code_and_not_what_python_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "PACKAGE", tmp_path)
    folder = tmp_path / "gpusim"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    part = Part("/a", package="gpusim")
    first = assemble.identify(part)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    assert assemble.identify(part) == first
    assemble.put(part, tmp_path / "root")
    assert [path.name for path in sorted((tmp_path / "root" / "a").rglob("*"))] == ["a.py"]
    (folder / "a.py").write_text("x = 2\n")
    assert assemble.identify(part) != first


# -- options


def test_sharing_is_as_the_trait_expects_it() -> None:
    assert gpus.advertised("n", ("t4x2",), gpus.shared(1)) == {"nvidia.com/gpu": 2}
    assert gpus.advertised("n", ("t4x2",), gpus.shared(3)) == {"nvidia.com/gpu.shared": 6}
    assert gpus.advertised("n", ("a100-40gb:3g.20gb,3g.20gb",), MIG) == {"nvidia.com/mig-3g.20gb": 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (KindOptions(gpus=("k80",)), "names no GPU"),
        (KindOptions(gpu_config="version: v2"), "unknown version"),
        (KindOptions(gpu_config="a: ["), "invalid YAML"),
    ],
)
def test_what_the_plugin_would_refuse_is_refused_before_a_cluster_starts(
    tmp_path: Path, options: KindOptions, said: str
) -> None:
    with pytest.raises(VelagenError, match=said):
        KindLab("x", folder=tmp_path, options=options)


def test_options_are_the_same_after_they_were_written_down(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    given = KindOptions(gpus=("t4x2", "l4"), gpu_config=gpus.shared(2))
    KindState("c", given, Engine(), {}).write(path)
    read = KindState.read(path)
    assert read is not None
    assert read.options == given
    # A lab that was started before there were GPUs.
    data = json.loads(path.read_text())
    del data["options"]["gpus"], data["options"]["gpu_config"]
    path.write_text(json.dumps(data))
    read = KindState.read(path)
    assert read is not None
    assert read.options == KindOptions()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[KindOptions]:
    """The options `velagen lab up --kind` starts a lab with."""
    found: list[KindOptions] = []

    class Up(KindLab):
        def up(self) -> None:
            assert self.options is not None
            found.append(self.options)
            raise VelagenError([])

    monkeypatch.setattr("velagen.lab.kind.KindLab", Up)
    return found


def up(tmp_path: Path, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["lab", "up", "--dir", str(tmp_path / "lab"), *arguments])


def test_the_flags_of_the_simulated_nodes_hold_for_real_ones(asked: list[KindOptions], tmp_path: Path) -> None:
    up(tmp_path, "--kind", "--gpu-model", "A100-40GB", "--gpus-per-node", "4", "--gpu-replicas", "2", "--nodes", "3")
    up(tmp_path, "--kind", "--gpus-per-node", "0")
    up(tmp_path, "--kind")
    first, none, plain = asked
    assert (first.nodes, first.gpus, first.gpu_config) == (3, ("a100-40gbx4",), gpus.shared(2))
    assert gpus.advertised("n", first.gpus, first.gpu_config) == {"nvidia.com/gpu.shared": 8}
    assert none.gpus == ()
    assert (plain.nodes, plain.gpus, plain.gpu_config) == (1, ("t4x2",), WHOLE)


def test_a_configuration_file_is_nvidias(asked: list[KindOptions], tmp_path: Path) -> None:
    file = tmp_path / "sharing.yaml"
    file.write_text(MIG)
    up(tmp_path, "--kind", "--gpu-config", str(file))
    assert asked[0].gpu_config == MIG
    refused = up(tmp_path, "--gpu-config", str(file))
    assert refused.exit_code != 0
    assert "Add --kind" in refused.output


# -- when it is done


def test_another_configuration_gives_other_pods() -> None:
    def annotations(config: str) -> dict[str, str]:
        found: dict[str, str] = manifest("i", config=config, node_selector=gpus.NODES)[-1]["spec"]["template"][
            "metadata"
        ]["annotations"]
        return found

    assert annotations(WHOLE) == annotations(WHOLE)
    assert annotations(WHOLE) != annotations(gpus.shared(2))


@pytest.mark.parametrize(
    ("allocatable", "ready", "done"),
    [
        ({"nvidia.com/gpu": "2"}, "True", True),
        ({"nvidia.com/gpu": "2"}, "False", False),
        ({"nvidia.com/gpu": "1"}, "True", False),
        ({}, "True", False),
        # Left over from another configuration.
        ({"nvidia.com/gpu": "2", "nvidia.com/gpu.shared": "0"}, "True", True),
        ({"nvidia.com/gpu": "2", "nvidia.com/gpu.shared": "4"}, "True", False),
    ],
)
def test_a_node_is_done_when_it_offers_these_gpus_and_no_others(
    allocatable: dict[str, str], ready: str, *, done: bool
) -> None:
    node = {
        "status": {
            "allocatable": {"cpu": "2", "memory": "8Gi", **allocatable},
            "conditions": [{"type": "Ready", "status": ready}],
        }
    }
    assert gpus.offers(node, {"nvidia.com/gpu": 2}) is done
