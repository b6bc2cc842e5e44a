"""A document of an application's file, judged by all there is: schemas, KubeVela's rendering, steps, objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from velagen.check.apps import check_application, check_other, is_application, misplaced_traits, parts
from velagen.check.dryrun import Rendered, dry_run
from velagen.check.steps import check_steps
from velagen.definition.catalog import Catalog
from velagen.documents import Document
from velagen.errors import Problem, pointer


def check_document(
    document: Document,
    version: str,
    catalog: Catalog,
    *,
    render: bool,
    tell: Callable[[str], object] | None = None,
    into: list[Rendered] | None = None,
) -> list[Problem]:
    """The problems of one document on one KubeVela.

    Args:
        render: have KubeVela render it; else only schemas judge it.
        tell: is given KubeVela's own words where it refuses something.
        into: the objects that KubeVela makes of it go there.
    """
    if not is_application(document):
        return check_other(document, catalog)
    problems = check_application(document, catalog)
    misplaced = misplaced_traits(document, catalog)
    if not render or _malformed(document):
        return [*problems, *misplaced.values()]
    # A part that is known to be wrong would only be refused once more, in worse words.
    wrong = {_part_of(one.place.pointer or "") for one in problems if one.severity == "error"}
    outcome = dry_run(document, catalog, wrong - {""}, version)
    problems += [one for pointer, one in misplaced.items() if pointer not in outcome.failed]
    if tell is not None:
        for text in outcome.raw:
            tell(text)
    problems += outcome.problems
    problems += check_steps(document, catalog, version)
    problems += _of_objects(outcome.objects, document, catalog)
    if into is not None:
        into += outcome.objects
    return problems


def without_application(documents: list[Document], catalog: Catalog) -> list[Problem]:
    """A warning for each file that holds objects and no Application: it was not rendered, and made nothing."""
    files: dict[str, list[Document]] = {}
    for document in documents:
        files.setdefault(document.file, []).append(document)
    found = []
    for own in files.values():
        if any(is_application(document) for document in own):
            continue
        kinds = [str(one.value["kind"]) for one in own if isinstance(one.value, dict) and one.value.get("kind")]
        what = f", only {' and '.join(dict.fromkeys(kinds))}" if kinds else ""
        found.append(
            Problem(
                f"there is no Application in this file{what}: KubeVela makes nothing of it",
                own[0].place(),
                " or ".join(dict.fromkeys(filter(None, (catalog.maker_of(kind) for kind in kinds)))),
                severity="warning",
            )
        )
    return found


def _malformed(document: Document) -> bool:
    """Whether vela would stumble over the application's outline and say nothing of its parts."""
    spec = document.value.get("spec")
    return not isinstance(spec, dict) or not isinstance(spec.get("components"), list) or not spec["components"]


def _part_of(place: str) -> str:
    """The pointer of the component, trait, policy or step that a place lies in; empty for the application itself."""
    steps = place.split("/")
    part = ""
    for number, step in enumerate(steps[:-1]):
        if step in {"components", "traits", "policies", "steps", "subSteps"} and steps[number + 1].isdecimal():
            part = "/".join(steps[: number + 2])
        elif step == "properties":
            break
    return part


def _of_objects(objects: tuple[Rendered, ...], document: Document, catalog: Catalog) -> list[Problem]:
    places = {part.name: pointer(part.path) for part in parts(document.value, "component")}
    found = []
    for one in objects:
        own = any(known.name == one.definition and known.own for known in catalog.known.values())
        for problem in catalog.objects.check(one.content):
            if problem.place.pointer == "/kind" and not own:
                # KubeVela's own definitions pick an API version from what the cluster offers; we have no cluster here.
                continue
            name = one.content.get("metadata", {}).get("name", "")
            found.append(
                replace(
                    problem,
                    message=f"{problem.message}: {problem.place.pointer} of the rendered {one.content['kind']} {name}",
                    place=document.place(places.get(one.component, "")),
                )
            )
    return found
