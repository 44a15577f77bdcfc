"""One timer for all deadlines: it rings for the earliest, and not at all when there is none."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus.deadlines import Deadlines, HandlerGuard
from maypole.bus.memory.virtual_time import virtual_time


async def held(guard: HandlerGuard, seconds: float, *, timeout_seconds: float) -> bool:
    """A task under the guard that wants to go on for so long: whether its time was up."""
    guard.task = asyncio.current_task()
    guard.arm(timeout_seconds)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        pass
    over = guard.disarm()
    assert guard.task is not None and not guard.task.cancelling(), "the cancellation is taken back"
    return over


async def test_each_is_cancelled_when_its_own_time_is_up() -> None:
    async with virtual_time() as clock:
        deadlines = Deadlines()
        ends: dict[float, tuple[bool, float]] = {}

        async def one(timeout: float) -> None:
            over = await held(HandlerGuard(deadlines), 100.0, timeout_seconds=timeout)
            ends[timeout] = (over, clock.elapsed)

        await asyncio.gather(*(one(timeout) for timeout in (30.0, 5.0, 200.0, 5.5)))
    assert ends == {5.0: (True, 5.0), 5.5: (True, 5.5), 30.0: (True, 30.0), 200.0: (False, 100.0)}


async def test_nothing_ticks_while_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[float] = []
    ring = Deadlines._ring

    def counted(self: Deadlines) -> None:
        rung.append(self.rings_at)
        ring(self)

    monkeypatch.setattr(Deadlines, "_ring", counted)
    async with virtual_time():
        deadlines = Deadlines()
        guard = HandlerGuard(deadlines)
        await asyncio.sleep(3600)
        for _ in range(1000):
            assert not await held(guard, 0.001, timeout_seconds=300)
        await asyncio.sleep(24 * 3600)
    assert len(rung) == 1, "once for all that were in time"


async def test_who_kept_the_loop_to_itself_past_the_deadline_is_over_its_time() -> None:
    """The timer had no chance to ring."""
    async with virtual_time() as clock:
        guard = HandlerGuard(Deadlines())
        guard.arm(5.0)
        clock.elapsed += 5.0
        assert guard.disarm()
        guard.arm(5.0)
        clock.elapsed += 4.9
        assert not guard.disarm()
