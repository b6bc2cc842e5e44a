"""What a lab knows of its processes and its folder, without starting a control plane."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from rich.console import Console

from velagen.cli import main
from velagen.cli.lab import demo, lab_group, tools_group
from velagen.errors import Problem, VelagenError
from velagen.gpusim.config import parse_config
from velagen.gpusim.inventory import node_gpus
from velagen.gpusim.labels import node_labels
from velagen.kubevela import RELEASES, KubeVela
from velagen.lab import Lab, LabOptions, condition, gpu_node, objects, wait_until
from velagen.lab.certs import Authority, make_key
from velagen.lab.components import COMPONENTS
from velagen.lab.demo import _bring_checkers
from velagen.lab.kind import gpus
from velagen.lab.process import MARK, Process, free_ports, identity, marked, stop
from velagen.lab.state import LabState

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))


def spawn(tmp_path: Path, argv: list[str], mark: str = "test") -> Process:
    process = Process("one", argv, {"PATH": os.environ["PATH"], MARK: mark})
    log = tmp_path / f"{uuid.uuid4().hex}.log"
    process.spawn(log, tmp_path)
    wait_until(lambda: log.read_text() == "up\n", what="the process speaks", timeout=20)
    return process


# -- processes


def test_a_process_is_alive_until_it_is_stopped(tmp_path: Path) -> None:
    process = spawn(tmp_path, SLEEP)
    assert process.alive
    assert process.pid is not None
    assert os.getsid(process.pid) == process.pid, "Ctrl-C in the terminal must not reach it"
    started = time.monotonic()
    stop([process])
    assert not process.alive
    assert time.monotonic() - started < 3


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = spawn(tmp_path, STUBBORN)
    stop([process], patience=0.3)
    assert not process.alive


def test_a_dead_child_is_dead_and_not_a_zombie(tmp_path: Path) -> None:
    process = spawn(tmp_path, SLEEP)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.alive, what="gone", timeout=5)
    assert identity(process.pid) is None


def test_a_pid_that_was_given_away_is_left_alone(tmp_path: Path) -> None:
    stranger = spawn(tmp_path, SLEEP)
    try:
        remembered = Process("one", SLEEP, pid=stranger.pid, identity=f"{stranger.identity}0")
        assert not remembered.alive
        stop([remembered], patience=0)
        assert stranger.alive
    finally:
        stop([stranger], patience=0)


def test_a_process_without_an_identity_is_never_touched() -> None:
    stop([Process("one", [], pid=os.getpid(), identity=None)], patience=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_nobody_wrote_down_is_found_by_its_mark(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = spawn(tmp_path, SLEEP, mark)
    other = spawn(tmp_path, SLEEP, mark + "0")
    try:
        assert [found.pid for found in marked(mark)] == [process.pid]
    finally:
        stop([process, other], patience=0)
    assert marked(mark) == []


def test_ports_are_free_and_different() -> None:
    names = [str(number) for number in range(50)]
    ports = free_ports(names)
    assert len(set(ports.values())) == len(names)
    with socket.socket() as taken:
        taken.bind(("", ports["0"]))


# -- state


def lab_with(tmp_path: Path, *, ready: bool = True, options: LabOptions | None = None) -> tuple[Lab, list[Process]]:
    """A lab whose components are sleeping Python processes."""
    lab = Lab("unit", folder=tmp_path / "lab")
    (lab.folder / "logs").mkdir(parents=True)
    processes = [spawn(tmp_path, SLEEP, "unit-mark"), spawn(tmp_path, SLEEP, "unit-mark")]
    for process, name in zip(processes, COMPONENTS, strict=False):
        process.name = name
    ports = dict.fromkeys(COMPONENTS, 1)
    LabState("unit-mark", options or LabOptions(), ports, processes, ready).write(lab.folder / "state.json")
    return lab, processes


def test_down_stops_what_is_written_down_and_removes_the_folder(tmp_path: Path) -> None:
    lab, processes = lab_with(tmp_path)
    assert [part.state for part in lab.status()] == ["running", "running"], "alive, but they answer nothing"
    assert not lab.running
    assert lab.down() is True
    assert not any(process.alive for process in processes)
    assert not lab.folder.exists()
    assert lab.down() is False


def test_down_after_a_crash_stops_the_rest(tmp_path: Path) -> None:
    lab, processes = lab_with(tmp_path, ready=False)
    stop(processes[:1], patience=0)
    assert [part.state for part in lab.status()] == ["dead", "running"]
    lab.down()
    assert not processes[1].alive


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mark": "x"}', json.dumps({"mark": "x", "options": {"nodez": 1}})])
def test_a_state_nobody_can_read_is_no_state(tmp_path: Path, text: str) -> None:
    lab = Lab("unit", folder=tmp_path / "lab")
    lab._claim()
    (lab.folder / "state.json").write_text(text)
    assert lab.status() == []
    lab.down()
    assert not lab.folder.exists()


# -- the folder: what is in it, and whose that is


def tree(folder: Path) -> dict[str, str]:
    """Each path below a folder with its text, or where it links to."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


THEIRS = {
    "a thesis": {"t": "years"},
    "names that a lab uses too": {"logs/mine.log": "1", "etcd/member": "2", "pki/ca.key": "3", "state.json": "{}"},
    "a state of another program": {"state.json": '{"version": 4, "mark": "x", "resources": []}'},
    "another lab": {"default/state.json": "{}", "default/.velagen": "velagen lab\n"},
}


@pytest.mark.parametrize("files", THEIRS.values(), ids=THEIRS)
@pytest.mark.parametrize("verb", ["up", "up --kind", "down", "down --kind", "demo"])
def test_a_folder_that_is_no_lab_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], verb: str
) -> None:
    # Before anything is fetched or started.
    monkeypatch.setattr("velagen.lab.cluster.install", lambda *_, **__: pytest.fail("tools were fetched"))
    monkeypatch.setattr("velagen.lab.demo.install", lambda *_, **__: pytest.fail("tools were fetched"))
    monkeypatch.setattr("velagen.lab.kind.cluster.tool", lambda *_: pytest.fail("tools were fetched"))
    folder = tmp_path / "p"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = tree(folder)
    monkeypatch.chdir(folder)
    app = tmp_path / "app.yaml"
    app.write_text("kind: Application\nmetadata: {name: a}\n")
    if verb == "demo":
        said = CliRunner().invoke(main, ["demo", "--dir", ".", "--file", str(app), "--addon", str(tmp_path)])
    else:
        said = CliRunner().invoke(main, ["lab", *verb.split(), "--dir", "."])
    if verb.startswith("down"):
        assert (said.exit_code, said.output) == (0, f"{'kind ' * ('--kind' in verb)}lab default was not up\n")
    else:
        assert said.exit_code == 1
        assert "is not empty, and not the folder of a lab" in said.output
        assert sorted(files)[0].partition("/")[0] in said.output
    assert tree(folder) == before
    assert not (tmp_path / ".p.lock").exists(), "nothing is left beside it either"


def test_files_that_somebody_left_in_a_lab_survive_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab, processes = lab_with(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "etcd.log").write_text("not the lab's")
    theirs = {"notes.txt": "n", "models/1/model.pkl": "m", "logs/mine.log": "l", ".hidden": "h"}
    for name, text in theirs.items():
        (lab.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.folder / name).write_text(text)
    for name in ("kubeconfig", "logs/etcd.log", "etcd/member/wal", "pki/ca.key", "home/.kube/cache", "tmp/x"):
        (lab.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.folder / name).write_text("the lab's")
    (lab.folder / "webhook").symlink_to(elsewhere)
    assert lab.down() is True
    assert not any(process.alive for process in processes)
    assert tree(lab.folder) == theirs
    assert (elsewhere / "etcd.log").exists(), "a link is removed, and not what it leads to"
    assert "stays: it still holds .hidden, logs, models, notes.txt" in capsys.readouterr().err.replace("\n", " ")
    assert lab.down() is False
    assert tree(lab.folder) == theirs
    with pytest.raises(VelagenError, match="is not empty, and not the folder of a lab"):
        lab.up()


def test_a_lab_whose_logs_were_moved_away_leaves_them_there(tmp_path: Path) -> None:
    lab = Lab("unit", folder=tmp_path / "lab")
    lab._claim()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "etcd.log").write_text("kept")
    (lab.folder / "logs").symlink_to(tmp_path / "disk")
    lab.down()
    assert not lab.folder.exists()
    assert (tmp_path / "disk" / "etcd.log").read_text() == "kept"


def test_a_lab_from_before_there_were_marks_is_known_by_its_state(tmp_path: Path) -> None:
    lab, processes = lab_with(tmp_path)
    assert not (lab.folder / ".velagen").exists()
    assert lab.down() is True
    assert not any(process.alive for process in processes)
    assert not lab.folder.exists()


@pytest.mark.parametrize(
    ("there", "asked", "hint"), [("kind lab", "lab", "Add --kind"), ("lab", "kind lab", "Leave out")]
)
def test_the_folder_of_a_lab_of_the_other_kind_is_named(tmp_path: Path, there: str, asked: str, hint: str) -> None:
    from velagen.lab.kind import KindLab

    kinds: dict[str, Any] = {"lab": Lab, "kind lab": KindLab}
    kinds[there]("unit", folder=tmp_path / "x")._claim()
    for change in ("up", "down"):
        with pytest.raises(VelagenError, match=f"is the folder of a {there}(.|\n)*{hint}"):
            getattr(kinds[asked]("unit", folder=tmp_path / "x"), change)()
    assert (tmp_path / "x" / ".velagen").read_text() == f"velagen {there}\n"


def test_down_makes_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    assert Lab("unit", folder=tmp_path / "a" / "b").down() is False
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("alive", [True, False])
def test_a_lab_of_an_older_velagen_whose_etcd_is_open_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr("velagen.lab.cluster.install", lambda wanted, reporter: [Path("/bin/true")] * len(wanted))
    lab, processes = lab_with(tmp_path)
    state = LabState.read(lab.folder / "state.json")
    assert state is not None
    state.processes[0].argv = ["etcd", "--listen-client-urls=http://127.0.0.1:1"]
    state.write(lab.folder / "state.json")
    (lab.folder / "etcd").mkdir()
    if not alive:
        stop(processes)
    try:
        with pytest.raises(VelagenError, match=r"answers every local user\n.*velagen lab down --name unit"):
            lab.up()
        assert (lab.folder / "etcd").is_dir(), "nothing is lost unasked"
    finally:
        lab.down()


def test_other_options_are_refused_after_a_restart_of_the_machine_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velagen.lab.cluster.install", lambda wanted, reporter: [Path("/bin/true")] * len(wanted))
    lab, processes = lab_with(tmp_path)
    (lab.folder / "etcd").mkdir()
    stop(processes)
    lab.options = LabOptions(nodes=9)
    with pytest.raises(VelagenError, match=r"other options \(nodes: 2, not 9\)"):
        lab.up()
    assert (lab.folder / "etcd").is_dir()


def test_the_state_is_the_owners_alone_and_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = LabState("m", LabOptions(nodes=5), {"etcd": 1}, [Process("etcd", ["a"], {"b": "c"}, 3, "i")], ready=True)
    state.write(path)
    assert path.stat().st_mode & 0o077 == 0
    assert LabState.read(path) == state


def test_other_options_than_those_it_runs_with_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, processes = lab_with(tmp_path)
    monkeypatch.setattr("velagen.lab.cluster.install", lambda wanted, reporter: [Path("/bin/true")] * len(wanted))
    lab.options = LabOptions(nodes=9)
    try:
        with pytest.raises(VelagenError, match=r"other options \(nodes: 2, not 9\)(\n.*)*velagen lab down --name unit"):
            lab.up()
        assert all(process.alive for process in processes)
    finally:
        lab.down()


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_vela_core_starts_as_its_chart_has_it(release: KubeVela) -> None:
    core = objects.vela_core(release.version)
    assert core.environment == dict(release.environment)
    arguments = core.arguments(metrics_addr="127.0.0.1:1", use_webhook=True, webhook_cert_dir="/A")
    gates = [one.removeprefix("--feature-gates=") for one in arguments if one.startswith("--feature-gates=")]
    assert {"MultiStageComponentApply=true", "EnableCueValidation=false", "PreDispatchDryRun=true"} <= set(gates)
    assert len(gates) == len({gate.partition("=")[0] for gate in gates})
    flags = dict(one.removeprefix("--").split("=", 1) for one in arguments if not one.startswith("--feature-gates="))
    assert (flags["metrics-addr"], flags["use-webhook"], flags["webhook-cert-dir"]) == ("127.0.0.1:1", "true", "/A")
    # Of the chart's values, and neither the program's default (10) nor a template.
    assert flags["definition-revision-limit"] == "2"
    assert ("enable-cue-version-compatibility" in flags) is (release.cue == "0.14.1")
    assert not any("{{" in one for one in arguments)


def test_a_lab_of_before_the_choice_is_known_for_what_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    LabState("m", LabOptions(), {}).write(path)
    data = json.loads(path.read_text())
    assert data["options"].pop("kubevela") == LabOptions().kubevela
    path.write_text(json.dumps(data))
    state = LabState.read(path)
    assert state is not None
    assert state.options.kubevela == "1.10.9"


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "-a", "a/b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(VelagenError, match="is not a valid lab name"):
        Lab(name)


def test_an_unknown_component_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match="Components: etcd, kube-apiserver"):
        Lab("unit", folder=tmp_path).logs("kubelet")


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    lab = Lab("unit", folder=tmp_path / "lab")
    assert lab.logs("etcd") == ""
    lab.log_path("etcd").parent.mkdir(parents=True)
    lab.log_path("etcd").write_text("1\n2\n3\n")
    assert lab.logs("etcd", 2) == "2\n3\n"


# -- certificates


def test_certificates_are_for_loopback_and_keys_are_private(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue(tmp_path / "a.crt", tmp_path / "a.key")
    authority.issue_client("one", tmp_path / "c.crt", tmp_path / "c.key")
    make_key(tmp_path / "sa.key")
    certificate = x509.load_pem_x509_certificate((tmp_path / "a.crt").read_bytes())
    client = x509.load_pem_x509_certificate((tmp_path / "c.crt").read_bytes())
    for signed, usage in ((certificate, "serverAuth"), (client, "clientAuth")):
        signed.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
        usages = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [entry._name for entry in usages] == [usage]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "kubernetes.default.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    for name in ("ca.key", "a.key", "c.key", "sa.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert (tmp_path / "sa.key.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")


# -- objects


def test_a_gpu_node_looks_as_feature_discovery_labels_it() -> None:
    node = gpu_node("n", model="T4", gpus=2)
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "Tesla-T4"
    assert node["metadata"]["labels"]["nvidia.com/mig.capable"] == "false"


def test_a_time_sliced_node_offers_shares() -> None:
    node = gpu_node("n", model="A100-40GB", gpus=2, replicas=4)
    assert node["status"]["allocatable"]["nvidia.com/gpu.shared"] == "8"
    assert "nvidia.com/gpu" not in node["status"]["allocatable"]
    assert node["metadata"]["labels"]["nvidia.com/mig.capable"] == "true"


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("model", ["T4", "V100", "L4", "A100-40GB", "A100-80GB", "H100-80GB"])
def test_a_node_has_the_labels_that_the_gpu_simulator_gives_one(model: str, replicas: int) -> None:
    """Under the configuration that the trait gpu-share is written for."""
    found = gpu_node("n", model=model, gpus=2, replicas=replicas)["metadata"]["labels"]
    config = parse_config(yaml.safe_load(gpus.shared(replicas)))
    simulated = node_labels(node_gpus("n", [f"{model.lower()}x2"]), config)
    ours = {key: value for key, value in found.items() if key.startswith("nvidia.com/") and key in simulated}
    assert len(ours) > 8
    assert ours.items() <= simulated.items()


def test_a_node_without_gpus_and_wrong_nodes() -> None:
    assert not any("nvidia" in key for key in gpu_node("n", gpus=0)["metadata"]["labels"])
    with pytest.raises(VelagenError, match="Known models: T4"):
        gpu_node("n", model="B200")
    with pytest.raises(VelagenError, match="make no node"):
        gpu_node("n", replicas=0)


def test_prose_goes_and_a_property_called_description_stays() -> None:
    schema = {"description": "long", "properties": {"description": {"type": "string", "description": "text"}}}
    assert objects._without_prose(schema) == {"properties": {"description": {"type": "string"}}}


def test_images_are_filled_in_as_kustomize_does() -> None:
    thing: Any = {"containers": [{"image": "a:replace"}, {"image": "b"}, {"image": "host:5000/c:1"}]}
    images = {"a": {"name": "a", "newName": "docker.io/x/a", "newTag": "2"}, "b": {"name": "b", "newTag": "3"}}
    objects._fill_images(thing, images)
    assert [entry["image"] for entry in thing["containers"]] == ["docker.io/x/a:2", "b:3", "host:5000/c:1"]


def test_the_condition_of_an_object() -> None:
    thing = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    assert [condition(thing, "Ready"), condition(thing, "Other"), condition(None, "Ready"), condition({}, "Ready")] == [
        "False",
        "",
        "",
        "",
    ]


# -- commands


@pytest.mark.parametrize(
    ("group", "arguments"),
    [
        (tools_group, []),
        (tools_group, ["list"]),
        (tools_group, ["install"]),
        (tools_group, ["path"]),
        (lab_group, []),
        (lab_group, ["up"]),
        (lab_group, ["status"]),
        (lab_group, ["down"]),
        (lab_group, ["logs"]),
        (lab_group, ["kubeconfig"]),
        (demo, []),
    ],
)
def test_each_command_explains_itself(group: Any, arguments: list[str]) -> None:
    said = CliRunner().invoke(group, [*arguments, "--help"])
    assert said.exit_code == 0
    if arguments or group is demo:
        assert "Example: " in said.output


def test_the_tools_are_listed_with_the_road_they_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = CliRunner().invoke(main, ["tools", "list"])
    assert said.exit_code == 0
    assert "kserve-manager" in said.output
    assert "not here yet" in said.output


def test_a_lab_that_is_not_up_says_how_to_start_it(tmp_path: Path) -> None:
    where = ["--dir", str(tmp_path / "nothing")]
    said = CliRunner().invoke(main, ["lab", "status", *where])
    assert (said.exit_code, said.output) == (1, "lab default is not up\n")
    assert CliRunner().invoke(main, ["lab", "down", *where]).output == "lab default was not up\n"
    said = CliRunner().invoke(main, ["lab", "kubeconfig", *where])
    assert said.exit_code == 1
    assert "velagen lab up" in said.output


def test_an_unknown_gpu_is_refused_before_anything_starts(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["lab", "up", "--dir", str(tmp_path / "x"), "--gpu-model", "T5"])
    assert said.exit_code == 1
    assert "Known models: T4" in said.output
    assert not (tmp_path / "x").exists()


def test_vela_sees_the_lab_and_not_the_persons_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from velagen.lab.vela import vela

    fake = tmp_path / "vela"
    fake.write_text('#!/bin/sh\necho "$KUBECONFIG $VELA_HOME $*"\ncat\nexit 3\n')
    fake.chmod(0o755)
    monkeypatch.setattr("velagen.lab.vela.tool", lambda name: fake)
    monkeypatch.setenv("KUBECONFIG", "/person")
    done = vela(tmp_path / "kubeconfig", "up", "-f", "-", check=False, stdin="text")
    assert done.returncode == 3
    assert done.stdout == f"{tmp_path / 'kubeconfig'} {tmp_path / 'home' / 'vela'} up -f -\ntext"
    with pytest.raises(VelagenError, match="`vela up` failed"):
        vela(tmp_path / "kubeconfig", "up")


def test_the_time_limit_of_vela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from velagen.lab.vela import vela

    fake = tmp_path / "vela"
    fake.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr("velagen.lab.vela.tool", lambda name: fake)
    with pytest.raises(VelagenError, match=r"did not end within 1 s"):
        vela(tmp_path / "kubeconfig", "up", timeout=1)


def test_the_command_that_started_a_process_may_go(tmp_path: Path) -> None:
    code = f"""if True:
        import json
        from pathlib import Path
        from velagen.lab.process import Process
        process = Process("one", {SLEEP!r}, {{}})
        process.spawn(Path({str(tmp_path / "log")!r}), Path({str(tmp_path)!r}))
        print(json.dumps([process.pid, process.identity]))
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    pid, who = json.loads(done.stdout)
    process = Process("one", [], pid=pid, identity=who)
    try:
        assert process.alive
        assert done.stderr == ""
    finally:
        stop([process], patience=0)
    assert not process.alive


@pytest.mark.parametrize("error", [None, VelagenError(Problem("no Go here")), KeyboardInterrupt()])
def test_the_demo_ends_with_bringing_what_a_check_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None
) -> None:
    """It says so first, and neither a road that is closed nor Ctrl-C makes the demo fail."""
    asked: list[tuple[str, str]] = []

    def install(wanted: list[tuple[str, str]], **_: object) -> None:
        asked.extend(wanted)
        if error is not None:
            raise error

    monkeypatch.setattr("velagen.lab.demo.install", install)
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    console = Console(force_terminal=False, width=200, record=True, file=io.StringIO())
    _bring_checkers(Lab("x", folder=tmp_path / "lab"), console)
    assert set(asked) == {("vela", "1.10.9"), ("vela", "1.11.0"), ("cue-oracle", "0.9.2"), ("cue-oracle", "0.14.1")}
    said = console.export_text()
    assert "what velagen check asks is brought" in said
    assert ("not here yet: no Go here" in said) == isinstance(error, VelagenError)
