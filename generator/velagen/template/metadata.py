"""Names, labels and annotations that are written out and that the API server would refuse.

Source: k8s.io/apimachinery pkg/util/validation/validation.go (IsDNS1123Subdomain, IsQualifiedName, IsValidLabelValue).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from velagen.template.types import UNKNOWN, Fields, Type

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME = 253
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_KEY = re.compile(rf"({_NAME.pattern}/)?{_WORD}")
_VALUE = re.compile(rf"({_WORD})?")
_LONGEST_VALUE = 63


def wrong_metadata(of: Type, path: str = "") -> Iterator[str]:
    """What is wrong in each ``metadata`` and each ``matchLabels`` of an object of this type, a sentence each.

    A sentence begins with the field's path below the object.
    """
    metadata = _member(of, "metadata")
    if "rbac." not in "".join(_texts(_member(of, "apiVersion"))):
        # Of roles nearly any name is taken.
        for name in _texts(_member(metadata, "name")):
            if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
                said = "small letters, digits, - and ., at most 253 characters"
                yield f"{path}metadata.name: {name!r} is not a valid object name: {said}"
    yield from _wrong_entries(_member(metadata, "labels"), f"{path}metadata.labels")
    yield from _wrong_entries(_member(metadata, "annotations"), f"{path}metadata.annotations", keys_only=True)
    yield from _wrong_entries(_member(of, "matchLabels"), f"{path}matchLabels")
    for name in of.names if isinstance(of, Fields) else ():
        if name != "metadata":
            yield from wrong_metadata(_member(of, name), f"{path}{name}.")


def _wrong_entries(entries: Type, at: str, *, keys_only: bool = False) -> Iterator[str]:
    for key in entries.names:
        if len(key.rpartition("/")[2]) > _LONGEST_VALUE or not _KEY.fullmatch(key):
            yield f"{at}: {key!r} is not a valid key: letters, digits, -, _ and ., optionally after a domain and /"
        for value in () if keys_only else _texts(_member(entries, key)):
            if len(value) > _LONGEST_VALUE or not _VALUE.fullmatch(value):
                yield f"{at}: {value!r} is not a valid label value: letters, digits, -, _ and ., at most 63 characters"


def _member(of: Type, name: str) -> Type:
    found = of.declared(name)
    return found.type if found is not None else UNKNOWN


def _texts(of: Type) -> list[str]:
    return [value for value in of.enum if isinstance(value, str)]
