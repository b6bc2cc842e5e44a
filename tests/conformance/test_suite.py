"""No wrong verdict, and no number below the committed one."""

import json

import pytest
from tests.conformance.suite import THRESHOLDS, Result, document, folder, measure, table

pytestmark = pytest.mark.skipif(not folder().is_dir(), reason="the suite's files are not here (VELAGEN_CONFORMANCE)")


@pytest.fixture(scope="module")
def result() -> Result:
    return measure()


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


def test_no_number_falls(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    committed = json.loads(THRESHOLDS.read_text())
    with capsys.disabled():
        print("\n" + table(result))
    if committed["total"] != result.total.total():
        pytest.skip("another selection of the suite than the numbers were taken from")
    for name, right in committed["right"].items():
        version, semantics, place = name.split()
        assert result.score("velagen", version, semantics, place)[0] >= right, name


def test_the_document_tells_the_numbers(result: Result) -> None:
    assert "| **all** |" in document(result)
