"""The documents keep their word: what they tell a reader to write builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import velagen
from velagen.definition import reference
from velagen.definition.build import build_definitions
from velagen.errors import VelagenError
from velagen.project import Project

ROOT = Path(__file__).parents[2]


def files_of(document: str) -> dict[str, str]:
    """The files a document shows: a fenced block whose introducing line starts with the file's name in backticks."""
    found = re.findall(r"^`([\w./-]+)`:[^\n]*\n(?:[^`\n][^\n]*\n)*\n?```\w*\n(.*?)^```", document, re.M | re.S)
    return dict(found)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    for name, text in files_of((ROOT / "docs/extend.md").read_text(encoding="utf-8")).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_guide_builds(guide: Path) -> None:
    (quota,) = build_definitions(Project.find(guide))
    assert quota.type == "trait"
    assert re.search(r'kind: +"ResourceQuota"', quota.cue)
    assert "if parameter.gpus != _|_ {" in quota.cue


def test_the_guides_mistakes_are_found_at_their_line(guide: Path) -> None:
    path = guide / "definitions/quota.py"
    text = path.read_text(encoding="utf-8").replace('"hard"', '"hrd"').replace("p.cpu}", "p.cpus}")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(VelagenError) as caught:
        build_definitions(Project.find(guide))
    messages = [str(problem) for problem in caught.value.problems]
    line, column = next(
        (number, content.index("p.cpus") + 1)
        for number, content in enumerate(text.splitlines(), 1)
        if "p.cpus" in content
    )
    assert any("outputs.quota.spec.hrd: there is no such field; did you mean 'hard'?" in one for one in messages)
    assert any(f"quota.py:{line}:{column}: parameter has no 'cpus'; did you mean 'cpu'?" in one for one in messages)


def test_each_word_of_the_language_is_documented() -> None:
    text = (ROOT / "docs/templates.md").read_text(encoding="utf-8")
    # Types for annotations.
    beside = {"Expression", "Reference", "Refusal", "Value"}
    assert [word for word in velagen.__all__ if word not in beside and not re.search(rf"\b{word}\b", text)] == []


def test_the_reference_is_what_the_code_says() -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert text == reference.page(), "write it anew: python -m velagen.definition.reference"
    # Nobody has to guess what an argument is.
    assert not re.search(r"\|  \|$", text, re.M)


def test_the_readme_shows_the_example_that_the_demo_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", readme, re.M | re.S)
    assert shown == (ROOT / "examples/sentiment.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []
