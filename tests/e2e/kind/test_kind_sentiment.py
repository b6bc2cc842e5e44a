"""The article's application, as it is: sentences go in by REST and gRPC, the answers are those of the model at home."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
import yaml
from pytest_kind.cluster import KindCluster
from tests.e2e.kind.serving import PATIENCE, down, pods, wait_ready

from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab, models
from velagen.lab.kind.stack import local
from velagen.tools import tool

ROOT = Path(__file__).parents[3]
#: What the training script's own pipeline says of each (`train.py --golden`).
GOLDEN = json.loads((ROOT / "tests/e2e/fixtures/sentiment.json").read_text())
#: Another ONNX Runtime or processor rounds otherwise; an error of the model would be a thousand times larger.
CLOSE = 1e-3


@contextmanager
def deployed(lab: KindLab, space: str, example: str) -> Iterator[str]:
    """Bring an example up as a user does, unchanged, and give its name; the pods are gone afterwards."""
    path = ROOT / "examples" / example
    name = str(yaml.safe_load(path.read_text())["metadata"]["name"])
    done = subprocess.run(
        [str(tool("vela")), "up", "-f", str(path), "-n", space],
        env=lab.environment(),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        wait_ready(lab, space, name)
        yield name
    finally:
        down(lab, space, name)


def ready(lab: KindLab, space: str, name: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods(lab, space, name) if condition(pod, "Ready") == "True"]


def rest(lab: KindLab, space: str, name: str, texts: list[str]) -> list[tuple[str, float]]:
    """Ask through the gateway, by REST in the open inference protocol, all texts in one request."""
    body = {"inputs": [{"name": "TEXT", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}]}
    host = {"Host": f"{name}-{space}.example.com"}
    url = f"{lab.url('gateway')}/v2/models/sentiment/infer"
    answer = local().post(url, json=body, headers=host, timeout=60)
    assert answer.status_code == requests.codes.ok, answer.text
    outputs = {entry["name"]: entry for entry in answer.json()["outputs"]}
    assert outputs["LABEL"]["shape"] == outputs["SCORE"]["shape"] == [len(texts), 1]
    return list(zip(outputs["LABEL"]["data"], outputs["SCORE"]["data"], strict=True))


def same(answer: tuple[str, float], golden: Mapping[str, Any]) -> bool:
    label, score = answer
    positive = golden["positive"]
    assert label == ("positive" if positive >= 0.5 else "negative"), (golden, answer)
    assert score == pytest.approx(max(positive, 1 - positive), abs=CLOSE), (golden, answer)
    return True


def by_grpc(target: str, texts: list[str], authority: str = "") -> list[tuple[str, float]]:
    """Ask one server, all texts in one request.

    Args:
        authority: what HTTP/2 has in the place of the header Host.
    """
    options = [("grpc.enable_http_proxy", 0), *([("grpc.default_authority", authority)] if authority else [])]
    given = triton.InferInput("TEXT", [len(texts), 1], "BYTES")
    given.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=object))
    with triton.InferenceServerClient(target, channel_args=options) as client:
        answer = client.infer("sentiment", [given], client_timeout=60)
    labels, scores = answer.as_numpy("LABEL"), answer.as_numpy("SCORE")
    return [(label.decode(), float(score)) for label, score in zip(labels[:, 0], scores[:, 0], strict=True)]


def test_the_articles_application_answers_by_rest_and_grpc(
    kind_lab: KindLab, kind_cluster: KindCluster, space: str
) -> None:
    with deployed(kind_lab, space, "sentiment.yaml") as name:
        wait_until(lambda: len(ready(kind_lab, space, name)) == 2, what="two ready pods", timeout=PATIENCE)
        for golden in GOLDEN:
            (answer,) = rest(kind_lab, space, name, [golden["text"]])
            assert same(answer, golden)
        batch = GOLDEN[:8]
        answers = rest(kind_lab, space, name, [golden["text"] for golden in batch])
        assert all(same(answer, golden) for answer, golden in zip(answers, batch, strict=True))
        for pod in ready(kind_lab, space, name):
            with kind_cluster.port_forward(f"pod/{pod}", 9000, "-n", space) as port:
                answers = by_grpc(f"127.0.0.1:{port}", [golden["text"] for golden in batch])
            assert all(same(answer, golden) for answer, golden in zip(answers, batch, strict=True))


def test_the_grpc_example_answers_through_the_gateway(kind_lab: KindLab, space: str) -> None:
    with deployed(kind_lab, space, "grpc.yaml") as name:
        target = kind_lab.url("gateway").removeprefix("http://")
        authority = f"{name}-{space}.example.com"
        for golden in GOLDEN[:4]:
            (answer,) = by_grpc(target, [golden["text"]], authority)
            assert same(answer, golden)


def test_one_address_answers_rest_and_grpc(kind_lab: KindLab, space: str) -> None:
    with deployed(kind_lab, space, "rest-and-grpc.yaml") as name:
        target = kind_lab.url("gateway").removeprefix("http://")
        authority = f"{name}-{space}.example.com"
        for golden in GOLDEN[:4]:
            for (answer,) in (
                rest(kind_lab, space, name, [golden["text"]]),
                by_grpc(target, [golden["text"]], authority),
            ):
                assert same(answer, golden)


@pytest.mark.parametrize("example", ["warmup.yaml", "dynamic-batching.yaml"])
def test_the_other_examples_of_the_model_answer_too(kind_lab: KindLab, space: str, example: str) -> None:
    with deployed(kind_lab, space, example) as name:
        batch = GOLDEN[:4]
        answers = rest(kind_lab, space, name, [golden["text"] for golden in batch])
        assert all(same(answer, golden) for answer, golden in zip(answers, batch, strict=True))
        for model in ("sentiment", "sentiment-encoder"):
            url = f"{kind_lab.url('gateway')}/v2/models/{model}/config"
            config = local().get(url, headers={"Host": f"{name}-{space}.example.com"}, timeout=30).json()
            asked = config.get("dynamic_batching", {}).get("preferred_batch_size")
            assert asked == ([4, 8] if "batching" in example else None)


#: Asked in the store's own pod, which has Python. Any name does: the signature is not looked at.
READ = """
import urllib.request
url = "http://127.0.0.1:5000/models/sentiment/1/sentiment/config.pbtxt"
signed = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
request = urllib.request.Request(url, headers={"Authorization": signed})
print(urllib.request.urlopen(request, timeout=30).read().decode(), end="")
"""


def test_the_model_is_there_again_after_the_store_has_restarted(kind_lab: KindLab, space: str) -> None:
    # A store of the test's own, from the same template: the lab's may hold models of others.
    thing = models.store_objects()[0]
    thing["metadata"]["namespace"] = space
    kind_lab.api.apply(thing)
    config = (ROOT / "generator/velagen/lab/models/sentiment/config.pbtxt").read_text()
    seen: list[str] = []
    for _ in range(2):
        name = wait_until(lambda: standing(kind_lab, space, seen), what="the store", timeout=PATIENCE)
        seen.append(name)
        assert kind_lab.kubectl("exec", name, "-n", space, "--", "python", "-c", READ) == config
        kind_lab.api.delete("v1", "Pod", name, space)


def standing(lab: KindLab, space: str, gone: list[str]) -> str:
    """The store's pod that is ready, and not one of those that were deleted; else nothing."""
    for pod in lab.api.list("v1", "Pod", space, selector="app=object-store"):
        name = str(pod["metadata"]["name"])
        if name not in gone and condition(pod, "Ready") == "True":
            return name
    return ""
