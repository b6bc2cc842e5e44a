"""Schemas of the objects a definition writes, and objects against them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from velagen.errors import did_you_mean
from velagen.kubernetes.crds import CrdStore, crd_store
from velagen.kubernetes.structural import check_value

SERVICE: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "x"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "triton"}, "storageUri": "s3://x"}}},
}


def service(**predictor: Any) -> dict[str, Any]:
    return {**SERVICE, "spec": {"predictor": {**SERVICE["spec"]["predictor"], **predictor}}}


def told(obj: object) -> list[tuple[str, str]]:
    return [(problem.place.pointer or "", problem.message) for problem in crd_store().check(obj)]


@pytest.mark.parametrize(
    ("api_version", "kind", "path"),
    [
        ("serving.kserve.io/v1beta1", "InferenceService", ["spec", "predictor", "model", "storageUri"]),
        ("serving.kserve.io/v1alpha1", "ServingRuntime", ["spec", "containers"]),
        ("networking.istio.io/v1beta1", "VirtualService", ["spec", "http"]),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", ["spec", "rules"]),
        ("keda.sh/v1alpha1", "ScaledObject", ["spec"]),
        ("serving.knative.dev/v1", "Service", ["spec", "template"]),
        ("core.oam.dev/v1beta1", "Application", ["spec", "components"]),
        ("apps/v1", "Deployment", ["spec", "template", "spec", "containers"]),
        ("v1", "ConfigMap", ["data"]),
        ("v1", "ResourceQuota", ["spec", "hard"]),
        ("v1", "Namespace", ["metadata", "labels"]),
        ("autoscaling/v2", "HorizontalPodAutoscaler", ["spec", "metrics"]),
    ],
)
def test_kinds_the_definitions_write_are_known_down_to_their_fields(
    api_version: str, kind: str, path: list[str]
) -> None:
    schema = crd_store().schema(api_version, kind)
    assert schema is not None
    for name in path:
        schema = schema["properties"][name]
    assert (api_version, kind) in crd_store().kinds()


def test_a_kind_of_nobody_is_none() -> None:
    assert crd_store().schema("serving.kserve.io/v9", "InferenceService") is None


def test_no_reference_is_left_and_recursion_is_cut() -> None:
    schema = crd_store().schema("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    # "$ref" is itself the name of a field of that kind; a reference to a component would be left over.
    assert "#/components" not in json.dumps(schema)


def test_metadata_of_a_custom_resource_is_the_full_one() -> None:
    assert told({**SERVICE, "metadata": {"name": "x", "lables": {}}}) == [
        ("/metadata/lables", "there is no field lables here")
    ]


def test_warm_reading_is_fast() -> None:
    crd_store().schema("serving.kserve.io/v1beta1", "InferenceService")
    store = CrdStore(crd_store().sources, crd_store().cache)
    started = time.process_time()
    assert store.schema("serving.kserve.io/v1beta1", "InferenceService") is not None
    assert time.process_time() - started < 0.4  # 12 ms on a quiet machine; cold it is a second and more


def test_a_good_object_has_no_problems() -> None:
    good = service(minReplicas=2, nodeSelector={"a": "b"}, labels={"x": "y"})
    good["metadata"] = {"name": "x", "labels": {"a.b/c": "d"}, "annotations": {"n": "1"}}
    assert crd_store().check(good) == []


@pytest.mark.parametrize(
    ("obj", "pointer", "message"),
    [
        (service(minReplica=1), "/spec/predictor/minReplica", "there is no field minReplica here"),
        (
            service(minReplicas="1"),
            "/spec/predictor/minReplicas",
            'a whole number was expected, this is the string "1"',
        ),
        (
            service(minReplicas=1.5),
            "/spec/predictor/minReplicas",
            "a whole number was expected, this is the number 1.5",
        ),
        (service(minReplicas=True), "/spec/predictor/minReplicas", "a whole number was expected, this is true"),
        (service(minReplicas=2**40), "/spec/predictor/minReplicas", "1099511627776 does not fit into int32"),
        (service(tolerations={}), "/spec/predictor/tolerations", "a list was expected, this is an object"),
        (
            service(scaleMetric="qps"),
            "/spec/predictor/scaleMetric",
            '"qps" is not one of cpu, memory, concurrency, rps',
        ),
        (service(containers=[{"image": "x"}]), "/spec/predictor/containers/0", "name is missing"),
        (service(volumes=None), "/spec/predictor/volumes", "null is not a value here: leave the field out"),
        (
            service(containers=[{"name": "a"}, {"name": "b", "env": [{"name": "E"}, {"name": "E"}]}]),
            "/spec/predictor/containers/1/env/1",
            "the same name as in number 0 of this list",
        ),
        ({**SERVICE, "spec": {}}, "/spec", "predictor is missing"),
        ({**SERVICE, "metadata": {}}, "/metadata/name", "the object has no metadata.name"),
        ({**SERVICE, "metadata": {"name": "A_b"}}, "/metadata/name", '"A_b" is not a name Kubernetes takes'),
        (
            {**SERVICE, "metadata": {"name": "x", "labels": {"a": "s3://x"}}},
            "/metadata/labels/a",
            '"s3://x" is not a label\'s value',
        ),
        (
            {**SERVICE, "metadata": {"name": "x", "annotations": {"a": 1}}},
            "/metadata/annotations/a",
            "a string was expected, this is the number 1",
        ),
        ({"kind": "ConfigMap"}, "/apiVersion", "the object has no apiVersion"),
        ([], "", "an object was expected, this is a list"),
        (
            {**SERVICE, "apiVersion": "serving.kserve.io/v1"},
            "/kind",
            "no schema is known for serving.kserve.io/v1 InferenceService",
        ),
    ],
)
def test_one_mistake_is_one_problem_at_its_place(obj: object, pointer: str, message: str) -> None:
    assert told(obj) == [(pointer, message)]


def test_quantities_are_numbers_with_a_suffix() -> None:
    def limits(**found: Any) -> dict[str, Any]:
        container = {"name": "c", "image": "x", "resources": {"limits": found}}
        spec = {"selector": {}, "template": {"spec": {"containers": [container]}}}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}

    assert told(limits(cpu="500m", memory="4Gi", other=1, half=0.5, big="1e3")) == []
    at = "/spec/template/spec/containers/0/resources/limits/memory"
    assert told(limits(memory="4 GB")) == [(at, '"4 GB" is not a quantity')]
    assert told(limits(memory=True)) == [(at, "a quantity such as 2, 500m or 4Gi was expected, this is true")]


def test_the_near_name_is_offered() -> None:
    (problem,) = crd_store().check(service(minreplicas=1))
    assert problem.hint == "did you mean minReplicas?"


def test_an_unknown_group_is_a_warning_only() -> None:
    (problem,) = crd_store().check({"apiVersion": "team.example/v1", "kind": "Thing", "metadata": {"name": "x"}})
    assert (problem.severity, problem.place.pointer) == ("warning", "/kind")


@pytest.mark.parametrize(
    ("schema", "value", "messages"),
    [
        ({"type": "string", "pattern": "^a"}, "b", ['"b" does not match ^a']),
        ({"type": "string", "minLength": 2}, "b", ["at least 2 characters needed, there are 1"]),
        ({"type": "array", "maxItems": 1}, [1, 2], ["at most 1 item allowed, there are 2"]),
        ({"type": "object", "minProperties": 1}, {}, ["at least 1 field needed, there are 0"]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1, ["1 is below the least, 1"]),
        ({"type": "integer", "maximum": 3}, 4, ["4 is above the most, 3"]),
        ({"type": "number", "multipleOf": 0.1}, 0.3, []),
        ({"type": "number", "multipleOf": 0.1}, 0.35, ["0.35 is not a multiple of 0.1"]),
        (
            {"type": "array", "x-kubernetes-list-type": "set"},
            ["a", "a"],
            ["the same value as in number 0 of this list"],
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "b"}, []),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": 1}, []),
        ({"type": "object"}, {"a": 1}, ["there is no field a here"]),
        ({"type": "string", "nullable": True}, None, []),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            {"a": "1", "b": "2"},
            ["exactly one of a, b is needed, not several"],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "not": {"required": ["a", "b"]},
            },
            {"a": "1", "b": "2"},
            ["a and b may not stand here together"],
        ),
        (
            {"x-kubernetes-int-or-string": True},
            1.5,
            ["a whole number or a string was expected, this is the number 1.5"],
        ),
        ({"type": "string", "pattern": "(?P<bad"}, "b", []),
    ],
)
def test_rules_of_a_schema(schema: dict[str, Any], value: object, messages: list[str]) -> None:
    assert [problem.message for problem in check_value(value, schema)] == messages


def test_a_port_twice_counts_its_default_protocol() -> None:
    schema = crd_store().schema("serving.kserve.io/v1beta1", "InferenceService")
    ports = [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]
    problems = check_value(service(containers=[{"name": "c", "ports": ports}]), schema or {})
    assert [problem.message for problem in problems] == [
        "the same containerPort and protocol as in number 0 of this list"
    ]


def test_did_you_mean_ignores_case_and_hyphens_first() -> None:
    assert did_you_mean("gpushare", ["gpu-share", "gpushares"]) == "did you mean gpu-share?"
    assert did_you_mean("zzz", ["gpu-share"]) == ""


CRD = """\
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.team.example
spec:
  group: team.example
  names:
    kind: Thing
    plural: things
  versions:
  - name: v1
    served: true
    schema:
      openAPIV3Schema:
        type: object
        description: long
        properties:
          spec:
            type: object
            properties:
              description: {type: string}
  - served: true
    name: v2
    schema:
      openAPIV3Schema: {type: object}
"""


@pytest.fixture
def own_crds(tmp_path: Path) -> Path:
    folder = tmp_path / "crds"
    folder.mkdir()
    (folder / "things.yaml").write_text(CRD, encoding="utf-8")
    return folder


def test_a_projects_own_crds_are_read_without_their_prose(own_crds: Path, tmp_path: Path) -> None:
    store = CrdStore({}, tmp_path / "cache", (own_crds,))
    assert store.kinds() == {("team.example/v1", "Thing"), ("team.example/v2", "Thing")}
    schema = store.schema("team.example/v1", "Thing")
    assert schema is not None
    assert schema["properties"]["spec"]["properties"] == {"description": {"type": "string"}}
    assert "description" not in schema


def test_an_unusual_layout_is_parsed_whole(tmp_path: Path) -> None:
    folder = tmp_path / "crds"
    folder.mkdir()
    flow = (
        'apiVersion: "apiextensions.k8s.io/v1"\nkind: "CustomResourceDefinition"\n'
        "spec: {group: a.b, names: {kind: C}, versions: [{name: v1, schema: {openAPIV3Schema: {type: object}}}]}\n"
    )
    (folder / "c.yaml").write_text(flow, encoding="utf-8")
    assert CrdStore({}, tmp_path / "cache", (folder,)).kinds() == {("a.b/v1", "C")}


def test_a_changed_crd_is_seen_and_a_broken_cache_is_rebuilt(own_crds: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert CrdStore({}, cache, (own_crds,)).schema("team.example/v1", "Thing") is not None
    (own_crds / "things.yaml").write_text(CRD.replace("team.example\n  names", "squad.example\n  names"))
    store = CrdStore({}, cache, (own_crds,))
    assert store.schema("team.example/v1", "Thing") is None
    assert store.schema("squad.example/v1", "Thing") is not None
    for file in cache.rglob("*.json"):
        file.write_text("{", encoding="utf-8")
    assert CrdStore({}, cache, (own_crds,)).schema("squad.example/v1", "Thing") is not None


def test_no_cache_folder_is_no_error(own_crds: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    assert CrdStore({}, blocked, (own_crds,)).schema("team.example/v1", "Thing") is not None


def test_every_object_may_say_what_it_is() -> None:
    """Istio's schemas have neither apiVersion nor kind."""
    route = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "b"}, "weight": 10}]}]}
    obj = {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {"name": "x"},
        "spec": route,
    }
    assert crd_store().check(obj) == []
