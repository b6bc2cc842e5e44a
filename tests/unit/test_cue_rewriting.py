"""Shared beginnings of comprehensions, values said once, structs of one field: same meaning, fewer lines."""

from __future__ import annotations

from velagen import cue

A, B, C = (cue.present(cue.Ident(name)) for name in "abc")


def when(*conditions: cue.Expr, label: str) -> cue.Comprehension:
    return cue.Comprehension(tuple(cue.Guard(one) for one in conditions), cue.Struct((cue.Field(label, cue.Lit(1)),)))


def text(*decls: cue.Decl) -> str:
    return cue.to_cue(cue.File(decls))


def test_a_shared_beginning_stands_once_and_the_order_stays() -> None:
    decls = (when(A, B, label="x"), when(A, C, label="y"), when(B, label="z"), when(A, label="w"))
    assert text(*cue.nested(decls)) == (
        "if a != _|_ {\n\tif b != _|_ {x: 1}\n\tif c != _|_ {y: 1}\n}\n"
        "if b != _|_ {z: 1}\n"
        "if a != _|_ {w: 1}\n"
    )  # fmt: skip


def test_a_beginning_that_is_the_whole_of_one_keeps_its_fields() -> None:
    assert text(*cue.nested((when(A, label="x"), when(A, B, label="y")))) == (
        "if a != _|_ {\n\tx: 1\n\tif b != _|_ {y: 1}\n}\n"
    )


def test_loops_of_one_variable_nest_and_others_do_not() -> None:
    def loop(variable: str, label: str) -> cue.Comprehension:
        return cue.Comprehension(
            (cue.For(variable, cue.Ident("list")),), cue.Struct((cue.Field(label, cue.Ident(variable)),))
        )

    assert text(*cue.nested((loop("x", "a"), loop("x", "b")))).count("for") == 1
    assert text(*cue.nested((loop("x", "a"), loop("y", "b")))).count("for") == 2


def test_what_stands_twice_becomes_a_definition_that_is_as_open_as_it_was() -> None:
    inner = cue.Struct((cue.Field("k", cue.Ident("string"), "?"),))
    part = cue.Call(cue.Ident("close"), (cue.Struct((cue.Field("open", inner, "?"),)),))
    root = cue.Struct((cue.Field("a", part), cue.Field("b", part)))
    names: dict[cue.Expr, str] = {part: "Part"}
    assert cue.repeated(root, names) == {"Part"}
    assert cue.repeated(cue.Struct((cue.Field("a", part),)), names) == set()
    changed, meanings = cue.shared(root, names, {"Part"})
    assert cue.to_cue(changed) == "{\n\ta: #Part\n\tb: #Part\n}"
    # A definition closes what it holds: the struct inside was open.
    assert cue.to_cue(meanings["Part"]) == "close({\n\topen?: {\n\t\tk?: string\n\t\t...\n\t}\n})"


def test_structs_of_one_field_are_folded_below_the_top_only() -> None:
    probe = cue.Struct((cue.Field("exec", cue.Struct((cue.Field("command", cue.ListLit((cue.Lit("x"),))),))),))
    assert text(cue.Field("a", cue.Struct((cue.Field("preStop", probe), cue.Field("n", cue.Lit(1)))))) == (
        'a: {\n\tpreStop: exec: command: ["x"]\n\tn: 1\n}\n'
    )
    assert text(cue.Field("template", cue.Struct((cue.Field("x", cue.Lit(1)),)))) == "template: {\n\tx: 1\n}\n"


def test_a_comment_keeps_its_field_apart() -> None:
    marked = cue.Struct((cue.Field("x", cue.Lit(1), doc=("+patchStrategy=retainKeys",)),))
    assert "a: {\n\t\t// +patchStrategy" in text(cue.Field("p", cue.Struct((cue.Field("a", marked),))))
