"""Bring a package to where KServe fetches it: s3://, pvc:// or a folder.

Equal files stay, and what arrived is read back.

A target knows the digests of what it has; only files that differ are sent. A file is first staged (sent, its length
and digest compared) and then committed (put in its place), so a connection that breaks leaves what was there. Where a
push replaces files, all of them are staged before the first is committed. The files by which a server knows a model
(`MARKERS`) come last.

A target that holds anything else than a part of the package is refused, unless `overwrite` or `delete` says so: a
path that was served once keeps its meaning, for rollbacks and for pods that start later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol

import yaml
from urllib3.exceptions import HTTPError

from velagen.errors import Place, Problem, VelagenError
from velagen.model.files import entries

#: Bytes read at a time.
CHUNK: Final = 1024 * 1024
#: Bytes of a part of a large object, and how many are sent at once.
_PART: Final = 16 * CHUNK
_AT_ONCE: Final = 4
#: Never part of a package.
_LEFT_OUT: Final = frozenset((".git", "__pycache__", ".DS_Store", ".ipynb_checkpoints", "lost+found"))
#: Files by which a server takes a folder for a model: they get their place last.
MARKERS: Final = frozenset(
    ("MLmodel", "config.pbtxt", "config.json", "model-settings.json", "saved_model.pb", "config.properties")
)
#: Ending of a staged file, which lies hidden beside its place. No server takes it for a model.
_STAGED: Final = ".velagen-push"
#: Staged files of a push that was killed are removed by a later push, when no push can still be at work on them.
_STALE_HOURS: Final = 24
_METADATA: Final = "velagen-sha256"
#: How many names a message lists.
_SHOWN: Final = 5
#: Staged files that one call of a pod's shell moves: its arguments travel in a URL.
_BATCH: Final = 40

#: Called with a file (relative path) and how many more bytes of it have gone.
Progress = Callable[[str, int], None]


class Target(Protocol):
    """A place that takes files by relative path (with ``/``)."""

    #: Whether a folder without files can exist there, and reaches a server.
    keeps_empty_folders: bool

    @property
    def uri(self) -> str:
        """What to write as modelUri; "" where KServe can't fetch from."""

    def digests(self) -> dict[str, str]:
        """Relative path -> SHA-256 (hex) of what is there; "" where it is there but its digest is not known cheaply."""

    def stage(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Send one file without touching what has its place.

        Raises OSError or VelagenError where it does not arrive whole, with the digest ``digest``.
        """

    def commit(self, names: Sequence[str]) -> None:
        """Put staged files in their places, in this order."""

    def discard(self) -> None:
        """Forget what is staged and was not committed, as far as the target still answers."""

    def make_folder(self, name: str) -> None:
        """Make a folder that holds nothing, where `keeps_empty_folders`."""

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
    """Relative path -> file, for all that is part of the package.

    Raises VelagenError for a link that leads out of it or to a folder, for what is neither file nor folder, and for an
    empty package.
    """
    return _package(directory)[0]


def _package(directory: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files of the package, and its folders that hold nothing."""
    files: dict[str, Path] = {}
    folders: set[str] = set()
    problems = []
    for entry in entries(directory):
        parts = PurePosixPath(entry.name).parts
        if not _LEFT_OUT.isdisjoint(parts):
            continue
        folders.discard(str(PurePosixPath(entry.name).parent))
        if entry.wrong:
            problems.append(Problem(entry.wrong, Place(str(entry.path)), "copy in what is meant, or take it away"))
        elif entry.is_file:
            files[entry.name] = entry.path
        elif entry.is_folder:
            folders.add(entry.name)
    if not files and not problems:
        problems.append(Problem("nothing to push: no file in it", Place(str(directory))))
    if problems:
        raise VelagenError(problems)
    return dict(sorted(files.items())), tuple(sorted(folders))


def push(
    directory: Path,
    target: Target,
    *,
    overwrite: bool = False,
    delete: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> PushReport:
    """Make ``target`` hold what ``directory`` holds.

    Args:
        directory: the package.
        target: where to, open.
        overwrite: replace files at the target that differ, and leave those that the package does not have.
        delete: remove files at the target that the package does not have.
        verify: read back each file that was sent.
        progress: told of every piece sent.

    VelagenError when the target holds another model, a file did not arrive as it was sent, or the package is not one.
    Whatever is raised, also from ``progress``, a file at the target is the old one or the new one, whole.
    """
    files, empty = _package(directory)
    if empty and not target.keeps_empty_folders:
        raise VelagenError(
            Problem("an empty folder, which an object store can't hold", Place(name), f"touch {name}/.keep")
            for name in empty
        )
    there = target.digests()
    new: list[str] = []
    changed: list[str] = []
    digests = {name: file_digest(path) for name, path in files.items()}
    for name, digest in digests.items():
        if name not in there:
            new.append(name)
        elif (there[name] or target.read_back(name)) != digest:
            changed.append(name)
    extra = sorted(set(there) - set(files))
    _refuse_another_model(target, changed, extra, overwrite=overwrite, delete=delete)
    sent = sorted((*new, *changed), key=lambda name: (PurePosixPath(name).name in MARKERS, name))
    # Into an empty place each file goes as it arrives, so that a push that broke off goes on from there. What is added
    # to a model that may be served, such as a new version's folder, appears when all of it has arrived.
    batches = [sent] if there else [[name] for name in sent]
    for name in empty:
        target.make_folder(name)
    try:
        for batch in batches:
            for name in batch:
                target.stage(files[name], name, digests[name], _teller(progress, name))
            target.commit(batch)
            wrong = [name for name in batch if verify and target.read_back(name) != digests[name]]
            if wrong:
                raise VelagenError(
                    Problem("arrived changed: what was read back is not what was sent", Place(name)) for name in wrong
                )
    finally:
        target.discard()
    for name in extra if delete else ():
        target.remove(name)
    return PushReport(
        target.uri,
        tuple(sent),
        tuple(name for name in files if name not in sent),
        () if delete else tuple(extra),
        tuple(extra) if delete else (),
        sum(files[name].stat().st_size for name in sent),
    )


def _refuse_another_model(
    target: Target, changed: Sequence[str], extra: Sequence[str], *, overwrite: bool, delete: bool
) -> None:
    place = Place(target.uri or None)
    problems = []
    if changed and not overwrite:
        problems.append(
            Problem(
                f"the target holds another model: {_listed(changed)} there differ",
                place,
                "push to a path of its own, such as one that ends in the next number; --overwrite replaces them",
            )
        )
    if extra and not overwrite and not delete:
        problems.append(
            Problem(
                f"the target holds what the package does not: {_listed(extra)}",
                place,
                "push to a path of its own; --delete removes them, --overwrite leaves them there",
            )
        )
    if problems:
        raise VelagenError(problems)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _teller(progress: Progress | None, name: str) -> Callable[[int], None]:
    return (lambda _count: None) if progress is None else (lambda count: progress(name, count))


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
        image: image of the pod that mounts the claim; it needs sh, head, find, mv, wc and sha256sum.
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
            raise VelagenError(Problem(f"{head!r} is not a valid PersistentVolumeClaim name", Place(text)))
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

    keeps_empty_folders = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._id = uuid.uuid4().hex[:8]
        self._staged: dict[str, Path] = {}

    @property
    def uri(self) -> str:
        """A folder of this machine is not a place a cluster can fetch from."""
        return ""

    def digests(self) -> dict[str, str]:
        """From the files themselves."""
        if not self.folder.is_dir():
            return {}
        return {name: file_digest(path) for name, path in _walk(self.folder) if not name.endswith(_STAGED)}

    def stage(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Copied into a hidden file of the deepest folder that is there already."""
        goal = self.folder / name
        if goal.is_dir():
            raise VelagenError(Problem("a folder of that name is there", Place(str(goal))))
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = next(parent for parent in goal.parents if parent.is_dir()) / _staged_name(name, self._id)
        self._staged[name] = beside
        with path.open("rb") as source, beside.open("xb") as copy:
            for piece in _pieces(source):
                copy.write(piece)
                progress(len(piece))
            copy.flush()
            os.fsync(copy.fileno())
        shutil.copymode(path, beside)
        _same(file_digest(beside), digest, path)

    def commit(self, names: Sequence[str]) -> None:
        """Renamed: a reader sees the old file or the new one."""
        for name in names:
            goal = self.folder / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            self._staged[name].replace(goal)
            del self._staged[name]

    def discard(self) -> None:
        """Delete this push's staged files, and those that a killed one left long ago."""
        for path in self._staged.values():
            path.unlink(missing_ok=True)
        self._staged.clear()
        oldest = time.time() - _STALE_HOURS * 3600
        for path in self.folder.rglob(_staged_pattern()):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink()

    def make_folder(self, name: str) -> None:
        """Make it and those above it."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)

    def read_back(self, name: str) -> str:
        """From the file."""
        return file_digest(self.folder / name)

    def remove(self, name: str) -> None:
        """Delete it; folders stay."""
        (self.folder / name).unlink()


def _staged_name(name: str, push_id: str) -> str:
    """A hidden file's name, of bounded length, that no other push takes for ``name``."""
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.{push_id}{_STAGED}"


def _staged_pattern(push_id: str = "?" * 8) -> str:
    """A shell pattern of the staged files' names, of one push or of any."""
    return f".{'?' * 16}.{push_id}{_STAGED}"


def _same(found: str, wanted: str, path: Path) -> None:
    if found != wanted:
        raise VelagenError(Problem("changed while it was sent: push again", Place(str(path))))


def s3_client(endpoint_url: str | None = None) -> Any:
    """A boto3 client with the usual AWS_* settings."""
    import boto3
    from botocore.config import Config

    # A server named by hand is seldom one that has a DNS name for each bucket.
    style = "path" if endpoint_url or os.environ.get("AWS_ENDPOINT_URL") else "auto"
    return boto3.client(
        "s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": style}, retries={"max_attempts": 5})
    )


@dataclass
class _Upload:
    """A multipart upload that is under way: its id, and its parts once all are sent."""

    identifier: str
    parts: list[dict[str, Any]] = field(default_factory=list)


class S3Target:
    """Objects under a prefix of a bucket, through a boto3 client; its ClientError is raised as VelagenError."""

    keeps_empty_folders = False

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._small: dict[str, tuple[Path, str]] = {}
        self._large: dict[str, _Upload] = {}

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

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

    def stage(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """A large file is sent in parts, which become an object when `commit` says so; a small one waits for that."""
        size = path.stat().st_size
        if size <= _PART:
            self._small[name] = (path, digest)
            progress(size)
            return
        with self._said():
            upload = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._key(name), Metadata={_METADATA: digest}
            )["UploadId"]
            self._large[name] = _Upload(upload)
            self._large[name].parts = self._send_parts(path, name, digest, upload, progress)

    def _send_parts(
        self, path: Path, name: str, digest: str, upload: str, progress: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        """Some at a time, hashed in their order; the parts as the completion wants them."""
        # S3 takes at most 10,000 parts.
        size = max(_PART, -(-path.stat().st_size // 9_000))
        sha = hashlib.sha256()
        waiting: deque[tuple[int, int, Future[dict[str, Any]]]] = deque()
        parts: list[dict[str, Any]] = []

        def send(number: int, piece: bytes) -> dict[str, Any]:
            answer = self._client.upload_part(
                Bucket=self._bucket, Key=self._key(name), UploadId=upload, PartNumber=number, Body=piece
            )
            # With the checksum that the client sent, if it did: the server compares it once more.
            return {key: value for key, value in answer.items() if key == "ETag" or key.startswith("Checksum")}

        def take() -> None:
            number, length, result = waiting.popleft()
            parts.append({"PartNumber": number, **result.result()})
            progress(length)

        with path.open("rb") as file, ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                number = 0
                while piece := file.read(size):
                    number += 1
                    sha.update(piece)
                    waiting.append((number, len(piece), pool.submit(send, number, piece)))
                    if len(waiting) >= _AT_ONCE:
                        take()
                while waiting:
                    take()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        _same(sha.hexdigest(), digest, path)
        return parts

    def commit(self, names: Sequence[str]) -> None:
        """Each object appears whole, with what was staged."""
        for name in names:
            with self._said():
                if name in self._large:
                    self._client.complete_multipart_upload(
                        Bucket=self._bucket,
                        Key=self._key(name),
                        UploadId=self._large[name].identifier,
                        MultipartUpload={"Parts": self._large[name].parts},
                    )
                    del self._large[name]
                    continue
                path, digest = self._small.pop(name)
                content = path.read_bytes()
                _same(hashlib.sha256(content).hexdigest(), digest, path)
                self._client.put_object(
                    Bucket=self._bucket, Key=self._key(name), Body=content, Metadata={_METADATA: digest}
                )

    def discard(self) -> None:
        """Tell the server to forget the parts."""
        self._small.clear()
        while self._large:
            name, upload = self._large.popitem()
            with contextlib.suppress(VelagenError), self._said():
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=self._key(name), UploadId=upload.identifier
                )

    def make_folder(self, name: str) -> None:
        """Not possible: KServe's storage initializer leaves out the empty objects that stand for folders."""
        raise VelagenError(Problem("an object store holds no empty folder", Place(f"{self.uri}/{name}")))

    def read_back(self, name: str) -> str:
        """From the object's bytes."""
        sha = hashlib.sha256()
        with self._said():
            body = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
            for piece in body.iter_chunks(CHUNK):
                sha.update(piece)
        return sha.hexdigest()

    def remove(self, name: str) -> None:
        """Delete the object."""
        with self._said():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

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


#: Takes: the target's folder, a file's place, the hidden file's name, length, SHA-256. Writes the hidden file into the
#: deepest folder that is there already and prints its path. The length goes first: an exec's input can't be closed.
_STAGE = """
mkdir -p "$1" || exit 1
[ ! -d "$2" ] || { echo "a folder of that name is there: $2" >&2; exit 1; }
folder=$(dirname "$2")
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
head -c "$4" > "$folder/$3" || { rm -f "$folder/$3"; exit 1; }
if [ "$(wc -c < "$folder/$3")" -ne "$4" ] || [ "$(sha256sum < "$folder/$3" | cut -c1-64)" != "$5" ]; then
  rm -f "$folder/$3"; echo "what arrived is not what was sent" >&2; exit 1
fi
printf %s "$folder/$3"
"""
#: Takes pairs of a staged file and its place.
_COMMIT = """
while [ $# -gt 1 ]; do
  mkdir -p "$(dirname "$2")" && mv -f "$1" "$2" || exit 1
  shift 2
done
"""
_LIST = """
[ -d "$1" ] || exit 0
cd "$1" && find . -type f ! -path "./lost+found/*" ! -name "*$2" -print0
"""


class PvcTarget:
    """A folder of a volume, through a shell in a pod that mounts it at ``mount``."""

    keeps_empty_folders = True

    def __init__(self, shell: Shell, claim: str, path: str, *, mount: str = "/velagen") -> None:
        self._shell = shell
        self._claim = claim
        self._path = path
        self._folder = f"{mount}/{path}" if path else mount
        self._id = uuid.uuid4().hex[:8]
        self._staged: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """Claim and path."""
        return f"pvc://{self._claim}/{self._path}".rstrip("/")

    def digests(self) -> dict[str, str]:
        """From the files, in the pod."""
        # Names are ended by a NUL byte each, so that any name comes through.
        listing = self._run(_LIST, self._folder, _STAGED)
        names = [name.removeprefix("./") for name in listing.split("\0") if name]
        return {name: self.read_back(name) for name in names}

    def stage(self, path: Path, name: str, digest: str, progress: Callable[[int], None]) -> None:
        """Written into a hidden file, whose length and digest the pod compares before it keeps it."""
        arguments = [self._folder, self._place(name), _staged_name(name, self._id), str(path.stat().st_size), digest]
        with path.open("rb") as file:
            self._staged[name] = self._shell(_STAGE, arguments, file, progress)

    def commit(self, names: Sequence[str]) -> None:
        """Renamed: a reader sees the old file or the new one. A call that has begun runs on without this side."""
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            self._run(_COMMIT, *(part for name in batch for part in (self._staged[name], self._place(name))))
            for name in batch:
                del self._staged[name]

    def discard(self) -> None:
        """Delete this push's staged files, and those that a killed one left long ago."""
        self._staged.clear()
        script = """[ -d "$1" ] || exit 0
            find "$1" -type f \\( -name "$2" -o -name "$3" -mmin "+$4" \\) -exec rm -f {} +"""
        with contextlib.suppress(VelagenError, OSError):
            patterns = _staged_pattern(self._id), _staged_pattern()
            self._run(script, self._folder, *patterns, str(_STALE_HOURS * 60))

    def make_folder(self, name: str) -> None:
        """Make it and those above it."""
        self._run('mkdir -p "$1"', self._place(name))

    def read_back(self, name: str) -> str:
        """From the file, in the pod."""
        return self._run('sha256sum < "$1"', self._place(name)).split()[0]

    def remove(self, name: str) -> None:
        """Delete it; folders stay."""
        self._run('rm -f "$1"', self._place(name))

    def _place(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _run(self, script: str, *arguments: str) -> str:
        return self._shell(script, list(arguments), None, lambda _count: None)


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
        from websocket import WebSocketException

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
        broke: Exception | None = None
        try:
            try:
                for piece in _pieces(stdin) if stdin is not None else ():
                    connection.write_stdin(piece)
                    progress(len(piece))
            except (WebSocketException, OSError) as error:
                # A script that fails early stops reading: what it has to say is on its way still.
                broke = error
            # Until the script has ended: what it printed, and its status, are collected on the way.
            connection.run_forever(timeout=None if broke is None else 5)
            status = yaml.safe_load(connection.read_channel(ERROR_CHANNEL) or b"null")
            output, complaint = (connection.read_channel(channel) for channel in (STDOUT_CHANNEL, STDERR_CHANNEL))
            if broke is not None or not isinstance(status, dict) or status.get("status") != "Success":
                said = complaint.decode(errors="replace").strip()
                early = f"the connection ended early{f': {broke}' if broke else ''}"
                reason = status.get("message") if isinstance(status, dict) else early
                raise VelagenError(Problem(f"in the pod: {said or reason}"))
            return str(output.decode(errors="surrogateescape"))
        except (WebSocketException, OSError) as error:
            raise VelagenError(Problem(f"in the pod: the connection ended early: {broke or error}")) from error
        finally:
            with contextlib.suppress(WebSocketException, OSError):
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
