"""What is changed in an author's module before it runs: the words of a template learn what Python does not say."""

from __future__ import annotations

import ast
from typing import TypeVar

from velagen.errors import Place, Problem, VelagenError
from velagen.template.pitfalls import GUARDED_FUNCTIONS, GUARDED_METHODS, compared, known, method
from velagen.template.places import column_of

_Made = TypeVar("_Made", bound=ast.AST)

#: What the module calls, by names that no author uses.
KEY, _COMPARED, _METHOD, _KNOWN = (f"__velagen_{word}__" for word in ("key", "compared", "method", "known"))
GUARDS = {_COMPARED: compared, _METHOD: method, _KNOWN: known}
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def rewritten(source: bytes, file: str) -> ast.Module:
    """The module in *source*, with what it says to velagen.

    Raises SyntaxError, and VelagenError where Python would drop what is written.
    """
    tree = ast.parse(source, file)
    _Rewriter(file).visit(tree)
    return tree


def _word(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _guarded(value: ast.expr, word: str) -> ast.expr:
    return _put(ast.Call(_word(_KNOWN), [value, ast.Constant(word)], []), value)


class _Rewriter(ast.NodeTransformer):
    """Says to the words of a template what Python does not.

    ``{"a": 1}`` becomes ``{key("a", line, column, last line): 1}``, ``x = let(v)`` becomes ``x = let(v, name="x")``,
    and ``choose(k, TABLE)`` becomes ``choose(k, TABLE, name="TABLE")``. What Python would decide by itself, and wrongly
    where an expression takes part, is done by a guard of :data:`GUARDS`.
    """

    def __init__(self, file: str) -> None:
        self._file = file

    def visit_Dict(self, node: ast.Dict) -> ast.AST:  # named as the node is
        self._once_each(node)
        self.generic_visit(node)
        node.keys = [self._placed(key, value) for key, value in zip(node.keys, node.values, strict=True)]
        return node

    def _once_each(self, node: ast.Dict) -> None:
        """Python keeps the last of two fields of one name, and says nothing."""
        seen: set[str] = set()
        for key in node.keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                if key.value in seen:
                    place = Place(self._file, key.lineno, column_of(self._file, key.lineno, key.col_offset))
                    raise VelagenError(Problem(f"{key.value!r} stands twice in this dict, and Python keeps one", place))
                seen.add(key.value)

    def _placed(self, key: ast.expr | None, value: ast.expr) -> ast.expr | None:
        is_text = isinstance(key, ast.JoinedStr | ast.Name | ast.Attribute) or (
            isinstance(key, ast.Constant) and isinstance(key.value, str)
        )
        if key is None or not is_text:
            return key
        until = value.end_lineno or value.lineno
        spot = [ast.Constant(number) for number in (key.lineno, key.col_offset, until)]
        return _put(ast.Call(ast.Name(KEY, ast.Load()), [key, *spot], []), key)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = any(one.arg == "name" for one in node.keywords)
        if _called(node) == "choose" and len(node.args) > 1 and isinstance(node.args[1], ast.Name) and not named:
            node.keywords.append(_put(ast.keyword("name", ast.Constant(node.args[1].id)), node))
        match node.func:
            case ast.Attribute(value=of, attr=name) if name in GUARDED_METHODS:
                return _put(ast.Call(_word(_METHOD), [of, ast.Constant(name), *node.args], node.keywords), node)
            case ast.Name(id=name) if name in GUARDED_FUNCTIONS and len(node.args) == 1:
                node.args = [_guarded(node.args[0], name)]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        word = _OPERATORS.get(type(node.ops[0]))
        # A helper asks its own argument for None.
        if len(node.ops) > 1 or word is None or (word.startswith("is") and isinstance(node.left, ast.Name)):
            return node
        return _put(ast.Call(_word(_COMPARED), [ast.Constant(word), node.left, node.comparators[0]], []), node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        if node.conversion in map(ord, "ra"):
            node.value = _guarded(node.value, f"!{chr(node.conversion)}")
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        for target in node.targets:
            self._name(target, node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None:
            self._name(node.target, node.value)
        return node

    def _name(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._name(one, its)
        elif isinstance(target, ast.Name) and isinstance(value, ast.Call) and _has_no_name(value):
            value.keywords.append(_put(ast.keyword("name", ast.Constant(target.id)), value))


def _put(made: _Made, at: ast.expr) -> _Made:
    """What was *made* at the place of another node; the rest of the tree has its places."""
    return ast.fix_missing_locations(ast.copy_location(made, at))


def _has_no_name(call: ast.Call) -> bool:
    """Whether it is an intermediate or a look-up that is called as the variable it is assigned to."""
    if any(one.arg in {"name", None} for one in call.keywords):
        return False
    return (_called(call) == "let" and len(call.args) == 1) or _called(call) == "choose"


def _called(call: ast.Call) -> str:
    called = call.func
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
