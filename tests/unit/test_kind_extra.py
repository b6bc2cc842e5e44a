"""Layers that a kind lab has only for who asks: what brings each, and that nobody else waits for its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests import budget

from velagen.cli import main
from velagen.errors import VelagenError
from velagen.lab.images import recipes
from velagen.lab.kind import LAYERS, KindLab, KindOptions, keda, knative, metrics_server, stack
from velagen.lab.kind.options import EXTRA, layers_with
from velagen.tools import table, wanted

#: The recipes of each one's images.
IMAGES = {
    "keda": list(keda.IMAGES.values()),
    "metrics-server": [metrics_server.IMAGE],
    "knative": [*knative.IMAGES.values(), knative.PROXY],
}
#: What a run that would have to build them says of each.
LEFT_OUT = {
    "keda": r"left out: keda-operator 2.* and keda-adapter .* 18 minutes",
    "metrics-server": r"left out: metrics-server 0\.9\.0 would have to be built first",
    "knative": r"left out: knative-controller 0.* would have to be built first",
}


def tools_of(layer: str) -> list[str]:
    """What would have to be built for its images."""
    return [str(part.tool) for name in IMAGES[layer] for part in recipes()[name].parts if part.tool]


def test_where_they_stand(tmp_path: Path) -> None:
    assert set(IMAGES) == set(EXTRA)
    assert not set(EXTRA) & set(KindOptions().layers)
    layers = layers_with(*EXTRA)
    assert [name for name in layers if name not in EXTRA] == list(LAYERS)
    places = [layers.index(name) for name in EXTRA]
    assert layers.index("prometheus") < min(places) < max(places) < layers.index("addon")
    with pytest.raises(VelagenError, match=r"keda.*metrics-server.*knative"):
        stack.install(KindLab("x", folder=tmp_path), ["nonesuch"], None)


@pytest.mark.parametrize("asked", [(), *((name,) for name in EXTRA), EXTRA], ids=" ".join)
def test_only_who_asks_gets_it(asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[KindOptions] = []
    monkeypatch.setattr(KindLab, "up", lambda lab: built.append(lab.options))
    monkeypatch.setattr(KindLab, "ports", lambda lab: {})
    up = ["lab", "up", "--dir", str(tmp_path / "lab"), *(f"--{name}" for name in asked)]
    CliRunner().invoke(main, [*up, "--kind"])
    assert [options.layers for options in built] == [layers_with(*asked)]
    if asked:
        said = CliRunner().invoke(main, up)
        assert said.exit_code != 0
        assert f"--{asked[0]} is for kind clusters" in said.output
        assert "Add --kind" in said.output


def test_tools_install_brings_none_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[tuple[str, str | None]] = []

    def install(asked: list[tuple[str, str | None]]) -> list[Path]:
        brought.extend(asked)
        return []

    monkeypatch.setattr("velagen.tools.install", install)
    assert CliRunner().invoke(main, ["tools", "install", "--kind"]).exit_code == 0
    names = {name for name, _ in brought}
    assert {"prometheus", "kind", "vela"} <= names
    assert not names & {wanted(tool)[0] for layer in EXTRA for tool in tools_of(layer)}


@pytest.mark.parametrize("layer", EXTRA)
def test_a_run_with_a_bound_on_its_time_never_builds_it(
    layer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    images = IMAGES[layer]
    assert not set(images) & set(budget.of_every_cluster())
    assert {"prometheus", "node", "tritonserver"} <= set(budget.of_every_cluster())
    monkeypatch.delenv(budget.UNTIL, raising=False)
    budget.leave_out_if_unbuilt(images)
    monkeypatch.setenv(budget.UNTIL, "1e12")
    rows = [table().row(*wanted(tool)) for tool in tools_of(layer)]
    named = " and ".join(map(str, rows))
    with pytest.raises(pytest.skip.Exception, match=LEFT_OUT[layer]) as left_out:
        budget.leave_out_if_unbuilt(images)
    minutes = sum(row.build.minutes for row in rows if row.build)
    assert str(left_out.value) == f"left out: {named} would have to be built first, {minutes:.0f} minutes"
    for row in rows:
        place = tmp_path / "tools" / row.name / row.version / row.name
        place.parent.mkdir(parents=True)
        place.touch(mode=0o755)
    budget.leave_out_if_unbuilt(images)
