"""Whatever stands in a file, a command ends with a verdict or a sentence, soon, and never with a traceback.

Files as people have them are changed in their structure and in their bytes. A failure is kept by Hypothesis and shrunk.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velagen.cli import main
from velagen.kubevela import VERSIONS

pytestmark = [pytest.mark.slow, pytest.mark.seconds(60)]

ROOT = Path(__file__).parents[2]
#: Seconds for one input, on a machine that is busy with other things.
SOON = 15.0

strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, 1e308, -0.5, float("inf"), float("nan")]),
    st.sampled_from(["", "a", "x" * 300, "{{", "$(X)", "../../x", "\u2028", "é", "9" * 400, "null", "~", "<<"]),
    st.sampled_from([{}, [], [[]], ["a"], [None], {"": None}, {"name": ["a"]}, {"name": {"a": 1}}, {"$ref": "#"}]),
)
quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        found += places(item, (*path, step))
    return found


@st.composite
def changed(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of *documents* in which up to three values are others, or gone."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            document = copy.deepcopy(draw(strange))
            continue
        holder = document
        for step in path[:-1]:
            holder = holder[step]
        if draw(st.booleans()):
            holder[path[-1]] = copy.deepcopy(draw(strange))
        else:
            del holder[path[-1]]
    return document


@st.composite
def scratched(draw: st.DrawFn, texts: list[bytes]) -> bytes:
    """One of *texts* with some bytes repeated, others put in, or its end cut off."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"{", b"[", b": ", b"&a ", b"*a", b"<<: ", b"!!x ", b"\n- "])
        )
        span = draw(st.integers(0, 20))
        match draw(st.sampled_from(["put", "cut", "repeat"])):
            case "put":
                text = text[:at] + piece * draw(st.sampled_from([1, 1, 300])) + text[at:]
            case "cut":
                text = text[:at] + text[at + span :]
            case "repeat":
                text = text[:at] + text[at : at + span] * draw(st.sampled_from([2, 2, 200])) + text[at + span :]
    return text


def ends_well(*arguments: str) -> None:
    """Run a command: it succeeds, or fails with a sentence, in time."""
    start = time.monotonic()
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (0, 1, 2), done.output
    assert "failed where it should not" not in done.output, done.output
    assert "Traceback" not in done.output, done.output
    assert done.exit_code == 0 or done.output.strip()
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert time.monotonic() - start < SOON


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


APPLICATIONS = [ROOT / "examples" / name for name in ("sentiment.yaml", "canary-gateway.yaml", "warmup.yaml")]
STEPS = {
    "apiVersion": "core.oam.dev/v1beta1",
    "kind": "Application",
    "metadata": {"name": "a", "labels": {"a": "b"}},
    "spec": {
        "components": [{"name": "a", "type": "webservice", "dependsOn": ["b"], "properties": {"image": "x"}}],
        "policies": [{"name": "p", "type": "topology", "properties": {"clusters": ["local"]}}],
        "workflow": {"steps": [{"name": "s", "type": "step-group", "subSteps": [{"name": "t", "type": "suspend"}]}]},
    },
}


@quick
@given(document=changed([STEPS, *(yaml.safe_load(file.read_text()) for file in APPLICATIONS)]))
def test_applications(folder: Path, check: Callable[[Path], None], document: Any) -> None:
    file = folder / "app.yaml"
    file.write_text(yaml.safe_dump(document))
    check(file)


@quick
@given(text=scratched([file.read_bytes() for file in APPLICATIONS]))
def test_texts_of_applications(folder: Path, check: Callable[[Path], None], text: bytes) -> None:
    file = folder / "scratched.yaml"
    file.write_bytes(text)
    check(file)


@pytest.fixture(scope="module")
def check(folder: Path) -> Callable[[Path], None]:
    """`velagen check` of one file, whose definitions are built once and not for each file."""
    from velagen.check.setting import Setting

    setting = Setting.find(ROOT, None, VERSIONS)

    def checked(file: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Setting, "find", lambda *_, **__: setting)
            ends_well("check", "--no-render", "--apps-only", "--project", str(ROOT), str(file))

    return checked


SCHEMAS = [json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "schema/golden").glob("*.json"))]
SCHEMAS += [json.loads((ROOT / "schemas" / f"{name}.json").read_text()) for name in ("canary", "autoscale")]
SCHEMAS.append(
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "nullable": True}, "b": {"enum": ["x", 1]}, "c": {"$ref": "#/$defs/c"}},
        "x-kubernetes-validations": [{"rule": "self.a > 1 && has(self.b)", "message": "no"}],
        "oneOf": [{"type": "object", "properties": {"k": {"const": k}}, "required": ["k"]} for k in "xy"],
        "$defs": {"c": {"type": "string", "pattern": "^(?i)[a-z]+$", "default": "a"}},
    }
)


@quick
@given(document=changed(SCHEMAS))
def test_schemas(folder: Path, document: Any) -> None:
    file = folder / "schema.json"
    file.write_text(json.dumps(document))
    ends_well("cue", str(file))


@quick
@given(text=scratched([json.dumps(one, indent=1).encode() for one in SCHEMAS[-2:]]))
def test_texts_of_schemas(folder: Path, text: bytes) -> None:
    for name in ("scratched.json", "scratched-schema.yaml"):
        file = folder / name
        file.write_bytes(text)
        ends_well("cue", str(file))


MLMODEL = {
    "artifact_path": "model",
    "flavors": {
        "python_function": {
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}, "loader_module": "mlflow.sklearn",
            "model_path": "model.pkl", "predict_fn": "predict", "python_version": "3.10.12",
        },
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle", "sklearn_version": "1.5.2"},
    },
    "mlflow_version": "2.16.0",
    "signature": {"inputs": '[{"type": "double", "name": "x"}]', "outputs": '[{"type": "long"}]'},
}  # fmt: skip
CONDA = {
    "channels": ["conda-forge"],
    "dependencies": ["python=3.10.12", "pip<=24", {"pip": ["mlflow==2.16.0", "scikit-learn==1.5.2"]}],
    "name": "mlflow-env",
}


@settings(quick, max_examples=60)
@given(model=changed([MLMODEL]), conda=changed([CONDA]) | st.just(CONDA))
def test_mlflow_packages(folder: Path, model: Any, conda: Any) -> None:
    package = folder / "mlflow"
    package.mkdir(exist_ok=True)
    (package / "MLmodel").write_text(yaml.safe_dump(model))
    (package / "conda.yaml").write_text(yaml.safe_dump(conda))
    (package / "model.pkl").write_bytes(b"\x80\x04N.")
    ends_well("model", "check", str(package))


CONFIG = b"""name: "m"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]
dynamic_batching { max_queue_delay_microseconds: 100 preferred_batch_size: [ 4, 8 ] }
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@settings(quick, max_examples=60)
@given(text=scratched([CONFIG]), mlmodel=scratched([yaml.safe_dump(MLMODEL).encode()]))
def test_texts_of_models(folder: Path, text: bytes, mlmodel: bytes) -> None:
    repository = folder / "triton"
    (repository / "m" / "1").mkdir(parents=True, exist_ok=True)
    (repository / "m" / "1" / "model.onnx").write_bytes(b"x")
    (repository / "m" / "config.pbtxt").write_bytes(text)
    ends_well("model", "check", str(repository), "--runtime", "triton")
    package = folder / "scratched-mlflow"
    package.mkdir(exist_ok=True)
    (package / "MLmodel").write_bytes(mlmodel)
    ends_well("model", "check", str(package), "--runtime", "mlflow")
