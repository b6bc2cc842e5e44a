"""When a run of rollout-model only waits: what it reads, what it says, and what makes it look at all the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from velagen.oracle import VERSIONS, Oracle

pytestmark = [pytest.mark.slow, pytest.mark.seconds(40)]

FILE = Path(__file__).parents[2] / "addon" / "kfserving" / "definitions" / "rollout-model.cue"
WRITTEN = "2026-01-01T00:00:00Z"
CONTEXT = {
    "name": "app",
    "appName": "app",
    "namespace": "team",
    "appRevision": "app-v2",
    "stepName": "rollout",
    "stepSessionID": "abc",
}


def template() -> str:
    """The step's body. Operations may be anything here: their answers are given."""
    text = FILE.read_text(encoding="utf-8")
    imports, body = text.split("\n)\n", 1)
    own = re.findall(r'"vela/(\w+)"', imports)
    body = re.sub(r"(?s)^.*?\ntemplate: \{\n", "", body).rstrip().removesuffix("}")
    body = re.sub(rf"\b({'|'.join(own)})\.(#\w+)", "_operation", body)
    imports = re.sub(r'\s*"vela/\w+"', "", imports)
    return f"{imports}\n)\n{body}\n_operation: {{...}}\n"


def model(*, revision: str = "app-v2", ready: bool = True, **more: Any) -> dict[str, Any]:
    status = {"conditions": [{"type": "Ready", "status": str(ready)}], **more.pop("status", {})}
    return {"metadata": {"labels": {"app.oam.dev/appRevision": revision}}, "status": status, **more}


def route(*weights: int) -> dict[str, Any]:
    return {"spec": {"rules": [{"backendRefs": [{"name": "m", "weight": one} for one in weights]}]}}


class Run:
    """A run of the step, with what it is told by the objects that it reads."""

    def __init__(self, phase: str, *, waited: int = 10, via: str = "route", **data: Any) -> None:
        state = {"version": 1, "phase": phase, "step": 0, "passed": 0, "failed": 0, "asked": 0, "errors": 0}
        self.parameter: dict[str, Any] = {"component": "m", "steps": [20, 60], "interval": 60}
        self.data = {
            "state": json.dumps(state | data.pop("state", {})),
            "settings": json.dumps({"via": via} if via else {}),
            "session": "abc",
            "revision": "app-v2",
            "said": "as before",
            "weight": "20",
            "routed": '["[80,20]"]',
            **data,
        }
        self.now = f"2026-01-01T00:{waited // 60:02}:{waited % 60:02}.123456Z"
        self.route: dict[str, Any] = route(80, 20)
        self.model = model()

    def look(self, oracle: Oracle, text: str) -> tuple[str, str]:
        """What it goes on with once the first objects are read, and what it says."""
        written = [{"manager": "vela-core", "time": WRITTEN}]
        state = {"metadata": {"managedFields": written}, "data": self.data}
        answers = {
            "seen: state": {"value": state},
            "clock: leases": {"values": {"items": [{"spec": {"renewTime": self.now}}]}},
        }
        glance = self._field(oracle, text, answers, "glance") or {}
        found = {"route": {"value": self.route}, "model": {"value": self.model}}
        answers |= {f"glance: {name}": found[name] for name in glance}
        if self._field(oracle, text, answers, "objects") is not None:
            return "objects", ""
        quietly = self._field(oracle, text, answers, "quietly") or {}
        message: str = quietly["$params"]["message"]
        reads = [one["$params"]["value"]["metadata"]["name"] for one in glance.values()]
        return ", ".join(reads), message

    def _field(self, oracle: Oracle, text: str, answers: dict[str, Any], name: str) -> dict[str, Any] | None:
        given = "".join(f"{path}: $returns: {json.dumps(one)}\n" for path, one in answers.items())
        given += f"context: {json.dumps(CONTEXT)}\nparameter: {json.dumps(self.parameter)}\n"
        answer = oracle.eval(text, name, extra=given)
        if answer.error.endswith(f"field not found: {name}"):
            return None
        assert answer.ok, answer.error
        found: dict[str, Any] = answer.result
        return found


def without_via() -> Run:
    return Run("step", via="")


def drifted() -> Run:
    run = Run("step")
    run.route = route(50, 50)
    return run


def of_model(run: Run, found: dict[str, Any], **parameter: Any) -> Run:
    run.model = found
    run.parameter |= parameter
    return run


#: While KServe splits.
SPLIT: dict[str, Any] = {"status": {"components": {"predictor": {"latestRolledoutRevision": "m-00001"}}}}
PERCENT: dict[str, Any] = {"spec": {"predictor": {"canaryTrafficPercent": 20}}}
FAILURE = {"modelStatus": {"lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no\n such   file"}}}
REVISION_READY = SPLIT["status"] | {"conditions": [{"type": "PredictorConfigurationReady", "status": "True"}]}
CASES = {
    "between two checks": (Run("step"), ("m-rollout, m-canary", "as before")),
    "a check comes near": (Run("step", waited=40), ("m-rollout, m-canary", "as before, the next one is due")),
    "a check is due": (Run("step", waited=60), ("objects", "")),
    "a query is under way": (Run("step", state={"asked": 1}), ("objects", "")),
    "queries got no answer": (Run("step", state={"errors": 1}), ("objects", "")),
    "nothing is routed": (Run("step", weight="0"), ("objects", "")),
    "another start of the workflow": (Run("step", session="xyz"), ("objects", "")),
    "another revision": (Run("step", revision="app-v1"), ("objects", "")),
    "the state of an earlier release": (without_via(), ("objects", "")),
    "the step that tidies up": (of_model(Run("step"), model(), tidy=True), ("objects", "")),
    "weights that somebody changed": (drifted(), ("objects", "")),
    "a candidate that is gone": (of_model(Run("step"), {}), ("objects", "")),
    "not ready": (of_model(Run("prepare"), model(ready=False)), ("m-canary", "as before")),
    "not ready for long": (
        of_model(Run("prepare", waited=100), model(ready=False, status=FAILURE)),
        ("m-canary", "as before: ModelLoadFailed: no such file, for 60 s by now"),
    ),
    "not ready in time": (of_model(Run("prepare", waited=100), model(ready=False), deadline=90), ("objects", "")),
    "ready": (Run("prepare"), ("objects", "")),
    "the component gets ready": (of_model(Run("promote"), model(ready=False)), ("m", "as before")),
    "the component is of before": (of_model(Run("deploy"), model(revision="app-v1")), ("objects", "")),
    "warming up": (Run("warm"), ("objects", "")),
    "KServe splits": (
        of_model(Run("step", via="kserve", routed="20", pinned="m-00001"), model(**SPLIT, **PERCENT)),
        ("m", "as before"),
    ),
    "KServe splits in another way": (
        of_model(Run("step", via="kserve", routed="50", pinned="m-00001"), model(**SPLIT, **PERCENT)),
        ("objects", ""),
    ),
    "KServe pins another version": (
        of_model(Run("step", via="kserve", routed="20", pinned="m-00002"), model(**SPLIT, **PERCENT)),
        ("objects", ""),
    ),
    "a revision is ready and its route is not": (
        of_model(Run("prepare", via="kserve", pinned="m-00001"), {**model(ready=False), "status": REVISION_READY}),
        ("objects", ""),
    ),
    "KServe deploys": (of_model(Run("deploy", via="kserve"), model(ready=False)), ("objects", "")),
}


@pytest.fixture(scope="module")
def text() -> str:
    return template()


@pytest.fixture(scope="module", params=VERSIONS)
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with Oracle(request.param, seconds=60) as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_a_run_reads_and_says_no_more_than_it_must(oracle: Oracle, text: str, name: str) -> None:
    run, expected = CASES[name]
    assert run.look(oracle, text) == expected
