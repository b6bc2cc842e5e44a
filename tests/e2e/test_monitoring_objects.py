"""The addon's parameter monitoring on a cluster: what it installs, what it refuses, what definitions take from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cluster

from velagen.lab import Lab, wait_until
from velagen.lab.vela import vela
from velagen.monitoring.objects import API, CRDS
from velagen.tools import source

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.both, pytest.mark.seconds(90)]

ADDON = Path(__file__).parents[2] / "addon" / "kfserving"
DEFINITIONS = "core.oam.dev/v1beta1"
CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


@pytest.fixture
def enable(lab: Lab) -> Iterator[Callable[..., str]]:
    """Enables the addon; afterwards it is again as it comes."""

    def enabled(*settings: str, works: bool = True) -> str:
        for _ in range(3):
            done = vela(lab.kubeconfig, "addon", "enable", ADDON, *settings, check=False, timeout=300)
            # Twice in a row, KubeVela is still at the definitions from the first time.
            if "the object has been modified" not in done.stderr:
                break
        assert (done.returncode == 0) == works, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield enabled
    enabled()
    for name in CRDS.values():
        lab.api.delete(*CRD, name)


def install_crds(lab: Lab) -> None:
    folder = source("prometheus-operator") / "example/prometheus-operator-crd"
    for name in CRDS.values():
        plural, _, group = name.partition(".")
        lab.api.apply(yaml.load((folder / f"{group}_{plural}.yaml").read_bytes(), Loader=yaml.CSafeLoader))


def made(lab: Lab, kind: str, namespace: str) -> dict[str, Any] | None:
    try:
        return lab.api.get(API, kind, "kfserving-models", namespace)
    except LookupError:  # the cluster has no such kind
        return None


def test_without_the_operator_it_is_said_what_to_write_and_nothing_breaks(lab: Lab, enable: Callable[..., str]) -> None:
    enable("monitoring.objects=annotations")
    said = enable("monitoring.objects=pod-monitor", "monitoring.rules=true", works=False)
    assert 'run "vela status addon-kfserving -n vela-system"' in said
    status = vela(lab.kubeconfig, "status", "addon-kfserving", "-n", "vela-system").stdout
    assert f"this cluster has no PodMonitors ({CRDS['PodMonitor']}): install the Prometheus operator" in status
    assert "or enable the addon with monitoring.objects=annotations" in status
    assert "or enable the addon with monitoring.rules=false" in status
    assert lab.api.get(DEFINITIONS, "ComponentDefinition", "kfserving", "vela-system") is not None
    # The operator is installed: the same command works.
    install_crds(lab)
    enable("monitoring.objects=pod-monitor", "monitoring.rules=true", "monitoring.labels.release=prometheus")
    for kind in CRDS:
        found = made(lab, kind, "vela-system")
        assert found is not None
        assert found["metadata"]["labels"]["release"] == "prometheus"
    # What is asked for no more goes.
    enable("monitoring.rules=true")
    wait_until(lambda: made(lab, "PodMonitor", "vela-system") is None, what="the PodMonitor gone", timeout=60)
    assert made(lab, "PrometheusRule", "vela-system") is not None


def application(name: str, component: dict[str, Any], trait: dict[str, Any]) -> dict[str, Any]:
    properties = {"runtime": "sklearn", "modelUri": "s3://models/iris", **component}
    scaling = {"metric": "qps", "target": 50, "maxReplicas": 3, **trait}
    traits = [{"type": "autoscale", "properties": scaling}]
    components = [{"name": name, "type": "kfserving", "properties": properties, "traits": traits}]
    return {
        "apiVersion": DEFINITIONS,
        "kind": "Application",
        "metadata": {"name": name},
        "spec": {"components": components},
    }


def test_a_property_wins_over_the_addon_and_the_addon_over_kubevela(
    cluster: Cluster, enable: Callable[..., str]
) -> None:
    def asked(name: str) -> str:
        found = cluster.wait_for(lambda: cluster.get("keda.sh/v1alpha1", "ScaledObject", f"{name}-autoscale"), name)
        assert found
        return str(found["spec"]["triggers"][0]["metadata"]["serverAddress"])

    def is_annotated(name: str) -> bool:
        found = cluster.wait_for(lambda: cluster.inference_service(name), name)
        assert found
        return "prometheus.io/scrape" in found["spec"]["predictor"]["annotations"]

    enable("monitoring.prometheus=http://prometheus.monitoring.svc:9090", "monitoring.objects=none")
    cluster.up(application("addons", {}, {}))
    cluster.up(application("own", {"scrape": True}, {"prometheusAddress": "https://mine.example.com/prometheus"}))
    assert asked("addons") == "http://prometheus.monitoring.svc:9090"
    assert not is_annotated("addons")
    assert asked("own") == "https://mine.example.com/prometheus"
    assert is_annotated("own")

    def form() -> bool:
        found = cluster.api.get("v1", "ConfigMap", "trait-schema-autoscale", "vela-system") or {}
        return '"default":"http://prometheus.monitoring.svc:9090"' in found["data"]["openapi-v3-json-schema"]

    cluster.wait_for(form, "the address in the form")
    enable()
    # What runs stays as it is until its application is changed.
    assert asked("addons") == "http://prometheus.monitoring.svc:9090"
    cluster.up(application("plain", {}, {}))
    assert asked("plain") == "http://prometheus-server.o11y-system.svc:9090"
    assert is_annotated("plain")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("monitoring.objects=service-monitor", "monitoring.objects must be annotations, pod-monitor or none"),
        ("monitoring.rules=yes", "monitoring.rules must be true or false"),
        ("monitoring.interval=30s", "monitoring.interval must be 1s to 15s: the rules compute rates over one minute"),
        ("monitoring.prometheus=prometheus:9090", "monitoring.prometheus must be http:// or https://"),
        ("monitoring.prometheus=http://a/?x=1", "monitoring.prometheus must be http:// or https://"),
        ("monitoring.prometheus=http://169.254.169.254/latest", "monitoring.prometheus is no Prometheus"),
        ("monitoring.namespace=A_B", "monitoring.namespace must be the name of a namespace"),
        ("monitoring.labels.a=-", "each of monitoring.labels must be the value of a label"),
        ("monitoring.prometeus=http://a", "parameter.monitoring.prometeus: field not allowed"),
        ("gateway=nginx", "gateway must be gateway-api, istio or none"),
        ("install=yes", "install must be true or false"),
        ("admission.action=Refuse", "admission.action must be Deny, Warn or Audit"),
        ("scheduler.name=packed", "scheduler.image is required"),
        ("scheduler.image=kube-scheduler", "scheduler.image must be an image of kube-scheduler with its tag or digest"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(lab: Lab, setting: str, said: str) -> None:
    done = vela(lab.kubeconfig, "addon", "enable", ADDON, setting, "--dry-run", check=False)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
