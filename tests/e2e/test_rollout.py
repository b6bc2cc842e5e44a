"""The step rollout-model on the real API server, vela-core and KServe; Prometheus is a stand-in on loopback."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from tests.conftest import Cluster, namespace_of
from tests.e2e.loopback import Quiet, listening

from velagen.cli import main
from velagen.errors import VelagenError
from velagen.lab import Lab, condition, wait_until
from velagen.lab.state import LabState
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(60)]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute", "m-rollout")
GOOD = {"requests": "500", "success ratio": "1", "beside stable": "1.02"}
BAD = {"requests": "500", "success ratio": "0.93", "beside stable": "1.02"}
#: Quick enough for a test; what they mean is the same.
QUICK = {"steps": [20, 50], "interval": 5, "checks": 1, "failureLimit": 2, "warmUp": 0, "settle": 0, "deadline": 60}


class Metrics:
    """A stand-in for Prometheus: what it answers to a check, and what it was asked."""

    def __init__(self) -> None:
        self.answer: dict[str, str] | None = GOOD
        #: Seconds that it takes.
        self.delay = 0.0
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[Metrics]:
    metrics = Metrics()

    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            metrics.asked.append(parse_qs(urlsplit(self.path).query)["query"][0])
            time.sleep(metrics.delay)
            if metrics.answer is None:
                self.connection.close()  # no answer at all
                return
            result = [{"metric": {"rollout": name}, "value": [1, value]} for name, value in metrics.answer.items()]
            # As Prometheus writes it: without spaces.
            body = json.dumps(
                {"status": "success", "data": {"resultType": "vector", "result": result}}, separators=(",", ":")
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as metrics.url:
        yield metrics


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab, ingress_gateway: None) -> None:
    vela(lab.kubeconfig, "addon", "enable", ADDON)


class Rollout:
    """An application with the step, as its user and as the cluster see it."""

    def __init__(self, cluster: Cluster, metrics: Metrics, *, tidy: bool = False, **settings: Any) -> None:
        self.cluster, self.metrics = cluster, metrics
        self.settings = {
            "component": "m",
            "prometheus": metrics.url,
            "route": {"hosts": ["m.example.com"]},
            **QUICK,
            **settings,
        }
        self.annotations: dict[str, str] = {}
        self.steps = [{"name": "rollout", "type": "rollout-model", "properties": self.settings}]
        if tidy:
            last = {"component": "m", "tidy": True}
            self.steps.append({"name": "tidy", "type": "rollout-model", "if": "always", "properties": last})

    def up(
        self, version: int, *, traits: tuple[str, ...] = (), scale: dict[str, Any] | None = None, **properties: Any
    ) -> None:
        """What a person writes and runs."""
        split = {"weight": 10, "modelUri": "s3://models/m/9", "route": {"hosts": ["m.example.com"]}}
        written = [{"type": one, "properties": split} for one in traits]
        written += [{"type": "autoscale", "properties": scale}] if scale else []
        model = {"runtime": "sklearn", "modelUri": f"s3://models/m/{version}", **properties}
        self.cluster.up(
            {
                "apiVersion": "core.oam.dev/v1beta1",
                "kind": "Application",
                "metadata": {"name": "app", "annotations": self.annotations},
                "spec": {
                    "components": [{"name": "m", "type": "kfserving", "properties": model, "traits": written}],
                    "workflow": {"steps": self.steps},
                },
            }
        )

    @property
    def state(self) -> dict[str, Any]:
        found = (self.cluster.get("v1", "ConfigMap", "m-rollout") or {}).get("data", {})
        return {**found, **json.loads(found.get("state", "{}"))}

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.state["history"].splitlines()]

    @property
    def phase(self) -> str:
        return str(self.state.get("phase", ""))

    @property
    def weight(self) -> int:
        """The candidate's share, as the route has it."""
        route = self.cluster.get(*ROUTE) or {"spec": {"rules": [{"backendRefs": []}]}}
        refs = {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}
        return int(refs.get("m-canary-predictor", 0))

    @property
    def workflow(self) -> dict[str, Any]:
        app = self.cluster.application("app") or {}
        found: dict[str, Any] = app.get("status", {}).get("workflow", {})
        return found

    @property
    def revision(self) -> str:
        return str(((self.cluster.application("app") or {}).get("status", {}).get("latestRevision") or {}).get("name"))

    @property
    def message(self) -> str:
        return next((str(one.get("message", "")) for one in self.workflow.get("steps", ())), "")

    def served(self, name: str = "m") -> str:
        """The version that an InferenceService serves."""
        found = self.cluster.inference_service(name)
        return str(found["spec"]["predictor"]["model"]["storageUri"]) if found else ""

    def ended(self, phase: str, *, revision: str) -> Callable[[], bool]:
        def look() -> bool:
            done = self.workflow.get("finished") and self.workflow.get("appRevision") == revision
            return bool(done) and self.phase == phase

        return look

    def wait(self, phase: str, revision: str, timeout: float = 150) -> None:
        try:
            self.cluster.wait_for(self.ended(phase, revision=revision), f"{revision} {phase}", timeout)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.state} {self.workflow}") from error

    def reach(self, phase: str, timeout: float = 60) -> None:
        self.cluster.wait_for(lambda: self.phase == phase, phase, timeout)


@pytest.fixture
def rollout(cluster: Cluster, metrics: Metrics) -> Rollout:
    """Version 1 is stable, by the step's first deployment."""
    found = Rollout(cluster, metrics)
    found.up(1)
    found.wait("done", "app-v1")
    assert metrics.asked == []
    assert cluster.inference_service("m-canary") is None
    return found


@pytest.mark.both
def test_a_good_version_is_promoted(rollout: Rollout, cluster: Cluster) -> None:
    seen: list[int] = []
    rollout.up(2)

    def look() -> bool:
        if not seen or seen[-1] != rollout.weight:
            seen.append(rollout.weight)
        if rollout.weight:
            assert condition(cluster.inference_service("m-canary"), "Ready") == "True"
        return rollout.ended("done", revision="app-v2")()

    cluster.wait_for(look, "promoted", 90)
    assert seen == [0, 20, 50, 100, 0]
    assert rollout.served() == "s3://models/m/2"
    told = [(one["row"], one["weight"], one["check"]) for one in rollout.history if one["revision"] == "app-v2"]
    assert told == [
        ("begun", 0, "none"),
        ("ready", 0, "none"),
        ("warm", 20, "none"),
        ("step passed", 50, "good"),
        ("last step passed", 100, "good"),
        ("in place", 100, "none"),
        ("settled", 0, "none"),
        ("routed", 0, "none"),
        ("returned", 0, "none"),
    ]
    cluster.wait_for(lambda: cluster.inference_service("m-canary") is None, "the candidate gone", 20)
    # The next revision has nothing to roll out.
    asked = len(rollout.metrics.asked)
    rollout.up(2, minReplicas=2)
    rollout.wait("done", "app-v3")
    found = cluster.inference_service("m")
    assert found is not None
    assert found["spec"]["predictor"]["minReplicas"] == 2
    assert len(rollout.metrics.asked) == asked


@pytest.mark.both
def test_a_bad_version_goes_back_and_says_why(rollout: Rollout, cluster: Cluster) -> None:
    rollout.metrics.answer = BAD
    rollout.up(2)
    rollout.wait("failed", "app-v2")
    assert rollout.weight == 0
    assert rollout.served() == "s3://models/m/1"
    cluster.wait_for(lambda: cluster.inference_service("m-canary") is None, "the candidate gone", 20)
    words = "success ratio 0.93 < 0.99 in 2 checks at 20 %"
    assert words in rollout.message
    assert words in cluster.vela("status", "app", "-n", cluster.namespace).stdout
    events = [one for one in cluster.list("v1", "Event") if one.get("reason") == "RolledBack"]
    assert words in events[0]["message"]
    last = rollout.history[-1]
    assert (last["row"], last["weight"], last["requests"], last["why"]) == ("failed", 0, "500", words)
    bound = {"name": "success ratio", "value": "0.93", "unit": "", "limit": 0.99, "atMost": False, "unsure": False}
    assert last["bounds"][0] == bound
    where = ["-n", cluster.namespace, "--kubeconfig", str(cluster.kubeconfig), "--prometheus", "http://127.0.0.1:1"]
    shown = CliRunner().invoke(main, ["rollout", "status", "app", *where])
    assert shown.exit_code == 0, shown.output
    assert f"rolled back: {words}" in " ".join(shown.output.split())
    file = cluster.lab.folder / "tmp" / f"{cluster.namespace}.html"
    written = CliRunner().invoke(main, ["rollout", "report", "app", *where, "-o", str(file)])
    assert written.exit_code == 0, written.output
    page = file.read_text()
    file.unlink()
    # The reason, a check's number, and the event, which the cluster has.
    assert html.escape(words) in page
    assert "success ratio 0.93 (at least 0.99)" in page
    assert "<td>RolledBack</td>" in page
    # What kube-state-metrics can tell.
    labels = cluster.get("v1", "ConfigMap", "m-rollout")["metadata"]["labels"]  # type: ignore[index]
    told = {name: labels[f"rollout.velagen/{name}"] for name in ("component", "phase", "weight", "check")}
    assert told == {"component": "m", "phase": "failed", "weight": "0", "check": "none"}
    rollout.metrics.answer = GOOD
    # Its workflow run again tells nothing new.
    cluster.vela("workflow", "restart", "app", "-n", cluster.namespace)
    cluster.wait_for(lambda: "--publish-version" in rollout.message, "what to run instead", 30)
    assert (rollout.phase, rollout.served()) == ("failed", "s3://models/m/1")
    # A version 3 that is good starts afresh from version 1.
    rollout.up(3)
    rollout.wait("done", "app-v3")
    assert rollout.served() == "s3://models/m/3"


@pytest.mark.parametrize(
    ("answer", "settings", "words"),
    [
        # Nothing measured: held until the deadline.
        ({}, {"deadline": 12}, "the number of requests is not known"),
        ({"requests": "500", "success ratio": "NaN"}, {"deadline": 12}, "success ratio has no value"),
        # A connection that breaks is an error of the engine's, of which it takes ten.
        (None, {"onInconclusive": "rollback", "inconclusiveLimit": 2}, "the endpoint of the metrics does not answer"),
    ],
    ids=["nothing", "not-a-number", "no-answer"],
)
def test_silence_is_no_success(
    rollout: Rollout, answer: dict[str, str] | None, settings: dict[str, Any], words: str
) -> None:
    rollout.metrics.answer = answer
    rollout.settings.update(settings)
    rollout.up(2)
    rollout.wait("failed", "app-v2", 120)
    assert "no verdict" in rollout.message
    assert words in rollout.message
    assert rollout.weight == 0
    assert rollout.served() == "s3://models/m/1"


def is_free(port: int) -> bool:
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def kill(lab: Lab) -> None:
    """vela-core ends as by a failing node, and starts again."""
    file = lab.folder / "state.json"
    state = LabState.read(file)
    assert state is not None
    process = state.process("vela-core")
    assert process is not None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    # Its threads may end later than itself, and hold its ports as long.
    addresses = re.findall(r"127[.]0[.]0[.]1:(\d+)", " ".join(process.argv))
    ports = [int(port) for port in (*addresses, *re.findall(r"--webhook-port=(\d+)", " ".join(process.argv)))]
    wait_until(lambda: not process.alive and all(map(is_free, ports)), what="vela-core gone", timeout=30)
    process.spawn(lab.log_path("vela-core"), lab.folder)
    state.write(file)


@pytest.mark.seconds(120)
def test_it_goes_on_where_it_was_when_vela_core_is_killed(rollout: Rollout, cluster: Cluster) -> None:
    rollout.metrics.delay = 0.3
    rollout.up(2)
    killed: list[str] = []
    weights: list[int] = []

    def look() -> bool:
        state, weight = rollout.state, rollout.weight
        at = f"{state['phase']} {state['step']}"
        if state["phase"] not in ("", "deploy", "done") and at not in killed:
            killed.append(at)
            kill(cluster.lab)
        if not weights or weights[-1] != weight:
            weights.append(weight)
        return rollout.ended("done", revision="app-v2")()

    cluster.wait_for(look, "promoted", 240)
    assert {"prepare 0", "step 0", "step 1"} <= {*killed}
    assert len(killed) >= 4
    # Only up, and at the end all is the component's again.
    assert weights[:-1] == sorted(weights[:-1])
    assert weights[-1] == 0
    assert rollout.served() == "s3://models/m/2"


def test_version_3_in_the_middle_of_version_2(rollout: Rollout, cluster: Cluster) -> None:
    rollout.metrics.answer = {}
    rollout.up(2)
    cluster.wait_for(lambda: rollout.weight == 20, "20 %", 60)
    rollout.metrics.answer = GOOD
    rollout.up(3)
    cluster.wait_for(lambda: rollout.served("m-canary") == "s3://models/m/3", "version 3 as the candidate", 60)
    assert rollout.served() == "s3://models/m/1"
    rollout.wait("done", "app-v3")
    assert rollout.served() == "s3://models/m/3"


@pytest.mark.both
def test_each_version_has_the_pods_for_all_requests(cluster: Cluster, metrics: Metrics) -> None:
    """An autoscaler would give each of them the pods for its share alone."""
    scale = {"maxReplicas": 4, "prometheusAddress": "http://prometheus.monitoring.svc:9090"}

    def scaled(name: str) -> dict[str, Any]:
        found = cluster.get("keda.sh/v1alpha1", "ScaledObject", f"{name}-autoscale") or {"spec": {"triggers": []}}
        spec: dict[str, Any] = found["spec"]
        return spec

    def pods(name: str) -> int:
        found = cluster.get("apps/v1", "Deployment", f"{name}-predictor") or {"spec": {}}
        return int(found["spec"].get("replicas", 0))

    def scale_to(name: str, number: int) -> None:
        """As KEDA would, which does not run here."""
        found = cluster.get("apps/v1", "Deployment", f"{name}-predictor")
        assert found is not None
        cluster.api.apply(
            {
                **{key: found[key] for key in ("apiVersion", "kind")},
                "metadata": {"name": f"{name}-predictor", "namespace": cluster.namespace},
                "spec": {"replicas": number},
            }
        )

    rollout = Rollout(cluster, metrics)
    rollout.up(1, scale=scale)
    rollout.wait("done", "app-v1")
    candidates = {"podSelector": "app=isvc.m-canary-predictor", "value": "1"}
    assert [one["metadata"] for one in scaled("m")["triggers"] if one["type"] == "kubernetes-workload"] == [candidates]
    scale_to("m", 3)
    rollout.up(2, scale=scale)
    cluster.wait_for(lambda: pods("m-canary"), "the candidate", 60)
    assert scaled("m-canary")["minReplicaCount"] == 3
    assert [one["type"] for one in scaled("m-canary")["triggers"]] == ["prometheus"]
    # KServe begins with one pod where an autoscaler is to come, and no request goes to it before that has been there.
    assert pods("m-canary") == 1
    cluster.wait_for(lambda: condition(cluster.inference_service("m-canary"), "Ready") == "True", "ready", 60)
    cluster.wait_for(lambda: "its autoscaler gave it 1 of 3 replicas" in rollout.message, "the message", 60)
    assert rollout.weight == 0
    scale_to("m-canary", 3)
    rollout.wait("done", "app-v2")
    assert pods("m") == 3
    assert scaled("m")["minReplicaCount"] == 1


def test_terminate_is_tidied_up(cluster: Cluster, metrics: Metrics) -> None:
    rollout = Rollout(cluster, metrics, tidy=True)
    rollout.up(1)
    rollout.wait("done", "app-v1")
    metrics.answer = {}
    rollout.up(2)
    cluster.wait_for(lambda: rollout.weight == 20, "20 %", 60)
    cluster.vela("workflow", "terminate", "app", "-n", cluster.namespace)
    cluster.wait_for(lambda: rollout.weight == 0, "no traffic", 60)
    cluster.wait_for(lambda: cluster.inference_service("m-canary") is None, "the candidate gone", 60)
    assert "stopped by hand" in rollout.state["reason"]
    assert rollout.served() == "s3://models/m/1"


def test_after_a_rollback_that_succeeds_drift_is_undone(rollout: Rollout, cluster: Cluster) -> None:
    rollout.metrics.answer = BAD
    rollout.settings["afterRollback"] = "succeed"
    rollout.up(2)
    rollout.wait("failed", "app-v2")
    assert rollout.workflow["status"] == "succeeded"
    assert "rolled back: success ratio" in rollout.message
    found = cluster.inference_service("m")
    assert found is not None
    found["spec"]["predictor"]["model"]["storageUri"] = "s3://models/m/by-hand"
    del found["metadata"]["managedFields"]
    cluster.api.apply(found)
    cluster.wait_for(lambda: rollout.served() == "s3://models/m/1", "drift undone", 90)


def fresh(cluster: Cluster, metrics: Metrics, **settings: Any) -> Rollout:
    """Version 1 is stable under these settings."""
    found = Rollout(cluster, metrics, **settings)
    found.up(1)
    found.wait("done", "app-v1")
    return found


def rules(cluster: Cluster) -> list[dict[str, Any]]:
    """The rules of the route."""
    found: list[dict[str, Any]] = (cluster.get(*ROUTE) or {"spec": {"rules": []}})["spec"]["rules"]
    return found


@pytest.mark.both
def test_two_lines_split_the_address_that_kserve_gives(cluster: Cluster, metrics: Metrics) -> None:
    rollout = Rollout(cluster, metrics)
    del rollout.settings["route"]
    rollout.up(1)
    rollout.wait("done", "app-v1")
    rollout.up(2)
    cluster.wait_for(lambda: rollout.weight == 20, "20 %", 60)
    found = cluster.inference_service("m")
    route = cluster.get(*ROUTE)
    assert found is not None
    assert route is not None
    assert [f"http://{host}" for host in route["spec"]["hostnames"]] == [found["status"]["url"]]
    # KServe's own route for the same host has the path ^/.*$; of two expressions the longer one is asked first.
    assert route["spec"]["rules"][0]["matches"] == [{"path": {"type": "RegularExpression", "value": "^/(.*)$"}}]
    rollout.wait("done", "app-v2")
    assert rollout.served() == "s3://models/m/2"


def kserve_route(host: str) -> dict[str, Any]:
    """As KServe writes it for the model m where Gateway API is on; here it is off."""
    return {
        "apiVersion": ROUTE[0],
        "kind": ROUTE[1],
        "metadata": {"name": "m"},
        "spec": {
            "parentRefs": [{"name": "own", "namespace": "kserve"}],
            "hostnames": [host, "m-team.example.org", "models.example.com"],
            "rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}]}],
        },
    }


def test_hosts_and_gateway_are_those_of_kserves_route(cluster: Cluster, metrics: Metrics) -> None:
    gateway = cluster.api.get("gateway.networking.k8s.io/v1", "Gateway", "kserve-ingress-gateway", "kserve")
    assert gateway is not None
    own = {**gateway, "metadata": {"name": "own", "namespace": "kserve"}}
    cluster.api.apply({key: own[key] for key in ("apiVersion", "kind", "metadata", "spec")})
    made = kserve_route("m.models.example.com")
    made["metadata"]["namespace"] = cluster.namespace
    cluster.api.apply(made)
    rollout = Rollout(cluster, metrics)
    del rollout.settings["route"]
    rollout.up(1)
    rollout.wait("done", "app-v1")
    route = cluster.get(*ROUTE)
    assert route is not None
    # The domain itself is all models'.
    assert route["spec"]["hostnames"] == ["m.models.example.com", "m-team.example.org"]
    assert [(one["namespace"], one["name"]) for one in route["spec"]["parentRefs"]] == [("kserve", "own")]


def resume(cluster: Cluster) -> None:
    """Resume the workflow, once more where vela-core wrote the application in between: vela says so and gives up."""

    def resumed() -> bool:
        try:
            cluster.vela("workflow", "resume", "app", "-n", cluster.namespace)
        except VelagenError as error:
            if "the object has been modified" not in str(error):
                raise
            return False
        return True

    wait_until(resumed, what="a resumed workflow", timeout=60, every=0.5)


@pytest.mark.both
def test_a_person_lets_it_go_on(cluster: Cluster, metrics: Metrics) -> None:
    rollout = fresh(cluster, metrics, pauseAt=[20])
    rollout.up(2)
    cluster.wait_for(lambda: rollout.workflow.get("suspend"), "the workflow suspended", 120)
    assert (rollout.phase, rollout.weight) == ("pause", 20)
    assert "vela-workflow-resume" in rollout.message
    asked = len(metrics.asked)
    # Nobody but a person ends it: not the controller's start either.
    kill(cluster.lab)
    time.sleep(5)
    assert (rollout.phase, rollout.weight, len(metrics.asked)) == ("pause", 20, asked)
    resume(cluster)
    rollout.wait("done", "app-v2")
    assert rollout.served() == "s3://models/m/2"
    assert len(metrics.asked) > asked


def test_terminate_in_a_pause_is_tidied_up(cluster: Cluster, metrics: Metrics) -> None:
    rollout = Rollout(cluster, metrics, tidy=True, pauseAt=[20])
    rollout.up(1)
    rollout.wait("done", "app-v1")
    rollout.up(2)
    cluster.wait_for(lambda: rollout.workflow.get("suspend"), "the workflow suspended", 120)
    cluster.vela("workflow", "terminate", "app", "-n", cluster.namespace)
    cluster.wait_for(lambda: rollout.phase == "failed" and rollout.weight == 0, "taken back", 60)
    assert rollout.served() == "s3://models/m/1"
    # The namespace goes with all that is in it, in the middle of a run: what fails then keeps no worker of vela-core.
    cluster.api.delete("core.oam.dev/v1beta1", "Application", "app", cluster.namespace)
    cluster.api.delete("v1", "Namespace", cluster.namespace)
    cluster.wait_for(lambda: cluster.application("app") is None, "the application gone", 60)


TESTERS = {
    "headers": [{"name": "x-tester", "value": "yes"}, {"name": "x-team", "value": "a"}],
    "cookie": {"name": "tester", "value": "1"},
}


def test_blue_green_testers_see_the_new_version_first(cluster: Cluster, metrics: Metrics) -> None:
    route = {"hosts": ["m.example.com"], "match": TESTERS, "affinity": {"seconds": 60}}
    rollout = fresh(cluster, metrics, steps=[0, 100], pauseAt=[0], route=route)
    assert len(rules(cluster)) == 1
    rollout.up(2, protocol="both")
    cluster.wait_for(lambda: rollout.workflow.get("suspend"), "the workflow suspended", 120)
    assert metrics.asked == []
    testers, others = rules(cluster)[-2:]
    assert [[header["name"] for header in one["headers"]] for one in testers["matches"]] == [
        ["x-tester", "x-team"],
        ["cookie"],
        ["cookie"],
    ]
    assert re.fullmatch(testers["matches"][1]["headers"][0]["value"], "a=b; tester=1; c=d")
    assert not re.fullmatch(testers["matches"][1]["headers"][0]["value"], "a=b; other-tester=1")
    assert [(one["name"], one["weight"]) for one in testers["backendRefs"]] == [("m-canary-predictor", 100)]
    assert [one["weight"] for one in others["backendRefs"]] == [100, 0]
    # Who was answered by the new version stays with it.
    (modifier,) = others["backendRefs"][1]["filters"]
    cookie = modifier["responseHeaderModifier"]["add"][0]["value"]
    assert "Max-Age=60" in cookie
    assert re.fullmatch(testers["matches"][2]["headers"][0]["value"], cookie.split(";")[0])
    resume(cluster)
    rollout.wait("done", "app-v2")
    assert all("headers" not in str(one["backendRefs"]) for one in rules(cluster))
    assert "x-tester" not in str(rules(cluster))


def test_a_shadow_gets_copies_and_is_judged(cluster: Cluster, metrics: Metrics) -> None:
    rollout = fresh(cluster, metrics, steps=[50], shadow={"percent": 30}, checks=2)
    rollout.up(2)
    cluster.wait_for(lambda: "filters" in str(rules(cluster)), "copies", 60)
    (rule,) = rules(cluster)
    assert rule["filters"][0]["requestMirror"]["backendRef"]["name"] == "m-canary-predictor"
    assert rule["filters"][0]["requestMirror"]["percent"] == 30
    assert rollout.weight == 0
    cluster.wait_for(lambda: metrics.asked, "a check", 90)
    cluster.wait_for(lambda: rollout.weight == 50, "50 %", 60)
    assert "filters" not in str(rules(cluster))
    metrics.answer = BAD
    rollout.wait("failed", "app-v2")


def test_a_bad_shadow_never_gets_a_request(cluster: Cluster, metrics: Metrics) -> None:
    rollout = fresh(cluster, metrics, shadow={})
    metrics.answer = BAD
    rollout.up(2)
    rollout.wait("failed", "app-v2")
    assert "at 0 %" in rollout.message
    assert rollout.served() == "s3://models/m/1"


def test_istio_has_the_same_routes(cluster: Cluster, metrics: Metrics) -> None:
    route = {"provider": "istio", "match": TESTERS, "affinity": {}}
    rollout = fresh(cluster, metrics, route=route, steps=[20], shadow={"percent": 30}, pauseAt=[0])
    name = ("networking.istio.io/v1beta1", "VirtualService", "m-rollout")
    rollout.up(2)
    cluster.wait_for(lambda: rollout.workflow.get("suspend"), "the workflow suspended", 120)
    testers, others = (cluster.get(*name) or {})["spec"]["http"]
    assert testers["match"][0]["headers"] == {"x-tester": {"exact": "yes"}, "x-team": {"exact": "a"}}
    assert re.fullmatch(testers["match"][1]["headers"]["cookie"]["regex"], "tester=1")
    candidate = f"m-canary-predictor.{cluster.namespace}.svc.cluster.local"
    assert testers["route"][0]["destination"]["host"] == candidate
    assert (others["mirror"]["host"], others["mirrorPercentage"]) == (candidate, {"value": 30})
    assert [one["weight"] for one in others["route"]] == [100, 0]
    assert "Set-Cookie" in others["route"][1]["headers"]["response"]["add"]
    resume(cluster)
    rollout.wait("done", "app-v2")


GUIDE = Path(__file__).parents[2] / "docs" / "rollout.md"


def rights(namespace: str, lacking: str = "", verbs: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The roles that the guide names, for a service account; without these verbs of one resource."""
    (block,) = re.findall(r"```yaml\n(# RBAC.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    roles = [one for one in yaml.safe_load_all(block.replace("NAMESPACE", namespace)) if one]
    for role in roles:
        role["metadata"]["name"] += f"-{namespace}"
        for rule in role["rules"]:
            if lacking in rule["resources"]:
                rule["verbs"] = [one for one in rule["verbs"] if one not in verbs]
        role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
    return [
        thing
        for role in roles
        for thing in (
            role,
            {
                "apiVersion": role["apiVersion"],
                "kind": "RoleBinding",
                "metadata": dict(role["metadata"]),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": namespace}],
            },
        )
    ]


def impersonated(cluster: Cluster, metrics: Metrics, *lacking: Any) -> Rollout:
    """KubeVela acts for it as a service account with the guide's rights, or without some of them."""
    account = {"name": "deployer", "namespace": cluster.namespace}
    cluster.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    for thing in rights(cluster.namespace, *lacking):
        cluster.api.apply(thing)
    rollout = Rollout(cluster, metrics)
    rollout.settings["route"] = {"hosts": [f"{cluster.namespace}.example.com"]}
    rollout.annotations = {"app.oam.dev/service-account-name": "deployer"}
    return rollout


def test_the_rights_that_the_guide_names_are_enough(cluster: Cluster, metrics: Metrics) -> None:
    rollout = impersonated(cluster, metrics)
    rollout.up(1)
    rollout.wait("done", "app-v1")
    rollout.up(2)
    rollout.wait("done", "app-v2")
    assert rollout.served() == "s3://models/m/2"
    metrics.answer = BAD
    rollout.up(3)
    rollout.wait("failed", "app-v3")
    assert [one for one in cluster.list("v1", "Event") if one.get("reason") == "RolledBack"]


ALL = frozenset({"get", "list", "create", "update", "patch", "delete"})
WRITES = frozenset({"create", "update", "patch"})
LACKING = [
    ("configmaps", ALL, "get"),
    ("events", ALL, "get"),
    ("applications", ALL, "get"),
    ("deployments", ALL, "get"),
    ("inferenceservices", ALL, "get"),
    ("httproutes", ALL, "get"),
    ("httproutes", frozenset({"list"}), "list"),
    ("gateways", ALL, "get"),
    ("leases", ALL, "list"),
    # What may be read and not be written is found when it is written; the model is not there by then either.
    ("configmaps", WRITES, "create"),
    ("httproutes", WRITES, "create"),
    ("inferenceservices", WRITES, "create"),
]


@pytest.mark.seconds(120)
def test_each_missing_right_is_told(lab: Lab, metrics: Metrics) -> None:
    with ExitStack() as stack:
        rollouts = []
        for resource, verbs, _ in LACKING:
            cluster = Cluster(lab, stack.enter_context(namespace_of(lab.api, "right")))
            rollouts.append(impersonated(cluster, metrics, resource, verbs))
            rollouts[-1].up(1)
        for rollout, (resource, verbs, verb) in zip(rollouts, LACKING, strict=True):
            words = f'cannot {verb} resource "{resource}"'
            one = rollout.cluster
            one.wait_for(lambda: words in rollout.message, f"{words} instead of: {rollout.message}", 120)  # noqa: B023  # asked at once
            assert words in one.vela("status", "app", "-n", one.namespace).stdout
            assert one.inference_service("m") is None
            if verbs != WRITES:
                assert rollout.message.startswith("the account that this application acts as lacks a right")
                assert rollout.workflow["steps"][0]["phase"] == "failed"
                assert one.get(*ROUTE) is None
        # KubeVela deletes an application by its account's rights too, and the account goes with the namespace.
        for one in (rollout.cluster for rollout in rollouts):
            one.api.apply_all(rights(one.namespace))
            one.api.delete("core.oam.dev/v1beta1", "Application", "app", one.namespace)
        for one in (rollout.cluster for rollout in rollouts):
            one.wait_for(lambda: one.application("app") is None, "the application gone", 120)  # noqa: B023  # asked at once


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"component": "other"}, "the application has no component other"),
        ({"steps": [20, 10]}, "steps must rise, and 10 does not"),
        ({"steps": [0, 20]}, "steps begins with 0"),
        ({"pauseAt": [30]}, "pauseAt holds 30, which is not in steps"),
        ({"route": {"hosts": ["m.default.svc"]}}, "m.default.svc, a Service's name inside the cluster"),
        (
            {"route": {"hosts": ["m.example.com"], "gateway": {"name": "g", "namespace": "h"}}},
            "there is no Gateway h/g",
        ),
        ({"deadline": 10, "checks": 3}, "the 3 checks of a step take 15 s"),
        ({"analysis": {"queries": [{"name": "q", "query": "up"}]}}, "the query q of analysis has no bound"),
        ({"analysis": {"successRatio": 0, "latency": {"timesStable": 0}}}, "analysis looks at nothing"),
        ({"traits": ("canary",)}, "has the trait canary"),
        ({"deploymentMode": "knative"}, "by their share alone: drop route"),
        ({"stopped": True}, "m is stopped"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_rolled_out_is_said_and_creates_nothing(
    cluster: Cluster, metrics: Metrics, settings: dict[str, Any], words: str
) -> None:
    of_model = {key: settings.pop(key) for key in ("traits", "deploymentMode", "stopped") if key in settings}
    rollout = Rollout(cluster, metrics, **settings)
    rollout.up(1, **of_model)
    cluster.wait_for(lambda: words in rollout.message, words, 30)
    assert rollout.workflow["steps"][0]["phase"] == "failed"
    assert cluster.list("serving.kserve.io/v1beta1", "InferenceService") == []
    assert cluster.get(*ROUTE) is None
    assert cluster.get("v1", "ConfigMap", "m-rollout") is None
