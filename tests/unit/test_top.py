"""velagen top: the table and the JSON, of models as Prometheus' records and the cluster's objects say."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from tests.unit.prometheus_server import Series, holding
from tests.unit.promtool import OWNER

from velagen.cli import main
from velagen.errors import Problem
from velagen.monitoring.models import (
    Firing,
    Model,
    Objective,
    View,
    Wanted,
    measured,
    nearest,
    objective,
)
from velagen.monitoring.prometheus import Prometheus
from velagen.monitoring.rules import ROUTES
from velagen.monitoring.table import Screen, as_json, shortened
from velagen.monitoring.traffic import Share, revisions, shares
from velagen.page.figures import percent, rate, seconds, span

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "fixtures" / "top"
PROMISED = Objective(99.9, 200, 99, "30d")
STABLE = Model(
    "team", "sentiment", "shop", "sentiment", ready=True, share=Share(90), replicas_ready=2, replicas_wanted=2,
    route="envoy", routes=("envoy", "server"), requests=189.2, errors=0.0004, p50=0.0123, p99=0.0871, mean=0.02,
    inflight=2.4, waiting=0, gpu=0.62, objective=PROMISED, budgets={"availability": 0.52, "latency": 0.9}, age=12,
)  # fmt: skip
CANARY = replace(
    STABLE, version="sentiment-canary", share=Share(10), replicas_ready=1, replicas_wanted=1, requests=21.04,
    errors=0.031, p50=0.014, p99=0.412, waiting=3, budgets={"availability": -0.2},
    alerts=(Firing("ModelSaturated", "warning"), Firing("ModelNotReady", "critical")),
)  # fmt: skip
#: A server without percentiles, whose figures are old.
MEAN = Model(
    "team", "vision", "eyes", "vision", ready=True, share=Share(100), replicas_ready=1, replicas_wanted=3,
    route="server", routes=("server",), requests=1234.5, errors=0, mean=0.0031, inflight=3.8, waiting=41, age=200,
)  # fmt: skip
UNKNOWN = Model("other", "quiet")
VIEW = View(
    (STABLE, CANARY, MEAN, UNKNOWN),
    (Problem("Prometheus knows nothing of other/quiet: are its pods scraped?", severity="warning"),),
    "http://prometheus-server.o11y-system.svc:9090",
    1_800_000_000,
)


def drawn(view: View, wanted: Wanted, width: int, **options: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, **options).print(Screen(view, wanted))
    return file.getvalue()


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table(width: int) -> None:
    assert drawn(VIEW, Wanted(None), width) == (GOLDEN / f"{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", range(80, 201, 7))
def test_no_line_is_wider_than_the_terminal_and_versions_stay_apart(width: int) -> None:
    long = "a-model-with-a-name-of-nearly-all-the-characters-that-it-may-have"
    view = View((replace(STABLE, version=long), replace(CANARY, version=f"{long}-canary"), MEAN), (), "", 0)
    lines = drawn(view, Wanted("team", "shop"), width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split()[0] for line in lines[2:5]]
    assert len(set(rows)) == 3
    for title in ("REQ/S", "ERRORS", "P99"):
        assert title in lines[1]


def test_the_readme_shows_what_is_drawn() -> None:
    view = View((STABLE, CANARY), (), "", 1_800_000_000)
    table = "\n".join(line.rstrip() for line in drawn(view, Wanted("team", "shop"), 100).splitlines()[1:])
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")


def test_colours_only_on_a_terminal() -> None:
    assert "\x1b" not in drawn(VIEW, Wanted(None), 120)
    coloured = drawn(VIEW, Wanted(None), 120, force_terminal=True, color_system="standard")
    assert "\x1b[31m3.10 %" in coloured


def test_what_is_not_known_is_not_0() -> None:
    text = drawn(View((UNKNOWN,), (), "", 0), Wanted("other"), 200)
    row = text.splitlines()[2].split()
    assert row[0] == "quiet"
    assert set(row[1:]) == {"-"}
    answer: Any = as_json(View((UNKNOWN,), (), "", 0))
    (model,) = answer["models"]
    figures = (
        "weightPercent",
        "requestsPerSecond",
        "errorRatio",
        "inFlight",
        "waiting",
        "gpuUtilization",
        "budgetLeft",
    )
    assert [model[name] for name in figures] == [None] * len(figures)


def test_a_mean_is_called_a_mean() -> None:
    text = drawn(View((replace(MEAN, age=1),), (), "", 0), Wanted("team"), 200)
    header = text.splitlines()[1].split()
    assert "MEAN" in header
    assert not {"P50", "P99"} & set(header)


def test_json_has_the_keys_that_are_documented() -> None:
    answer = as_json(VIEW)
    assert answer == json.loads((GOLDEN / "view.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")

    def keys(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from keys(inner)
        if isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    assert [key for key in sorted(set(keys(answer))) if f"`{key}`" not in text] == []


def test_a_long_name_keeps_its_end() -> None:
    assert shortened("sentiment-of-reviews-canary", 20) == "sentiment…ews-canary"
    assert shortened("short", 20) == "short"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (rate(None), "-"), (rate(0), "0"), (rate(0.001), "<0.01"), (rate(1.5), "1.50"), (rate(12.34), "12.3"),
        (rate(1234.5), "1,234"), (percent(0), "0 %"), (percent(1), "100 %"), (percent(0.99999), "99.99 %"),
        (percent(0.00001), "<0.01 %"), (percent(0.031), "3.10 %"), (percent(-0.2), "-20 %"), (percent(None), "-"),
        (seconds(0), "0 ms"), (seconds(0.0123), "12.3 ms"), (seconds(1.234), "1.23 s"), (seconds(250), "250 s"),
        (seconds(0.000001), "<0.01 ms"), (seconds(0.9999), "1 s"), (span(45), "45 s"), (span(200), "3 min"),
        (span(3600), "1 h"), (span(172_800), "2 d"),
    ],
)  # fmt: skip
def test_figures(said: str, expected: str) -> None:
    assert said == expected


# ---------------------------------------------------------------- what the cluster says


def http_route(*backends: tuple[str, int | None], copies: str = "") -> dict[str, Any]:
    refs = [{"name": name, **({} if weight is None else {"weight": weight})} for name, weight in backends]
    filters = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": copies}}}] if copies else []
    return {"spec": {"rules": [{"backendRefs": refs, "filters": filters}]}}


def virtual_service(*targets: tuple[str, int], copies: str = "") -> dict[str, Any]:
    route = [{"destination": {"host": f"{name}.team.svc.cluster.local"}, "weight": weight} for name, weight in targets]
    return {"spec": {"http": [{"route": route, **({"mirror": {"host": copies}} if copies else {})}]}}


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([], {}),
        # KServe's own route of one InferenceService splits nothing.
        ([http_route(("m-predictor", None))], {}),
        ([http_route(("m-predictor", 90), ("m-canary-predictor", 10))], {"m": 90, "m-canary": 10}),
        ([http_route(("m-transformer", 3), ("m-canary-transformer", 1))], {"m": 75, "m-canary": 25}),
        ([http_route(("m-predictor", None), ("m-canary-predictor", None))], {"m": 50, "m-canary": 50}),
        ([http_route(("m-predictor", 0), ("m-canary-predictor", 0))], {"m": 0, "m-canary": 0}),
        # A part that goes elsewhere belongs to no version.
        ([http_route(("m-predictor", 50), ("m-canary-predictor", 25), ("old", 25))], {"m": 50, "m-canary": 25}),
        ([virtual_service(("m-predictor", 80), ("m-canary-predictor", 20))], {"m": 80, "m-canary": 20}),
        ([http_route(("m-predictor", 1), copies="m-canary-predictor")], {"m": 100, "m-canary": 0}),
        ([virtual_service(("m-predictor", 100), copies="m-canary-predictor.team")], {"m": 100, "m-canary": 0}),
        ([http_route(("other-predictor", 90), ("another-predictor", 10))], {}),
        ([{"spec": {"rules": [{}]}}, {"spec": {"http": [{"redirect": {}}]}}, {}], {}),
    ],
)
def test_weights_are_those_of_the_routes(routes: list[dict[str, Any]], expected: dict[str, float]) -> None:
    found = shares(["m", "m-canary"], routes)
    assert {name: share.weight for name, share in found.items()} == expected
    if "mirror" in str(routes).lower():
        assert found["m-canary"].mirrored


def test_several_candidates_have_a_share_each() -> None:
    parts = (("m-predictor", 70), ("m-canary-b-predictor", 10), ("m-canary-c-predictor", 20))
    for made, rules in ((http_route, "rules"), (virtual_service, "http")):
        route, testers = made(*parts), made(("m-canary-c-predictor", 100))
        # A rule for testers of c alone is no share.
        route["spec"][rules].insert(0, testers["spec"][rules][0])
        found = shares(["m", "m-canary-b", "m-canary-c"], [route])
        assert {name: one.weight for name, one in found.items()} == {"m": 70, "m-canary-b": 10, "m-canary-c": 20}


def test_knatives_split_is_that_of_the_revisions() -> None:
    traffic = [
        {"revisionName": "m-predictor-00002", "percent": 10, "latestRevision": True},
        {"revisionName": "m-predictor-00001", "percent": 90, "tag": "prev"},
        {"revisionName": "m-predictor-00001", "tag": "old"},
    ]
    service = {"status": {"components": {"predictor": {"traffic": traffic}}}}
    assert revisions(service) == {"m-predictor-00002": 10, "m-predictor-00001": 90}
    assert revisions({}) == {}
    row = drawn(View((replace(STABLE, revisions=revisions(service)),), (), "", 0), Wanted("team"), 120)
    assert "10+90 %" in row


def test_the_objective_is_that_of_the_components_trait() -> None:
    traits = [{"type": "canary", "properties": {"weight": 1}}, {"type": "slo", "properties": {"availability": 99.9}}]
    application = {"spec": {"components": [{"name": "other"}, {"name": "m", "traits": traits}]}}
    assert objective(application, "m") == Objective(99.9)
    assert not objective(application, "other")
    assert not objective(None, "m")


# ---------------------------------------------------------------- what Prometheus says


def of(version: str, route: str | None = None, **more: str) -> dict[str, str]:
    return {**OWNER, "version": version, **({"route": route} if route else {}), **more}


def constant(name: str, labels: dict[str, str], value: float, until: float = 0) -> Series:
    return name, labels, lambda ago: value if ago >= until else None


SERIES = [
    *(constant("model:info", of(version), 1) for version in ("m", "m-canary")),
    constant("model:requests:rate1m", of("m", "envoy"), 9),
    constant("model:requests:rate1m", of("m-canary", "envoy"), 1),
    # The server counts the same requests again.
    constant("model:requests:rate1m", of("m", "server"), 9),
    constant("model:requests:rate1m", of("m-canary", "server"), 1),
    constant("model:errors:ratio5m", of("m-canary", "envoy"), 0.25),
    constant("model:latency_seconds:p99", of("m", "envoy"), 0.2),
    constant("model:latency_seconds:mean", of("m", "server"), 0.05),
    constant("model:waiting", of("m", "server"), 7),
    constant("model:inflight", of("m", "server"), 5),
    constant("model:inflight", of("m", "envoy"), 6),
    constant("model:gpu_utilization:avg", of("m"), 0.5),
    constant("ALERTS", {"alertname": "ModelSaturated", "alertstate": "firing", "severity": "warning",
                        "namespace": "team", "version": "m-canary"}, 1),
    constant("ALERTS", {"alertname": "ModelNotReady", "alertstate": "pending", "severity": "critical",
                        "namespace": "team", "version": "m"}, 1),
    # A gateway that nobody uses, beside callers inside of the cluster.
    constant("model:info", of("busy", component="busy"), 1),
    constant("model:requests:rate1m", of("busy", "envoy", component="busy"), 0.5),
    constant("model:requests:rate1m", of("busy", "server", component="busy"), 50),
    # Its rules were last evaluated three minutes ago.
    constant("model:info", of("late", component="late"), 1, until=180),
    constant("model:requests:rate1m", of("late", "server", component="late"), 3, until=180),
    # An objective that is counted by the server, where a gateway counts too; of the component, not of a version.
    constant("model:info", of("paid", component="paid"), 1),
    constant("model:requests:rate1m", of("paid", "envoy", component="paid"), 2),
    constant("model:requests:rate1m", of("paid", "server", component="paid"), 2.5),
    *(
        constant(name, {"app": "shop", "component": "paid", "namespace": "team", "route": "server", **more}, value)
        for name, value, more in (
            ("model:slo_objective:ratio", 0.999, {"slo": "availability", "window": "30d"}),
            ("model:slo_objective:ratio", 0.95, {"slo": "latency", "window": "30d", "milliseconds": "200"}),
            ("model:slo_budget_left:ratio", 0.52, {"slo": "availability"}),
            ("model:slo_budget_left:ratio", -0.1, {"slo": "latency"}),
            ("ALERTS", 1, {"alertname": "BudgetBurns", "alertstate": "firing", "severity": "critical"}),
        )
    ),
    # Another team's, of the same name.
    constant("model:requests:rate1m", {**of("m", "envoy"), "namespace": "others"}, 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with holding(tmp_path_factory.mktemp("prometheus"), SERIES, back=600) as address:
        yield Prometheus(address)


def models(*versions: str) -> list[Model]:
    return [Model("team", one, "shop", one.removesuffix("-canary"), ready=True) for one in versions]


def test_figures_are_those_of_one_route_and_never_added(prometheus: Prometheus) -> None:
    (stable, canary), problems = measured(models("m", "m-canary"), prometheus, Wanted("team"))
    assert not problems
    assert (stable.route, stable.routes) == ("envoy", ("envoy", "server"))
    assert (stable.requests, stable.p99, stable.gpu) == (9, 0.2, 0.5)
    # Envoy does not know who waits, the server does; of both gauges the route's is taken, and no mean of another route.
    assert (stable.waiting, stable.inflight, stable.mean) == (7, 6, None)
    assert (canary.requests, canary.errors, canary.p99) == (1, 0.25, None)
    assert canary.alerts == (Firing("ModelSaturated", "warning"),)
    assert stable.alerts == (), "a pending alert does not fire"
    assert stable.age is not None
    assert not stable.old


def test_an_objective_is_the_components_and_shown_by_its_own_count(prometheus: Prometheus) -> None:
    pair = [*models("paid"), replace(models("paid-canary")[0], component="paid")]
    (paid, canary), _ = measured(pair, prometheus, Wanted("team"))
    assert paid.objective == canary.objective == Objective(99.9, 200, 95, "30d")
    assert (paid.route, paid.requests) == ("server", 2.5)
    assert (paid.budgets, paid.budget_left) == ({"availability": 0.52, "latency": -0.1}, -0.1)
    assert paid.alerts == (Firing("BudgetBurns", "critical"),)
    assert canary.alerts == (), "told once"
    assert "99.9 %, 200 ms" in drawn(View((paid,), (), "", 0), Wanted("team"), 200)


def test_a_route_may_be_chosen(prometheus: Prometheus) -> None:
    (stable, canary), _ = measured(models("m", "m-canary"), prometheus, Wanted("team", route="server"))
    assert (stable.route, stable.mean, stable.p99, stable.inflight) == ("server", 0.05, None, 5)
    assert canary.requests == 1
    (stable, _), _ = measured(models("m", "m-canary"), prometheus, Wanted("team", route="istio"))
    assert (stable.route, stable.requests, stable.routes) == (None, None, ("envoy", "server"))


def test_requests_that_go_past_the_gateway_are_told(prometheus: Prometheus) -> None:
    (busy,), problems = measured(models("busy"), prometheus, Wanted("team"))
    assert (busy.route, busy.requests) == ("envoy", 0.5)
    assert "busy: envoy counts 0.5 requests a second, server 50: --route server" in problems[0].message
    (busy,), problems = measured(models("busy"), prometheus, Wanted("team", route="server"))
    assert (busy.requests, problems) == (50, [])


def test_old_figures_are_called_old(prometheus: Prometheus) -> None:
    (late,), _ = measured(models("late"), prometheus, Wanted("team"))
    assert late.requests == 3
    assert late.old
    text = drawn(View((late,), (), "", 0), Wanted("team"), 120)
    assert "(3)" in text
    assert "(late: the figures are 3 min old)" in text


def test_all_namespaces_are_told_apart(prometheus: Prometheus) -> None:
    pair = [*models("m"), replace(models("m")[0], namespace="others", app="theirs")]
    (mine, theirs), _ = measured(pair, prometheus, Wanted(None))
    assert (mine.requests, theirs.requests) == (9, 400)


def test_a_model_that_nobody_scrapes_is_named(prometheus: Prometheus) -> None:
    (_, dark), problems = measured(models("m", "dark"), prometheus, Wanted("team"))
    assert dark.requests is None
    assert [one.message for one in problems] == ["Prometheus knows nothing of team/dark: are its pods scraped?"]


def test_a_prometheus_without_rules_is_told(tmp_path: Path) -> None:
    with holding(tmp_path, [constant("up", {"job": "pods"}, 1)], back=60) as address:
        (found,), problems = measured(models("m"), Prometheus(address), Wanted("team"))
    assert found.requests is None
    assert "has no series of models" in problems[0].message
    assert "velagen metrics rules" in problems[0].hint


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, None),
        ({"server": 0.0}, "server"),
        ({"server": 5.0, "envoy": 5.0, "istio": 5.0}, "envoy"),
        # A gateway that has seen nothing is not believed over a server that has.
        ({"server": 5.0, "envoy": 0.0}, "server"),
        ({"server": 0.0, "knative": 0.0}, "knative"),
    ],
)
def test_the_nearest_to_the_client_is_believed(counts: dict[Any, float], expected: str | None) -> None:
    assert nearest(counts) == expected


def test_each_route_has_its_place() -> None:
    from velagen.cli.seeing import _ROUTES
    from velagen.monitoring.models import NEAREST_FIRST

    assert set(NEAREST_FIRST) == set(ROUTES) == set(_ROUTES)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-A", "-n", "team"], "-A is all namespaces, and -n one of them"),
        (["--kubeconfig", "/no/such/file"], "no cluster to ask"),
        (["--kubeconfig", "{config}", "--context", "nowhere"], "nowhere"),
        (["--kubeconfig", "{config}", "--prometheus", "localhost:9090"], "write http://localhost:9090"),
        (["--kubeconfig", "{config}"], "the cluster at http://127.0.0.1:1 does not answer: connection refused"),
        (["--route", "nginx"], "'nginx' is not one of"),
        (["--every", "0"], "0"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], said: str) -> None:
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    done = CliRunner().invoke(main, ["top", *(one.replace("{config}", str(config)) for one in arguments)])
    assert done.exit_code != 0
    assert said in " ".join(done.output.split())
    assert not done.exception or isinstance(done.exception, SystemExit)
