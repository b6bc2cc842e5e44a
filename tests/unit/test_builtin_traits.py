"""KubeVela's own traits on a kfserving component: each is named by ``velagen check``, most are stopped at render."""

from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builtin_traits import TRAITS

from velagen.check.apps import check_application
from velagen.check.dryrun import offline_environment
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog, of_kubevela
from velagen.documents import parse_documents
from velagen.project import Project
from velagen.tools import in_cache, on_path, source, table, tool

ROOT = Path(__file__).parents[2]
_NEXT = table().row("vela", "1.11.0")
#: What the addon is for, and what comes after it, which may have to be built first.
VERSIONS = (
    "1.10.9",
    pytest.param(
        _NEXT.version, marks=[pytest.mark.slow, pytest.mark.seconds(5 if in_cache(_NEXT) or on_path(_NEXT) else 600)]
    ),
)
SENTENCE = "this trait writes spec.template, the pods of a Deployment, and a model has none"


@cache
def catalog() -> Catalog:
    return Catalog.of([*of_kubevela(), *(one.known() for one in build_definitions(Project(ROOT)))])


def application(*traits: str) -> dict[str, Any]:
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {
            "components": [
                {
                    "name": "m",
                    "type": "kfserving",
                    "properties": {"runtime": "triton", "modelUri": "s3://models/a/1"},
                    "traits": [{"type": trait, "properties": TRAITS[trait][0]} for trait in traits],
                }
            ]
        },
    }


def definition(name: str) -> tuple[str, str]:
    """A trait of KubeVela as a file of its name and text: its CUE, or, for a deprecated one, the chart's YAML."""
    known = catalog().find("trait", name)
    assert known is not None
    if known.cue is not None:
        return f"{name}.cue", known.cue
    text = (source("kubevela") / "charts/vela-core/templates/defwithtemplate" / f"{name}.yaml").read_text()
    return f"{name}.yaml", text.replace('{{ include "systemDefinitionNamespace" . }}', "vela-system")


def rendered(version: str, *traits: str) -> subprocess.CompletedProcess[str]:
    """``vela dry-run`` of an application with traits, by one version of KubeVela."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        definitions = folder / "definitions"
        definitions.mkdir()
        own = catalog().find("component", "kfserving")
        assert own is not None
        assert own.cue is not None
        for file, text in [("kfserving.cue", own.cue), *(definition(trait) for trait in traits)]:
            (definitions / file).write_text(text)
        (folder / "app.yaml").write_text(yaml.safe_dump(application(*traits)))
        return subprocess.run(
            [
                *(str(tool("vela", version)), "dry-run", "--offline"),
                *("-d", str(definitions), "-f", str(folder / "app.yaml")),
            ],
            env=offline_environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_every_trait_of_kubevela_is_known_here() -> None:
    own = {"accelerator", "autoscale", "availability", "canary", "gpu-share", "slo"}
    assert set(catalog().names("trait")) - own == set(TRAITS)


@pytest.mark.parametrize("trait", TRAITS)
def test_velagen_check_says_what_to_write_instead(trait: str) -> None:
    (document,) = parse_documents(yaml.safe_dump(application(trait)), "app.yaml")
    problems = check_application(document, catalog())
    if TRAITS[trait][1] == "works":
        assert problems == []
        return
    (problem,) = problems
    assert problem.message == f"the trait {trait} is not for a kfserving"
    assert problem.severity == "error"
    assert problem.place.line is not None
    assert re.search(r"write|drop|KServe", problem.hint)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("trait", TRAITS)
def test_what_can_be_stopped_is_stopped_at_render(trait: str, version: str) -> None:
    done = rendered(version, trait)
    end = TRAITS[trait][1]
    said = done.stdout + done.stderr
    if end != "fails":
        # Some of these meet the sentence first, which depends on the version.
        assert (SENTENCE in said) == (end == "refused"), said
    assert (done.returncode != 0) == (end in {"refused", "fails"}), said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_trait_of_ours_before_it_does_not_let_it_through(version: str) -> None:
    done = rendered(version, "affinity", "sidecar")
    assert SENTENCE in done.stdout + done.stderr


def test_the_docs_tell_each_trait_and_its_end() -> None:
    text = (ROOT / "docs" / "builtin-traits.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\w+) \|", text, re.MULTILINE))
    assert rows == {trait: end for trait, (_, end) in TRAITS.items()}
