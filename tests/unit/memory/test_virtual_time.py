from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import UTC, datetime

import pytest

from maypole.bus.memory.virtual_time import EPOCH, virtual_time


async def test_sleeping_takes_no_time_and_moves_the_clock() -> None:
    begun = time.monotonic()
    async with virtual_time() as clock:
        await asyncio.sleep(3600)
        assert clock.elapsed == asyncio.get_running_loop().time() == 3600
        assert datetime.fromtimestamp(clock.now(), UTC) == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert time.monotonic() - begun < 30


async def test_time_begins_at_the_epoch_that_was_asked_for() -> None:
    async with virtual_time(epoch=1000.0) as clock:
        assert clock.now() == 1000.0
        await asyncio.sleep(1.5)
        assert clock.now() == 1001.5
    assert datetime.fromtimestamp(EPOCH, UTC) == datetime(2026, 1, 1, tzinfo=UTC)


async def test_timers_ring_in_order_each_at_its_own_time() -> None:
    loop, rung = asyncio.get_running_loop(), []
    async with virtual_time():
        for seconds in (30.0, 0.1, 7.0, 0.1 + 0.2, 0.3):
            loop.call_later(seconds, lambda due: rung.append((due, loop.time())), seconds)
        await asyncio.sleep(60)
    assert rung == [(due, due) for due in (0.1, 0.3, 0.1 + 0.2, 7.0, 30.0)]


async def test_no_timer_rings_before_it_is_due() -> None:
    loop, random_source = asyncio.get_running_loop(), random.Random(7)
    early: list[float] = []

    async def wait_until(due: float) -> None:
        while loop.time() < due:
            rung: asyncio.Future[None] = loop.create_future()
            loop.call_at(due, rung.set_result, None)
            await rung
            if loop.time() < due:
                early.append(due)

    async with virtual_time(), asyncio.timeout(10_000):
        # Sums of many small pauses lie a hair beside round numbers.
        ticks = [sum([0.1] * count) for count in range(1, 60)]
        await asyncio.gather(*(wait_until(due) for due in (*ticks, *map(float, range(1, 7)), random_source.random() * 5)))
    assert early == []


async def test_a_timeout_passes_at_once() -> None:
    begun = time.monotonic()
    async with virtual_time():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await asyncio.Event().wait()
    assert time.monotonic() - begun < 30


async def test_time_stands_still_while_a_thread_works() -> None:
    proceed = threading.Event()
    beats: list[None] = []

    async def beat() -> None:
        while True:
            beats.append(None)
            await asyncio.sleep(1)

    async with virtual_time() as clock:
        beating = asyncio.create_task(beat())
        threading.Timer(0.1, proceed.set).start()
        async with asyncio.timeout(0.5):
            assert await asyncio.to_thread(proceed.wait, 20)
        assert clock.elapsed == 0 and len(beats) == 1
        await asyncio.sleep(2.5)
        assert clock.elapsed == 2.5 and len(beats) == 3
        beating.cancel()


async def test_time_goes_on_after_a_thread_that_failed_and_one_that_nobody_waits_for() -> None:
    def fail() -> None:
        raise OSError("disk full")

    async with virtual_time() as clock:
        with pytest.raises(OSError, match="disk full"):
            await asyncio.to_thread(fail)
        proceed = threading.Event()
        forgotten = asyncio.create_task(asyncio.to_thread(proceed.wait, 20))
        await asyncio.sleep(0)
        forgotten.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forgotten
        proceed.set()
        await asyncio.sleep(5)
        assert clock.elapsed == 5


async def test_threads_answer_in_the_order_in_which_they_were_asked() -> None:
    first, second, order = threading.Event(), threading.Event(), list[str]()

    async def ask(name: str, before: threading.Event | None, after: threading.Event) -> None:
        def work() -> None:
            assert before is None or before.wait(10)
            after.set()

        await asyncio.to_thread(work)
        order.append(name)

    async with virtual_time():
        # The one that is asked first can only end when the other has ended.
        await asyncio.gather(ask("one", second, first), ask("two", None, second))
    assert order == ["one", "two"]


async def test_a_thread_may_wait_for_what_another_ones_answer_leads_to() -> None:
    answered = threading.Event()

    async def ask() -> None:
        await asyncio.to_thread(lambda: None)
        answered.set()

    async with virtual_time(patience_seconds=0.1):
        waited, _ = await asyncio.gather(asyncio.to_thread(answered.wait, 20), ask())
    assert waited


async def test_a_thread_that_outlives_the_block_still_answers() -> None:
    proceed = threading.Event()
    async with virtual_time():
        answer = asyncio.create_task(asyncio.to_thread(proceed.wait, 20))
        await asyncio.sleep(0)
    proceed.set()
    assert await answer


async def test_what_another_thread_calls_is_heard() -> None:
    loop = asyncio.get_running_loop()
    async with virtual_time():
        heard = asyncio.Event()
        threading.Timer(0.05, loop.call_soon_threadsafe, [heard.set]).start()
        await heard.wait()


async def test_time_is_real_again_when_the_block_is_left_and_timers_keep_their_distance() -> None:
    loop = asyncio.get_running_loop()
    before, rung = loop.time(), asyncio.Event()
    resolution = vars(loop)["_clock_resolution"]
    async with virtual_time():
        await asyncio.sleep(100_000)
        loop.call_later(0.05, rung.set)
    assert before <= loop.time() < before + 10
    assert not {"time", "run_in_executor"} & vars(loop).keys() and vars(loop)["_clock_resolution"] == resolution
    async with asyncio.timeout(30):
        await rung.wait()


async def test_timers_that_were_set_before_move_along() -> None:
    loop, rung = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(50, rung.set)
    async with virtual_time() as clock:
        await rung.wait()
        assert 49.9 < clock.elapsed <= 50


async def test_it_ends_with_the_block_also_when_the_block_fails() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with virtual_time():
                1 / 0  # noqa: B018
        assert "time" not in vars(loop)


async def test_it_does_not_nest() -> None:
    async with virtual_time():
        with pytest.raises(RuntimeError, match="virtual already"):
            async with virtual_time():
                pytest.fail("it must not begin")
        await asyncio.sleep(10)


async def test_the_same_program_takes_the_same_steps() -> None:
    async def program(seed: int) -> list[tuple[int, float]]:
        random_source, trace = random.Random(seed), []

        async def walk(number: int) -> None:
            for _ in range(20):
                await asyncio.sleep(random_source.random())
                trace.append((number, clock.elapsed))

        async with virtual_time() as clock:
            await asyncio.gather(*(walk(number) for number in range(10)))
        return trace

    assert await program(1) == await program(1) != await program(2)
