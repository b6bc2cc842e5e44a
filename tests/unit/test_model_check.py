import gzip
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from velagen.cli.model import model_group
from velagen.errors import VelagenError
from velagen.model import ModelReport, check_model, load_runtimes

#: A file of safetensors with no tensor: the length of its header, and that.
SAFETENSORS = b"\2" + b"\0" * 7 + b"{}"
MODELS = Path(__file__).parent / "fixtures" / "models"


def mlflow(folder: Path, *, requirements: str = "scikit-learn==1.5.2\nnumpy==1.26.4\n", **changes: Any) -> Path:
    """The directory that mlflow.sklearn.save_model(serialization_format="pickle") writes."""
    folder.mkdir(parents=True)
    env = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    function: dict[str, Any] = {
        "env": env,
        "loader_module": "mlflow.sklearn",
        "model_path": "model.pkl",
        "predict_fn": "predict",
        "python_version": "3.10.12",
    }
    sklearn: dict[str, Any] = {
        "code": None,
        "pickled_model": "model.pkl",
        "serialization_format": "pickle",
        "sklearn_version": "1.5.2",
    }
    document: dict[str, Any] = {
        "flavors": {"python_function": function, "sklearn": sklearn},
        "mlflow_version": "2.19.0",
        "signature": {"inputs": "[]", "outputs": "[]"},
    }
    function.update(changes.pop("python_function", {}))
    sklearn.update(changes.pop("sklearn", {}))
    document.update(changes)
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    pip = {"pip": requirements.split()}
    (folder / "conda.yaml").write_text(yaml.safe_dump({"dependencies": ["python=3.10", pip]}))
    (folder / "python_env.yaml").write_text("python: 3.10.12\n")
    (folder / "requirements.txt").write_text(requirements)
    shutil.copy(MODELS / "pipeline-1.5.pkl", folder / "model.pkl")
    return folder


def said(report: ModelReport, severity: str) -> list[str]:
    return [problem.message for problem in report.problems if problem.severity == severity]


def test_mlflow_package_that_fits(tmp_path: Path) -> None:
    report = check_model(mlflow(tmp_path / "iris"))
    assert report.problems == ()
    assert (report.layout, report.serves) == ("mlflow", True)
    assert report.properties("s3://models/iris") == {"runtime": "mlflow", "modelUri": "s3://models/iris"}
    assert any("saved with Python 3.10.12; kserve-mlserver 1.7.1 runs 3.10.12" in fact for fact in report.facts)


@pytest.mark.parametrize(("changes", "error"), [
    ({"requirements": "scikit-learn==1.9.1"}, "scikit-learn==1.9.1 is asked for, kserve-mlserver 1.7.1 has 1.5.2"),
    ({"sklearn": {"serialization_format": "skops"}}, "saved as skops"),
    ({"sklearn": {"pickled_model": "other.pkl"}}, "other.pkl is missing"),
    ({"python_function": {"model_path": "../model.pkl"}}, "points out of the package"),
    ({"python_function": {"python_version": "new"}}, "python_version 'new' is not a version"),
    ({"flavors": {"sklearn": {}}}, "no flavour python_function"),
    ({"flavors": None}, "no flavors"),
    ({"flavors": {"python_function": {}, "statsmodels": {}}}, "flavour statsmodels needs statsmodels"),
])  # fmt: skip
def test_mlflow_errors(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    report = check_model(mlflow(tmp_path / "m", **changes))
    assert not report.serves
    assert any(error in message for message in said(report, "error")), report.problems


@pytest.mark.parametrize(("changes", "warning"), [
    ({"requirements": "numpy==2.4.4"}, "numpy==2.4.4 is asked for, kserve-mlserver 1.7.1 has 1.26.4"),
    ({"requirements": "scikit-learn==1.2.0"}, "scikit-learn==1.2.0 is asked for"),
    ({"requirements": "spacy==3"}, "spacy is asked for, and kserve-mlserver 1.7.1 does not have it"),
    ({"requirements": "numpy ???"}, "is not a requirement"),
    ({"python_function": {"python_version": "3.12.1"}}, "saved with Python 3.12.1, the server runs 3.10.12"),
    ({"mlflow_version": "3.1.0"}, "saved with MLflow 3.1.0, the server has 2.19.0"),
    ({"signature": None}, "no signature"),
])  # fmt: skip
def test_mlflow_warnings(tmp_path: Path, changes: dict[str, Any], warning: str) -> None:
    report = check_model(mlflow(tmp_path / "m", **changes))
    assert report.serves
    assert any(warning in message for message in said(report, "warning")), report.problems


@pytest.mark.parametrize("pin", ["scikit-learn", "scikit-learn>=1.0", "scikit-learn==1.5.0", "mlflow==3.9"])
def test_what_the_server_can_satisfy_is_not_mentioned(tmp_path: Path, pin: str) -> None:
    assert check_model(mlflow(tmp_path / "m", requirements=pin)).problems == ()


@pytest.mark.parametrize("file", ["conda.yaml", "python_env.yaml", "model.pkl"])
def test_missing_files_are_named(tmp_path: Path, file: str) -> None:
    package = mlflow(tmp_path / "m")
    (package / file).unlink()
    assert any(f"{file} is missing" in message for message in said(check_model(package), "error"))


def test_requirements_come_from_conda_where_there_is_no_other(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m", requirements="scikit-learn==1.9.1")
    (package / "requirements.txt").unlink()
    assert any("scikit-learn==1.9.1" in message for message in said(check_model(package), "error"))


def test_broken_mlmodel_is_named_with_its_line(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "MLmodel").write_text("flavors:\n  a: [\n")
    problem = check_model(package).problems[0]
    assert problem.message == "invalid YAML"
    assert problem.place.file == f"{package}/MLmodel"
    assert problem.place.line == 3


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        import subprocess

        return subprocess.check_output, (["true"],)


def test_unsafe_pickle_is_named_as_such(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "model.pkl").write_bytes(pickle.dumps(Evil()))
    report = check_model(package)
    assert said(report, "error") == [
        "unsafe pickle: it imports subprocess.check_output, which is not on the list of what models need"
    ]
    assert report.problems[0].place.file == f"{package}/model.pkl"


def test_modules_that_the_server_lacks(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "model.pkl").write_bytes(b"cmycompany.features\nScaler\n(tR.")
    assert "needs the module mycompany" in said(check_model(package), "error")[0]
    # Code that comes with the package is there.
    (package / "code").mkdir()
    (package / "code" / "mycompany").mkdir()
    assert check_model(package).serves
    (package / "model.pkl").write_bytes(b"c__main__\nScaler\n(tR.")
    assert "__main__" in said(check_model(package), "error")[0]


def test_byte_code_is_a_warning(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    shutil.copy(MODELS / "lambda.pkl", package / "model.pkl")
    assert any("byte code" in message for message in said(check_model(package), "warning"))
    newer = mlflow(tmp_path / "newer", python_function={"python_version": "3.11.7"})
    shutil.copy(MODELS / "lambda.pkl", newer / "model.pkl")
    assert any("byte code of Python 3.11" in message for message in said(check_model(newer), "error"))


def test_link_out_of_the_package(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "data").symlink_to("/etc/hostname")
    assert any("link out of the package" in message for message in said(check_model(package), "error"))


@pytest.mark.parametrize(("files", "layout", "error"), [
    ({"model.joblib": MODELS / "pipeline-1.5.joblib"}, "sklearn", ""),
    ({"a.joblib": MODELS / "pipeline.joblib", "b.pkl": MODELS / "pipeline-p4.pkl"}, "sklearn", "2 model files"),
    ({"model.pkl": b""}, "sklearn", "the file is empty"),
    ({"model.bst": b"tree\nversion=v4\n"}, "lightgbm", ""),
    ({"model.bst": b"binf\0\0"}, "xgboost", ""),
    ({"model.ubj": b"{L"}, "xgboost", ""),
    ({"model.json": b'{"learner": {}}'}, "xgboost", ""),
    ({"net.onnx": b"\x08\x07"}, "triton", "Triton wants a repository"),
    ({"1/saved_model.pb": b"x", "1/variables/v": b"x"}, "tensorflow", ""),
    ({"saved_model.pb": b"x"}, "tensorflow", "wants version folders"),
    ({"config/config.properties": b"", "model-store/m.mar": b"PK"}, "pytorch", ""),
    ({"m.mar": b"PK"}, "pytorch", "no model-store"),
    ({"config.json": b"{}", "model.safetensors": SAFETENSORS, "tokenizer.json": b"{}"}, "huggingface", ""),
    ({"config.json": b"{}", "model.safetensors": SAFETENSORS}, "huggingface", "no tokenizer"),
    ({"notes.txt": b"x"}, "", "no model that a runtime serves; it holds notes.txt"),
    ({}, "", "it holds nothing"),
])  # fmt: skip
def test_layouts(tmp_path: Path, files: dict[str, bytes | str | Path], layout: str, error: str) -> None:
    package = make(tmp_path / "m", files)
    report = check_model(package)
    assert report.layout == layout
    assert report.serves == (not error), report.problems
    assert not error or error in said(report, "error")[0]


def make(folder: Path, files: dict[str, bytes | str | Path]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_versions_that_nothing_pins(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m", requirements="scikit-learn", sklearn={"sklearn_version": "1.7.2"})
    (error,) = said(check_model(package), "error")
    assert error.startswith("written by scikit-learn 1.7.2, and kserve-mlserver 1.7.1 has 1.5.2")
    # The pickle itself knows, whatever is written beside it, and where nothing is.
    package = mlflow(tmp_path / "n")
    shutil.copy(MODELS / "pipeline-p4.pkl", package / "model.pkl")
    assert "written by scikit-learn 1.9.1" in said(check_model(package), "error")[0]
    bare = make(tmp_path / "bare", {"model.joblib": MODELS / "pipeline.joblib"})
    assert "kserve-sklearnserver v0.20.0 has 1.5.2" in said(check_model(bare), "error")[0]


def environment(path: Path, *packages: str, python: str = "3.12") -> None:
    """What conda-pack writes, by the names of its files."""
    names = ["bin/activate", f"conda-meta/python-{python}.4-h1_0_cpython.json"]
    names += [f"lib/python{python}/site-packages/{package}.dist-info/METADATA" for package in packages]
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))


def test_environment_that_a_package_brings_counts_and_the_servers_own_does_not(tmp_path: Path) -> None:
    package = mlflow(
        tmp_path / "m",
        requirements="scikit-learn==1.9.1",
        python_function={"python_version": "3.12.4"},
        sklearn={"sklearn_version": "1.9.1"},
    )
    shutil.copy(MODELS / "pipeline-p4.pkl", package / "model.pkl")
    assert not check_model(package).serves
    tarball = package / "environment.tar.gz"
    servers = ("mlserver-1.7.1", "mlserver_mlflow-1.7.1", "mlflow-2.19.0")
    environment(tarball, *servers, "scikit_learn-1.9.1", "numpy-2.4.0")
    report = check_model(package)
    assert report.problems == ()
    assert "runs in environment.tar.gz: Python 3.12.4, 5 packages" in report.facts
    assert report.unread == ("environment.tar.gz",)
    environment(tarball, *servers, "scikit_learn-1.6.1", "numpy-2.4.0")
    assert "the package's environment has 1.6.1" in said(check_model(package), "error")[0]
    environment(tarball, "scikit_learn-1.9.1", "mlflow-2.19.0")
    assert "has no mlserver and no mlserver-mlflow" in said(check_model(package), "error")[0]
    environment(tarball)
    assert "no mlserver" in said(check_model(package), "error")[0]
    tarball.write_bytes(b"\x1f\x8b\x08nothing")
    assert "can't be unpacked" in said(check_model(package), "error")[0]
    member = tarfile.TarInfo("zeros")
    member.size = 400_000_000
    tarball.write_bytes(gzip.compress(member.tobuf() + bytes(member.size), 1))
    assert "can't be unpacked" in said(check_model(package), "error")[0]


def index(*shards: str) -> str:
    return json.dumps({"weight_map": {f"layer.{number}": shard for number, shard in enumerate(shards)}})


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
TENSOR = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(("files", "error"), [
    ({"model.safetensors.index.json": index("a-1.safetensors", "a-2.safetensors"), "a-1.safetensors": SAFETENSORS},
     "a-2.safetensors is missing (model.safetensors.index.json names it)"),
    ({"pytorch_model.bin.index.json": index("../x.bin"), "model.safetensors": SAFETENSORS}, "../x.bin is missing"),
    ({"model.safetensors.index.json": "[]", "model.safetensors": SAFETENSORS}, "no weight_map"),
    ({"model.safetensors.index.json": "[" * 100_000, "model.safetensors": SAFETENSORS}, "invalid JSON"),
    ({"model.safetensors": LFS}, "a pointer of Git LFS in place of the file"),
    ({"pytorch_model.bin": LFS}, "a pointer of Git LFS in place of the file"),
    ({"model.safetensors": len(TENSOR).to_bytes(8, "little") + TENSOR + b"1234"}, "and its header says 70"),
    ({"model.safetensors": (2**63).to_bytes(8, "little")}, "cut short"),
    ({"model.safetensors": b"\2" + b"\0" * 7 + b"[]"}, "invalid safetensors header"),
])  # fmt: skip
@pytest.mark.parametrize("runtime", ["huggingface", "vllm"])
def test_weights_that_are_not_there(
    tmp_path: Path, files: dict[str, bytes | str | Path], error: str, runtime: str
) -> None:
    report = check_model(make(tmp_path / "m", {"config.json": "{}", "tokenizer.json": "{}", **files}), runtime=runtime)
    assert any(error in message for message in said(report, "error")), report.problems


@pytest.mark.parametrize(
    "name", ["sentencepiece.bpe.model", "tekken.json", "spiece.model", "tokenizer.model.v3", "qwen.tiktoken"]
)
def test_tokenizers_have_many_names(tmp_path: Path, name: str) -> None:
    package = make(tmp_path / "m", {"config.json": "{}", "model.safetensors": SAFETENSORS, name: "x"})
    assert check_model(package).problems == ()
    assert check_model(package, runtime="vllm").layout == "vllm"


@pytest.mark.parametrize("name", ["python_model.bin", "model.dat", "model"])
def test_files_that_mlmodel_names_are_read_as_pickles_whatever_their_names(tmp_path: Path, name: str) -> None:
    package = mlflow(tmp_path / "m", python_function={"python_model": name})
    (package / name).write_bytes(b"no pickle at all")
    assert "was not read to its end" in said(check_model(package), "error")[0]
    (package / name).write_bytes(pickle.dumps(Evil(), 0))
    assert "subprocess.check_output" in said(check_model(package), "error")[0]


def test_programs_that_a_package_brings_are_named_as_not_read(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m", python_function={"code": "lib"})
    (package / "lib").mkdir()
    (package / "lib" / "features.py").write_text("x = 1")
    shutil.copy(MODELS / "python_model.pkl", package / "python_model.pkl")
    report = check_model(package)
    assert report.serves
    assert report.unread == ("lib/features.py",)
    assert "carries functions as byte code, which was not read" in said(report, "warning")[0]
    shown = CliRunner().invoke(model_group, ["check", str(package)])
    assert "not read (programs, archives, graphs): lib/features.py" in shown.output


def test_code_of_a_package_takes_no_name_of_pythons_or_of_a_library(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    for name in ("subprocess", "sklearn", "own"):
        (package / "code" / name).mkdir(parents=True)
    for module, error in (("subprocess", True), ("sklearn.utils._joblib", True), ("own.part", False)):
        (package / "model.pkl").write_bytes(b"c%s\nload\n(tR." % module.encode())
        assert bool(said(check_model(package), "error")) == error, module


def test_loader_module_is_mlflows_or_the_packages(tmp_path: Path) -> None:
    report = check_model(mlflow(tmp_path / "m", python_function={"loader_module": "antigravity"}))
    assert "loader_module 'antigravity' is neither MLflow's nor in the package" in said(report, "error")[0]
    package = mlflow(tmp_path / "n", python_function={"loader_module": "mine.loader", "code": "code"})
    (package / "code").mkdir()
    (package / "code" / "mine.py").write_text("")
    assert check_model(package).serves


def test_settings_of_mlserver_name_a_class_and_an_environment(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    settings = package / "model-settings.json"
    settings.write_text('{"implementation": "mlserver_mlflow.MLflowRuntime", "name": "iris"}')
    assert check_model(package).problems == ()
    for content, error in (
        ('{"implementation": "subprocess.Popen"}', "implementation 'subprocess.Popen' is not one of MLServer's own"),
        ('{"parameters": {"environment_tarball": "./own.tar.gz"}}', "./own.tar.gz is missing"),
        ('{"parameters": {"environment_tarball": "/own.tar.gz"}}', "points out of the package"),
        ("[]", "not an object"),
        ("{", "invalid JSON"),
    ):
        settings.write_text(content)
        assert any(error in message for message in said(check_model(package), "error"))
    settings.write_text('{"parameters": {"environment_tarball": "./own.tar.gz"}}')
    servers = ("mlserver-1.7.1", "mlserver_mlflow-1.7.1", "mlflow-2.19.0")
    environment(package / "own.tar.gz", *servers, "scikit_learn-1.4.0")
    assert "the package's environment has 1.4.0" in said(check_model(package), "error")[0]


def test_module_that_loads_a_model_of_pytorch(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "data").mkdir()
    for module, errors in (("mlflow.pytorch.pickle_module", 0), ("antigravity", 1)):
        (package / "data" / "pickle_module_info.txt").write_text(module)
        assert len(said(check_model(package), "error")) == errors


def test_lambda_layers_of_keras_are_programs(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "model.h5").write_bytes(b"\x89HDF" + bytes(70_000) + b'{"class_name": "Lambda", "config": {}}')
    assert any("a Lambda layer" in message for message in said(check_model(package), "error"))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in pairwise("abcdefghij")
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 30)}]}}\n" for before, name in pairwise("abcdefg")
)


@pytest.mark.parametrize(("text", "error"), [
    ("[" * 5_000, "nested more than 64 deep"),
    ("a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 500)), "nested more than 64 deep"),
    (BOMB, "more than 500000 values"),
    (MERGES, "more than 500000 values"),
    ("a: &a [*a]", "refers to what it is in"),
    ("flavors: " + "9" * 5_000, "invalid YAML"),
    ("flavors: 2020-99-99", "invalid YAML"),
    ("\0", "invalid YAML"),
    (b"\xff\xfe\xff", "invalid YAML"),
    ("a: " + "x" * 9_000_000, "larger than"),
    ("flavors: {python_function: {python_version: " + "9" * 5_000 + "}}", "invalid YAML"),
    ("flavors: {python_function: {python_version: 3" + ".9" * 5_000 + "}}", "is not a version"),
    ("flavors: {python_function: {model_path: " + "a" * 5_000 + "}}", "is missing"),
    ('flavors: {python_function: {model_path: "a\\0b"}}', "is missing"),
    ("flavors: {python_function: {env: [1, {a: b}], loader_module: [1]}, 1: {code: 2}}", "loader_module"),
    ("- 1", "no flavors"),
    ("", "MLmodel is missing"),
])  # fmt: skip
def test_mlmodel_that_is_made_to_harm(tmp_path: Path, text: str | bytes, error: str) -> None:
    package = make(tmp_path / "m", {"MLmodel": text})
    report = check_model(package)
    assert any(error in message for message in said(report, "error")), report.problems
    assert all(len(message) < 400 for message in said(report, "error"))


def test_nothing_outside_the_package_is_read_or_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("dependencies: [{pip: [top-secret ???]}]\ntop-secret: ???\n")
    for number, env in enumerate(("../secret", str(tmp_path / "secret"), "conda.yaml", "link")):
        package = mlflow(tmp_path / f"m{number}", python_function={"env": {"conda": env}})
        (package / "requirements.txt").unlink()
        (package / "conda.yaml").unlink()
        (package / "conda.yaml").symlink_to(tmp_path / "secret")
        (package / "link").symlink_to(tmp_path)
        report = check_model(package)
        assert not report.serves
        assert "top-secret" not in str(report.problems)
    # Nor is a device or a pipe opened.
    for number, goal in enumerate(("/dev/zero", "pipe")):
        package = make(tmp_path / f"p{number}", {"model.pkl": MODELS / "pipeline-1.5.pkl"})
        os.mkfifo(package / "pipe")
        (package / "MLmodel").symlink_to(goal)
        assert not check_model(package).serves


def test_names_that_no_terminal_can_show(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    for name in (b"\xff.py", b"\x1b[31m.py", b"\xff.pkl"):
        (tmp_path / "m" / os.fsdecode(name)).write_bytes(b"")
    shown = CliRunner().invoke(model_group, ["check", str(package)])
    assert shown.exit_code == 1
    assert "\\x1b[31m.py, \\udcff.py" in shown.output
    assert "\\udcff.pkl: the pickle was not read" in shown.output


def test_links_that_lead_nowhere_and_round(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "m")
    (package / "round").symlink_to("round")
    (package / "there").symlink_to("back")
    (package / "back").symlink_to("there")
    (package / "gone").symlink_to("nowhere")
    (package / "up").symlink_to(".")
    messages = said(check_model(package), "error")
    assert sum("round in a circle" in message for message in messages) == 3
    assert any("nowhere, which is not there" in message for message in messages)
    assert said(check_model(package), "warning") == ["a link to a folder, which model push refuses"]
    deep = package / "/".join("d" * 300)
    deep.mkdir(parents=True)
    assert any("nested more than 64 deep" in message for message in said(check_model(package), "error"))


def test_own_runtimes(tmp_path: Path) -> None:
    table = tmp_path / "runtimes.yaml"
    table.write_text(
        "mlflow: {name: ours, python: '3.11.2', packages: {mlflow: 3.17.2, scikit-learn: 1.9.1, numpy: 2.4.6}}"
    )
    package = mlflow(
        tmp_path / "m",
        requirements="scikit-learn==1.9.1",
        python_function={"python_version": "3.11.7"},
        sklearn={"sklearn_version": "1.9.1"},
    )
    shutil.copy(MODELS / "pipeline-p4.pkl", package / "model.pkl")
    assert check_model(package, runtimes=load_runtimes(table)).problems == ()
    table.write_text("mlflow: {name: ours}")
    with pytest.raises(VelagenError, match="not a table of runtimes"):
        load_runtimes(table)


def test_commands(tmp_path: Path) -> None:
    package = mlflow(tmp_path / "iris")
    good = CliRunner().invoke(model_group, ["check", str(package)])
    assert good.exit_code == 0
    assert "runtime: mlflow" in good.output
    assert "modelUri: s3://BUCKET/iris" in good.output
    document = json.loads(CliRunner().invoke(model_group, ["check", "--json", str(package)]).stdout)
    assert (document["runtime"], document["serves"], document["problems"]) == ("mlflow", True, [])
    (package / "model.pkl").unlink()
    bad = CliRunner().invoke(model_group, ["check", str(package)])
    assert bad.exit_code == 1
    assert "model.pkl is missing" in bad.output
    assert CliRunner().invoke(model_group, ["check", str(tmp_path / "none")]).exit_code == 1
    forced = CliRunner().invoke(model_group, ["check", "--runtime", "sklearn", str(package)])
    assert "no file that ends in .joblib" in forced.output
