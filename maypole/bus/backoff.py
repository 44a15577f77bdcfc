"""Waiting between attempts: exponential with full jitter, so that agents that failed together do not return together."""

from __future__ import annotations

import asyncio
import random
from typing import Final, Protocol

BASE_SECONDS: Final = 0.2
CAP_SECONDS: Final = 5.0


class Backoff(Protocol):
    async def __call__(self, attempt: int, longest_seconds: float | None = None) -> float:
        """Wait after the n-th attempt, counted from 1; `longest_seconds`: any time up to that, whichever attempt it was."""
        ...


def full_jitter(attempt: int, fraction: float, base_seconds: float = BASE_SECONDS, cap_seconds: float = CAP_SECONDS) -> float:
    """Seconds after the n-th attempt, counted from 1. Source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015."""
    return fraction * min(cap_seconds, base_seconds * 2.0 ** (attempt - 1))


def jittered(random_source: random.Random) -> Backoff:
    async def wait(attempt: int, longest_seconds: float | None = None) -> float:
        fraction = random_source.random()
        seconds = full_jitter(attempt, fraction) if longest_seconds is None else fraction * longest_seconds
        await asyncio.sleep(seconds)
        return seconds

    return wait
