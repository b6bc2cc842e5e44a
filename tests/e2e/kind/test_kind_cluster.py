"""The cluster itself: nodes, DNS, pods that answer on a mapped port."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from pytest_kind.cluster import KindCluster

from velagen.lab import condition, wait_until
from velagen.lab.api import ApiError
from velagen.lab.kind import NODE_PORTS, KindLab
from velagen.lab.kind.stack import local

IMAGE = "velagen.local/python:3.11"


@pytest.fixture(scope="module")
def python(kind_lab: KindLab) -> None:
    kind_lab.load(["python"])


def pod(name: str, namespace: str, *command: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": list(command)}],
        },
    }


def finished(lab: KindLab, namespace: str, name: str, timeout: float = 120) -> str:
    """Wait for a pod to end well; give what it printed."""

    def look() -> str:
        phase = str((lab.api.get("v1", "Pod", name, namespace) or {}).get("status", {}).get("phase", ""))
        return phase if phase in {"Succeeded", "Failed"} else ""

    phase = wait_until(look, what=f"pod {name}", timeout=timeout, every=0.5)
    said = lab.kubectl("logs", name, "-n", namespace)
    assert phase == "Succeeded", said
    return said


def test_pytest_kind_sees_the_nodes_and_they_are_ready(kind_cluster: KindCluster, kind_lab: KindLab) -> None:
    said = kind_cluster.kubectl("get", "nodes", "-o", "name")
    assert f"node/{kind_lab.cluster}-control-plane" in said
    assert all(condition(node, "Ready") == "True" for node in kind_lab.api.list("v1", "Node"))


def test_names_resolve_inside_the_cluster(kind_lab: KindLab, python: None, space: str) -> None:
    code = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    kind_lab.api.apply(pod("dns", space, "python", "-c", code))
    assert finished(kind_lab, space, "dns").strip() == "10.96.0.1"


def test_a_name_that_is_not_there_does_not_resolve(kind_lab: KindLab, python: None, space: str) -> None:
    code = (
        "import socket\ntry: socket.gethostbyname('nobody.default.svc.cluster.local')\n"
        "except socket.gaierror as e: print('refused', e.errno)"
    )
    kind_lab.api.apply(pod("dns", space, "python", "-c", code))
    assert finished(kind_lab, space, "dns").startswith("refused")


def test_a_pod_answers_on_this_machines_loopback(kind_lab: KindLab, python: None, space: str) -> None:
    labels = {"app": "web"}
    server = "cd /tmp && echo hello from a pod > index.html && exec python -m http.server 8000"
    kind_lab.api.apply(pod("web", space, "sh", "-c", server, labels=labels))
    kind_lab.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": space},
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"port": 80, "targetPort": 8000, "nodePort": NODE_PORTS["open"]}],
            },
        }
    )

    def answer() -> str:
        try:
            return local().get(kind_lab.url("open"), timeout=5).text
        except requests.RequestException:
            return ""

    try:
        assert wait_until(answer, what="an answer", timeout=60, every=0.5) == "hello from a pod\n"
    finally:
        # The one open port is free again for the next test, at once.
        kind_lab.api.delete("v1", "Service", "web", space)


def test_exec_reaches_into_a_pod(kind_lab: KindLab, python: None, space: str) -> None:
    kind_lab.api.apply(pod("sleeper", space, "sleep", "600"))
    kind_lab.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "-n", space, "--timeout=60s")
    assert kind_lab.kubectl("exec", "sleeper", "-n", space, "--", "cat", "/etc/hostname").strip() == "sleeper"


def test_kubevelas_webhook_refuses_what_is_wrong(kind_lab: KindLab, space: str) -> None:
    wrong = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "wrong", "namespace": space},
        "spec": {
            "components": [{"name": "web", "type": "webservice", "properties": {"image": "x"}}],
            "workflow": {"steps": [{"name": "a", "type": "suspend"}, {"name": "a", "type": "suspend"}]},
        },
    }
    with pytest.raises(ApiError, match="denied the request"):
        kind_lab.api.apply(wrong, patience=0)


def test_kserves_webhook_refuses_what_is_wrong(kind_lab: KindLab, space: str) -> None:
    wrong = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "wrong", "namespace": space},
        "spec": {
            "predictor": {
                "minReplicas": 3,
                "maxReplicas": 1,
                "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/x"},
            }
        },
    }
    with pytest.raises(ApiError, match="'MinReplicas' cannot be greater than MaxReplicas"):
        kind_lab.api.apply(wrong, patience=0)
