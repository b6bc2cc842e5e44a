"""A Triton model repository: folders of models, each with config.pbtxt and numbered versions.

What is filled in and looked for, and which versions are loaded, is as in triton-inference-server/core, main of 2026-06:
src/model_config_utils.cc (AutoCompleteBackendFields), src/constants.h, src/model_repository_manager (VersionsToLoad).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from velagen.errors import Place, Problem, VelagenError
from velagen.model.files import read_bytes
from velagen.model.proto import triton_config_pb2 as pb
from velagen.model.triton_backends import BACKEND_FILES, BACKENDS
from velagen.model.triton_config import MOST, read_config
from velagen.model.triton_ensemble import cycles, fit_faults, graph_faults
from velagen.model.triton_rules import Fault, config_faults

#: Backends for which Triton completes a missing config.pbtxt by itself.
_COMPLETES: Final = {"onnxruntime", "tensorrt", "python", "openvino", "tensorflow"}
#: Backends that fill in what a tensor of the configuration lacks; of Python's, models that say so.
_FILLS: Final = {"tensorrt", "tensorflow"}
_AUTO_COMPLETE: Final = b"def auto_complete_config"
#: Folders of a model that are not versions.
_NO_VERSIONS: Final = ("configs", "warmup", "initial_state")
#: Folders that lie beside models and that a push leaves out.
_BESIDE: Final = ("lost+found", "__pycache__")
#: Fields that Triton 23.05, the image of KServe's runtime, does not know.
_NEW_FIELDS: Final = ("runtime", "model_metrics")
_DIRECTORY: Final = "$$TRITON_MODEL_DIRECTORY"


@dataclass(frozen=True)
class TritonModel:
    """One model of a repository."""

    name: str
    #: As `BACKEND_FILES` names it; "" where nothing says it.
    backend: str
    versions: tuple[int, ...]
    config: pb.ModelConfig
    #: Versions that its policy loads.
    loaded: tuple[int, ...]
    #: Whether the backend fills in what tensors lack.
    filled: bool

    @property
    def inputs_known(self) -> bool:
        """Whether the configuration lists all inputs, so that the backend adds none."""
        return bool(self.config.input) and not self.filled

    @property
    def outputs_known(self) -> bool:
        """The same of its outputs."""
        return bool(self.config.output) and not self.filled


def check_repository(root: Path) -> tuple[list[TritonModel], list[Problem]]:
    """Look at every model of the repository ``root``; the models that were understood, and all that is wrong."""
    models: list[TritonModel] = []
    problems: list[Problem] = []
    unread: set[str] = set()
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        shown = f"{root.name}/{folder.name}"
        if folder.name.startswith(".") or folder.name in _BESIDE:
            message = "not a model, and Triton would take it for one and stop"
            problems.append(Problem(message, Place(shown), "model push leaves it out", "warning"))
            continue
        model, found = check_one(folder, shown)
        problems += found
        if model is None:
            unread.add(folder.name)
        else:
            models.append(model)
    problems += _check_ensembles(models, unread, root.name)
    return models, problems


def _check_ensembles(models: list[TritonModel], unread: set[str], root: str) -> Iterator[Problem]:
    by_name = {model.name: model for model in models}
    circles = cycles(by_name)
    for circle in circles:
        place = Place(f"{root}/{circle[0]}/config.pbtxt")
        yield Problem(f"ensembles that call each other in a circle: {' -> '.join([*circle, circle[0]])}", place)
    for model in models:
        if model.config.HasField("ensemble_scheduling"):
            place = Place(f"{root}/{model.name}/config.pbtxt")
            in_circle = any(model.name in circle for circle in circles)
            faults = () if in_circle else fit_faults(model.name, model.config, by_name, unread)
            yield from _problems(faults, place)


def _problems(faults: Iterator[Fault] | tuple[Fault, ...], place: Place) -> Iterator[Problem]:
    for message, hint in faults:
        yield Problem(message, place, hint)


def check_one(folder: Path, shown: str) -> tuple[TritonModel | None, list[Problem]]:
    """Look at the model in ``folder``, named ``shown`` in messages; None when its configuration can't be read."""
    place = Place(f"{shown}/config.pbtxt")
    name = folder.resolve().name
    try:
        data = read_bytes(folder, "config.pbtxt", MOST)
        config = read_config((data or b"").decode("utf-8"), f"{shown}/config.pbtxt")
    except VelagenError as error:
        return None, list(error.problems)
    except UnicodeDecodeError:
        return None, [Problem("invalid UTF-8", place)]
    problems: list[Problem] = []
    if config.name and config.name != name:
        problems.append(
            Problem(f"name is {config.name!r}, but Triton wants the folder's name, {name!r}", place, "drop the line")
        )
    by_name = _fill_in(config, folder, name)
    ensemble = config.platform == "ensemble" or config.HasField("ensemble_scheduling")
    if not config.backend and not ensemble:
        known = ", ".join(sorted({row.name for row in BACKENDS}))
        message = f"unknown platform {config.platform!r}, and no backend" if config.platform else "no backend"
        problems.append(
            Problem(f"{message}: neither config.pbtxt nor a model file says which", place, f"backend: one of {known}")
        )
    elif config.backend and config.platform == "ensemble":
        problems.append(Problem(f"an ensemble takes no backend, {config.backend!r}", place, "drop the line"))
    elif data is None and not ensemble and "." not in name and config.backend not in _COMPLETES:
        problems.append(Problem(f"the {config.backend} backend needs a config.pbtxt with inputs and outputs", place))
    versions = _versions(folder)
    for version in _ignored(folder):
        problems.append(
            Problem("Triton ignores versions with leading zeros", Place(f"{shown}/{version}"), "", "warning")
        )
    loaded = _loaded(config, versions)
    filled = config.backend in _FILLS or _fills_in(config, folder, versions)
    if by_name and config.backend not in BACKEND_FILES:
        message = f"no backend, and {config.backend!r}, which the folder's name says, is not in Triton's own image"
        problems.append(Problem(message, place, 'backend: "..."'))
    problems += _check_versions(config, versions, loaded, shown)
    if config.backend:
        problems += _check_files(config, folder, loaded, shown)
    faults = [*graph_faults(config), *config_faults(config, completed=filled)]
    problems += _problems(tuple(faults), place)
    if config.HasField("dynamic_batching") and config.max_batch_size == 0:
        problems.append(
            Problem("dynamic_batching needs max_batch_size of 1 or more to do anything", place, "", "warning")
        )
    for field in _NEW_FIELDS:
        if any(descriptor.name == field for descriptor, _ in config.ListFields()):
            message = f"{field} is newer than Triton 23.05, which KServe's runtime has"
            problems.append(Problem(message, place, "property runtimeVersion takes a newer image", "warning"))
    if empty := [version for version in loaded if ensemble and not any((folder / str(version)).iterdir())]:
        hint = f"touch {name}/{empty[0]}/.keep"
        where = Place(f"{shown}/{empty[0]}")
        problems.append(Problem("an empty folder does not reach an object store", where, hint, "warning"))
    backend = "ensemble" if ensemble else config.platform if config.backend == "tensorflow" else config.backend
    return TritonModel(name, backend, versions, config, loaded, filled), problems


def _fill_in(config: pb.ModelConfig, folder: Path, name: str) -> bool:
    """Backend, platform and file, where the configuration leaves them out; whether the folder's name says the first."""
    first = min((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: entry.name, default=None)
    for row in BACKENDS:
        if config.backend not in ("", row.name):
            continue
        there = first / row.file if first is not None and not config.platform else None
        found = there is not None and there.exists() and row.is_folder in (None, there.is_dir())
        by_file = config.default_model_filename == row.file and (not config.platform or row.name != "tensorflow")
        named = row.platform != "" and config.platform == row.platform
        own = config.backend == row.name and row.name != "tensorflow" and config.platform in ("", row.platform)
        if named or by_file or own or (found and not config.default_model_filename):
            config.backend = row.name
            config.platform = config.platform or row.platform
            config.default_model_filename = config.default_model_filename or row.file
            return False
    by_name = not (config.backend or config.platform or config.default_model_filename) and "." in name
    if by_name:
        config.backend = name.partition(".")[2]
    return by_name


def _versions(folder: Path) -> tuple[int, ...]:
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in _NO_VERSIONS]
    return tuple(sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,17}", name)))


def _ignored(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and re.fullmatch(r"0[0-9]+", entry.name))


def _loaded(config: pb.ModelConfig, versions: tuple[int, ...]) -> tuple[int, ...]:
    policy = config.version_policy
    if policy.HasField("specific"):
        return tuple(version for version in versions if version in policy.specific.versions)
    if policy.HasField("all"):
        return versions
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return versions[-count:] if count else ()


def _fills_in(config: pb.ModelConfig, folder: Path, versions: tuple[int, ...]) -> bool:
    """Whether a model in Python completes its own configuration."""
    if config.backend != "python":
        return False
    files = [f"{version}/{config.default_model_filename}" for version in versions]
    return any(_AUTO_COMPLETE in (read_bytes(folder, file) or b"") for file in files)


def _check_versions(
    config: pb.ModelConfig, versions: tuple[int, ...], loaded: tuple[int, ...], shown: str
) -> Iterator[Problem]:
    place = Place(f"{shown}/config.pbtxt")
    if not versions:
        yield Problem("no version folder", Place(shown), "put the model file into a folder named 1")
    elif not loaded:
        there = ", ".join(map(str, versions))
        yield Problem("version_policy loads no version", place, f"the folder has {there}")
    for version in config.version_policy.specific.versions if loaded else ():
        if version not in versions:
            yield Problem(f"version_policy names version {version}, which is not there", place, "", "warning")


def _check_files(config: pb.ModelConfig, folder: Path, loaded: tuple[int, ...], shown: str) -> Iterator[Problem]:
    wanted = config.default_model_filename
    if not wanted and config.backend in BACKEND_FILES:
        wanted = BACKEND_FILES[config.backend] or ""
    # A file by compute capability, or a runtime of the model's own, stands in for it.
    for version in loaded if wanted and not config.cc_model_filenames and not config.runtime else ():
        if not (folder / str(version) / wanted).exists():
            yield Problem(f"{wanted} is missing", Place(f"{shown}/{version}"), f"backend {config.backend}")
    if config.backend not in BACKEND_FILES and config.backend != "tensorflow":
        yield Problem(
            f"backend {config.backend!r} is not in Triton's own image",
            Place(f"{shown}/config.pbtxt"),
            "the runtime must bring it",
            "warning",
        )
    for output in config.output:
        if output.label_filename and not (folder / output.label_filename).is_file():
            yield Problem(f"{output.label_filename} is missing (label_filename of {output.name!r})", Place(shown))
    key = "EXECUTION_ENV_PATH"
    environment = config.parameters[key].string_value if key in config.parameters else ""
    if environment.startswith(_DIRECTORY) and not (folder / environment[len(_DIRECTORY) :].strip("/")).exists():
        yield Problem(f"{environment} is missing ({key})", Place(shown))
