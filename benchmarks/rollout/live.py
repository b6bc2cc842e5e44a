"""Rollouts with real pods and requests: versions of a model that are good or bad in a way, and one application."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from benchmarks.kind import ISVC, SMALL, Client, put_model, python_server, triton_config, wait_for

from velagen.lab.kind import KindLab

MODEL: Final = "which"
PATH: Final = f"/v2/models/{MODEL}/infer"
BODY: Final = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}
#: What a version does at a request before it answers with its number.
FAULTS: Final[Mapping[str, str]] = {
    "good": "",
    "error": "raise RuntimeError('this version is broken')",
    "slow": "time.sleep(1)",
    # The server ends, as by a fault in native code; Kubernetes starts it again, and it ends again.
    "crash": "os.kill(1, signal.SIGTERM); time.sleep(0.2)",
    # It bears the requests of the first step, one a second, and not those of the next.
    "overload": "self.at = [*self.at[-15:], time.time()]\n"
    "        if len(self.at) > 15 and self.at[-1] - self.at[0] < 5: raise RuntimeError('too many at once')",
    # At its start.
    "load": "",
    # All is well but the answer.
    "wrong": "wrong = 11",
    # In its properties.
    "vanish": "",
}
_PROGRAM: Final = """
import os, signal, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.at = []
        {start}

    def execute(self, requests):
        wrong = 0
        {fault}
        found = pb_utils.Tensor("Y", np.full((1, 1), {version} + wrong, np.float32))
        return [pb_utils.InferenceResponse([found]) for _ in requests]
"""
#: Quick enough for a test. Latency is compared where a test is about it: two cores that do other things too make a
#: good version slow for a while.
QUICK: Final[dict[str, Any]] = {
    "steps": [10, 50],
    "interval": 10,
    "checks": 1,
    "failureLimit": 2,
    "settle": 5,
    "deadline": 240,
    "analysis": {"minimumRequests": 20, "latency": {"timesStable": 0}},
}


#: By fault, what the step has beside QUICK.
SETTINGS: Final[Mapping[str, dict[str, Any]]] = {
    "slow": {
        # A bound of its own: on two busy cores the other version may be as slow for a while.
        "analysis": {"minimumRequests": 20, "latency": {"percentile": "p95", "milliseconds": 700, "timesStable": 0}}
    },
    "load": {"deadline": 60},
    # No metric knows: a server of the user's own does.
    "wrong": {
        "analysis": {
            **QUICK["analysis"],
            "webhooks": [{"name": "golden-answers", "url": "http://judge.SPACE.svc:8080", "data": {"answer": "2"}}],
        }
    },
    # It is not scraped any more: no verdict is no pass.
    "vanish": {"onInconclusive": "rollback", "inconclusiveLimit": 4},
}
#: By fault, properties that the new version has beside its own model.
CHANGES: Final[Mapping[str, dict[str, Any]]] = {"vanish": {"scrape": False}}
#: Asks a candidate for answers that are known, and says whether they are right.
_JUDGE: Final = f"""
import http.server, json, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = f"http://{{told['candidate']}}-predictor.{{told['namespace']}}.svc{PATH}"
        answers = []
        for _ in range(5):
            with urllib.request.urlopen(urllib.request.Request(url, json.dumps({BODY}).encode()), timeout=3) as answer:
                answers.append(json.load(answer)["outputs"][0]["data"][0])
        wrong = sum(one != float(told["data"]["answer"]) for one in answers)
        said = {{"verdict": "fail", "reason": f"{{wrong}} of 5 answers differ"}} if wrong else {{"verdict": "pass"}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def settings_for(fault: str, space: str) -> dict[str, Any]:
    """What the step has beside QUICK where a version with this fault is to be found out."""
    found: dict[str, Any] = json.loads(json.dumps(SETTINGS.get(fault, {})).replace("SPACE", space))
    return found


def put_judge(lab: KindLab, space: str) -> None:
    """The server that the settings for wrong answers ask; the image object-store has to be loaded."""
    lab.api.apply_all(python_server("judge", _JUDGE, space, 8080))


#: Selects its pods.
VELA_CORE: Final = "app.kubernetes.io/name=vela-core"


def kill_vela_core(lab: KindLab) -> None:
    """Its pod ends without a word, as by a node that fails; another takes its place."""
    (pod,) = lab.api.list("v1", "Pod", "vela-system", selector=VELA_CORE)
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "-n", "vela-system", "--grace-period=0", "--force")


def put_version(lab: KindLab, space: str, version: int, fault: str = "good") -> str:
    """A version that answers with its number, but for its fault; gives its address."""
    start = "raise RuntimeError('this version does not load')" if fault == "load" else "pass"
    program = _PROGRAM.format(version=version, fault=FAULTS[fault] or "pass", start=start)
    config = triton_config(MODEL, "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]")
    return put_model(
        lab,
        f"rollouts/{space}/{version}-{fault}",
        {f"{MODEL}/config.pbtxt": config, f"{MODEL}/1/model.py": program},
    )


@dataclass
class Rollout:
    """An application with the step on a kind lab, as its user and its clients see it."""

    lab: KindLab
    space: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """What clients call."""
        return f"{self.name}-{self.space}.example.org"

    @property
    def client(self) -> Client:
        """One of them."""
        client = Client(self.lab, self.space, self.name)
        client.host = self.host
        return client

    @property
    def step(self) -> dict[str, Any]:
        """What is written of the step."""
        return {"component": self.name, "route": {"hosts": [self.host]}, **QUICK, **self.settings}

    def up(self, uri: str, *, plain: bool = False, traits: Sequence[Mapping[str, Any]] = (), **more: Any) -> None:
        """Deploy a version, with more properties of its own; *plain* as `vela up` does without the step."""
        common = {"runtime": "triton", "modelName": MODEL, "minReplicas": 1, "resources": SMALL}
        properties = {**common, "modelUri": uri, **more}
        steps = [
            {"name": "rollout", "type": "rollout-model", "properties": self.step},
            {
                "name": "tidy",
                "type": "rollout-model",
                "if": "always",
                "properties": {"component": self.name, "tidy": True},
            },
        ]
        component = {"name": self.name, "type": "kfserving", "properties": properties, "traits": list(traits)}
        self.lab.api.apply(
            {
                "apiVersion": "core.oam.dev/v1beta1",
                "kind": "Application",
                "metadata": {"name": self.name, "namespace": self.space},
                "spec": {"components": [component], **({} if plain else {"workflow": {"steps": steps}})},
            }
        )

    @property
    def data(self) -> dict[str, str]:
        """The state's ConfigMap."""
        found = self.lab.api.get("v1", "ConfigMap", f"{self.name}-rollout", self.space) or {}
        return dict(found.get("data") or {})

    @property
    def state(self) -> dict[str, Any]:
        """The state."""
        return dict(json.loads(self.data.get("state", "{}")))

    @property
    def phase(self) -> str:
        """Where it is."""
        return str(self.state.get("phase", ""))

    @property
    def history(self) -> list[dict[str, Any]]:
        """All that happened, of the last revision."""
        lines = [json.loads(line) for line in self.data.get("history", "").splitlines()]
        return [one for one in lines if one["revision"] == lines[-1]["revision"]]

    @property
    def weight(self) -> int:
        """The candidate's share, as the route has it."""
        route = self.lab.api.get("gateway.networking.k8s.io/v1", "HTTPRoute", f"{self.name}-rollout", self.space)
        if route is None:
            return 0
        refs = {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}
        return int(refs.get(f"{self.name}-canary-predictor", 0))

    @property
    def has_candidate(self) -> bool:
        """Whether the candidate's InferenceService is there."""
        return self.lab.api.get(*ISVC, f"{self.name}-canary", self.space) is not None

    def wait_gone(self, timeout: float = 300) -> None:
        """Wait until the candidate has been removed."""
        self._wait(lambda: not self.has_candidate, f"the end of {self.name}-canary", timeout)

    def wait(self, *phases: str, revision: int, timeout: float = 600) -> None:
        """Wait until a revision's rollout is in one of these phases."""

        def there() -> bool:
            data = self.data
            return data.get("revision") == f"{self.name}-v{revision}" and self.phase in phases

        self._wait(there, f"{self.name} {' or '.join(phases)}", timeout)

    def wait_weight(self, weight: int, timeout: float = 600) -> None:
        """Wait until the route gives the candidate this share."""
        self._wait(lambda: self.weight == weight, f"{self.name} at {weight} %", timeout)

    def wait_answered(self, timeout: float = 300) -> None:
        """Wait until clients are answered at the step's host."""
        client = self.client

        def answers() -> bool:
            try:
                return client.send(PATH, BODY).ok
            except requests.ConnectionError:
                return False  # Envoy listens once it has the cluster's first route

        self._wait(answers, f"an answer of {self.name}", timeout)

    def _wait(self, look: Any, what: str, timeout: float) -> None:
        try:
            wait_for(self.lab, self.space, self.name, look, what, timeout)
        except AssertionError as error:
            app = self.lab.api.get("core.oam.dev/v1beta1", "Application", self.name, self.space) or {}
            workflow = (app.get("status") or {}).get("workflow")
            raise AssertionError(f"{error}\n{self.state}\n{self.data.get('history')}\n{workflow}") from error


def answer_of(text: str) -> int:
    """The version that an answer names."""
    return int(json.loads(text)["outputs"][0]["data"][0])
