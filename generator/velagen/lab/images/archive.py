"""An image as one tar file, in the form that `docker load` and containerd read; no engine is needed to write it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A file system, or what is added to one, as a tar file."""

    path: Path
    #: sha256 of the tar file in hex: what the image's configuration calls its diff ID.
    digest: str

    @classmethod
    def of(cls, path: Path) -> Layer:
        """Give the layer of a plain tar file.

        Raises:
            OSError: it can't be read.
        """
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return cls(path, digest.hexdigest())


def configuration(
    layers: Sequence[Layer],
    *,
    architecture: str,
    env: Mapping[str, str],
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    user: str = "",
    workdir: str = "",
    stop_signal: str = "",
) -> dict[str, Any]:
    """Give an image configuration as the OCI image specification has it.

    Without a date: the same content gives the same image.

    Args:
        architecture: in Go's words, such as ``amd64``.
    """
    config: dict[str, Any] = {"Env": [f"{key}={value}" for key, value in env.items()]}
    if entrypoint:
        config["Entrypoint"] = list(entrypoint)
    if cmd:
        config["Cmd"] = list(cmd)
    if user:
        config["User"] = user
    if workdir:
        config["WorkingDir"] = workdir
    if stop_signal:
        config["StopSignal"] = stop_signal
    return {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        "history": [{"created_by": "velagen"} for _ in layers],
    }


def write(target: Path, config: Mapping[str, Any], layers: Sequence[Layer], references: Sequence[str]) -> None:
    """Write an image archive.

    Args:
        target: replaced in one step, when it is whole.
        references: the names `docker load` gives it.

    Raises:
        OSError: the disk is full, or a layer is gone.
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    name = hashlib.sha256(text).hexdigest()
    manifest = [
        {
            "Config": f"{name}.json",
            "RepoTags": list(references),
            "Layers": [f"{layer.digest}/layer.tar" for layer in layers],
        }
    ]
    part = target.with_name(f".{target.name}.part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        written: set[str] = set()
        for layer in layers:
            if layer.digest in written:
                continue
            written.add(layer.digest)
            entry = tarfile.TarInfo(f"{layer.digest}/layer.tar")
            entry.size = layer.path.stat().st_size
            with layer.path.open("rb") as stream:
                tar.addfile(entry, stream)
        for member, content in ((f"{name}.json", text), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    part.replace(target)


def layers_of(archive: Path, folder: Path) -> list[Layer]:
    """Unpack the layers of an image archive, to build on them.

    Args:
        folder: where the tar files go; one that is there already is taken as it is.

    Raises:
        KeyError: it is not an image archive.
    """
    found: list[Layer] = []
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("manifest.json")
        if stream is None:
            raise KeyError("manifest.json")
        manifest = json.load(stream)
        for member in manifest[0]["Layers"]:
            digest = member.partition("/")[0]
            path = folder / f"{digest}.tar"
            if not path.exists():
                source = tar.extractfile(member)
                if source is None:
                    raise KeyError(member)
                with source, path.open("wb") as out:
                    while chunk := source.read(_CHUNK):
                        out.write(chunk)
            found.append(Layer(path, digest))
    return found
