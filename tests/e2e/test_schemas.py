"""Schemas that are hard on KubeVela: each becomes a definition that vela-core takes in, with its form, and lives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velagen.definition.build import build_definitions
from velagen.errors import VelagenError
from velagen.lab import Lab, condition, wait_until
from velagen.lab.vela import vela
from velagen.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

API = "core.oam.dev/v1beta1"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "default": "leaf"}
    for _ in range(levels):
        schema = {"type": "object", "additionalProperties": False, "properties": {"below": schema}}
    return schema


HARD: dict[str, dict[str, Any]] = {
    # kubevela #5767: a default beside bounds.
    "default-and-bounds": {"a": {"type": "integer", "minimum": 1, "maximum": 99, "default": 30}},
    # Until somebody renders, a value with a default passes for every type it may have.
    "default-of-a-union": {
        "a": {"type": ["string", "integer"], "minimum": 0, "default": "x", "x-message": "a must be x, or 0 or more"},
        "b": {"type": ["string", "array"], "minItems": 2, "items": {"type": "integer"}, "default": ""},
    },
    "least-items": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 2}},
    "tuple": {"a": {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}},
    "least-properties": {"a": {"type": "object", "minProperties": 1}},
    "fraction-of-a-tenth": {"a": {"type": "number", "multipleOf": 0.1, "default": 0.5}},
    "contains": {"a": {"type": "array", "contains": {"const": 1}, "minContains": 2}},
    "not": {"a": {"type": "string", "not": {"const": "x"}}},
    "one-of-objects": {
        "a": {
            "oneOf": [
                {"properties": {"kind": {"const": "s3"}, "bucket": {"type": "string"}}, "required": ["kind", "bucket"]},
                {"properties": {"kind": {"const": "pvc"}, "claim": {"type": "string"}}, "required": ["kind", "claim"]},
            ]
        }
    },
    "conditions": {
        "a": {"type": "object", "if": {"required": ["x"]}, "then": {"required": ["y"]}, "else": {"required": ["z"]}}
    },
    "unevaluated": {
        "a": {"allOf": [{"properties": {"x": {"type": "string"}}}], "unevaluatedProperties": False, "type": "object"}
    },
    "patterns": {
        "a": {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}
    },
    "no-such-property": {"a": False, "b": {"type": "string"}},
    "deep": {"a": nested(24)},
    "wide": {f"property{number}": {"type": "string", "maxLength": 9} for number in range(300)},
    "hostile-names": {'quote"}': {"type": "string"}, "if": {"type": "string"}, "a.b\\(c)": {"type": "integer"}},
}


def built(folder: Path, name: str, properties: dict[str, Any]) -> Path:
    """A definition whose parameter has *properties*, as velagen builds it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    module = (
        "from velagen import Component, Workload, context\n"
        f"hard = Component(name={name!r}, description='Hard.', workload=Workload('v1', 'ConfigMap'),\n"
        "    output={'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': context.name}})\n"
    )
    for path, text in {
        "metadata.yaml": "name: hard\nversion: 0.1.0\ndescription: Hard schemas.\n",
        f"schemas/{name}.json": json.dumps(schema),
        "definitions/hard.py": module,
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    (definition,) = build_definitions(Project(folder))
    file = folder / f"{name}.cue"
    file.write_text(definition.cue, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", HARD)
def test_vela_core_takes_it_in_with_its_form(lab: Lab, tmp_path: Path, name: str) -> None:
    definition = f"hard-{name}"
    file = built(tmp_path, definition, HARD[name])
    vela(lab.kubeconfig, "def", "apply", file)
    try:

        def synced() -> bool:
            return condition(lab.api.get(API, "ComponentDefinition", definition, "vela-system"), "Synced") == "True"

        wait_until(synced, what=f"{definition} Synced", timeout=45)
        form = lab.api.get("v1", "ConfigMap", f"component-schema-{definition}", "vela-system")
        assert form is not None
        assert '"properties"' in form["data"]["openapi-v3-json-schema"]
    finally:
        lab.api.delete(API, "ComponentDefinition", definition, "vela-system")


def test_recursion_never_reaches_vela_core(tmp_path: Path) -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#/properties/a"}}}
    with pytest.raises(VelagenError, match="contains itself"):
        built(tmp_path, "hard-recursive", {"a": tree})
