"""Change properties of one component in a YAML or JSON file, and nothing else of it: no comment, quote or line end.

A YAML library that writes what it read lays other lines out anew, so the text itself is changed, at the place that
PyYAML's scanner tells. Whether it was right is not assumed: what comes out is read again, and has to differ from what
was there by the wanted values alone.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from velagen.documents import Document, parse_documents
from velagen.errors import Problem, VelagenError, pointer

#: The property whose presence makes a component one that serves a model, and the one of several models.
MODEL_URI, MODELS = "modelUri", "models"


@dataclass(frozen=True)
class Component:
    """A component that serves a model, within its file."""

    document: Document
    application: str
    name: str
    #: JSON pointer of its properties.
    at: str
    properties: Mapping[str, Any]


def components_of(documents: list[Document]) -> list[Component]:
    """The components of all applications that have a modelUri, or models, in the order of the file."""
    found = []
    for document in documents:
        value = document.value
        if not isinstance(value, dict) or value.get("kind") != "Application":
            continue
        spec, metadata = value.get("spec"), value.get("metadata")
        application = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
        listed = spec.get("components") if isinstance(spec, dict) else None
        for number, one in enumerate(listed if isinstance(listed, list) else ()):
            properties = one.get("properties") if isinstance(one, dict) else None
            if isinstance(properties, dict) and (MODEL_URI in properties or MODELS in properties):
                at = pointer(("spec", "components", number, "properties"))
                found.append(Component(document, application, str(one.get("name", "")), at, properties))
    return found


def chosen(documents: list[Document], file: str, name: str | None) -> Component:
    """The one component that is meant.

    In: the file's documents and name, and the component's name, or ``APPLICATION/COMPONENT``; None where there is only
    one. Raises VelagenError where none or several fit.
    """
    there = components_of(documents)
    if not there:
        place = documents[0].place() if documents else Document(file, None, {"": (1, 1)}).place()
        raise VelagenError(Problem("no component of an Application in this file has a modelUri or models", place))
    fits = [one for one in there if name is None or name in (one.name, f"{one.application}/{one.name}")]
    if len(fits) == 1:
        return fits[0]
    names = [one.name for one in there]
    listed = ", ".join(
        one.name if names.count(one.name) == 1 else f"{one.application}/{one.name}" for one in fits or there
    )
    what = f"several components fit: {listed}" if fits else f"there is no component {name} with modelUri or models"
    hint = "say which with --component" if fits else f"there is: {listed}"
    raise VelagenError(Problem(what, (fits or there)[0].document.place("/spec/components"), hint))


def place_of_model(component: Component, model: str | None) -> str:
    """Where the location of a model stands among the component's properties, as a JSON pointer without the first /.

    In: the model's name, of a component with models. Raises VelagenError where none or several fit.
    """
    place = component.document.place(component.at)
    listed = component.properties.get(MODELS)
    if MODELS not in component.properties:
        if model is not None:
            raise VelagenError(Problem(f"{component.name} has one model, without a name", place, "drop --model-name"))
        return MODEL_URI
    models = [one.get("name") if isinstance(one, dict) else None for one in listed] if isinstance(listed, list) else []
    names = ", ".join(str(one) for one in models)
    if model is None:
        what = f"{component.name} has several models in one server: {names}"
        raise VelagenError(Problem(what, place, "say which with --model-name"))
    if models.count(model) != 1:
        what = f"{component.name} has no model named {model}"
        if model in models:
            what = f"{component.name} has two models named {model}"
        raise VelagenError(Problem(what, place, f"there is: {names}"))
    return f"{MODELS}/{models.index(model)}/uri"


def with_properties(text: str, component: Component, values: Mapping[str, str]) -> str:
    """The text of the file with these properties of the component.

    In: the text that the component was read from; property, or the pointer of one below, -> value. A property that is
    not there yet gets a line of its own behind modelUri, or runtime where there is none. Raises VelagenError where the
    change can't be made without changing anything else.
    """
    for key, value in values.items():
        text = _with_property(text, component, key, value)
    return text


def _with_property(text: str, component: Component, path: str, value: str) -> str:
    above, _, key = path.rpartition("/")
    file, at = component.document.file, f"{component.at}/{above}" if above else component.at
    before = parse_documents(text, file)
    first = component.document.marks[""][0]
    number = next(index for index, one in enumerate(before) if one.marks[""][0] == first)
    properties = _value(before[number].value, at)
    if properties.get(key) == value:
        return text
    wanted = [copy.deepcopy(one.value) for one in before]
    _value(wanted[number], at)[key] = value
    place = before[number].place(at + pointer([key]))
    old = properties.get(key)
    if isinstance(old, str) and old != old.strip():
        hint = f"write {key}: {json.dumps(value)}"
        raise VelagenError(Problem(f"{key} has a blank or a line break around it", place, hint))
    others: list[str] = []
    for changed in _changes(text, first, at, key, value):
        try:
            after = [one.value for one in parse_documents(changed, file)]
        except VelagenError:
            continue
        if after == wanted:
            return changed
        others = others or [
            str(one.place(spot))
            for one, right, got in zip(before, wanted, after, strict=False)
            for spot in _differing(right, got)
        ]
    if others:
        what = f"{key} of {component.name} stands in one place with that of others, which would change too"
        hint = f"write it at each by itself, without & and <<: {', '.join(others)}"
        raise VelagenError(Problem(what, place, hint))
    problem = f"{key} can't be changed in one line as it is written here"
    raise VelagenError(Problem(problem, place, f"write it in one line: {key}: {json.dumps(value)}"))


def _changes(text: str, first: int, at: str, key: str, value: str) -> Iterator[str]:
    """Texts that may have the wanted value, the one that looks most like the old text first."""
    root = next(one for one in _roots(text) if one.start[0] + 1 == first)
    properties = root
    for part in at.split("/")[1:]:
        properties = properties.child(part)
    found = properties.entry(key)
    if found is not None:
        start, end = found[1].span
        for written in _written(text[start:end], value):
            yield text[:start] + written + text[end:]
        return
    entry = properties.entry(MODEL_URI) or properties.entry("runtime")
    if entry is None:
        return
    (begin, behind), (_, end) = entry[0].span, entry[1].span
    line = text.rfind("\n", 0, begin) + 1
    indent = text[line:begin]
    quote = text[begin] if text[begin] in "\"'" else ""
    name = f"{quote}{key}{quote}{text[behind:].partition(':')[0]}:"
    ending = "\r\n" if "\r\n" in text else "\n"
    old = text[slice(*entry[1].span)]
    for written in _written("" if "\n" in old else old, value):
        if entry[1].in_flow:
            # On a line of its own where modelUri is.
            yield f"{text[:end]},{ending + indent if not indent.strip() else ' '}{name} {written}{text[end:]}"
        elif not indent.strip():
            stop = text.find("\n", len(text[:end].rstrip()))
            stop = len(text) if stop < 0 else stop - len(ending) + 1
            yield f"{text[:stop]}{ending}{indent}{name} {written}{text[stop:]}"


def _written(old: str, value: str) -> Iterator[str]:
    """The value as YAML writes it: in the form of the old text first."""
    block = re.fullmatch(r"([|>][-+0-9]*[^\n]*\n[ ]*)(\S+)([ \r\n]*)", old)
    double, single = json.dumps(value, ensure_ascii=False), "'" + value.replace("'", "''") + "'"
    if block:
        yield f"{block[1]}{value}{block[3]}"
    elif "\n" not in old:
        yield from {"'": (single, double), '"': (double,)}.get(old[:1], (value, double))


@dataclass
class _Node:
    """A node of a YAML file, with the places of its text."""

    #: Line and column, from 0.
    start: tuple[int, int]
    #: In characters of the text: of a scalar or an alias, without its anchor and tag.
    span: tuple[int, int]
    in_flow: bool
    #: Of a scalar.
    value: str = ""
    items: list[_Node] | None = None
    entries: list[tuple[_Node, _Node]] | None = None
    #: Of an alias: the node that it names.
    target: _Node | None = None

    def child(self, part: str) -> _Node:
        """What a part of a JSON pointer leads to."""
        here = self.target or self
        if here.items is not None:
            found = here.items[int(part)]
        else:
            entry = here.entry(part.replace("~1", "/").replace("~0", "~"))
            if entry is None:
                raise KeyError(part)
            found = entry[1]
        return found.target or found

    def entry(self, key: str) -> tuple[_Node, _Node] | None:
        """The key and value in this mapping, or in what is merged into it."""
        here = self.target or self
        for name, value in here.entries or ():
            if (name.target or name).value == key:
                return name, value
        for name, value in here.entries or ():
            if name.value == "<<":
                merged = value.target or value
                for one in merged.items if merged.items is not None else [merged]:
                    found = one.entry(key)
                    if found is not None:
                        return found
        return None


def _roots(text: str) -> Iterator[_Node]:
    """The documents of a text that has been read once, and so is sound."""
    # An event begins with its anchor and tag; the token alone says where the value itself begins.
    begins = {
        token.end_mark.index: token.start_mark.index
        for token in yaml.scan(text, Loader=yaml.SafeLoader)
        if isinstance(token, yaml.ScalarToken)
    }
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    anchors: dict[str, _Node] = {}

    def node(event: yaml.Event, in_flow: bool) -> _Node:
        start, end = event.start_mark, event.end_mark
        if start is None or end is None:
            raise RuntimeError("an event without a place")
        made = _Node((start.line, start.column), (begins.get(end.index, start.index), end.index), in_flow)
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            made.target = anchors.get(str(anchor))
            return made
        if anchor:
            anchors[anchor] = made
        if isinstance(event, yaml.ScalarEvent):
            made.value = event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            made.items = []
            while not isinstance(one := next(events), yaml.SequenceEndEvent):
                made.items.append(node(one, bool(event.flow_style)))
        elif isinstance(event, yaml.MappingStartEvent):
            made.entries = []
            while not isinstance(one := next(events), yaml.MappingEndEvent):
                key = node(one, bool(event.flow_style))
                made.entries.append((key, node(next(events), bool(event.flow_style))))
        return made

    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            anchors.clear()
            yield node(next(events), False)


def _value(document: Any, at: str) -> Any:
    for part in at.split("/")[1:]:
        document = document[int(part) if isinstance(document, list) else part]
    return document


def _differing(one: Any, other: Any, at: str = "") -> list[str]:
    """The JSON pointers at which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [spot for key in one for spot in _differing(one[key], other[key], at + pointer([key]))]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [spot for n, pair in enumerate(zip(one, other, strict=True)) for spot in _differing(*pair, f"{at}/{n}")]
    return [] if one == other else [at]
