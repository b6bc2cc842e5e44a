"""environment.tar.gz: the Python environment that a package brings for MLServer, as conda-pack writes it.

MLServer's image starts by unpacking /mnt/models/environment.tar.gz, if it is there, and runs from it (MLServer,
Dockerfile: MLSERVER_ENV_TARBALL, and hack/activate-env.sh). What is in the image's own environment does not count then.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from velagen.errors import Place, Problem, VelagenError
from velagen.model.pickle_machine import Source, UnreadableError
from velagen.model.runtimes import Runtime

#: Where the image looks for it.
NAME: Final = "environment.tar.gz"
_MOST_UNPACKED: Final = 256 * 1024 * 1024
_MOST_TIMES: Final = 200
_PACKAGE: Final = re.compile(r"(?:\./)?lib/python(3\.\d+)/site-packages/([^/]+)-([^/-]+)\.(?:dist|egg)-info(?:/|$)")
_PYTHON: Final = re.compile(r"(?:\./)?conda-meta/python-(3\.[0-9.]+)-[^/]*\.json$")
_ACTIVATE: Final = re.compile(r"(?:\./)?bin/activate$")


def read_environment(path: Path, runtime: Runtime) -> Runtime:
    """What a server that runs from the tarball at ``path`` holds, read from the names of its files alone.

    VelagenError when it can't be read, or a server can't start from it.
    """
    packages: dict[str, Version] = {}
    python: Version | None = None
    activates = False
    place = Place(str(path))
    try:
        with path.open("rb") as file, gzip.open(file) as stream:
            source = Source(stream, max(_MOST_UNPACKED, _MOST_TIMES * path.stat().st_size))  # type: ignore[arg-type]  # has read()
            with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]  # all a stream needs
                for member in archive:
                    archive.members = []  # it keeps them all otherwise
                    activates = activates or bool(_ACTIVATE.match(member.name))
                    if found := _PACKAGE.match(member.name):
                        python = python or Version(found[1])
                        try:
                            packages[canonicalize_name(found[2])] = Version(found[3])
                        except InvalidVersion:
                            continue
                    elif found := _PYTHON.match(member.name):
                        python = Version(found[1])
    except (OSError, EOFError, tarfile.TarError, zlib.error, UnreadableError, ValueError) as error:
        raise VelagenError(Problem(f"can't be unpacked: {error}", place, "conda-pack writes it")) from error
    missing = [name for name in ("mlserver", "mlserver-mlflow") if name not in packages]
    if python is None or not activates:
        raise VelagenError(Problem("this archive does not contain a Python environment", place, "conda-pack writes it"))
    if missing:
        message = f"has no {' and no '.join(missing)}, and the server runs from it"
        raise VelagenError(Problem(message, place, f"pip install {' '.join(missing)}, then conda-pack"))
    return Runtime("the package's environment", python, packages, frozenset(), runtime.imports)
