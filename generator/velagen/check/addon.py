"""The addon itself, without a cluster: is it fresh, does KubeVela take each definition, do the examples render."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from velagen.addon.write import render_addon, stale_diff
from velagen.check.apps import check_application
from velagen.check.dryrun import dry_run, offline_environment
from velagen.check.releases import merged
from velagen.check.sample import samples
from velagen.definition.build import BuiltDefinition
from velagen.definition.catalog import Catalog
from velagen.definition.model import Component, Trait
from velagen.documents import Document
from velagen.errors import Place, Problem, VelagenError
from velagen.kubevela import KubeVela, release
from velagen.oracle import Oracle, not_here
from velagen.project import Project
from velagen.schema import validate

_TIME_LIMIT = 60.0

#: What the webhook forgives. Source: kubevela pkg/webhook/utils/utils.go (ContextRegex).
_CONTEXT_ERROR = re.compile(r"""^.+:\sreference\s"context"\snot\sfound$""")
#: What KubeVela adds to a template, any value in it. Source: kubevela pkg/cue/process/keyword.go.
_ANY_CONTEXT = (
    "context: {name: string, appName: string, namespace: string, appRevision: string, appRevisionNum: int,"
    " revision: string, cluster: string, publishVersion: string, workflowName: string, componentType: string,"
    " clusterVersion: {major: int, minor: int, gitVersion: string, platform: string}, components: _, artifacts: _,"
    " appLabels: {[string]: string}, appAnnotations: {[string]: string}, replicaKey: string, output: _, outputs: _}"
)

#: States a status rule meets: nothing written yet, nothing but an empty status, ready, failed, an unknown condition.
_STATUSES: Mapping[str, dict[str, Any] | None] = {
    "without a status": None,
    "with an empty status": {},
    "with empty lists": {"conditions": []},
    "Ready": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
    "failed": {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "Failed", "message": "no room"}],
    },
    "with a condition of its own": {"conditions": [{"type": "Waiting", "status": "Unknown"}]},
}
#: States in which nobody can call a thing healthy.
_NOT_YET = ("without a status", "with an empty status", "failed")


@dataclass(frozen=True)
class _Rendered:
    """A definition as KubeVela's own code makes it of the CUE file."""

    template: str
    status: Mapping[str, str]


def check_addon(project: Project, built: tuple[BuiltDefinition, ...], catalogs: Mapping[str, Catalog]) -> list[Problem]:
    """Everything that can be told of a project's addon without a cluster.

    In: the project, its built definitions, and by the version of each KubeVela that is asked the catalog with them and
    its own. Raises VelagenError where a tool is not available; what is wrong with the addon is returned.
    """
    problems: list[Problem] = []
    problems += _stale(project, problems.extend)
    for one in built:
        problems += _examples(one)
    with ThreadPoolExecutor() as pool:
        asked = {version: pool.submit(_on, release(version), built, catalog) for version, catalog in catalogs.items()}
        problems += merged({version: found.result() for version, found in asked.items()})
    return list(dict.fromkeys(problems))


def _on(kubevela: KubeVela, built: tuple[BuiltDefinition, ...], catalog: Catalog) -> list[Problem]:
    """What one KubeVela says."""
    problems: list[Problem] = []
    rendered: dict[str, _Rendered] = {}
    for one in built:
        try:
            rendered[_key(one)] = _render_definition(one, kubevela)
        except VelagenError as error:
            problems += error.problems
    whole = [one for one in built if _key(one) in rendered]
    # Rendering waits for vela, a process of its own.
    with ThreadPoolExecutor() as pool:
        examples = pool.map(lambda one: list(_golden(one, built, catalog, kubevela)), whole)
        if (warning := not_here(kubevela.cue)) is not None:
            problems.append(warning)
        else:
            problems += _judged(whole, rendered, kubevela)
        for found in examples:
            problems += found
    return problems


def _judged(whole: list[BuiltDefinition], rendered: Mapping[str, _Rendered], kubevela: KubeVela) -> list[Problem]:
    """What KubeVela's own code says of each definition."""
    problems: list[Problem] = []
    with Oracle(kubevela.cue) as oracle:
        for one in whole:
            try:
                problems += list(_definition(oracle, one, rendered[_key(one)]))
            except VelagenError as error:
                problems += error.problems
    return problems


def _key(one: BuiltDefinition) -> str:
    return f"{one.type} {one.name}"


def _at(one: BuiltDefinition) -> Place:
    place = one.definition.place
    return place if place.file and not place.file.startswith("<") else Place(str(one.source))


def _stale(project: Project, tell: Callable[[Iterable[Problem]], object]) -> list[Problem]:
    diff = stale_diff(project, render_addon(project, tell=tell))
    changed = [line[6:] for line in diff.splitlines() if line.startswith(("+++ b/", "--- a/"))]
    if changed:
        files = ", ".join(dict.fromkeys(changed))
        return [Problem(f"the addon is stale: {files}", Place(str(project.addon)), "run velagen build")]
    return []


def _render_definition(one: BuiltDefinition, kubevela: KubeVela) -> _Rendered:
    """The definition object, by ``vela def render``.

    Raises VelagenError where KubeVela's code does not take the file.
    """
    from velagen.tools import tool

    with tempfile.TemporaryDirectory(prefix="velagen-definition-") as name:
        folder = Path(name)
        file, made = folder / f"{one.name}.cue", folder / f"{one.name}.yaml"
        file.write_text(one.cue, encoding="utf-8")
        done = subprocess.run(
            [str(tool("vela", kubevela.version)), "def", "render", str(file), "-o", str(made)],
            env=offline_environment(folder),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
        content = yaml.load(made.read_bytes(), Loader=yaml.CSafeLoader) if made.is_file() else None
    if done.returncode != 0 or not isinstance(content, dict):
        complaint = [line for line in done.stderr.splitlines() if line and not line.startswith("ERR ")]
        reason = complaint[-1] if complaint else f"vela def render ended with status {done.returncode}"
        raise VelagenError(Problem(f"KubeVela does not take the definition {one.name}: {reason}", _at(one)))
    spec = content["spec"]
    template = spec.get("schematic", {}).get("cue", {}).get("template", "")
    return _Rendered(template, spec.get("status") or {})


def _definition(oracle: Oracle, one: BuiltDefinition, rendered: _Rendered) -> Iterator[Problem]:
    for what, text in (("the template", rendered.template), *rendered.status.items()):
        for fix in oracle.rewritten(text, f"{what} of {_key(one)}", _at(one)):
            yield Problem(
                f"{what} of {_key(one)} is not evaluated as it stands, since KubeVela rewrites it ({fix})",
                _at(one),
                "write list.Concat and list.Repeat for lists, put operands of + and * in parentheses where they are "
                'numbers, and quote a label "error"',
            )
    refused = list(_refusals(oracle, one, rendered))
    for reason in dict.fromkeys(refused):
        yield Problem(f"{_key(one)} does not compile: {reason}", _at(one))
    if refused:
        return
    answer = oracle.openapi(rendered.template).answered(f"the parameter of {_key(one)}", _at(one))
    if not answer.ok:
        yield Problem(
            f"KubeVela can't turn the parameter of {_key(one)} into OpenAPI: {_first(answer.error)}",
            _at(one),
            "applications would work, but the definition is not Synced and has no form",
        )
    yield from _status(oracle, one, rendered)


def _refusals(oracle: Oracle, one: BuiltDefinition, rendered: _Rendered) -> Iterator[str]:
    """What the admission webhook would say to the template alone, then what rendering says to each example."""
    if one.type == "workflow-step":
        # It imports vela's own packages, which only its engine knows: OpenAPI is the check of it.
        return
    answer = oracle.compile(rendered.template).answered(f"the template of {_key(one)}", _at(one))
    yield from (line for line in answer.error.splitlines() if not _CONTEXT_ERROR.match(line))
    for verdict in oracle.render(rendered.template, samples(one.schema), context=_ANY_CONTEXT):
        if not verdict.answered(f"an example of {_key(one)}", _at(one)):
            yield _first(verdict.error)


def _status(oracle: Oracle, one: BuiltDefinition, rendered: _Rendered) -> Iterator[Problem]:
    """Every status rule over every state: on a cluster an error there means "unhealthy", and a line in a log."""
    for state, parameter in itertools.product(_STATUSES, _parameters(one)):
        context = _context(one, _STATUSES[state])
        # What KubeVela has computed when it comes to the message (pkg/cue/definition/health/health.go, GetStatus).
        context["status"] = known = {"details": {}, "healthy": True}
        for field, path, kind in (
            ("details", "", dict),
            ("healthPolicy", "isHealth", bool),
            ("customStatus", "message", str),
        ):
            text = rendered.status.get(field)
            if not text:
                continue
            observed = f"context: {json.dumps(context)}\nparameter: {json.dumps(parameter)}"
            answer = oracle.eval(text, path, observed)
            answer = answer.answered(f"{field} of {_key(one)}, over an object {state},", _at(one))
            if field == "details" and isinstance(answer.result, dict):
                known["details"] = {
                    name: it for name, it in answer.result.items() if name not in ("context", "parameter")
                }
            if field == "healthPolicy":
                known["healthy"] = answer.result is True
            if not answer.ok:
                yield Problem(
                    f"{field} of {_key(one)} fails over an object {state}: {_first(answer.error)}",
                    _at(one),
                    "guard what is observed with first_given(..., default)",
                )
            elif not isinstance(answer.result, kind):
                yield Problem(f"{field} of {_key(one)}, over an object {state}, gives {answer.result!r}", _at(one))
            elif field == "healthPolicy" and answer.result is True and state in _NOT_YET and one.type == "component":
                yield Problem(f"{_key(one)} counts as healthy {state}", _at(one), severity="warning")


def _parameters(one: BuiltDefinition) -> list[dict[str, Any]]:
    """An example, and what is left of it without what may be left out.

    A status rule sees the properties as they were written, without defaults (kubevela pkg/appfile/appfile.go, Params).
    """
    full = next(iter(samples(one.schema)), {})
    required = one.schema.document.get("required", [])
    bare = {name: value for name, value in full.items() if name in required}
    return [full] if bare == full or validate(one.schema, bare) else [full, bare]


def _context(one: BuiltDefinition, status: dict[str, Any] | None) -> dict[str, Any]:
    definition = one.definition
    observed: dict[str, Any] = {"metadata": {"name": "sample", "namespace": "default", "generation": 1}, "spec": {}}
    if status is not None:
        observed["status"] = status
    context: dict[str, Any] = {"name": "sample", "appName": "sample", "namespace": "default"}
    if isinstance(definition, Component):
        workload = definition.workload
        context["output"] = {"apiVersion": workload.api_version, "kind": workload.kind, **observed}
    outputs = getattr(definition, "outputs", {})
    # As KubeVela: only what is there already is in the context.
    context["outputs"] = {name: observed for name in outputs if isinstance(name, str)} if status is not None else {}
    return context


def _examples(one: BuiltDefinition) -> Iterator[Problem]:
    """A schema's examples are what people copy: they have to fit the schema."""
    document = one.schema.document
    for number, example in enumerate(document.get("examples", [])):
        for problem in validate(one.schema, example):
            at = f"/examples/{number}{problem.place.pointer or ''}"
            yield Problem(
                f"example of {_key(one)}: {problem.message}", Place(one.schema.origin, pointer=at), problem.hint
            )


def _golden(
    one: BuiltDefinition, built: tuple[BuiltDefinition, ...], catalog: Catalog, kubevela: KubeVela
) -> Iterator[Problem]:
    """Each example rendered by KubeVela, each object that comes out against its schema."""
    hosts = [(host.name, sample) for host in built if host.type == "component" for sample in samples(host.schema)]
    for sample in samples(one.schema):
        match one.definition:
            case Component():
                candidates = [_application(one.name, sample)]
            case Trait():
                trait = {"type": one.name, "properties": sample}
                candidates = [_application(name, properties, trait) for name, properties in hosts]
            case _:
                return
        reasons: list[Problem] = []
        for application in candidates:
            document = Document("<example>", application, {})
            reasons = [found for found in check_application(document, catalog) if found.severity == "error"]
            if reasons:
                continue
            outcome = dry_run(document, catalog, kubevela=kubevela.version)
            reasons = list(outcome.problems)
            if not reasons:
                yield from _objects(one, outcome.objects, catalog)
                break
        if reasons:
            yield Problem(
                f"an example of {_key(one)} does not render: {reasons[0].message}",
                Place(one.schema.origin, pointer="/examples"),
                f"it was {json.dumps(sample)}",
                # A trait's example may need a component that no schema's example shows.
                severity="error" if isinstance(one.definition, Component) else "warning",
            )


def _objects(one: BuiltDefinition, objects: tuple[Any, ...], catalog: Catalog) -> Iterator[Problem]:
    for rendered in objects:
        for problem in catalog.objects.check(rendered.content):
            kind = rendered.content.get("kind")
            at = f"{problem.place.pointer} of the {kind}"
            yield Problem(f"{_key(one)}: {problem.message} at {at}", _at(one), problem.hint, problem.severity)


def _application(component: str, properties: Any, trait: Mapping[str, Any] | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {"name": "sample", "type": component, "properties": properties}
    if trait is not None:
        part["traits"] = [trait]
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "sample", "namespace": "default"},
        "spec": {"components": [part]},
    }


def _first(error: str) -> str:
    return error.strip().splitlines()[0][:300] if error.strip() else "no reason given"
