"""Processes on a simulated loop die and stand still as the operating system would have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

import pytest

from maypole.bus.testing.simulation.loop import Condition, Process, SimulatedLoop, Stalled


async def _worker(seen: list[str]) -> None:
    try:
        for number in range(5):
            seen.append(f"step {number}")
            await asyncio.sleep(1)
    finally:
        seen.append("finally")


def _run(loop: SimulatedLoop, accident: Callable[[Process], None], seen: list[str]) -> Process:
    async def main() -> Process:
        process = Process(loop, "worker")
        process.spawn(_worker(seen), Context())
        loop.call_later(2.5, accident, process, context=Context())
        await asyncio.sleep(20)
        return process

    return loop.run_until_complete(main())


def test_a_process_that_is_killed_takes_no_step_any_more_not_even_a_finally() -> None:
    loop, seen = SimulatedLoop(), list[str]()
    process = _run(loop, Process.kill, seen)
    assert (seen, process.condition, loop.elapsed) == (["step 0", "step 1", "step 2"], Condition.DEAD, 20)
    tasks = process.bury()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(tasks[0])
    assert seen[-1] == "finally"
    loop.close()


def test_a_process_that_stands_still_goes_on_where_it_stopped() -> None:
    loop, seen = SimulatedLoop(), list[str]()

    def pause(process: Process) -> None:
        process.stop()
        loop.call_later(10, process.go_on, context=Context())

    _run(loop, pause, seen)
    assert seen == [*(f"step {number}" for number in range(5)), "finally"]
    loop.close()


@pytest.mark.parametrize("steps", range(1, 7))
def test_a_process_can_be_killed_before_each_of_its_steps(steps: int) -> None:
    loop, seen = SimulatedLoop(), list[str]()

    async def main() -> None:
        process = Process(loop, "worker")
        process.interrupt_after(steps, process.kill)
        process.spawn(_worker(seen), Context())
        await asyncio.sleep(20)
        process.bury()
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    # Every sleep takes two: the timer, and what it wakes.
    assert [each for each in seen if each != "finally"] == [f"step {number}" for number in range(steps // 2)]
    loop.close()


def test_waiting_for_what_can_never_happen_is_an_error() -> None:
    loop = SimulatedLoop()
    with pytest.raises(Stalled):
        loop.run_until_complete(loop.create_future())
    loop.close()
