"""Kubernetes' quantities: ``1``, ``1000m`` and ``1e0`` are the same."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

_UNITS: Final = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def amount(quantity: str) -> Decimal | None:
    """A quantity as a number, such as ``2800m`` as 2.8; None where it is none.

    Source: Kubernetes apimachinery pkg/api/resource/quantity.go.
    """
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity)
    try:
        if found and found[2] in _BINARY:
            return Decimal(found[1]) * Decimal(1024) ** _BINARY[found[2]]
        if found and found[2] in _UNITS:
            return Decimal(found[1]) * Decimal(10) ** _UNITS[found[2]]
        return Decimal(quantity)
    except InvalidOperation:
        return None
