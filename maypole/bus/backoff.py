"""Waiting between attempts: exponential with full jitter, so that agents that failed together do not return together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

Backoff = Callable[[int], Awaitable[float]]

BASE_SECONDS: Final = 0.2
CAP_SECONDS: Final = 5.0


def full_jitter(attempt: int, fraction: float, base_seconds: float = BASE_SECONDS, cap_seconds: float = CAP_SECONDS) -> float:
    """Seconds after the n-th attempt, counted from 1. Source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015."""
    return fraction * min(cap_seconds, base_seconds * 2.0 ** (attempt - 1))


def jittered(random_source: random.Random) -> Backoff:
    async def wait(attempt: int) -> float:
        seconds = full_jitter(attempt, random_source.random())
        await asyncio.sleep(seconds)
        return seconds

    return wait
