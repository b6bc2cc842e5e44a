"""KubeVela definitions from JSON Schemas and Python templates.

What a definition module needs is here; the engine's own parts are imported from their packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velagen.definition.model import AddonTemplate, Component, Policy, Status, Trait, WorkflowStep, Workload
    from velagen.template.body import (
        Refusal,
        comment,
        conditions,
        each,
        merge_by,
        never,
        optional,
        otherwise,
        refuse,
        replace_list,
        retain_keys,
        when,
    )
    from velagen.template.expression import Expression, Reference, Value, context, parameter
    from velagen.template.functions import (
        as_string,
        cases,
        ceil,
        choose,
        concat,
        contains,
        contains_text,
        div,
        first_given,
        flatten,
        floor,
        from_base64,
        from_json,
        given,
        has_prefix,
        has_suffix,
        if_else,
        is_json,
        join,
        length,
        let,
        lower,
        matches,
        maximum,
        minimum,
        missing,
        once,
        one_of,
        operation,
        quantity,
        raw_cue,
        replace_pattern,
        replace_text,
        result_of,
        sha256,
        sort_by,
        split,
        to_base64,
        to_bytes,
        to_json,
        to_number,
        to_yaml,
        total,
        trim_prefix,
        trim_suffix,
        unique,
        upper,
        url_encode,
    )

__all__ = [
    "AddonTemplate", "Component", "Expression", "Policy", "Reference", "Refusal", "Status", "Trait",
    "Value", "WorkflowStep", "Workload", "as_string", "cases", "ceil", "choose", "comment", "concat", "conditions",
    "contains", "contains_text", "context", "div", "each", "first_given", "flatten", "floor", "from_base64",
    "from_json", "given", "has_prefix", "has_suffix", "if_else", "is_json", "join", "length", "let", "lower", "matches",
    "maximum", "merge_by", "minimum", "missing", "never", "once", "one_of", "operation", "optional", "otherwise",
    "parameter", "quantity", "raw_cue", "refuse", "replace_list", "replace_pattern", "replace_text", "result_of",
    "retain_keys", "sha256", "sort_by", "split", "to_base64", "to_bytes", "to_json", "to_number", "to_yaml", "total",
    "trim_prefix", "trim_suffix", "unique", "upper", "url_encode", "when",
]  # fmt: skip

#: Where they are. A command that only prints its help waits for none of it.
_HOMES = (
    "velagen.definition.model",
    "velagen.template.body",
    "velagen.template.expression",
    "velagen.template.functions",
)


if not TYPE_CHECKING:  # a type checker is to miss what is not there

    def __getattr__(name: str) -> object:
        if name in __all__:
            for home in map(import_module, _HOMES):
                if hasattr(home, name):
                    found: object = getattr(home, name)
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
