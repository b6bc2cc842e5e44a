"""The OpenAPI schema of every object that a definition may write.

Custom resources come from the CustomResourceDefinition files of the pinned upstream modules, built-in objects from the
OpenAPI files of Kubernetes. Nothing of it is committed: a kind is parsed once from its module and kept as JSON in the
cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Place, Problem, VelagenError
from velagen.kubernetes.structural import check_against
from velagen.whole import write_whole

JsonObject = dict[str, Any]

#: Raise it when what is kept in the cache changes its form.
_CACHE_FORMAT = 3

#: Where the CustomResourceDefinitions are, inside each upstream module. Of a kind that stands in several files the
#: first wins.
_CRD_FOLDERS: tuple[tuple[str, str], ...] = (
    ("kserve", "config/crd/full"),
    ("kserve", "test/crds"),
    ("kubevela", "charts/vela-core/crds"),
    ("prometheus-operator", "example/prometheus-operator-crd"),
)
#: A copy of config/crd/full in one file of 6.7 MB.
_SKIPPED_FILES = frozenset({"serving.kserve.io_all_crds.yaml"})
_OPENAPI_FOLDER = ("kubernetes", "api/openapi-spec/v3")

#: Types that the API server reads in a way their published schema does not say.
_SPECIAL_TYPES: Mapping[str, JsonObject] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"x-kubernetes-int-or-string": True, "format": "quantity"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
_ANYTHING: JsonObject = {"x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class _Entry:
    """Where one kind is described: a YAML document of a file, or a component of an OpenAPI file."""

    file: str
    #: Number of the YAML document, or the name of the OpenAPI component.
    part: int | str


@dataclass
class CrdStore:
    """Schemas of a set of upstream folders, and of folders a project brings along.

    ``sources`` maps a module's name (``kserve``, ``kubevela``, ``kubernetes``) to its unpacked folder; ``extra`` are
    folders with CustomResourceDefinition files of a project's own, which win over the upstream ones.
    """

    sources: Mapping[str, Path]
    cache: Path
    extra: tuple[Path, ...] = ()
    _index: dict[str, _Entry] = field(default_factory=dict, init=False)
    _loaded: dict[str, JsonObject] = field(default_factory=dict, init=False)

    def schema(self, api_version: str, kind: str) -> JsonObject | None:
        """The OpenAPI v3 schema of a kind, or ``None`` where no source describes it.

        In: ``serving.kserve.io/v1beta1``, ``InferenceService``. Out: a schema without ``$ref``, descriptions left out,
        recursion cut to "anything"; ``metadata`` is always the full ObjectMeta. Shared: don't change it.
        Raises VelagenError where a file of the project's own is invalid YAML.
        """
        key = f"{api_version}/{kind}"
        found = self._loaded.get(key)
        if found is not None:
            return found
        entry = self._entries().get(key)
        if entry is None:
            return None
        stored = self._folder() / "kinds" / (re.sub(r"[^\w.-]", "_", key) + ".json")
        with suppress(OSError, ValueError):
            found = json.loads(stored.read_bytes())
        if found is None:
            found = self._parse(entry, api_version, kind, stored)
        if found is not None:
            self._loaded[key] = found
        return found

    def kinds(self) -> frozenset[tuple[str, str]]:
        """Every ``(apiVersion, kind)`` the sources describe."""
        return frozenset((key.rpartition("/")[0], key.rpartition("/")[2]) for key in self._entries())

    def check(self, obj: object) -> list[Problem]:
        """What the API server would say to an object, as far as its schema tells: pointers, sentences, "did you mean".

        An object of a kind that no source describes gives one warning.
        """
        return check_against(obj, self.schema, self.kinds)

    def _folder(self) -> Path:
        """The cache folder of exactly these sources: another version of a module is another folder."""
        names = [f"{name}={path.resolve()}" for name, path in sorted(self.sources.items())]
        # A project's own files change under our hands, a module's never do.
        for folder in self.extra:
            names += [_state(file) for file in _yaml_files(folder)]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        versions = "+".join(path.name for _, path in sorted(self.sources.items()))
        return self.cache / "crds" / f"{versions or 'none'}-{digest}-f{_CACHE_FORMAT}"

    def _entries(self) -> dict[str, _Entry]:
        if self._index:
            return self._index
        stored = self._folder() / "index.json"
        with suppress(OSError, ValueError, TypeError):
            self._index = {key: _Entry(*value) for key, value in json.loads(stored.read_bytes()).items()}
        if not self._index:
            self._index = self._scan()
            _write_atomically(stored, {key: [entry.file, entry.part] for key, entry in sorted(self._index.items())})
        return self._index

    def _scan(self) -> dict[str, _Entry]:
        index: dict[str, _Entry] = {}
        folders = [*self.extra, *(self.sources[name] / path for name, path in _CRD_FOLDERS if name in self.sources)]
        for folder in folders:
            for file in _yaml_files(folder):
                for number, text in enumerate(_documents(file)):
                    for key in _kinds_of_crd(text, file):
                        index.setdefault(key, _Entry(str(file), number))
        module, path = _OPENAPI_FOLDER
        if module in self.sources:
            for file in sorted((self.sources[module] / path).glob("*_openapi.json")):
                for key, component in _kinds_of_openapi(file):
                    index.setdefault(key, _Entry(str(file), component))
        return index

    def _parse(self, entry: _Entry, api_version: str, kind: str, stored: Path) -> JsonObject | None:
        if isinstance(entry.part, int):
            text = list(_documents(Path(entry.file)))[entry.part]
            versions = _schemas_of_crd(_parsed(text, Path(entry.file)))
            found = versions.get(f"{api_version}/{kind}")
            if found is None:
                return None
            # Every object has them; Istio's schemas leave them out.
            for name in ("apiVersion", "kind"):
                found.setdefault("properties", {}).setdefault(name, {"type": "string"})
            meta = self.schema("v1", "ConfigMap")
            if meta is not None:
                found["properties"]["metadata"] = meta["properties"]["metadata"]
            found["x-velagen-source"] = "crd"
        else:
            components = json.loads(Path(entry.file).read_bytes())["components"]["schemas"]
            found = _resolve(components[entry.part], components, ())
            found["x-velagen-source"] = "built-in"
        _write_atomically(stored, found)
        return found


def crd_store(project_crds: Path | None = None) -> CrdStore:
    """The schemas of the pinned upstream modules, and of a project's ``crds/`` folder where there is one.

    Each set of files is looked through once a process. Raises what :func:`velagen.tools.source` raises if a module
    is not available.
    """
    own = project_crds is not None and project_crds.is_dir()
    folders = (project_crds.resolve(),) if own and project_crds else ()
    return _store(folders, tuple(_state(file) for folder in folders for file in _yaml_files(folder)))


@lru_cache(maxsize=4)
def _store(folders: tuple[Path, ...], states: tuple[str, ...]) -> CrdStore:  # noqa: ARG001  # another state is another store
    from velagen.tools import cache_dir, source

    modules = sorted({name for name, _ in (*_CRD_FOLDERS, _OPENAPI_FOLDER)})
    return CrdStore({name: source(name) for name in modules}, cache_dir(), folders)


def _state(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()}:{state.st_size}:{state.st_mtime_ns}"


def _yaml_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".yaml", ".yml"} and path.name not in _SKIPPED_FILES and path.is_file()
    ]


def _documents(file: Path) -> Iterator[str]:
    return iter(re.split(r"^---.*\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


def _kinds_of_crd(text: str, file: Path) -> Iterable[str]:
    """The ``apiVersion/kind`` keys of a CRD document, its megabytes of schema unparsed where that can be."""
    if not re.search(r"^kind: ['\"]?CustomResourceDefinition['\"]?\s*$", text, re.MULTILINE):
        return []
    group = re.search(r"^  group: ['\"]?([\w.-]+)", text, re.MULTILINE)
    kind = re.search(r"^  names:\n(?:    .*\n|  - .*\n)*?    kind: ['\"]?(\w+)", text, re.MULTILINE)
    versions = re.search(r"^  versions:\n( *)- ", text, re.MULTILINE)
    if group and kind and versions:
        found = re.findall(rf"^{versions[1]}[- ] name: ['\"]?(v\w+)", text[versions.start() :], re.MULTILINE)
        if found:
            return [f"{group[1]}/{version}/{kind[1]}" for version in found]
    return list(_schemas_of_crd(_parsed(text, file)))


def _parsed(text: str, file: Path) -> Any:
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise VelagenError(Problem(f"invalid YAML: {error}", Place(str(file)))) from error


def _schemas_of_crd(document: Any) -> dict[str, JsonObject]:
    """``apiVersion/kind`` -> schema, for each version a CRD serves with a schema."""
    if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
        return {}
    spec = document.get("spec", {})
    if "group" not in spec or "names" not in spec:
        return {}
    found = {}
    for version in spec.get("versions", []):
        schema = version.get("schema", {}).get("openAPIV3Schema", {"type": "object", **_ANYTHING})
        found[f"{spec['group']}/{version['name']}/{spec['names']['kind']}"] = _without_descriptions(schema)
    return found


def _kinds_of_openapi(file: Path) -> Iterator[tuple[str, str]]:
    for name, schema in json.loads(file.read_bytes()).get("components", {}).get("schemas", {}).items():
        # Options and events are known to every group; an object proper belongs to one and has metadata.
        groups = schema.get("x-kubernetes-group-version-kind", [])
        if len(groups) == 1 and {"apiVersion", "kind", "metadata"} <= schema.get("properties", {}).keys():
            one = groups[0]
            prefix = f"{one['group']}/" if one["group"] else ""
            yield f"{prefix}{one['version']}/{one['kind']}", name


def _without_descriptions(schema: Any) -> Any:
    """A schema without its prose, which is most of its bytes. A property named ``description`` stays."""
    if isinstance(schema, list):
        return [_without_descriptions(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_descriptions(sub) for name, sub in value.items()}
        if key == "properties" and isinstance(value, dict)
        else value
        if key in {"default", "enum", "example"}
        else _without_descriptions(value)
        for key, value in schema.items()
        if key not in {"description", "x-kubernetes-validations"}
    }


def _resolve(schema: Any, components: JsonObject, path: tuple[str, ...]) -> Any:
    """A component with its references put in place; ``path`` are the components it stands inside of."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in _SPECIAL_TYPES:
            return dict(_SPECIAL_TYPES[name])
        # A schema inside itself (JSONSchemaProps): what is below is not checked.
        return dict(_ANYTHING) if name in path else _resolve(components[name], components, (*path, name))
    found: JsonObject = {}
    for key, value in schema.items():
        if key in {"description", "default"}:
            continue
        if key == "properties":
            found[key] = {name: _resolve(sub, components, path) for name, sub in value.items()}
        elif key in {"items", "not"} or (key == "additionalProperties" and isinstance(value, dict)):
            found[key] = _resolve(value, components, path)
        elif key == "allOf":
            # Only used to stand a default beside a reference.
            for part in value:
                found.update(_resolve(part, components, path))
        else:
            found[key] = value
    if found.get("type") == "object" and not {"properties", "additionalProperties"} & found.keys():
        found["x-kubernetes-preserve-unknown-fields"] = True
    if "default" in schema and schema["default"] not in ({}, ""):
        found["default"] = schema["default"]
    return found


def _write_atomically(path: Path, value: object) -> None:
    """Keep a value for the next run. Two runs at once write the same whole file; no cache is not an error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(value, separators=(",", ":")))
