"""``velagen adopt``: what is there already comes back equal, or is told."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.test_check import needs_vela

from velagen.adopt.application import adopted, check
from velagen.adopt.compare import differences
from velagen.adopt.defaults import FRAMEWORKS
from velagen.adopt.sources import of_files
from velagen.adopt.table import (
    BY_RULE,
    COMPANION_ROWS,
    NAME_FLAGS,
    OF_NO_FIELD,
    REST_VERSIONS,
    ROWS,
    RUNTIMES,
    WITHOUT_GRPC_PREFIX,
)
from velagen.adopt.takeover import _may_lack
from velagen.adopt.text import written
from velagen.cli import main
from velagen.cli.adopt import _properties, _renderer

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((Path(__file__).parent / "fixtures/adopt").glob("*.yaml"))
#: Written without a look at the rules, to measure them.
APART = sorted((Path(__file__).parent / "fixtures/adopt-apart").glob("*.yaml"))
#: Samples that the component can't say, which are carried as they are.
AS_THEY_ARE = {
    "no-storage": "it has no storageUri",
    "container-of-storage": "modelUri must be a location that KServe can fetch",
    "onnx-old": "protocolVersion: v1 is not served by this runtime",
}


def service(**predictor: Any) -> dict[str, Any]:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {"predictor": {"model": model, **predictor}},
    }


# The table ----------------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "schemas/kfserving.json").read_text())
    return found


def test_each_property_of_the_component_has_a_row_or_a_reason() -> None:
    rows = {row.property.split(".")[0] for row in ROWS}
    known = {one for one in _properties(schema()) if "." not in one}
    assert known - rows - set(BY_RULE) - set(OF_NO_FIELD) == set()
    companion = {one.partition(".")[2] for one in _properties(schema()) if one.startswith("transformer.")}
    tops = {one for one in companion if "." not in one}
    # A probe that was written is taken over as it is; the artifacts are an environment variable; a container beside the
    # model's stays one.
    assert (
        tops - {row.property.split(".")[0] for row in COMPANION_ROWS} - {"readinessPath", "artifactsUri", "collocated"}
        == set()
    )


def test_the_runtimes_are_those_of_the_definitions() -> None:
    spec = importlib.util.spec_from_file_location("_runtimes_of_the_definitions", ROOT / "definitions/_runtimes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    theirs = {name: (one.serving_runtime, one.model_format or name) for name, one in module.RUNTIMES.items()}
    assert theirs == RUNTIMES
    assert module.NAME_FLAGS == NAME_FLAGS
    assert module.REST_VERSIONS == REST_VERSIONS
    assert set(module.GRPC_PREFIXES) == WITHOUT_GRPC_PREFIX


# The comparison -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"sklearn": {"storageUri": "s3://a"}, "model": None},
            {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://a", "protocolVersion": "v1"}},
        ),
        ({"minReplicas": 2, "nodeSelector": {}}, {"minReplicas": 2}),
        (
            {"model": {"modelFormat": {"name": "a"}, "name": "", "resources": {}}},
            {"model": {"modelFormat": {"name": "a"}}},
        ),
    ],
)
def test_two_ways_to_write_one_thing_are_equal(before: dict[str, Any], after: dict[str, Any]) -> None:
    wanted = service(**before)
    wanted["spec"]["predictor"] = {k: v for k, v in wanted["spec"]["predictor"].items() if v is not None}
    assert differences(wanted, service(**after)) == []


def test_what_the_webhook_wrote_is_not_a_persons() -> None:
    kept = service()
    kept["metadata"]["annotations"]["modelFormat"] = "sklearn"
    assert differences(kept, service()) == []
    kept["metadata"]["annotations"]["modelFormat"] = "of-ones-own"
    assert [".".join(one.path) for one in differences(kept, service())] == ["metadata.annotations.modelFormat"]


def test_amounts_are_compared_and_not_their_texts() -> None:
    def one(cpu: Any, memory: Any) -> dict[str, Any]:
        found = service()
        found["spec"]["predictor"]["model"]["resources"] = {"limits": {"cpu": cpu, "memory": memory}}
        return found

    assert differences(one(1, "1Gi"), one("1000m", "1024Mi")) == []
    (found,) = differences(one(1, "1Gi"), one("1", "1G"))
    assert str(found).startswith("spec.predictor.model.resources.limits.memory: was 1")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for key, one in items for leaf in leaves(one, (*path, key))]
    return found or [path]


def samples() -> list[dict[str, Any]]:
    return [one.service for one in of_files(SAMPLES).found]


@pytest.mark.parametrize("sample", samples(), ids=lambda one: one["metadata"]["name"])
def test_a_change_of_any_field_is_a_difference(sample: dict[str, Any]) -> None:
    assert differences(sample, sample) == []
    for path in leaves(sample["spec"], ("spec",)):
        changed = copy.deepcopy(sample)
        here: Any = changed
        for part in path[:-1]:
            here = here[part]
        if here[path[-1]] in ("", {}, []):
            continue
        serves = path[2:] == ("containers", 0, "name") and (
            path[1] != "predictor" or not {"model", *FRAMEWORKS} & set(sample["spec"]["predictor"])
        )
        if serves:
            # KServe's webhook names the container that serves itself.
            continue
        here[path[-1]] = "another"
        assert differences(sample, changed), path
        assert differences(changed, sample), path


# The way there and back ---------------------------------------------------------------------------------------------


@needs_vela
@pytest.mark.slow
@pytest.mark.seconds(60)
def test_each_sample_comes_back_equal() -> None:
    render, known = _renderer(None)
    as_they_are = {}
    for found in of_files(SAMPLES).found:
        result = adopted(found.service, render, known, beside=found.beside)
        text = written(result, found.origin)
        # What is read by a person, and by KubeVela, is the text.
        result.application = yaml.safe_load(text)
        assert check(result, render) == [], result.name
        if not result.is_model:
            as_they_are[result.name] = next(note for note in result.notes if note.startswith("as it is: "))
    assert as_they_are.keys() == AS_THEY_ARE.keys()
    for name, reason in AS_THEY_ARE.items():
        assert reason in as_they_are[name]


@needs_vela
@pytest.mark.slow
@pytest.mark.seconds(60)
def test_what_was_written_apart_from_the_rules_comes_back_equal() -> None:
    render, known = _renderer(None)
    as_they_are = set()
    for found in of_files(APART).found:
        result = adopted(found.service, render, known, beside=found.beside)
        result.application = yaml.safe_load(written(result, found.origin))
        assert check(result, render) == [], result.name
        if not result.is_model:
            as_they_are.add(result.name)
    # ModelMesh is no mode of the component.
    assert as_they_are == {"meshed"}


@needs_vela
def test_what_the_component_adds_is_taken_away_where_it_has_to_be_exact() -> None:
    render, known = _renderer(None)
    before = service(minReplicas=2)
    loose, exact = (adopted(before, render, known, exact=one) for one in (False, True))
    assert loose.application["spec"]["components"] == [
        {
            "name": "iris",
            "type": "kfserving",
            "properties": {"runtime": "sklearn", "minReplicas": 2, "modelUri": "s3://models/iris"},
        }
    ]
    assert "*.model.readinessProbe" in loose.added
    (back,) = (one for one in render(exact.application) if isinstance(one, dict))
    assert differences(before, back, strict=True) == []
    assert exact.added == []


@needs_vela
@pytest.mark.parametrize(
    ("mode", "scaling", "wanted"),
    [
        (
            "Standard",
            {"minReplicas": 1, "maxReplicas": 4, "scaleMetric": "cpu", "scaleTarget": 60},
            {"metric": "cpu", "engine": "hpa", "target": 60, "minReplicas": 1, "maxReplicas": 4},
        ),
        (
            "Knative",
            {"minReplicas": 0, "maxReplicas": 4, "scaleMetric": "rps", "scaleTarget": 5},
            {"metric": "qps", "engine": "kpa", "target": 5, "minReplicas": 0, "maxReplicas": 4},
        ),
        # The trait has no such metric, or no such bound: the fields are carried.
        ("Standard", {"maxReplicas": 4, "scaleMetric": "memory", "scaleTarget": 80}, None),
        ("Standard", {"scaleMetric": "cpu", "scaleTarget": 80}, None),
        ("Standard", {"maxReplicas": 4, "scaleMetric": "cpu"}, None),
    ],
)
def test_what_kserve_scales_by_is_the_trait_autoscale(
    mode: str, scaling: dict[str, Any], wanted: dict[str, Any] | None
) -> None:
    render, known = _renderer(None)
    before = service(**scaling)
    before["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = mode
    result = adopted(before, render, known)
    (component,) = result.application["spec"]["components"]
    found = {one["type"]: one["properties"] for one in component.get("traits", [])}
    assert found.get("autoscale") == wanted
    assert (wanted is None) == ("json-merge-patch" in found)
    if wanted is not None:
        assert not {"minReplicas", "maxReplicas"} & set(component["properties"])
    assert check(result, render) == []


@needs_vela
def test_what_would_replace_pods_is_taken_away_and_told_where_they_are_to_stay() -> None:
    """Labels and annotations stay: pods that run can get them, and without them each later edit would replace pods."""
    render, known = _renderer(None)
    before = service(minReplicas=2)
    result = adopted(before, render, known, keep_pods=True)
    (back,) = (one for one in render(result.application) if isinstance(one, dict))
    left = {one.path[:3] for one in differences(before, back, strict=True)}
    assert left <= {("spec", "predictor", "labels"), ("spec", "predictor", "annotations"), ("metadata", "annotations")}
    assert ("spec", "predictor", "labels") in left
    assert all(one.startswith(("*.labels.", "*.annotations.")) for one in result.added)
    assert "take them out at the next change" in written(result, "a file")


@pytest.mark.parametrize(
    ("strategy", "replicas", "lacks"),
    [
        ({}, 1, False),
        ({"type": "Recreate"}, 1, True),
        ({"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}, 3, False),
        ({"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}, 4, True),
        ({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}, 1, True),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, 9, False),
        ({"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}, 2, True),
    ],
)
def test_a_strategy_that_ends_pods_first_is_seen(strategy: dict[str, Any], replicas: int, lacks: bool) -> None:
    assert _may_lack({"spec": {"strategy": strategy, "replicas": replicas}}) is lacks


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Service\nmetadata: {name: iris}\n", "this is not an Application"),
        ("kind: Application\nmetadata: {name: iris}\nspec: {components: []}\n", "has no policy take-over"),
        ("kind: Application\nmetadata: {name: iris}\nspec: {policies: [{type: take-over}]}\n", "has no model"),
        ("# nothing\n", "there is no Application here"),
        ("- a\n", "this is not an Application"),
        ("kind: Application\nmetadata: {name: iris}\nspec: 5\n", "has no policy take-over"),
        ("kind: Application\nmetadata: {name: iris}\nspec: {policies: 5, components: 7}\n", "has no policy take-over"),
    ],
)
def test_a_file_that_is_no_adopted_application_changes_nothing(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "app.yaml").write_text(text)
    done = CliRunner(catch_exceptions=False).invoke(main, ["take-over", str(tmp_path / "app.yaml")])
    assert done.exit_code == 1
    assert sentence in " ".join(done.output.split())


@needs_vela
def test_the_check_fails_where_an_application_makes_something_else() -> None:
    render, known = _renderer(None)
    result = adopted(service(minReplicas=2, priorityClassName="high"), render, known)
    assert check(result, render) == []
    (component,) = result.application["spec"]["components"]
    component["properties"]["minReplicas"] = 3
    del component["properties"]["pod"]
    assert [".".join(one.path) for one in check(result, render)] == [  # type: ignore[union-attr]
        "spec.predictor.minReplicas",
        "spec.predictor.priorityClassName",
    ]


@needs_vela
def test_the_command_reads_yaml_and_json_and_says_what_it_leaves(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [service(), account]}))
    done = CliRunner().invoke(main, ["adopt", str(file)])
    assert done.exit_code == 0, done.output
    document = yaml.safe_load(done.stdout)
    assert document["spec"]["components"][0]["properties"]["modelUri"] == "s3://models/iris"
    assert "apply them as before: ServiceAccount reader" in done.stderr
    assert f"# From {file}: InferenceService iris." in done.stdout.replace("\n# ", " ")
    done = CliRunner().invoke(main, ["adopt", "--check", str(file)])
    assert (done.exit_code, done.stdout) == (0, "iris: equal\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "there is no InferenceService here"),
        (
            "{apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, spec: {predictor: {}}}",
            "has no metadata.name",
        ),
        (
            "{apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, metadata: {name: a}}",
            "has no spec.predictor",
        ),
        ("{apiVersion: serving.kserve.io/v1alpha2, kind: InferenceService, metadata: {name: a}}", "is not read"),
        ("{", "invalid YAML"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    done = CliRunner().invoke(main, ["adopt", str(file)])
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_scaler_and_a_route_go_with_their_service() -> None:
    scaling = of_files([one for one in SAMPLES if one.name == "scaling.yaml"])
    beside = {one.service["metadata"]["name"]: [other["kind"] for other in one.beside] for one in scaling.found}
    assert beside["external"] == ["ScaledObject", "HTTPRoute"]
    assert [name for name, others in beside.items() if others] == ["external"]
    assert scaling.others == ["ServiceAccount reader"]
