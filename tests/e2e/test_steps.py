"""Workflow steps on the real vela-core: an operation that is to be done once is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.loopback import Quiet, listening

from velagen.definition.build import build_definitions
from velagen.lab import Lab, wait_until
from velagen.lab.vela import vela
from velagen.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(20)]

API = "core.oam.dev/v1beta1"
#: Posts, and waits until a ConfigMap of the test's says go on: KubeVela does the whole step again every few seconds.
MODULE = """
from velagen import WorkflowStep, context, first_given, once, operation, result_of
from velagen import parameter as p

post = {"method": "POST", "url": p.url, "request": {"body": "x"}}
gate = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gate", "namespace": context.namespace}}
again = WorkflowStep(
    name=NAME,
    description="Posts and waits.",
    body={
        "sendOnce": once(operation("vela/http", "#HTTPDo", post | {"url": f"{p.url}/once"})),
        "sendAgain": operation("vela/http", "#HTTPDo", post | {"url": f"{p.url}/again"}),
        "gate": operation("vela/kube", "#Read", {"value": gate}),
        "wait": operation(
            "vela/builtin",
            "#ConditionalWait",
            {
                "continue": first_given(result_of("gate")["$returns"].value.data.open, "") == "yes",
                "message": f"answered {first_given(result_of('sendOnce')['$returns'].body, 'nothing')}",
            },
        ),
    },
)
"""


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(Quiet):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            paths.append(self.path)
            body = f"number {paths.count(self.path)}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as address:
        yield address, paths


def built(folder: Path, name: str) -> Path:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "required": ["url"],
        "properties": {"url": {"type": "string"}},
    }
    files = {
        "metadata.yaml": "name: steps\nversion: 0.1.0\ndescription: Steps.\n",
        f"schemas/{name}.json": json.dumps(schema),
        "definitions/again.py": MODULE.replace("NAME", repr(name)),
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    (definition,) = build_definitions(Project(folder))
    file = folder / f"{name}.cue"
    file.write_text(definition.cue, encoding="utf-8")
    return file


def test_an_operation_is_done_once_while_its_step_waits(lab: Lab, namespace: str, tmp_path: Path) -> None:
    name = f"again-{namespace}"
    vela(lab.kubeconfig, "def", "apply", built(tmp_path, name))
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}}
    try:
        with counting() as (url, paths):
            lab.api.apply(
                {
                    "apiVersion": API,
                    "kind": "Application",
                    "metadata": {"name": "app", "namespace": namespace},
                    "spec": {
                        "components": [
                            {"name": "made", "type": "k8s-objects", "properties": {"objects": [config]}},
                        ],
                        "workflow": {"steps": [{"name": "again", "type": name, "properties": {"url": url}}]},
                    },
                }
            )

            def workflow() -> dict[str, Any]:
                app = lab.api.get(API, "Application", "app", namespace) or {}
                found: dict[str, Any] = app.get("status", {}).get("workflow", {})
                return found

            def kept() -> list[str]:
                maps = lab.api.list("v1", "ConfigMap", namespace)
                return [one["metadata"]["name"] for one in maps if one["metadata"]["name"].endswith("-send-once")]

            # What is done at each look of KubeVela's at the waiting step tells how often it looked.
            wait_until(lambda: paths.count("/again") >= 4, what="the step looked at four times", timeout=60)
            (step,) = workflow()["steps"]
            assert step["message"] == "answered number 1"
            gate = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gate", "namespace": namespace}}
            lab.api.apply(gate | {"data": {"open": "yes"}})
            wait_until(lambda: workflow().get("status") == "succeeded", what="the workflow done", timeout=60)
            assert paths.count("/once") == 1
            assert len(kept()) == 1
            lab.api.delete(API, "Application", "app", namespace)
            wait_until(lambda: not kept(), what="what was kept gone with the application", timeout=60)
    finally:
        lab.api.delete(API, "WorkflowStepDefinition", name, "vela-system")
