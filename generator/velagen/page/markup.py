"""Elements of HTML and SVG. Texts and attributes are escaped where they are written out, by the standard library."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

#: What no HTML may hold: control characters, and halves of a pair.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def element(tag: str, *children: Element | str | None, **attributes: str | float | bool | None) -> Element:
    """An element; None is left out, and so is an attribute that is None or False.

    An underscore at an attribute's end is dropped (``class_``), another one becomes a hyphen (``aria_label``).
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            made.set(name.rstrip("_").replace("_", "-"), "" if value is True else _text(value))
    for child in children:
        if isinstance(child, str):
            _append(made, clean(child))
        elif child is not None:
            made.append(child)
    return made


def serialised(root: Element) -> str:
    """The element as HTML."""
    return ElementTree.tostring(root, encoding="unicode", method="html")


def clean(text: str) -> str:
    """A text without characters that HTML forbids."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def _text(value: str | float) -> str:
    # Coordinates to a tenth: a page has thousands of them.
    return clean(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _append(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
