"""What the component kfserving refuses and takes, spelling by spelling, on the CUE of both KubeVelas."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from velagen.check.addon import _render_definition
from velagen.definition.build import build_definitions
from velagen.kubevela import RELEASES
from velagen.oracle import VERSIONS, Oracle
from velagen.project import Project

ROOT = Path(__file__).parents[2]


@cache
def template_of(name: str) -> str:
    (one,) = (one for one in build_definitions(Project(ROOT)) if one.name == name)
    return _render_definition(one, RELEASES[0]).template


@pytest.fixture(scope="module", params=VERSIONS)
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with Oracle(request.param, seconds=60) as found:
        yield found


def said(oracle: Oracle, properties: list[dict[str, Any]], name: str = "m", namespace: str = "default") -> list[str]:
    """What rendering says to a component with each of *properties*; empty where it renders."""
    context = f'context: {{name: "{name}", appName: "{name}", namespace: "{namespace}"}}'
    return [one.error for one in oracle.render(template_of("kfserving"), properties, context=context)]


# ---------------------------------------------------------------- flags that a property owns

MODEL = {"modelUri": "s3://models/m", "modelName": "m"}
# runtime; an argument, or a variable as $NAME; what must be said of it
TAKEN: list[tuple[str, str, str]] = [
    ("sklearn", "--model_name=llama3", "write modelName"),
    ("sklearn", "--model_name", "write modelName"),
    ("sklearn", "--model-name=llama3", "write modelName"),
    ("sklearn", "--model_na=llama3", "write modelName"),
    ("xgboost", "--model_dir=/x", "write modelUri"),
    ("lightgbm", "--http_port=80", "leave it out, the port"),
    ("sklearn", "--grpc_port", "leave it out, the port"),
    ("sklearn", "--enable_grpc=false", "write protocol"),
    ("huggingface", "--model_name=llama3", "write modelName"),
    ("huggingface", "--model_name llama3", "write modelName"),
    ("huggingface", "--served-model-name=a", "write modelName"),
    ("huggingface", "--model_id=org/x", "write modelUri: hf://ORG/MODEL"),
    ("huggingface", "--model_revision=1", "write modelUri: hf://ORG/MODEL:REVISION"),
    ("huggingface", "--http_port", "leave it out, the port"),
    ("vllm", "--served-model-name", "write modelName"),
    ("vllm", "--served_model_name=a", "write modelName"),
    ("vllm", "--model", "write modelUri: hf://ORG/MODEL"),
    ("vllm", "--port=8000", "leave it out, the port"),
    ("vllm", "--uds=/tmp/s", "leave it out, the port"),
    ("vllm", "--ssl-keyfile=/k", "without TLS"),
    ("triton", "--model-repository=/x", "write modelUri"),
    ("triton", "--model-store", "write modelUri"),
    ("onnx", "--http-port=8000", "leave it out, the port"),
    ("triton", "--http-po=8000", "leave it out, the port"),
    ("triton", "--metrics-port=1", "metrics are asked"),
    ("triton", "--allow-grpc=false", "write protocol"),
    ("tensorflow", "--model_name=x", "write modelName"),
    ("tensorflow", "-model_name=x", "write modelName"),
    ("tensorflow", "--model_base_path=/x", "write modelUri"),
    ("tensorflow", "--rest_api_port=1", "leave it out, the port"),
    ("tensorflow", "--port=1", "leave it out, the port"),
    ("tensorflow", "--model_config_file=/x", "write modelName and modelUri"),
    ("pytorch", "--model-store=/x", "write modelUri"),
    ("pytorch", "--models=a.mar", "write modelName"),
    ("pytorch", "--ts-config=/x", "config.properties"),
    ("pytorch", "$TS_SERVICE_ENVELOPE", "write protocolVersion"),
    ("pytorch", "--foreground; id", "read by a shell"),
    ("pytorch", "$(id)", "read by a shell"),
    ("mlflow", "$MLSERVER_MODEL_NAME", "write modelName"),
    ("mlflow", "$mlserver_model_name", "write modelName"),
    ("mlflow", "$MLSERVER_HTTP_PORT", "leave it out, the port"),
    ("mlflow", "$MLSERVER_MODEL_URI", "write modelUri"),
    ("mlflow", "$MLSERVER_MODEL_MAX_BATCH_SIZE", "write dynamicBatching"),
    ("mlflow", "--http-port=1", "whole command"),
]


def with_word(runtime: str, word: str) -> dict[str, Any]:
    if word.startswith("$") and word[1:].replace("_", "").isalpha():
        return {**MODEL, "runtime": runtime, "env": [{"name": word[1:], "value": "x"}]}
    return {**MODEL, "runtime": runtime, "args": [word]}


def test_what_a_property_owns_is_refused_in_every_spelling(oracle: Oracle) -> None:
    answers = said(oracle, [with_word(runtime, word) for runtime, word, _ in TAKEN])
    wrong = [(row, answer) for row, answer in zip(TAKEN, answers, strict=True) if row[2] not in answer]
    assert not wrong


@pytest.mark.parametrize("at", ["transformer", "explainer"])
def test_a_companion_leaves_to_kserve_what_is_kserves(oracle: Oracle, at: str) -> None:
    def beside(**own: Any) -> dict[str, Any]:
        return {**MODEL, "runtime": "sklearn", at: {"image": "x", **own}}

    uri = [{"name": "STORAGE_URI", "value": "s3://x/y"}]
    name, port, files, own = said(
        oracle,
        [
            beside(args=["--model_name", "x"]),
            beside(args=["--http_port=80"]),
            beside(env=uri),
            beside(args=["--model-name=bert-base", "--model=x", "--predictor_protocol=v2"]),
        ],
    )
    assert f"{at}.args may not hold --model_name: write modelName at the component" in name
    assert f"{at}.args may not hold --http_port=80: leave it out, the container listens on port 8080" in port
    assert f"{at}.env may not set STORAGE_URI: write artifactsUri in its place" in files
    assert own == ""


#: What users publish and servers take.
FREE: list[tuple[str, list[str]]] = [
    ("triton", ["--log-verbose=1", "--model-control-mode=explicit", "--load-model=a", "--http-thread-count=4"]),
    ("sklearn", ["--workers=2", "--max_threads", "8", "--enable_latency_logging=false"]),
    ("huggingface", ["--task=fill_mask", "--backend=huggingface", "--dtype=float32", "--max_length=128", "--model_x"]),
    (
        "vllm",
        ["--max-model-len=4096", "-tp", "2", "-O3", "--tokenizer=/mnt/models", "--host=::", "--model-impl=x"],
    ),
    ("tensorflow", ["--enable_batching", "--rest_api_num_threads=8", "--model_version_x"]),
    ("pytorch", ["--foreground", "--no-config-snapshots", "--log-config=/mnt/models/config/log4j2.xml"]),
    ("mlflow", ["mlserver", "start", "/mnt/models"]),
]


def test_all_other_flags_are_the_users(oracle: Oracle) -> None:
    rows: list[dict[str, Any]] = [{**MODEL, "runtime": runtime, "args": args} for runtime, args in FREE]
    rows.append({**MODEL, "runtime": "mlflow", "env": [{"name": "MLSERVER_DEBUG", "value": "1"}], "args": []})
    rows.append(
        {
            **MODEL,
            "servingRuntime": "team",
            "modelFormat": {"name": "sklearn"},
            "args": ["--model_name=m", "--port=1"],
            "env": [{"name": "MLSERVER_MODEL_NAME", "value": "m"}],
        }
    )
    assert said(oracle, rows) == [""] * len(rows)


# ---------------------------------------------------------------- names

BESIDE = {"image": "x"}
# what else is written; characters of the namespace; characters that the name may have
LENGTHS: list[tuple[dict[str, Any], int, int]] = [
    ({}, 4, 48),
    ({}, 7, 45),
    ({}, 40, 12),
    ({"explainer": BESIDE}, 7, 45),
    ({"transformer": BESIDE}, 4, 46),
    ({"transformer": BESIDE}, 7, 43),
    ({"deploymentMode": "knative"}, 40, 53),
    ({"deploymentMode": "knative", "transformer": BESIDE}, 40, 51),
]


@pytest.mark.parametrize(("more", "space", "most"), LENGTHS)
def test_a_name_is_as_long_as_what_kserve_makes_of_it_may_be(
    oracle: Oracle, more: dict[str, Any], space: int, most: int
) -> None:
    """The limits themselves are KServe's and Kubernetes': tests/e2e/test_limits.py."""
    properties = {**MODEL, "runtime": "sklearn", **more}
    part = "transformer" if "transformer" in more else "predictor"
    made = [f"-{part}"] if "deploymentMode" in more else [f"-{part}-{'n' * space}", f"isvc.-{part}"]
    assert most + max(len(one) for one in made) == 63
    assert said(oracle, [properties], "m" * most, "n" * space) == [""]
    (answer,) = said(oracle, [properties], "m" * (most + 1), "n" * space)
    assert f"may have at most {most} characters here, and has {most + 1}: " in answer
