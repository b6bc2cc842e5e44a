"""Every application in tests/bad-input is refused by ``velagen check`` and by KubeVela, in the sentence it names.

The first line of a file says what must be said; ``# up says:`` what KubeVela must say where that differs.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from velagen.check.apps import check_application
from velagen.check.dryrun import Outcome, dry_run
from velagen.check.steps import check_steps
from velagen.definition.build import BuiltDefinition, build_definitions
from velagen.definition.catalog import Catalog, of_kubevela
from velagen.documents import Document, read_documents
from velagen.kubevela import VERSIONS
from velagen.project import Project

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "bad-input").glob("*.yaml"))


#: Every case on every release.
on_each = pytest.mark.parametrize("kubevela", VERSIONS)


@cache
def definitions() -> tuple[BuiltDefinition, ...]:
    return build_definitions(Project(ROOT))


@cache
def catalog(kubevela: str) -> Catalog:
    return Catalog.of([*of_kubevela(kubevela), *(one.known() for one in definitions())])


@cache
def rendered(case: Path, kubevela: str) -> tuple[Document, Outcome]:
    (document,) = read_documents(case)
    return document, dry_run(document, catalog(kubevela), kubevela=kubevela)


def wanted(case: Path) -> tuple[str, str, bool]:
    """What velagen check must say, what KubeVela must say, and whether KubeVela can see it at all."""
    text = case.read_text()
    says = re.search(r"^# says: (.+)$", text, re.MULTILINE)
    assert says is not None, f"{case.name} does not say what must be said"
    up = re.search(r"^# up says: (.+)$", text, re.MULTILINE)
    return says[1], (up or says)[1], "# seen by velagen check only" not in text


@on_each
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_velagen_check_refuses_it(case: Path, kubevela: str) -> None:
    says, _, _ = wanted(case)
    document, outcome = rendered(case, kubevela)
    problems = [*check_application(document, catalog(kubevela)), *outcome.problems]
    problems += check_steps(document, catalog(kubevela), kubevela)
    found = [problem for problem in problems if says in f"{problem.message} {problem.hint}"]
    assert found, f"said instead: {[problem.message for problem in problems]}"
    assert found[0].severity == "error"
    assert found[0].place.line is not None, "the error has a line in the file"


@on_each
@pytest.mark.parametrize("case", [case for case in CASES if wanted(case)[2]], ids=lambda path: path.stem)
def test_kubevela_refuses_it(case: Path, kubevela: str) -> None:
    """``vela up`` renders as ``vela dry-run`` does; what it refuses is never created."""
    _, says, _ = wanted(case)
    _, outcome = rendered(case, kubevela)
    assert outcome.raw, "KubeVela renders it"
    # KubeVela shows the first of CUE's errors only, so the sentence must be in that one.
    assert says in outcome.raw[0]


@on_each
def test_one_mistake_is_one_sentence_rendered_or_not(kubevela: str) -> None:
    """minReplicas: 0 where the mode is the default: the rule reads what was not written."""
    document, outcome = rendered(ROOT / "tests/bad-input/scale-to-zero-in-standard.yaml", kubevela)
    (said,) = check_application(document, catalog(kubevela))
    (up,) = outcome.problems
    assert (said.message, said.severity) == (up.message, "error")
    assert said.message.startswith("minReplicas: 0 (scale to zero) needs deploymentMode: knative;")
