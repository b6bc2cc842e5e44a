"""What a pickle would import and call, read from its opcodes; nothing in it is ever loaded or run.

A pickle is a program for a small stack machine. This one runs it with symbols in the place of objects: an import
gives a name, a call
gives a note of what was called. joblib's files are pickles with raw arrays between the opcodes, so the machine must
know an array's size
to find the next opcode. Where the bytes end early or say something else, the report says that the rest was not seen.
"""

from __future__ import annotations

import _compat_pickle
import bz2
import gzip
import io
import lzma
import math
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol

#: Endings of files that are read as pickles.
SUFFIXES: Final = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What no honest model imports: running programs, code from text, the network, files, and ways round this list.
_UNSAFE_MODULES: Final = _words("""
    os posix nt subprocess sys shutil pty socket ssl ctypes _ctypes cffi importlib runpy imp pkgutil code codeop pdb bdb
    cProfile profile timeit trace multiprocessing concurrent threading _thread asyncio signal urllib http ftplib smtplib
    telnetlib xmlrpc requests httpx aiohttp webbrowser antigravity pip ensurepip setuptools venv pickle _pickle marshal
    shelve dbm sqlite3 tempfile io _io glob fileinput gc commands platform distutils idlelib lib2to3 pydoc doctest
    unittest test site zipimport zipfile tarfile winreg _winapi msvcrt
""")
_UNSAFE_NAMES: Final = _words("""
    builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.open builtins.input builtins.breakpoint
    builtins.getattr builtins.setattr builtins.delattr builtins.globals builtins.locals builtins.vars builtins.map
    operator.attrgetter operator.methodcaller operator.call numpy.testing._private.utils.runstring
    numpy.f2py.crackfortran.myeval torch.hub.load torch.load joblib.load numpy.load pandas.read_pickle
""")
#: Unsafe whatever module gives them: many modules hand on what they import.
_UNSAFE_ANYWHERE: Final = _words("system popen Popen check_output check_call eval exec __import__ execv spawnv fork")
#: Code that a function in the pickle brings along: cloudpickle's own makers. Not unsafe by name, but it runs what it
#: brings.
_CODE_MAKERS: Final = re.compile(r"(cloudpickle|dill|joblib\.externals\.cloudpickle)(\.\w+)*$")
_CODE_MAKER_NAMES: Final = frozenset(
    ("_make_function", "_make_skel_func", "_function_setstate", "_create_code", "_create_function", "_builtin_type")
)
#: A pickle longer than this many opcodes is taken for an attempt to keep the reader busy.
_MOST_OPCODES: Final = 20_000_000
_MOST_UNPACKED: Final = 4 * 2**30
#: From this protocol on names are written as they are.
_NEW_NAMES: Final = 3
#: Place of the width in a dtype's state.
_DTYPE_WIDTH: Final = 5
_JOBLIB_ARRAY: Final = "NumpyArrayWrapper"


@dataclass(frozen=True)
class PickleReport:
    """What was found in one file."""

    #: Every (module, name) it imports.
    imports: frozenset[tuple[str, str]] = frozenset()
    #: Sentences on what makes it unsafe; empty for a file that only builds objects.
    unsafe: tuple[str, ...] = ()
    #: Why the reader stopped before the end; empty when all was seen.
    unread: str = ""
    #: Whether it carries Python functions as byte code, which only the same minor version of Python can run.
    brings_code: bool = False

    @property
    def modules(self) -> frozenset[str]:
        """Top-level modules it imports."""
        return frozenset(module.partition(".")[0] for module, _ in self.imports)


@dataclass
class _Made:
    """An object the pickle would make: by calling ``by``, with these arguments and then this state."""

    by: object
    arguments: object = None
    state: object = None
    #: Whether it is an instance of ``by``, a class other than str, rather than what calling it returned.
    instance: bool = False

    def makes(self, class_name: str) -> bool:
        """Whether it is of that class: made by it, or by a helper that got it as an argument."""
        parts = (self.by, *(self.arguments if isinstance(self.arguments, tuple) else ()))
        return any(isinstance(part, _Import) and part.name == class_name for part in parts)


@dataclass(frozen=True)
class _Import:
    module: str
    name: str


class _UnreadableError(Exception):
    """The bytes are not what the machine can follow."""


_MARK: Final = object()
_UNKNOWN: Final = object()


def is_pickle(path: Path) -> bool:
    """Whether the file is read as a pickle: by its name, or by the first bytes that protocol 2 and later write."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError:
        return False
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def scan(path: Path) -> PickleReport:
    """Read the file at ``path`` (a pickle, a joblib file, a PyTorch archive) without loading it; OSError when it
    can't be read.
    """
    if zipfile.is_zipfile(path):
        return _scan_archive(path)
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        opened: BinaryIO
        try:
            if head[:2] == b"\x1f\x8b":
                with gzip.open(file) as stream:
                    opened = _unpacked(stream)
            elif head[:3] == b"BZh":
                with bz2.open(file) as stream:
                    opened = _unpacked(stream)
            elif head[:6] == b"\xfd7zXZ\x00" or head[:1] == b"\x5d":
                with lzma.open(file) as stream:
                    opened = _unpacked(stream)
            elif head[:1] == b"\x78":
                opened = _inflated(file)
            else:
                opened = file
            return _read(opened)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            return PickleReport(unread=f"it can't be unpacked: {error}")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes."""


def _read(file: BinaryIO) -> PickleReport:
    """Both ways a loader may read it: joblib's, which steps over arrays, and pickle's, to which the same bytes are
    opcodes.
    """
    start = file.tell()
    machine = _Machine(file)
    report = machine.run()
    if not machine.skipped:
        return report
    file.seek(start)
    # For an honest file of joblib this ends in an array's first bytes; for one made to look like that it does not.
    plain = _Machine(file, arrays=False).run()
    return replace(report, unsafe=tuple(dict.fromkeys((*report.unsafe, *plain.unsafe))))


def _unpacked(stream: _Readable) -> BinaryIO:
    data = stream.read(_MOST_UNPACKED + 1)
    if len(data) > _MOST_UNPACKED:
        raise OSError("more than 4 GiB when unpacked")
    return io.BytesIO(data)


def _inflated(file: BinaryIO) -> BinaryIO:
    machine = zlib.decompressobj()
    data = machine.decompress(file.read(), _MOST_UNPACKED)
    if machine.unconsumed_tail:
        raise OSError("more than 4 GiB when unpacked")
    return io.BytesIO(data)


def _scan_archive(path: Path) -> PickleReport:
    """A zip as torch.save writes it: each pickle in it, as one report."""
    reports = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.lower().endswith(SUFFIXES):
                if member.file_size > _MOST_UNPACKED:
                    reports.append(PickleReport(unread=f"{member.filename} is more than 4 GiB"))
                    continue
                reports.append(_read(io.BytesIO(archive.read(member))))
    return PickleReport(
        frozenset().union(*(report.imports for report in reports)),
        tuple(sentence for report in reports for sentence in report.unsafe),
        "; ".join(report.unread for report in reports if report.unread),
        any(report.brings_code for report in reports),
    )


#: What bytes that are no pickle can lead to: wrong constants, an empty stack, unheard-of sizes, arrays within arrays.
_TROUBLE: Final = (
    _UnreadableError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@dataclass
class _Machine:
    """The stack machine, over symbols."""

    file: BinaryIO
    #: Whether raw arrays of joblib are stepped over.
    arrays: bool = True
    #: How many were.
    skipped: int = 0
    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    imports: set[tuple[str, str]] = field(default_factory=set)
    unsafe: dict[str, None] = field(default_factory=dict)
    protocol: int = 0

    def run(self) -> PickleReport:
        unread = ""
        try:
            end = self._pickle()
            self.file.seek(end)
            # A second pickle may follow the first (cloudpickle of some makers, or a payload behind an innocent one).
            # The bytes of arrays, read as opcodes, can't be followed beyond the end that they seem to have.
            while self.arrays and self.file.read(1):
                self.file.seek(end)
                self.stack.clear()
                self.memo.clear()
                self.protocol = 0
                end = self._pickle()
                self.file.seek(end)
        except _TROUBLE as error:
            unread = f"stopped at byte {self.file.tell()}: {error or type(error).__name__}"
        brings_code = any(
            (_CODE_MAKERS.match(module) and name in _CODE_MAKER_NAMES) or (module, name) == ("types", "CodeType")
            for module, name in self.imports
        )
        return PickleReport(frozenset(self.imports), tuple(self.unsafe), unread, brings_code)

    def _pickle(self) -> int:
        for count, (opcode, argument, _) in enumerate(_opcodes(self.file)):
            if count > _MOST_OPCODES:
                raise _UnreadableError("more opcodes than any model has")
            if opcode.name == "STOP":
                return self.file.tell()
            self._step(opcode, argument)
        raise _UnreadableError("it ends early")

    def _step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        name, stack = opcode.name, self.stack
        if name == "FRAME":
            return
        if name == "PROTO":
            self.protocol = _integer(argument)
            return
        if name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[_integer(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[_integer(argument)])
        elif name in ("GLOBAL", "INST"):
            module, _, attribute = str(argument).partition(" ")
            made = self._import(module, attribute)
            stack.append(made if name == "GLOBAL" else self._call(made, tuple(self._to_mark())))
        elif name == "STACK_GLOBAL":
            last = stack.pop()
            stack.append(self._import(stack.pop(), last))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, callee = stack.pop(), stack.pop()
            result = self._call(callee, arguments)
            result.instance = name == "NEWOBJ" and callee != _Import("builtins", "str")
            stack.append(result)
        elif name == "NEWOBJ_EX":
            keywords, arguments, callee = stack.pop(), stack.pop(), stack.pop()
            stack.append(self._call(callee, (arguments, keywords)))
        elif name == "OBJ":
            callee, *rest = self._to_mark()
            stack.append(self._call(callee, tuple(rest)))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            if isinstance(target, _Made):
                # A second state adds to the first.
                if isinstance(target.state, dict) and isinstance(state, dict):
                    target.state = {**target.state, **state}
                else:
                    target.state = state
                if self.arrays and target.makes(_JOBLIB_ARRAY):
                    self._skip_array(target.state)
            elif self.arrays and any(attribute == _JOBLIB_ARRAY for _, attribute in self.imports):
                raise _UnreadableError("an array that is made in an unusual way")
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("DICT", "SETITEMS"):
            pairs = self._to_mark()
            if name == "DICT":
                stack.append({})
            self._fill(stack[-1], pairs)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._fill(stack[-1], [key, value])
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("PERSID", "BINPERSID"):
            # What a loader does with such an id is the loader's affair; PyTorch's are tensors.
            if name == "BINPERSID":
                stack.pop()
            stack.append(_UNKNOWN)
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.unsafe["it uses the extension registry, which can stand for any import"] = None
            stack.append(_UNKNOWN)
        elif name in ("NEXT_BUFFER", "BYTEARRAY8"):
            stack.append(_UNKNOWN)
        elif name != "READONLY_BUFFER":
            # All that is left pushes the constant that is its argument.
            stack.append(argument)

    def _to_mark(self) -> list[object]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise _UnreadableError("a mark is missing")

    def _fill(self, target: object, pairs: list[object]) -> None:
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if isinstance(key, str | int | float | bytes | bool):
                    target[key] = value

    def _import(self, module: object, name: object) -> object:
        for part in (module, name):
            # A loader takes a text and nothing else; an instance of a class is none, what a call returns may be one.
            text = isinstance(part, str) or (isinstance(part, _Made) and not part.instance) or part is _UNKNOWN
            if not text:
                raise _UnreadableError("what it imports has no name")
        if not isinstance(module, str) or not isinstance(name, str):
            self.unsafe["it computes the name of what it imports, which hides it"] = None
            return _UNKNOWN
        if self.protocol < _NEW_NAMES:
            # Python 2's names, turned into today's as a loader does: cPickle is pickle, commands is subprocess.
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            elif module in _compat_pickle.IMPORT_MAPPING:
                module = _compat_pickle.IMPORT_MAPPING[module]
        self.imports.add((module, name))
        top = module.partition(".")[0]
        # From protocol 4 on a name may have dots, which reach through what a module has imported: joblib, "os.system".
        parts = name.split(".")
        reaches = len(parts) > 1 and any(part in _UNSAFE_MODULES or part.startswith("__") for part in parts)
        named = f"{module}.{name}" in _UNSAFE_NAMES or f"{module}.{parts[0]}" in _UNSAFE_NAMES
        if top in _UNSAFE_MODULES or named or reaches or parts[-1] in _UNSAFE_ANYWHERE:
            self.unsafe[f"it imports {module}.{name}"] = None
        return _Import(module, name)

    def _call(self, callee: object, arguments: object) -> _Made:
        by = callee.by if isinstance(callee, _Made) else None
        # cloudpickle fetches the types of code and functions by a call; that it brings code is said elsewhere.
        known = isinstance(by, _Import) and bool(_CODE_MAKERS.match(by.module)) and by.name == "_builtin_type"
        if isinstance(callee, _Made) and not known:
            # Calling what a call gave back: harmless only where the first call is.
            self.unsafe.setdefault("it calls what another call returned", None)
        return _Made(callee, arguments)

    def _skip_array(self, state: object) -> None:
        """Step over the raw array behind joblib's wrapper; a dtype of objects is a pickle within, which is run too."""
        if not isinstance(state, dict):
            raise _UnreadableError("an array of unknown shape")
        kind = state.get("dtype")
        made = isinstance(kind, _Made) and isinstance(kind.by, _Import) and kind.by.name == "dtype"
        arguments = kind.arguments if isinstance(kind, _Made) and made else None
        spelled = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if not isinstance(spelled, str):
            raise _UnreadableError("an array of unknown type")
        if spelled.startswith("O"):
            outer, self.stack = self.stack, []
            memo, self.memo = self.memo, {}
            self._pickle()
            self.stack, self.memo = outer, memo
            return
        match = re.fullmatch(r"[<>|=]?([biufcSVmM?]|U)(\d*)", spelled)
        shape = state.get("shape")
        if match is None or not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _UnreadableError(f"an array of type {spelled!r}")
        width = int(match[2] or 1) * (4 if match[1] == "U" else 1)
        described = kind.state if isinstance(kind, _Made) else None
        if match[1] in "SUV" and isinstance(described, tuple) and len(described) > _DTYPE_WIDTH:
            # Types of any width say it in the state: (version, order, subtype, names, fields, width, alignment, flags).
            width = _integer(described[_DTYPE_WIDTH])
            if width < 0:
                raise _UnreadableError("an array of unknown width")
        self.skipped += 1
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self.file.read(1)
            self._skip(padding[0] if padding else 0)
        self._skip(width * math.prod(int(n) for n in shape))

    def _skip(self, size: int) -> None:
        here = self.file.tell()
        self.file.seek(0, io.SEEK_END)
        if here + size > self.file.tell():
            raise _UnreadableError("an array is cut short")
        self.file.seek(here + size)


def _opcodes(file: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]:
    return pickletools.genops(file)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise _UnreadableError(f"{value!r} where a number must be")
    return value
