"""Rendering by KubeVela itself: ``vela dry-run --offline``, its errors put into one sentence each."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from velagen.check.apps import Part, parts
from velagen.definition.catalog import Catalog
from velagen.documents import Document
from velagen.errors import Place, Problem, VelagenError, pointer

#: vela starts in 0.2 s; a definition that makes CUE run away is stopped here.
_TIME_LIMIT = 60.0
#: After each error the part it is about is taken out and the rest rendered again; this ends it in any case.
_MOST_RUNS = 40

#: A cluster that isn't there: without any kubeconfig vela ends without a word, with this one it renders offline.
DEAD_PORT_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
  - name: none
    cluster:
      server: http://127.0.0.1:1
contexts:
  - name: none
    context:
      cluster: none
      user: none
users:
  - name: none
    user: {}
current-context: none
"""


@dataclass(frozen=True)
class Rendered:
    """One object that KubeVela rendered."""

    content: dict[str, Any]
    #: The parts of the application it comes from.
    component: str
    #: The definition it comes from, ``""`` where that can't be told.
    definition: str


@dataclass(frozen=True)
class Outcome:
    """What rendering an application gave."""

    objects: tuple[Rendered, ...]
    problems: tuple[Problem, ...]
    #: JSON pointers of the parts that were left out because they don't render.
    failed: tuple[str, ...]
    #: vela's own words, for those who ask for them.
    raw: tuple[str, ...]


def dry_run(document: Document, catalog: Catalog, skip: Collection[str] = (), kubevela: str | None = None) -> Outcome:
    """Render an application offline with the definitions of a catalog.

    In: the application; the catalog; JSON pointers of parts to leave out because they are known to be wrong; the
    version of vela, None = the default. A part whose definition the catalog lacks is left out too. An error ends vela's
    run at once; here the part it names is left out and the rest rendered again, so that every part is heard.
    Raises VelagenError where vela is not available, or hangs.
    """
    from velagen.tools import tool

    vela = tool("vela", kubevela)
    application = copy.deepcopy(document.value)
    problems: list[Problem] = []
    failed: list[str] = []
    raw: list[str] = []
    with tempfile.TemporaryDirectory(prefix="velagen-dry-run-") as name:
        folder = Path(name)
        definitions = folder / "definitions"
        definitions.mkdir()
        for part in parts(application):
            known = catalog.find(part.kind, part.type)
            if known is not None and known.cue is not None:
                (definitions / f"{known.kind}-{known.name}.cue").write_text(known.cue, encoding="utf-8")
        arguments = ["dry-run", "--offline"]
        if any(definitions.iterdir()):
            arguments += ["-d", str(definitions)]
        original = {id(part.content): part for part in parts(application)}
        for part in original.values():
            if pointer(part.path) in skip or (part.type and catalog.find(part.kind, part.type) is None):
                _take_out(application, part)
        for _ in range(_MOST_RUNS):
            if not application["spec"].get("components"):
                break
            text = run_vela(vela, folder, [*arguments, "-f"], application)
            if not isinstance(text, _Failure):
                return Outcome(tuple(_objects(text, document.value)), tuple(problems), tuple(failed), tuple(raw))
            raw.append(text.text)
            culprit = _culprit(text.text, application)
            place, path = Place(document.file), ""
            if culprit is not None:
                path = pointer(original[id(culprit.content)].path)
                failed.append(path)
                place = _place(text.text, document, path)
            problems.append(_sentence(text.text, place))
            if culprit is None:
                break
            _take_out(application, culprit)
    return Outcome((), tuple(problems), tuple(failed), tuple(raw))


@dataclass(frozen=True)
class _Failure:
    text: str


def run_vela(vela: Path, folder: Path, arguments: list[str], application: Any) -> str | _Failure:
    """Run vela over one object without a cluster; standard output, or what it complained about.

    Raises VelagenError where it does not end in time.
    """
    file = folder / "application.yaml"
    # JSON is YAML; vela goes by the suffix.
    file.write_text(json.dumps(application), encoding="utf-8")
    try:
        done = subprocess.run(
            [str(vela), *arguments, str(file)],
            env=offline_environment(folder),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VelagenError(
            Problem(
                f"vela did not end within {_TIME_LIMIT:.0f} seconds",
                hint="a definition makes CUE run away, or the machine was too busy: try again",
            )
        ) from error
    if done.returncode == 0:
        return done.stdout
    complaint = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("ERR "))
    return _Failure(complaint.strip() or f"vela ended with status {done.returncode} and said nothing")


def offline_environment(folder: Path) -> dict[str, str]:
    """The environment in which vela finds neither a cluster nor a person's settings; *folder* holds what it writes."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(DEAD_PORT_KUBECONFIG, encoding="utf-8")
    # An experiment of CUE's that one version of vela doesn't know ends it.
    own = {name: value for name, value in os.environ.items() if name != "CUE_EXPERIMENT"}
    return {**own, "KUBECONFIG": str(kubeconfig), "HOME": str(folder), "VELA_HOME": str(folder)}


def _objects(text: str, application: dict[str, Any]) -> Iterator[Rendered]:
    types = {part.name: part.type for part in parts(application, "component")}
    seen = set()
    for document in re.split(r"^---[ \t]*\n", text, flags=re.MULTILINE):
        content = yaml.load(document, Loader=yaml.CSafeLoader)
        if not isinstance(content, dict) or "kind" not in content:
            continue
        metadata = content.get("metadata", {})
        labels = metadata.get("labels") or {}
        # Noise of the renderer: what an author never wrote and the cluster never sees.
        if metadata.get("annotations") == {}:
            del metadata["annotations"]
        key = json.dumps(content, sort_keys=True)
        if key in seen:
            # One cluster of a topology policy renders as the other.
            continue
        seen.add(key)
        component = labels.get("app.oam.dev/component", "")
        trait = labels.get("trait.oam.dev/type", "")
        definition = trait if trait not in {"", "AuxiliaryWorkload"} else str(types.get(component, ""))
        yield Rendered(content, component, definition)


def _culprit(text: str, application: Any) -> Part | None:
    """The part of the application that an error is about.

    The forms are those of kubevela pkg/appfile and pkg/cue/definition.
    """
    trait = re.search(r"trait=(\S+) app=([\w-]+)", text)
    names = [
        re.search(pattern, text)
        for pattern in (
            r"template of workload ([\w-]+)",
            r"(?:failed for|compile|of) workload ([\w-]+)",
            r"component/policy type of ([\w-]+)",
            r"workload=([\w-]+)",
            r"component[= \[]+([\w-]+)",
        )
    ]
    component = trait[2] if trait else next((match[1] for match in names if match), None)
    everything = list(parts(application))
    if trait:
        for part in everything:
            if part.kind == "component" and part.content.get("name") == component:
                if _incomplete(text) and "output." in text.rpartition("trait=")[2]:
                    # The first trait meets a hole that the component's own properties left.
                    return part
                mine = (one for one in everything if one.kind == "trait" and one.path[: len(part.path)] == part.path)
                # Of two of a name the later one: it is the one that meets what the other did.
                found = [one for one in mine if one.type == trait[1]]
                if found:
                    return found[-1]
    for part in everything:
        if part.kind in {"component", "policy"} and part.content.get("name") == component:
            return part
    step = re.search(r"workflow step definition ([\w-]+)", text)
    if step:
        return next((part for part in everything if part.kind == "workflow-step" and part.type == step[1]), None)
    components = [part for part in everything if part.kind == "component"]
    return components[0] if len(components) == 1 and "evaluate base template" in text else None


def _take_out(application: Any, culprit: Part) -> None:
    """Remove a part."""
    for holder, key in _lists(application):
        if any(one is culprit.content for one in holder[key]):
            holder[key] = [one for one in holder[key] if one is not culprit.content]
            if culprit.kind == "component":
                # A workflow or policy may speak of the component that went.
                application["spec"].pop("workflow", None)
            return


def _lists(application: Any) -> Iterator[tuple[dict[str, Any], str]]:
    spec = application["spec"]
    for component in spec.get("components") or []:
        if isinstance(component, dict) and isinstance(component.get("traits"), list):
            yield component, "traits"
    for key in ("components", "policies"):
        if isinstance(spec.get(key), list):
            yield spec, key
    workflow = spec.get("workflow")
    if isinstance(workflow, dict) and isinstance(workflow.get("steps"), list):
        yield workflow, "steps"


def _incomplete(text: str) -> bool:
    return "incomplete value" in text or "cannot reference optional field" in text


def _place(text: str, document: Document, path: str) -> Place:
    """The property an error names, where it names one; else the part."""
    named = re.search(r"\bparameter((?:\.[\w-]+|\[\d+\])+)", text)
    if named is None:
        return document.place(path)
    # A hidden field is a rule over its neighbours: the place is where they stand.
    steps = [step for step in re.findall(r"[\w-]+", named[1]) if not step.startswith("_")]
    return document.place(f"{path}/properties" + pointer(steps))


_STRING = r'"(?:[^"\\]|\\.)*"'
#: What velagen's own rules look like when they bite: a sentence that meets a number (velagen.template, velagen.schema).
_RULE = re.compile(rf"\b_\w+(?:\.\w+)*: conflicting values (?:({_STRING})|\S+) and (?:({_STRING})|\S+)")
_PREFIX = re.compile(
    r"^.*?(?:after merge (?:with )?parameter and context: |evaluate template trait=\S+ app=[\w-]+: |"
    r"evaluate base template app=\S+ in namespace=\S+: |"
    r"cannot generate manifests from components and traits: |^Error: )",
    re.DOTALL,
)


def _sentence(text: str, place: Place) -> Problem:
    """One error of vela as one sentence that names the field."""
    rule = _RULE.search(text)
    if rule and (rule[1] or rule[2]):
        # The other side is a number, or a name from the context: the sentence is the one with words in it.
        sides = [json.loads(side) for side in rule.groups() if side]
        return Problem(max(sides, key=lambda side: side.count(" ")), place)
    rest = " ".join(_first_listed(text).split())
    while (prefix := _PREFIX.match(rest)) is not None and prefix.end():
        rest = rest[prefix.end() :]
    rest = re.sub(r" \(and \d+ more errors?\)$", "", rest).removeprefix("cue: marshal error: ")
    hint = "velagen check --verbose shows KubeVela's own words"
    for pattern, sentence in _FORMS:
        found = re.search(pattern, rest)
        if found:
            return Problem(sentence.format(*(group or "" for group in found.groups())), place, hint)
    return Problem(rest if len(rest) <= 300 else rest[:297] + "...", place, "" if len(rest) <= 120 else hint)


def _first_listed(text: str) -> str:
    """The first error of those KubeVela 1.11 lists, one that says more than that a value is missing; else the text.

    Source: FormatCUEError of kubevela pkg/cue/definition/template.go.
    """
    _, heading, listed = text.partition(" errors:\n") if " errors:\n" in text else text.partition(" Errors:\n")
    lines: list[str] = re.findall(r"^  (\S.*)$", listed, re.MULTILINE)
    if not heading or not lines:
        return text
    return next((line for line in lines if not _incomplete(line)), lines[0])


#: Source: cue's messages (cue/errors, internal/core/adt), the same in 0.9 and 0.14.
_FORMS: tuple[tuple[str, str], ...] = (
    (r"([\w.\[\]\"-]+): field not allowed", "{0}: there is no such field"),
    (
        r"([\w.\[\]\"-]+): cannot convert incomplete value",
        "{0} has no value: a property it is made of is missing",
    ),
    (
        r"([\w.\[\]\"-]+): (?:incomplete value|cannot reference optional field)",
        "{0} has no value: a property is missing",
    ),
    (r"([\w.\[\]\"-]+): invalid value (.+?) \(out of bound (.+)\)", "{0} is {1}, it has to be {2}"),
    (r"([\w.\[\]\"-]+): invalid value (.+?) \(does not satisfy (.+)\)", "{0} is {1}, it has to satisfy {2}"),
    (r"([\w.\[\]\"-]+): \d+ errors in empty disjunction", "{0}: the value is not one of those allowed"),
    (
        r"([\w.\[\]\"-]+): conflicting values (.+?) and (.+?)(?: \(mismatched types .*\))?$",
        "{0} can't be {1} and {2} at once",
    ),
    (r"no such field ([\w.]+)|undefined field: (\w+)", "the template reads the field {0}{1}, which is not there"),
    (r"([\w-]+\.core\.oam\.dev) \"?([\w-]+)\"? not found", "the definition {1} is not known"),
)
