"""How long to wait between attempts: so that those that failed together do not come back together."""

from __future__ import annotations

import random

import pytest

from maypole.bus.backoff import BASE_SECONDS, CAP_SECONDS, full_jitter, jittered
from maypole.bus.memory.virtual_time import virtual_time

ATTEMPTS = range(1, 60)


def test_the_longest_wait_doubles_with_each_attempt_up_to_a_cap() -> None:
    longest = [full_jitter(attempt, 1.0) for attempt in ATTEMPTS]
    assert longest[:5] == [BASE_SECONDS * factor for factor in (1, 2, 4, 8, 16)]
    assert set(longest[5:]) == {CAP_SECONDS}


def test_a_wait_is_any_part_of_the_longest_one_from_none_to_all() -> None:
    for attempt in ATTEMPTS:
        whole = full_jitter(attempt, 1.0)
        assert [full_jitter(attempt, fraction) for fraction in (0.0, 0.25, 0.5)] == [0.0, whole / 4, whole / 2]


@pytest.mark.parametrize("longest_seconds", [None, 3.0])
async def test_waits_are_spread_over_the_whole_range(longest_seconds: float | None) -> None:
    async with virtual_time() as clock:
        wait = jittered(random.Random(7))
        before = clock.now()
        waited = [await wait(3, longest_seconds) for _ in range(400)]
        assert clock.now() - before == pytest.approx(sum(waited), abs=1)
    longest = full_jitter(3, 1.0) if longest_seconds is None else longest_seconds
    assert max(waited) < longest
    quarters = [sum(1 for seconds in waited if part <= 4 * seconds / longest < part + 1) for part in range(4)]
    assert min(quarters) > 60, quarters
