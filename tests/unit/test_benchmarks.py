"""The pure parts of benchmarks/serving and benchmarks/startup: figures, schedules, control groups, the page."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchmarks import page
from benchmarks.controller import __main__ as of_controller
from benchmarks.gpu import __main__ as on_gpu
from benchmarks.serving import __main__ as serving
from benchmarks.serving import cgroups, load, report, sides
from benchmarks.startup import __main__ as startup
from benchmarks.startup.moments import PHASES, moments_of, phases

from velagen.errors import VelagenError

# -- percentiles and schedules


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert load.percentile(values, 0.99) == 99
    assert load.percentile(reversed(values), 0.5) == 50
    assert load.percentile([7.0], 0.01) == 7
    assert load.percentile([1.0, 2.0], 1) == 2


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.1)])
def test_no_percentile_of_nothing(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        load.percentile(values, share)


def test_a_failed_request_is_the_slowest() -> None:
    measured = load.Measured(latencies=[1.0] * 98, failures={"status 503": 2})
    assert measured.percentile(0.5) == 1
    assert measured.percentile(0.99) == math.inf


def test_arrivals_are_the_same_for_both_sides_and_have_the_rate() -> None:
    moments = load.arrivals(50, 200, seed=3)
    assert moments == load.arrivals(50, 200, seed=3)
    assert moments != load.arrivals(50, 200, seed=4)
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] < 200
    # A Poisson process: 10000 expected, a standard deviation of 100; the gaps are as wide as their mean.
    assert abs(len(moments) - 10_000) < 500
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.1)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sends nothing"):
        load.arrivals(0, 1)


# -- the client, against a server whose answers take a known time


class Slow(BaseHTTPRequestHandler):
    """Answers one request at a time, each in 20 ms; every tenth body says no."""

    protocol_version = "HTTP/1.1"
    turn = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.turn:
            time.sleep(0.02)
        self.send_response(503 if body == b"no" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def slow() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_closed_loop_measures_what_the_server_gives(slow: str) -> None:
    readings = iter([{"side": 1.0}, {"side": 1.5}])
    found = load.summary(load.closed(slow, [b"{}"], concurrency=4, warm=0.3, seconds=1.0, meter=lambda: next(readings)))
    # At most 50 a second; a busy machine is slower.
    assert 15 < found["qps"] <= 52
    # Four wait for one that serves.
    assert found["p50"] == pytest.approx(4 / found["qps"] * 1000, rel=0.4)
    assert found["used"] == {"side": 0.5}
    assert found["failures"] == {}
    assert abs(found["answered"] - found["requests"]) < 5


def test_the_open_loop_counts_from_the_moment_a_request_was_meant_for(slow: str) -> None:
    # Twenty at once to a server that takes 20 ms each: the last has waited for all the others.
    found = load.summary(load.opened(slow, [b"{}"], moments=[0.2] * 20, warm=0.1, meter=load.nothing))
    assert found["requests"] == 20
    assert found["p99"] >= 380
    assert found["p50"] < found["p99"]


def test_requests_before_the_measured_seconds_are_left_out(slow: str) -> None:
    moments = [0.0, 0.05, 0.3, 0.35]
    assert load.summary(load.opened(slow, [b"{}"], moments=moments, warm=0.2, meter=load.nothing))["requests"] == 2


def test_what_fails_is_counted_by_reason(slow: str) -> None:
    found = load.summary(load.opened(slow, [b"{}", b"no"], moments=[0.1] * 4, warm=0.0, meter=load.nothing))
    assert found["failures"] == {"status 503": 2}
    assert found["p99"] == math.inf


def test_a_server_that_is_not_there_fails_and_ends() -> None:
    found = load.closed("http://127.0.0.1:9", [b"{}"], concurrency=2, warm=0.0, seconds=0.3, meter=load.nothing)
    assert not found.latencies
    assert found.failures.keys() == {"ClientConnectorError"}


# -- control groups

V1_MOUNTS = """\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
ID = "44f057e58039a226126db14d60e5ee96369992e20338a0ac179d5b21a0e9105f"
V1_GROUPS = f"""\
3:cpuset:/docker/{ID}
2:cpu,cpuacct:/docker/{ID}/init.scope
0::/docker/{ID}/init.scope
"""
V2_MOUNTS = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
V2_GROUPS = f"0::/system.slice/docker-{ID}.scope/init.scope\n"


def test_a_nodes_groups_in_version_1() -> None:
    mounted, grouped = cgroups.mounts(V1_MOUNTS), cgroups.groups(V1_GROUPS)
    found = cgroups.of_container("cpuacct", mounted, grouped, ID)
    assert found == Path(f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}")
    assert cgroups.of_container("cpuset", mounted, grouped, ID) == Path(f"/sys/fs/cgroup/cpuset/docker/{ID}")


def test_a_nodes_groups_in_version_2() -> None:
    mounted, grouped = cgroups.mounts(V2_MOUNTS), cgroups.groups(V2_GROUPS)
    for controller in ("cpuacct", "cpuset"):
        found = cgroups.of_container(controller, mounted, grouped, ID)
        assert found == Path(f"/sys/fs/cgroup/system.slice/docker-{ID}.scope")


def test_a_node_that_is_elsewhere_is_said_so() -> None:
    with pytest.raises(VelagenError, match="is not on this machine"):
        cgroups.of_container("cpuacct", cgroups.mounts(V2_MOUNTS), cgroups.groups("0::/user.slice\n"), ID)


UID = "50d9ded6-ca95-4d60-a8af-237095474219"


@pytest.mark.parametrize(
    "path",
    [
        f"kubelet/kubepods/burstable/pod{UID}",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable-pod{UID.replace('-', '_')}.slice",
    ],
)
def test_a_pods_group_by_either_name(tmp_path: Path, path: str) -> None:
    (tmp_path / path / "container").mkdir(parents=True)
    (tmp_path / "kubelet/kubepods/burstable/podother").mkdir(parents=True)
    assert cgroups.of_pod(tmp_path, UID) == tmp_path / path
    with pytest.raises(VelagenError, match="no control group of pod"):
        cgroups.of_pod(tmp_path, UID[:-1] + "0")


def test_processor_seconds_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n")
    assert cgroups.seconds(tmp_path) == 2.5
    (tmp_path / "cpuacct.usage").write_text("1500000000\n")
    assert cgroups.seconds(tmp_path) == 1.5


def test_every_container_of_a_pod_is_pinned(tmp_path: Path) -> None:
    for name in ("pause", "server"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpuset.cpus").write_text("0-1")
        (tmp_path / name / "cgroup.procs").write_text("12\n13\n" if name == "server" else "11\n")
    cgroups.pin(tmp_path, 1)
    assert {(tmp_path / name / "cpuset.cpus").read_text() for name in ("pause", "server")} == {"1"}
    assert sorted(cgroups.processes(tmp_path)) == [11, 12, 13]


def test_what_a_core_did() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 100 20 30 4000 50 6 4 8 0 0\n"
    assert cgroups.core(1, text, 100) == cgroups.Core(1.6, 0.08)


# -- the page


def test_only_what_is_between_the_comments_changes() -> None:
    text = "# Title\n\n<!-- serving: by a command -->\nold\n<!-- serving ends -->\n\nmore\n"
    found = page.replaced(text, "serving", "new\n")
    assert found == "# Title\n\n<!-- serving: by a command -->\nnew\n<!-- serving ends -->\n\nmore\n"
    assert page.replaced(found, "serving", "new") == found


@pytest.mark.parametrize(
    "text", ["", "<!-- a: x -->", "<!-- a ends --><!-- a: x -->", "<!-- a: x --><!-- a: x --><!-- a ends -->"]
)
def test_a_page_without_a_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the page needs"):
        page.replaced(text, "a", "new")


def test_the_page_has_a_place_for_both() -> None:
    text = page.PAGE.read_text()
    for name in ("serving", "tuning", "startup"):
        assert f"-->\nfresh\n<!-- {name} ends -->" in page.replaced(text, name, "fresh")


def test_a_spread_is_the_median_with_its_ends() -> None:
    assert page.Spread.of([3.0, 1.0, 2.0]).text(1) == "2.0 (1.0 to 3.0)"
    assert page.Spread.of([0.4712]).text() == "0.47"
    assert page.Spread.of([1234.5]).text() == "1234"
    assert page.Spread.of([math.inf]).text() == "no answer"
    with pytest.raises(ValueError, match="no measurement"):
        page.Spread.of([])


def test_ratios_are_of_the_same_round() -> None:
    assert page.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="rounds"):
        page.ratios([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="measured nothing"):
        page.ratios([1.0], [0.0])


def test_a_table() -> None:
    assert page.table(["", "a"], [["b", "1"]]) == "|  | a |\n| :--- | ---: |\n| b | 1 |"


# -- the report


def run(side: str, number: int, share: float | None, qps: float, p99: float) -> dict[str, Any]:
    used = {"side": 9.0, "idle": 0.1, "client": 2.0, "core": 9.5, "steal": 0.0}
    return {
        "side": side,
        "round": number,
        "share": share,
        "qps": qps,
        "p50": p99 / 2,
        "p99": p99,
        "requests": int(qps * 10),
        "answered": int(qps * 10),
        "failures": {},
        "late": 0.5,
        "batch": 7.5,
        "seconds": 10.0,
        "used": used,
    }


def results(factor: float, p99: float = 100.0) -> dict[str, Any]:
    """Two rounds in which the addon answers `factor` times as many; written down out of order."""
    runs = [
        run("addon", 1, None, 110 * factor, 200 / factor),
        run("flask", 0, None, 100, 200),
        run("addon", 0, None, 100 * factor, 200 / factor),
        run("flask", 1, None, 110, 200),
    ]
    runs += [run(side, number, 1.0, 100, 400 if side == "flask" else p99) for number in (0, 1) for side in report.SIDES]
    model = {
        "runs": runs,
        "top": 105.0,
        "batching": {"preferredBatchSizes": [4, 8]},
        "gunicorn": ["--workers=1"],
        "tried": {"--workers=1": 100.0, "--workers=2": 90.0},
        "batches": {"ONNX Runtime": {"1": 10.0, "8": 2.0}},
    }
    settings = {"rounds": 2, "seconds": 10.0, "concurrency": 32}
    return {"settings": settings, "machine": "M", "versions": "V", "models": {"matrix": model}}


def test_rounds_are_paired_whatever_order_they_were_measured_in() -> None:
    runs = results(2.0)["models"]["matrix"]["runs"]
    assert report.values(runs, "addon", "qps") == [200, 220]
    found = report.ratio(runs, "qps")
    assert found == page.Spread(2.0, 2.0, 2.0)
    assert report.ratio(runs, "cpu") == page.Spread(0.5, 0.5, 0.5)


def test_goals_that_are_met_and_missed_are_said() -> None:
    good = report.verdict(results(2.0)["models"]["matrix"])
    assert "Not met" not in good
    assert "at least 1.75 times the requests (2.00)" in good
    slow = report.verdict(results(1.5, p99=300)["models"]["matrix"])
    assert "Not met: at least 1.75 times the requests (1.50)" in slow
    assert "gains nothing" not in slow


def test_a_model_that_gains_nothing_is_said_so() -> None:
    assert "gains nothing from batches" in report.verdict(results(1.05)["models"]["matrix"])


def test_a_round_without_answers_has_no_ratio() -> None:
    found = results(2.0)
    found["models"]["matrix"]["runs"][0]["p99"] = math.inf
    assert report.ratio(found["models"]["matrix"]["runs"], "p99") is None
    assert "no answer" in report.block(found)


def test_the_block_has_every_measure_and_the_conditions() -> None:
    text = report.block(results(2.0))
    for wanted in (
        "requests a second | 105 (100 to 110) | 210 (200 to 220) | 2.00 |",
        "open loop at 100% of Flask's top rate (105 a second): P99, ms | 400 | 100 | 0.25 |",
        "the client used 20% of its core",
        "`--workers=2` 90.0",
        "to a batch, on average: 7.5 in the closed loop, 7.5 at 100%.",
        "|  | 1 | 8 |",
        "| ONNX Runtime | 10.0 | 2.0 |",
    ):
        assert wanted in text


def test_each_setting_that_was_tried_has_a_line() -> None:
    runs = [run("addon", number, share, 300 - 100 * number, 50) for number in (0, 1) for share in (None, 0.5)]
    tried = [{"instances": 1, "batching": {"preferredBatchSizes": [4]}}, {"instances": 2, "batching": {}}]
    found = results(1.0)
    found["models"]["matrix"] = {"runs": runs, "top": 300.0, "tunings": tried}
    text = report.tunings(found)
    assert "at 150 a second: P50, ms" in text
    assert "| preferredBatchSizes [4]; instances 1 | 300.0 | 50.0 | 3.0 | 25.0 | 50.0 | 3.0 |" in text
    assert "| ; instances 2 | 200.0 |" in text


def test_the_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for name in ("one.png", "two.png"):
        report.plot(results(2.0), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


# -- the run


def test_rounds_alternate() -> None:
    assert [serving.order(number) for number in range(3)] == [
        ("flask", "addon"),
        ("addon", "flask"),
        ("flask", "addon"),
    ]


def test_a_broken_run_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = {"rounds": 1, "models": ["matrix"]}
    first = serving.Results(tmp_path, settings, resume=False)
    first.data["models"]["matrix"] = {"runs": [1]}
    first.save()
    assert serving.Results(tmp_path, settings, resume=True).data["models"]["matrix"] == {"runs": [1]}
    other = {**settings, "models": ["sentence"]}
    assert serving.Results(tmp_path, other, resume=True).data["models"] == {"matrix": {"runs": [1]}}
    assert serving.Results(tmp_path, settings, resume=False).data["models"] == {}
    with pytest.raises(VelagenError, match="other settings"):
        serving.Results(tmp_path, {**settings, "rounds": 2}, resume=True)
    with pytest.raises(VelagenError, match="nothing can be resumed"):
        serving.Results(tmp_path / "new", settings, resume=True)


@pytest.mark.parametrize("name", list(sides.MODELS))
def test_bodies_are_the_same_in_every_run_and_small(name: str) -> None:
    found = sides.bodies(name)
    assert found == sides.bodies(name)
    assert len(set(found)) == sides.BODIES
    assert max(map(len, found)) < 1024
    for tensor in json.loads(found[0])["inputs"]:
        assert math.prod(tensor["shape"]) == len(tensor["data"])


def test_both_sides_have_the_same_limits_and_environment() -> None:
    model = sides.MODELS["matrix"]
    properties = sides.application(model, "n", "s3://x", {})["spec"]["components"][0]["properties"]
    _, deployment = sides.flask(model, "n", "s3://x", ("--workers=1",), {"image": "loader"})
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["resources"] == properties["resources"]
    assert all(entry in server["env"] for entry in properties["env"])
    assert pod["initContainers"][0]["args"][0] == properties["modelUri"]


def test_what_triton_counts_is_summed_over_its_models() -> None:
    metrics = (
        '# HELP nv_inference_count x\nnv_inference_count{model="a",version="1"} 40\n'
        'nv_inference_count{model="b",version="1"} 2\nnv_inference_exec_count{model="a",version="1"} 5\n'
    )
    assert sides.counted(metrics) == (42, 5)


# -- startup


def test_a_pod_shows_the_moments_that_are_past() -> None:
    pod: dict[str, Any] = {"kind": "Pod", "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}
    assert moments_of(pod) == {"pod", "scheduled"}
    pod["status"]["conditions"].append({"type": "Initialized", "status": "True"})
    pod["status"]["containerStatuses"] = [{"state": {"waiting": {}}}]
    assert moments_of(pod) == {"pod", "scheduled", "loaded"}
    pod["status"]["containerStatuses"] = [{"state": {"running": {}}}]
    pod["status"]["conditions"].append({"type": "Ready", "status": "True"})
    assert moments_of(pod) == {"pod", "scheduled", "loaded", "started", "ready"}
    assert moments_of({"kind": "InferenceService"}) == {"created"}


def test_phases_sum_to_the_whole() -> None:
    moments = {name: 1.0 + number for number, name in enumerate(PHASES)}
    found = phases({**moments, "returned": 1.5})
    assert list(found) == list(PHASES)
    assert sum(found.values()) == moments["answered"]


def test_a_phase_that_did_not_come_is_part_of_the_next() -> None:
    assert phases({"created": 0.3, "pod": 0.5, "answered": 2.0}) == {
        "created": 0.3,
        "pod": pytest.approx(0.2),
        "answered": 1.5,
    }
    # Two watches: one may be a little behind the other.
    assert phases({"created": 0.3, "pod": 0.28, "answered": 1.3}) == {"created": 0.3, "pod": 0.0, "answered": 1.0}
    with pytest.raises(ValueError, match="before what it follows"):
        phases({"created": 2.0, "pod": 1.0})


def test_an_inference_service_without_what_the_cluster_noted() -> None:
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "1",
            "ownerReferences": [],
            "labels": {"app.oam.dev/name": "a", "team": "x"},
            "annotations": {"serving.kserve.io/deploymentMode": "Standard", "app.oam.dev/last-applied": "{}"},
        },
        "spec": {"predictor": {}},
        "status": {},
    }
    assert startup.plain(service) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "labels": {"team": "x"},
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {}},
    }


def test_the_overhead_is_paired_by_round() -> None:
    base = {"created": 0.2, "pod": 0.4, "scheduled": 0.5, "loaded": 3.0, "started": 3.5, "ready": 9.0, "answered": 10.0}
    ours = {**{name: moment + 0.5 for name, moment in base.items()}, "admitted": 0.3}
    text = startup.block({"vela up": [{**ours, "returned": 0.6}] * 2, "kubectl apply": [{**base, "returned": 0.3}] * 2})
    assert "1.05 times as long" in text
    assert "a difference of 0.50 s" in text
    assert "less than 10% more: met" in text


def test_the_controllers_block_says_ratios_and_whether_the_goal_is_met() -> None:
    found = {
        "webservice": [
            of_controller.Cost(100, 105, 4, 0.5, 10, 40, 200),
            of_controller.Cost(110, 115, 4, 0.5, 10, 40, 200),
        ],
        "bare-model": [
            of_controller.Cost(105, 115, 5, 1, 10, 40, 200),
            of_controller.Cost(110, 115, 5, 1, 10, 40, 200),
        ],
        "kfserving": [of_controller.Cost(110, 126, 5, 1, 20, 40, 210), of_controller.Cost(121, 138, 5, 1, 20, 40, 210)],
    }
    text = of_controller.block(found, 100, "1.11.0")
    made = ["105.0 (100.0 to 110.0)", "107.5 (105.0 to 110.0)", "115.5 (110.0 to 121.0)", "1.02 (1.00 to 1.05)", "1.10"]
    assert f"| made | {' | '.join(made)} |" in text
    assert "made 1.10, met; looked at again 2.00, not met" in text


def test_a_lab_that_fills_up_is_said_step_by_step() -> None:
    grown = [of_controller.Growth(250, 300, 4, 30, 200), of_controller.Growth(1000, 330, 4.24, 33, 275)]
    text = of_controller.growth_block(grown, 1000, "1.11.0")
    assert "| 1000 | 330.0 | 4.2 | 33.0 | 275 |" in text
    assert "From 250 to 1000 applications: 1.10 times" in text
    assert "100 kB more memory for each" in text
    assert "did not end" not in text
    assert "The step to 1250 applications did not end in time." in of_controller.growth_block(grown, 1250, "1.11.0")


# ---------------------------------------------------------------- two models on one card


def test_two_models_are_measured_beside_one_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_gpu.main(["--workload", "cpu", "--seconds", "0.3", "--size", "512"]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| alone", "1"],
        ["| time-slicing", "1"],
        ["| time-slicing", "2"],
    ]


def test_the_table_says_what_is_left_beside_a_neighbour() -> None:
    alone, half = on_gpu.Figures(100, 1.0, 10, 12), on_gpu.Figures(40, 1.0, 24, 30)
    lines = list(on_gpu.lines_of({"alone": [alone], "mps": [half, half]}))
    assert lines[-1] == "| mps | 2 | 40.0 | 24.00 | 30.00 | 0.40 | 2.50 | 0.80 |"


def test_what_the_machine_lacks_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert on_gpu.main([]) == 2
    assert "this needs an NVIDIA GPU and its driver" in capsys.readouterr().err
