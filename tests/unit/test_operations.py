"""The operations of a workflow step are those of KubeVela's own files, in both versions."""

from __future__ import annotations

import os

import pytest

from velagen.oracle import Oracle
from velagen.template.operations import DATA, TRAPS, operations, read_operations, written
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
