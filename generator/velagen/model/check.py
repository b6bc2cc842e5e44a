"""Will this directory serve? What kind of package it is, what is wrong with it, and what to write into the
application.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from velagen.errors import Place, Problem, VelagenError
from velagen.model import triton
from velagen.model.pickles import PickleReport, is_pickle, scan
from velagen.model.runtimes import Runtime, distribution_of, load_runtimes

#: File endings that each of KServe's single-file servers looks for; exactly one file may have them.
SINGLE_FILE: Final = {
    "sklearn": (".joblib", ".pkl", ".pickle"),
    "xgboost": (".bst", ".json", ".ubj"),
    "lightgbm": (".bst",),
}
#: Packages whose own pickles may not be readable by an older release of theirs.
_WRITERS: Final = frozenset(("scikit-learn", "xgboost", "lightgbm", "catboost", "torch", "tensorflow"))
#: MLflow flavour -> the distribution it needs.
_FLAVOUR_PACKAGES: Final = {
    "sklearn": "scikit-learn",
    "pytorch": "torch",
    "keras": "tensorflow",
    "python_function": "mlflow",
}
_STANDARD: Final = sys.stdlib_module_names


@dataclass(frozen=True)
class ModelReport:
    """What was found in a directory."""

    directory: Path
    #: ``mlflow``, ``triton``, ``sklearn``, ``xgboost``, ``lightgbm``, ``tensorflow``, ``pytorch``, ``huggingface``;
    #: "" if none.
    layout: str
    problems: tuple[Problem, ...] = ()
    #: Lines worth knowing that are no problems: flavours, versions, models.
    facts: tuple[str, ...] = ()
    #: Folder that modelUri must name, relative to the directory: ".." when one model of a Triton repository was given.
    root: str = "."

    @property
    def serves(self) -> bool:
        """Whether nothing speaks against it."""
        return bool(self.layout) and not any(problem.severity == "error" for problem in self.problems)

    def properties(self, model_uri: str) -> dict[str, str]:
        """The component's properties for this package at ``model_uri``."""
        return {"runtime": self.layout, "modelUri": model_uri}


def check_model(
    directory: Path, *, runtimes: Mapping[str, Runtime] | None = None, runtime: str | None = None
) -> ModelReport:
    """Look at ``directory`` and say whether it will serve.

    Args:
        directory: the package.
        runtimes: what the servers hold; None: the table that velagen ships (KServe's own images).
        runtime: take it for a package of this runtime, where several could be meant.

    VelagenError when it is no directory.
    """
    if not directory.is_dir():
        raise VelagenError(
            Problem("not a directory", Place(str(directory)), "a package is a directory with the model in it")
        )
    checker = _Checker(directory, load_runtimes() if runtimes is None else runtimes)
    layout = runtime or checker.layout()
    getattr(checker, f"check_{layout or 'nothing'}")()
    return ModelReport(directory, layout, tuple(checker.problems), tuple(checker.facts), checker.root)


class _Checker:
    def __init__(self, directory: Path, runtimes: Mapping[str, Runtime]) -> None:
        self.directory = directory
        self.runtimes = runtimes
        self.problems: list[Problem] = []
        self.facts: list[str] = []
        self.root = "."
        self.files = sorted(entry for entry in directory.iterdir() if entry.is_file())
        self.folders = sorted(entry for entry in directory.iterdir() if entry.is_dir())

    def layout(self) -> str:
        """What the directory looks like; "" when like nothing that is served."""
        names = {file.name for file in self.files}
        if "MLmodel" in names:
            return "mlflow"
        if (
            "config.pbtxt" in names
            or any(triton.is_model(folder) for folder in self.folders)
            or self._is_triton_model()
        ):
            return "triton"
        if any(folder.name.isdigit() and (folder / "saved_model.pb").is_file() for folder in self.folders):
            return "tensorflow"
        if "saved_model.pb" in names:
            return "tensorflow"
        if "config.json" in names and any(file.suffix in (".safetensors", ".bin") for file in self.files):
            return "huggingface"
        if any(file.suffix == ".mar" for file in self.directory.glob("model-store/*")) or any(
            file.suffix == ".mar" for file in self.files
        ):
            return "pytorch"
        if any(file.suffix == ".onnx" for file in self.files):
            return "triton"
        for file in self.files:
            if file.suffix in SINGLE_FILE["sklearn"]:
                return "sklearn"
            if file.suffix == ".bst":
                return "lightgbm" if file.open("rb").read(4) == b"tree" else "xgboost"
            if file.suffix == ".ubj" or (file.suffix == ".json" and b'"learner"' in file.open("rb").read(4096)):
                return "xgboost"
        return ""

    def _is_triton_model(self) -> bool:
        names = {name for name in triton.BACKEND_FILES.values() if name}
        return any(folder.name.isdigit() and any((folder / name).exists() for name in names) for folder in self.folders)

    # One method a layout.

    def check_nothing(self) -> None:
        seen = ", ".join(entry.name for entry in (*self.files, *self.folders)) or "nothing"
        self.error(
            f"no model that a runtime serves; it holds {seen}",
            hint="an MLflow package has a file MLmodel, a Triton repository one folder a model with config.pbtxt",
        )

    def check_mlflow(self) -> None:
        place = self.place("MLmodel")
        try:
            document = yaml.safe_load((self.directory / "MLmodel").read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.error("MLmodel is missing", hint="mlflow.<flavour>.save_model writes it")
            return
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            line = getattr(getattr(error, "problem_mark", None), "line", None)
            self.problems.append(Problem("not YAML", Place(place.file, None if line is None else line + 1)))
            return
        flavours = document.get("flavors") if isinstance(document, dict) else None
        if not isinstance(flavours, dict) or not flavours:
            self.error("no flavors: this is no MLmodel", place)
            return
        self.facts.append("flavours: " + ", ".join(sorted(map(str, flavours))))
        function = flavours.get("python_function")
        runtime = self.runtimes.get("mlflow")
        if not isinstance(function, dict):
            self.error("no flavour python_function, the only one the server loads", place, "save it with pyfunc")
            function = {}
        if not document.get("signature"):
            self.warn(
                "no signature: clients can't ask for the inputs' names and types", place, "save_model(signature=...)"
            )
        self._mlflow_files(flavours, place)
        requirements = self._requirements(function)
        if runtime is None:
            return
        self._mlflow_versions(document, flavours, requirements, runtime, place)
        self._scan_pickles(runtime, set(requirements))

    def _mlflow_files(self, flavours: Mapping[str, object], place: Place) -> None:
        for flavour, content in flavours.items():
            if not isinstance(content, dict):
                self.error(f"flavour {flavour} is no table", place)
                continue
            for key in ("data", "model_path", "pickled_model", "model_data", "code", "python_model", "saved_model_dir"):
                value = content.get(key)
                if isinstance(value, str) and value:
                    self._must_exist(value, f"flavors.{flavour}.{key}", place)
            artifacts = content.get("artifacts")
            for name, entry in (artifacts if isinstance(artifacts, dict) else {}).items():
                if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                    self._must_exist(entry["path"], f"flavors.{flavour}.artifacts.{name}.path", place)
            if content.get("serialization_format") == "skops" and not self._mlflow_reads_skops():
                self.error(
                    "saved as skops, which the server's MLflow can't read",
                    place,
                    "save_model(..., serialization_format='cloudpickle')",
                )
        function = flavours.get("python_function")
        env = function.get("env") if isinstance(function, dict) else None
        named = env if isinstance(env, dict) else {"conda": env}
        for kind, file in named.items():
            if isinstance(file, str):
                self._must_exist(file, f"flavors.python_function.env.{kind}", place)
        for file in ("conda.yaml", "python_env.yaml", "requirements.txt"):
            if not (self.directory / file).is_file() and file not in named.values():
                self.warn(
                    f"{file} is missing: what the model needs can't be compared with the server's", self.place(file)
                )

    def _mlflow_reads_skops(self) -> bool:
        runtime = self.runtimes.get("mlflow")
        return runtime is not None and runtime.has("skops")

    def _must_exist(self, relative: str, key: str, place: Place) -> None:
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts:
            self.error(f"{key} points out of the package: {relative}", place, "a package carries all its files")
        elif not (self.directory / relative).exists():
            self.error(f"{relative} is missing ({key} names it)", place)

    def _requirements(self, function: Mapping[str, object]) -> dict[str, Requirement]:
        """Distribution -> what the package asks for, from requirements.txt, else from conda.yaml."""
        lines: list[tuple[str, str, int | None]] = []
        file = self.directory / "requirements.txt"
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            lines = [("requirements.txt", line, number) for number, line in enumerate(text.splitlines(), 1)]
        else:
            lines = [("conda.yaml", line, None) for line in self._conda_pip(function)]
        found: dict[str, Requirement] = {}
        for name, raw, number in lines:
            line = raw.partition(" #")[0].strip()
            if not line or line.startswith(("#", "-")):
                continue
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                place = Place(self.place(name).file, number)
                self.warn(f"{line!r} is no requirement that can be compared", place)
                continue
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(requirement.name)] = requirement
        return found

    def _conda_pip(self, function: Mapping[str, object]) -> list[str]:
        env = function.get("env")
        name = env.get("conda") if isinstance(env, dict) else env
        file = self.directory / str(name or "conda.yaml")
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        except yaml.YAMLError:
            self.error("not YAML", self.place(file.name))
            return []
        entries = document.get("dependencies") if isinstance(document, dict) else None
        return [
            str(line)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
            for line in (entry.get("pip") or [])
        ]

    def _mlflow_versions(
        self,
        document: Mapping[str, object],
        flavours: Mapping[str, object],
        requirements: Mapping[str, Requirement],
        runtime: Runtime,
        place: Place,
    ) -> None:
        function = flavours.get("python_function")
        python = function.get("python_version") if isinstance(function, dict) else None
        if python is not None:
            self.facts.append(f"saved with Python {python}; {runtime.name} runs {runtime.python}")
            version = _version(python)
            if version is None:
                self.error(f"python_version {python!r} is no version", place)
            elif version.release[:2] != runtime.python.release[:2]:
                self.warn(f"saved with Python {python}, the server runs {runtime.python}", place)
        saved = _version(document.get("mlflow_version"))
        server = runtime.packages.get("mlflow")
        if saved is not None and server is not None and saved.major > server.major:
            self.warn(f"saved with MLflow {saved}, the server has {server}", place)
        for flavour in flavours:
            package = _FLAVOUR_PACKAGES.get(str(flavour), canonicalize_name(str(flavour)))
            if not runtime.has(package):
                self.error(
                    f"flavour {flavour} needs {package}, which {runtime.name} does not have", place, _OWN_RUNTIME
                )
        for name, requirement in requirements.items():
            self._compare(name, requirement, runtime)

    def _compare(self, name: str, requirement: Requirement, runtime: Runtime) -> None:
        place = self.place("requirements.txt")
        if name == "mlflow":
            # The server loads with its own MLflow, whatever the package asks for; its version is compared above.
            return
        there = runtime.packages.get(name)
        if there is None:
            if not runtime.has(name):
                self.warn(f"{name} is asked for, and {runtime.name} does not have it", place, _OWN_RUNTIME)
            return
        if not requirement.specifier or requirement.specifier.contains(there, prereleases=True):
            return
        pins = [_version(one.version) for one in requirement.specifier if one.operator in ("==", "===", "~=")]
        pin = next((version for version in pins if version is not None), None)
        message = f"{name}{requirement.specifier} is asked for, {runtime.name} has {there}"
        newer = pin is not None and pin.release[:2] > there.release[:2]
        if pin is not None and pin.release[:2] == there.release[:2]:
            return
        if newer and name in _WRITERS:
            self.error(f"{message}, which need not read what a newer one wrote", place, f"train with {name} {there}")
        else:
            self.warn(message, place)

    def check_triton(self) -> None:
        onnx = [file for file in self.files if file.suffix == ".onnx"]
        if onnx and not self.folders:
            name = onnx[0].stem
            self.error(
                f"{onnx[0].name} lies at the top, and Triton wants a repository",
                self.place(onnx[0].name),
                f"move it to {name}/1/model.onnx, and give the folder above {name}",
            )
            return
        if (self.directory / "config.pbtxt").is_file() or self._is_triton_model():
            self.root = ".."
            self.warn(
                "this is one model of a repository, and Triton is given the folder above it",
                hint=f"push the folder that holds {self.directory.resolve().name}, and nothing but models",
            )
            model, problems = triton.check_one(self.directory, self.directory.resolve().name)
            models = [model] if model else []
        else:
            models, problems = triton.check_repository(self.directory)
        self.problems += problems
        self.facts += [
            f"model {model.name}: backend {model.backend or 'unknown'}, "
            f"versions {', '.join(map(str, model.versions)) or 'none'}"
            for model in models
        ]
        self._scan_pickles(None, set())

    def check_sklearn(self) -> None:
        self._single("sklearn")

    def check_xgboost(self) -> None:
        self._single("xgboost")

    def check_lightgbm(self) -> None:
        self._single("lightgbm")

    def _single(self, runtime: str) -> None:
        endings = SINGLE_FILE[runtime]
        found = [file for file in self.files if file.suffix in endings]
        if not found:
            self.error(f"no file that ends in {', '.join(endings)}")
        elif len(found) > 1:
            names = ", ".join(file.name for file in found)
            self.error(
                f"{len(found)} model files ({names}), and the server takes exactly one", hint="move the others away"
            )
        else:
            self.facts.append(f"model file: {found[0].name}")
            if not found[0].stat().st_size:
                self.error("the file is empty", self.place(found[0].name))
        self._scan_pickles(self.runtimes.get(runtime), set())

    def check_tensorflow(self) -> None:
        if (self.directory / "saved_model.pb").is_file():
            self.error(
                "saved_model.pb lies at the top, and TensorFlow Serving wants version folders",
                self.place("saved_model.pb"),
                "move everything into a folder named 1",
            )
            return
        for folder in self.folders:
            if folder.name.isdigit() and not (folder / "saved_model.pb").is_file():
                self.error("saved_model.pb is missing", self.place(folder.name))
            elif folder.name.isdigit():
                self.facts.append(f"version {folder.name}")
                if not (folder / "variables").is_dir():
                    self.warn("no folder variables: right only for a model without weights", self.place(folder.name))

    def check_pytorch(self) -> None:
        if not list(self.directory.glob("model-store/*.mar")):
            self.error(
                "no model-store/*.mar, where TorchServe looks",
                hint="config/config.properties and model-store/<name>.mar",
            )
        if not (self.directory / "config" / "config.properties").is_file():
            self.error("config/config.properties is missing")
        self._scan_pickles(None, set())

    def check_huggingface(self) -> None:
        names = {file.name for file in self.files}
        weights = [file for file in self.files if file.suffix == ".safetensors"]
        self.facts.append(f"{len(weights)} safetensors files")
        if not names & {"tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json", "spiece.model"}:
            self.error("no tokenizer", hint="tokenizer.save_pretrained(directory)")
        self._scan_pickles(None, set())

    def _scan_pickles(self, runtime: Runtime | None, promised: set[str]) -> None:
        """Every pickle of the package; ``promised`` are distributions already spoken of."""
        for path in sorted(self.directory.rglob("*")):
            relative = path.relative_to(self.directory).as_posix()
            if path.is_symlink() and not path.resolve().is_relative_to(self.directory.resolve()):
                self.error(f"a link out of the package, to {path.resolve()}", self.place(relative), "copy the file in")
                continue
            if path.is_file() and (is_pickle(path) or path.suffix in (".pt", ".pth", ".bin")):
                if path.suffix in (".pt", ".pth", ".bin") and path.open("rb").read(2) not in (b"PK", b"\x80\x02"):
                    continue
                self._judge(relative, scan(path), runtime, promised)

    def _judge(self, relative: str, report: PickleReport, runtime: Runtime | None, promised: set[str]) -> None:
        place = self.place(relative)
        for sentence in report.unsafe:
            self.error(f"unsafe pickle: {sentence}; loading it runs code", place, "don't serve it unless you wrote it")
        if report.unread:
            self.error(f"the pickle was not read to its end ({report.unread}): what follows is unknown", place)
        if runtime is None:
            return
        if report.brings_code:
            self.warn(f"carries functions as byte code: they run only on Python {_minor(runtime.python)}", place)
        local = {
            entry.name.removesuffix(".py") for entry in (*self.directory.glob("code/*"), *self.directory.glob("*.py"))
        }
        for module in sorted(report.modules - _STANDARD - local):
            package = distribution_of(module)
            # An extension module's name starts with "_" and belongs to a package that is imported too.
            private = module.startswith("_") and module != "__main__"
            if runtime.has(package) or private or package in promised:
                continue
            if module == "__main__":
                self.error(
                    "needs a class of the script that trained it (__main__)", place, "put the class into a module"
                )
            else:
                self.error(f"needs the module {module}, which {runtime.name} does not have", place, _OWN_RUNTIME)

    def place(self, relative: str) -> Place:
        return Place(f"{self.directory}/{relative}")

    def error(self, message: str, place: Place | None = None, hint: str = "") -> None:
        self.problems.append(Problem(message, place or Place(str(self.directory)), hint))

    def warn(self, message: str, place: Place | None = None, hint: str = "") -> None:
        self.problems.append(Problem(message, place or Place(str(self.directory)), hint, "warning"))


_OWN_RUNTIME: Final = "serve it with a ServingRuntime of your own that has it (property servingRuntime)"


def _version(value: object) -> Version | None:
    text = str(value) if value is not None else ""
    if not re.match(r"\d", text):
        return None
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _minor(version: Version) -> str:
    return f"{version.major}.{version.minor}"
