"""Loads of four shapes, in requests a second, drawn about their means: the same for the same seed."""

from __future__ import annotations

import math
import random

HOUR = 3600


def _drawn(means: list[float], draw: random.Random) -> list[float]:
    """Poisson, by its normal approximation: the means are 40 and more."""
    return [max(0.0, round(draw.gauss(mean, math.sqrt(mean)))) for mean in means]


def diurnal(seed: int) -> list[float]:
    """A day from 40 at night to 400 in the afternoon."""
    means = [220 - 180 * math.cos(2 * math.pi * second / (24 * HOUR)) for second in range(24 * HOUR)]
    return _drawn(means, random.Random(seed))


def flash_crowd(seed: int) -> list[float]:
    """100, and in each of four hours 600 within 30 s for ten minutes."""

    def mean(second: int) -> float:
        since = second % HOUR - 1200
        return 100 + 500 * min(1.0, max(0.0, since / 30)) if since < 600 else 100

    return _drawn([mean(second) for second in range(4 * HOUR)], random.Random(seed))


def sawtooth(seed: int) -> list[float]:
    """From 50 to 400 in ten minutes, and at once back, for four hours."""
    return _drawn([50 + 350 * (second % 600) / 600 for second in range(4 * HOUR)], random.Random(seed))


def bursts(seed: int) -> list[float]:
    """120, and three times as many for 20 to 60 s, each five minutes on average, for four hours."""
    draw = random.Random(seed)
    means, ends, begins = [], -1.0, draw.expovariate(1 / 300)
    for second in range(4 * HOUR):
        if second >= begins:
            ends, begins = second + draw.uniform(20, 60), second + 60 + draw.expovariate(1 / 300)
        means.append(360.0 if second < ends else 120.0)
    return _drawn(means, draw)


LOADS = {"diurnal": diurnal, "flash crowd": flash_crowd, "sawtooth": sawtooth, "bursts": bursts}
