import asyncio
import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Self

import pytest
from aiohttp import web
from click.testing import CliRunner
from kubernetes import client
from moto.server import ThreadedMotoServer

from velagen.cli_model import model_group
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
    third = push(package, target)
    assert (third.sent, third.equal, third.extra) == (("model.bst",), ("sub/a file.txt",), ("sub/empty",))
    assert target.read_back("model.bst") == hashlib.sha256(b"tree\nother").hexdigest()
    fourth = push(package, target, delete=True)
    assert (fourth.sent, fourth.extra, fourth.removed) == ((), (), ("sub/empty",))
    assert sorted(target.digests()) == ["model.bst", "sub/a file.txt"]


def test_what_arrives_changed_is_an_error(package: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "read_back", lambda name: "0" * 64)
    with pytest.raises(VelagenError) as caught:
        push(package, target)
    assert [problem.place.file for problem in caught.value.problems] == list(NAMES)
    assert all("arrived changed" in problem.message for problem in caught.value.problems)


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
    (tmp_path / "out").symlink_to("/etc/hostname")
    with pytest.raises(VelagenError, match="a link out of the package"):
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
    warned = runner.invoke(model_group, ["push", str(package), "s3://models/cli/iris"])
    assert "at the target, but not in the package: second.bst (--delete)" in warned.output


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
        return local_shell(
            script, [arguments[0].replace("/velagen", str(tmp_path), 1), *arguments[1:]], stdin, progress
        )

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

    def __init__(self, *, drop: bool = False, refuse: bool = False) -> None:
        self.drop, self.refuse = drop, refuse
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
            async for message in socket:
                assert message.data[0] == 0
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
