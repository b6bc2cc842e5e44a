"""``velagen check`` says what a step refuses, in the words in which the step fails on a cluster."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from velagen.check.steps import _offline, check_steps
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog
from velagen.documents import read_documents
from velagen.kubevela import RELEASES, VERSIONS
from velagen.oracle import Oracle
from velagen.project import Project

ROOT = Path(__file__).parents[2]
HOSTS = {"hosts": ["m.example.com"]}


@cache
def catalog() -> Catalog:
    return Catalog.of(one.known() for one in build_definitions(Project(ROOT)))


def said(
    tmp_path: Path, settings: dict[str, Any], component: dict[str, Any], kubevela: str, *others: dict[str, Any]
) -> list[str]:
    properties = {"component": "m", "route": HOSTS, **settings}
    file = tmp_path / "app.yaml"
    application = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "a"},
        "spec": {
            "components": [
                {"name": "m", "type": "kfserving", "properties": {"runtime": "sklearn"}, **component},
                {
                    "name": "n",
                    "type": "kfserving",
                    "properties": {"runtime": "sklearn"},
                    "traits": [{"type": "canary", "properties": {"weight": 1, "route": {"hosts": ["n.example.com"]}}}],
                },
            ],
            "workflow": {
                "steps": [
                    {"name": "rollout", "type": "rollout-model", "properties": properties},
                    {"name": "wait", "type": "suspend"},
                    *others,
                ]
            },
        },
    }
    file.write_text(json.dumps(application))
    (document,) = read_documents(file)
    problems = check_steps(document, catalog(), kubevela)
    mine = [one for one in problems if one.place.pointer == "/spec/workflow/steps/0/properties"]
    assert others or mine == problems
    return [one.message for one in mine]


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    ("settings", "component", "words"),
    [
        ({"component": "other"}, {}, "the application has no component other"),
        ({}, {"type": "webservice"}, "works on a component of type kfserving, and m is of type webservice"),
        ({"steps": [20, 10]}, {}, "steps must rise, and 10 does not"),
        ({"steps": [10, 10]}, {}, "steps must rise, and 10 does not"),
        ({"steps": [0, 50]}, {}, "steps begins with 0, where nobody's requests reach the new version"),
        ({"steps": [10, 50], "pauseAt": [20]}, {}, "pauseAt holds 20, which is not in steps"),
        ({"route": {"hosts": ["a.example.com", "n.example.com"]}}, {}, "route.hosts holds n.example.com, and so does"),
        ({"route": {"provider": "istio", "gateway": {"name": "g", "namespace": "n"}}}, {}, "at a gateway clients call"),
        ({"route": {"hosts": ["m.default.svc"]}}, {}, "m.default.svc, a Service's name inside the cluster"),
        ({"deadline": 60, "interval": 30, "checks": 3}, {}, "the 3 checks of a step take 90 s"),
        ({"analysis": {"queries": [{"name": "q", "query": "up"}]}}, {}, "the query q of analysis has no bound"),
        ({"analysis": {"successRatio": 0, "latency": {"timesStable": 0}}}, {}, "analysis looks at nothing"),
        (
            {"analysis": {"webhooks": [{"name": "a", "url": "http://a.b/1"}, {"name": "a", "url": "http://a.b/2"}]}},
            {},
            "analysis.webhooks has two of one name (a, a)",
        ),
        # An alert that nobody wrote never rings.
        (
            {"analysis": {"successRatio": 0, "latency": {"timesStable": 0}, "alerts": [{"name": "A"}]}},
            {},
            "analysis looks at nothing",
        ),
        ({"analysis": {"budgetLeft": 0.1}}, {}, "budgetLeft needs an error budget: give m the trait slo"),
        ({}, {"traits": [{"type": "canary", "properties": {"weight": 1}}]}, "m has the trait canary"),
        (
            {},
            {"properties": {"deploymentMode": "knative"}},
            "Knative's own route splits the requests, by their share alone",
        ),
        ({}, {"properties": {"stopped": True}}, "m is stopped, and a version that runs nowhere can't be measured"),
    ],
)
def test_a_refusal_is_told(
    tmp_path: Path, settings: dict[str, Any], component: dict[str, Any], words: str, kubevela: str
) -> None:
    (message,) = said(tmp_path, settings, component, kubevela)
    assert words in message


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tidy": True, "route": {}},
        {"route": {"provider": "istio"}},
        {"route": {}},  # the host is the one that KServe gives the model
        {"steps": [1, 100]},
        {
            "analysis": {
                "successRatio": 0,
                "latency": {"timesStable": 0},
                "webhooks": [{"name": "a", "url": "http://a.b/1"}],
            }
        },
        {"steps": [0, 100], "pauseAt": [0]},
        {"steps": [10, 100], "pauseAt": [0, 100], "shadow": {}},
        {"route": {"match": {"cookie": {"name": "t", "value": "1"}}, "affinity": {}}},
    ],
)
def test_what_is_right_is_not_refused(tmp_path: Path, settings: dict[str, Any], kubevela: str) -> None:
    assert said(tmp_path, settings, {}, kubevela) == []


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"component": "m", "route": {"hosts": ["o.example.com"]}},
            "rolls out m too, and a component has one new version at a time",
        ),
        ({"component": "n", "route": HOSTS}, "route.hosts holds m.example.com, and so does another component's"),
        ({"component": "n", "route": {"hosts": ["o.example.com"]}}, ""),
        ({"component": "m", "tidy": True}, ""),
    ],
)
@pytest.mark.parametrize("in_group", [False, True])
def test_two_rollouts_of_an_application(
    tmp_path: Path, other: dict[str, Any], words: str, in_group: bool, kubevela: str
) -> None:
    step: dict[str, Any] = {"name": "other", "type": "rollout-model", "properties": other}
    if in_group:
        step = {"name": "group", "type": "step-group", "subSteps": [step]}
    messages = said(tmp_path, {}, {}, kubevela, step)
    assert [words in one for one in messages] == ([True] if words else [])


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize(
    ("properties", "has_name"),
    [
        ({"runtime": "triton"}, False),
        ({"runtime": "onnx", "modelUri": "s3://m/2"}, False),
        ({"runtime": "triton", "modelName": "bert"}, True),
        ({"runtime": "triton", "transformer": {"image": "registry.example.com/text:1"}}, True),
        ({"runtime": "sklearn"}, True),
        ({"image": "registry.example.com/scorer:3"}, True),
    ],
)
def test_a_candidate_is_asked_by_a_name_where_the_component_is(
    properties: dict[str, Any], has_name: bool, kubevela: str
) -> None:
    known = catalog().find("workflow-step", "rollout-model")
    assert known is not None
    text = _offline(known.cue or "")
    assert text is not None
    text = re.sub(r"^(\t+)(_#hasName: )", r"\1out: _#hasName\n\1\2", text, count=1, flags=re.MULTILINE)
    given = {
        "parameter": {"component": "m", "route": HOSTS},
        "_components": {"m": {"name": "m", "type": "kfserving", "properties": properties}},
        "_application": {},
        "context": {
            "name": "app",
            "appName": "app",
            "namespace": "default",
            "appRevision": "app-v1",
            "stepName": "r",
            "stepSessionID": "none",
        },
    }
    extra = "\n".join(f"{name}: {json.dumps(value)}" for name, value in given.items())
    version = next(one.cue for one in RELEASES if one.version == kubevela)
    with Oracle(version) as oracle:
        answer = oracle.eval(text, "out", extra=f"\n{extra}")
    assert answer.ok, answer.error
    assert answer.result is has_name
