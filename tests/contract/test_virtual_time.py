"""Time that costs nothing, and the loop as it was afterwards."""

from __future__ import annotations

import asyncio
import time

import pytest

from maypole.bus.memory.virtual_time import EPOCH, virtual_time


async def test_sleeping_costs_nothing_and_ends_in_order() -> None:
    ends: list[tuple[str, float]] = []
    began = time.monotonic()
    async with virtual_time() as clock:

        async def sleep(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            ends.append((name, clock.elapsed))

        await asyncio.gather(sleep("day", 86_400.0), sleep("week", 604_800.0), sleep("second", 1.0), sleep("none", 0.0))
    assert ends == [("none", 0.0), ("second", 1.0), ("day", 86_400.0), ("week", 604_800.0)]
    assert time.monotonic() - began < 5


async def test_a_timeout_fires_when_nothing_else_can_happen() -> None:
    async with virtual_time() as clock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.Event().wait()
        assert (clock.elapsed, clock.now()) == (600.0, EPOCH + 600.0)


async def test_a_timeout_does_not_fire_while_there_is_work() -> None:
    async with virtual_time() as clock, asyncio.timeout(1):
        for _ in range(1000):
            await asyncio.sleep(0)
        assert clock.elapsed == 0.0


async def test_time_stands_still_while_a_thread_works() -> None:
    async with virtual_time() as clock:
        slept: list[float] = []

        async def sleep() -> None:
            await asyncio.sleep(5)
            slept.append(clock.elapsed)

        sleeping = asyncio.ensure_future(sleep())
        await asyncio.to_thread(time.sleep, 0.05)
        assert clock.elapsed == 0.0
        assert await asyncio.gather(*(asyncio.to_thread(pow, 2, n) for n in range(20))) == [2**n for n in range(20)]
        assert clock.elapsed == 0.0
        await sleeping
        assert slept == [5.0]


async def test_a_thread_that_fails_does_not_stop_time_for_ever() -> None:
    async with virtual_time() as clock:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        await asyncio.sleep(7)
        assert clock.elapsed == 7.0


async def test_the_loop_has_its_own_time_again_afterwards() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with virtual_time():
        assert loop.time() == 0.0
        await asyncio.sleep(10_000)
        left = loop.call_later(30, lambda: None)
    assert before <= loop.time() < before + 5
    # What was still set to ring keeps its distance.
    assert 25 < left.when() - loop.time() <= 30
    left.cancel()
    assert "time" not in vars(loop)
    assert "run_in_executor" not in vars(loop)


async def test_timers_from_before_ring_at_their_distance() -> None:
    rang = asyncio.Event()
    asyncio.get_running_loop().call_later(1000, rang.set)
    async with virtual_time() as clock:
        await rang.wait()
        assert 999 < clock.elapsed <= 1000


async def test_virtual_time_does_not_nest() -> None:
    async with virtual_time():
        with pytest.raises(RuntimeError, match="does not nest"):
            async with virtual_time():
                raise AssertionError("time was made virtual twice")
