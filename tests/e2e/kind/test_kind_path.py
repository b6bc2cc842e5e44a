"""A transformer and an explainer in the path of a request: texts in, labels and SHAP values out.

In a namespace with Pod Security restricted: what answers here runs there as it is rendered.
"""

from __future__ import annotations

import math

import pytest
from tests.e2e.kind.serving import SMALL, Client, pods, run_in_image, up, wait_ready

from velagen.lab.kind import KindLab

TRANSFORMER, EXPLAINER = "velagen.local/text-transformer:1", "velagen.local/shap-explainer:1"

# Runs in the explainer's image, so that pickles and SHAP are of the versions that serve.
TRAIN = """
import itertools, json, os
import boto3, joblib, numpy, shap
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
GOOD = ["good", "great", "fine", "lovely", "superb", "moving"]
BAD = ["bad", "awful", "poor", "dull", "boring", "weak"]
THINGS = ["film", "play", "book", "story", "song", "scene"]
texts = [f"a {word} {thing}" for word, thing in itertools.product(GOOD + BAD, THINGS)]
labels = ["positive"] * len(GOOD) * len(THINGS) + ["negative"] * len(BAD) * len(THINGS)
words = HashingVectorizer(n_features=512, alternate_sign=False, dtype=numpy.float32)
rows = words.transform(texts).toarray()
model = LogisticRegression(C=10).fit(rows, [["negative", "positive"].index(label) for label in labels])
# What a user has at home, in one piece; its classes are the labels.
local = make_pipeline(words, LogisticRegression(C=10)).fit(texts, labels)
os.makedirs("/tmp/words"), os.makedirs("/tmp/model"), os.makedirs("/tmp/why")
joblib.dump(model, "/tmp/model/model.joblib")
joblib.dump(model, "/tmp/why/model.joblib")
joblib.dump(words, "/tmp/words/vectorizer.joblib")
joblib.dump(words, "/tmp/why/vectorizer.joblib")
numpy.save("/tmp/why/background.npy", rows[::3])
json.dump(["negative", "positive"], open("/tmp/words/labels.json", "w"))
store = boto3.client("s3", endpoint_url="http://object-store.model-store:5000", region_name="us-east-1",
                     aws_access_key_id="a", aws_secret_access_key="b")
for folder in ("model", "words", "why"):
    for name in os.listdir(f"/tmp/{folder}"):
        store.upload_file(f"/tmp/{folder}/{name}", "models", f"review/{folder}/{name}")
ask = ["a superb film and a moving story", "a dull song", "a weak scene, and the play was bad", "lovely", "a poor book"]
asked = words.transform(ask).toarray()
background = rows[::3]
why = shap.LinearExplainer(model, shap.maskers.Independent(background, max_samples=len(background)))(asked)
print(json.dumps({"texts": ask, "labels": local.predict(ask).tolist(), "score": local.score(texts, labels),
                  "margins": local.decision_function(ask).tolist(), "scores": local.predict_proba(ask).tolist(),
                  "values": why.values.tolist(), "base": why.base_values.tolist()}))
"""


def near(one: object, other: object) -> bool:
    """Whether two nested lists hold the same numbers, but for what single precision loses."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(near, one, other))
    assert isinstance(one, float | int), one
    assert isinstance(other, float | int), other
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.seconds(120)
def test_texts_become_labels_and_are_explained(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["sklearnserver", "text-transformer", "shap-explainer"])
    model = run_in_image(kind_lab, space, EXPLAINER, TRAIN)
    # From here on: the pod that trained would be refused.
    restricted = {"name": space, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    kind_lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": restricted})
    assert model["score"] == 1
    assert set(model["labels"]) == {"positive", "negative"}
    beside = {
        "minReplicas": 1,
        "resources": SMALL,
        "readinessPath": "/v1/models/review",
        # Ready once the predictor can be reached from here, which can be a moment after its pod is.
        "args": ["--enable_predictor_health_check"],
    }
    up(
        kind_lab,
        space,
        "review",
        {
            "runtime": "sklearn",
            "modelUri": "s3://models/review/model",
            "minReplicas": 1,
            "resources": SMALL,
            # Scores of each class, not the class alone.
            "env": [{"name": "PREDICT_PROBA", "value": "true"}],
            "transformer": {
                "image": TRANSFORMER,
                "artifactsUri": "s3://models/review/words",
                "pod": {"imagePullSecrets": [{"name": "hub"}]},
                **beside,
            },
            "explainer": {"image": EXPLAINER, "artifactsUri": "s3://models/review/why", **beside},
        },
    )
    wait_ready(kind_lab, space, "review")
    # The kubelet would ask a private registry with it.
    secrets = {
        pod["metadata"]["labels"]["component"]: pod["spec"].get("imagePullSecrets")
        for pod in pods(kind_lab, space, "review")
    }
    assert secrets == {"predictor": None, "transformer": [{"name": "hub"}], "explainer": None}
    client = Client(kind_lab, space, "review")
    body = {"instances": model["texts"]}

    assert client.ask("/v1/models/review:predict", body) == {"predictions": model["labels"]}
    # The same in V2, whatever the predictor speaks.
    tensor = {"name": "text", "shape": [len(model["texts"])], "datatype": "BYTES", "data": model["texts"]}
    assert client.ask("/v2/models/review/infer", {"inputs": [tensor]})["outputs"][0]["data"] == model["labels"]

    answer = client.ask("/v1/models/review:explain", body)
    assert near(answer["values"], model["values"])
    assert near(answer["base_values"], model["base"])
    sums = [base + sum(row) for base, row in zip(answer["base_values"], answer["values"], strict=True)]
    assert near(sums, model["margins"])
    # What was explained is what the deployed predictor says, not the explainer's copy alone.
    assert near(answer["predictions"], model["scores"])
    assert [total > 0 for total in sums] == [label == "positive" for label in model["labels"]]

    # Who sends numbers is told what to send, by the transformer and by the explainer.
    for verb in ("predict", "explain"):
        refused = client.send(f"/v1/models/review:{verb}", {"instances": [[1.0, 2.0]]})
        assert refused.status_code == 400, refused.text
        assert "texts" in refused.json()["error"]
