"""One model, trained, stored, deployed, asked through pytest-kind's tunnel; all kinds: test_kind_predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from pytest_kind.cluster import KindCluster
from tests.e2e.kind.serving import Client, run_in_image, up, wait_ready

from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local

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


@contextmanager
def address(kind_cluster: KindCluster, space: str, name: str, port: int = 80) -> Iterator[str]:
    """A tunnel to a model's Service, as pytest-kind makes it."""
    with kind_cluster.port_forward(f"service/{name}-predictor", port, "-n", space) as here:
        yield f"http://127.0.0.1:{here}"


def post(url: str, body: dict[str, Any]) -> Any:
    answer = local().post(url, json=body, timeout=30)
    assert answer.status_code == requests.codes.ok, answer.text
    return answer.json()


@pytest.fixture
def addon(kind_lab: KindLab) -> None:
    found = kind_lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system")
    assert found is not None, "the addon is not enabled"


def test_a_scikit_learn_model_answers_as_it_does_at_home(
    kind_lab: KindLab, kind_cluster: KindCluster, addon: None, space: str
) -> None:
    model = run_in_image(kind_lab, space, "kserve/sklearnserver:v0.20.0", TRAIN_SKLEARN)
    assert model["score"] > 0.9
    up(kind_lab, space, "iris", {"runtime": "sklearn", "modelUri": "s3://models/iris", "minReplicas": 1})
    wait_ready(kind_lab, space, "iris")
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
    client = Client(kind_lab, space, "iris")
    body = {"instances": model["rows"]}
    assert client.ask("/v1/models/iris:predict", body)["predictions"] == model["answers"]
    client.host = "nobody.example.com"
    assert client.send("/v1/models/iris:predict", body).status_code == requests.codes.not_found
