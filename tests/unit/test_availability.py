"""The trait availability: a budget for each part, with the pods that KServe labels, and none that holds a drain."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.test_definitions import outcome_of, render, trait

SKLEARN = {"runtime": "sklearn", "modelUri": "s3://models/churn/7", "minReplicas": 3}
TEXT = {"image": "registry.example.com/text:1", "minReplicas": 2}
CANARY = trait("canary", modelUri="s3://models/churn/8", weight=10, route={"hosts": ["churn.example.com"]})


def budgets(properties: dict[str, Any], *traits: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The budgets' specs, by name."""
    found = render(properties, *traits)
    return {one["metadata"]["name"]: one["spec"] for one in found.values() if one["kind"] == "PodDisruptionBudget"}


def test_each_part_has_a_budget_over_its_own_pods() -> None:
    found = budgets({**SKLEARN, "transformer": TEXT, "explainer": TEXT}, trait("availability", minAvailable=1))
    assert found == {
        f"m-{part}": {
            "minAvailable": 1,
            "selector": {"matchLabels": {"app": f"isvc.m-{part}"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }
        for part in ("predictor", "transformer", "explainer")
    }


@pytest.mark.parametrize("one", [{"maxUnavailable": "100%"}, {"maxUnavailable": 1}, {"minAvailable": "66%"}])
def test_a_number_or_per_cent_goes_as_it_is(one: dict[str, Any]) -> None:
    found = budgets(SKLEARN, trait("availability", **one))["m-predictor"]
    assert one.items() <= found.items()
    assert len(found) == 3


def test_the_new_version_of_a_canary_has_its_own() -> None:
    found = budgets(SKLEARN, CANARY, trait("availability", maxUnavailable=1))
    assert found["m-canary-predictor"]["selector"] == {"matchLabels": {"app": "isvc.m-canary-predictor"}}
    assert set(found) == {"m-predictor", "m-canary-predictor"}
    said = outcome_of(SKLEARN, CANARY, trait("availability", minAvailable=1)).raw[0]
    assert "all that m-canary-predictor has at its fewest (minReplicas: 1)" in said


def test_each_candidate_of_a_canary_has_its_own() -> None:
    several = trait(
        "canary",
        candidates=[
            {"name": "b", "modelUri": "s3://models/churn/8", "weight": 10},
            {"name": "c", "modelUri": "s3://models/churn/9", "weight": 10, "minReplicas": 2},
        ],
        route={"hosts": ["churn.example.com"]},
    )
    found = budgets(SKLEARN, several, trait("availability", maxUnavailable=1))
    names = {"m-predictor", "m-canary-b-predictor", "m-canary-c-predictor"}
    assert {name: one["selector"]["matchLabels"]["app"] for name, one in found.items()} == {
        name: f"isvc.{name}" for name in names
    }
    said = outcome_of(SKLEARN, several, trait("availability", minAvailable=1)).raw[0]
    assert "all that m-canary-b-predictor has at its fewest (minReplicas: 1)" in said


def test_a_version_that_kserve_routes_has_its_own() -> None:
    by_kserve = trait("canary", modelUri="s3://models/churn/8", weight=10, route={"provider": "kserve"})
    found = budgets(SKLEARN, by_kserve, trait("availability", maxUnavailable=1))
    assert found["m-canary-predictor"]["selector"] == {"matchLabels": {"app": "isvc.m-canary-predictor"}}
    assert set(found) == {"m-predictor", "m-canary-predictor"}


def test_a_scaler_says_how_few_there_may_be() -> None:
    scaler = {"metric": "cpu", "maxReplicas": 5, "policy": "target", "target": 70}
    fixed = {key: value for key, value in SKLEARN.items() if key != "minReplicas"}
    for engine in ("keda", "hpa"):
        asked = trait("autoscale", engine=engine, minReplicas=2, **scaler)
        assert "m-predictor" in budgets(fixed, asked, trait("availability", minAvailable=1))
        said = outcome_of(fixed, asked, trait("availability", minAvailable=2)).raw[0]
        assert "at its fewest (minReplicas: 2)" in said
