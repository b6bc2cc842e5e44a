"""CUE: a syntax tree and its printer. Nothing else in velagen puts CUE text together."""

from velagen.cue.alike import free_name, is_constant, looped
from velagen.cue.defaults import with_defaults
from velagen.cue.nesting import nested
from velagen.cue.printer import to_cue
from velagen.cue.sharing import repeated, shared
from velagen.cue.syntax import (
    BOTTOM,
    TOP,
    Binary,
    Call,
    Comment,
    Comprehension,
    Decl,
    Definition,
    Dynamic,
    Ellipsis,
    Embed,
    Expr,
    Field,
    File,
    For,
    Guard,
    Hidden,
    Ident,
    Index,
    Interpolation,
    Label,
    LetClause,
    LetDecl,
    ListLit,
    Lit,
    Name,
    Node,
    Package,
    Pattern,
    Raw,
    Scalar,
    Selector,
    Struct,
    Unary,
    absent,
    call,
    joined,
    literal,
    negated,
    present,
)

__all__ = [
    "BOTTOM", "TOP", "Binary", "Call", "Comment", "Comprehension", "Decl", "Definition", "Dynamic", "Ellipsis",
    "Embed", "Expr", "Field", "File", "For", "Guard", "Hidden", "Ident", "Index", "Interpolation", "Label",
    "LetClause", "LetDecl", "ListLit", "Lit", "Name", "Node", "Package", "Pattern", "Raw", "Scalar", "Selector",
    "Struct", "Unary", "absent", "call", "free_name", "is_constant", "joined", "literal", "looped", "negated", "nested",
    "present", "repeated", "shared", "to_cue", "with_defaults",
]  # fmt: skip
