"""Will this directory serve?

What kind of package it is, what is wrong with it, and what to write into the application.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from velagen.errors import Place, Problem, VelagenError
from velagen.model.environment import NAME, read_environment
from velagen.model.files import LINK_TO_FOLDER, entries, inside, read_bytes, read_json, read_yaml, short
from velagen.model.imports import imports_for
from velagen.model.pickles import PickleReport, scan
from velagen.model.runtimes import Runtime, distribution_of, load_runtimes
from velagen.model.triton_backends import is_model
from velagen.model.weights import check_safetensors, has_keras_lambda, is_pointer

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
    #: Lines worth knowing that are not problems: flavours, versions, models.
    facts: tuple[str, ...] = ()
    #: Files that a server runs or loads and that were not read: programs, archives, graphs.
    unread: tuple[str, ...] = ()
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

    VelagenError when it is not a directory.
    """
    if not directory.is_dir():
        raise VelagenError(
            Problem("not a directory", Place(str(directory)), "a package is a directory with the model in it")
        )
    checker = _Checker(directory, load_runtimes() if runtimes is None else runtimes)
    layout = runtime or checker.layout()
    for look in (getattr(checker, f"check_{layout or 'nothing'}"), lambda: checker.check_files(layout)):
        try:
            look()
        except VelagenError as error:
            checker.problems += error.problems
        except OSError as error:
            where = Place(str(error.filename or directory))
            checker.problems.append(Problem(f"can't be read: {error.strerror or error}", where))
    problems = tuple(dict.fromkeys(checker.problems))
    return ModelReport(directory, layout, problems, tuple(checker.facts), tuple(checker.unread), checker.root)


class _Checker:
    def __init__(self, directory: Path, runtimes: Mapping[str, Runtime]) -> None:
        self.directory = directory
        self.runtimes = dict(runtimes)
        self.problems: list[Problem] = []
        self.facts: list[str] = []
        self.unread: list[str] = []
        self.root = "."
        #: Files that a server takes for pickles, whatever their names.
        self.pickles: set[str] = set()
        #: Distributions whose versions are complained of already.
        self.complained: set[str] = set()
        #: The Python that saved the package, where it says so.
        self.python: Version | None = None
        #: Where a package's own modules lie.
        self.code = ["code"]
        self.files = sorted(entry for entry in directory.iterdir() if entry.is_file())
        self.folders = sorted(entry for entry in directory.iterdir() if entry.is_dir())

    def layout(self) -> str:
        """What the directory looks like; "" when like nothing that is served."""
        names = {file.name for file in self.files}
        if "MLmodel" in names:
            return "mlflow"
        if is_model(self.directory) or any(is_model(folder) for folder in self.folders):
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
                return "lightgbm" if _head(file, 4) == b"tree" else "xgboost"
            if file.suffix == ".ubj" or (file.suffix == ".json" and b'"learner"' in _head(file, 4096)):
                return "xgboost"
        return ""

    # One method a layout.

    def check_nothing(self) -> None:
        seen = ", ".join(entry.name for entry in (*self.files, *self.folders)) or "nothing"
        self.error(
            f"no model that a runtime serves; it holds {seen}",
            hint="an MLflow package has a file MLmodel, a Triton repository one folder a model with config.pbtxt",
        )

    def check_mlflow(self) -> None:
        place = self.place("MLmodel")
        document = read_yaml(self.directory, "MLmodel")
        if document is None:
            self.error("MLmodel is missing", hint="mlflow.<flavour>.save_model writes it")
            return
        flavours = document.get("flavors") if isinstance(document, dict) else None
        if not isinstance(flavours, dict) or not flavours:
            self.error("no flavors: this is not an MLmodel", place)
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
        self._mlflow_loader(function, place)
        requirements = self._requirements(function)
        if runtime is None:
            return
        tarball = self._mlserver_settings() or NAME
        if inside(self.directory, tarball) is not None:
            runtime = self.runtimes["mlflow"] = read_environment(self.directory / tarball, runtime)
            self.facts.append(f"runs in {tarball}: Python {runtime.python}, {len(runtime.packages)} packages")
        self._mlflow_versions(document, flavours, requirements, runtime, place)

    def _mlserver_settings(self) -> str:
        """What model-settings.json says to MLServer: a class to import, and the environment that the model runs in."""
        file = "model-settings.json"
        settings = read_json(self.directory, file)
        if settings is None:
            return ""
        place = self.place(file)
        if not isinstance(settings, dict):
            self.error("not an object", place)
            return ""
        made_by = settings.get("implementation", "mlserver_mlflow.MLflowRuntime")
        if not isinstance(made_by, str) or not re.fullmatch(r"mlserver_\w+(\.\w+)+", made_by):
            self.error(f"implementation {short(made_by)} is not one of MLServer's own", place, _OWN_RUNTIME)
        parameters = settings.get("parameters")
        tarball = parameters.get("environment_tarball") if isinstance(parameters, dict) else None
        if not isinstance(tarball, str):
            return ""
        self._must_exist(tarball, "environment_tarball", place)
        return tarball.removeprefix("./")

    def _mlflow_loader(self, function: Mapping[str, object], place: Place) -> None:
        """MLflow imports the loader's module and calls it (mlflow/pyfunc/__init__.py, load_model)."""
        loader = function.get("loader_module")
        if loader is None or (isinstance(loader, str) and re.fullmatch(r"mlflow(\.\w+)+", loader)):
            return
        own = isinstance(loader, str) and loader.partition(".")[0] in self._own_modules()
        if not own:
            self.error(f"loader_module {short(loader)} is neither MLflow's nor in the package", place)

    def _mlflow_files(self, flavours: Mapping[str, object], place: Place) -> None:
        for flavour, content in flavours.items():
            if not isinstance(content, dict):
                self.error(f"flavour {flavour} is not a table", place)
                continue
            for key in _FILES:
                value = content.get(key)
                if isinstance(value, str) and value:
                    self._must_exist(value, f"flavors.{flavour}.{key}", place)
                    if key in ("pickled_model", "python_model") and not value.endswith(".py"):
                        self.pickles.add(value)
                    if key == "code":
                        self.code.append(value)
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
            self.error(f"{key} points out of the package: {short(relative)}", place, "a package carries all its files")
        elif inside(self.directory, relative) is None:
            self.error(f"{relative if len(relative) < _LONG else short(relative)} is missing ({key} names it)", place)

    def _requirements(self, function: Mapping[str, object]) -> dict[str, Requirement]:
        """Distribution -> what the package asks for, from requirements.txt, else from conda.yaml."""
        lines: list[tuple[str, str, int | None]] = []
        data = read_bytes(self.directory, "requirements.txt")
        if data is not None:
            text = data.decode("utf-8", "replace")
            lines = [("requirements.txt", line, number) for number, line in enumerate(text.splitlines(), 1)]
        else:
            lines = [("conda.yaml", line, None) for line in self._conda_pip(function)]
        found: dict[str, Requirement] = {}
        for name, raw, number in lines:
            line = raw.partition(" #")[0].strip()
            if not line or line.startswith(("#", "-")):
                continue
            try:
                requirement = Requirement(line if len(line) < _LONG else "")
                applies = requirement.marker is None or requirement.marker.evaluate()
            except (InvalidRequirement, UndefinedEnvironmentName, UndefinedComparison, ValueError):
                place = Place(self.place(name).file, number)
                self.warn(f"{short(line)} is not a requirement that can be compared", place)
                continue
            if applies:
                found[canonicalize_name(requirement.name)] = requirement
        return found

    def _conda_pip(self, function: Mapping[str, object]) -> list[str]:
        env = function.get("env")
        name = env.get("conda") if isinstance(env, dict) else env
        document = read_yaml(self.directory, name if isinstance(name, str) and name else "conda.yaml")
        dependencies = document.get("dependencies") if isinstance(document, dict) else None
        lines: list[str] = []
        for entry in dependencies if isinstance(dependencies, list) else []:
            pip = entry.get("pip") if isinstance(entry, dict) else None
            lines += [str(line) for line in pip if isinstance(line, str)] if isinstance(pip, list) else []
        return lines

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
            version = _version(python)
            if version is None:
                self.error(f"python_version {short(python)} is not a version", place)
            else:
                self.python = version
                self.facts.append(f"saved with Python {version}; {runtime.name} runs {runtime.python}")
                if version.release[:2] != runtime.python.release[:2]:
                    self.warn(f"saved with Python {version}, the server runs {runtime.python}", place)
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
        for content in flavours.values():
            for key, package in _FLAVOUR_VERSIONS.items():
                if isinstance(content, dict) and content.get(key) is not None:
                    self._wrote(package, content[key], runtime, place)

    def _wrote(self, package: str, version: object, runtime: Runtime, place: Place) -> None:
        """A release of ``package`` wrote the model; where it is newer than the server's, the server may not read it."""
        saved, there = _version(version), runtime.packages.get(package)
        if saved is None:
            self.error(f"{short(version)} is not a version of {package}", place)
        elif there is not None and package not in self.complained and saved.release[:2] != there.release[:2]:
            self.complained.add(package)
            message = f"written by {package} {saved}, and {runtime.name} has {there}"
            if saved > there:
                self.error(f"{message}, which need not read what a newer one wrote", place, _train(package, there))
            else:
                self.warn(message, place)

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
        if pin is not None and pin.release[:2] == there.release[:2]:
            return
        self.complained.add(name)
        message = f"{name}{requirement.specifier} is asked for, {runtime.name} has {there}"
        if pin is not None and pin > there and name in _WRITERS:
            self.error(f"{message}, which need not read what a newer one wrote", place, _train(name, there))
        else:
            self.warn(message, place)

    def check_triton(self) -> None:
        from velagen.model import triton  # here, since no other package is read with protobuf

        onnx = [file for file in self.files if file.suffix == ".onnx"]
        if onnx and not self.folders:
            name = onnx[0].stem
            self.error(
                f"{onnx[0].name} lies at the top, and Triton wants a repository",
                self.place(onnx[0].name),
                f"move it to {name}/1/model.onnx, and give the folder above {name}",
            )
            return
        if is_model(self.directory):
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

    def check_onnx(self) -> None:
        """KServe serves the format onnx with Triton, from a repository."""
        self.check_triton()

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

    def check_huggingface(self) -> None:
        names = {file.name for file in self.files}
        if "config.json" not in names and "params.json" not in names:
            self.error("config.json is missing", hint="model.save_pretrained(directory)")
        weights = [file for file in self.files if file.suffix in _WEIGHTS]
        if not weights:
            self.error("no weights: no file that ends in .safetensors or .bin")
        self.facts.append(f"{sum(file.suffix == '.safetensors' for file in weights)} safetensors files")
        if not any(_is_tokenizer(name) for name in names):
            self.error("no tokenizer", hint="tokenizer.save_pretrained(directory)")
        for file in self.files:
            if file.name.endswith(".index.json"):
                self._shards(file.name)
            if file.suffix == ".safetensors" and not is_pointer(file):
                self.problems += check_safetensors(file)

    def check_vllm(self) -> None:
        """The same files; vLLM reads them itself."""
        self.check_huggingface()

    def _shards(self, index: str) -> None:
        document = read_json(self.directory, index)
        weights = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(weights, dict):
            self.error("no weight_map: this is not an index of shards", self.place(index))
            return
        for shard in sorted({str(name) for name in weights.values()}):
            if inside(self.directory, shard) is None:
                self.error(f"{shard} is missing ({index} names it)", self.place(index), "fetch the whole repository")

    # All files, whatever the layout.

    def check_files(self, layout: str) -> None:
        """Links, pointers in place of files, and pickles; and which files nobody read."""
        runtime = self.runtimes.get(layout)
        allowed = imports_for(layout)
        if runtime is not None:
            allowed = allowed.with_more(runtime.imports)
        for entry in entries(self.directory):
            if entry.wrong == LINK_TO_FOLDER:
                self.warn(f"{entry.wrong}, which model push refuses", self.place(entry.name), "copy it in")
            elif entry.wrong:
                self.error(entry.wrong, self.place(entry.name), "copy in what is meant, or take it away")
            if not entry.is_file:
                continue
            if is_pointer(entry.path):
                self.error(
                    "a pointer of Git LFS in place of the file", self.place(entry.name), "git lfs pull brings the file"
                )
                continue
            if entry.name.lower().endswith(_NOT_READ):
                self.unread.append(entry.name)
            if has_keras_lambda(entry.path):
                self.error("a Lambda layer of Keras, which is byte code that runs", self.place(entry.name))
            expected = True if entry.name in self.pickles else None
            if entry.name.endswith("pickle_module_info.txt"):
                self._pickle_module(entry.name)
            if entry.name != NAME:
                self._judge(entry.name, scan(entry.path, allowed, expected=expected), runtime)

    def _pickle_module(self, name: str) -> None:
        """MLflow's flavour pytorch imports the module that this file names (mlflow/pytorch/__init__.py)."""
        module = (read_bytes(self.directory, name) or b"").decode("utf-8", "replace").strip()
        if module not in ("mlflow.pytorch.pickle_module", "pickle", "cloudpickle"):
            self.error(f"the module {short(module)} is imported to load the model", self.place(name), _UNLISTED)

    def _own_modules(self) -> set[str]:
        """Modules that come with the package and stand in nobody's way: Python takes its own, and installed, ones."""
        folders = [path for name in self.code if (path := inside(self.directory, name)) is not None and path.is_dir()]
        names = {entry.name.removesuffix(".py") for folder in folders for entry in folder.iterdir()}
        runtime = self.runtimes.get("mlflow")
        return {
            name
            for name in names
            if name not in _STANDARD and (runtime is None or not runtime.has(distribution_of(name)))
        }

    def _judge(self, relative: str, report: PickleReport, runtime: Runtime | None) -> None:
        place = self.place(relative)
        own = self._own_modules()
        lacking = set()
        for module, name in report.unlisted:
            top = module.partition(".")[0]
            if top in own:
                continue
            if top == "__main__":
                self.error(
                    "needs a class of the script that trained it (__main__)", place, "put the class into a module"
                )
            elif runtime is not None and top not in _STANDARD and not self._has(runtime, top):
                lacking.add(top)
            else:
                self.error(
                    f"unsafe pickle: it imports {module}.{name}, which is not on the list of what models need",
                    place,
                    _UNLISTED,
                )
        for module in report.unlisted_modules:
            if module.partition(".")[0] not in own:
                self.error(f"unsafe pickle: it imports the module {module}", place, _UNLISTED)
        for sentence in report.doubts:
            self.error(f"unsafe pickle: {sentence}; loading it runs code", place, "don't serve it unless you wrote it")
        if report.unread:
            self.error(f"the pickle was not read to its end ({report.unread}): what follows is unknown", place)
        if report.brings_code and runtime and self.python and _minor(self.python) != _minor(runtime.python):
            self.error(
                f"carries functions as byte code of Python {_minor(self.python)}, and {runtime.name} runs "
                f"{runtime.python}, which can't run it",
                place,
                f"save it with Python {_minor(runtime.python)}, or put the functions into a module (code_paths)",
            )
        elif report.brings_code:
            only = f": they run only on Python {_minor(runtime.python)}" if runtime else ""
            self.warn(f"carries functions as byte code, which was not read{only}", place)
        if runtime is None:
            return
        listed = {module.partition(".")[0] for module, _ in report.imports - set(report.unlisted)}
        lacking |= {top for top in listed - _STANDARD if not self._has(runtime, top)}
        for top in sorted(lacking):
            self.error(f"needs the module {top}, which {runtime.name} does not have", place, _OWN_RUNTIME)
        for version in sorted(report.sklearn_versions):
            self._wrote("scikit-learn", version, runtime, place)

    def _has(self, runtime: Runtime, top: str) -> bool:
        # The names of two modules that are not distributions: scikit-learn's extension _loss, and TorchScript's own.
        return runtime.has(distribution_of(top)) or top in ("_loss", "__torch__")

    def place(self, relative: str) -> Place:
        return Place(f"{self.directory}/{relative}")

    def error(self, message: str, place: Place | None = None, hint: str = "") -> None:
        self.problems.append(Problem(message, place or Place(str(self.directory)), hint))

    def warn(self, message: str, place: Place | None = None, hint: str = "") -> None:
        self.problems.append(Problem(message, place or Place(str(self.directory)), hint, "warning"))


#: Keys of a flavour that name a file or folder.
_FILES: Final = (
    "data",
    "model_path",
    "pickled_model",
    "model_data",
    "code",
    "python_model",
    "saved_model_dir",
    "model_binary",
    "model_code_path",
)
#: Keys of a flavour that say which release of a distribution wrote the model.
_FLAVOUR_VERSIONS: Final = {
    "sklearn_version": "scikit-learn",
    "xgb_version": "xgboost",
    "lgb_version": "lightgbm",
    "catboost_version": "catboost",
    "pytorch_version": "torch",
}
_WEIGHTS: Final = (".safetensors", ".bin")
#: Files of a package that a server runs, or that hold programs, and that nothing here reads.
_NOT_READ: Final = (
    ".py", ".pyc", ".so", ".sh", ".mar", ".jar", ".whl", ".h5", ".hdf5", ".keras", "saved_model.pb", ".tar.gz", ".tgz",
    ".tar.bz2", ".tar.xz", ".7z",
)  # fmt: skip
_LONG: Final = 500
_UNLISTED: Final = "don't serve it unless you wrote it; a table of your own can list it (--runtimes FILE, imports:)"
_OWN_RUNTIME: Final = "serve it with a ServingRuntime of your own that has it (property servingRuntime)"


def _train(package: str, there: Version) -> str:
    return f"train with {package} {there}, or bring {NAME} (conda-pack)"


def _is_tokenizer(name: str) -> bool:
    """Whether Transformers or vLLM can make a tokenizer of the file: its own format, SentencePiece, vocabularies."""
    known = ("tokenizer.json", "vocab.txt", "vocab.json", "vocab.bpe", "tekken.json", "merges.txt")
    # SentencePiece (spiece.model, sentencepiece.bpe.model, tokenizer.model.v3, source.spm) and tiktoken: many names.
    return name in known or re.search(r"\.(model|spm|tiktoken)(\.v\d+)?$", name) is not None


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _version(value: object) -> Version | None:
    text = str(value) if isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**9) else ""
    if not re.match(r"\d", text) or len(text) > _LONG:
        return None
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _minor(version: Version) -> str:
    return f"{version.major}.{version.minor}"
