"""Bring a package to where KServe fetches it: s3://, pvc:// or a folder. Equal files stay, and what arrived is read
back.

A target knows the digests of what it has; only files that differ are sent, and each one sent is read back and
compared. Files that
the package does not have are named, and removed if asked: a server that takes exactly one model file trips over an
old second one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import yaml
from urllib3.exceptions import HTTPError

from velagen.errors import Place, Problem, VelagenError

#: Bytes read at a time.
CHUNK: Final = 1024 * 1024
#: Never part of a package.
_LEFT_OUT: Final = frozenset((".git", "__pycache__", ".DS_Store", ".ipynb_checkpoints"))
_METADATA: Final = "velagen-sha256"

#: Called with a file (relative path) and how many more bytes of it have gone.
Progress = Callable[[str, int], None]


class Target(Protocol):
    """A place that takes files by relative path (with ``/``)."""

    @property
    def uri(self) -> str:
        """What to write as modelUri; "" where KServe can't fetch from."""

    def digests(self) -> dict[str, str]:
        """Relative path -> SHA-256 (hex) of what is there; "" where it is there but its digest is not known cheaply."""

    def put(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Send one file, whole or not at all; OSError or VelagenError when it does not get there."""

    def read_back(self, name: str) -> str:
        """SHA-256 of what is there now, from its content."""

    def remove(self, name: str) -> None:
        """Delete one file."""


@dataclass(frozen=True)
class PushReport:
    """What was done."""

    uri: str
    sent: tuple[str, ...]
    equal: tuple[str, ...]
    #: Files at the target that the package does not have.
    extra: tuple[str, ...]
    removed: tuple[str, ...]
    #: Bytes sent.
    size: int


def package_files(directory: Path) -> dict[str, Path]:
    """Relative path -> file, for all that is part of the package; VelagenError for a link that leads out of it, or
    no files.
    """
    files: dict[str, Path] = {}
    problems = []
    top = directory.resolve()
    for folder, names, entries in os.walk(directory):
        for link in [name for name in names if (Path(folder) / name).is_symlink()]:
            problems.append(
                Problem("a link to a folder can't be pushed", Place(str(Path(folder) / link)), "copy it in")
            )
        names[:] = sorted(name for name in names if name not in _LEFT_OUT)
        for entry in sorted(entries):
            path = Path(folder) / entry
            if entry in _LEFT_OUT:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(top):
                problems.append(
                    Problem(f"a link out of the package, to {path.resolve()}", Place(str(path)), "copy it in")
                )
            elif path.is_file():
                files[path.relative_to(directory).as_posix()] = path
    if not files and not problems:
        problems.append(Problem("nothing to push: no file in it", Place(str(directory))))
    if problems:
        raise VelagenError(problems)
    return files


def push(
    directory: Path,
    target: Target,
    *,
    delete: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> PushReport:
    """Make ``target`` hold what ``directory`` holds.

    Args:
        directory: the package.
        target: where to, open.
        delete: remove files at the target that the package does not have.
        verify: read back each file that was sent.
        progress: told of every piece sent.

    VelagenError when a file did not arrive as it was sent, or the package is not one.
    """
    files = package_files(directory)
    there = target.digests()
    sent, equal, size = [], [], 0
    wrong: list[Problem] = []
    for name, path in files.items():
        digest = file_digest(path)
        if name in there and (there[name] or target.read_back(name)) == digest:
            equal.append(name)
            continue

        def tell(count: int, name: str = name) -> None:
            if progress is not None:
                progress(name, count)

        target.put(path, name, digest, tell)
        sent.append(name)
        size += path.stat().st_size
        if verify and target.read_back(name) != digest:
            wrong.append(Problem("arrived changed: what was read back is not what was sent", Place(name)))
    if wrong:
        raise VelagenError(wrong)
    extra = sorted(set(there) - set(files))
    for name in extra if delete else ():
        target.remove(name)
    removed = tuple(extra) if delete else ()
    return PushReport(target.uri, tuple(sent), tuple(equal), () if delete else tuple(extra), removed, size)


def file_digest(path: Path) -> str:
    """SHA-256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_target(
    text: str, *, namespace: str = "default", image: str = "busybox:1.36", endpoint_url: str | None = None
) -> AbstractContextManager[Target]:
    """The target that ``text`` names: ``s3://bucket/path``, ``pvc://claim/path`` or a folder.

    Args:
        text: the address.
        namespace: where the claim lives.
        image: image of the pod that mounts the claim; it needs sh, head, find and sha256sum.
        endpoint_url: an S3 server other than Amazon's; else AWS_ENDPOINT_URL.

    VelagenError when the address is of no kind that can be pushed to.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        return _plain(FolderTarget(Path(text)))
    if scheme == "file":
        return _plain(FolderTarget(Path(rest)))
    head, _, path = rest.partition("/")
    path = path.strip("/")
    if ".." in path.split("/"):
        raise VelagenError(Problem("a path can't hold '..'", Place(text)))
    if scheme == "s3" and head:
        if not path:
            raise VelagenError(Problem("the path in the bucket is missing", Place(text), f"s3://{head}/models/name"))
        return _plain(S3Target(s3_client(endpoint_url), head, path))
    if scheme == "pvc" and head:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", head):
            raise VelagenError(Problem(f"{head!r} is no name of a PersistentVolumeClaim", Place(text)))
        return pvc_target(head, path, namespace=namespace, image=image)
    raise VelagenError(
        Problem(
            "can't push there",
            Place(text),
            "s3://bucket/path, pvc://claim/path or a folder; other stores have their tools",
        )
    )


@contextmanager
def _plain(target: Target) -> Iterator[Target]:
    yield target


class FolderTarget:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def uri(self) -> str:
        """A folder of this machine is no place a cluster can fetch from."""
        return ""

    def digests(self) -> dict[str, str]:
        """From the files themselves."""
        if not self.folder.is_dir():
            return {}
        return {name: file_digest(path) for name, path in _walk(self.folder)}

    def put(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Copied beside, then put in place: a reader never sees half a file."""
        del digest
        goal = self.folder / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=goal.parent, prefix=".push-")
        try:
            with path.open("rb") as source, os.fdopen(handle, "wb") as copy:
                for piece in _pieces(source):
                    copy.write(piece)
                    progress(len(piece))
            shutil.copymode(path, beside)
            Path(beside).replace(goal)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def read_back(self, name: str) -> str:
        """From the file."""
        return file_digest(self.folder / name)

    def remove(self, name: str) -> None:
        """Delete it; folders stay."""
        (self.folder / name).unlink()


def s3_client(endpoint_url: str | None = None) -> Any:
    """A boto3 client with the usual AWS_* settings; VelagenError where boto3 is not installed."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise VelagenError(Problem("s3:// needs boto3", hint="pip install 'velagen[s3]'")) from error
    # A server named by hand is seldom one that has a DNS name for each bucket.
    style = "path" if endpoint_url or os.environ.get("AWS_ENDPOINT_URL") else "auto"
    return boto3.client(
        "s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": style}, retries={"max_attempts": 5})
    )


class S3Target:
    """Objects under a prefix of a bucket, through a boto3 client; its ClientError is raised as VelagenError."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    @property
    def uri(self) -> str:
        """Bucket and prefix."""
        return f"s3://{self._bucket}/{self._prefix}"

    def digests(self) -> dict[str, str]:
        """From the metadata that `put` leaves; objects that others put are read when they are compared."""
        found: dict[str, str] = {}
        with self._said():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + "/"
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(self._prefix + "/")
                    # A folder that a console made is an empty object that ends in /.
                    if name and not name.endswith("/"):
                        head = self._client.head_object(Bucket=self._bucket, Key=entry["Key"])
                        found[name] = head.get("Metadata", {}).get(_METADATA, "")
        return found

    def put(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """In parts where it is large; the object appears when all of it is there."""
        with self._said():
            self._client.upload_file(
                str(path),
                self._bucket,
                f"{self._prefix}/{name}",
                ExtraArgs={"Metadata": {_METADATA: digest}},
                Callback=progress,
            )

    def read_back(self, name: str) -> str:
        """From the object's bytes."""
        sha = hashlib.sha256()
        with self._said():
            body = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")["Body"]
            for piece in body.iter_chunks(CHUNK):
                sha.update(piece)
        return sha.hexdigest()

    def remove(self, name: str) -> None:
        """Delete the object."""
        with self._said():
            self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")

    @contextmanager
    def _said(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error) as error:
            hint = "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say which server and who you are"
            raise VelagenError(Problem(f"the S3 server: {error}", Place(self.uri), hint)) from error


class Shell(Protocol):
    """Runs a script where the volume is mounted."""

    def __call__(
        self, script: str, arguments: list[str], stdin: BinaryIO | None, progress: Callable[[int], None]
    ) -> str:
        """Its output; VelagenError with its complaints when it fails."""


class PvcTarget:
    """A folder of a volume, through a shell in a pod that mounts it at ``mount``."""

    def __init__(self, shell: Shell, claim: str, path: str, *, mount: str = "/velagen") -> None:
        self._shell = shell
        self._claim = claim
        self._path = path
        self._folder = f"{mount}/{path}" if path else mount

    @property
    def uri(self) -> str:
        """Claim and path."""
        return f"pvc://{self._claim}/{self._path}".rstrip("/")

    def digests(self) -> dict[str, str]:
        """From the files, in the pod."""
        # Names are ended by a NUL byte each, so that any name comes through.
        listing = self._run(
            '[ -d "$1" ] || exit 0; cd "$1" && find . -type f ! -path "./lost+found/*" -print0', self._folder
        )
        names = [name.removeprefix("./") for name in listing.split("\0") if name]
        return {name: self.read_back(name) for name in names}

    def put(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Written beside, then put in place. The length goes first: an exec's input can't be closed from this side."""
        del digest
        goal = f"{self._folder}/{name}"
        script = 'mkdir -p "$(dirname "$1")" && head -c "$2" > "$1.push" && mv "$1.push" "$1"'
        with path.open("rb") as file:
            self._shell(script, [goal, str(path.stat().st_size)], file, progress)

    def read_back(self, name: str) -> str:
        """From the file, in the pod."""
        return self._run('sha256sum < "$1"', f"{self._folder}/{name}").split()[0]

    def remove(self, name: str) -> None:
        """Delete it; folders stay."""
        self._run('rm -f "$1"', f"{self._folder}/{name}")

    def _run(self, script: str, argument: str) -> str:
        return self._shell(script, [argument], None, lambda _count: None)


def pod_manifest(claim: str, *, name: str, image: str, mount: str = "/velagen") -> dict[str, Any]:
    """The pod that mounts ``claim`` and waits; it ends by itself after an hour, should nobody be left to delete it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "velagen"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 3600,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "push",
                    "image": image,
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"],
                    "volumeMounts": [{"name": "models", "mountPath": mount}],
                    "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


@contextmanager
def pvc_target(
    claim: str,
    path: str,
    *,
    namespace: str,
    image: str,
    core: Any = None,
    shell: Shell | None = None,
    timeout: float = 120,
) -> Iterator[Target]:
    """Mount ``claim`` in a pod of its own, which is gone afterwards.

    Args:
        claim, path, namespace, image: see `open_target`.
        core: a CoreV1Api; None: from the kubeconfig.
        shell: how to run scripts in the pod; None: an exec through the API server.
        timeout: how long the pod may take to run, in seconds.

    VelagenError when the claim is not there or the pod does not come up, with the reason the cluster gives.
    """
    from kubernetes import client, config, watch

    place = Place(f"pvc://{claim}/{path}")
    if core is None:
        try:
            config.load_kube_config()
        except config.ConfigException as error:
            raise VelagenError(Problem(f"no cluster to push to: {error}", place, "KUBECONFIG says which")) from error
        core = client.CoreV1Api()
    name = f"velagen-push-{uuid.uuid4().hex[:8]}"
    with _answers(place):
        core.read_namespaced_persistent_volume_claim(claim, namespace)
        core.create_namespaced_pod(namespace, pod_manifest(claim, name=name, image=image))
    try:
        phase, why = "Pending", ""
        with _answers(place):
            for event in watch.Watch().stream(
                core.list_namespaced_pod,
                namespace,
                field_selector=f"metadata.name={name}",
                timeout_seconds=int(timeout),
            ):
                status = event["object"].status
                phase, why = status.phase, _why(status) or why
                if phase != "Pending":
                    break
        if phase != "Running":
            message = f"the pod that mounts it is {phase} after {timeout:g} s" + (f": {why}" if why else "")
            raise VelagenError(Problem(message, place))
        yield PvcTarget(shell or ExecShell(core, namespace, name), claim, path)
    finally:
        # Gone already, or the cluster is: the pod's deadline ends it then, and what went wrong before is what counts.
        with contextlib.suppress(client.ApiException, HTTPError):
            core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)


@contextmanager
def _answers(place: Place) -> Iterator[None]:
    """Turns the API server's refusals, and its silence, into a problem at ``place``."""
    from kubernetes import client

    try:
        yield
    except (client.ApiException, AttributeError) as error:
        # Where an exec is refused, the client trips over the missing body and raises AttributeError in its place.
        refusal = error if isinstance(error, client.ApiException) else error.__context__
        if not isinstance(refusal, client.ApiException):
            raise
        inner = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', f"{refusal.body or ''} {refusal.reason}")
        said = inner[1].replace('\\"', '"') if inner else f"{refusal.status} {refusal.reason}"
        raise VelagenError(Problem(f"the cluster refused: {said}", place)) from error
    except HTTPError as error:
        raise VelagenError(Problem(f"the cluster does not answer: {error}", place)) from error


def _why(status: Any) -> str:
    for container in status.container_statuses or ():
        waiting = container.state.waiting if container.state else None
        if waiting is not None and waiting.reason != "ContainerCreating":
            return ": ".join(part for part in (waiting.reason, waiting.message) if part)
    for condition in status.conditions or ():
        if condition.status == "False" and condition.message:
            return str(condition.message)
    return ""


class ExecShell:
    """Runs scripts in a pod through the API server's exec."""

    def __init__(self, core: Any, namespace: str, pod: str) -> None:
        self._core = core
        self._namespace = namespace
        self._pod = pod

    def __call__(
        self, script: str, arguments: list[str], stdin: BinaryIO | None, progress: Callable[[int], None]
    ) -> str:
        """Send ``stdin`` piece by piece, then wait for the end."""
        # Takes a second to load, and only pvc:// needs it.
        from kubernetes.stream import stream
        from kubernetes.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDOUT_CHANNEL

        with _answers(Place(f"pod {self._pod}")):
            connection = stream(
                self._core.connect_get_namespaced_pod_exec,
                self._pod,
                self._namespace,
                command=["sh", "-c", script, "sh", *arguments],
                stdin=stdin is not None,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
            )
        try:
            for piece in _pieces(stdin) if stdin is not None else ():
                connection.write_stdin(piece)
                progress(len(piece))
            # Until the script has ended: what it printed, and its status, are collected on the way.
            connection.run_forever()
            status = yaml.safe_load(connection.read_channel(ERROR_CHANNEL) or b"null")
            output, complaint = (connection.read_channel(channel) for channel in (STDOUT_CHANNEL, STDERR_CHANNEL))
            if not isinstance(status, dict) or status.get("status") != "Success":
                said = complaint.decode(errors="replace").strip()
                reason = status.get("message") if isinstance(status, dict) else "the connection ended early"
                raise VelagenError(Problem(f"in the pod: {said or reason}"))
            return str(output.decode(errors="surrogateescape"))
        finally:
            connection.close()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def total_size(files: Mapping[str, Path]) -> int:
    """Bytes of all files together."""
    return sum(path.stat().st_size for path in files.values())
