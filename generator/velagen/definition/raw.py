"""Is the CUE that an author wrote himself right, by the CUE of each KubeVela: its form, its references, its type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from velagen import cue
from velagen.answers import answer_file, digest, read, write
from velagen.errors import Place, Problem
from velagen.kubevela import RELEASES, VERSIONS
from velagen.template.values import RawUse

#: What CUE may say of a text that stands alone, without the conditions that it has in its place.
_WITHOUT_CONDITIONS = re.compile(r"^_judged.*(out of bounds|out of range|division by zero|error in call to)")
_PATH = re.compile(r"^\S+: ")
#: CUE's names of JSON's types.
_TYPES = {
    "string": "string",
    "integer": "int",
    "number": "number",
    "boolean": "bool",
    "null": "null",
    "object": "{...}",
    "array": "[...]",
}


def wrong_raw(uses: Sequence[RawUse], decls: Sequence[cue.Decl]) -> list[Problem]:
    """What is wrong with each of *uses* at its author's place; a text that says nothing of it alone says nothing here.

    In: the uses of raw_cue in *decls*, which are all of one text. That a text is right is kept by its content. Raises
    VelagenError where the evaluator is not available.
    """
    if not uses:
        return []
    whole = _text(uses, decls)
    before = answer_file("cue", digest([*VERSIONS, whole]))
    if read(before) is True:
        return []
    # The evaluator is asked by few builds only.
    from velagen.oracle import VERSIONS as EVALUATED
    from velagen.oracle import not_here

    # velagen check says that nobody judged it.
    if any(not_here(version) for version in EVALUATED):
        return []
    found = list(_judged(uses, decls, whole))
    if not found:
        write(before, True)
    return found


def _judged(uses: Sequence[RawUse], decls: Sequence[cue.Decl], whole: str) -> Iterator[Problem]:
    from velagen.oracle import Oracle

    for release in RELEASES:
        with Oracle(release.cue) as oracle:

            def said(text: str, oracle: Oracle = oracle) -> list[str]:
                return _complaints(oracle.compile(text).error)

            # Of what KubeVela rewrites before it evaluates it, velagen check says more.
            if not said(whole) or oracle.rewritten(whole) or said(_text([], decls)):
                continue
            found = [(use, said(_text([use], decls))) for use in uses]
        wrong = [(use, words[0]) for use, words in found if words]
        for use, words in wrong:
            place = Place(use.place.file, use.place.line, use.place.column)
            yield Problem(f"raw_cue: {words} (CUE {release.cue}, of {release})", place)
        if wrong:
            return


def _complaints(error: str) -> list[str]:
    return [_PATH.sub("", line) for line in error.splitlines() if line and not _WITHOUT_CONDITIONS.search(line)]


def _text(uses: Sequence[RawUse], decls: Sequence[cue.Decl]) -> str:
    """*decls* with the raw CUE of *uses* in its places, and each once more by itself; other raw CUE is left open."""
    kept = {use.raw for use in uses}

    def opened(node: cue.Node) -> cue.Node:
        match node:
            case cue.Raw() if node not in kept:
                return cue.TOP
            case cue.Selector(of=cue.Package(path=path)) if path.startswith("vela/"):
                # Only the workflow engine has these packages.
                return cue.TOP
        return node.rebuilt(opened)

    made = [opened(decl) for decl in decls]
    # CUE takes no intermediate that nothing refers to, as one may be without the others' text.
    used = cue.ListLit(tuple(cue.Ident(one.name) for one in made if isinstance(one, cue.LetDecl)))
    alone = [cue.Field(cue.Hidden(f"judged{number}"), _alone(use)) for number, use in enumerate(uses)]
    fields = [decl for decl in made if isinstance(decl, cue.Decl)]
    return cue.to_cue(cue.File((*fields, cue.Field(cue.Hidden("used"), used), *alone)))


def _alone(use: RawUse) -> cue.Expr:
    """The CUE of one use with what its place takes, its loop's variables at hand."""
    takes = " | ".join(_TYPES[one] for one in sorted(use.takes)) or "_"
    variables = [cue.Field(cue.Name(name), cue.TOP) for name in dict.fromkeys(use.variables)]
    judged = cue.Field(cue.Hidden("judged"), cue.Raw(f"({use.raw.text}) & ({takes})", use.raw.imports))
    return cue.Struct((*variables, judged))
