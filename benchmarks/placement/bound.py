"""How few GPUs could hold the models: bounds from below, and the best of some heuristics from above.

*Of pools*: a GPU that is cut into r parts holds r models that ask for such a part and no others. All parts of a pool
are alike, so the quotient rounded up is exact; whole GPUs are added. *Of parts*: any part may lie on any GPU of its
kind, as software that sees the single GPU could do it. That is bin packing: its bound is L2 of Martello and Toth
(1990), and the best of first fit and best fit, both from the largest down, says how near to it a packing comes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.placement.mix import Ask

#: A GPU in units of which each part that gpu-share takes has a whole number: 1/2, 1/3, 1/4, 1/5, 1/8, 1/10.
UNITS: Final = 120


def of_pools(asks: Iterable[Ask]) -> int:
    """GPUs that these models need at least, where each GPU is cut into equal parts."""
    counts: Counter[tuple[str, int]] = Counter()
    for ask in asks:
        counts[ask.gpu, ask.parts] += ask.count
    return sum(math.ceil(count / parts) for (_, parts), count in counts.items())


def of_parts(asks: Iterable[Ask]) -> tuple[int, int]:
    """GPUs that these models need at least where any part may lie on any GPU of its kind, and a packing's."""
    sizes: dict[str, list[int]] = {}
    whole = 0
    for ask in asks:
        if ask.parts == 1:
            whole += ask.count
        else:
            sizes.setdefault(ask.gpu, []).append(UNITS // ask.parts)
    least = whole + sum(l2(own) for own in sizes.values())
    found = whole + sum(min(first_fit(own), best_fit(own)) for own in sizes.values())
    return least, found


def l2(sizes: Sequence[int], bin_size: int = UNITS) -> int:
    """The bound of Martello and Toth on the number of bins."""
    best = 0
    for least in sorted({0, *(size for size in sizes if 2 * size <= bin_size)}):
        alone = sum(1 for size in sizes if size > bin_size - least)
        large = [size for size in sizes if bin_size - least >= size and 2 * size > bin_size]
        small = sum(size for size in sizes if 2 * size <= bin_size and size >= least)
        room = len(large) * bin_size - sum(large)
        best = max(best, alone + len(large) + max(0, math.ceil((small - room) / bin_size)))
    return best


def first_fit(sizes: Iterable[int], bin_size: int = UNITS) -> int:
    """Bins that first fit needs, the largest first."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = next((number for number, room in enumerate(rooms) if room >= size), None)
        if place is None:
            rooms.append(bin_size - size)
        else:
            rooms[place] -= size
    return len(rooms)


def best_fit(sizes: Iterable[int], bin_size: int = UNITS) -> int:
    """Bins that best fit needs, the largest first."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = bisect_left(rooms, size)
        left = (rooms.pop(place) if place < len(rooms) else bin_size) - size
        insort(rooms, left)
    return len(rooms)
