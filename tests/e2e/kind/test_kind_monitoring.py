"""What is said of models is what happened: numbers against a client's own, alerts that come and go, dashboards, top.

What the servers of each runtime count is in test_kind_predictions, two versions of one model in test_kind_canary: the
models are up there.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from click.testing import CliRunner
from tests.conftest import namespace_of
from tests.e2e.kind.measured import apart, asked, counted, holds, number, percentile, window
from tests.e2e.kind.serving import (
    SMALL,
    Client,
    Seen,
    down,
    once,
    pods,
    put_model,
    python_server,
    steady,
    triton_config,
    up,
    wait_ready,
)
from tests.panels import panels, unanswered

from velagen.cli.top import top_command
from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.alerting import WEBHOOK, WEBHOOK_PORT
from velagen.lab.kind.prometheus import NAMESPACE, RULES
from velagen.monitoring.dashboards import dashboard

#: Takes as many milliseconds as it is asked for, and fails where they are negative.
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.one(pb_utils.get_input_tensor_by_name(request, "X").as_numpy()) for request in requests]

    def one(self, asked):
        if asked[0][0] == -1:
            raise ValueError("asked to fail")
        if asked[0][0] == -2:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("asked to answer with an error"))
        time.sleep(asked[0][0] / 1000)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", asked)])
"""
PATH = "/v2/models/does/infer"
#: Milliseconds that requests take, and how many of a hundred: no percentile is near a step from one to the next.
MIXED = [10.0] * 60 + [70.0] * 36 + [300.0] * 4
FAIL = -1.0
#: Seconds from what breaks to the message at the webhook.
SOON = 60.0
#: Where half of the requests and more must be bad for a while before it rings, few good ones are enough to end it.
PROMISE = {
    "type": "slo",
    "properties": {"availability": 90, "latencyMilliseconds": 250, "percentile": 90, "labels": RULES},
}
#: By model: what each of its requests asks for when it breaks, and the alert that this is.
BREAKS = {"fails": (FAIL, "ModelBudgetBurnsFast"), "slow": (400.0, "ModelLatencyOverObjective")}

#: Writes down what Alertmanager tells it, a line an alert: in one write each, since it is told of several at once.
RECEIVER = f"""
import http.server, json, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in told["alerts"]:
            line = json.dumps({{"at": time.time(), "status": alert["status"], **alert["labels"]}})
            sys.stdout.write(line + "\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", {WEBHOOK_PORT}), Handler).serve_forever()
"""


def body(milliseconds: float) -> dict[str, Any]:
    return {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [milliseconds]}]}


@dataclass
class Watched:
    """Models that do as they are told, and who listens to what is said of them."""

    lab: KindLab
    space: str
    #: What became of the requests to `numbers`, all of them.
    seen: list[Seen] = field(default_factory=list)

    def client(self, name: str) -> Client:
        return Client(self.lab, self.space, name)

    def told(self, status: str, alert: str, model: str, since: float) -> float | None:
        """When the webhook was told of it, in seconds after *since*; alerts on objectives are of a component."""
        lines = self.lab.kubectl("logs", WEBHOOK, "-n", NAMESPACE).splitlines()
        for one in (json.loads(line) for line in lines if line.startswith("{")):
            named = (one["status"], one["alertname"], one.get("namespace"), one.get("version", one.get("component")))
            if named == (status, alert, self.space, model) and one["at"] >= since:
                return float(one["at"]) - since
        return None


@pytest.fixture(scope="module")
def listening(kind_lab: KindLab) -> Iterator[Watched]:
    """The webhook that hears of alerts, and the model's files in the store."""
    lab = kind_lab
    lab.load(["tritonserver", "object-store"])
    files = {
        "does/config.pbtxt": triton_config("does", "X TYPE_FP32 [1]", "Y TYPE_FP32 [1]"),
        "does/1/model.py": MODEL,
    }
    put_model(lab, "does", files)
    with namespace_of(lab.api, "watched") as space:
        things = python_server(WEBHOOK, RECEIVER, NAMESPACE, WEBHOOK_PORT)
        try:
            lab.api.apply_all(things)
            wait_until(
                lambda: condition(lab.api.get("v1", "Pod", WEBHOOK, NAMESPACE), "Ready") == "True",
                what="the webhook",
                timeout=60,
            )
            yield Watched(lab, space)
        finally:
            for thing in things:
                lab.api.delete("v1", thing["kind"], thing["metadata"]["name"], NAMESPACE)


@contextmanager
def models(watched: Watched, traits: Mapping[str, Mapping[str, Any]], **gpus: int) -> Iterator[Watched]:
    """Models that are up while the block runs, with the trait and the GPUs of each."""
    lab, space = watched.lab, watched.space
    common = {"runtime": "triton", "modelUri": "s3://models/does", "modelName": "does", "minReplicas": 1}
    for name, trait in traits.items():
        gpu = {"nvidia.com/gpu": gpus[name]} if name in gpus else {}
        resources = {"requests": SMALL["requests"], "limits": {**SMALL["limits"], **gpu}}
        up(lab, space, name, {**common, "resources": resources}, *([trait] if trait else []))
    for name in traits:
        wait_ready(lab, space, name)
    yield watched
    for name in traits:
        down(lab, space, name)


@pytest.fixture(scope="module")
def watched(listening: Watched) -> Iterator[Watched]:
    with models(listening, {"numbers": scaled("envoy"), "dies": {}}, numbers=1) as found:
        yield found


@pytest.fixture
def breaking(listening: Watched) -> Iterator[Watched]:
    with models(listening, dict.fromkeys(BREAKS, PROMISE)) as found:
        yield found


def scaled(source: str) -> dict[str, Any]:
    """The trait autoscale, which asks Prometheus."""
    properties = {
        "metric": "qps",
        "policy": "target",
        "target": 100,
        "source": source,
        "minReplicas": 1,
        "maxReplicas": 2,
    }
    return {"type": "autoscale", "properties": properties}


# ---------------------------------------------------------------- numbers


@pytest.mark.seconds(60)
def test_the_numbers_are_the_clients_own(watched: Watched) -> None:
    lab, space = watched.lab, watched.space
    client = watched.client("numbers")
    mine = f'namespace="{space}",version="numbers"'
    asks = [body(milliseconds) for milliseconds in [FAIL, *MIXED[::4]] * 4]  # spread over the time
    with window(lab, space, "server", "envoy") as grown:
        start = time.perf_counter()
        watched.seen = [once(client, PATH, one, start) for one in asks]
    good = [one for one in watched.seen if one.status == 200]
    bad = [one for one in watched.seen if one.status == 500]
    assert len(good) == 100
    assert len(bad) == len(asks) - len(good) == 4
    share = len(bad) / len(asks)
    for route in ("server", "envoy"):
        assert grown[route, "requests"]["numbers"] == len(asks)
        assert grown[route, "errors"]["numbers"] == len(bad)
        holds(lab, f'model:errors:ratio5m{{{mine},route="{route}"}}', lambda found: abs(found - share) < 0.01, "errors")
    # What was asked while the route came up counts too, and took as long as it took.
    others = counted(lab, "requests", "envoy", space)["numbers"] - len(asks)
    for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        found = holds(lab, f'model:latency_seconds:{name}{{{mine},route="envoy"}}', bool, name)
        own = percentile(watched.seen, part)
        print(f"{name}: {found:.3f} s by Envoy, {own:.3f} s by the client, {others:.0f} others")
        if others < (1 - part) * len(asks):
            # A client on a busy machine takes long for itself, but the model never less than it was asked to.
            least = MIXED[int(part * len(MIXED)) - 1] / 1000
            assert apart(found, own) <= 1 or (found < own and apart(found, least) <= 1), name
    mean = sum(one.took for one in watched.seen) / len(watched.seen)
    found = holds(lab, f'model:latency_seconds:mean{{{mine},route="envoy"}}', bool, "the mean")
    # What the client takes for itself is not in it.
    assert others > 0.1 * len(asks) or 0.02 < found <= 1.1 * mean
    # Triton has no histogram: its mean is called so, and there is no percentile.
    assert number(lab, f'model:latency_seconds:p99{{{mine},route="server"}}') is None
    assert number(lab, f'model:latency_seconds:mean{{{mine},route="server"}}')
    assert number(lab, f"model:replicas{{{mine}}}") == 1


@pytest.mark.seconds(40)
def test_what_is_shown_is_true(watched: Watched) -> None:
    """While requests come: velagen top, each panel of the dashboards, and the queries that the trait autoscale asks."""
    lab, space = watched.lab, watched.space
    rate = 5.0
    mine = f'namespace="{space}",version="numbers"'
    # Next to no work, so that the GPU it holds counts as idle, which is a panel too.
    with steady(watched.client("numbers"), PATH, body(0), rate, 150):
        holds(
            lab,
            f'model:requests:rate1m{{{mine},route="envoy"}}',
            lambda found: found > 0.3 * rate,
            "the rate of a part of a minute",
            60,
        )
        (shown,) = top(lab, space, "numbers")["models"]
        said = {
            record: number(lab, f'{record}{{{mine},route="envoy"}}')
            for record in ("model:requests:rate1m", "model:errors:ratio5m", "model:latency_seconds:p99")
        }
        values = {"namespace": space, "app": "numbers", "component": "numbers", "route": "envoy", "cost": "2"}
        contents = [json.loads(dashboard(name)) for name in ("model", "platform")]

        def empty() -> dict[str, str]:
            queries = (query for content in contents for query in panels(content, known(content, values)))
            return unanswered(lab.url("prometheus"), queries, frozenset({"llm", "alert", "rollout"}))

        # Some count whole minutes.
        ends = time.monotonic() + 75
        while (left := empty()) and time.monotonic() < ends:
            time.sleep(2)
        assert left == {}
        for source in ("envoy", "triton"):
            found = trait_query(watched, source)
            holds(lab, found, lambda value: 0.2 * rate < value < 1.3 * rate, f"the trait's query of {source}")
    assert shown["version"] == "numbers"
    assert shown["ready"]
    assert shown["replicas"] == {"ready": 1, "wanted": 1}
    assert shown["route"] == "envoy"
    assert set(shown["routes"]) == {"envoy", "server"}
    assert shown["requestsPerSecond"] == pytest.approx(said["model:requests:rate1m"], rel=0.5)
    assert shown["requestsPerSecond"] < 1.3 * rate
    assert shown["errorRatio"] == pytest.approx(said["model:errors:ratio5m"], abs=0.01)
    assert apart(shown["latencySeconds"]["p99"], said["model:latency_seconds:p99"] or 0) <= 1


def top(lab: KindLab, space: str, app: str) -> dict[str, Any]:
    arguments = ["--kubeconfig", str(lab.kubeconfig), "-n", space, "--once", "-o", "json", app]
    done = CliRunner().invoke(top_command, arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    assert "problems" not in found or not found["problems"], found["problems"]
    return found


def known(content: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """The dashboard's variables, with these values where it has them."""
    return {one["name"]: values.get(one["name"], ".+") for one in content["templating"]["list"]}


def trait_query(watched: Watched, source: str) -> str:
    """What the trait has KEDA ask, once it asks this source."""
    lab, space = watched.lab, watched.space
    (application,) = [
        one
        for one in lab.api.list("core.oam.dev/v1beta1", "Application", space)
        if one["metadata"]["name"] == "numbers"
    ]
    (component,) = application["spec"]["components"]
    up(lab, space, "numbers", component["properties"], scaled(source))
    series = {"envoy": "envoy_cluster_", "triton": "nv_inference_"}[source]

    def query() -> str:
        thing = lab.api.get("keda.sh/v1alpha1", "ScaledObject", "numbers-autoscale", space) or {}
        (trigger,) = thing.get("spec", {}).get("triggers", [{}])
        said = str(trigger.get("metadata", {}).get("query", ""))
        return said if series in said else ""

    return wait_until(query, what=f"the ScaledObject for {source}", timeout=60, every=0.5)


# ---------------------------------------------------------------- alerts


@pytest.mark.seconds(150)
def test_what_breaks_rings_within_a_minute_and_no_longer_when_it_is_well(watched: Watched) -> None:
    lab, space = watched.lab, watched.space
    broken = time.time()
    rung: dict[str, float] = {}

    def rings(alert: str, version: str) -> bool:
        found = watched.told("firing", alert, version, broken)
        if found is not None:
            rung.setdefault(alert, found)
        return found is not None

    def look() -> bool:
        kill(watched, "dies")
        return rings("ModelDown", "dies")

    wait_until(look, what="the alert on a killed server", timeout=2 * SOON, every=1)
    # The kubelet would wait before it starts this server again; a new pod has no such past.
    for pod in pods(lab, space, "dies"):
        lab.api.delete("v1", "Pod", pod["metadata"]["name"], space)
    print({alert: round(seconds, 1) for alert, seconds in rung.items()})
    assert max(rung.values()) < SOON, rung
    well = time.time()
    wait_until(
        lambda: watched.told("resolved", "ModelDown", "dies", well) is not None,
        what="the end of the alert",
        timeout=180,
        every=1,
    )


# Beside another test on two cores the requests that fail may be slow, too.
@pytest.mark.alone
@pytest.mark.seconds(240)
def test_an_error_storm_and_a_slow_model_ring_within_a_minute_and_no_longer_when_they_are_well(
    breaking: Watched,
) -> None:
    """By the rules that the trait slo put into ConfigMaps, which a container beside Prometheus brings it."""
    watched = breaking
    lab, space = watched.lab, watched.space
    for name in BREAKS:
        query = f'count(model:slo_objective:ratio{{namespace="{space}",component="{name}"}})'
        holds(lab, query, lambda found: found == 2, f"the objectives of {name}", 180)  # its rules are seldom computed
    rung: dict[str, float] = {}

    def all_told(status: str, since: float, times: dict[str, float]) -> bool:
        for name, (_, alert) in BREAKS.items():
            if name not in times and (found := watched.told(status, alert, name, since)) is not None:
                times[name] = found
        return len(times) == len(BREAKS)

    broken = time.time()
    with ExitStack() as traffic:
        for name, (asked_for, _) in BREAKS.items():
            traffic.enter_context(steady(watched.client(name), PATH, body(asked_for), 2, 2 * SOON))
        wait_until(lambda: all_told("firing", broken, rung), what="both alerts", timeout=2 * SOON, every=1)
    print({name: round(seconds, 1) for name, seconds in rung.items()})
    assert max(rung.values()) < SOON, rung
    well = time.time()
    ended: dict[str, float] = {}
    with ExitStack() as traffic:
        for name in BREAKS:
            traffic.enter_context(steady(watched.client(name), PATH, body(0), 8, 180))
        wait_until(lambda: all_told("resolved", well, ended), what="the end of both", timeout=180, every=1)
    print({name: round(seconds, 1) for name, seconds in ended.items()})
    # What is broken is told from what is not.
    for name, (_, alert) in BREAKS.items():
        others = {other for _, other in BREAKS.values()} - {alert}
        rang = {other: watched.told("firing", other, name, broken) for other in others}
        assert not any(found is not None for found in rang.values()), (name, rang)


def kill(watched: Watched, name: str) -> None:
    """SIGKILL to a model's servers, as long as there are any."""
    for pod in pods(watched.lab, watched.space, name):
        for container in pod["status"].get("containerStatuses", []):
            if container["name"] == "kserve-container" and "running" in container["state"]:
                known_as = str(container["containerID"]).rpartition("/")[2]
                command = ["docker", "exec", pod["spec"]["nodeName"], "ctr", "--namespace=k8s.io", "tasks", "kill"]
                # It may have ended by itself meanwhile.
                subprocess.run(
                    [*command, "--signal=SIGKILL", known_as],
                    env=watched.lab.environment(),
                    check=False,
                    capture_output=True,
                    timeout=60,
                )


# ---------------------------------------------------------------- what is gone


@pytest.mark.seconds(40)
def test_what_is_gone_leaves_no_ghost(watched: Watched) -> None:
    lab, space = watched.lab, watched.space
    now = f'{{__name__=~"model:.+",namespace="{space}",version="dies"}}'
    assert asked(lab, now)
    down(lab, space, "dies")
    at_once = now.replace("model:.+", "model:(info|replicas|waiting)")
    wait_until(lambda: not asked(lab, at_once), what=f"the end of {at_once}", timeout=30, every=1)
    # What is over a minute ends with its window; so does what is over five, which is not waited for.
    of_a_minute = now.replace("model:.+", "model:.+:rate1m")
    wait_until(lambda: not asked(lab, of_a_minute), what=f"the end of {of_a_minute}", timeout=90, every=1)
    assert not asked(lab, f'ALERTS{{namespace="{space}",version="dies"}}')
    # The others are still there.
    assert asked(lab, now.replace("dies", "numbers"))


@pytest.mark.parametrize(
    "query",
    [
        'sum(up{job="pods",namespace="kserve"})',
        'sum(up{job="pods",namespace="projectcontour"})',
        "sum(DCGM_FI_DEV_FB_FREE)",
    ],
)
def test_what_the_lab_itself_runs_is_measured_too(kind_lab: KindLab, query: str) -> None:
    assert wait_until(lambda: number(kind_lab, query), what=query, timeout=60, every=1)
