"""Files of weights: whole, or cut, or a pointer to them; and layers of Keras that are programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from velagen.errors import Place, Problem

#: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: the first line, and the size that a pointer stays under.
_POINTER: Final = b"version https://git-lfs.github.com/spec/v"
_POINTER_SIZE: Final = 1024
#: The longest header that safetensors itself reads (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
_MOST_HEADER: Final = 100_000_000
_CHUNK: Final = 1024 * 1024


def is_pointer(path: Path) -> bool:
    """Whether the file is what Git LFS leaves where the file itself was not fetched."""
    if path.stat().st_size >= _POINTER_SIZE:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def check_safetensors(path: Path) -> list[Problem]:
    """What is wrong with a safetensors file: its header, or a length that is not what the header says."""
    place = Place(str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MOST_HEADER, size - 8):
            return [Problem("not a safetensors file, or cut short", place)]
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            end = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return [Problem("invalid safetensors header", place)]
    if end != size:
        return [Problem(f"{size} bytes long, and its header says {end}", place, "fetch it again")]
    return []


def has_keras_lambda(path: Path) -> bool:
    """Whether the file is a model of Keras with a Lambda layer, whose function it holds as byte code."""
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        return False
    overlap = b""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            text = (overlap + piece).replace(b" ", b"")
            if b'"class_name":"Lambda"' in text:
                return True
            overlap = piece[-64:]
    return False
