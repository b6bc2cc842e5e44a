"""The client: closed loop for throughput, open loop for latency, over HTTP on this machine's loopback."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

#: Seconds a request may take before it counts as failed.
TIMEOUT = 30.0
OK = 200
#: Reads what is measured beside the requests (processor seconds so far, by name).
Meter = Callable[[], dict[str, float]]


def percentile(values: Iterable[float], share: float) -> float:
    """Give the smallest value that at least `share` (0 to 1) of all values do not exceed: the nearest rank.

    Raises:
        ValueError: there is no value, or no such share.
    """
    ordered = sorted(values)
    if not ordered or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(ordered)} values")
    return ordered[math.ceil(share * len(ordered)) - 1]


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Give the moments at which requests are sent, in seconds from the start: a Poisson process, the same for a seed.

    Args:
        rate: requests a second.

    Raises:
        ValueError: the rate is not above zero.
    """
    if rate <= 0:
        raise ValueError(f"a rate of {rate} requests a second sends nothing")
    draw = random.Random(seed)
    moments: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        moments.append(at)
        at += draw.expovariate(rate)
    return moments


@dataclass
class Measured:
    """What one run of the client saw; requests of its first seconds are not in it."""

    seconds: float = 0.0
    #: Milliseconds of each request that was answered; in the open loop from the moment it was meant to be sent.
    latencies: list[float] = field(default_factory=list)
    #: Requests that were not answered with 200, by reason.
    failures: dict[str, int] = field(default_factory=dict)
    #: Answers between the two readings of the meter, those of unmeasured requests included.
    answered: int = 0
    #: Increase of what the meter reads.
    used: dict[str, float] = field(default_factory=dict)
    #: Seconds between the two readings.
    metered: float = 0.0
    #: How late the client itself sent, in milliseconds, at the 99th percentile (open loop).
    late: float = 0.0

    @property
    def failed(self) -> int:
        """Number of requests that failed."""
        return sum(self.failures.values())

    def percentile(self, share: float) -> float:
        """Give a latency in milliseconds; a request that failed took for ever.

        Raises:
            ValueError: there were no requests.
        """
        return percentile([*self.latencies, *([math.inf] * self.failed)], share)


class _Client:
    def __init__(self, url: str, bodies: Sequence[bytes], session: aiohttp.ClientSession) -> None:
        self.url, self.bodies, self.session = url, bodies, session
        self.sent = 0
        self.answered = 0

    async def ask(self) -> str:
        """Send the next request; give why it failed, empty where it was answered."""
        body = self.bodies[self.sent % len(self.bodies)]
        self.sent += 1
        try:
            async with self.session.post(self.url, data=body) as answer:
                await answer.read()
                reason = "" if answer.status == OK else f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = type(error).__name__
        self.answered += not reason
        return reason


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        headers={"Content-Type": "application/json"},
        trust_env=False,
    )


def _fail(measured: Measured, reason: str) -> None:
    measured.failures[reason] = measured.failures.get(reason, 0) + 1


def _increase(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


async def _closed(
    url: str, bodies: Sequence[bytes], concurrency: int, warm: float, seconds: float, meter: Meter
) -> Measured:
    measured = Measured(seconds=seconds)
    async with _session() as session:
        client = _Client(url, bodies, session)
        start = time.perf_counter() + warm
        end = start + seconds

        async def user() -> None:
            while (sent := time.perf_counter()) < end:
                reason = await client.ask()
                done = time.perf_counter()
                if start <= done < end:
                    if reason:
                        _fail(measured, reason)
                    else:
                        measured.latencies.append((done - sent) * 1000)
                if reason:
                    await asyncio.sleep(0.05)  # a server that refuses at once must not make this loop spin

        users = [asyncio.create_task(user()) for _ in range(concurrency)]
        await asyncio.sleep(warm)
        at, before, so_far = time.perf_counter(), meter(), client.answered
        await asyncio.sleep(max(0.0, end - time.perf_counter()))
        measured.used, measured.answered = _increase(before, meter()), client.answered - so_far
        measured.metered = time.perf_counter() - at
        await asyncio.gather(*users)
    return measured


async def _open(url: str, bodies: Sequence[bytes], moments: Sequence[float], warm: float, meter: Meter) -> Measured:
    measured = Measured(seconds=moments[-1] - warm if moments else 0.0)
    late: list[float] = []
    async with _session() as session:
        client = _Client(url, bodies, session)
        start = time.perf_counter() + 0.05
        at, before, so_far = 0.0, {}, 0

        async def one(moment: float) -> None:
            late.append((time.perf_counter() - start - moment) * 1000)
            reason = await client.ask()
            if moment < warm:
                return
            if reason:
                _fail(measured, reason)
            else:
                measured.latencies.append((time.perf_counter() - start - moment) * 1000)

        tasks = []
        for moment in moments:
            if moment >= warm and not at:
                at, before, so_far = time.perf_counter(), meter(), client.answered
            await asyncio.sleep(max(0.0, start + moment - time.perf_counter()))
            tasks.append(asyncio.create_task(one(moment)))
        await asyncio.gather(*tasks)
        if at:
            measured.used, measured.answered = _increase(before, meter()), client.answered - so_far
            measured.metered = time.perf_counter() - at
    measured.late = percentile(late, 0.99) if late else 0.0
    return measured


def nothing() -> dict[str, float]:
    """Read no meter."""
    return {}


def closed(
    url: str, bodies: Sequence[bytes], *, concurrency: int, warm: float, seconds: float, meter: Meter = nothing
) -> Measured:
    """Keep a number of requests under way: as many as the server answers.

    Args:
        bodies: sent in turn.
        warm: seconds at the start that are not measured.
        meter: read at the start and at the end of the measured seconds.
    """
    return asyncio.run(_closed(url, bodies, concurrency, warm, seconds, meter))


def opened(url: str, bodies: Sequence[bytes], *, moments: Sequence[float], warm: float, meter: Meter) -> Measured:
    """Send requests at set moments, whether others are still under way or not.

    A latency counts from the moment the request was meant to be sent: a client or server that falls behind can't hide.

    Args:
        moments: as `arrivals` gives them, in order.
        warm: requests meant for an earlier second are not measured.
    """
    return asyncio.run(_open(url, bodies, moments, warm, meter))


def summary(measured: Measured) -> dict[str, Any]:
    """Give what is kept of a run: rates, latencies, processor milliseconds for each request."""
    count = len(measured.latencies)
    some = count + measured.failed > 0
    return {
        "requests": count,
        "failures": measured.failures,
        "qps": count / measured.seconds if measured.seconds else 0.0,
        "p50": measured.percentile(0.5) if some else math.inf,
        "p99": measured.percentile(0.99) if some else math.inf,
        "late": measured.late,
        "seconds": measured.metered,
        "answered": measured.answered,
        "used": measured.used,
    }
