"""What the pickles in a file would import and do; nothing in it is ever loaded or run.

A file is read in every way a loader may read it: from its first byte as a pickle, whatever else it is, and as what its
bytes say: an archive, a compressed file, an array of objects. What it imports is held against a list of what models
need (`Imports`); what is not listed is told, whether or not anybody knows harm of it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from velagen.model.imports import Imports, imports_for
from velagen.model.pickle_machine import Reading, Source, UnreadableError, read_pickle

#: Endings of files that are read as pickles.
SUFFIXES: Final = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")
#: What unpacks to more than this many bytes, and to more than this many times its size, is not read to its end.
_MOST_UNPACKED: Final = 256 * 1024 * 1024
_MOST_TIMES: Final = 200
#: Members of an archive, and archives within archives, that are looked at.
_MOST_MEMBERS: Final = 100_000
_DEEPEST: Final = 3
_HEAD: Final = 16

#: Opens the same bytes anew, from their start, as a stream to read (files, members of archives and unpacked streams
#: share no type); whoever opens closes.
_Opener = Callable[[], Any]


@dataclass(frozen=True)
class PickleReport:
    """What was found in one file."""

    #: Every (module, name) it imports.
    imports: frozenset[tuple[str, str]] = frozenset()
    #: Those that are not listed.
    unlisted: tuple[tuple[str, str], ...] = ()
    #: Modules that it imports as a whole and that are not listed.
    unlisted_modules: tuple[str, ...] = ()
    #: Sentences on what else makes it unsafe.
    doubts: tuple[str, ...] = ()
    #: Why the reader stopped before the end; empty when all was seen, or the file is not a pickle.
    unread: str = ""
    #: Whether it carries Python functions or classes as byte code, which only the same minor version of Python can run.
    brings_code: bool = False
    #: scikit-learn's versions that wrote its estimators.
    sklearn_versions: frozenset[str] = frozenset()

    @property
    def unsafe(self) -> tuple[str, ...]:
        """Sentences on all that makes it unsafe; empty for a file that only builds what models are made of."""
        names = [f"it imports {module}.{name}" for module, name in self.unlisted]
        modules = [f"it imports the module {module}" for module in self.unlisted_modules]
        return tuple(dict.fromkeys((*self.doubts, *names, *modules)))

    @property
    def modules(self) -> frozenset[str]:
        """Top-level modules it imports."""
        return frozenset(module.partition(".")[0] for module, _ in self.imports)


def is_pickle(path: Path) -> bool:
    """Whether the file must be a pickle: by its name, or by the first bytes that protocol 2 and later write."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return _has_protocol(file.read(2))
    except OSError:
        return False


def scan(path: Path, allowed: Imports | None = None, *, expected: bool | None = None) -> PickleReport:
    """Read the file at ``path`` without loading it; OSError when it can't be opened.

    Args:
        path: any file.
        allowed: what may be imported; None: what the runtime mlflow may.
        expected: whether a loader takes it for a pickle, so that one that can't be read to its end is a fault; None:
            `is_pickle` says.
    """
    size = path.stat().st_size
    readings = list(_readings(lambda: path.open("rb"), size, is_pickle(path) if expected is None else expected, 0))
    allowed = imports_for("mlflow") if allowed is None else allowed
    imports = frozenset[tuple[str, str]]().union(*(reading.imports for reading in readings))
    modules = frozenset[str]().union(*(reading.modules for reading in readings))
    return PickleReport(
        imports,
        tuple(sorted(one for one in imports if not allowed.allow(*one))),
        tuple(sorted(one for one in modules if not allowed.allow_module(one))),
        tuple(dict.fromkeys(doubt for reading in readings for doubt in reading.doubts)),
        "; ".join(dict.fromkeys(reading.unread for reading in readings if reading.unread)),
        any(reading.brings_code for reading in readings),
        frozenset[str]().union(*(reading.sklearn_versions for reading in readings)),
    )


def _has_protocol(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _readings(opened: _Opener, size: int, expected: bool, depth: int, most: int | None = None) -> Iterator[Reading]:
    """Every reading of these bytes that a loader could come to; a failed one with its reason where ``expected``."""
    with opened() as file:
        head = file.read(_HEAD)
    other = _other_form(opened, head, size, expected, depth)
    found = False
    for reading in _as_pickle(opened, most):
        sensible = reading.whole or reading.acts
        # Bytes that are an archive, or anything that happens to start like a pickle, end in nonsense.
        if other is None and (expected or _has_protocol(head)) and reading.unread:
            found = True
            yield reading
        elif sensible and (reading.imports or reading.doubts):
            reading.unread = reading.unread if _has_protocol(head) else ""
            found = True
            yield reading
        found = found or reading.whole
    if other is not None:
        yield from other
    elif expected and not found:
        yield Reading(unread="it is not a pickle")


def _as_pickle(opened: _Opener, most: int | None) -> Iterator[Reading]:
    """Both ways a loader may read it.

    joblib's steps over arrays; to pickle's the same bytes are opcodes.
    """
    with opened() as file:
        reading = read_pickle(Source(file, most))
    yield reading
    if reading.skipped:
        # For an honest file of joblib this ends in an array's first bytes; for one made to look like that it does not.
        with opened() as file:
            plain = read_pickle(Source(file, most), arrays=False)
        plain.unread = ""
        yield plain


def _other_form(opened: _Opener, head: bytes, size: int, expected: bool, depth: int) -> Iterator[Reading] | None:
    """The readings of what is packed in these bytes; None when they are nothing that packs."""
    unpack = _unpacker(head)
    if unpack is not None:
        most = max(_MOST_UNPACKED, _MOST_TIMES * size)
        return _guarded(_readings(lambda: _Closing(opened(), unpack), most, expected, depth + 1, most), expected)
    if head.startswith(b"\x93NUMPY"):
        return _guarded(_array(opened), expected)
    with opened() as file:
        # Nobody looks for an archive within a compressed file.
        if not file.seekable():
            return None
        if zipfile.is_zipfile(file):
            return _guarded(_members(opened, _zip_members, depth), True)
        file.seek(0)
        # The mark of a tar's first header (ustar and GNU): tarfile alone takes zeros for an empty archive.
        if file.read(262)[257:262] == b"ustar":
            return _guarded(_members(opened, _tar_members, depth), True)
    return None


def _guarded(readings: Iterator[Reading], expected: bool) -> Iterator[Reading]:
    """What was read until the packing turned out to be damaged, and that."""
    try:
        yield from readings
    except (
        OSError,
        EOFError,
        UnreadableError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        if expected:
            yield Reading(unread=f"it can't be unpacked: {error or type(error).__name__}")


def _unpacker(head: bytes) -> Callable[[Any], Any] | None:
    if head[:2] == b"\x1f\x8b":
        return gzip.open
    if head[:3] == b"BZh":
        return bz2.open
    if head[:6] == b"\xfd7zXZ\x00" or head[:3] == b"\x5d\x00\x00":
        return lzma.open
    if head[:1] == b"\x78" and int.from_bytes(head[:2]) % 31 == 0:
        return lambda file: io.BufferedReader(_Inflating(file))
    return None


class _Closing(io.BufferedIOBase):
    """A stream of unpacked bytes, which closes the packed one with itself."""

    def __init__(self, packed: Any, unpack: Callable[[Any], Any]) -> None:
        self._packed = packed
        self._stream = unpack(packed)

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any stream."""
        data: bytes = self._stream.read(-1 if size is None else size)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        """As of any stream."""
        data: bytes = self._stream.readline(-1 if size is None else size)
        return data

    def seekable(self) -> bool:
        """Never: it is read forwards."""
        return False

    def close(self) -> None:
        """Both."""
        self._packed.close()
        super().close()


class _Inflating(io.RawIOBase):
    """The bytes of a zlib stream, a piece at a time."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._machine = zlib.decompressobj()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """zlib.error where the bytes are damaged; EOFError where they end early."""
        while not self._machine.eof:
            packed = self._machine.unconsumed_tail or self._packed.read(64 * 1024)
            data = self._machine.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                raise EOFError("it ends early")
        return 0


def _array(opened: _Opener) -> Iterator[Reading]:
    """An array of objects in NumPy's own format: a pickle behind a header (numpy/lib/format.py)."""
    with opened() as file:
        file.read(6)
        major = file.read(2)[:1]
        width = 2 if major == b"\x01" else 4
        header = file.read(min(int.from_bytes(file.read(width), "little"), 1024 * 1024))
        if b"|O" in header or b"'O'" in header:
            yield read_pickle(Source(file))


_Members = Callable[[IO[bytes]], Iterator[tuple[str, int, int, _Opener]]]


def _members(opened: _Opener, listed: _Members, depth: int) -> Iterator[Reading]:
    """Readings of each file in an archive; a pickle among them that can't be followed is a fault of the whole."""
    if depth >= _DEEPEST:
        raise UnreadableError("archives within archives within archives")
    with opened() as file:
        for count, (name, size, packed, member) in enumerate(listed(file)):
            if count >= _MOST_MEMBERS:
                raise UnreadableError(f"more than {_MOST_MEMBERS} files in it")
            expected = name.lower().endswith(SUFFIXES)
            most = max(_MOST_UNPACKED, _MOST_TIMES * packed)
            for reading in _readings(member, size, expected, depth + 1, most):
                reading.unread = f"{name} in it: {reading.unread}" if reading.unread else ""
                yield reading


def _zip_members(file: IO[bytes]) -> Iterator[tuple[str, int, int, _Opener]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield (
                    member.filename,
                    member.file_size,
                    member.compress_size,
                    lambda member=member: archive.open(member),  # type: ignore[misc]  # bound now, not when it is called
                )


def _tar_members(file: IO[bytes]) -> Iterator[tuple[str, int, int, _Opener]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile():

                def opener(member: tarfile.TarInfo = member) -> IO[bytes]:
                    stream = archive.extractfile(member)
                    if stream is None:  # a link, which isfile() has ruled out
                        raise UnreadableError(f"{member.name} can't be read")
                    return stream

                yield member.name, member.size, member.size, opener
