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


def selected(*names: str) -> cue.Expr:
    found: cue.Expr = cue.Ident(names[0])
    for name in names[1:]:
        found = cue.Selector(found, name)
    return found


def either(value: cue.Expr, default: cue.Expr, *asked: cue.Expr) -> cue.Expr:
    guards = tuple(cue.Guard(cue.present(one)) for one in asked or (value,))
    given = cue.Comprehension(guards, cue.Struct((cue.Embed(value),)))
    return cue.Index(cue.ListLit((given, default)), cue.Lit(0))


SEVEN = either(selected("p", "x"), cue.Lit(7))


def rewritten(*decls: cue.Decl) -> str:
    return cue.to_cue(cue.with_defaults(cue.File(decls)))


def test_a_default_is_said_in_cues_own_words_where_it_is_computed_with() -> None:
    whole = either(selected("p", "a", "b"), cue.Lit(""), selected("p", "a"), selected("p", "a", "b"))
    assert rewritten(
        cue.Field("sum", cue.Binary("+", SEVEN, cue.Lit(1))),
        cue.Field("text", cue.Interpolation(("x is ", SEVEN))),
        cue.Field("called", cue.call("strings", "ToUpper", whole)),
        cue.Field("not", cue.Unary("!", either(selected("p", "on"), cue.Lit(False)))),
        cue.Comprehension((cue.Guard(cue.Binary(">", SEVEN, cue.Lit(0))),), cue.Struct((cue.Field("y", SEVEN),))),
    ) == (
        'import (\n\t"strings"\n)\n\n'
        "sum:    (*p.x | 7) + 1\n"
        'text:   "x is \\(*p.x | 7)"\n'
        'called: strings.ToUpper(*p.a.b | "")\n'
        "not:    !(*p.on | false)\n"
        "if (*p.x | 7) > 0 {y: [if p.x != _|_ {p.x}, 7][0]}\n"
    )


def test_an_intermediate_is_rewritten_where_all_who_name_it_compute_with_it() -> None:
    used = cue.Field("a", cue.Binary("<", cue.Ident("x"), cue.Lit(1)))
    assert rewritten(cue.LetDecl("x", SEVEN), used).startswith("let x = *p.x | 7\n")
    assert rewritten(cue.LetDecl("x", SEVEN), used, cue.Field("b", cue.Ident("x"))).startswith("let x = [if")
    assert rewritten(cue.Field(cue.Name("_#x"), SEVEN)) == "_#x: *p.x | 7\n"


def test_what_is_asked_for_something_else_stays_as_it_is() -> None:
    other = either(selected("p", "x"), cue.Lit(7), selected("p", "y"))
    a_list = either(selected("p", "x"), cue.ListLit(()))
    of_two = cue.Binary("|", SEVEN, cue.Lit(1))
    for one in (cue.Binary("+", other, cue.Lit(1)), cue.call("strings", "Join", a_list), of_two, SEVEN):
        assert "*p.x" not in rewritten(cue.Field("a", one))


def test_a_loop_over_what_may_be_absent_asks_whether_it_is_there() -> None:
    source = either(selected("p", "list"), cue.ListLit(()))
    loop = cue.Comprehension((cue.For("one", source),), cue.Struct((cue.Embed(cue.Ident("one")),)))
    assert rewritten(cue.Field("a", cue.ListLit((loop,)))) == "a: [if p.list != _|_ for one in p.list {one}]\n"
