"""A Triton model repository: folders of models, each with config.pbtxt and numbered versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from velagen.errors import Place, Problem, VelagenError

#: Backend -> the file (or folder) a version holds, by Triton's default; None: the version folder may be empty.
BACKEND_FILES: Final[dict[str, str | None]] = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "pytorch": "model.pt",
    "python": "model.py",
    "openvino": "model.xml",
    "dali": "model.dali",
    "tensorflow_savedmodel": "model.savedmodel",
    "tensorflow_graphdef": "model.graphdef",
    "ensemble": None,
    "identity": None,
}
_PLATFORMS: Final = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow_savedmodel",
    "tensorflow_graphdef": "tensorflow_graphdef",
    "ensemble": "ensemble",
}
#: Backends for which Triton completes a missing config.pbtxt by itself.
_COMPLETES: Final = {"onnxruntime", "tensorrt", "python", "openvino", "tensorflow_savedmodel"}

_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')|(?P<sign>[{}\[\]:,;<>])|(?P<word>[^\s{}\[\]:,;<>"\'#]+)'
)

Value = str | int | float | bool | dict[str, list["Value"]]


def parse_config(text: str, origin: str) -> dict[str, list[Value]]:
    """Read protobuf's text form: field -> its values, in order; VelagenError with file and line when it is not that."""
    tokens = list(_tokens(text, origin))
    tokens.append(("", "", text.count("\n") + 1))
    fields, end = _message(tokens, 0, "", origin)
    if end != len(tokens) - 1:
        raise _wrong(origin, tokens[end][2], f"unexpected {tokens[end][1]!r}")
    return fields


@dataclass(frozen=True)
class TritonModel:
    """One model of a repository."""

    name: str
    backend: str
    versions: tuple[int, ...]


def is_model(folder: Path) -> bool:
    """Whether ``folder`` looks like one model of a repository: a config.pbtxt, or a version that holds a model file."""
    if (folder / "config.pbtxt").is_file():
        return True
    names = {name for name in BACKEND_FILES.values() if name}
    return any(
        entry.is_dir() and entry.name.isdigit() and any((entry / name).exists() for name in names)
        for entry in folder.iterdir()
    )


def check_repository(root: Path) -> tuple[list[TritonModel], list[Problem]]:
    """Look at every model of the repository ``root``; the models that were understood, and all that is wrong."""
    models: list[TritonModel] = []
    problems: list[Problem] = []
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        model, found = check_one(folder, f"{root.name}/{folder.name}")
        problems += found
        if model is not None:
            models.append(model)
    return models, problems


def check_one(folder: Path, shown: str) -> tuple[TritonModel | None, list[Problem]]:
    """Look at the model in ``folder``, named ``shown`` in messages; None when its configuration can't be read."""
    problems: list[Problem] = []
    config: dict[str, list[Value]] = {}
    file = folder / "config.pbtxt"
    place = Place(f"{shown}/config.pbtxt")
    if file.is_file():
        try:
            config = parse_config(file.read_text(encoding="utf-8"), str(place.file))
        except VelagenError as error:
            return None, list(error.problems)
        except UnicodeDecodeError:
            return None, [Problem("config.pbtxt is no text", place)]
    name = _one(config, "name")
    if name is not None and name != folder.name:
        problems.append(
            Problem(f"name is {name!r}, but Triton wants the folder's name, {folder.name!r}", place, "drop the line")
        )
    versions = [entry for entry in folder.iterdir() if entry.is_dir() and re.fullmatch(r"[1-9]\d*", entry.name)]
    for entry in folder.iterdir():
        if entry.is_dir() and re.fullmatch(r"0\d*", entry.name):
            problems.append(
                Problem(
                    "Triton ignores version 0 and leading zeros", Place(f"{shown}/{entry.name}"), severity="warning"
                )
            )
    backend = _backend(config, versions)
    if backend is None:
        known = ", ".join(BACKEND_FILES)
        problems.append(
            Problem("no backend: neither config.pbtxt nor a model file says which", place, f"one of {known}")
        )
    elif not config and backend not in _COMPLETES:
        problems.append(Problem(f"the {backend} backend needs a config.pbtxt with inputs and outputs", place))
    if not versions:
        problems.append(Problem("no version folder", Place(shown), "put the model file into a folder named 1"))
    wanted = _one(config, "default_model_filename") or BACKEND_FILES.get(backend or "")
    for version in versions:
        if isinstance(wanted, str) and not (version / wanted).exists():
            problems.append(Problem(f"{wanted} is missing", Place(f"{shown}/{version.name}"), f"backend {backend}"))
    if backend is not None and backend not in BACKEND_FILES:
        problems.append(
            Problem(
                f"backend {backend!r} is none of those in Triton's own image",
                place,
                "the runtime must bring it",
                "warning",
            )
        )
    problems += _check_batching(config, place)
    model = TritonModel(folder.name, backend or "", tuple(sorted(int(version.name) for version in versions)))
    return model, problems


def _backend(config: dict[str, list[Value]], versions: list[Path]) -> str | None:
    backend, platform = _one(config, "backend"), _one(config, "platform")
    if isinstance(platform, str) and platform:
        return _PLATFORMS.get(platform, platform)
    if backend == "tensorflow":
        return "tensorflow_savedmodel"
    if isinstance(backend, str) and backend:
        return backend
    for version in versions:
        for name, file in BACKEND_FILES.items():
            if file and (version / file).exists():
                return name
    return None


def _check_batching(config: dict[str, list[Value]], place: Place) -> list[Problem]:
    problems = []
    most = _one(config, "max_batch_size")
    if most is not None and (not isinstance(most, int) or most < 0):
        return [Problem(f"max_batch_size must be a whole number, 0 or more, not {most!r}", place)]
    for batching in config.get("dynamic_batching", []):
        if not isinstance(most, int) or most < 1:
            problems.append(Problem("dynamic_batching needs max_batch_size of 1 or more", place))
        elif isinstance(batching, dict):
            too_large = [
                size for size in batching.get("preferred_batch_size", []) if isinstance(size, int) and size > most
            ]
            if too_large:
                problems.append(Problem(f"preferred_batch_size {too_large} is over max_batch_size {most}", place))
    return problems


def _one(fields: dict[str, list[Value]], name: str) -> Value | None:
    values = fields.get(name)
    return values[-1] if values else None


def _tokens(text: str, origin: str) -> Iterator[tuple[str, str, int]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        line = text.count("\n", 0, position) + 1
        if match is None:
            raise _wrong(origin, line, f"unexpected {text[position]!r}")
        position = match.end()
        if match.lastgroup:
            yield match.lastgroup, match[0], line


def _message(
    tokens: list[tuple[str, str, int]], at: int, close: str, origin: str
) -> tuple[dict[str, list[Value]], int]:
    fields: dict[str, list[Value]] = {}
    while True:
        kind, word, line = tokens[at]
        if word == close:
            return fields, at + (1 if close else 0)
        if word in (",", ";") and kind == "sign":
            at += 1
            continue
        if kind != "word":
            raise _wrong(
                origin, line, f"a field's name must be here, not {word!r}" if word else f"{close!r} is missing"
            )
        at += 1
        if tokens[at][1] == ":":
            at += 1
        if tokens[at][:2] == ("sign", "["):
            at += 1
            while tokens[at][:2] != ("sign", "]"):
                if tokens[at][:2] == ("sign", ","):
                    at += 1
                    continue
                value, at = _value(tokens, at, origin)
                fields.setdefault(word, []).append(value)
            at += 1
        else:
            value, at = _value(tokens, at, origin)
            fields.setdefault(word, []).append(value)


def _value(tokens: list[tuple[str, str, int]], at: int, origin: str) -> tuple[Value, int]:
    kind, word, line = tokens[at]
    if kind == "sign" and word in "{<":
        return _message(tokens, at + 1, "}" if word == "{" else ">", origin)
    if kind == "text":
        parts = []
        while tokens[at][0] == "text":
            parts.append(tokens[at][1][1:-1])
            at += 1
        return "".join(parts), at
    if kind == "word":
        if word in ("true", "false"):
            return word == "true", at + 1
        try:
            return int(word, 0), at + 1
        except ValueError:
            pass
        try:
            return float(word), at + 1
        except ValueError:
            return word, at + 1
    raise _wrong(origin, line, f"a value must be here, not {word!r}" if word else "a value is missing")


def _wrong(origin: str, line: int, message: str) -> VelagenError:
    return VelagenError(Problem(message, Place(origin, line)))
