"""The sentences: one for every keyword, the same in a rendered definition and in ``velagen check``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from velagen.cue import Expr
from velagen.schema.formats import FORMATS
from velagen.schema.model import Node

_ARTICLE = {
    "null": "null", "boolean": "true or false", "integer": "a whole number", "number": "a number",
    "string": "a string", "array": "a list", "object": "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """Text with CUE expressions in between (the index of an element, the name of a property)."""

    parts: tuple[str | Expr, ...]

    def name(self, name: str | Expr) -> Words:
        """The path one property further."""
        return Words((*self.parts, ".", name) if self.parts else (name,))

    def item(self, index: int | Expr) -> Words:
        """The path one element further."""
        return Words((*self.parts, "[", str(index) if isinstance(index, int) else index, "]"))

    def key(self, key: Expr) -> Words:
        """A property's name itself."""
        return Words(("the name ", key, *((" in ", *self.parts) if self.parts else ())))

    def say(self, text: str) -> Words:
        """The path and what holds for it."""
        return Words((*(self.parts or ("the value",)), " ", text))


def told_with(message: Words, path: Words, choice: str) -> Words:
    """*message* with the *choice* that it comes from; a schema's own ``x-message``, which has no path, as it is."""
    derived = message.parts[: len(path.parts)] == path.parts and len(message.parts) > len(path.parts)
    return Words((*message.parts, f" when {choice}")) if derived and len(message.parts) > 1 else message


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def choices(values: list[Any]) -> str:
    """``a, b or c``; long lists are cut."""
    shown = [_show(value) for value in values[:12]]
    if len(values) > 12:
        return ", ".join(shown) + f" or one of {len(values) - 12} more"
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]


def _only(contents: Any, keyword: str) -> bool:
    return isinstance(contents, dict) and set(contents) == {keyword}


def sentence(node: Node, keyword: str, value: Any, words: Words) -> Words:
    """What is said when *keyword* of *node* is broken at the path *words*; ``x-message`` replaces it."""
    message = node.get("x-message")
    if isinstance(message, str):
        return Words((message,))
    match keyword:
        case "required":
            return words.name(str(value)).say("is required")
        case "dependentRequired":
            return words.name(value[1]).say(f"is required when {value[0]} is given")
        case "not" if _only(value, "required"):
            names = [str(name) for name in value["required"]]
            if len(names) == 1:
                return words.name(names[0]).say("is not allowed here")
            return words.say(f"may not have {' and '.join(names)} together")
        case "anyOf" | "oneOf" if value and all(_only(one, "required") for one in value):
            names = [" and ".join(str(name) for name in one["required"]) for one in value]
            some = "exactly one of" if keyword == "oneOf" else "one of"
            return words.say(f"needs {some} {choices(names)}")
    return words.say(_predicate(keyword, value))


def _predicate(keyword: str, value: Any) -> str:
    match keyword:
        case "false":
            return "is not allowed"
        case "type":
            kinds = [value] if isinstance(value, str) else value
            return "must be " + choices([_ARTICLE.get(kind, kind) for kind in kinds])
        case "enum":
            return "must be " + choices(value) if value else "can't have any value"
        case "const":
            return "must be " + _show(value)
        case "minimum":
            return f"must be at least {_show(value)}"
        case "maximum":
            return f"must be at most {_show(value)}"
        case "exclusiveMinimum":
            return f"must be greater than {_show(value)}"
        case "exclusiveMaximum":
            return f"must be less than {_show(value)}"
        case "multipleOf":
            return f"must be a multiple of {_show(value)}"
        case "minLength":
            return "must not be empty" if value == 1 else f"must have at least {value} characters"
        case "maxLength":
            return f"must have at most {value} characters"
        case "pattern":
            return f"must match {_show(value)}"
        case "format":
            return FORMATS[value].words
        case "minItems":
            return "must not be empty" if value == 1 else f"must have at least {value} elements"
        case "maxItems":
            return f"must have at most {value} elements"
        case "uniqueItems":
            return "must not have the same element twice"
        case "x-kubernetes-list-map-keys":
            return f"must not have two elements of the same {' and '.join(value)}"
        case "contains":
            return "lacks an element that it must contain"
        case "maxContains":
            return f"must have at most {value} elements of a kind that it has more of"
        case "minProperties":
            return "must not be empty" if value == 1 else f"must have at least {value} properties"
        case "maxProperties":
            return f"must have at most {value} properties"
        case "not":
            return "has a form that is not allowed"
        case "anyOf":
            return "has none of the allowed forms"
        case "oneOf":
            return "must have exactly one of the allowed forms"
    return f"breaks the rule {keyword}"
