"""A binary out of a container image, by digest, over the registry's HTTP API. No Docker."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velagen.tools.fetch import RoadClosedError, download
from velagen.tools.report import Reporter
from velagen.tools.table import Digest, Image

if TYPE_CHECKING:
    import requests

_TIMEOUT = (10.0, 60.0)
#: The host that answers for a name which images are called by. Source: distribution/reference, Docker's domain.
_HOSTS = {"docker.io": "registry-1.docker.io"}
_ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


def take(image: Image, platform: str, target: Path, folder: Path, reporter: Reporter, *, scheme: str = "https") -> None:
    """Write the binary of an image to a path.

    Args:
        platform: such as ``linux-amd64``; must be in ``image.digests``.
        folder: where layers are kept while they are read.

    Raises:
        RoadClosedError: the registry can't be reached, or the image does not hold the file.
        VelagenError: a layer is not what its digest says.
    """
    import requests  # here, since a command that downloads nothing need not wait for it

    repository = image.repository.partition("/")[2]
    with requests.Session() as session:
        client = _Registry(session, _base(image, scheme))
        manifest = client.manifest(image.digests[platform])
        if "manifests" in manifest:
            manifest = client.manifest(_pick(manifest["manifests"], platform))
        # The file of the last layer that has it is the one a container would see.
        for layer in reversed(manifest["layers"]):
            algorithm, _, value = layer["digest"].partition(":")
            if algorithm != "sha256":
                raise RoadClosedError(f"layer digest {layer['digest']} is not a sha256")
            label = f"{repository}, layer {value[:12]}"
            blob = download(
                f"{client.base}/blobs/{layer['digest']}",
                folder,
                Digest("sha256", value),
                reporter,
                label=label,
                headers=client.headers(),
                session=session,
            )
            found = _read(blob, image.member, target)
            blob.unlink()
            if found:
                return
    raise RoadClosedError(f"{image.member} is in no layer of {image.repository}@{image.digests[platform]}")


def digest_of_tag(image: Image, tag: str, *, scheme: str = "https") -> str:
    """Give ``sha256:...`` of the manifest or index that a tag stands for now, computed from what came.

    Raises:
        RoadClosedError: the registry can't be reached, or does not know the tag.
    """
    import requests

    with requests.Session() as session:
        return _digest(_Registry(session, _base(image, scheme)).manifest_bytes(tag))


def _base(image: Image, scheme: str) -> str:
    host, _, repository = image.repository.partition("/")
    return f"{scheme}://{_HOSTS.get(host, host)}/v2/{repository}"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class _Registry:
    """The two requests of the distribution API that are needed."""

    def __init__(self, session: requests.Session, base: str) -> None:
        self.base = base
        self._session = session
        self._token = ""

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def manifest(self, digest: str) -> dict[str, Any]:
        content = self.manifest_bytes(digest)
        if (got := _digest(content)) != digest:
            raise RoadClosedError(f"{self.base}/manifests/{digest}: the manifest's digest is {got}")
        data: dict[str, Any] = json.loads(content)
        return data

    def manifest_bytes(self, reference: str) -> bytes:
        """The manifest under a digest or a tag, as it came."""
        import requests

        url = f"{self.base}/manifests/{reference}"
        try:
            answer = self._session.get(url, headers={"Accept": _ACCEPT, **self.headers()}, timeout=_TIMEOUT)
            if answer.status_code == requests.codes.unauthorized and not self._token:
                self._log_in(answer.headers.get("WWW-Authenticate", ""))
                answer = self._session.get(url, headers={"Accept": _ACCEPT, **self.headers()}, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise RoadClosedError(f"{url}: {error}") from error
        if not answer.ok:
            raise RoadClosedError(f"{url} answered {answer.status_code} {answer.reason}")
        return answer.content

    def _log_in(self, challenge: str) -> None:
        """Fetch the anonymous token a public registry asks for."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if "realm" not in fields:
            raise RoadClosedError(f"{self.base} wants a login")
        answer = self._session.get(
            fields["realm"],
            params={key: fields[key] for key in ("service", "scope") if key in fields},
            timeout=_TIMEOUT,
        )
        if not answer.ok:
            raise RoadClosedError(f"{fields['realm']} answered {answer.status_code} {answer.reason}")
        body = answer.json()
        self._token = str(body.get("token") or body.get("access_token") or "")


def _pick(manifests: list[dict[str, Any]], platform: str) -> str:
    for entry in manifests:
        where = entry.get("platform", {})
        if f"{where.get('os')}-{where.get('architecture')}" == platform:
            return str(entry["digest"])
    raise RoadClosedError(f"the image is not published for {platform}")


def _read(blob: Path, member: str, target: Path) -> bool:
    wanted = member.lstrip("/")
    try:
        with tarfile.open(blob) as tar:
            for entry in tar:
                if entry.isfile() and entry.name.removeprefix("./").lstrip("/") == wanted:
                    stream = tar.extractfile(entry)
                    if stream is None:
                        return False
                    with stream, target.open("wb") as out:
                        while chunk := stream.read(1 << 20):
                            out.write(chunk)
                    return True
    except tarfile.ReadError as error:
        raise RoadClosedError(f"layer {blob.name[:12]} is packed in a way Python can't read: {error}") from error
    return False
