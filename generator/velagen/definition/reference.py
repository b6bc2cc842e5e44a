"""docs/reference.md, made from the code: ``python -m velagen.definition.reference``.

Every argument of what a definition module declares, and every word that it may use, as their own comments and
docstrings say it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import velagen
from velagen.definition import model
from velagen.project import Project
from velagen.template import body, functions

_DECLARED = ("Component", "Trait", "Policy", "WorkflowStep", "AddonTemplate", "Workload", "Status")
#: What a definition's author never writes.
_OURS = frozenset({"place"})
_SHARED = "_Definition"


def page() -> str:
    """The text of docs/reference.md."""
    classes = {node.name: node for node in _tree(model).body if isinstance(node, ast.ClassDef)}
    lines = [
        "# Reference: arguments and words of definitions",
        "",
        "Made from the code by `python -m velagen.definition.reference`; [templates.md](templates.md) tells how they"
        " are used, [extend.md](extend.md) shows a whole definition.",
        "",
        "Every definition (`Component`, `Trait`, `Policy`, `WorkflowStep`) has:",
        "",
        *_table(_arguments(model, classes[_SHARED])),
    ]
    for name in _DECLARED:
        said = ast.get_docstring(classes[name]) or ""
        lines += ["", f"## {name}", "", _plain(said), "", *_table(_arguments(model, classes[name]))]
    lines += ["", "## Words", "", "| word | what it gives |", "|---|---|"]
    lines += [f"| `{_cell(call)}` | {_cell(said)} |" for call, said in sorted(_words())]
    return "\n".join(lines) + "\n"


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _arguments(module: ModuleType, of: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each argument; the meaning is the ``#:`` comment above it."""
    source = inspect.getsource(module).splitlines()
    for node in of.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.target.id in _OURS:
            continue
        said: list[str] = []
        line = node.lineno - 2
        while source[line].strip().startswith("#:"):
            said.insert(0, source[line].strip().removeprefix("#:").strip())
            line -= 1
        default = "" if node.value is None else ast.unparse(node.value)
        made = re.fullmatch(r"field\(default_factory=(\w+)\)", default)
        shown = {"dict": "{}", "list": "[]"}.get(made[1], made[1]) if made else default
        yield node.target.id, ast.unparse(node.annotation), shown, _plain(" ".join(said))


def _table(arguments: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    yield "| argument | type | default | what it is |"
    yield "|---|---|---|---|"
    for name, kind, default, said in arguments:
        shown = f"`{_cell(default)}`" if default else "needed"
        yield f"| `{name}` | `{_cell(kind)}` | {shown} | {_cell(said)} |"


def _words() -> Iterator[tuple[str, str]]:
    """Each function that a definition module may import, as it is called, and its docstring."""
    for module in (body, functions):
        for node in _tree(module).body:
            # An overload has neither a docstring nor a body: the function itself has both.
            if isinstance(node, ast.FunctionDef) and node.name in velagen.__all__ and ast.get_docstring(node):
                yield f"{node.name}({_parameters(node.args)})", _plain(ast.get_docstring(node) or "")
    yield (
        "context",
        "What KubeVela knows: `context.name`, `context.namespace`, `context.output.spec…`, `context.appName`.",
    )
    yield "parameter", 'What the user wrote, or the schema\'s default: `parameter.port`, `parameter["odd-name"]`.'


def _parameters(arguments: ast.arguments) -> str:
    """Arguments as someone calls it: their names and defaults, without types."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for one in every:
        if one is not None:
            one.annotation = None
    return ast.unparse(arguments).replace("=_NOTHING", "=…")


def _plain(text: str) -> str:
    """A docstring's words in Markdown, in one line."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"(?<![*\w])\*(\w+)\*(?![*\w])", r"`\1`", text)
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the file into the project around the current folder."""
    Path(Project.find().root, "docs", "reference.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
