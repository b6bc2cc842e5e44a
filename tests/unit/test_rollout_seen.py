"""What `velagen rollout` shows: the state that the step stores, in words, on a terminal, as JSON and on a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from tests.unit.browser import Tab, browse
from tests.unit.prometheus_server import Series, holding

from velagen.cli import main
from velagen.cli import rollout as cli_rollout
from velagen.monitoring.cluster import Cluster, ClusterError
from velagen.monitoring.models import Wanted
from velagen.monitoring.prometheus import Prometheus
from velagen.rollout import transitions
from velagen.rollout.look import look
from velagen.rollout.page import gather, page
from velagen.rollout.screen import Screen, way
from velagen.rollout.state import IN_WORDS, read

NOW = float(int(time.time()))
EVIL = "<script>document.title='ran'</script>"
SETTINGS = {
    "steps": [10, 50],
    "interval": 30,
    "checks": 1,
    "failureLimit": 2,
    "warmUp": 0,
    "settle": 5,
    "deadline": 600,
}


def line(ago: float, row: str, phase: str, weight: int, check: str = "none", why: str = "", **more: Any) -> str:
    """As the step writes it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - ago))
    found = {"at": at, "row": row, "revision": "shop-v2", "phase": phase, "step": more.pop("step", 0)}
    return json.dumps({**found, "weight": weight, "check": check, "why": why, **more})


def numbers(ratio: str) -> dict[str, Any]:
    bound = {"name": "success ratio", "value": ratio, "unit": "", "limit": 0.99, "atMost": False}
    return {"requests": "500", "bounds": [bound]}


BEGUN = [
    line(900, "deployed anew", "deploy", 0),
    line(400, "begun", "prepare", 0),
    line(360, "ready", "warm", 0),
    line(350, "warm", "step", 10),
]
REASON = f"success ratio 0.93 < 0.99 in 2 checks at 50 % {EVIL}"
BACK = [
    *BEGUN,
    line(300, "step passed", "step", 50, "good", step=1, **numbers("1")),
    line(240, "check failed", "step", 50, "bad", "success ratio 0.93 < 0.99", step=1, **numbers("0.93")),
    line(180, "failed", "failed", 0, "bad", REASON, step=1, **numbers("0.93")),
]


def config_map(history: list[str], settings: Any = None, **state: Any) -> dict[str, Any]:
    data = {
        "state": json.dumps({"version": 1, **state}),
        "settings": json.dumps(settings or SETTINGS),
        "history": "\n".join(history),
        "revision": "shop-v2",
    }
    labels = {"rollout.velagen/component": "m"}
    return {"metadata": {"name": "m-rollout", "namespace": "team", "labels": labels}, "data": data}


class Objects(Cluster):
    """Objects as an API server gives them."""

    def __init__(self, states: dict[str, Any], *, step: bool = True, **workflow: Any) -> None:
        self.namespace = "team"
        own = {"name": "rollout", "type": "rollout-model", "properties": {"component": "m"}}
        message = workflow.pop("message", "")
        status = {"steps": [{"name": "rollout", "phase": "running", "message": message}], **workflow}
        app = {
            "metadata": {"name": "shop", "namespace": "team"},
            "spec": {"components": [], "workflow": {"steps": [own] if step else []}},
            "status": {"workflow": status},
        }
        labels = {"app.oam.dev/name": "shop"}
        self._objects: dict[str, list[dict[str, Any]]] = {
            "applications": [app],
            "configmaps": list(states.values()),
            "inferenceservices": [
                {
                    "metadata": {
                        "name": name,
                        "namespace": "team",
                        "labels": {**labels, "app.oam.dev/component": name},
                    },
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                }
                for name in ("m", "m-canary")
            ],
            "events": [
                {
                    "metadata": {},
                    "involvedObject": {"kind": "Application", "name": "shop"},
                    "lastTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - 180)),
                    "reason": "RolledBack",
                    "message": f"rolled back {EVIL}",
                    "type": "Warning",
                }
            ],
        }

    def list(self, group: str, plural: str, namespace: str | None = None, **parameters: str) -> list[dict[str, Any]]:
        return self._objects.get(plural, [])

    def get(self, path: str, **parameters: str) -> dict[str, Any] | None:
        plural, _, name = path.rpartition("/")
        return next(
            (one for one in self._objects.get(plural.rpartition("/")[2], []) if one["metadata"]["name"] == name), None
        )


def in_words(objects: Objects, width: int = 100) -> str:
    seen = look(objects, Prometheus("http://127.0.0.1:1"), Wanted("team", "shop"))
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115  # thrown away
    console.print(Screen(seen))
    return " ".join(console.export_text().split())


@pytest.mark.parametrize(
    ("states", "workflow", "words"),
    [
        ([], {"message": "route.hosts is missing"}, ["route.hosts is missing", "not begun"]),
        (BEGUN[:1], {"phase": "deploy"}, ["m is being deployed, as it is"]),
        (BEGUN[:2], {"phase": "prepare", "message": "m-canary is getting ready: BackOff"}, ["ready: BackOff"]),
        (
            BEGUN,
            {"phase": "step"},
            [
                "10 % of the traffic goes to m-canary, step 1 of 2: 0 of 1 checks passed, 0 of 2 failed",
                "a check is due",
            ],
        ),
        (
            [*BEGUN, line(10, "no verdict", "step", 10, "inconclusive", "7 of the 50 requests")],
            {"phase": "step", "silent": 3, "held": 90},
            ["3 checks in a row gave no verdict, for 2 min: 7 of the 50 requests", "after 10 min it goes back"],
        ),
        (BEGUN, {"phase": "step", "suspend": True}, ["suspended: the weights stay until vela workflow resume shop"]),
        (
            BEGUN,
            {"phase": "step", "finished": True, "status": "terminated"},
            ["the workflow is terminated, and nothing goes on by itself: vela workflow restart shop -n team"],
        ),
        (
            BACK,
            {"phase": "failed", "reason": "success ratio 0.93 < 0.99 in 2 checks at 50 %", "finished": True},
            [
                "rolled back: success ratio 0.93 < 0.99 in 2 checks at 50 %",
                "m serves the version from before",
                "prepare > warm > 10 % > 50 % > promote > done > rolled back",
                "m 100 %",
                "50 % bad 500 success ratio 0.93 (at least 0.99)",
            ],
        ),
        (BEGUN, {"phase": "done"}, ["m is deployed and has all traffic"]),
        (BEGUN, {"phase": "later"}, ["the phase later is not known to this velagen"]),
    ],
    ids=lambda value: value.get("phase", "none") if isinstance(value, dict) else None,
)
def test_how_things_stand_is_said_in_words(states: list[str], workflow: dict[str, Any], words: list[str]) -> None:
    state = {name: workflow.pop(name) for name in ("phase", "reason", "silent", "held") if name in workflow}
    maps = {"m": config_map(states, **state)} if states else {}
    said = in_words(Objects(maps, **workflow))
    for one in words:
        assert one in said
    assert "127.0.0.1:1 does not answer" in said


def test_each_row_and_each_phase_of_the_table_has_words() -> None:
    names = {row.name for row in transitions.table(transitions.state, transitions.seen, transitions.rules)}
    assert names == {*IN_WORDS}
    for phase in transitions.PHASES:
        said = in_words(Objects({"m": config_map(BEGUN, phase=phase, reason="why")}))
        assert "not known to this velagen" not in said
        assert "vela workflow resume shop -n team" in said or phase != "pause"


def test_narrow_terminals_cut_nothing_that_is_said() -> None:
    objects = Objects({"m": config_map(BACK, phase="failed", reason="success ratio 0.93 < 0.99 in 2 checks at 50 %")})
    assert "in 2 checks at 50 %" in in_words(objects, width=40)


@pytest.mark.parametrize(
    "data",
    [
        {"state": "{", "history": "no json\n{}\n[]\n" + BEGUN[0], "settings": "[]"},
        {"state": "null", "history": '{"row": 1, "phase": null, "bounds": [{}]}'},
        {"state": json.dumps({"phase": 3, "step": "x", "failed": 1e300}), "settings": json.dumps({"steps": ["a", 10]})},
        {},
    ],
)
def test_a_state_that_somebody_edited_is_read_as_far_as_it_goes(data: dict[str, str]) -> None:
    found = read("m", {"data": data})
    assert found.weight == 0
    assert way(found).plain
    objects = Objects({"m": {**config_map([]), "data": data}})
    assert "m" in in_words(objects)
    if "history" in data:
        assert "can't be read in full" in in_words(objects)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The command over these objects; without a Prometheus."""

    def call(objects: Objects, *arguments: str) -> tuple[int, str]:
        prometheus = Prometheus("http://127.0.0.1:1")
        monkeypatch.setattr(cli_rollout, "connect", lambda *_: (objects, prometheus))
        done = CliRunner().invoke(main, ["rollout", *arguments])
        return done.exit_code, done.output

    return call


def test_what_is_not_there_is_said_in_a_sentence(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = run(Objects({}), "status", "shoq")
    assert code == 1
    assert "there is no application shoq in namespace team" in said
    assert "did you mean shop?" in said
    code, said = run(Objects({}, step=False), "status", "shop")
    assert code == 1
    assert "has no rollout: no step of its workflow is of type rollout-model" in said
    code, said = run(Objects({}), "report", "shop", "-o", str(tmp_path / "r.html"))
    assert code == 1
    assert "nothing has happened yet in the rollout of m" in said
    code, said = run(Objects({}), "report", "shop", "-o", str(tmp_path))
    assert code == 1
    assert "is a folder" in said
    code, said = run(Objects({}), "status", "shop", "--watch", "-o", "json")
    assert code == 1
    assert "write one of both" in said


def test_watched_by_a_pipeline_each_thing_that_happens_is_a_line(run: Callable[..., tuple[int, str]]) -> None:
    back = Objects({"m": config_map(BACK, phase="failed", reason=REASON)})
    code, said = run(back, "status", "shop", "--watch")
    assert code == 1, "it went back"
    assert said.index("a new version is brought in, 0 %") < said.index("a check failed, 50 % to m-canary")
    assert said.count("a check failed") == 1
    code, said = run(Objects({"m": config_map(BEGUN, phase="done")}), "status", "shop", "--watch")
    assert code == 0


def test_for_scripts(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run(Objects({"m": config_map(BACK, phase="failed", reason=REASON)}), "status", "shop", "-o", "json")
    assert code == 0
    (found,) = json.loads(said)["rollouts"]
    assert (found["phase"], found["ended"], found["weightPercent"], found["reason"]) == ("failed", True, 0, REASON)
    assert [one["verdict"] for one in found["history"]] == [None, None, None, "good", "bad", "bad"]
    assert found["history"][-1]["bounds"] == [{"name": "success ratio", "value": "0.93", "unit": None, "atLeast": 0.99}]
    assert {one["version"] for one in found["versions"]} == {"m", "m-canary"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    def of(version: str) -> dict[str, str]:
        return {"namespace": "team", "version": version, "component": version, "app": "shop", "route": "envoy"}

    def during(ago: float) -> float | None:
        return 5.0 if 180 <= ago <= 350 else None

    series: list[Series] = [
        ("model:requests:rate1m", of("m"), lambda ago: 50.0),
        ("model:requests:rate1m", of("m-canary"), during),
        ("model:errors:ratio5m", of("m"), lambda ago: 0.0),
        ("model:errors:ratio5m", of("m-canary"), lambda ago: 0.07 if during(ago) else None),
        ("model:latency_seconds:p99", of("m"), lambda ago: 0.05),
        ("model:latency_seconds:p99", of("m-canary"), lambda ago: 0.06 if during(ago) else None),
    ]
    with holding(tmp_path_factory.mktemp("prometheus"), series, back=1800, now=NOW) as address:
        yield Prometheus(address)


@pytest.mark.slow
@pytest.mark.seconds(15)
def test_the_page_in_a_browser_without_a_network(prometheus: Prometheus, tmp_path: Path) -> None:
    objects = Objects({"m": config_map(BACK, phase="failed", reason=REASON)})
    seen = look(objects, prometheus, Wanted("team", "shop"))
    path = tmp_path / "report.html"
    path.write_text(page(gather(objects, prometheus, seen), seen).html(), encoding="utf-8")
    assert EVIL not in path.read_text(encoding="utf-8")

    async def look_at(tab: Tab) -> None:
        await tab.open(path)
        assert tab.said == []
        assert tab.asked == [path.as_uri()]
        assert await tab.value("document.title") == "shop - rollout report"
        drawn = """[...document.querySelectorAll('figure.chart')]
            .filter(one => [...one.querySelectorAll('path.series')].some(line => line.getTotalLength() > 100))
            .map(one => one.querySelector('h3').textContent)"""
        titles = ["Share of the traffic", "Requests a second", "Failed requests", "Latency, P99"]
        assert await tab.value(drawn) == titles
        both = """[...document.querySelectorAll('figure.chart')]
            .every(one => one.querySelector('path.c0') && one.querySelector('path.c1'))"""
        assert await tab.value(both)
        text = await tab.value("document.body.textContent")
        for said in (
            "rolled back",
            "success ratio 0.93 (at least 0.99)",
            "1 passed, 2 failed",
            "RolledBack",
        ):
            assert said in text
        rows = "[...document.querySelectorAll('section.block table')].map(one => one.tBodies[0].rows.length)"
        assert await tab.value(rows) == [3, 6, 1]

    browse(look_at)


def test_without_a_prometheus_the_page_has_what_the_step_wrote() -> None:
    objects = Objects({"m": config_map(BACK, phase="failed", reason="P99 > 300 ms")})
    nobody = Prometheus("http://127.0.0.1:1")
    seen = look(objects, nobody, Wanted("team", "shop"))
    text = page(gather(objects, nobody, seen), seen).html()
    assert "does not answer" in text
    assert "Nothing was measured." in text
    assert "P99 &gt; 300 ms" in text


def test_the_cluster_that_refuses_is_said(run: Callable[..., tuple[int, str]]) -> None:
    class Refusing(Objects):
        def get(self, path: str, **parameters: str) -> dict[str, Any] | None:
            raise ClusterError("the API server refused (403): no right", status=403)

    code, said = run(Refusing({}), "status", "shop")
    assert code == 1
    assert "refused (403)" in said
    assert "Traceback" not in said
