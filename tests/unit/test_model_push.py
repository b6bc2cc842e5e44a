import asyncio
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import boto3
import pytest
from aiohttp import web
from botocore.config import Config
from click.testing import CliRunner
from kubernetes import client
from moto.server import ThreadedMotoServer

from velagen.cli.model import model_group
from velagen.errors import Problem, VelagenError
from velagen.model import push as pushing
from velagen.model.push import FolderTarget, PvcTarget, S3Target, Target, open_target, push, pvc_target, s3_client


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "iris"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.bst").write_bytes(b"tree\n" + bytes(range(256)) * 20_000)
    (folder / "sub" / "a file.txt").write_text("ä")
    (folder / "sub" / "empty").write_bytes(b"")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("")
    return folder


NAMES = ("model.bst", "sub/a file.txt", "sub/empty")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{key}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3_client().create_bucket(Bucket="models")
        yield s3_client()
    server.stop()


@pytest.fixture(params=["folder", "s3", "pvc"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "folder":
        return FolderTarget(tmp_path / "there")
    if request.param == "pvc":
        return PvcTarget(local_shell, "claim", "iris/1", mount=str(tmp_path / "volume"))
    return S3Target(request.getfixturevalue("s3"), "models", f"/{tmp_path.name}/")


def local_shell(script: str, arguments: list[str], stdin: BinaryIO | None, progress: Callable[[int], None]) -> str:
    """What the pod would run, run here."""
    data = stdin.read() if stdin else b""
    # The pod's input stays open: what comes after must not be waited for.
    done = subprocess.run(
        ["sh", "-c", script, "sh", *arguments], input=data + b"beyond", capture_output=True, check=False
    )
    if done.returncode:
        raise VelagenError(Problem(done.stderr.decode()))
    progress(len(data))
    return done.stdout.decode()


def test_push_compares_sends_and_reads_back(package: Path, target: Target) -> None:
    steps: dict[str, int] = {}
    first = push(package, target, progress=lambda name, count: steps.update({name: steps.get(name, 0) + count}))
    assert (first.sent, first.equal, first.extra) == (NAMES, (), ())
    assert first.size == sum(steps.values()) == sum((package / name).stat().st_size for name in NAMES)
    again = push(package, target)
    assert (again.sent, again.equal, again.size) == ((), NAMES, 0)
    (package / "model.bst").write_bytes(b"tree\nother")
    (package / "sub" / "empty").unlink()
    third = push(package, target, overwrite=True)
    assert (third.sent, third.equal, third.extra) == (("model.bst",), ("sub/a file.txt",), ("sub/empty",))
    assert target.read_back("model.bst") == hashlib.sha256(b"tree\nother").hexdigest()
    fourth = push(package, target, delete=True)
    assert (fourth.sent, fourth.extra, fourth.removed) == ((), (), ("sub/empty",))
    assert sorted(target.digests()) == ["model.bst", "sub/a file.txt"]


def test_what_arrives_changed_is_an_error(package: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "read_back", lambda name: "0" * 64)
    with pytest.raises(VelagenError) as caught:
        push(package, target)
    # It stops there: the files that would make a model of it do not follow.
    assert [problem.place.file for problem in caught.value.problems] == list(NAMES[:1])
    assert "arrived changed" in caught.value.problems[0].message


def test_objects_that_others_put_are_compared_by_content(package: Path, s3: Any) -> None:
    for name in NAMES:
        s3.put_object(Bucket="models", Key=f"others/{name}", Body=(package / name).read_bytes())
    s3.put_object(Bucket="models", Key="others/", Body=b"")
    s3.put_object(Bucket="models", Key="others-too/x", Body=b"")
    report = push(package, S3Target(s3, "models", "others"))
    assert (report.sent, report.equal, report.extra) == ((), NAMES, ())


def test_links_and_empty_packages(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match="nothing to push"):
        push(tmp_path, FolderTarget(tmp_path / "there"))
    for link, goal, said in (
        ("out", "/etc/hostname", "a link out of the package"),
        ("round", "round", "round in a circle"),
        ("gone", "nowhere", "which is not there"),
    ):
        (tmp_path / link).symlink_to(goal)
        with pytest.raises(VelagenError, match=said):
            push(tmp_path, FolderTarget(tmp_path / "there"))
        (tmp_path / link).unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VelagenError, match="pipe: not a file"):
        push(tmp_path, FolderTarget(tmp_path / "there"))


@pytest.mark.parametrize(
    "address", ["gs://b/x", "s3://", "s3://bucket", "s3://bucket/../x", "pvc://Bad_Name/x", "pvc://"]
)
def test_addresses_that_are_none(address: str, s3: Any) -> None:
    with pytest.raises(VelagenError):
        open_target(address)


def test_missing_bucket_is_said_with_the_place(package: Path, s3: Any) -> None:
    with pytest.raises(VelagenError, match=r"s3://nowhere/x: the S3 server: .*NoSuchBucket"):
        push(package, S3Target(s3, "nowhere", "x"))


def test_command_to_s3(package: Path, s3: Any) -> None:
    (package / "sub" / "empty").write_bytes(b"x")
    runner = CliRunner()
    first = runner.invoke(model_group, ["push", str(package), "s3://models/cli/iris"])
    assert first.exit_code == 0, first.output
    assert "3 files sent" in first.output
    assert "read back and equal" in first.output
    assert "runtime: lightgbm" in first.output
    assert "modelUri: s3://models/cli/iris" in first.output
    again = runner.invoke(model_group, ["push", str(package), "s3://models/cli/iris"])
    assert "0 files sent (0 bytes), 3 were there" in again.output
    (package / "second.bst").write_bytes(b"tree")
    refused = runner.invoke(model_group, ["push", str(package), "s3://models/cli/iris"])
    assert refused.exit_code == 1
    assert "nothing was pushed" in refused.output
    forced = runner.invoke(model_group, ["push", "--unchecked", str(package), "s3://models/cli/iris"])
    assert "1 files sent" in forced.output
    (package / "second.bst").unlink()
    other = runner.invoke(model_group, ["push", str(package), "s3://models/cli/iris"])
    assert other.exit_code == 1
    assert "the target holds what the package does not: second.bst" in other.output
    warned = runner.invoke(model_group, ["push", "--overwrite", str(package), "s3://models/cli/iris"])
    assert "at the target, but not in the package: second.bst (--delete)" in warned.output


def version(folder: Path, mark: bytes) -> Path:
    """A package of a marker, a small file and one that goes in several pieces."""
    folder.mkdir()
    for name, content in (("MLmodel", mark), ("conda.yaml", mark), ("model.pkl", mark * 11_000_000)):
        (folder / name).write_bytes(content)
    return folder


def held(target: Target) -> dict[str, str]:
    return {name: target.read_back(name) for name in target.digests()}


def leftovers(target: Target, tmp_path: Path) -> list[Any]:
    """What a push that was cut left behind it: hidden files, or parts that nobody completes."""
    if isinstance(target, S3Target):
        return list(target._client.list_multipart_uploads(Bucket="models").get("Uploads", []))
    return list(tmp_path.rglob("*.velagen-push"))


class CutError(Exception):
    pass


@pytest.mark.parametrize("at", ["in the middle of a file", "between files"])
def test_push_that_is_cut_leaves_the_model_that_was_there(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(pushing, "_PART", 5 * 1024 * 1024)  # as small as S3 allows
    push(version(tmp_path / "one", b"1"), target)
    before = held(target)
    second = version(tmp_path / "two", b"2")
    pieces: list[str] = []

    def cut(name: str, count: int) -> None:
        pieces.append(name)
        if (name == "model.pkl") if at == "in the middle of a file" else (len(set(pieces)) > 1):
            raise CutError

    with pytest.raises(CutError):
        push(second, target, overwrite=True, progress=cut)
    assert held(target) == before
    assert leftovers(target, tmp_path) == []
    assert push(second, target, overwrite=True).sent == ("conda.yaml", "model.pkl", "MLmodel")
    assert held(target) == {name: hashlib.sha256((second / name).read_bytes()).hexdigest() for name in before}


def test_first_push_that_is_cut_has_no_marker_and_goes_on(target: Target, tmp_path: Path) -> None:
    def cut(name: str, count: int) -> None:
        if name == "model.pkl":
            raise CutError

    package = version(tmp_path / "one", b"1")
    with pytest.raises(CutError):
        push(package, target, progress=cut)
    assert set(target.digests()) == {"conda.yaml"}
    again = push(package, target)
    assert (again.sent, again.equal) == (("model.pkl", "MLmodel"), ("conda.yaml",))


def test_target_that_holds_another_model_is_refused(target: Target, tmp_path: Path) -> None:
    push(version(tmp_path / "one", b"1"), target)
    before = held(target)
    second = version(tmp_path / "two", b"2")
    with pytest.raises(VelagenError, match=r"holds another model: MLmodel, conda\.yaml, model\.pkl there differ"):
        push(second, target)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.bst").write_bytes(b"tree")
    with pytest.raises(VelagenError, match="holds what the package does not: MLmodel, conda"):
        push(other, target)
    # To remove is not to replace.
    (second / "conda.yaml").unlink()
    with pytest.raises(VelagenError, match="there differ"):
        push(second, target, delete=True)
    assert held(target) == before


def test_new_version_of_a_repository_appears_whole(target: Target, tmp_path: Path) -> None:
    package = tmp_path / "repository"
    for number in ("1", "2"):
        (package / "net" / number).mkdir(parents=True)
        (package / "net" / number / "model.onnx").write_bytes(number.encode())
    (package / "net" / "2" / "labels.txt").write_text("a")
    (package / "net" / "config.pbtxt").write_text("max_batch_size: 0")
    first = tmp_path / "first"
    (first / "net" / "1").mkdir(parents=True)
    for name in ("net/1/model.onnx", "net/config.pbtxt"):
        (first / name).write_bytes((package / name).read_bytes())
    push(first, target)
    before = held(target)

    def cut(name: str, count: int) -> None:
        if name == "net/2/model.onnx":
            raise CutError

    with pytest.raises(CutError):
        push(package, target, progress=cut)
    assert held(target) == before
    folders = [path for path in tmp_path.glob("*/**/net/2") if package not in path.parents]
    assert folders == [], "an empty version is one that the server tries to load"
    assert push(package, target).sent == ("net/2/labels.txt", "net/2/model.onnx")


def test_empty_version_folder_arrives_or_is_refused(target: Target, tmp_path: Path) -> None:
    package = tmp_path / "repository"
    (package / "ens" / "1").mkdir(parents=True)
    (package / "ens" / "config.pbtxt").write_text('platform: "ensemble"')
    if isinstance(target, S3Target):
        with pytest.raises(VelagenError, match=r"ens/1: an empty folder.*\n.*touch ens/1/\.keep"):
            push(package, target)
        assert target.digests() == {}
    else:
        push(package, target)
        assert [path.is_dir() for path in tmp_path.glob("*/**/ens/1") if package not in path.parents] == [True]


def test_file_that_changes_while_it_is_sent_is_not_put_in_place(target: Target, tmp_path: Path) -> None:
    package = version(tmp_path / "one", b"1")
    push(package, target)
    before = held(target)
    (package / "conda.yaml").write_bytes(b"2")

    def change(name: str, count: int) -> None:
        (package / "conda.yaml").write_bytes(b"3")

    (package / "model.pkl").write_bytes(b"4")
    with pytest.raises(VelagenError, match=r"changed while it was sent|what arrived is not what was sent"):
        push(package, Changing(target, change), overwrite=True)
    assert held(target) == before


class Changing:
    """A target before which something happens to the file."""

    def __init__(self, target: Target, change: Callable[[str, int], None]) -> None:
        self._target, self._change = target, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def stage(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        self._change(name, 0)
        self._target.stage(path, name, digest, progress)


def test_what_a_killed_push_left_is_no_part_of_the_model_and_goes_in_time(tmp_path: Path, package: Path) -> None:
    for target in (FolderTarget(tmp_path / "there"), PvcTarget(local_shell, "claim", "there", mount=str(tmp_path))):
        push(package, target)
        old, new = (tmp_path / "there" / "sub" / pushing._staged_name(name, "0" * 8) for name in "ab")
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (0, 0))
        assert push(package, target).equal == NAMES
        assert (old.exists(), new.exists()) == (False, True)


class Relay:
    """Forwards bytes to a server and hangs up on a client that has sent more than ``most``."""

    def __init__(self, goal: tuple[str, int], most: int) -> None:
        self._goal, self._most = goal, most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(self._goal) as far:
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()
            count = 0
            while count <= self._most and (piece := near.recv(65536)):
                count += len(piece)
                far.sendall(piece)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := far.recv(65536):
                near.sendall(piece)


def test_connection_to_s3_that_breaks_leaves_the_model_that_was_there(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_PART", 5 * 1024 * 1024)
    target = S3Target(s3, "models", tmp_path.name)
    push(version(tmp_path / "one", b"1"), target)
    before = held(target)
    host, port = urlsplit(s3.meta.endpoint_url).netloc.split(":")
    with Relay((host, int(port)), 2_000_000) as relay:
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        broken = S3Target(boto3.client("s3", endpoint_url=relay.url, config=config), "models", tmp_path.name)
        with pytest.raises(VelagenError, match="the S3 server: "):
            push(version(tmp_path / "two", b"2"), broken, overwrite=True)
    assert held(target) == before
    assert leftovers(target, tmp_path) == []


class Core:
    """The calls of CoreV1Api that a push to a claim makes."""

    def __init__(
        self, phases: Sequence[str] = ("Pending", "Running"), waiting: object = None, missing: bool = False
    ) -> None:
        self.phases, self.waiting, self.missing = phases, waiting, missing
        self.calls: list[tuple[Any, ...]] = []

    def read_namespaced_persistent_volume_claim(self, name: str, namespace: str) -> None:
        self.calls.append(("claim", name, namespace))
        if self.missing:
            raise client.ApiException(status=404, reason="Not Found")

    def create_namespaced_pod(self, namespace: str, body: dict[str, Any]) -> None:
        self.calls.append(("create", namespace, body))

    def delete_namespaced_pod(self, name: str, namespace: str, grace_period_seconds: int) -> None:
        self.calls.append(("delete", name, namespace))

    def list_namespaced_pod(self, namespace: str, **_: object) -> None:
        raise AssertionError("the watch calls it")

    def events(self) -> Iterator[dict[str, object]]:
        state = SimpleNamespace(state=SimpleNamespace(waiting=self.waiting))
        for phase in self.phases:
            status = SimpleNamespace(phase=phase, container_statuses=[state] if self.waiting else None, conditions=None)
            yield {"object": SimpleNamespace(status=status)}


Watched = Callable[[Core], Core]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A cluster whose pod goes through the phases of the given Core."""

    def use(core: Core) -> Core:
        from kubernetes import watch

        monkeypatch.setattr(watch.Watch, "stream", lambda self, call, namespace, **options: core.events())
        return core

    return use


def test_claim_is_mounted_and_the_pod_is_gone_afterwards(package: Path, watched: Watched, tmp_path: Path) -> None:
    core = watched(Core())

    def shell(script: str, arguments: list[str], stdin: BinaryIO | None, progress: Callable[[int], None]) -> str:
        return local_shell(script, [part.replace("/velagen", str(tmp_path), 1) for part in arguments], stdin, progress)

    with pvc_target("models", "iris/1", namespace="ml", image="busybox:1", core=core, shell=shell) as target:
        assert push(package, target).sent == NAMES
        assert target.uri == "pvc://models/iris/1"
    assert (tmp_path / "iris" / "1" / "sub" / "a file.txt").read_text() == "ä"
    kinds = [call[0] for call in core.calls]
    assert kinds == ["claim", "create", "delete"]
    body = core.calls[1][2]
    assert body["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models"}
    assert body["spec"]["containers"][0]["image"] == "busybox:1"
    assert core.calls[2][1] == body["metadata"]["name"]


def test_pod_that_does_not_start_is_said_and_deleted(watched: Watched) -> None:
    core = watched(Core(["Pending"], SimpleNamespace(reason="ErrImagePull", message="no such image")))
    with (
        pytest.raises(VelagenError, match="is Pending after 1 s: ErrImagePull: no such image"),
        pvc_target("models", "x", namespace="ml", image="none", core=core, timeout=1),
    ):
        raise AssertionError("must not get here")
    assert core.calls[-1][0] == "delete"


def test_missing_claim(watched: Watched) -> None:
    core = watched(Core(missing=True))
    with (
        pytest.raises(VelagenError, match="the cluster refused: 404 Not Found"),
        pvc_target("models", "x", namespace="ml", image="none", core=core),
    ):
        raise AssertionError("must not get here")
    assert [call[0] for call in core.calls] == ["claim"]


class ExecServer:
    """The exec of an API server: a web socket whose channels are the streams of a program, run here."""

    def __init__(self, *, drop: bool = False, refuse: bool = False, most: int | None = None) -> None:
        self.drop, self.refuse, self.most = drop, refuse, most
        self.paths: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def core(self) -> client.CoreV1Api:
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{self.port}"
        return client.CoreV1Api(client.ApiClient(configuration))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._exec)
        runner = web.AppRunner(app, shutdown_timeout=0)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if self.refuse:
            return web.json_response({"kind": "Status", "message": 'pods "pod-1" not found'}, status=404)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), max_msg_size=0)
        await socket.prepare(request)
        if self.drop:
            await socket.close()
            return socket
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *request.query.getall("command"), stdin=pipe, stdout=pipe, stderr=pipe
        )

        assert process.stdin
        assert process.stdout
        assert process.stderr
        entry = process.stdin

        async def feed() -> None:
            count = 0
            async for message in socket:
                assert message.data[0] == 0
                count += len(message.data) - 1
                if self.most is not None and count > self.most:
                    # As a kubelet does when the connection breaks: the program sees the end of its input.
                    assert request.transport
                    request.transport.abort()
                    entry.close()
                    return
                entry.write(message.data[1:])
                await entry.drain()

        feeding = asyncio.ensure_future(feed())
        # The input is not closed: a script that waits for its end would hang, here as there.
        output, complaint = await asyncio.gather(process.stdout.read(), process.stderr.read())
        code = await process.wait()
        feeding.cancel()
        for channel, data in ((1, output), (2, complaint)):
            if data:
                await socket.send_bytes(bytes([channel]) + data)
        status = {"status": "Success"} if code == 0 else {"status": "Failure", "message": f"exit code {code}"}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
        return socket


def test_push_through_the_exec_of_an_api_server(package: Path, tmp_path: Path) -> None:
    (package / "large.bin").write_bytes(bytes(range(256)) * 12_000)
    with ExecServer() as server:
        target = PvcTarget(
            pushing.ExecShell(server.core, "ml", "pod-1"), "claim", "iris", mount=str(tmp_path / "volume")
        )
        report = push(package, target)
        assert set(report.sent) == {*NAMES, "large.bin"}
        for name in report.sent:
            assert (tmp_path / "volume" / "iris" / name).read_bytes() == (package / name).read_bytes()
        assert set(push(package, target).equal) == {*NAMES, "large.bin"}
        assert set(server.paths) == {"/api/v1/namespaces/ml/pods/pod-1/exec"}
        with pytest.raises(VelagenError, match=r"in the pod: .*none"):
            target.read_back("none")


def test_exec_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    with ExecServer(drop=True) as server, pytest.raises(VelagenError, match="the connection ended early"):
        pushing.ExecShell(server.core, "ml", "pod-1")("true", [], None, lambda _count: None)


def test_connection_to_a_pod_that_breaks_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    local = PvcTarget(local_shell, "claim", "iris", mount=str(volume))
    push(version(tmp_path / "one", b"1"), local)
    before = held(local)
    second = version(tmp_path / "two", b"2")
    with ExecServer(most=3_000_000) as server:
        target = PvcTarget(pushing.ExecShell(server.core, "ml", "pod-1"), "claim", "iris", mount=str(volume))
        with pytest.raises(VelagenError, match="in the pod: "):
            push(second, target, overwrite=True)
    assert held(local) == before
    assert list(volume.rglob("*.velagen-push")) == []
    with ExecServer(drop=True) as server:
        target = PvcTarget(pushing.ExecShell(server.core, "ml", "pod-1"), "claim", "iris", mount=str(volume))
        with pytest.raises(VelagenError, match="in the pod: the connection ended early"):
            push(second, target, overwrite=True)
    assert held(local) == before


def test_exec_that_is_refused_is_said_in_the_servers_words() -> None:
    with (
        ExecServer(refuse=True) as server,
        pytest.raises(VelagenError, match=r"the cluster refused: pods .pod-1. not found"),
    ):
        pushing.ExecShell(server.core, "ml", "pod-1")("true", [], None, lambda _count: None)


def test_cluster_that_is_away_is_said() -> None:
    configuration = client.Configuration()
    configuration.host, configuration.retries = "http://127.0.0.1:9", 0
    core = client.CoreV1Api(client.ApiClient(configuration))
    with (
        pytest.raises(VelagenError, match="the cluster does not answer"),
        pvc_target("models", "x", namespace="ml", image="none", core=core),
    ):
        raise AssertionError("must not get here")
