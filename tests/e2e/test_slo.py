"""The trait slo and the step check-slo on the real vela-core: the API server takes the rules, and the gate holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.conftest import Cluster
from tests.e2e.loopback import Quiet, listening

from velagen.lab import Lab, wait_until
from velagen.lab.vela import vela
from velagen.monitoring.objects import groups_of
from velagen.tools import source

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.both, pytest.mark.seconds(60)]

ROOT = Path(__file__).parents[2]
CRD = "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
NAMES = ("model:slo_objective:ratio", "model:slo_achieved:ratio", "model:slo_budget_left:ratio")


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")


@pytest.fixture
def operator(lab: Lab) -> Iterator[None]:
    """The operator's kind of object, without the operator."""
    crd = yaml.safe_load((source("prometheus-operator") / CRD).read_text(encoding="utf-8"))
    name, api = crd["metadata"]["name"], "apiextensions.k8s.io/v1"
    lab.api.apply(crd)

    def is_served() -> bool:
        found = lab.api.get(api, "CustomResourceDefinition", name) or {}
        conditions = found.get("status", {}).get("conditions") or ()
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    wait_until(is_served, what="PrometheusRules are served", timeout=30)
    yield
    lab.api.delete(api, "CustomResourceDefinition", name)


@contextmanager
def prometheus() -> Iterator[tuple[str, dict[str, Any]]]:
    """A stand-in on loopback, and by component what it answers: (slo, window, achieved, left) each, or a page."""
    answers: dict[str, Any] = {}

    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            (query,) = parse_qs(urlsplit(self.path).query)["query"]
            found: Any = next((answer for name, answer in answers.items() if f'component="{name}"' in query), [])
            assert all(name in query for name in NAMES)
            body = found if isinstance(found, str) else json.dumps(answered(found))
            self.send_response(500 if "broken" in query else 200)
            self.end_headers()
            self.wfile.write(body.encode())

    with listening(Handler) as address:
        yield address, answers


def answered(objectives: Sequence[tuple[str, str, str | None, str | None]]) -> dict[str, Any]:
    """As Prometheus' API answers: docs/querying/api.md."""
    result = []
    for slo, window, *numbers in objectives:
        for name, number in zip(NAMES, ("0.999", *numbers), strict=True):
            if number is not None:
                metric = {"__name__": name, "slo": slo, "window": window}
                result.append({"metric": metric, "value": [1764330000.1, number]})
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def gate(component: str, address: str, **properties: Any) -> dict[str, Any]:
    """An application of one ConfigMap whose workflow is the step."""
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": component}}
    step = {"component": component, "prometheus": address, **properties}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": component},
        "spec": {
            "components": [{"name": component, "type": "k8s-objects", "properties": {"objects": [held]}}],
            "workflow": {"steps": [{"name": "budget", "type": "check-slo", "properties": step}]},
        },
    }


def test_a_gate_goes_on_waits_or_fails_and_says_what_is_left(cluster: Cluster) -> None:
    plenty = [("availability", "30d", "0.99952", "0.52"), ("latency", "30d", "0.999996", "0.9996")]
    short = [("availability", "30d", "0.99904", "0.04"), ("latency", "28d", "0.98", "-1.1")]
    uncounted = [("availability", "30d", "0.9995", "0.5"), ("latency", "30d", None, None)]
    unknown = "no error budget is known: "

    def state(name: str) -> tuple[str, str]:
        app = cluster.application(name) or {}
        steps = app.get("status", {}).get("workflow", {}).get("steps") or [{}]
        return steps[0].get("phase", ""), steps[0].get("message", "")

    def reaches(name: str, phase: str) -> None:
        cluster.wait_for(lambda: state(name)[0] == phase, f"{name} {phase}")

    with prometheus() as (address, answers):
        answers |= {"plenty": plenty, "short": short, "spent": short, "later": short, "half": uncounted, "page": "<p>"}
        answers |= {"not-a-number": [("availability", "30d", "NaN", "NaN")], "broken": plenty, "empty": ""}
        answers |= {"infinite": [("availability", "30d", "0.9", "+Inf")], "cut": json.dumps(answered(plenty))[:-9]}
        cases = {
            "plenty": gate("plenty", address),
            "short": gate("short", address, minimumBudget=0),
            "spent": gate("spent", address, onShortBudget="fail"),
            "later": gate("later", address, onShortBudget="wait"),
            "half": gate("half", address),
            "page": gate("page", address),
            "not-a-number": gate("not-a-number", address),
            "infinite": gate("infinite", address),
            "broken": gate("broken", address),
            "empty": gate("empty", address),
            "cut": gate("cut", address, onNoData="pass"),
            "nothing": gate("nothing", address, onNoData="wait"),
            "blind": gate("blind", address, onNoData="pass"),
        }
        for one in cases.values():
            cluster.up(one)
        availability = "availability: 99.904 % of 30d, budget left 4 %"
        missing = f"in {cluster.namespace}: it needs the trait slo, and Prometheus its rules"
        wanted = {
            "plenty": (
                "succeeded",
                "availability: 99.952 % of 30d, budget left 52 %; latency: 99.999 % of 30d, budget left 99 %",
            ),
            "spent": (
                "failed",
                f"{availability}; latency: 98 % of 28d, budget left -110 %: below the 10 % that must be left",
            ),
            "half": ("failed", f"{unknown}nothing is counted yet for the latency of half"),
            "page": ("failed", f"{unknown}{address} does not answer as Prometheus does (status 200)"),
            "not-a-number": ("failed", f"{unknown}nothing is counted yet for the availability of not-a-number"),
            "infinite": ("failed", f"{unknown}nothing is counted yet for the availability of infinite"),
            "broken": ("failed", f"{unknown}{address} does not answer as Prometheus does (status 500)"),
            "empty": ("failed", f"{unknown}{address} does not answer as Prometheus does (status 200)"),
            # What somebody wanted to pass says that nothing is known.
            "cut": ("succeeded", f"went on although {unknown}{address} does not answer as Prometheus does"),
            "nothing": ("running", f"waits, {unknown}Prometheus knows no objective of nothing {missing}"),
            "blind": (
                "succeeded",
                f"went on although {unknown}Prometheus knows no objective of blind {missing}",
            ),
            "later": (
                "running",
                f"{availability}; latency: 98 % of 28d, budget left -110 %: waits for 10 %",
            ),
        }
        # An overspent budget is below nothing left, too.
        wanted["short"] = ("failed", "below the 0 % that must be left")
        for name, (phase, message) in wanted.items():
            reaches(name, phase)
            assert message in state(name)[1], name
        said = cluster.vela("status", "plenty", "-n", cluster.namespace).stdout
        assert "availability: 99.952 % of 30d, budget left 52 %" in said
        # What is short is enough later.
        answers |= {"later": plenty, "nothing": plenty}
        for name in ("later", "nothing"):
            reaches(name, "succeeded")


def test_an_address_where_nobody_answers_is_no_pass(cluster: Cluster) -> None:
    with prometheus() as (address, _):
        pass
    addresses = {"dead": (address, "connection refused"), "nowhere": ("http://nowhere.invalid:9090", "lookup nowhere")}
    for name, (where, _) in addresses.items():
        cluster.up(gate(name, where, onNoData="pass"))

    def workflow(name: str) -> dict[str, Any]:
        app = cluster.application(name) or {}
        found: dict[str, Any] = app.get("status", {}).get("workflow", {})
        return found

    def all_failed() -> bool:
        return all(workflow(name).get("status") == "failed" for name in addresses)

    cluster.wait_for(all_failed, "the workflows have failed")
    for name, (_, why) in addresses.items():
        assert why in workflow(name)["steps"][0]["message"]


@pytest.mark.usefixtures("operator")
def test_the_api_server_takes_the_rules_and_the_status_says_what_is_promised(cluster: Cluster) -> None:
    app = yaml.safe_load((ROOT / "examples/slo.yaml").read_text(encoding="utf-8"))
    (trait,) = app["spec"]["components"][0]["traits"]
    trait["properties"] |= {"prometheusRule": True, "labels": {"release": "prometheus"}}
    cluster.up(app)
    name = app["metadata"]["name"]

    def made(kind: str, api: str) -> dict[str, Any] | None:
        return cluster.api.get(api, kind, f"{name}-slo", cluster.namespace)

    cluster.wait_for(lambda: made("PrometheusRule", "monitoring.coreos.com/v1") is not None, "a PrometheusRule")
    rule = made("PrometheusRule", "monitoring.coreos.com/v1") or {}
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert [one["name"] for one in groups_of(rule)] == [f"slo-{cluster.namespace}-{name}"]
    promised = "99.9 % of requests succeed, 99 % within 250 ms"
    cluster.wait_for(lambda: promised in str((cluster.application(name) or {}).get("status")), promised)
    # As a rule file, for a Prometheus without the operator.
    trait["properties"]["prometheusRule"] = False
    cluster.up(app)
    cluster.wait_for(lambda: made("ConfigMap", "v1") is not None, "a ConfigMap")
    assert groups_of(made("ConfigMap", "v1") or {}) == groups_of(rule)
