"""The syntax tree as CUE text, laid out as ``cue fmt`` would: one method a node, same tree, same bytes."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import cached_property

from velagen.cue import syntax as s

_IDENTIFIER = re.compile(r"^[A-Za-z$][A-Za-z0-9_$]*$")
#: Words that are not plain labels or would read as something else.
_RESERVED = frozenset(
    {
        *("true", "false", "null", "for", "in", "if", "let", "import", "package", "func", "_", "len", "close"),
        *("and", "or", "div", "mod", "quo", "rem", "error"),
        *("bool", "string", "bytes", "number", "int", "float", "rune", "uint", "float32", "float64"),
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64, 128)),
    }
)
#: CUE 0.9 takes these for themselves even after a dot.
_KEYWORDS = frozenset(["true", "false", "null", "for", "in", "if", "let", "import", "package", "func"])
_BINARY_STRENGTH = {
    "|": 1, "&": 2, "||": 3, "&&": 4,
    "==": 5, "!=": 5, "<": 5, "<=": 5, ">": 5, ">=": 5, "=~": 5, "!~": 5,
    "+": 6, "-": 6, "*": 7, "/": 7,
}  # fmt: skip
_UNARY_STRENGTH = 8
_PRIMARY_STRENGTH = 9
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Characters that may not stand in CUE source as they are, or that an editor would hide.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\u202a-\u202e\u2066-\u2069]")
#: What is escaped in a text of one line, and of several.
_NOT_IN_TEXT = re.compile(rf'["\\\n\r\t]|{_UNSAFE.pattern}')
_NOT_IN_LINES = re.compile(rf"[\\\r]|{_UNSAFE.pattern}")
_LINE_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def to_cue(node: s.Node) -> str:
    """*node* as CUE text; a file ends with a newline, anything else does not.

    Raises ValueError for what CUE can't hold: NaN, infinities, lone surrogates.
    """
    return _Printer(node).print()


def quote(text: str, *, multiline: bool = False, indent: str = "") -> str:
    """*text* as a CUE string literal.

    Raises ValueError for a lone surrogate, which no UTF-8 file can hold.
    """
    escaped = _escape(text, multiline=multiline)
    if not multiline:
        return f'"{escaped}"'
    return _in_lines(escaped, indent)


def _in_lines(text: str, indent: str) -> str:
    inner = indent + "\t"
    lines = "\n".join(inner + line if line else "" for line in text.split("\n"))
    return f'"""\n{lines}\n{inner}"""'


def _escape(text: str, *, multiline: bool) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate at position {error.start} is not text") from error
    escaped = (_NOT_IN_LINES if multiline else _NOT_IN_TEXT).sub(_escaped, text)
    return escaped.replace('"""', '\\"\\"\\"') if multiline else escaped


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    return _ESCAPES.get(char) or f"\\u{ord(char):04x}"


def comment_lines(text: str) -> list[str]:
    """*text* as comment lines that can't end the comment early."""
    return [
        ("// " + _UNSAFE.sub(" ", line).rstrip()).rstrip()
        for line in _LINE_BREAKS.split(text.encode("utf-8", "replace").decode("utf-8"))
    ]


#: So many fields of plain data, in so many characters, stand in one line.
_FEW, _SHORT = 6, 100
_TYPES = frozenset({"string", "bytes", "int", "number", "float", "bool", "null", "_", "_|_"})
#: Characters in a line that holds a condition and the one field under it.
_LINE = 120
_COMPARING = frozenset(["==", "!=", "<", "<=", ">", ">=", "=~", "!~"])
#: A text with holes of so many characters in all is split where its line is too long, and those of so many stand alone.
_MUCH, _LONG_PIECE = 100, 60
_TEXT_FUNCTIONS = frozenset(
    {
        *("strings.Join", "strings.Replace", "strings.ToLower", "strings.ToUpper", "strings.TrimPrefix"),
        *("strings.TrimSpace", "strings.TrimSuffix", "regexp.ReplaceAll", "json.Marshal", "strconv.FormatFloat"),
    }
)
#: Past this a row of clauses or conditions goes on in the next line. (The texts of a status stand 16 further in.)
_LONGEST = 140


class _Printer:
    def __init__(self, root: s.Node) -> None:
        self._root = root
        #: Above zero inside a string interpolation, which must stay on one line.
        self._on_one_line = 0
        #: Characters that stand before the value of an intermediate.
        self._ahead = 0

    @cached_property
    def _named(self) -> tuple[list[str], set[str]]:
        """What is imported, by path, and the names that expressions refer to."""
        paths: set[str] = set()
        names: set[str] = set()
        for node in self._root.walk():
            match node:
                case s.Ident(name=name):
                    names.add(name)
                case s.Package(path=path):
                    paths.add(path)
                case s.Raw(text=text, imports=imports):
                    paths.update(imports)
                    names.update(re.findall(r"[A-Za-z_$][\w$]*", text))
        return sorted(paths), names

    @cached_property
    def _captured(self) -> set[str]:
        """Names that a bare label would capture for everything below it, so data labels that equal them are quoted."""
        paths, names = self._named
        return names | set(map(_package_name, paths))

    def print(self) -> str:
        if not isinstance(self._root, s.File):
            if isinstance(self._root, s.Decl):
                return "\n".join(self._decl(self._root, ""))
            if isinstance(self._root, s.Expr):
                return self._expr(self._root, "")
            raise TypeError(f"{type(self._root).__name__} does not stand alone")
        blocks: list[str] = []
        if self._root.doc:
            blocks.append("\n".join(line for text in self._root.doc for line in comment_lines(text)))
        if self._root.package:
            blocks.append(f"package {self._root.package}")
        packages, _ = self._named
        if packages:
            body = "\n".join("\t" + quote(path) for path in packages)
            blocks.append(f"import (\n{body}\n)")
        blocks.append("\n".join(self._decls(self._root.decls, "")))
        return "\n\n".join(blocks) + "\n"

    # ------------------------------------------------------------ declarations

    def _decls(self, decls: tuple[s.Decl, ...], indent: str) -> list[str]:
        """The lines of *decls*; the values of neighbouring one-line fields stand in a column."""
        lines: list[str] = []
        column: list[tuple[str, str]] = []
        ahead, self._ahead = self._ahead, 0

        def flush() -> None:
            width = max((len(label) for label, _ in column), default=0)
            lines.extend(f"{indent}{label.ljust(width)} {value}" for label, value in column)
            column.clear()

        for decl in decls:
            if isinstance(decl, s.Field):
                head, last = self._head(decl, folds=bool(indent))
                value = self._behind(f"{head} ", last, indent)
                if decl.attribute:
                    value += f" @{decl.attribute}"
                stands_alone = "\n" in value or value.startswith(("{", "[")) or last is not decl.value
                if decl.doc or stands_alone:
                    flush()
                lines.extend(indent + line for text in decl.doc for line in comment_lines(text))
                if stands_alone:
                    lines.append(f"{indent}{head} {value}")
                else:
                    column.append((head, value))
                continue
            flush()
            lines.extend(self._decl(decl, indent))
        flush()
        self._ahead = ahead
        return lines

    def _head(self, field: s.Field, *, folds: bool) -> tuple[str, s.Expr]:
        """``a: b:`` and the value, where *field* holds a struct of one field (of one field ...), as CUE is written.

        Not at the top of a file, whose fields KubeVela looks at by themselves.
        """
        heads = [self._label(field.label) + field.constraint + ":"]
        value = field.value
        while folds and not field.doc and not field.attribute:
            match value:
                case s.Struct(decls=(s.Field(label=str() | s.Name(), doc=(), attribute="") as only,)):
                    heads.append(self._label(only.label) + only.constraint + ":")
                    value = only.value
                case _:
                    break
        return " ".join(heads), value

    def _decl(self, decl: s.Decl, indent: str) -> list[str]:
        match decl:
            case s.Field():
                return self._decls((decl,), indent)
            case s.LetDecl(name=name, value=value, doc=doc):
                above = [indent + line for text in doc for line in comment_lines(text)]
                head = f"let {name} = "
                return [*above, f"{indent}{head}{self._behind(head, value, indent)}"]
            case s.Embed(of=of):
                return [indent + self._expr(of, indent)]
            case s.Ellipsis(of=of):
                return [indent + self._ellipsis(of, indent)]
            case s.Comment(text=text):
                return [indent + line for line in comment_lines(text)]
            case s.Comprehension():
                return [indent + self._comprehension(decl, indent)]
        raise TypeError(f"no declaration: {type(decl).__name__}")

    def _behind(self, head: str, node: s.Node, indent: str) -> str:
        """*node*, of which the first line stands behind *head*."""
        self._ahead += len(head)
        text = self._expr(node, indent)
        self._ahead -= len(head)
        return text

    def _is_long(self, node: s.Node, indent: str) -> bool:
        """Whether *node* may stand in several lines, and does not fit on one.

        Asked of one line: printed as it will be, nested calls would double the work by level.
        """
        if self._on_one_line:
            return False
        self._on_one_line += 1
        text = self._expr(node, indent)
        self._on_one_line -= 1
        return len(indent.expandtabs(4)) + self._ahead + len(text) > _LONGEST

    def _alone(self, node: s.Node, indent: str) -> str:
        """*node* in a line of its own below *indent*."""
        ahead, self._ahead = self._ahead, 0
        text = self._expr(node, indent + "\t")
        self._ahead = ahead
        return text

    def _ellipsis(self, of: s.Expr | None, indent: str) -> str:
        return "..." if of is None else "..." + self._expr(of, indent, _UNARY_STRENGTH)

    def _comprehension(self, node: s.Comprehension, indent: str, further: str | None = None) -> str:
        """Its text; clauses that don't fit on a line, and the body under them, stand at *further*, else at *indent*."""
        # CUE takes a comma, and so a new line, before each further clause: https://cuelang.org/docs/reference/spec/.
        first, *others = node.clauses
        texts = [self._clause(first, indent), *(self._clause(clause, further or indent) for clause in others)]
        clauses = self._filled(texts, indent, further or indent)
        if "\n" in clauses:
            indent = further or indent
        body = node.body if isinstance(node.body, s.Struct) else s.Struct((s.Embed(node.body),))
        match body:
            case s.Struct(decls=(s.Field(doc=()),)) if not self._on_one_line:
                # Printed once, or nested conditions would double the work by level; see _list.
                lines = self._decls(body.decls, indent + "\t")
                text = f"{clauses} {{{lines[0].strip()}}}"
                if "\n" not in text and len(lines) == 1 and len(indent.expandtabs(4)) + len(text) <= _LINE:
                    return text
                inside = "\n".join(lines)
                return f"{clauses} {{\n{inside}\n{indent}}}"
        text = self._struct(body, indent)
        is_long = "\n" in clauses or len(indent.expandtabs(4)) + self._ahead + len(clauses) + len(text) > _LONGEST
        if is_long and "\n" not in text and body.decls and not self._on_one_line:
            inside = "\n".join(self._decls(body.decls, indent + "\t"))
            text = f"{{\n{inside}\n{indent}}}"
        return f"{clauses} {text}"

    def _filled(self, parts: list[str], indent: str, further: str) -> str:
        """*parts* on one line, or on as few as they fit on where that is too long; those are indented by *further*."""
        lines = [parts[0]]
        ahead = self._ahead
        for part in parts[1:]:
            fits = len(indent.expandtabs(4)) + ahead + len(lines[-1]) + 1 + len(part) <= _LONGEST
            if fits or self._on_one_line:
                lines[-1] += f" {part}"
            else:
                lines.append(further + part)
                ahead = 0
        return "\n".join(lines)

    def _clause(self, clause: s.Node, indent: str) -> str:
        match clause:
            case s.For(value=value, source=source, key=key):
                names = f"{key}, {value}" if key else value
                return f"for {names} in {self._expr(source, indent)}"
            case s.Guard(condition=condition):
                return f"if {self._expr(condition, indent)}"
            case s.LetClause(name=name, value=value):
                return f"let {name} = {self._expr(value, indent)}"
        raise TypeError(f"no clause: {type(clause).__name__}")

    def _label(self, label: s.Label) -> str:
        match label:
            case str():
                return label if self._is_plain(label) else quote(label)
            case s.Name(name=name):
                return name
            case s.Hidden(name=name):
                return "_" + name
            case s.Definition(name=name):
                return "#" + name
            case s.Pattern(matching=matching, alias=alias):
                head = f"{alias}=" if alias else ""
                return f"[{head}{self._expr(matching, '')}]"
            case s.Dynamic(of=of):
                return f"({self._expr(of, '')})"
            case s.Interpolation(parts=parts):
                return self._interpolation(parts, "")
        raise TypeError(f"no label: {type(label).__name__}")

    def _is_plain(self, label: str) -> bool:
        return bool(_IDENTIFIER.match(label)) and label not in _RESERVED and label not in self._captured

    # ------------------------------------------------------------ expressions

    def _expr(self, node: s.Node, indent: str, strength: int = 0) -> str:
        """*node* as text, in parentheses where it binds less tightly than *strength* asks for."""
        match node:
            case s.Ident(name=name):
                return name
            case s.Package(path=path):
                return _package_name(path)
            case s.Lit(value=value, raw=raw):
                text = self._literal(value, raw, indent)
                return f"({text})" if text.startswith("-") and strength > _UNARY_STRENGTH else text
            case s.Interpolation(parts=parts):
                text = self._interpolation(parts, indent)
                if (
                    self._on_one_line
                    or len(parts) == 1
                    or "\n" in text
                    or not self._is_hard_to_read(text, parts, indent)
                ):
                    return text
                text = f"\n{indent}\t".join(self._pieces(parts, indent))
                return f"({text})" if strength > _BINARY_STRENGTH["+"] else text
            case s.Selector(of=of, name=""):
                return f'{self._expr(of, indent, _PRIMARY_STRENGTH)}[""]'  # no version of CUE takes `.""`
            case s.Selector(of=of, name=name):
                member = (
                    self._label(name)
                    if not isinstance(name, str)
                    else (name if _IDENTIFIER.match(name) and name not in _KEYWORDS else quote(name))
                )
                return f"{self._expr(of, indent, _PRIMARY_STRENGTH)}.{member}"
            case s.Index(of=of, index=index):
                return f"{self._expr(of, indent, _PRIMARY_STRENGTH)}[{self._expr(index, indent)}]"
            case s.Call(function=function, args=args):
                name = self._expr(function, indent, _PRIMARY_STRENGTH)
                if len(args) > 1 and not any(map(_opens, args)) and self._is_long(node, indent):
                    below = "".join(f"{indent}\t{self._alone(arg, indent)},\n" for arg in args)
                    return f"{name}(\n{below}{indent})"
                inside = ", ".join(self._behind(f"{name}(", arg, indent) for arg in args)
                return f"{name}({inside})"
            case s.Unary(op=op, of=of):
                text = op + self._expr(of, indent, _UNARY_STRENGTH)
                return f"({text})" if strength > _UNARY_STRENGTH else text
            case s.Binary(op=op):
                # A long chain leans left; walked here, since it may be longer than Python's stack is deep.
                own = _BINARY_STRENGTH[op]
                operands: list[str] = []
                left: s.Expr = node
                while isinstance(left, s.Binary) and left.op == op:
                    # a || (b || c) is a || b || c.
                    same = op in {"&&", "||"} and isinstance(left.right, s.Binary) and left.right.op == op
                    operands.append(self._operand(op, left.right, indent, own if same else own + 1))
                    left = left.left
                operands.append(self._operand(op, left, indent, own))
                ends = [f" {op}"] * (len(operands) - 1) + [""]
                row = [operand + end for operand, end in zip(reversed(operands), ends, strict=True)]
                fills = op in {"&&", "||", "+"} or (
                    op in _COMPARING and len(row[-1]) > _LONG_PIECE and "\n" not in row[0]
                )
                text = self._filled(row, indent, indent + "\t") if fills else " ".join(row)
                return f"({text})" if strength > own else text
            case s.Struct():
                return self._struct(node, indent)
            case s.ListLit(items=items):
                return self._list(items, indent)
            case s.Raw(text=raw_text):
                lines = raw_text.strip().split("\n")
                text = ("\n" + indent).join(lines)
                return f"({text})" if strength > 0 else text
            case s.Comprehension():
                return self._comprehension(node, indent)
            case s.Ellipsis(of=of):
                return self._ellipsis(of, indent)
        raise TypeError(f"no expression: {type(node).__name__}")

    def _operand(self, op: str, node: s.Expr, indent: str, strength: int) -> str:
        """One side of a binary operation.

        KubeVela 1.11 rewrites older CUE before it renders: by their syntax it takes selectors and calls of ``list`` for
        lists, and so `parameter.x * 100` for a repeated list. In parentheses it leaves them alone, as they are numbers.
        Source: github.com/kubevela/pkg@v1.11.1 cue/upgrade/upgrade_cue_0_14_list_arithmetic.go.
        """
        text = self._expr(node, indent, strength)
        is_taken_for_a_list = isinstance(node, s.Selector) or (
            isinstance(node, s.Call) and isinstance(node.function, s.Selector) and node.function.of == s.Package("list")
        )
        return f"({text})" if op in {"+", "*"} and is_taken_for_a_list else text

    def _literal(self, value: s.Scalar, raw: bool, indent: str) -> str:
        match value:
            case None:
                return "null"
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
            case float() | Decimal():
                if not math.isfinite(value):
                    raise ValueError(f"{value} is not a JSON number")
                return repr(value) if isinstance(value, float) else str(value)
            case str():
                if raw and "\n" in value and '"""' not in value and "\\#" not in value:
                    _escape(value, multiline=True)  # raises for what is not text
                    return f"#{_in_lines(value, indent)}#"
                if raw and "\\" in value and '"#' not in value and not _UNSAFE.search(value) and "\n" not in value:
                    _escape(value, multiline=False)  # raises for what is not text
                    return f'#"{value}"#' if "\\#" not in value else quote(value)
                multiline = _reads_better_in_lines(value) and not self._on_one_line
                return quote(value, multiline=multiline, indent=indent)
        raise TypeError(f"no constant: {type(value).__name__}")

    def _interpolation(self, parts: tuple[str | s.Expr, ...], indent: str) -> str:
        multiline = not self._on_one_line and _reads_better_in_lines(
            "".join(part for part in parts if isinstance(part, str))
        )
        self._on_one_line += 1
        text = "".join(
            _escape(part, multiline=multiline) if isinstance(part, str) else f"\\({self._expr(part, indent)})"
            for part in parts
        )
        self._on_one_line -= 1
        if not multiline:
            return f'"{text}"'
        return _in_lines(text, indent)

    def _is_hard_to_read(self, text: str, parts: tuple[str | s.Expr, ...], indent: str) -> bool:
        """Whether *text* is a long line, and not for its words alone."""
        words = sum(len(part) for part in parts if isinstance(part, str))
        return len(indent.expandtabs(4)) + self._ahead + len(text) > _LONGEST and len(text) - words > _MUCH

    def _pieces(self, parts: tuple[str | s.Expr, ...], indent: str) -> list[str]:
        """*parts* as operands of ``+``: what is a text and long by itself stands alone, the others in literals."""
        pieces: list[str] = []
        together: list[str | s.Expr] = []

        def flush() -> None:
            if together:
                pieces.append(self._interpolation(tuple(together), indent))
                together.clear()

        for part in parts:
            text = self._interpolation((part,), indent)
            if isinstance(part, s.Expr) and len(text) > _LONG_PIECE and _is_text(part):
                flush()
                pieces.append(self._expr(part, indent + "\t", _BINARY_STRENGTH["+"] + 1))
                continue
            if together and len(self._interpolation((*together, part), indent)) > _SHORT:
                flush()
            together.append(part)
        flush()
        return [f"{piece} +" for piece in pieces[:-1]] + pieces[-1:]

    def _struct(self, node: s.Struct, indent: str) -> str:
        if not node.decls:
            return "{}"
        if self._on_one_line:
            return "{" + ", ".join(line for decl in node.decls for line in self._decl(decl, "")) + "}"
        if len(node.decls) == 1:
            only = node.decls[0]
            if isinstance(only, s.Ellipsis) or (isinstance(only, s.Embed) and not isinstance(only.of, s.Struct)):
                text = self._decl(only, indent)[0].removeprefix(indent)
                if "\n" not in text and len(text) < 80:
                    return "{" + text + "}"
            if isinstance(only, s.Field) and not only.doc and isinstance(only.label, s.Pattern):
                text = self._decls((only,), "")[0]
                if "\n" not in text and len(text) < 60:
                    return "{" + text + "}"
        if 1 < len(node.decls) <= _FEW and all(map(_is_short, node.decls)):
            text = ", ".join(self._decls((decl,), "")[0] for decl in node.decls)
            if "\n" not in text and len(text) <= _SHORT:
                return "{" + text + "}"
        lines = "\n".join(self._decls(node.decls, indent + "\t"))
        return f"{{\n{lines}\n{indent}}}"

    def _list(self, items: tuple[s.Node, ...], indent: str) -> str:
        if not items:
            return "[]"
        # Each item is printed once, or nested lists would double the work by level: a text of one line is the same
        # at every indentation.
        hugs = len(items) == 1 and not isinstance(items[0], (s.Lit, s.Interpolation))
        inner = indent if hugs else indent + "\t"
        if hugs and isinstance(items[0], s.Comprehension):
            return "[" + self._comprehension(items[0], indent, indent + "\t") + "]"
        texts = [self._expr(item, indent) if hugs else self._alone(item, indent) for item in items]
        one_line = "[" + ", ".join(texts) + "]"
        if hugs or self._on_one_line or ("\n" not in one_line and len(one_line) <= 100):
            return one_line
        lines = "".join(f"{inner}{text},\n" for text in texts)
        return f"[\n{lines}{indent}]"


def _opens(node: s.Node) -> bool:
    """Whether *node* begins with a bracket that its own lines stand in."""
    match node:
        case s.Index(of=of):
            return _opens(of)
        case s.Call(args=args):
            return any(map(_opens, args))
    return isinstance(node, (s.ListLit, s.Struct))


def _is_text(node: s.Node) -> bool:
    """Whether *node* is a text whatever happens, so that ``+`` takes it as an interpolation does."""
    match node:
        case s.Lit(value=value):
            return isinstance(value, str)
        case s.Interpolation():
            return True
        case s.Call(function=s.Selector(of=s.Package(path=path), name=str(name))):
            return f"{_package_name(path)}.{name}" in _TEXT_FUNCTIONS
        case s.Index(of=s.ListLit(items=items), index=s.Lit(value=0)):
            return all(map(_is_text, items))
        case s.Comprehension(body=s.Struct(decls=(s.Embed(of=of),))):
            return _is_text(of)
    return False


def _is_short(decl: s.Decl) -> bool:
    """Whether *decl* is a field of plain data, which can stand beside others in one line."""
    match decl:
        case s.Field(label=str(), value=s.Lit() | s.Selector() | s.Interpolation() | s.Index(), constraint="", doc=()):
            return True
        case s.Field(label=str(), value=s.Ident(name=name), constraint="", doc=()):
            return name not in _TYPES and not name.startswith("#")
    return False


def _package_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _reads_better_in_lines(text: str) -> bool:
    """Scripts and configuration files keep their lines; a carriage return would not survive that."""
    return text.count("\n") >= 2 and "\r" not in text
