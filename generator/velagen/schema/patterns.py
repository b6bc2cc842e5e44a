"""Regular expressions: ECMA-262, as JSON Schema means them, to RE2, as CUE has them; and a matcher that never hangs.

Sources: ECMA-262 15th edition, section 22.2 (with its annex B for web pages), and https://github.com/google/re2/wiki/Syntax.
A pattern is parsed once; the same tree is printed for CUE and run here, so both sides mean the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

#: RE2's own limit for one counted repetition, and for nested ones together.
MAX_REPEAT = 1000

_END = 0x10FFFF
_DIGIT = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_SPACE_RE2 = r"\s\v\p{Z}\x{FEFF}"
_CATEGORIES = frozenset(  # a list of words reads better as one
    [
        "L",
        "Lu",
        "Ll",
        "Lt",
        "Lm",
        "Lo",
        "M",
        "Mn",
        "Mc",
        "Me",
        "N",
        "Nd",
        "Nl",
        "No",
        "P",
        "Pc",
        "Pd",
        "Ps",
        "Pe",
        "Pi",
        "Pf",
        "Po",
        "S",
        "Sm",
        "Sc",
        "Sk",
        "So",
        "Z",
        "Zs",
        "Zl",
        "Zp",
        "C",
        "Cc",
        "Cf",
        "Co",
    ]
)
_LONG_CATEGORIES = {
    "Letter": "L", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo", "Mark": "M", "Number": "N", "Decimal_Number": "Nd", "digit": "Nd", "Letter_Number": "Nl",
    "Other_Number": "No", "Punctuation": "P", "punct": "P", "Symbol": "S", "Separator": "Z", "Space_Separator": "Zs",
    "Control": "Cc", "cntrl": "Cc",
}  # fmt: skip


class PatternError(ValueError):
    """Raised for what is not a pattern, or one that RE2 can't express; the message says why."""


@dataclass(frozen=True)
class Chars:
    """One character out of a set: ranges of code points and Unicode categories, perhaps all others."""

    ranges: tuple[tuple[int, int], ...]
    #: ``(category, negated)``
    categories: tuple[tuple[str, bool], ...] = ()
    negated: bool = False
    #: How it was written, where RE2 writes it the same way.
    text: str = ""

    def holds(self, char: str) -> bool:
        """Whether *char* is in the set."""
        code = ord(char)
        found = any(low <= code <= high for low, high in self.ranges)
        if not found and self.categories:
            own = unicodedata.category(char)
            found = any(own.startswith(name) != negated for name, negated in self.categories)
        return found != self.negated


@dataclass(frozen=True)
class Seq:
    """One after the other."""

    parts: tuple[Pattern, ...]


@dataclass(frozen=True)
class Alt:
    """One of several."""

    options: tuple[Pattern, ...]


@dataclass(frozen=True)
class Repeat:
    """Again and again; *most* None is without end."""

    of: Pattern
    least: int
    most: int | None
    lazy: bool


@dataclass(frozen=True)
class Group:
    """Parentheses."""

    of: Pattern
    capturing: bool


@dataclass(frozen=True)
class Anchor:
    r"""``^``, ``$``, ``\b`` or ``\B``."""

    kind: str


Pattern = Chars | Seq | Alt | Repeat | Group | Anchor


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        #: Whether letters of either case are meant, and whether a dot means every character, from here on.
        self.fold = False
        self.dot_all = False

    def peek(self, ahead: int = 0) -> str:
        position = self.at + ahead
        return self.text[position] if position < len(self.text) else ""

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise PatternError("it ends too early")
        self.at += 1
        return char

    def parse(self) -> Pattern:
        tree = self.alternatives()
        if self.peek():
            raise PatternError("a parenthesis is closed that was not opened")
        return tree

    def alternatives(self) -> Pattern:
        self.depth += 1
        if self.depth > 50:
            raise PatternError("its parentheses are nested too deeply")
        options = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence())
        self.depth -= 1
        return options[0] if len(options) == 1 else Alt(tuple(options))

    def sequence(self) -> Pattern:
        parts: list[Pattern] = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeated())
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def repeated(self) -> Pattern:
        atom = self.atom()
        counts = self.counts()
        if counts is None:
            return atom
        if isinstance(atom, Anchor):
            raise PatternError("an anchor can't be repeated")
        least, most = counts
        lazy = self.peek() == "?"
        if lazy:
            self.at += 1
        if self.counts() is not None:
            raise PatternError("a repetition is repeated")
        if most is not None and most < least:
            raise PatternError("a repetition's bounds are out of order")
        if max(least, most or 0) > MAX_REPEAT:
            raise PatternError(f"RE2 repeats at most {MAX_REPEAT} times")
        return Repeat(atom, least, most, lazy)

    def counts(self) -> tuple[int, int | None] | None:
        char = self.peek()
        if char in ("*", "+", "?") and char:
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        if char != "{":
            return None
        end = self.text.find("}", self.at)
        first, comma, second = self.text[self.at + 1 : end if end > 0 else self.at + 1].partition(",")
        if end < 0 or not (
            first.isascii() and first.isdigit() and (not second or (second.isascii() and second.isdigit()))
        ):
            return None
        if len(first) > 6 or len(second) > 6:
            raise PatternError(f"RE2 repeats at most {MAX_REPEAT} times")
        self.at = end + 1
        return int(first), (int(second) if second else None) if comma else int(first)

    def atom(self) -> Pattern:
        char = self.take()
        match char:
            case "^" | "$":
                return Anchor(char)
            case "(":
                return self.group()
            case "[":
                return self.folded(self.char_class())
            case ".":
                return Chars((), negated=True) if self.dot_all else Chars(((0x0A, 0x0A),), negated=True, text=".")
            case "\\":
                found = self.escape(inside=False)
                return self.folded(found) if isinstance(found, Chars) else found
            case "*" | "+" | "?":
                raise PatternError(f"nothing stands before {char}")
        return self.folded(Chars(((ord(char), ord(char)),)))

    def folded(self, chars: Chars) -> Chars:
        """*chars* with those of the other case, where ``(?i)`` asks for them."""
        if not self.fold or chars.text in (r"\d", r"\D", _SPACE_RE2):
            return chars
        if chars.categories:
            raise PatternError(r"under (?i) there can be no \p{...}")
        more = [
            (code, code)
            for low, high in chars.ranges
            for known, others in _cases().items()
            if low <= known <= high
            for code in others
            if not any(first <= code <= last for first, last in chars.ranges)
        ]
        return Chars((*chars.ranges, *dict.fromkeys(more)), negated=chars.negated) if more else chars

    def flags(self) -> bool:
        """Read ``i)`` or ``i:`` and what like it follows ``(?``; whether it opens a group of its own.

        ``(?i:...)`` is of ECMA-262 since 2025; ``(?i)``, up to the end of the group it stands in, of RE2 and others.
        """
        end = next((at for at in range(self.at, len(self.text)) if self.text[at] in ":)"), len(self.text))
        on, _, off = self.text[self.at : end].partition("-")
        if end == len(self.text) or not set(on + off) <= set("is") or not on + off:
            raise PatternError(f"of (?{self.text[self.at : self.at + 1]} there is no equal; of flags i and s are read")
        self.fold = (self.fold or "i" in on) and "i" not in off
        self.dot_all = (self.dot_all or "s" in on) and "s" not in off
        self.at = end + 1
        return self.text[end] == ":"

    def group(self) -> Pattern:
        before = self.fold, self.dot_all
        capturing = True
        if self.peek() == "?":
            kind = self.text[self.at : self.at + 3]
            if kind.startswith("?:"):
                self.at += 2
                capturing = False
            elif kind[:2] in ("?=", "?!") or kind in ("?<=", "?<!"):
                raise PatternError(f"({kind[: 3 if '<' in kind else 2]} looks around, which RE2 can't")
            elif kind.startswith("?<"):
                end = self.text.find(">", self.at)
                if end < 0 or not self.text[self.at + 2 : end].isidentifier():
                    raise PatternError("a group's name is not closed")
                self.at = end + 1
            elif kind.startswith("?P"):
                raise PatternError("(?P is Python's and Go's; a group is named by (?<name>...)")
            else:
                self.at += 1
                if not self.flags():
                    if self.peek() in ("*", "+", "?", "{"):
                        raise PatternError("a flag can't be repeated")
                    return Seq(())
                capturing = False
        inside = self.alternatives()
        if self.peek() != ")":
            raise PatternError("a parenthesis is not closed")
        self.at += 1
        self.fold, self.dot_all = before
        return Group(inside, capturing)

    def escape(self, *, inside: bool) -> Chars | Anchor:
        char = self.take()
        match char:
            case "b" if inside:
                return Chars(((8, 8),))
            case "b" | "B":
                if inside:
                    raise PatternError(r"\B can't stand in a class")
                return Anchor("\\" + char)
            case "d" | "D":
                return Chars(_DIGIT, negated=char == "D", text="\\" + char)
            case "w" | "W":
                return Chars(_WORD, negated=char == "W", text="\\" + char)
            case "s" | "S":
                return Chars(_SPACE, negated=char == "S", text=_SPACE_RE2)
            case "p" | "P":
                return self.category(negated=char == "P")
            case "t" | "n" | "v" | "f" | "r":
                code = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}[char]
                return Chars(((code, code),))
            case "0" if not self.peek().isdigit():
                return Chars(((0, 0),))
            case "x":
                return self.code(2)
            case "u":
                return self.unicode()
            case "c":
                letter = self.take()
                if not (letter.isascii() and letter.isalpha()):
                    raise PatternError(r"\c takes a letter")
                code = ord(letter.upper()) - 64
                return Chars(((code, code),))
        if char.isdigit() or char == "k":
            raise PatternError(f"\\{char} refers back, which RE2 can't")
        if char.isalpha() or char == "_":
            raise PatternError(f"\\{char} is not an escape of ECMA-262")
        return Chars(((ord(char), ord(char)),))

    def code(self, digits: int) -> Chars:
        text = self.text[self.at : self.at + digits]
        if len(text) != digits or any(char not in "0123456789abcdefABCDEF" for char in text):
            raise PatternError(f"an escape needs {digits} hexadecimal digits")
        self.at += digits
        return Chars(((int(text, 16), int(text, 16)),))

    def unicode(self) -> Chars:
        if self.peek() == "{":
            end = self.text.find("}", self.at)
            try:
                code = int(self.text[self.at + 1 : end], 16)
            except ValueError as error:
                raise PatternError(r"\u{ takes hexadecimal digits") from error
            self.at = end + 1
        else:
            code = self.code(4).ranges[0][0]
            if 0xD800 <= code <= 0xDBFF and self.text.startswith("\\u", self.at):
                self.at += 2
                low = self.code(4).ranges[0][0]
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        if not 0 <= code <= _END or 0xD800 <= code <= 0xDFFF:
            raise PatternError("it names a code point that is not a character")
        return Chars(((code, code),))

    def category(self, *, negated: bool) -> Chars:
        end = self.text.find("}", self.at)
        if self.peek() != "{" or end < 0:
            raise PatternError(r"\p takes a name in braces")
        name = self.text[self.at + 1 : end].removeprefix("General_Category=").removeprefix("gc=")
        self.at = end + 1
        name = _LONG_CATEGORIES.get(name, name)
        if name not in _CATEGORIES:
            raise PatternError(f"the character property {name!r} is not among those that can be carried over exactly")
        return Chars((), ((name, negated),))

    def char_class(self) -> Chars:
        negated = self.peek() == "^"
        if negated:
            self.at += 1
        ranges: list[tuple[int, int]] = []
        categories: list[tuple[str, bool]] = []
        while self.peek() != "]":
            low = self.class_atom()
            if self.peek() == "-" and self.peek(1) not in ("]", ""):
                self.at += 1
                high = self.class_atom()
                pair = (low.ranges[0][0], high.ranges[0][1]) if low.ranges and high.ranges else (1, 0)
                if low.text or high.text or pair[0] > pair[1]:
                    raise PatternError("a range in a class is out of order")
                ranges.append(pair)
                continue
            if low.negated:
                ranges.extend(_complement(low.ranges))
            else:
                ranges.extend(low.ranges)
            categories.extend(low.categories)
        self.at += 1
        return Chars(tuple(ranges), tuple(categories), negated)

    def class_atom(self) -> Chars:
        char = self.take()
        if char != "\\":
            return Chars(((ord(char), ord(char)),))
        found = self.escape(inside=True)
        assert isinstance(found, Chars)
        return found


@lru_cache(maxsize=1)
def _cases() -> dict[int, tuple[int, ...]]:
    """For each character the others that differ from it by case alone: k and K, and the sign of the kelvin.

    Source: Unicode's simple case folding, which ECMA-262 asks for under its flags i and u, as RE2 does.
    """
    same: dict[str, list[int]] = {}
    for code in range(_END + 1):
        char = chr(code)
        key = char.casefold()
        key = key if len(key) == 1 else char.lower()
        if key != char or char != char.upper():
            same.setdefault(key, []).append(code)
    found: dict[int, tuple[int, ...]] = {}
    for key, codes in same.items():
        orbit = {*codes, *([ord(key)] if len(key) == 1 else [])}
        if len(orbit) > 1:
            found.update({code: tuple(sorted(orbit - {code})) for code in orbit})
    return found


def _complement(ranges: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    start = 0
    for low, high in sorted(ranges):
        if start < low:
            yield start, low - 1
        start = high + 1
    if start <= _END:
        yield start, _END


@lru_cache(maxsize=4096)
def parse(pattern: str) -> Pattern:
    """The tree of an ECMA-262 *pattern*.

    Raises PatternError: no pattern, or one that RE2 can't express.
    """
    tree = _Parser(pattern).parse()
    if _size(tree) > 20_000 or _repeats(tree) > MAX_REPEAT:
        raise PatternError("its nested repetitions are too many for RE2")
    return tree


def _size(tree: Pattern) -> int:
    match tree:
        case Seq(parts=of) | Alt(options=of):
            return 1 + sum(_size(part) for part in of)
        case Group(of=of):
            return _size(of)
        case Repeat(of=of, least=least, most=most):
            return 1 + _size(of) * max(1, least, most or 0)
    return 1


def _repeats(tree: Pattern) -> int:
    match tree:
        case Seq(parts=of) | Alt(options=of):
            return max((_repeats(part) for part in of), default=1)
        case Group(of=of):
            return _repeats(of)
        case Repeat(of=of, least=least, most=most):
            return _repeats(of) * max(1, least, most or 0)
    return 1


@lru_cache(maxsize=4096)
def to_re2(pattern: str) -> str:
    """*pattern* for CUE's ``=~``; the text stays as it was where both languages write it the same way.

    Raises PatternError: no pattern, or one that RE2 can't express.
    """
    return _print(parse(pattern))


def either(texts: Iterable[str]) -> str:
    """A pattern (RE2) for *texts* and nothing else."""
    escaped = [re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text) for text in texts]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"


def _print(tree: Pattern) -> str:
    match tree:
        case Chars():
            return _print_chars(tree)
        case Anchor(kind=kind):
            return kind
        case Seq(parts=parts):
            return "".join(_print(part) for part in parts)
        case Alt(options=options):
            return "|".join(_print(option) for option in options)
        case Group(of=of, capturing=capturing):
            return ("(" if capturing else "(?:") + _print(of) + ")"
        case Repeat(of=of, least=least, most=most, lazy=lazy):
            counts = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
            if counts is None:
                upper = "" if most == least else "," if most is None else f",{most}"
                counts = f"{{{least}{upper}}}"
            return _print(of) + counts + ("?" if lazy else "")
    raise TypeError(tree)


def _print_chars(chars: Chars) -> str:
    if chars.text == ".":
        return "."
    if chars.text == _SPACE_RE2:
        return f"[{'^' if chars.negated else ''}{_SPACE_RE2}]"
    if chars.text:
        return chars.text
    if (
        not chars.negated
        and not chars.categories
        and len(chars.ranges) == 1
        and chars.ranges[0][0] == chars.ranges[0][1]
    ):
        return _char(chars.ranges[0][0], r"\.+*?()|[]{}^$")
    if not chars.ranges and len(chars.categories) == 1 and not chars.negated:
        name, negated = chars.categories[0]
        return f"\\{'P' if negated else 'p'}{{{name}}}"
    if not chars.ranges and not chars.categories:
        return r"[\x00-\x{10FFFF}]" if chars.negated else r"[^\x00-\x{10FFFF}]"
    return f"[{'^' if chars.negated else ''}{_class_body(chars)}]"


def _class_body(chars: Chars) -> str:
    ranges = list(chars.ranges)
    out = ""
    for known, text in ((_SPACE, _SPACE_RE2), (_WORD, r"\w"), (_DIGIT, r"\d")):
        for start in range(len(ranges) - len(known) + 1):
            if tuple(ranges[start : start + len(known)]) == known and known != _DIGIT:
                out += text
                del ranges[start : start + len(known)]
                break
    for low, high in ranges:
        first = _char(low, "\\]^-[")
        out += first if low == high else f"{first}-{_char(high, chr(92) + ']^-[')}"
    for name, negated in chars.categories:
        out += f"\\{'P' if negated else 'p'}{{{name}}}"
    return out


def _char(code: int, special: str) -> str:
    named = {9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r"}.get(code)
    if named:
        return named
    char = chr(code)
    if char in special:
        return "\\" + char
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code <= 0xDFFF or not char.isprintable():
        return f"\\x{{{code:X}}}"
    return char


# ---------------------------------------------------------------- matching

#: A state machine: per state, where it leads without a character (with the anchor that must hold) and with one.
_Machine = tuple[list[list[tuple[str, int]]], list[list[tuple[Chars, int]]], int, int]


@lru_cache(maxsize=1024)
def _machine(pattern: str) -> _Machine:
    empty: list[list[tuple[str, int]]] = []
    moves: list[list[tuple[Chars, int]]] = []

    def state() -> int:
        empty.append([])
        moves.append([])
        return len(empty) - 1

    def build(tree: Pattern, start: int) -> int:
        match tree:
            case Chars():
                end = state()
                moves[start].append((tree, end))
                return end
            case Anchor(kind=kind):
                end = state()
                empty[start].append((kind, end))
                return end
            case Seq(parts=parts):
                for part in parts:
                    start = build(part, start)
                return start
            case Group(of=of):
                return build(of, start)
            case Alt(options=options):
                end = state()
                for option in options:
                    first = state()
                    empty[start].append(("", first))
                    empty[build(option, first)].append(("", end))
                return end
            case Repeat(of=of, least=least, most=most):
                for _ in range(least):
                    start = build(of, start)
                end = state()
                if most is None:
                    loop = state()
                    empty[start].append(("", loop))
                    empty[build(of, loop)].append(("", loop))
                    empty[loop].append(("", end))
                else:
                    empty[start].append(("", end))
                    for _ in range(most - least):
                        start = build(of, start)
                        empty[start].append(("", end))
                return end
        raise TypeError(tree)

    start = state()
    return empty, moves, start, build(parse(pattern), start)


def matches(pattern: str, text: str) -> bool:
    """Whether *pattern* matches somewhere in *text*, in time proportional to the length of both.

    Raises PatternError: no pattern, or one that RE2 can't express.
    """
    empty, moves, start, end = _machine(pattern)
    words = [char.isascii() and (char.isalnum() or char == "_") for char in text]

    def holds(kind: str, at: int) -> bool:
        if kind == "^":
            return at == 0
        if kind == "$":
            return at == len(text)
        edge = (at > 0 and words[at - 1]) != (at < len(text) and words[at])
        return edge == (kind == "\\b")

    def closure(states: set[int], at: int) -> set[int]:
        stack = list(states)
        while stack:
            for kind, target in empty[stack.pop()]:
                if target not in states and (not kind or holds(kind, at)):
                    states.add(target)
                    stack.append(target)
        return states

    current: set[int] = set()
    for at in range(len(text) + 1):
        current = closure(current | {start}, at)
        if end in current:
            return True
        if at < len(text):
            char = text[at]
            current = {target for one in current for chars, target in moves[one] if chars.holds(char)}
    return False
