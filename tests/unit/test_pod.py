"""The property pod: cut from KServe's CRD, passed on whole, merged with what the component puts there itself."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from velagen.check.dryrun import Outcome, dry_run
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog, of_kubevela
from velagen.documents import parse_documents
from velagen.kserve.cut import PARTS, PASSED, inference_service, pod_schema, printed
from velagen.kserve.fields import fields, page, without_a_place
from velagen.project import Project
from velagen.schema import load_schema, validate
from velagen.schema.opened import PLAIN, at_render, json_pattern, unsure

ROOT = Path(__file__).parents[2]
TRITON = {"runtime": "triton", "modelUri": "s3://models/sentiment/1"}
FIELDS = json.loads((ROOT / "schemas" / "pod.json").read_text())["$defs"]


@cache
def catalog() -> Catalog:
    return Catalog.of([*of_kubevela(), *(one.known() for one in build_definitions(Project(ROOT)))])


def outcome_of(**properties: Any) -> Outcome:
    component = {"name": "m", "type": "kfserving", "properties": {**TRITON, **properties}}
    application = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": "m"},
        "spec": {"components": [component]},
    }
    (document,) = parse_documents(yaml.safe_dump(application), "app.yaml")
    return dry_run(document, catalog())


def rendered(**properties: Any) -> dict[str, Any]:
    """The InferenceService's spec."""
    outcome = outcome_of(**properties)
    assert not outcome.problems, outcome.raw
    spec: dict[str, Any] = outcome.objects[0].content["spec"]
    return spec


# ---------------------------------------------------------------- its schema


def test_the_schema_is_cut_from_the_crd() -> None:
    text = (ROOT / "schemas" / "pod.json").read_text(encoding="utf-8")
    assert printed(pod_schema()) == text, "run: python -m velagen.kserve.make"


def test_each_part_of_an_inference_service_has_what_is_passed() -> None:
    for part in PARTS:
        assert set(PASSED) <= set(inference_service()[part]["properties"]), part


def plain(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    for pattern, new in PLAIN:
        text = re.sub(pattern, new.replace("$1", r"\1"), text)
    return text


def sample(schema: dict[str, Any]) -> Any:
    """A value with every field there is."""
    types = schema.get("type")
    kind = str(types[0] if isinstance(types, list) else types)
    if kind == "object":
        if "properties" in schema:
            return {name: sample(one) for name, one in schema["properties"].items()}
        below = schema.get("additionalProperties")
        return {"example.com/a": sample(below)} if isinstance(below, dict) else {}
    if kind == "array":
        return [sample(schema["items"])] * 2
    return {"string": 'a "text": {[<', "integer": -1, "number": 1.5e-7, "boolean": True}.get(kind)


def spoilt(value: Any) -> list[Any]:
    """The value with a field more, once for each object in it."""
    if isinstance(value, list):
        return [[one] for one in spoilt(value[0])]
    if not isinstance(value, dict):
        return []
    deeper = [{**value, name: bad} for name, one in value.items() for bad in spoilt(one)]
    return [{**value, "bogus": "a"}, *deeper]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_pattern_takes_every_field_and_no_other(field: str) -> None:
    schema = FIELDS[field]
    pattern = re.compile(json_pattern(schema))
    assert pattern.search(plain(sample(schema)))
    for bad in spoilt(sample(schema)):
        whole = {"type": "object", "properties": {"x": schema}}
        wrong = load(whole, {"x": bad})
        assert bool(pattern.search(plain(bad))) is not wrong, bad


def load(schema: dict[str, Any], value: object) -> bool:
    """Whether the schema has an objection by a name or a type, the words that a pattern knows."""
    from velagen.schema.model import parse_schema

    return any("is not a known property" in problem.message for problem in validate(parse_schema(schema), value))


def test_what_is_open_is_anything_at_render_and_read_by_velagen_check() -> None:
    schema = load_schema(ROOT / "schemas" / "kfserving.json")
    pod = at_render(schema).document["$defs"]["pod"]
    assert "properties" not in pod
    (volumes,) = (one for name, one in unsure(schema).document["$defs"].items() if name.endswith("/volumes"))
    assert '"claimName"' in json.dumps(volumes)
    assert '"required"' not in json.dumps(volumes)
    wrong = {**TRITON, "pod": {"volumes": [{"name": "a", "configMap": {"nam": "b"}}]}}
    assert [problem.place.pointer for problem in validate(schema, wrong)] == ["/pod/volumes/0/configMap/nam"]


def test_each_of_kserves_fields_has_a_place_or_a_reason() -> None:
    assert without_a_place(fields()) == [], "say in velagen/kserve/fields.py where it is, or why it is nowhere"
    next_kserve = {**fields(), "spec.predictor": [*fields()["spec.predictor"], "schedulingGroup"]}
    assert without_a_place(next_kserve) == ["spec.predictor.schedulingGroup"]
    text = (ROOT / "docs" / "kserve-fields.md").read_text(encoding="utf-8")
    assert page(fields()) == text, "run: python -m velagen.kserve.make"


def test_the_places_are_properties_of_the_schema() -> None:
    known = load_schema(ROOT / "schemas" / "kfserving.json").document
    pod = known["$defs"]["pod"]["properties"]
    for name in re.findall(r"`([a-z]\w+(?:\.\w+)?)`", (ROOT / "docs" / "kserve-fields.md").read_text()):
        first, _, below = name.partition(".")
        if below and first == "pod":
            assert below in pod, name


# ---------------------------------------------------------------- what becomes of it


def test_each_part_has_its_own_pod() -> None:
    pod = {
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        "sharedMemory": "8Gi",
        "imagePullSecrets": [{"name": "registry"}],
        "schedulerName": "kai-scheduler",
        "tolerations": [{"operator": "Exists"}],
        "labels": {"team": "search"},
        "annotations": {"a": "b"},
        "initContainers": [{"name": "first", "image": "x"}],
        "sidecars": [{"name": "beside", "image": "x"}],
        "terminationGracePeriodSeconds": 5,
    }
    beside = {"image": "registry.example.com/text:1", "pod": pod}
    spec = rendered(pod=pod, transformer=beside, explainer=beside)
    for part in ("predictor", "transformer", "explainer"):
        made = spec[part]
        server = made["model"] if part == "predictor" else made["containers"][0]
        for name in ("imagePullSecrets", "schedulerName", "tolerations", "initContainers"):
            assert made[name] == pod[name], name
        assert made["terminationGracePeriodSeconds"] == 5
        assert made["labels"]["team"] == "search"
        assert made["annotations"]["a"] == "b"
        assert made["annotations"]["oam.dev/kubevela-version"] == "", "KubeVela's own are kept still"
        assert [one["name"] for one in made["volumes"]] == ["cache", "devshm"]
        assert {one["mountPath"] for one in server["volumeMounts"]} == {"/cache", "/dev/shm"}
        assert made["containers"][-1]["name"] == "beside"


def test_a_users_volumes_stand_beside_those_of_dynamic_batching() -> None:
    predictor = rendered(
        dynamicBatching={"preferredBatchSizes": [4]},
        pod={
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        },
    )["predictor"]
    assert [one["name"] for one in predictor["volumes"]] == ["cache", "batching-models"]
    assert [one["name"] for one in predictor["model"]["volumeMounts"]] == ["cache", "batching-models"]


@pytest.mark.parametrize("security", ["restricted", None])
def test_pods_are_restricted_unless_it_is_said_otherwise(security: str | None) -> None:
    pod = {} if security is None else {"security": security}
    spec = rendered(pod=pod, runAsUser=1000, transformer={"image": "x", "pod": pod})
    assert spec["predictor"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["predictor"]["model"]["securityContext"]["runAsNonRoot"] is True
    assert spec["transformer"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_security_is_the_runtimes_or_the_users() -> None:
    spec = rendered(
        pod={"security": "runtime"}, runAsUser=7, transformer={"image": "x", "pod": {"security": "runtime"}}
    )
    assert "securityContext" not in spec["predictor"]
    assert spec["predictor"]["model"]["securityContext"] == {"runAsUser": 7}
    assert "securityContext" not in spec["transformer"]
    assert "securityContext" not in spec["transformer"]["containers"][0]
    own = {"securityContext": {"fsGroup": 1}, "containerSecurityContext": {"privileged": True}}
    spec = rendered(pod=own, transformer={"image": "x", "pod": own})
    for made, server in (
        (spec["predictor"], spec["predictor"]["model"]),
        (spec["transformer"], spec["transformer"]["containers"][0]),
    ):
        assert made["securityContext"] == {"fsGroup": 1}
        assert server["securityContext"] == {"privileged": True}


@pytest.mark.parametrize(
    "wrong",
    [
        {"affinity": {"nodeAffinity": {"required": {}}}},
        {"initContainers": [{"name": "a", "image": "x", "evn": []}]},
        {"envFrom": []},
        {"hostNetwork": "yes"},
        {"priorityClassName": 7},
        {"labels": {"a": 1}},
        # Fields of a logger, whose schema stands beside a pod's.
        {"loggerStorage": {"key": "a"}},
        {"metadataHeaders": ["a"]},
    ],
)
def test_what_the_api_server_would_drop_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    (problem,) = outcome_of(explainer={"image": "x", "pod": wrong}).problems
    assert problem.message.startswith(f"explainer.pod.{name} is not a field of a pod")


def test_what_the_api_server_would_drop_of_env_from_is_refused() -> None:
    wrong = [{"secretRef": {"nam": "a"}}]
    for properties, at in (({"envFrom": wrong}, ""), ({"explainer": {"image": "x", "envFrom": wrong}}, "explainer.")):
        (problem,) = outcome_of(**properties).problems
        assert problem.message.startswith(f"{at}envFrom holds a field that Kubernetes does not have there")


# ---------------------------------------------------------------- Kubernetes' own spelling


def test_amounts_are_taken_as_kubernetes_takes_them() -> None:
    resources = {"requests": {"cpu": 0.5, "memory": 1073741824}, "limits": {"cpu": 1, "nvidia.com/gpu": "4"}}
    made = rendered(resources=resources)["predictor"]["model"]["resources"]
    assert made["requests"] == {"cpu": "0.5", "memory": "1073741824"}
    assert made["limits"] == {"cpu": "1", "memory": "1073741824", "nvidia.com/gpu": "4"}


def test_a_device_that_is_requested_is_a_limit_too() -> None:
    """Kubernetes takes a device by its limit alone (pkg/apis/core/validation)."""
    resources = {"requests": {"nvidia.com/mig-1g.10gb": 1}}
    for made in (
        rendered(resources=resources)["predictor"]["model"],
        rendered(transformer={"image": "x", "resources": resources})["transformer"]["containers"][0],
    ):
        assert made["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": 1}


def test_a_variable_comes_from_wherever_a_pods_does() -> None:
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": False}}},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    assert rendered(env=env)["predictor"]["model"]["env"] == env


# ---------------------------------------------------------------- the rest of an InferenceService


def test_a_rollout_is_a_deployments_strategy() -> None:
    surge = rendered(rollout="surge")["predictor"]["deploymentStrategy"]["rollingUpdate"]
    in_place = rendered(rollout="in-place")["predictor"]["deploymentStrategy"]["rollingUpdate"]
    assert (surge["maxUnavailable"], in_place["maxSurge"], in_place["maxUnavailable"]) == (0, 0, 1)
    assert rendered(rollout="recreate")["predictor"]["deploymentStrategy"] == {"type": "Recreate"}


def test_artifacts_are_fetched_beside_the_model() -> None:
    one = {"uri": "s3://adapters/a", "path": "/mnt/models/a"}
    predictor = rendered(artifacts=[one])["predictor"]
    assert predictor["storageUris"] == [
        {"uri": TRITON["modelUri"], "mountPath": "/mnt/models"},
        {"uri": "s3://adapters/a", "mountPath": "/mnt/models/a"},
    ]
    assert "storageUri" not in predictor["model"], "KServe's webhook takes one of the two"


def test_another_scheme_is_a_storage_containers() -> None:
    predictor = rendered(modelUri="registry://team/a", storageContainer="x")["predictor"]
    assert predictor["storageContainerName"] == "x"
    assert predictor["model"]["storageUri"] == "registry://team/a"


def test_a_name_with_a_slash_is_no_part_of_an_address() -> None:
    model = rendered(runtime="huggingface", modelUri="hf://a/b", modelName="a/b")["predictor"]["model"]
    assert model["args"] == ["--model_name=a/b"]
    assert model["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


def test_no_limit_of_requests_is_a_limit_of_zero() -> None:
    predictor = rendered(deploymentMode="knative", containerConcurrency=0)["predictor"]
    assert predictor["containerConcurrency"] == 0


def test_a_users_scrape_annotation_wins_over_the_components() -> None:
    found = rendered(pod={"annotations": {"prometheus.io/port": "9102"}})["predictor"]["annotations"]
    said = {key: value for key, value in found.items() if key.startswith("prometheus.io/")}
    assert said == {"prometheus.io/port": "9102", "prometheus.io/scrape": "true", "prometheus.io/path": "/metrics"}
