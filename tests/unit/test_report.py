"""velagen report: what a real Prometheus and the cluster's objects know of an application over a while, on one page."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from click.testing import CliRunner
from tests.unit.browser import Tab, browse
from tests.unit.prometheus_server import holding
from tests.unit.release import BACK, CAME, PERIOD, QUARTER, RANG, release

from velagen.cli import main
from velagen.cli import top as cli_top
from velagen.errors import VelagenError
from velagen.monitoring.cluster import Cluster, ClusterError
from velagen.monitoring.history import History, Period, gather, period
from velagen.monitoring.history_page import page
from velagen.monitoring.models import Wanted
from velagen.monitoring.prometheus import Prometheus
from velagen.monitoring.rules import recording_rules
from velagen.page import Chart


@cache
def now() -> float:
    """When the first test asked, at a whole step of the report."""
    return float(int(time.time()) // 30 * 30)


EVIL = "<script>document.title='ran'</script>"


def stamp(ago: float) -> str:
    return datetime.fromtimestamp(now() - ago, UTC).isoformat().replace("+00:00", "Z")


def service(name: str, component: str = "m", app: str | None = "shop") -> dict[str, Any]:
    labels = {"app.oam.dev/name": app, "app.oam.dev/component": component} if app else {}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "namespace": "team", "labels": labels}, "status": ready}


def revision(number: int, ago: float, weight: int | None, packed: str = "") -> dict[str, Any]:
    """As KubeVela packs it, which zstd is by default."""
    traits = [] if weight is None else [{"type": "canary", "properties": {"weight": weight}}]
    spec: dict[str, Any] = {"application": {"spec": {"components": [{"name": "m", "traits": traits}]}}}
    if packed:
        text = json.dumps(spec).encode()
        data = gzip.compress(text) if packed == "gzip" else zstd.compress(text)
        empty: dict[str, Any] = {"spec": {"components": []}}
        spec = {"application": empty, "compression": {"type": packed, "data": base64.b64encode(data).decode()}}
    metadata = {"name": f"shop-v{number}", "namespace": "team", "creationTimestamp": stamp(ago)}
    return {"metadata": metadata, "spec": spec}


def event(ago: float, kind: str, name: str, reason: str, *, warning: bool = False, **more: Any) -> dict[str, Any]:
    about = {"kind": kind, "name": name}
    kept = {"reason": reason, "message": f"{reason} {EVIL}", "type": "Warning" if warning else "Normal", **more}
    return {"metadata": {"namespace": "team"}, "involvedObject": about, "lastTimestamp": stamp(ago), **kept}


@cache
def objects() -> dict[str, list[dict[str, Any]]]:
    """What the cluster has."""
    return {
        # The new version was taken back; another application's is called alike.
        "inferenceservices": [service("m"), service("m-large", "m-large", "other")],
        "applications": [{"metadata": {"name": "shop", "namespace": "team"}, "spec": {"components": []}}],
        "applicationrevisions": [
            revision(4, BACK, None),
            revision(1, 90_000, None),
            revision(2, CAME, 10, "gzip"),
            revision(3, QUARTER, 25, "zstd"),
        ],
        "events": [
            event(CAME, "Application", "shop", "Deployed", count=3),
            event(RANG, "Pod", "m-canary-predictor-7c-x", "Unhealthy", warning=True),
            event(100, "Pod", "m-large-predictor-1", "Foreign"),
            event(100, "Application", "other", "Foreign"),
            event(2 * PERIOD, "InferenceService", "m", "TooOld"),
            {"metadata": {}, "involvedObject": {"kind": "InferenceService", "name": "m"}, "lastTimestamp": None,
             "eventTime": stamp(50), "reason": "ByEventTime", "type": "Normal"},
        ],
    }  # fmt: skip


class Objects(Cluster):
    """Objects as an API server lists them."""

    def __init__(self, objects: dict[str, list[dict[str, Any]]]) -> None:
        self._objects = objects
        self.namespace = "team"

    def list(self, group: str, plural: str, namespace: str | None = None, **parameters: str) -> list[dict[str, Any]]:
        return self._objects.get(plural, [])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    series = release("shop", "team", name="m")
    with holding(tmp_path_factory.mktemp("prometheus"), series, back=4200, now=now()) as address:
        yield Prometheus(address)


@pytest.fixture(scope="module")
def history(prometheus: Prometheus) -> History:
    return gather(Objects(objects()), prometheus, Wanted("team", "shop"), period("1h", now()))


def chart(history: History, title: str) -> Chart:
    blocks = [block for section in page(history).sections for block in section.blocks]
    (found,) = [block for block in blocks if isinstance(block, Chart) and block.title == title]
    return found


def series(history: History, title: str) -> dict[str, list[float | None]]:
    return {one.name: list(one.values) for one in chart(history, title).series}


# ---------------------------------------------------------------- what is known


def test_a_version_that_is_gone_was_there(history: History) -> None:
    assert history.components == ["m"]
    assert history.versions("m") == ["m", "m-canary"]
    assert [one.version for one in history.models] == ["m"]
    requests = series(history, "Requests a second")
    assert len(history.times) == 121
    new = requests["m-canary"]
    assert new[0] is None
    assert new[-1] is None
    assert sum(value is not None for value in new) == pytest.approx((CAME - BACK) / 30, abs=4)


def test_a_rollouts_new_version_stands_beside_the_stable_one(
    history: History, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The step rollout-model brings it in as a component of its own, NAME-canary."""
    own = [
        (name, {**labels, "component": labels["version"]} if labels.get("version") == "m-canary" else labels, value)
        for name, labels, value in release("shop", "team", name="m")
    ]
    with holding(tmp_path_factory.mktemp("rollout"), own, back=4200, now=now()) as address:
        found = gather(Objects(objects()), Prometheus(address), Wanted("team", "shop"), period("1h", now()))
    assert found.components == ["m"]
    assert found.versions("m") == ["m", "m-canary"]
    for title in ("Requests a second", "Latency", "Failed requests", "Share of requests", "Replicas"):
        assert series(found, title) == series(history, title), title
    assert found.figures == history.figures
    assert found.alerts == history.alerts


def test_one_count_is_shown_and_never_a_sum(history: History) -> None:
    assert history.route_of("m") == "envoy"
    stable = series(history, "Requests a second")["m"][-1]
    assert stable == pytest.approx(180, abs=50)


def test_a_time_that_nobody_measured_is_a_gap(history: History) -> None:
    """A scrape was missed for two minutes: what was last computed does not stand for them."""
    stable = series(history, "Requests a second")["m"]
    assert 1 <= sum(value is None for value in stable) <= 4
    assert None not in (stable[0], stable[-1])


def test_requests_over_the_while_are_those_that_were_counted(history: History, prometheus: Prometheus) -> None:
    """Against the sum of the samples themselves, one each 15 s; a last value may count for 90 s."""
    own = 'sum_over_time(model:requests:rate1m{route="envoy"}[1h]) * 15'
    exact = {one.labels["version"]: one.value for one in prometheus.instant(own, now())}
    counted = {name: history.figures["requests"]["m", name, "envoy"] for name in exact}
    assert counted["m"] == pytest.approx(exact["m"], rel=0.04)
    assert exact["m-canary"] <= counted["m-canary"] + 2000
    assert counted["m-canary"] - exact["m-canary"] < 60 * 120
    (tile, failed, slowest, alerts) = next(
        block.tiles for section in page(history).sections for block in section.blocks if hasattr(block, "tiles")
    )
    assert int(tile.value.replace(",", "")) == pytest.approx(180 * 3600, rel=0.2)
    assert failed.tone == "good"
    assert slowest.name == "Highest P99"
    assert (alerts.value, alerts.tone) == ("2", "critical")


def test_weights_are_those_of_the_revisions(history: History) -> None:
    shares = series(history, "Share of requests")
    written = shares["m-canary written"]
    assert (written[0], written[-1]) == (0, 0)
    changes = [value for value, before in zip(written[1:], written, strict=False) if value != before]
    assert changes == [0.1, 0.25, 0]
    assert shares["m written"][60] == pytest.approx(1 - (written[60] or 0))
    counted = shares["m-canary counted"]
    assert counted[90] == pytest.approx(0.25, abs=0.01)


def test_several_candidates_have_their_shares(prometheus: Prometheus) -> None:
    several = revision(2, CAME, 10)
    (component,) = several["spec"]["application"]["spec"]["components"]
    candidates = [{"name": "b", "weight": 10}, {"name": "c", "weight": 20}]
    component["traits"][0]["properties"] = {"candidates": candidates}
    known = {**objects(), "applicationrevisions": [several, revision(3, BACK, None)]}
    found = gather(Objects(known), prometheus, Wanted("team", "shop"), period("1h", now()))
    assert found.revisions[0].weights == {"m": {"m-canary-b": 10, "m-canary-c": 20}}
    written = {name: set(found.written("m", name)) - {None} for name in ("m", "m-canary-b", "m-canary-c", "m-canary")}
    assert written == {"m": {0.7, 1.0}, "m-canary-b": {0.1, 0.0}, "m-canary-c": {0.2, 0.0}, "m-canary": set()}
    said = str(page(found))
    assert "m: 10 % to m-canary-b and 20 % to m-canary-c" in said


@pytest.mark.parametrize(
    ("kind", "data"), [("zstd", "KLUv"), ("zstd", "!"), ("gzip", "H4sI"), ("gzip", "AAAA"), ("lzma", "")]
)
def test_a_revision_that_can_not_be_read_gives_no_weight(prometheus: Prometheus, kind: str, data: str) -> None:
    packed = revision(2, CAME, 10)
    packed["spec"]["compression"] = {"type": kind, "data": data}
    found = gather(
        Objects({**objects(), "applicationrevisions": [packed]}),
        prometheus,
        Wanted("team", "shop"),
        period("1h", now()),
    )
    assert found.revisions[0].weights is None
    assert set(series(found, "Share of requests")["m-canary written"]) == {None}


def test_alerts_and_events_are_the_applications_own(history: History) -> None:
    assert [(one.name, one.whose) for one in history.alerts] == [
        ("ModelErrorBudgetBurnsFast", "m"),
        ("ModelSaturated", "m-canary"),
    ]
    assert history.alerts[0].start == pytest.approx(now() - RANG, abs=30)
    assert [one.reason for one in history.events] == ["Deployed", "Unhealthy", "ByEventTime"]


def test_the_objective_is_a_line(history: History) -> None:
    failed, latency = chart(history, "Failed requests").limit, chart(history, "Latency").limit
    assert failed
    assert latency
    assert failed.value == pytest.approx(0.01)
    assert latency.value == pytest.approx(0.25)


def test_a_mean_is_called_a_mean(prometheus: Prometheus) -> None:
    found = gather(Objects(objects()), prometheus, Wanted("team", "shop", "server"), period("1h", now()))
    drawn = {name for name, values in series(found, "Latency").items() if any(value is not None for value in values)}
    assert drawn == {"m mean"}
    text = page(found).html()
    assert "Highest mean latency" in text
    assert "P99, median" not in text


def test_a_long_while_misses_no_short_thing(prometheus: Prometheus) -> None:
    """A point stands for half an hour, of which the alert took six minutes, and the while ends now."""
    found = gather(Objects(objects()), prometheus, Wanted("team", "shop"), period("2d", now()))
    assert found.period.step == 1800
    assert now() - found.times[-1] < 60
    assert {one.name for one in found.alerts} == {"ModelErrorBudgetBurnsFast", "ModelSaturated"}
    assert max(value or 0 for value in series(found, "Latency")["m-canary P99"]) > 0.28
    short = gather(Objects(objects()), prometheus, Wanted("team", "shop"), period("1h", now()))
    key = ("m", "m-canary", "envoy")
    assert found.figures["requests"][key] == pytest.approx(short.figures["requests"][key], rel=0.05)


def test_an_application_that_is_gone_has_a_report(prometheus: Prometheus) -> None:
    found = gather(Objects({}), prometheus, Wanted("team", "shop"), period("1h", now()))
    assert found.versions("m") == ["m", "m-canary"]
    assert "application shop is not on the cluster any more" in page(found).html()


def test_a_cluster_that_does_not_answer_is_told_on_the_page(prometheus: Prometheus) -> None:
    class Away(Objects):
        def list(
            self, group: str, plural: str, namespace: str | None = None, **parameters: str
        ) -> list[dict[str, Any]]:
            raise ClusterError("the cluster at http://127.0.0.1:1 does not answer: connection refused")

    found = gather(Away({}), prometheus, Wanted("team", "shop"), period("1h", now()))
    assert found.versions("m") == ["m", "m-canary"]
    text = page(found).html()
    assert "the cluster at http://127.0.0.1:1 does not answer" in text
    assert "not on the cluster any more" not in text


def test_an_application_that_nobody_knows(prometheus: Prometheus) -> None:
    with pytest.raises(VelagenError, match="there is no application shp in namespace team") as caught:
        gather(Objects(objects()), prometheus, Wanted("team", "shp"), period("1h", now()))
    assert "did you mean shop?" in str(caught.value)


def test_each_record_is_one_of_the_rules() -> None:
    from velagen.monitoring import history as module
    from velagen.monitoring import models

    written = {rule.content().get("record") for group in recording_rules() for rule in group.rules}
    read = {
        *module._RECORDS,
        *models._BY_ROUTE,
        models._GPU,
        models._INFO,
        *(one for one, _ in module._FIGURES.values()),
    }
    assert read <= written


@pytest.mark.parametrize(
    ("since", "length", "step"),
    [("5m", 300, 15), ("1h", 3600, 30), ("90m", 5400, 60), ("1d", 86_400, 600), ("1w", 604_800, 7200)],
)
def test_a_while(since: str, length: int, step: int) -> None:
    found = period(since, now())
    assert (found.step, found.end - found.start) == (step, length)
    assert 0 <= now() - found.end < 60
    assert len(range(int(found.start), int(found.end) + 1, step)) <= 151


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("0", "is not a duration"), ("0h", "too short"), ("1m", "too short"), ("-1h", "is not a duration"),
        ("1.5h", "is not a duration"), ("yesterday", "is not a duration"), ("", "is not a duration"),
        ("400d", "longer than a year"), ("99999999999h", "is not a duration"),
    ],
)  # fmt: skip
def test_what_is_no_while(since: str, said: str) -> None:
    with pytest.raises(VelagenError, match=said):
        period(since)


def test_a_period_has_no_more_points_than_fit() -> None:
    for length in (300, 4000, 12_345, 366 * 86_400):
        found = Period.until(now(), length)
        assert (found.end - found.start) / found.step <= 151
        assert found.end - found.start >= length


# ---------------------------------------------------------------- the command


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, prometheus: Prometheus) -> None:
    monkeypatch.setattr(cli_top, "connect", lambda *_: (Objects(objects()), prometheus))


@pytest.mark.usefixtures("connected")
def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine", encoding="utf-8")
    done = CliRunner().invoke(main, ["report", "shop", "-o", str(path)])
    assert done.exit_code == 1
    assert "is there already" in done.output
    assert "--overwrite" in done.output
    assert path.read_text(encoding="utf-8") == "mine"
    done = CliRunner().invoke(main, ["report", "shop", "-o", str(path), "--overwrite"])
    assert done.exit_code == 0, done.output
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 200_000


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop", "-o", "{tmp}"], "is a folder"),
        (["shop", "-o", "{tmp}/no/such/report.html"], "/no/such does not exist"),
        (["shop", "-o", "{tmp}/r.html", "--since", "0"], "is not a duration"),
        (["shp", "-o", "{tmp}/r.html"], "did you mean shop?"),
        (["shop"], "Missing option"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["report", *(one.replace("{tmp}", str(tmp_path)) for one in arguments)])
    assert done.exit_code != 0
    assert said in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_without_a_prometheus_there_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_top, "connect", lambda *_: (Objects(objects()), Prometheus("http://127.0.0.1:1")))
    done = CliRunner().invoke(main, ["report", "shop", "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 1
    assert "Prometheus at http://127.0.0.1:1 does not answer: connection refused" in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("connected")
def test_it_may_be_piped() -> None:
    done = CliRunner().invoke(main, ["report", "shop", "-o", "-"])
    assert done.exit_code == 0
    assert done.output.startswith("<!DOCTYPE html>")


@pytest.mark.slow
@pytest.mark.seconds(15)
def test_the_page_in_a_browser_without_a_network(history: History, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(history).html(), encoding="utf-8")
    assert EVIL not in path.read_text(encoding="utf-8")

    async def look(tab: Tab) -> None:
        await tab.open(path)
        assert tab.said == []
        assert tab.asked == [path.as_uri()]
        assert await tab.value("document.title") == "shop - model report"
        drawn = """[...document.querySelectorAll('figure.chart')]
            .filter(one => [...one.querySelectorAll('path.series')].some(line => line.getTotalLength() > 200))
            .map(one => one.querySelector('h3').textContent)"""
        assert await tab.value(drawn) == [
            "Requests a second", "Failed requests", "Latency", "Share of requests", "Replicas", "In the system", "GPUs",
            "Error budget left",
        ]  # fmt: skip
        assert await tab.value("document.querySelectorAll('figure.chart.empty').length") == 0
        # Both versions in each of the first four, and what happened marked in all.
        both = """[...document.querySelectorAll('figure.chart')].slice(0, 4)
            .every(one => one.querySelector('path.c0') && one.querySelector('path.c1'))"""
        assert await tab.value(both)
        assert await tab.value("document.querySelectorAll('.moment.strip').length") == 2 * 8
        assert await tab.value("document.querySelectorAll('.timeline .thing').length") == 3 + 2 + 1 + 2
        rows = "[...document.querySelectorAll('figure.chart tbody')].map(one => one.rows.length)"
        assert set(await tab.value(rows)) == {121}
        pdf = await tab.call("Page.printToPDF", printBackground=True)
        assert len(pdf["data"]) > 10_000

    browse(look)


def test_the_page_has_a_place_for_everything_that_is_missing(tmp_path: Path) -> None:
    """A Prometheus that knows of the application that it is there, and nothing else."""
    known = [("model:info", {"app": "shop", "component": "m", "namespace": "team", "version": "m"}, lambda _: 1.0)]
    with holding(tmp_path, known, back=600) as address:  # type: ignore[arg-type]
        found = gather(Objects(objects()), Prometheus(address), Wanted("team", "shop"), period("1h"))
    text = page(found).html()
    for said in ("Nobody counted requests.", "Nobody tells failed requests apart.", "Nobody measured latency."):
        assert said in text
    assert not re.search(r"<dd>0</dd>", text)
    assert "No alert fired." in text
