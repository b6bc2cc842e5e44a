"""Triton's backends, and how a model of each is told from its files.

As in triton-inference-server/core, main of 2026-06: src/model_config_utils.cc (AutoCompleteBackendFields),
src/constants.h. Apart from what reads config.pbtxt, which needs protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    "vllm": "model.json",
    "fil": None,
    "tensorrtllm": None,
    "ensemble": None,
    "identity": None,
    "repeat": None,
    "square": None,
}


@dataclass(frozen=True)
class Backend:
    """How Triton knows a backend: by a platform, a file's name in the configuration, or a file in the first version."""

    name: str
    platform: str
    file: str
    #: What the file must be; None: either.
    is_folder: bool | None = None


#: In Triton's order: the first that fits is taken.
BACKENDS: Final = (
    Backend("tensorflow", "tensorflow_savedmodel", "model.savedmodel", True),
    Backend("tensorflow", "tensorflow_graphdef", "model.graphdef", False),
    Backend("tensorrt", "tensorrt_plan", "model.plan", False),
    Backend("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    Backend("openvino", "", "model.xml"),
    Backend("pytorch", "pytorch_libtorch", "model.pt", False),
    Backend("pytorch", "torch_aoti", "model.pt2", False),
    Backend("python", "", "model.py"),
)


def is_model(folder: Path) -> bool:
    """Whether ``folder`` looks like one model of a repository.

    It has a config.pbtxt, or a version that holds a model file, or is of a backend that the folder's name says.
    """
    if (folder / "config.pbtxt").is_file():
        return True
    names = {name for name in BACKEND_FILES.values() if name} | {row.file for row in BACKENDS}
    custom = folder.name.partition(".")[2] in BACKEND_FILES
    return any(
        entry.is_dir() and entry.name.isdecimal() and (custom or any((entry / name).exists() for name in names))
        for entry in folder.iterdir()
    )
