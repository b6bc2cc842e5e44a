"""``velagen check`` says what a step refuses, in the words in which the step fails on a cluster."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from velagen.check.catalog import Catalog, of_project
from velagen.check.steps import check_steps
from velagen.definition.build import build_definitions
from velagen.documents import read_documents
from velagen.kubevela import VERSIONS
from velagen.project import Project

ROOT = Path(__file__).parents[2]
HOSTS = {"hosts": ["m.example.com"]}


@cache
def catalog() -> Catalog:
    return Catalog.of(of_project(build_definitions(Project(ROOT))))


def said(tmp_path: Path, settings: dict[str, Any], component: dict[str, Any], kubevela: str) -> list[str]:
    properties = {"component": "m", "route": HOSTS, **settings}
    file = tmp_path / "app.yaml"
    application = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "a"},
        "spec": {
            "components": [{"name": "m", "type": "kfserving", "properties": {"runtime": "sklearn"}, **component}],
            "workflow": {
                "steps": [
                    {"name": "rollout", "type": "rollout-model", "properties": properties},
                    {"name": "wait", "type": "suspend"},
                ]
            },
        },
    }
    file.write_text(json.dumps(application))
    (document,) = read_documents(file)
    problems = check_steps(document, catalog(), kubevela)
    assert all(one.place.pointer == "/spec/workflow/steps/0/properties" for one in problems)
    return [one.message for one in problems]


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    ("settings", "component", "words"),
    [
        ({"component": "other"}, {}, "the application has no component other"),
        ({}, {"type": "webservice"}, "works on a component of type kfserving, and m is of type webservice"),
        ({"steps": [20, 10]}, {}, "steps must rise, and 10 does not"),
        ({"steps": [10, 10]}, {}, "steps must rise, and 10 does not"),
        ({"route": {}}, {}, "route.hosts is missing: a Gateway API route"),
        ({"route": {"provider": "istio", "gateway": {"name": "g", "namespace": "n"}}}, {}, "at a gateway clients call"),
        ({"route": {"hosts": ["m.default.svc"]}}, {}, "m.default.svc, a Service's name inside the cluster"),
        ({"deadline": 60, "interval": 30, "checks": 3}, {}, "the 3 checks of a step take 90 s"),
        ({"analysis": {"queries": [{"name": "q", "query": "up"}]}}, {}, "the query q of analysis has no bound"),
        ({"analysis": {"successRatio": 0, "latency": {"timesStable": 0}}}, {}, "analysis looks at nothing"),
        ({}, {"traits": [{"type": "canary", "properties": {"weight": 1}}]}, "m has the trait canary"),
        ({}, {"properties": {"deploymentMode": "knative"}}, "rollout-model works in standard mode"),
    ],
)
def test_a_refusal_is_told(
    tmp_path: Path, settings: dict[str, Any], component: dict[str, Any], words: str, kubevela: str
) -> None:
    (message,) = said(tmp_path, settings, component, kubevela)
    assert words in message


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    "settings", [{}, {"tidy": True, "route": {}}, {"route": {"provider": "istio"}}, {"steps": [1, 100]}]
)
def test_what_is_right_is_not_refused(tmp_path: Path, settings: dict[str, Any], kubevela: str) -> None:
    assert said(tmp_path, settings, {}, kubevela) == []
