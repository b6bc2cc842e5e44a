"""Where in the author's own files something was written: file, line and column."""

from __future__ import annotations

import linecache
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, TracebackType

from velagen.errors import Place

_HERE = Path(__file__).resolve()
_PACKAGE = str(_HERE.parents[1])
#: The words that an author calls; who called them is the author.
_WORDS = frozenset(str(_HERE.with_name(f"{name}.py")) for name in ("places", "expression", "functions", "body")) | {
    str(_HERE.parents[1] / "definition" / "model.py")
}
#: What Python's own machinery is called: a data class' __init__, the import system.
_NO_FILE = "<"

_positions: dict[int, tuple[CodeType, tuple[tuple[int | None, int | None, int | None, int | None], ...]]] = {}


@dataclass(frozen=True)
class Spot(Place):
    """A place in a definition, with the last line of what begins there."""

    until: int | None = field(default=None, compare=False)

    def holds(self, other: Place) -> bool:
        """Whether *other* lies inside."""
        if self.line is None or other.line is None or self.file != other.file:
            return False
        return self.line <= other.line <= (self.until or self.line)


class Key(str):
    """A key of a dict in a definition, which knows where it stands; in all else a plain text."""

    __slots__ = ("place",)

    place: Spot

    def __new__(cls, text: str, place: Spot) -> Key:
        """A text at a place."""
        key = super().__new__(cls, text)
        key.place = place
        return key

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A copy is a plain text.
        return str, (str(self),)


def here() -> Spot:
    """The place of the call by which an author's file came into velagen; nothing where velagen itself did."""
    frame = sys._getframe(1)
    while True:
        file = frame.f_code.co_filename
        if file not in _WORDS and not file.startswith("<string>"):
            break
        if frame.f_back is None:
            return Spot()
        frame = frame.f_back
    if file.startswith((_PACKAGE, _NO_FILE)):
        return Spot()
    return _spot(frame.f_code, frame.f_lasti, frame.f_lineno)


def blamed(error: BaseException, folder: Path | None = None) -> Spot:
    """The innermost line of an author's (of a file in *folder*, where given) that *error* went through."""
    found = Spot()
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename
        is_authors = Path(file).parent == folder if folder else not file.startswith((_PACKAGE, _NO_FILE))
        if is_authors:
            found = _spot(code, trace.tb_lasti, trace.tb_lineno)
        trace = trace.tb_next
    return found


def sentence(error: BaseException) -> str:
    """What *error* says, with its kind where that is Python's own."""
    text = "".join(traceback.format_exception_only(error)).strip().rpartition("\n")[2]
    return text.partition(": ")[2] if isinstance(error, MisuseError) else text


class MisuseError(TypeError):
    """Raised where a word of the template language is called with what it does not take."""


def _spot(code: CodeType, at: int, line: int | None) -> Spot:
    """The place of an instruction; the column is that of the expression it belongs to."""
    known = _positions.get(id(code))
    if known is None:
        # The code is kept with its positions: an id alone may be another's later.
        known = _positions[id(code)] = (code, tuple(code.co_positions()))
    start, end, column, _ = known[1][at // 2]
    if start is None or column is None:
        return Spot(code.co_filename, line)
    return Spot(code.co_filename, start, column_of(code.co_filename, start, column), until=end)


def start_of(code: CodeType) -> Spot:
    """Where a function begins; of a lambda the word itself, the last before what it computes."""
    line = linecache.getline(code.co_filename, code.co_firstlineno)
    inside = [column for start, _, column, _ in code.co_positions() if start == code.co_firstlineno and column]
    before = line.encode("utf-8")[: min(inside)].decode("utf-8", "ignore") if inside else line
    word = before.rfind("lambda") if code.co_name == "<lambda>" else line.find("def ")
    return Spot(code.co_filename, code.co_firstlineno, word + 1 if word >= 0 else None)


def column_of(file: str, line: int, offset: int) -> int:
    """The 1-based column of a byte *offset* in a line, which is how Python counts."""
    text = linecache.getline(file, line).encode("utf-8")
    return len(text[:offset].decode("utf-8", "ignore")) + 1 if text else offset + 1
