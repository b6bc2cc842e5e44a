"""Runs a pickle with symbols in the place of objects: what it would import, call and carry, and where reading ended.

A pickle is a program for a small stack machine. An import gives a name here, a call a note of what was called.
joblib's files are pickles with raw arrays between the opcodes, so the machine must know an array's size to find the
next opcode. Time and memory are bounded, whatever the bytes say.
"""

from __future__ import annotations

import _compat_pickle
import io
import math
import pickletools
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final

#: Code that a function or class in the pickle brings along: cloudpickle's own makers.
_CODE_MAKERS: Final = re.compile(r"(cloudpickle|joblib\.externals\.cloudpickle)(\.\w+)*$")
_FUNCTION_MAKERS: Final = frozenset(
    ("_make_function", "_make_skel_func", "_function_setstate", "_create_code", "_create_function", "_builtin_type")
)
_CLASS_MAKERS: Final = frozenset(("_make_skeleton_class", "_make_skeleton_enum"))
_STATE_SETTERS: Final = frozenset(("_class_setstate", "_function_setstate"))
#: Names that lead on to others by their arguments: fine where they are called and the arguments can be read, not where
#: they are handed to something that may call them.
_LEADING_ON: Final = frozenset(
    ("getattr", "subimport", "dynamic_subimport", "_ufunc_reconstruct", "_load_from_bytes", "_builtin_type")
)
#: A pickle longer than this many opcodes is taken for an attempt to keep the reader busy.
_MOST_OPCODES: Final = 10_000_000
_BUFFER: Final = 64 * 1024
#: A constant longer than this is stepped over, not kept: no name is that long.
_LONGEST: Final = 1024 * 1024
#: From this protocol on names are written as they are.
_NEW_NAMES: Final = 3
#: Place of the width in a dtype's state.
_DTYPE_WIDTH: Final = 5
_JOBLIB_ARRAY: Final = "NumpyArrayWrapper"
#: Attributes of joblib's wrapper: it has fewer.
_MOST_ATTRIBUTES: Final = 64
#: What torch.save wrote before it wrote archives: this number, its protocol, the system, the object and the storages'
#: keys, a pickle each; then raw bytes, which no loader takes for a pickle (torch/serialization.py, _legacy_save).
_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
_TORCH_PICKLES: Final = 5
#: Pickles in a constant of a pickle.
_DEEPEST: Final = 3
_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
#: The text that SciPy's distributions carry and run when they are filled, as SciPy writes it for any arguments
#: (scipy/stats/_distn_infrastructure.py, parse_arg_template).
_SCIPY_TEMPLATE: Final = re.compile(
    r"""
def _parse_args\(self, (?P<names>(?:[^\W\d]\w*, )*) (?P<more>loc=0(?:, scale=1)?)\):
    return \((?P=names)\), loc, (?:scale|1)

def _parse_args_rvs\(self, (?P=names) (?P=more), size=None\):
    return self\._argcheck_rvs\((?P=names) loc, (?:scale|1), size=size\)

def _parse_args_stats\(self, (?P=names) (?P=more), moments='mv'\):
    return \((?P=names)\), loc, (?:scale|1), moments
"""
)
#: Opcodes whose argument is that many bytes of length, and then as many bytes as it says.
_SIZED: Final = {
    "BINSTRING": "<i",
    "BINBYTES": "<I",
    "BINBYTES8": "<Q",
    "BYTEARRAY8": "<Q",
    "BINUNICODE": "<I",
    "BINUNICODE8": "<Q",
    "LONG4": "<i",
}


#: Opcodes that push the constant that is their argument, those that most files are made of.
_CONSTANTS: Final = frozenset(
    (
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BININT",
        "BININT1",
        "BININT2",
        "BINFLOAT",
        "LONG1",
        "BINBYTES",
        "SHORT_BINBYTES",
    )
)
_OPCODES: Final = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


@dataclass
class Reading:
    """What one way of reading some bytes gave."""

    #: Every (module, name) it imports.
    imports: set[tuple[str, str]] = field(default_factory=set)
    #: Modules that it imports as a whole.
    modules: set[str] = field(default_factory=set)
    #: Sentences on what else makes it unsafe, in the order of the file.
    doubts: dict[str, None] = field(default_factory=dict)
    #: Why the reader stopped before the end; "" when all was seen.
    unread: str = ""
    #: Whether the first pickle was read to its end.
    whole: bool = False
    #: Whether it calls what it imports: a loader has done so when it comes to what can't be read.
    acts: bool = False
    #: Whether it carries functions or classes as byte code.
    brings_code: bool = False
    #: scikit-learn's versions that wrote its estimators.
    sklearn_versions: set[str] = field(default_factory=set)
    #: Raw arrays that were stepped over: to another loader their bytes are opcodes.
    skipped: int = 0


class UnreadableError(Exception):
    """The bytes are not what the machine can follow."""


class Source:
    """A stream that is read once, forwards; UnreadableError after ``most`` bytes."""

    def __init__(self, stream: IO[bytes], most: int | None = None) -> None:
        self._stream = stream
        self._most = most
        self._buffer = b""
        self._at = 0
        self._before = 0  # bytes that were in earlier buffers

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or what is left."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        pieces = []
        while size > 0 and self.more():
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def readline(self) -> bytes:
        """Up to the end of the line; of one that is too long for a name, its beginning."""
        pieces = []
        size = 0
        while size < _LONGEST and self.more():
            end = self._buffer.find(b"\n", self._at) + 1 or len(self._buffer)
            piece = self._buffer[self._at : end]
            self._at = end
            size += len(piece)
            pieces.append(piece)
            if piece.endswith(b"\n"):
                break
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Step over ``size`` bytes; UnreadableError when there are fewer."""
        while size > 0:
            if not self.more():
                raise UnreadableError("it is cut short")
            step = min(size, len(self._buffer) - self._at)
            self._at += step
            size -= step

    def more(self) -> bool:
        """Whether a byte is left."""
        if self._at == len(self._buffer):
            self._before += len(self._buffer)
            self._buffer, self._at = self._stream.read(_BUFFER), 0
            if self._most is not None and self._before + len(self._buffer) > self._most:
                raise UnreadableError(f"it unpacks to more than {self._most} bytes")
        return bool(self._buffer)

    def tell(self) -> int:
        """Bytes read so far."""
        return self._before + self._at


def read_pickle(source: Source, *, arrays: bool = True, depth: int = 0) -> Reading:
    """Read pickles one after another, to the end of ``source`` or until they can't be followed.

    Args:
        source: the bytes.
        arrays: step over raw arrays behind joblib's wrapper, as joblib does; else take all for opcodes, as pickle does.
        depth: how many pickles these bytes are a constant of.
    """
    machine = _Machine(source, arrays, depth)
    machine.run()
    return machine.reading


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

    def comes_from(self, package: str) -> bool:
        """Whether it is made by something of that package, or by a helper that got it as an argument."""
        parts = (self.by, *(self.arguments if isinstance(self.arguments, tuple) else ()))
        return any(isinstance(part, _Import) and f"{part.module}.".startswith(f"{package}.") for part in parts)

    @property
    def maker(self) -> str:
        """The name of the maker of cloudpickle's that made it, or ""."""
        by = self.by
        return by.name if isinstance(by, _Import) and _CODE_MAKERS.match(by.module) else ""


@dataclass(frozen=True)
class _Import:
    module: str
    name: str


_MARK: Final = object()
_UNKNOWN: Final = object()

#: What bytes that are not a pickle can lead to: wrong constants, an empty stack, huge sizes, arrays within arrays,
#: packed data that is damaged.
_TROUBLE: Final = (
    UnreadableError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
    EOFError,
    OSError,
    struct.error,
)


class _Machine:
    def __init__(self, source: Source, arrays: bool, depth: int) -> None:
        self.source = source
        self.arrays = arrays
        self.depth = depth
        self.reading = Reading()
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.protocol = 0

    def run(self) -> None:
        reading = self.reading
        try:
            torch = self._pickle() == _TORCH_MAGIC
            reading.whole = True
            count = 1
            # A second pickle may follow the first (cloudpickle of some makers, or a payload behind an innocent one).
            # The bytes of arrays, read as opcodes, can't be followed beyond the end that they seem to have.
            while self.arrays and self.source.more() and not (torch and count == _TORCH_PICKLES):
                self.stack.clear()
                self.memo.clear()
                self.protocol = 0
                self._pickle()
                count += 1
        except _TROUBLE as error:
            reading.unread = f"stopped at byte {self.source.tell()}: {error or type(error).__name__}"
        except Exception as error:  # zlib and lzma have errors of their own, which share no base class
            if type(error).__module__ not in ("zlib", "_lzma", "lzma", "zipfile"):
                raise
            reading.unread = f"it can't be unpacked: {error}"
        reading.brings_code = ("types", "CodeType") in reading.imports or any(
            _CODE_MAKERS.match(module) and name in _FUNCTION_MAKERS | _CLASS_MAKERS for module, name in reading.imports
        )

    def _doubt(self, sentence: str) -> None:
        self.reading.doubts[sentence] = None

    def _pickle(self) -> object:
        for count, (opcode, argument) in enumerate(_opcodes(self.source)):
            if count > _MOST_OPCODES:
                raise UnreadableError("more opcodes than any model has")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode, argument)
        raise UnreadableError("it ends early")

    def _step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        name, stack = opcode.name, self.stack
        if name in _CONSTANTS:
            stack.append(argument)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name == "FRAME":
            return
        elif name == "PROTO":
            self.protocol = _integer(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[_integer(argument)] = stack[-1]
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
            stack.append(self._call(callee, arguments, instance=name == "NEWOBJ"))
        elif name == "NEWOBJ_EX":
            keywords, arguments, callee = stack.pop(), stack.pop(), stack.pop()
            self._held((*_items(arguments), *_items(keywords)))
            stack.append(self._call(callee, (arguments, keywords), instance=True))
        elif name == "OBJ":
            callee, *rest = self._to_mark()
            stack.append(self._call(callee, tuple(rest)))
        elif name == "BUILD":
            self._build(stack.pop(), stack[-1])
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            self._held(stack[-size:])
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
            self._held(items)
            self._changed(stack[-1])
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
            self._doubt("it uses the extension registry, which can stand for any import")
            stack.append(_UNKNOWN)
        elif name in ("NEXT_BUFFER", "BYTEARRAY8"):
            stack.append(_UNKNOWN)
        elif name != "READONLY_BUFFER":
            # All that is left pushes the constant that is its argument.
            stack.append(argument)

    def _build(self, state: object, target: object) -> None:
        self._held((state,))
        self._changed(target)
        if isinstance(state, dict) and isinstance(state.get("_sklearn_version"), str):
            self.reading.sklearn_versions.add(state["_sklearn_version"])
        if isinstance(target, _Made) and target.comes_from("scipy.stats"):
            template = state.get("_parse_arg_template") if isinstance(state, dict) else _UNKNOWN
            if template is not None and not (isinstance(template, str) and _SCIPY_TEMPLATE.fullmatch(template)):
                self._doubt("it fills a distribution of scipy.stats with text that runs when it is loaded")
        wrapped = isinstance(target, _Made) and target.makes(_JOBLIB_ARRAY)
        if isinstance(target, _Made):
            # A second state adds to the first, which counts for joblib's wrapper alone.
            if wrapped and isinstance(target.state, dict) and isinstance(state, dict):
                if len(target.state) + len(state) > 2 * _MOST_ATTRIBUTES:
                    raise UnreadableError("an array of unknown shape")
                state = {**target.state, **state}
            target.state = state
            if self.arrays and wrapped:
                self._skip_array(state)
        elif self.arrays and any(attribute == _JOBLIB_ARRAY for _, attribute in self.reading.imports):
            raise UnreadableError("an array that is made in an unusual way")

    def _to_mark(self) -> list[object]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                self._held(items)
                return items
        raise UnreadableError("a mark is missing")

    def _held(self, items: Iterable[object]) -> None:
        """What these items are part of may call them."""
        for item in items:
            if isinstance(item, _Import) and item.name in _LEADING_ON:
                self._doubt(f"it hands on {item.module}.{item.name}, which reaches what has no name here")

    def _changed(self, target: object) -> None:
        whole = isinstance(target, _Made) and target.maker == "subimport"
        if isinstance(target, _Import) or whole:
            self._doubt("it changes what it imports")

    def _fill(self, target: object, pairs: list[object]) -> None:
        self._held(pairs)
        self._changed(target)
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if isinstance(key, str | int | float | bytes | bool):
                    target[key] = value

    def _import(self, module: object, name: object) -> object:
        for part in (module, name):
            # A loader takes a text and nothing else; an instance of a class is not one, what a call returns may be one.
            text = isinstance(part, str) or (isinstance(part, _Made) and not part.instance) or part is _UNKNOWN
            if not text:
                raise UnreadableError("what it imports has no name")
        if not isinstance(module, str) or not isinstance(name, str):
            self._doubt("it computes the name of what it imports, which hides it")
            return _UNKNOWN
        if not _IDENTIFIER.fullmatch(module) or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", name):
            raise UnreadableError("what it imports is not a name in Python")
        if self.protocol < _NEW_NAMES:
            # Python 2's names, turned into today's as a loader does: cPickle is pickle, commands is subprocess.
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            elif module in _compat_pickle.IMPORT_MAPPING:
                module = _compat_pickle.IMPORT_MAPPING[module]
        self.reading.imports.add((module, name))
        return _Import(module, name)

    def _call(self, callee: object, arguments: object, *, instance: bool = False) -> _Made:
        self.reading.acts = self.reading.acts or isinstance(callee, _Import)
        if isinstance(callee, _Made):
            # cloudpickle fetches the types of code and functions by a call, and makes classes that have instances:
            # that such a file brings code is said elsewhere. Any other call of what a call gave back is harmless only
            # where the first one is.
            if callee.maker not in _CLASS_MAKERS | {"_builtin_type"}:
                self._doubt("it calls what another call returned")
        elif callee is _UNKNOWN:
            self._doubt("it calls what has no name here")
        elif isinstance(callee, _Import):
            if not isinstance(arguments, tuple | list):
                self._doubt(f"it calls {callee.module}.{callee.name} with arguments that can't be read")
            self._lead_on(callee, tuple(_items(arguments)))
        return _Made(callee, arguments, instance=instance and callee != _Import("builtins", "str"))

    def _lead_on(self, callee: _Import, arguments: tuple[object, ...]) -> None:
        """Calls whose arguments name something else, or change it."""
        first, second = (*arguments, None, None)[:2]
        if callee == _Import("builtins", "getattr"):
            self._get_attribute(first, second)
        elif callee.name == "_ufunc_reconstruct":
            self._import(first, second)
        elif callee.name == "subimport" and _CODE_MAKERS.match(callee.module):
            if isinstance(first, str):
                self.reading.modules.add(first)
            else:
                self._doubt("it computes the name of a module that it imports")
        elif callee.name in _STATE_SETTERS and _CODE_MAKERS.match(callee.module):
            self._changed(first)
        elif callee == _Import("torch.storage", "_load_from_bytes"):
            self._load_constant(first)

    def _get_attribute(self, thing: object, name: object) -> None:
        # Python 3.11 writes members of an enum so, cloudpickle what all classes inherit, SciPy distributions' methods.
        member = isinstance(name, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
        if member and isinstance(thing, _Import) and re.search(r"(^|\.)_?[A-Z]\w*$", thing.name):
            return
        if (thing, name) == (_Import("builtins", "object"), "__new__"):
            return
        if isinstance(thing, _Made) and thing.comes_from("scipy.stats") and not str(name).startswith("__"):
            return
        self._doubt("it calls builtins.getattr for something other than a member of an enum")

    def _load_constant(self, data: object) -> None:
        if not isinstance(data, bytes) or self.depth >= _DEEPEST:
            self._doubt("it loads a pickle within, which was not read")
            return
        within = read_pickle(Source(io.BytesIO(data)), depth=self.depth + 1)
        self.reading.imports |= within.imports
        self.reading.modules |= within.modules
        self.reading.doubts |= within.doubts
        if within.unread:
            self._doubt("it loads a pickle within, which was not read to its end")

    def _skip_array(self, state: object) -> None:
        """Step over the raw array behind joblib's wrapper; a dtype of objects is a pickle within, which is run too."""
        if not isinstance(state, dict) or len(state) > _MOST_ATTRIBUTES:
            raise UnreadableError("an array of unknown shape")
        kind = state.get("dtype")
        made = isinstance(kind, _Made) and isinstance(kind.by, _Import) and kind.by.name == "dtype"
        arguments = kind.arguments if isinstance(kind, _Made) and made else None
        spelled = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if not isinstance(spelled, str):
            raise UnreadableError("an array of unknown type")
        if spelled.startswith("O"):
            outer, self.stack = self.stack, []
            memo, self.memo = self.memo, {}
            self._pickle()
            self.stack, self.memo = outer, memo
            return
        match = re.fullmatch(r"[<>|=]?([biufcSVmM?]|U)(\d*)", spelled)
        shape = state.get("shape")
        if match is None or not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UnreadableError(f"an array of type {spelled!r}")
        width = int(match[2] or 1) * (4 if match[1] == "U" else 1)
        described = kind.state if isinstance(kind, _Made) else None
        if match[1] in "SUV" and isinstance(described, tuple) and len(described) > _DTYPE_WIDTH:
            # Types of any width say it in the state: (version, order, subtype, names, fields, width, alignment, flags).
            width = _integer(described[_DTYPE_WIDTH])
            if width < 0:
                raise UnreadableError("an array of unknown width")
        self.reading.skipped += 1
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self.source.read(1)
            self.source.skip(padding[0] if padding else 0)
        self.source.skip(width * math.prod(int(n) for n in shape))


def _opcodes(source: Source) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """Each opcode with its argument; long constants are stepped over, and stand as unknown."""
    while code := source.read(1):
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise UnreadableError(f"byte {code[0]:#04x} is not an opcode")
        width = _SIZED.get(opcode.name)
        if width is not None:
            yield opcode, _sized(opcode.name, width, source)
        elif opcode.arg is not None:
            yield opcode, opcode.arg.reader(source)  # type: ignore[arg-type]  # it reads, and no more is asked of it
        else:
            yield opcode, None
        if opcode.name == "STOP":
            return


def _sized(name: str, width: str, source: Source) -> object:
    (size,) = struct.unpack(width, source.read(struct.calcsize(width)))
    if size < 0:
        raise UnreadableError("a constant of negative length")
    if size > _LONGEST:
        source.skip(size)
        return _UNKNOWN
    data = source.read(size)
    if len(data) < size:
        raise UnreadableError("it is cut short")
    if name == "LONG4":
        return int.from_bytes(data, "little", signed=True)
    if name.startswith("BINUNICODE"):
        return data.decode("utf-8", "surrogatepass")
    return data.decode("latin-1") if name == "BINSTRING" else data


def _items(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, tuple | list) else ()


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise UnreadableError(f"{value!r} where a number must be")
    return value
