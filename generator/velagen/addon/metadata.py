"""metadata.yaml: checked before it goes into the addon, because KubeVela drops what it doesn't know without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from velagen.documents import locate
from velagen.errors import Problem, VelagenError, did_you_mean, pointer
from velagen.project import Project

#: Source: kubevela pkg/addon/type.go (Meta); the type each key has there.
_KEYS: Mapping[str, type] = {
    "name": str,
    "version": str,
    "description": str,
    "icon": str,
    "url": str,
    "tags": list,
    "uxPlugins": dict,
    "deployTo": dict,
    "dependencies": list,
    "needNamespace": list,
    "invisible": bool,
    "system": dict,
    "annotations": dict,
}
_SYSTEM_KEYS = ("vela", "kubernetes")
_TYPE_WORDS = {str: "text", list: "a list", dict: "a map", bool: "true or false"}

#: Source: kubevela pkg/addon/init.go; as ConfigMap names are made of it, 40 characters leave room for their prefixes.
_NAME = re.compile(r"[a-z\d]+(-[a-z\d]+)*")
#: https://semver.org, as the Helm index demands it.
_SEMVER = re.compile(r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_CONSTRAINT = re.compile(
    r"\s*(?:(?:[<>=!~^]|>=|<=|!=|~>|=>|=<)?\s*v?\d+(\.(\d+|x|\*)){0,2}(-[\w.-]+)?[\s,]*(\|\|)?\s*)+"
)


def checked_metadata(project: Project) -> dict[str, Any]:
    """The content of the project's metadata.yaml.

    Raises VelagenError with every key KubeVela would drop or misread.
    """
    metadata = project.metadata
    file = project.root / "metadata.yaml"
    problems = list(_problems(metadata, file))
    if problems:
        raise VelagenError(problems)
    return metadata


def _problems(metadata: Mapping[str, Any], file: Path) -> Iterator[Problem]:
    def problem(message: str, *path: str | int, hint: str = "") -> Problem:
        return Problem(message, locate(file, pointer(path)), hint)

    for key, value in metadata.items():
        if key not in _KEYS:
            yield problem(f"KubeVela knows no {key} in an addon's metadata", key, hint=did_you_mean(str(key), _KEYS))
        elif not isinstance(value, _KEYS[key]):
            yield problem(f"{key} has to be {_TYPE_WORDS[_KEYS[key]]}", key)
    name, version = metadata["name"], metadata["version"]
    if not _NAME.fullmatch(name) or len(name) > 40:
        yield problem(
            f'"{name}" is not a valid addon name',
            "name",
            hint="lower case letters and digits, with single '-' between them",
        )
    if not _SEMVER.fullmatch(version):
        yield problem(f'"{version}" is not a semantic version', "version", hint='such as "1.4.0" or "1.4.0-beta.1"')
    system = metadata.get("system")
    for key, value in system.items() if isinstance(system, dict) else ():
        if key not in _SYSTEM_KEYS:
            yield problem(f"there is no requirement {key}", "system", key, hint=f"known: {', '.join(_SYSTEM_KEYS)}")
        elif not isinstance(value, str) or not _CONSTRAINT.fullmatch(value):
            yield problem(
                f"{value} is not a version range", "system", key, hint='such as ">=1.10.0" or ">=1.28.0, <1.36.0"'
            )
    dependencies = metadata.get("dependencies")
    for number, one in enumerate(dependencies) if isinstance(dependencies, list) else ():
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not one.keys() <= {"name", "version"}:
            yield problem("a dependency has a name and, if you like, a version", "dependencies", number)
