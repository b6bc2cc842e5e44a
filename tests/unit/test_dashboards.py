"""The dashboards: Grafana's own types read them, and Prometheus' own promtool has an answer to each panel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.panels import Query, panels, unanswered
from tests.unit.prometheus_server import holding
from tests.unit.promtool import OWNER, expect, holds, of_pod, run, series

from velagen.cli import main
from velagen.monitoring.alerts import alerts
from velagen.monitoring.dashboards import UIDS, dashboard
from velagen.monitoring.dashboards.make import made
from velagen.monitoring.objectives import ACHIEVED, BURN, LEFT, OBJECTIVE, objective_rules
from velagen.monitoring.rules import Alert, Rule, recording_rules, rules_file
from velagen.monitoring.sources import CLUSTER, GPU, ROLLOUT_LABELS, SOURCES, Source

DASHBOARDS = {name: json.loads(dashboard(name)) for name in UIDS}
RULES = rules_file((*recording_rules(), alerts()))
#: The dashboards' variables: a model with a canary as its gateway sees it.
CHOSEN = {
    "namespace": "team",
    "app": "shop",
    "component": "m",
    "version": "(m|m-canary)",
    "route": "envoy",
}
ALL = [query for one in DASHBOARDS.values() for query in panels(one, CHOSEN)]

Input = dict[str, str]


def answered(queries: Iterable[Query], there: bool = True) -> list[dict[str, Any]]:
    """Tests of promtool: there is an answer to each query, or to none."""
    return [
        {
            "expr": f"count({query.expr}) > bool 0" if there else query.expr,
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": 1}] if there else [],
        }
        for query in {query.expr: query for query in queries}.values()
    ]


def case(inputs: list[Input], *tests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"interval": "15s", "input_series": inputs, "promql_expr_test": [one for each in tests for one in each]}


# ---------------------------------------------------------------- the files


def test_the_files_are_what_grafanas_library_makes_of_the_records() -> None:
    assert {name: dashboard(name) for name in UIDS} == made(), "run: python -m velagen.monitoring.dashboards.make"
    assert made() == made()


@pytest.mark.parametrize("name", UIDS)
def test_grafanas_types_know_every_property(name: str) -> None:
    """Read into the types that Grafana generates of its own schema, and written again, nothing is gone or new."""
    register_default_plugins()
    read = Dashboard.from_json(json.loads(dashboard(name)))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DASHBOARDS[name]


@pytest.mark.parametrize("name", UIDS)
def test_a_dashboard_is_found_and_its_panels_lie_beside_each_other(name: str) -> None:
    content = DASHBOARDS[name]
    assert content["uid"] == UIDS[name]
    # KubeVela's addon grafana installs Grafana 8.5, which knows no later schema.
    assert content["schemaVersion"] == 36
    assert all(one["id"] == one["name"] for one in content["templating"]["list"])
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
    taken = [
        (x, y)
        for panel in content["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    for panel in content["panels"]:
        if panel["type"] != "row":
            assert panel["description"]
            assert all(
                target["refId"] and target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]
            )


def test_the_command_writes_the_files_and_replaces_none_of_another_kind(tmp_path: Path) -> None:
    folder = tmp_path / "provisioned"

    def run_it(*more: str) -> Result:
        return CliRunner().invoke(main, ["metrics", "dashboards", str(folder), *more])

    assert run_it().exit_code == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {
        f"{uid}.json": dashboard(name) for name, uid in UIDS.items()
    }
    assert run_it().exit_code == 0, "what is there already is no other dashboard"
    (folder / "kfserving-model.json").write_text("{}")
    refused = run_it()
    assert refused.exit_code == 1
    assert "kfserving-model.json: error: another dashboard of this name is there" in refused.output.replace("\n", "")
    assert "--overwrite" in refused.output
    assert (folder / "kfserving-model.json").read_text() == "{}"
    assert run_it("--overwrite").exit_code == 0
    assert (folder / "kfserving-model.json").read_text(encoding="utf-8") == dashboard("model")


def test_whoever_uses_the_dashboards_needs_no_library_of_grafanas() -> None:
    command = "import sys; import velagen.cli.metrics; from velagen.monitoring.dashboards import dashboard; "
    command += "dashboard('model'); sys.exit(any(name.startswith('grafana') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


# ---------------------------------------------------------------- what they ask


def test_promtool_takes_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query.expr} for number, query in enumerate(ALL)]
    text = yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, width=10_000)
    (tmp_path / "panels.yaml").write_text(text, encoding="utf-8")
    assert f"{len(rules)} rules found" in run("check", "rules", tmp_path / "panels.yaml")


def test_they_ask_for_records_and_for_nothing_that_only_one_server_gives() -> None:
    groups = (*recording_rules(), *objective_rules())
    known = {rule.record for group in groups for rule in group.rules if isinstance(rule, Rule)}
    # The last three are recorded for each objective by itself.
    known |= {*CLUSTER.names, "ALERTS", OBJECTIVE, ACHIEVED, LEFT}
    for query in ALL:
        names = set(re.findall(r"(\w[\w:]*)\{|\b((?:model|cluster):[\w:]+)", query.expr))
        found = {name for pair in names for name in pair if name}
        assert found
        assert found <= known, query.expr


def test_no_mean_is_called_a_percentile() -> None:
    """What is called P50 is that percentile's record, and what is of a mean says so; nothing else has these names."""
    for content in DASHBOARDS.values():
        for panel in content["panels"]:
            titles = [each["options"].get("renameByName", {}) for each in panel.get("transformations", [])]
            for target in panel.get("targets", []):
                called = [names[value] for names in titles if (value := f"Value #{target['refId']}") in names]
                # A column's title, else a line's beside the panel's.
                title = called[0] if called else f"{target.get('legendFormat', '')} {panel['title']}"
                of = re.findall(":(p[0-9]+|mean)", target["expr"])
                assert re.findall("p[0-9]+|mean", title.lower())[:1] == of[:1], title


def test_each_alert_is_among_those_that_fire() -> None:
    (expression,) = {found for query in ALL for found in re.findall('alertname=~"([^"]+)"', query.expr)}
    groups = (alerts(), *objective_rules())
    names = [rule.name for group in groups for rule in group.rules if isinstance(rule, Alert)]
    assert all(re.fullmatch(expression, name) for name in names)


def test_a_runbook_names_a_row_that_is_there() -> None:
    rows = {
        f"{content['title']}, row {panel['title']}"
        for content in DASHBOARDS.values()
        for panel in content["panels"]
        if panel["type"] == "row"
    }
    books = (Path(__file__).parents[2] / "docs/runbooks").glob("*.md")
    named = [found for book in books for found in re.findall("(?m)^In Grafana: (.+)[.]$", book.read_text("utf-8"))]
    assert named
    assert set(named) <= rows


# ---------------------------------------------------------------- what they are answered

POD, CANARY = "m-predictor-1", {"pod": "m-canary-predictor-1", "version": "m-canary"}
GATEWAY = {"namespace": "projectcontour", "pod": "envoy-1"}


def of_source(source: Source, **owner: str) -> list[Input]:
    """All series that a source may give of a model, as the table has them."""

    def one(name: str, values: str, where: str = "", **labels: str) -> Input:
        labels |= labels_for(where)
        if source.route == "envoy":
            return series(name, values, envoy_cluster_name=f"team_{owner.get('version', 'm')}-predictor_80", **labels)
        if source.route == "istio":
            who = "service_name" if source.name == "istio-gateway" else "workload"
            space = "destination_service_namespace" if who == "service_name" else "destination_workload_namespace"
            of = {space: "team", f"destination_{who}": f"{owner['version']}-predictor"}
            return series(name, values, **of, **labels)
        return of_pod(name, values, **owner, **labels)

    found: dict[str, Input] = {}

    def add(made: Input) -> None:
        found.setdefault(made["series"], made)

    for counter in (
        *source.requests,
        *source.errors,
        *(source.batch or ()),
        *([source.tokens] if source.tokens else []),
    ):
        add(one(counter.name, "0+30x40", counter.where))
    for gauge in (source.inflight, source.waiting):
        if gauge:
            add(one(gauge.name, "2x40", gauge.where))
    for mean in (source.mean, source.queue):
        if mean:
            add(one(mean.total, f"0+{mean.per_second}x40", mean.where))
            add(one(mean.count, "0+30x40", mean.where))
    for histogram in (source.histogram, source.first_token):
        for le, values in {"0.1": "0+10x40", "+Inf": "0+30x40"}.items():
            if histogram:
                add(one(f"{histogram.name}_bucket", values, histogram.where, le=le))
    return list(found.values())


def labels_for(where: str) -> dict[str, str]:
    """Labels that a series' matchers want."""
    examples = {"5..": "503", ".+/infer": "/v2/models/m/infer"}
    return {
        name: "ANOTHER" if sign == "!=" else examples.get(value, value)
        for name, sign, value in re.findall(r'(\w+)(!=|=~|=)"([^"]*)"', where)
    }


def gives(source: Source, query: Query) -> bool:
    """Whether a source gives what a query of the model's dashboard asks."""
    asked = {
        "requests": source.requests,
        "errors": source.errors,
        "latency_seconds:p": source.histogram,
        "latency_seconds:mean": source.mean,
        "inflight": source.inflight or source.mean,
        "waiting": source.waiting,
        "queue": source.queue,
        "batch": source.batch,
        "tokens": source.tokens,
        "first_token": source.first_token,
        "info": True,
        "replicas": True,
    }
    (given,) = [bool(there) for name, there in asked.items() if f"model:{name}" in query.expr]
    return given


#: Everything that the model with the canary and its cluster give, and what the platform's dashboard shows of it.
OF_THE_CLUSTER = [
    of_pod("up", "1x40"),
    of_pod("up", "1x40", **CANARY),
    *(
        series(name, values, namespace="team", deployment=f"{version}-predictor")
        for version, available in (("m", "2x40"), ("m-canary", "0x40"))
        for name, values in ((CLUSTER.wanted, "2x40"), (CLUSTER.available, available))
    ),
    series(CLUSTER.scaler_most, "4x40", namespace="team", horizontalpodautoscaler="keda-hpa-m-autoscale"),
    series(
        CLUSTER.rollout,
        "1x40",
        namespace="team",
        configmap="m-rollout",
        **{f"label_{one.translate(str.maketrans('./', '__'))}": "m" for one in ROLLOUT_LABELS},
    ),
    series(GPU.utilization, "70x40", namespace="team", pod=POD, UUID="GPU-1"),
    series(GPU.memory_used, "1024x40", namespace="team", pod=POD, UUID="GPU-1"),
    series(GPU.utilization, "1x40", namespace="team", pod=CANARY["pod"], UUID="GPU-2"),
    series(GPU.utilization, "0x40", UUID="GPU-3"),
    *(
        series(name, "0.5x40", app="shop", component="m", namespace="team", slo="latency", route="envoy")
        for name in (OBJECTIVE, ACHIEVED, LEFT, f"{BURN}1h", f"{BURN}6h")
    ),
]


def test_every_panel_has_an_answer(tmp_path: Path) -> None:
    """Triton behind Contour, with a canary whose pods do not come up, and a language model."""
    triton, envoy, vllm = (SOURCES[name] for name in ("triton", "envoy", "vllm"))
    chat = {"app": "talk", "component": "chat", "version": "chat", "pod": "chat-predictor-1"}
    inputs = [
        *OF_THE_CLUSTER,
        *(one for source in (triton, envoy) for version in ({}, CANARY) for one in of_source(source, **version)),
        of_pod("up", "1x40", **chat),
        *of_source(vllm, **chat),
    ]
    of_chat = list(panels(DASHBOARDS["model"], {**CHOSEN, **chat, "route": "server"}))
    of_server = list(panels(DASHBOARDS["model"], {**CHOSEN, "route": "server"}))
    holds(
        tmp_path,
        RULES,
        case(
            inputs,
            answered(query for query in ALL if "llm" not in query.needs),
            answered(query for query in of_chat if "llm" in query.needs),
            # Triton itself has no histogram: the mean is there, and what shows percentiles stays empty.
            answered(query for query in of_server if not query.needs & {"llm", "histogram"}),
            answered((query for query in of_server if "histogram" in query.needs), there=False),
        ),
    )


def test_a_rollouts_new_version_stands_beside_the_stable_one(tmp_path: Path) -> None:
    """The step rollout-model brings it in as a component of its own, NAME-canary."""
    rates = {"m": "8x40", "m-canary": "2x40", "m-canary-2": "9x40"}
    inputs = [
        series("model:requests:rate1m", rate, **{**OWNER, "component": name, "version": name, "route": "envoy"})
        for name, rate in rates.items()
    ]
    (share,) = [one.expr for one in panels(DASHBOARDS["model"], CHOSEN) if one.panel == "Share of traffic"]
    shares = expect(f"max by (version) ({share})", "5m", ({"version": "m"}, 0.8), ({"version": "m-canary"}, 0.2))
    holds(tmp_path, rules_file(recording_rules()[:1]), case(inputs, [shares]))
    (component,) = [one for one in DASHBOARDS["model"]["templating"]["list"] if one["name"] == "component"]
    assert re.fullmatch(component["regex"].strip("/"), "m-canary")[1] == "m"  # type: ignore[index]  # no match fails the test too
    assert re.fullmatch(component["regex"].strip("/"), "m")[1] == "m"  # type: ignore[index]  # no match fails the test too


def test_of_each_source_the_panels_show_what_it_gives_and_no_more(tmp_path: Path) -> None:
    inputs, tests = [], []
    for name, source in SOURCES.items():
        owner = {"component": name, "version": name}
        inputs += [of_pod("up", "1x40", **owner), *of_source(source, **owner)]
        queries = [
            query
            for query in panels(DASHBOARDS["model"], {**CHOSEN, **owner, "route": source.route})
            if not query.needs & {"alert", "autoscaler", "gpu", "kube-state-metrics", "slo"}
            and "vector(0)" not in query.expr
        ]
        tests += answered(query for query in queries if gives(source, query))
        tests += answered((query for query in queries if not gives(source, query)), there=False)
    holds(tmp_path, RULES, case(inputs, tests))


def test_of_a_prometheus_it_is_told_which_panels_are_empty(tmp_path: Path) -> None:
    """What the kind lab's test asks, on a Prometheus that knows a model and nothing of its requests."""
    owner = {"app": "shop", "component": "m", "namespace": "team", "version": "m"}
    queries = [
        Query("There", 'model:info{namespace="team"}'),
        Query("Empty", "model:requests:rate1m"),
        Query("Not there", "model:gpus"),
        Query("No objective", LEFT),
        Query("No query", "model:info{"),
    ]
    with holding(tmp_path, [("model:info", owner, lambda ago: 1.0)], back=60) as prometheus:
        found = unanswered(prometheus, queries, {"gpu"})
    assert found.keys() == {"Empty", "No query"}
    assert found["Empty"] == "model:requests:rate1m"
    assert "parse error" in found["No query"]


def test_what_no_model_holds_is_zero_and_what_nobody_tells_is_empty(tmp_path: Path) -> None:
    """GPUs that are all free are numbers; without an exporter, or kube-state-metrics, there are none."""
    platform = [
        one for one in panels(DASHBOARDS["platform"], CHOSEN) if one.panel in ("GPUs", "GPUs held", "Pending pods")
    ]
    of_gpus, pending = ([one for one in platform if need in one.needs] for need in ("gpu", "kube-state-metrics"))
    free = [of_pod("up", "1x40"), series(GPU.utilization, "0x40", UUID="GPU-1")]
    state = series(CLUSTER.available, "1x40", namespace="team", deployment="m-predictor")
    holds(
        tmp_path,
        RULES,
        case(free, answered(of_gpus), answered(pending, there=False)),
        case([state], answered(pending), answered(of_gpus, there=False)),
    )
