"""The operations of a workflow step are those of KubeVela's own files, in both versions."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from velagen import context, cue, each, first_given, operation, result_of, when
from velagen.oracle import Oracle
from velagen.template.compiler import TemplateCompiler
from velagen.template.operations import DATA, TRAPS, operations, read_operations, written
from velagen.template.types import JsonType
from velagen.template.values import CONTEXT
from velagen.tools import source

#: KubeVela's version and that of the workflow engine in its go.mod.
ENGINES = {"1.10.9": "0.6.3-0.20250717221743-56b80cee4121", "1.11.0": "0.7.2"}


@pytest.mark.seconds(10)
def test_the_file_is_what_kubevela_says() -> None:
    """Where KubeVela's version changed: VELAGEN_GOLDEN=write pytest tests/unit/test_operations.py."""
    sources = {one: (source("workflow", engine), source("kubevela", one)) for one, engine in ENGINES.items()}
    with Oracle("0.9.2") as oracle:
        text = written(read_operations(oracle, sources))
    if os.environ.get("VELAGEN_GOLDEN") == "write":
        DATA.write_text(text)
    assert DATA.read_text(encoding="utf-8") == text


def test_each_trap_is_still_there() -> None:
    assert all(name in operations()[package] for package, name in TRAPS)


def test_the_method_of_httppost_does_not_reach_its_params() -> None:
    """The trap that authors fell into: the file says method at the top, where nothing reads it."""
    text = (source("workflow", ENGINES["1.11.0"]) / "pkg/providers/http/http.cue").read_text()
    assert '#HTTPPost: #HTTPDo & {method: "POST"}' in text


def test_list_reads_value_and_says_resource() -> None:
    for engine in ENGINES.values():
        folder = source("workflow", engine) / "pkg/providers/kube"
        assert 'Resource *unstructured.Unstructured `json:"value"`' in (folder / "kube.go").read_text()
    assert set((operations()["vela/kube"]["#List"].params or {})["properties"]) == {"cluster", "filter", "resource"}


def compiled(body: dict[object, object]) -> tuple[str, list[str]]:
    compiler = TemplateCompiler(
        parameter=JsonType("object"), object_schemas=lambda *_: None, context=frozenset(CONTEXT)
    )
    text = cue.to_cue(compiler.step(body))
    return text, [problem.message for problem in compiler.problems]


WAIT = operation("vela/builtin", "#ConditionalWait", {"continue": True})


def test_operations_are_numbered_as_they_are_written_at_each_level() -> None:
    text, problems = compiled(
        {
            "z": WAIT,
            "data": {"n": 1},
            "a": {
                when(first_given(context.stepGroupName, "") == "g"): {"second": WAIT, "first": WAIT},
                "only": {"one": WAIT},
            },
        }
    )
    assert problems == []
    numbers = [line.rpartition("@")[2] for line in text.splitlines() if "@step" in line]
    # z; within a: second, first, only, whose single operation needs no number; a.
    assert numbers == ["step(1)", "step(1)", "step(2)", "step(3)", "step(2)"]


def test_what_an_operation_in_a_group_answers_is_known() -> None:
    read = operation("vela/util", "#ConvertString", {"bt": "x"})
    _, problems = compiled({"group": {"said": read}, "then": {"x": first_given(result_of("group")["sad"].str, "")}})
    assert any("'sad'" in one for one in problems)
    _, problems = compiled(
        {"group": {"said": read}, "then": first_given(result_of("group")["said"]["$returns"].sting, "")}
    )
    assert any("'sting'" in one for one in problems)


def test_operations_in_a_loop_may_be_of_any_kind() -> None:
    found = first_given(result_of("list")["$returns"].list, [])
    listed = operation("vela/query", "#ListAppliedResources", {"app": {"name": "a", "namespace": "b"}})
    value = {"apiVersion": "v1", "metadata": {"name": "x"}}

    def delete(_: object, one: object) -> dict[object, object]:
        kind = first_given(one.kind, "")  # type: ignore[attr-defined]
        return {f"{kind}": operation("vela/kube", "#Delete", {"value": {**value, "kind": kind}})}

    text, problems = compiled({"list": listed, "each": {each(found): delete}})
    assert problems == []
    assert "kube.#Delete" in text


STEPS = [
    path
    for path in sorted((Path(__file__).parents[2] / "addon/kfserving/definitions").glob("*.cue"))
    if 'type: "workflow-step"' in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", STEPS, ids=lambda path: path.stem)
def test_what_a_step_computes_can_be_written_down_when_an_operation_fails(file: Path) -> None:
    """A let is followed once for each way that leads to it: of rollout-model that never ended, nor did the worker."""
    template = file.read_text(encoding="utf-8").partition("\ntemplate: {")[2]
    assert re.search(r"^\t_#\w+: ", template, re.MULTILINE)
    assert not re.search(r"^\s*let ", template, re.MULTILINE)
