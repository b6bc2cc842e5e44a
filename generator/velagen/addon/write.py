"""The addon folder: what has to be in it, whether it is, and putting it there whole or not at all."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.schema.opened import at_render

if TYPE_CHECKING:
    from velagen.definition.build import BuiltAddonTemplate, BuiltDefinition

#: What a project may bring along as it is, and the suffixes KubeVela reads there (kubevela pkg/addon/addon.go).
_COPIED = {
    "resources": (".cue", ".yaml"),
    "config-templates": (".cue",),
    "views": (".cue", ".yaml"),
}

#: Source: ValidateSemanticVersion of kubevela pkg/webhook/utils/utils.go.
_RELEASE = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")

Files = dict[str, bytes]


def render_addon(
    project: Project, *, released: bool = False, tell: Callable[[Iterable[Problem]], object] | None = None
) -> Files:
    """The addon's files by their path within its folder: same project, same bytes. Writes nothing.

    *tell* is given the warnings of its schemas, which no build fails for.

    With *released* each definition carries the addon's version, and an application can name it (``kfserving@v0.1.0``).
    KubeVela keeps what it first sees of a version and never replaces it, so a folder that is still worked on has none.
    Source: generateDefinitionRevision of kubevela pkg/controller/core.oam.dev/v1beta1/core/revison.go.
    Raises VelagenError with the problems of metadata.yaml, the schemas and the definitions together.
    """
    # What is built is often known: then a folder is only compared.
    from velagen.addon.metadata import checked_metadata
    from velagen.definition.build import build

    problems: list[Problem] = []

    def part(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except VelagenError as error:
            problems.extend(error.problems)

    metadata = part(lambda: checked_metadata(project))
    built = part(lambda: build(project, _definition_version(project) if released else ""))
    copied = part(lambda: _copied(project))
    if problems:
        raise VelagenError(problems)
    definitions, template = built
    if tell is not None:
        tell([warning for one in (*definitions, template) for warning in one.warnings])
    return dict(sorted({**_generated(metadata, definitions, template, copied), **copied}.items()))


def _definition_version(project: Project) -> str:
    """The addon's version where a definition can have it; not ``0.2.0-rc.1``, which KubeVela's webhook refuses."""
    version = str(project.metadata["version"]).removeprefix("v")
    return version if _RELEASE.fullmatch(version) else ""


def write_addon(project: Project, files: Mapping[str, bytes] | None = None) -> bool:
    """Make the addon folder hold exactly *files* (default: `render_addon`); false where it did already.

    Everything is written beside the folder, which is then exchanged in one go: it is never half new. What the last
    build wrote and this one doesn't goes; a file that no build wrote is refused, for KubeVela takes ``definitions.bak``
    for a definition, and it is not ours to delete. Two at once wait for each other.
    Raises VelagenError as `render_addon`, and for such files, before anything is touched; OSError where the folder
    can't be written.
    """
    from filelock import FileLock  # takes longer to import than many builds to compare

    wanted = render_addon(project) if files is None else dict(files)
    target = project.addon
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    # The lock lies outside the project: the addon's folder is replaced, and its parent is committed whole.
    with FileLock(Path(tempfile.gettempdir()) / f"velagen-{_digest(target)}.lock"):
        for leftover in parent.glob(f".{target.name}.velagen-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        there = read_folder(target)
        if there == wanted and not _has_empty_folders(target):
            return False
        _refuse_foreign(target, there, wanted)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.velagen-", dir=parent))
        try:
            # mkdtemp makes the folder private; an addon is to be read by everybody.
            fresh.chmod(0o755)
            for path, content in wanted.items():
                file = fresh / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            _exchange(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return True


def _refuse_foreign(target: Path, there: Files, wanted: Files) -> None:
    """Raise VelagenError for each file in the addon folder that neither this build nor the last one wrote."""
    from velagen.addon.readme import written

    last = written(there.get("README.md", b"").decode(errors="replace"))
    if there and last is None:
        raise VelagenError(
            Problem(
                f"it holds {len(there)} files, and no build wrote it",
                Place(str(target)),
                "Its README.md is not a build's. Move the folder away, and what you wrote by hand into the project: "
                "metadata.yaml, definitions/, schemas/, resources/, config-templates/, views/.",
            )
        )
    foreign = sorted(there.keys() - wanted.keys() - (last or frozenset()))
    if foreign:
        hint = (
            "Delete it, or move it out of the addon's folder, which is written whole. What is to go into the addon as "
            "it is belongs in the project's resources/, config-templates/ or views/."
        )
        raise VelagenError(Problem("no build wrote this file", Place(str(target / path)), hint) for path in foreign)


def stale_diff(project: Project, files: Mapping[str, bytes] | None = None) -> str:
    """The unified diff from the addon folder on disk to what a build would write; empty where they agree.

    Writes nothing. Raises VelagenError as `render_addon`.
    """
    wanted = render_addon(project) if files is None else dict(files)
    there = read_folder(project.addon)
    name = project.addon.relative_to(project.root).as_posix()
    parts = []
    for path in sorted(wanted.keys() | there.keys()):
        old, new = there.get(path), wanted.get(path)
        if old != new:
            parts.append(_diff(f"{name}/{path}", old, new))
    return "".join(parts)


def read_folder(folder: Path) -> Files:
    """The files of a folder by their path within it; none where it isn't there."""
    if not folder.is_dir():
        return {}
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def _generated(
    metadata: Mapping[str, Any],
    definitions: tuple[BuiltDefinition, ...],
    template: BuiltAddonTemplate,
    copied: Files,
) -> Files:
    from velagen.addon.readme import readme
    from velagen.addon.uischema import ui_schema

    files = {
        "metadata.yaml": _yaml(metadata, "metadata.yaml"),
        "template.cue": _cue(template.template_cue, "definitions/addon.py"),
        "parameter.cue": _cue(template.parameter_cue, "schemas/addon.json"),
        "README.md": readme(
            metadata,
            [(one.type, one.name, one.definition.description, one.schema.document) for one in definitions],
            template.schema.document if template.schema is not None else None,
            copied,
        ).encode(),
    }
    if template.notes_cue:
        files["NOTES.cue"] = _cue(template.notes_cue, "definitions/addon.py")
    for one in definitions:
        module, schema = f"definitions/{one.source.name}", f"schemas/{one.name}.json"
        files[f"definitions/{one.name}.cue"] = _cue(one.cue, module, schema)
        form = ui_schema(at_render(one.schema).document)
        if form:
            # KubeVela names the ConfigMap by this file's name, VelaUX looks it up by it.
            files[f"schemas/{one.type.replace('-', '')}-uischema-{one.name}.yaml"] = _yaml(form, schema)
    return files


def _copied(project: Project) -> Files:
    found: Files = {}
    problems = []
    for folder, suffixes in _COPIED.items():
        for path, content in read_folder(project.root / folder).items():
            place = Place(str(project.root / folder / path))
            if Path(path).suffix not in suffixes:
                problems.append(
                    Problem(
                        f"KubeVela reads no such file in {folder}/", place, f"it reads {' and '.join(suffixes)} there"
                    )
                )
            elif path.endswith(".yaml"):
                problems += _yaml_problems(content, place)
            found[f"{folder}/{path}"] = content
    if problems:
        raise VelagenError(problems)
    return found


def _yaml_problems(content: bytes, place: Place) -> Iterator[Problem]:
    try:
        count = sum(one is not None for one in yaml.compose_all(content, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        yield Problem(f"invalid YAML: {error.problem}", Place(place.file, line, column))
    else:
        if count != 1:
            yield Problem(
                f"KubeVela takes one YAML document of a file, there are {count}", place, "a file for each of them"
            )


class _Dumper(yaml.CSafeDumper):
    """No aliases: what is written is read by people."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _generated_from(*sources: str) -> str:
    """The words by which people and tools know a generated file (Go's convention, which linters and hosts read)."""
    return f"Code generated by velagen from {' and '.join(sources)}. DO NOT EDIT."


def _cue(text: str, *sources: str) -> bytes:
    return f"// {_generated_from(*sources)}\n\n{text}".encode()


def _yaml(value: object, *sources: str) -> bytes:
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return f"# {_generated_from(*sources)}\n{text}".encode()


def _exchange(fresh: Path, target: Path) -> None:
    """Put a folder in another's place: two renames, the first undone where the second fails."""
    if not target.exists():
        fresh.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.velagen-", dir=target.parent))
    kept = old / target.name
    try:
        target.rename(kept)
        try:
            fresh.rename(target)
        except BaseException:
            kept.rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _has_empty_folders(folder: Path) -> bool:
    return any(path.is_dir() and not any(path.iterdir()) for path in folder.rglob("*"))


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def _diff(name: str, old: bytes | None, new: bytes | None) -> str:
    lines = difflib.unified_diff(
        _lines(old),
        _lines(new),
        "/dev/null" if old is None else f"a/{name}",
        "/dev/null" if new is None else f"b/{name}",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    # An empty file that is missing, or one too many, has no lines to show.
    return (
        text
        or f"--- {'/dev/null' if old is None else 'a/' + name}\n+++ {'/dev/null' if new is None else 'b/' + name}\n"
    )


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else content.decode(errors="replace").splitlines(keepends=True)
