"""The addon as a package of a Helm-type registry: an archive and the registry's index, the same bytes each time.

Source: kubevela pkg/addon/utils.go (generateChartMetadata, generateAnnotation), pkg/addon/versioned_registry.go.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Place, Problem, VelagenError

INDEX = "index.yaml"


@dataclass(frozen=True)
class Package:
    """What `pack` wrote."""

    archive: Path
    index: Path
    #: SHA-256 of the archive, in hex.
    digest: str


def pack(metadata: Mapping[str, Any], files: Mapping[str, bytes], out: Path, url: str = "") -> Package:
    """Write ``<name>-<version>.tgz`` and a Helm repository's ``index.yaml`` into *out*.

    In: the content of metadata.yaml; the addon's files by path; the folder; the address under which the folder will be
    served (without it the index holds relative addresses, which KubeVela joins to the registry's own). Entries of other
    versions and addons whose archive lies in *out* are kept. Each file is replaced whole, the index last.
    Raises VelagenError where the index there can't be read.
    """
    chart = chart_metadata(metadata)
    archive = _archive(str(metadata["name"]), {**files, "Chart.yaml": _dump(chart)})
    digest = hashlib.sha256(archive).hexdigest()
    target = out / f"{metadata['name']}-{metadata['version']}.tgz"
    index = out / INDEX
    entries = _kept(index, target.name)
    address = f"{url.rstrip('/')}/{target.name}" if url else target.name
    entry = {**chart, **_created(), "digest": digest, "urls": [address]}
    entries.setdefault(str(metadata["name"]), []).insert(0, entry)
    out.mkdir(parents=True, exist_ok=True)
    _replace(target, archive)
    content = {"apiVersion": "v1", "entries": {name: entries[name] for name in sorted(entries)}}
    created = _created()
    if created:
        content["generated"] = created["created"]
    _replace(index, _dump(content))
    return Package(target, index, digest)


def chart_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The Chart.yaml of an addon, as ``vela addon package`` writes it: a library, which helm won't install."""
    system = metadata.get("system") or {}
    annotations = {f"system.{key}": system[key] for key in ("vela", "kubernetes") if system.get(key)}
    chart = {
        "annotations": {**annotations, "addon.name": metadata["name"]},
        "apiVersion": "v2",
        "appVersion": metadata["version"],
        "description": metadata["description"],
        "home": metadata.get("url"),
        "icon": metadata.get("icon"),
        "keywords": metadata.get("tags"),
        "name": metadata["name"],
        "type": "library",
        "version": metadata["version"],
    }
    return {key: value for key, value in chart.items() if value}


def _archive(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A tgz without owner or time: the same files give the same bytes."""
    raw = io.BytesIO()
    # A level of its own choice would be zlib's, and so would the bytes.
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        # Helm wants Chart.yaml first: a reader may then stop early.
        for path in sorted(files, key=lambda one: (one != "Chart.yaml", one)):
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(files[path])
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(files[path]))
    return raw.getvalue()


def _kept(index: Path, archive: str) -> dict[str, list[dict[str, Any]]]:
    """The entries of an index whose archive is still there, but for *archive*."""
    if not index.exists():
        return {}
    try:
        content = yaml.safe_load(index.read_text(encoding="utf-8"))
        entries = content["entries"].items()
        kept = {
            name: [one for one in versions if _still_there(one, index.parent, archive)] for name, versions in entries
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise VelagenError(
            Problem(
                "this is not the index of a Helm repository", Place(str(index)), "move it away, or name another --out"
            )
        ) from error
    return {name: versions for name, versions in kept.items() if versions}


def _still_there(entry: Mapping[str, Any], folder: Path, archive: str) -> bool:
    names = [url.rpartition("/")[2] for url in entry["urls"]]
    return archive not in names and any((folder / name).is_file() for name in names)


def _created() -> dict[str, str]:
    """The time that SOURCE_DATE_EPOCH gives, if it is set (reproducible-builds.org): a clock's would change bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return {"created": datetime.fromtimestamp(int(epoch), UTC).isoformat()} if epoch.isdecimal() else {}


def _dump(value: object) -> bytes:
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=120).encode()


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
