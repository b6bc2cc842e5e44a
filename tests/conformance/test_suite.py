"""No wrong verdict, and the numbers of docs/conformance.md as they are told there."""

import json

import pytest
from tests.conformance.suite import COMMITTED, DOCUMENT, THRESHOLDS, Result, document, folder, measure, table

pytestmark = pytest.mark.seconds(20)

committed_only = pytest.mark.skipif(
    folder().parent != COMMITTED, reason="VELAGEN_CONFORMANCE names another selection than the numbers are about"
)


@pytest.fixture(scope="module")
def result() -> Result:
    measured = measure()
    assert measured.total, f"{folder()} holds no tests"
    return measured


def test_no_verdict_on_an_accepted_schema_is_wrong(result: Result) -> None:
    assert result.wrong == []


def test_kubevela_converts_every_accepted_schema(result: Result) -> None:
    assert result.openapi == []


@pytest.mark.parametrize("version", ["0.9.2", "0.14.1"])
@pytest.mark.parametrize(("semantics", "share"), [("vet", 0.96), ("render", 0.92)])
def test_share(result: Result, version: str, semantics: str, share: float) -> None:
    right, total = result.score("velagen", version, semantics)
    assert right / total >= share


@pytest.mark.parametrize("version", ["0.9.2", "0.14.1"])
def test_better_than_the_importer(result: Result, version: str) -> None:
    assert result.score("velagen", version, "vet")[0] > result.score("importer", version, "vet")[0]


@committed_only
def test_no_number_falls(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    committed = json.loads(THRESHOLDS.read_text())
    with capsys.disabled():
        print("\n" + table(result))
    assert result.total.total() == committed["total"]
    for name, right in committed["right"].items():
        version, semantics, place = name.split()
        assert result.score("velagen", version, semantics, place)[0] >= right, name


@committed_only
def test_the_document_tells_the_numbers(result: Result) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(result), "run python -m tests.conformance.suite"


def test_the_suite_comes_with_its_licence() -> None:
    licence = (COMMITTED / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2012 Julian Berman" in licence
    assert "The above copyright notice and this permission notice shall be included" in licence
