"""One model, trained, stored, deployed, asked through pytest-kind's tunnel; all kinds: test_kind_predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from pytest_kind.cluster import KindCluster
from tests.e2e.kind.test_kind_cluster import finished, pod

from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local

#: Seconds: storage initializer, server and model on a machine with two cores.
PATIENCE = 300

# Runs in the image that serves, so that the versions are those it was pickled with.
TRAIN_SKLEARN = """
import json, joblib, boto3
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
joblib.dump(model, "/tmp/model.joblib")
store = boto3.client("s3", endpoint_url="http://object-store.model-store:5000", region_name="us-east-1",
                     aws_access_key_id="a", aws_secret_access_key="b")
store.upload_file("/tmp/model.joblib", "models", "iris/model.joblib")
rows = x[::10]
print(json.dumps({"rows": rows.tolist(), "answers": model.predict(rows).tolist(), "score": model.score(x, y)}))
"""


def train(lab: KindLab, space: str, image: str, code: str) -> dict[str, Any]:
    thing = pod("train", space, "python", "-c", code)
    thing["spec"]["containers"][0]["image"] = image
    thing["spec"]["containers"][0]["env"] = [{"name": "MPLCONFIGDIR", "value": "/tmp"}]
    lab.api.apply(thing)
    said = finished(lab, space, "train", timeout=PATIENCE)
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def deploy(lab: KindLab, space: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Deploy one model as an application; give its InferenceService when it is Ready."""
    lab.api.apply(
        {
            "apiVersion": "core.oam.dev/v1beta1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": space},
            "spec": {"components": [{"name": name, "type": "kfserving", "properties": properties}]},
        }
    )

    def ready() -> dict[str, Any] | None:
        service = lab.api.get("serving.kserve.io/v1beta1", "InferenceService", name, space)
        return service if condition(service, "Ready") == "True" else None

    try:
        found = wait_until(ready, what=f"InferenceService {name} Ready", timeout=PATIENCE, every=0.5)
    except TimeoutError as error:
        service = lab.api.get("serving.kserve.io/v1beta1", "InferenceService", name, space) or {}
        application = lab.api.get("core.oam.dev/v1beta1", "Application", name, space) or {}
        raise AssertionError(
            f"{error}\n{lab.pods(space)}\n{service.get('status')}\n{application.get('status')}"
        ) from error
    assert found is not None
    return found


@contextmanager
def address(kind_cluster: KindCluster, space: str, name: str, port: int = 80) -> Iterator[str]:
    """A tunnel to a model's Service, as pytest-kind makes it."""
    with kind_cluster.port_forward(f"service/{name}-predictor", port, "-n", space) as here:
        yield f"http://127.0.0.1:{here}"


def post(url: str, body: dict[str, Any], host: str | None = None) -> Any:
    headers = {"Host": host} if host else {}
    answer = local().post(url, json=body, headers=headers, timeout=30)
    assert answer.status_code == requests.codes.ok, answer.text
    return answer.json()


@pytest.fixture
def addon(kind_lab: KindLab) -> None:
    found = kind_lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system")
    assert found is not None, "the addon is not enabled"


def test_a_scikit_learn_model_answers_as_it_does_at_home(
    kind_lab: KindLab, kind_cluster: KindCluster, addon: None, space: str
) -> None:
    model = train(kind_lab, space, "kserve/sklearnserver:v0.20.0", TRAIN_SKLEARN)
    assert model["score"] > 0.9
    deploy(kind_lab, space, "iris", {"runtime": "sklearn", "modelUri": "s3://models/iris", "minReplicas": 1})
    with address(kind_cluster, space, "iris") as here:
        answer = post(f"{here}/v1/models/iris:predict", {"instances": model["rows"]})
        assert answer["predictions"] == model["answers"]
        second = {
            "id": "1",
            "inputs": [
                {
                    "name": "x",
                    "shape": [len(model["rows"]), 4],
                    "datatype": "FP64",
                    "data": [value for row in model["rows"] for value in row],
                }
            ],
        }
        answer = post(f"{here}/v2/models/iris/infer", second)
        assert answer["outputs"][0]["data"] == model["answers"]
    # The same through the gateway: the host name chooses the model.
    entry = kind_lab.url("gateway")
    body = {"instances": model["rows"]}
    answer = post(f"{entry}/v1/models/iris:predict", body, f"iris-{space}.example.com")
    assert answer["predictions"] == model["answers"]
    nobody = local().post(
        f"{entry}/v1/models/iris:predict", json=body, headers={"Host": "nobody.example.com"}, timeout=30
    )
    assert nobody.status_code == requests.codes.not_found
