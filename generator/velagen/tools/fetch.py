"""Downloads that can be resumed and are checked before anything reads them."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from velagen.errors import Problem, VelagenError
from velagen.tools.report import Reporter
from velagen.tools.table import Digest

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 20
#: (connect, read) in seconds. A proxy that never answers must not hold the next road up.
_TIMEOUT = (10.0, 60.0)
_TRIES = 3


class RoadClosedError(Exception):
    """This road does not lead to the tool here; the next one may. The text says why."""


def hash_file(path: Path, algorithm: str) -> str:
    """Give the hex digest of a file."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    url: str,
    folder: Path,
    digest: Digest,
    reporter: Reporter,
    *,
    label: str,
    headers: dict[str, str] | None = None,
    session: requests.Session | None = None,
) -> Path:
    """Bring a file and check it.

    What arrived before an interruption stays in ``<folder>/<digest>.part``, and the next call goes on from there.
    The caller holds a lock, so nobody else writes that file.

    Args:
        digest: what the bytes must hash to.

    Returns:
        ``<folder>/<digest>``, whole and checked.

    Raises:
        RoadClosedError: the server can't be reached or does not have it.
        VelagenError: the bytes are not the pinned ones; the file is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / digest.value[:64]
    if target.exists():
        return target
    part = target.with_suffix(".part")
    receive(url, part, reporter, label=label, headers=headers, session=session)
    got = hash_file(part, digest.algorithm)
    if got != digest.value:
        part.unlink()
        raise VelagenError(
            Problem(
                f"{url}: {digest.algorithm} is {got}, but {digest.value} is pinned; the file was removed",
                hint="Something between you and the publisher changed it. Try again on another network, "
                "or leave this road out: VELAGEN_ROADS=path,cache,build.",
            )
        )
    part.replace(target)
    return target


def receive(
    url: str,
    part: Path,
    reporter: Reporter,
    *,
    label: str,
    headers: dict[str, str] | None = None,
    session: requests.Session | None = None,
) -> None:
    """Bring a file as it comes, going on from what is there of it; the caller checks it.

    Raises:
        RoadClosedError: the server can't be reached or does not have it.
    """
    import requests  # here, since a command that downloads nothing need not wait for it
    import urllib3

    owned = session or requests.Session()
    try:
        for attempt in range(1, _TRIES + 1):
            try:
                _pull(owned, url, part, headers or {}, reporter, label)
                break
            except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
                if attempt == _TRIES or not part.exists():
                    raise RoadClosedError(_short(error)) from error
                reporter.say(f"{label}: the connection broke, going on from byte {part.stat().st_size}")
            except requests.RequestException as error:
                raise RoadClosedError(_short(error)) from error
    finally:
        if session is None:
            owned.close()


def _pull(
    session: requests.Session, url: str, part: Path, headers: dict[str, str], reporter: Reporter, label: str
) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    asked = dict(headers)
    if have:
        asked["Range"] = f"bytes={have}-"
    with session.get(url, headers=asked, stream=True, timeout=_TIMEOUT) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is here already; the checksum decides
        if answer.status_code not in (requests.codes.ok, requests.codes.partial_content):
            raise RoadClosedError(f"{url} answered {answer.status_code} {answer.reason}")
        resumed = answer.status_code == requests.codes.partial_content
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("ab" if resumed else "wb") as out, reporter.bar(label, total=total, unit="bytes") as bar:
            done = start
            # Not iter_content(decode): a server that compresses on the fly would change the bytes we hash.
            for chunk in answer.raw.stream(_CHUNK, decode_content=False):
                out.write(chunk)
                done += len(chunk)
                bar.set(done)
        if total is not None and done < total:
            raise requests.ConnectionError(f"{url}: {done} of {total} bytes arrived")


def _short(error: Exception) -> str:
    text = str(error.__cause__ or error)
    return text if len(text) < 300 else text[:297] + "..."


def published_checksum(url: str, name: str) -> str:
    """Give ``sha256:...`` of a file of a release by the release's own list, lines of a checksum and a name.

    Args:
        url: of the list.
        name: of the file in it.

    Raises:
        RoadClosedError: the list can't be reached, or does not have the file.
    """
    import requests

    try:
        answer = requests.get(url, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise RoadClosedError(f"{url}: {_short(error)}") from error
    if not answer.ok:
        raise RoadClosedError(f"{url} answered {answer.status_code} {answer.reason}")
    for line in answer.text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[1].lstrip("*") == name and re.fullmatch("[0-9a-f]{64}", fields[0]):
            return f"sha256:{fields[0]}"
    raise RoadClosedError(f"{url} has no sha256 of {name}")


def extract(archive: Path, member: str | None, target: Path) -> None:
    """Write one file of an archive to a path.

    Args:
        archive: a .tar.gz or a .zip by content; without `member` the file itself is the tool.
        member: path inside; the first entry that is it or ends with ``/<member>`` counts.

    Raises:
        RoadClosedError: the archive does not hold it.
    """
    if member is None:
        with archive.open("rb") as source, target.open("wb") as out:
            _copy(source, out)
        return
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            for name in bundle.namelist():
                if _is(name, member):
                    with bundle.open(name) as source, target.open("wb") as out:
                        _copy(source, out)
                    return
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isfile() and _is(entry.name, member):
                    stream = tar.extractfile(entry)
                    if stream is not None:
                        with stream, target.open("wb") as out:
                            _copy(stream, out)
                        return
    raise RoadClosedError(f"{member} is not in {archive.name}")


def _is(name: str, member: str) -> bool:
    name = name.removeprefix("./").removeprefix("/")
    return name == member or name.endswith(f"/{member}")


def _copy(source: IO[bytes], out: IO[bytes]) -> None:
    while chunk := source.read(_CHUNK):
        out.write(chunk)
