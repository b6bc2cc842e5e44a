"""Whether the package at an address would serve, as far as it can be read from here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from velagen.errors import Place, Problem, VelagenError
from velagen.model.check import ModelReport, check_model
from velagen.model.push import s3_client
from velagen.model.runtimes import Runtime

#: Bytes that are brought here for a look; a large language model is not.
MOST_BYTES: Final = 2 << 30


class NotReadError(VelagenError):
    """Says why a package can't be read here, which tells nothing of the package."""


def check_at(
    uri: str, *, runtime: str | None = None, runtimes: Mapping[str, Runtime] | None = None, most: int = MOST_BYTES
) -> ModelReport:
    """What `check_model` says of the package at an address.

    In: ``file://``, a folder, or ``s3://``, which is brought here with the usual AWS_* settings; the runtime that the
    application names; the most bytes to bring. Raises NotReadError where it can't be read from here, VelagenError
    where there is nothing at the address.
    """
    with _local(uri, most) as folder:
        return check_model(folder, runtime=runtime, runtimes=runtimes)


@contextmanager
def _local(uri: str, most: int) -> Iterator[Path]:
    scheme, found, rest = uri.partition("://")
    if scheme == "s3":
        with tempfile.TemporaryDirectory(prefix="velagen-model-") as brought:
            _bring(uri, Path(brought), most)
            yield Path(brought)
        return
    if found and scheme != "file":
        raise NotReadError(Problem(f"velagen can't read {scheme}:// from here", Place(uri)))
    folder = Path(rest if found else uri)
    if not folder.is_dir():
        raise NotReadError(Problem("there is no such folder on this machine", Place(uri)))
    yield folder


def _bring(uri: str, folder: Path, most: int) -> None:
    try:
        client = s3_client()
    except VelagenError as error:
        raise NotReadError(error.problems) from error
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
        sizes = {one["Key"]: int(one["Size"]) for page in pages for one in page.get("Contents", ())}
        if not sizes:
            raise VelagenError(Problem("there is nothing at this address", Place(uri), "velagen model push brings it"))
        if sum(sizes.values()) > most:
            size = f"{sum(sizes.values()) / (1 << 30):.1f} GiB"
            raise NotReadError(Problem(f"it has {size}, too much to bring here for a look", Place(uri)))
        for key in sizes:
            name = PurePosixPath(key[len(prefix) :].lstrip("/"))
            if key.endswith("/"):
                continue
            if ".." in name.parts:
                raise VelagenError(Problem("a name with '..' in it", Place(f"s3://{bucket}/{key}")))
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchBucket", "404"):
            raise VelagenError(Problem(f"there is no bucket {bucket}", Place(uri))) from error
        raise NotReadError(Problem(f"the S3 server: {error}", Place(uri))) from error
    except (BotoCoreError, Boto3Error) as error:
        raise NotReadError(Problem(f"the S3 server: {error}", Place(uri))) from error
