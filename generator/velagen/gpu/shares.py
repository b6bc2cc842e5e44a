"""The shares of GPUs that applications ask for by the trait gpu-share, or a person by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from velagen.check.apps import instead, is_application
from velagen.documents import Document, read_documents
from velagen.errors import Place, Problem, VelagenError, pointer
from velagen.gpu.parts import (
    FEWER_MPS,
    GPU_MIB,
    MIG_MIB,
    MIG_PROFILES,
    MOST_MPS,
    SHARED,
    WHOLE,
    Isolation,
    Mode,
    equal_parts,
    fraction_of,
    memory_mib,
    mig_part_with,
    parts_with,
)
from velagen.project import Project
from velagen.schema import load_schema, validate
from velagen.schema.model import Schema

TRAIT: Final = "gpu-share"

#: Whose own software divides the GPUs, by the mode.
_OWN_SYSTEM: Final = {
    "hami": "HAMi's device plugin",
    "volcano": "Volcano's device plugin",
    "kai": "the KAI scheduler",
    "dra": "a DRA driver",
}
#: The label with the GPU's product, which ends with this where shares keep the name nvidia.com/gpu. Source:
#: NVIDIA/k8s-device-plugin README (gpu-feature-discovery).
PRODUCT: Final = "nvidia.com/gpu.product"
SAME_NAME: Final = "-SHARED"
#: Labels that say how a node's GPUs are shared: they follow from its configuration, and can't choose it.
_RESULTS: Final = ("nvidia.com/gpu.replicas", "nvidia.com/gpu.sharing-strategy")


@dataclass(frozen=True)
class Share:
    """A part of a GPU that NVIDIA's device plugin is to offer."""

    fraction: float
    mode: Mode
    #: Into how many equal parts the GPU is divided; with MIG 0.
    parts: int = 0
    #: With MIG: the GPU's model and the profile.
    gpu: str = ""
    profile: str = ""
    #: What pods ask for.
    resource: str = SHARED
    #: The component that asks for it; empty where a person does.
    component: str = ""
    #: Labels that its nodes have besides.
    selector: tuple[tuple[str, str], ...] = ()
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class Asked:
    """A share as somebody wrote it, before the rules: a fraction or an amount of memory."""

    fraction: float | None
    mode: Mode
    gpu: str | None
    place: Place
    component: str = ""
    resource: str = SHARED
    selector: tuple[tuple[str, str], ...] = ()
    memory: str = ""
    isolation: Isolation = "none"

    @property
    def who(self) -> str:
        """What a sentence about it begins with."""
        return f"{self.component}: " if self.component else ""


def shares_of_files(files: Iterable[Path]) -> tuple[list[Share], list[Problem]]:
    """The shares that the applications in *files* ask for, and what is wrong in them, with its place.

    A warning is about a share for which NVIDIA's device plugin needs no configuration.
    """
    shares: list[Share] = []
    problems: list[Problem] = []
    for file in files:
        try:
            documents = read_documents(file)
        except VelagenError as error:
            problems += error.problems
            continue
        applications = [one for one in documents if is_application(one)]
        if not applications:
            reason = "there is no Application in this file"
            problems.append(Problem(reason, Place(str(file)), severity="warning"))
        shares += _judged([one for document in applications for one in _asked(document, problems)], problems)
    return shares, problems


def asked_of_files(files: Iterable[Path]) -> tuple[list[Asked], list[Problem]]:
    """What the applications in *files* ask for by gpu-share, whatever mode they write, and what is wrong in them."""
    found: list[Asked] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found += [one for document in read_documents(file) for one in _asked(document, problems, any_mode=True)]
        except VelagenError as error:
            problems += error.problems
    return found, problems


def shares_by_name(
    fractions: Iterable[float], memories: Iterable[str], mode: Mode, gpu: str | None
) -> tuple[list[Share], list[Problem]]:
    """The shares that a person names, and what is wrong with them.

    Args:
        fractions: parts of a GPU.
        memories: of how much memory a part is to be, as Kubernetes' quantities.
        gpu: the GPU's model, as in `GPU_MIB`; memories and MIG need it.
    """
    problems: list[Problem] = []
    asked = []
    for fraction in fractions:
        if 0 < fraction < 1:
            asked.append(Asked(fraction, mode, gpu, Place("--fraction")))
        else:
            reason = f"{fraction:g} is not a part of a GPU: it must be above 0 and below 1"
            problems.append(Problem(reason, Place("--fraction"), "whole GPUs need no configuration"))
    asked += [Asked(None, mode, gpu, Place("--memory"), memory=memory) for memory in memories]
    return _judged(asked, problems), problems


def _asked(document: Document, problems: list[Problem], *, any_mode: bool = False) -> Iterator[Asked]:
    """The traits gpu-share of an application, whose properties fit the trait's schema; any_mode: but for the mode."""
    if not is_application(document):
        return
    spec = document.value.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    schema = _schema()
    for number, policy in enumerate(_maps(spec.get("policies"))):
        own = policy.get("properties")
        changed = _maps(own.get("components") if isinstance(own, dict) else None)
        if any(_is_share(trait) for one in changed for trait in _maps(one.get("traits"))):
            reason = "gpu-share in a policy is not read here: the share that comes of it depends on the cluster"
            place = document.place(pointer(("spec", "policies", number)))
            problems.append(Problem(reason, place, "name it: --fraction, --mode", severity="warning"))
    for number, component in enumerate(_maps(spec.get("components"))):
        at = pointer(("spec", "components", number, "properties", "resources"))
        problems += [
            Problem(
                f"{component.get('name')}: {resource} is asked for without {TRAIT}, so it is not known which part of a "
                "GPU is meant",
                document.place(at),
                "name it too: --fraction, --mode",
                severity="warning",
            )
            for resource in _parts_by_hand(component)
        ]
        for position, trait in enumerate(_maps(component.get("traits"))):
            if not _is_share(trait):
                continue
            at = pointer(("spec", "components", number, "traits", position, "properties"))
            properties = trait.get("properties")
            properties = {} if properties is None else properties
            if any_mode and isinstance(properties, dict):
                properties = {key: value for key, value in properties.items() if key != "mode"}
            found = [
                replace(
                    one,
                    place=document.place(at + (one.place.pointer or "")),
                    hint=one.hint or instead(schema.document, one.place.pointer or ""),
                )
                for one in validate(schema, properties)
            ]
            problems += found
            if any(one.severity == "error" for one in found):
                continue
            memory = properties.get("memory", "")
            yield Asked(
                properties.get("fraction"),
                properties.get("mode", "time-slicing"),
                properties.get("gpu"),
                document.place(f"{at}/{'memory' if memory else 'fraction'}"),
                str(component.get("name", "")),
                properties.get("resourceName", SHARED),
                _selector(component),
                memory,
                properties.get("isolation", "none"),
            )


def _is_share(trait: dict[str, Any]) -> bool:
    """Whether it is the trait, in whatever version: ``gpu-share@v0.1.0``."""
    return str(trait.get("type", "")).partition("@")[0] == TRAIT


def _maps(value: Any) -> list[dict[str, Any]]:
    return [one if isinstance(one, dict) else {} for one in value] if isinstance(value, list) else []


def _parts_by_hand(component: dict[str, Any]) -> list[str]:
    """Parts of GPUs among a component's own resources."""
    found: dict[str, None] = {}
    properties = component.get("properties")
    resources = properties.get("resources") if isinstance(properties, dict) else None
    for one in resources.values() if isinstance(resources, dict) else ():
        names = (str(name) for name in (one if isinstance(one, dict) else ()))
        found |= dict.fromkeys(name for name in names if name == SHARED or name.startswith("nvidia.com/mig-"))
    return list(found)


def _selector(component: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The labels that a component's pods ask of their nodes."""
    properties = component.get("properties")
    above = properties if isinstance(properties, dict) else {}
    pod = above.get("pod")
    labels: dict[str, Any] = {}
    for own in (above.get("nodeSelector"), pod.get("nodeSelector") if isinstance(pod, dict) else None):
        labels |= own if isinstance(own, dict) else {}
    return tuple(sorted((str(key), str(value)) for key, value in labels.items() if key not in _RESULTS))


def _schema() -> Schema:
    """The trait's schema: the project's own, else of the addon that comes with velagen."""
    projects = [Project.bundled()]
    with suppress(VelagenError):  # outside of any project
        projects.insert(0, Project.find())
    files = [project.schemas / f"{TRAIT}.json" for project in projects if project is not None]
    return load_schema(next(file for file in files if file.is_file()))


def _judged(asked: Iterable[Asked], problems: list[Problem]) -> list[Share]:
    """By the rules of each mode; what they refuse goes to *problems*."""
    shares = []
    for one in asked:
        if one.mode in _OWN_SYSTEM:
            found: Share | Problem = _no_need(one.who, one.mode, one.place)
        elif one.memory:
            found = _by_memory(one)
        elif one.fraction is not None and one.mode == "mig":
            found = _by_mig(one, one.fraction)
        else:
            found = _by_parts(one, one.fraction or 0.0, equal_parts(one.fraction or 0.0))
        if isinstance(found, Problem):
            problems.append(found)
        else:
            shares.append(found)
    return shares


def _no_need(who: str, mode: Mode, place: Place) -> Problem:
    system = _OWN_SYSTEM[mode]
    reason = f"{who}with mode {mode} {system} divides the GPUs: NVIDIA's device plugin needs no configuration for it"
    return Problem(reason, place, f"nodes need {system}", severity="warning")


def _by_memory(asked: Asked) -> Share | Problem:
    """The smallest part of a GPU that has so much memory."""
    mib = memory_mib(asked.memory)
    if mib is None:
        reason = f"{asked.memory!r} is not an amount of memory with its unit"
        return Problem(reason, asked.place, "write it as Kubernetes does, such as 4Gi")
    if asked.gpu is None:
        known = MIG_PROFILES if asked.mode == "mig" else GPU_MIB
        return Problem(
            f"{asked.who}which part of a GPU has {asked.memory} depends on the GPU's memory",
            asked.place,
            f"name the GPU: {', '.join(known)}; or write a fraction",
        )
    if asked.mode == "mig":
        if asked.gpu not in MIG_MIB:
            return _by_mig(asked, 0.0)
        part = mig_part_with(asked.gpu, mib)
        if part is not None:
            return _by_mig(asked, float(part))
        reason = f"{asked.who}{asked.memory} is more than the largest MIG part of {asked.gpu} has"
        reason += f", {max(MIG_MIB[asked.gpu].values())} MiB"
        return Problem(reason, asked.place, "a whole GPU needs no configuration: resources.limits nvidia.com/gpu: 1")
    parts = parts_with(asked.gpu, mib)
    if parts < 2:
        reason = f"{asked.who}{asked.memory} is more than half of the memory of {asked.gpu}, {GPU_MIB[asked.gpu]} MiB"
        reason += ": only a whole GPU has so much"
        return Problem(reason, asked.place, "a whole GPU needs no configuration: resources.limits nvidia.com/gpu: 1")
    return _by_parts(asked, fraction_of(parts), parts)


def _by_parts(asked: Asked, fraction: float, parts: int | None) -> Share | Problem:
    """One of several equal parts."""
    if parts is None:
        return Problem(
            f"{asked.who}fraction {fraction:g} is not one of several equal parts, and mode {asked.mode} divides "
            "a GPU in equal parts",
            asked.place,
            "write 0.5, 0.33, 0.25, 0.2, 0.125 or 0.1, or use mode hami, volcano or kai, which take any percent",
        )
    most = FEWER_MPS.get(asked.gpu or "", MOST_MPS)
    if asked.mode == "mps" and parts > most:
        wanted = asked.memory or f"fraction {fraction:g}"
        reason = f"{asked.who}{wanted} needs {parts} parts of a GPU, and MPS makes {most} at most"
        return Problem(
            reason, asked.place, f"write {'more' if asked.memory else 'a larger fraction'}, or use mode time-slicing"
        )
    product, same_name = dict(asked.selector).get(PRODUCT), asked.resource == WHOLE
    if product is not None and product.endswith(SAME_NAME) != same_name:
        there = product + SAME_NAME if same_name else product.removesuffix(SAME_NAME)
        return Problem(
            f"{asked.who}nodeSelector asks for {PRODUCT}: {product}, and nodes that offer shares as {asked.resource} "
            f"have {there}",
            asked.place,
            f"write {PRODUCT}: {there}",
        )
    return Share(
        fraction,
        asked.mode,
        parts,
        resource=asked.resource,
        component=asked.component,
        selector=asked.selector,
        place=asked.place,
    )


def _by_mig(asked: Asked, fraction: float) -> Share | Problem:
    """A part that the hardware has cut off."""
    profiles = MIG_PROFILES.get(asked.gpu or "")
    if profiles is None:
        wrong = f"gpu-share knows no MIG parts of {asked.gpu}" if asked.gpu else "the GPU is not named"
        reason = f"{asked.who}with mode mig the parts depend on the GPU, and {wrong}"
        return Problem(reason, asked.place, f"name the GPU: {', '.join(MIG_PROFILES)}")
    profile = profiles.get(str(float(fraction)))
    if profile is None:
        reason = f"{asked.who}fraction {fraction:g} is not a MIG part of {asked.gpu}"
        return Problem(reason, asked.place, f"its parts are {', '.join(profiles)} of its memory")
    return Share(
        fraction,
        "mig",
        gpu=str(asked.gpu),
        profile=profile,
        resource=f"nvidia.com/mig-{profile}",
        component=asked.component,
        selector=asked.selector,
        place=asked.place,
    )
