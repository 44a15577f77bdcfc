"""A process's clock that is set an hour forward or back while its agent works; the broker's goes on as before.

What lies within one process is timed by a clock that cannot be set. What others have to understand (when a retry is due, how long a
lease holds) is told by the calendar: such a jump makes it earlier or later, and nothing is lost or done twice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from maypole.bus import Agent, Context, Event, Retry
from maypole.bus.breaker import Breaker
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ledger.port import Ledger
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import VirtualClock, virtual_time
from maypole.bus.stores.sqlite import open_sqlite_ledger
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.world import ended, running

HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


class Asked(Event, type="clock.asked"):
    number: int


class Answered(Event, type="clock.answered"):
    number: int


class Wrist:
    """The calendar as one process sees it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.ahead = 0.0

    def now(self) -> float:
        return self._clock.now() + self.ahead


@asynccontextmanager
async def worn(home: Path) -> AsyncIterator[tuple[Platform, Wrist]]:
    """A platform on a broker in memory, with the embedded ledger, and the clock that its agents look at."""
    async with virtual_time() as clock, MemoryTransport(MemoryBroker(clock.now)) as transport:
        wrist = Wrist(clock)
        home.mkdir(parents=True, exist_ok=True)

        starts = itertools.count()

        def ledger(agent: str, instance: str) -> AbstractAsyncContextManager[Ledger]:
            return open_sqlite_ledger(home / f"{agent}.sqlite3", f"{instance}-{next(starts)}", lambda: int(wrist.now() * 1000))

        async with open_platform(Settings(home=home), transport, wrist.now, ledger) as platform:
            yield platform, wrist


@JUMPS
async def test_a_breaker_stays_open_for_its_time_and_no_longer(tmp_path: Path, jump: float) -> None:
    agent, tried = Agent("answering"), list[float]()
    loop = asyncio.get_running_loop()

    @agent.on(Asked, breaker=Breaker(failures=2, open_seconds=60), retry=Retry(delays=(0.01,)))
    async def answer(asked: Asked) -> Answered:
        tried.append(loop.time())
        if len(tried) <= 2:
            raise ConnectionError("away")
        return Answered(number=asked.number)

    async with worn(tmp_path) as (platform, wrist), running(platform, agent):
        bus = platform.bus("tests", Untraced())
        flows = [(await bus.publish(Asked(number=number))).flow_id for number in range(2)]
        await asyncio.sleep(10)
        assert len(tried) == 2, "it is open"
        wrist.ahead = jump
        await asyncio.sleep(45)
        assert len(tried) == 2
        await asyncio.sleep(10)
        assert len(tried) > 2 and 60 <= tried[2] - tried[1] <= 65
        for flow in flows:
            assert (await ended(platform, flow)).state is State.COMMITTED


@JUMPS
async def test_a_handler_has_its_time_and_acts_once(tmp_path: Path, jump: float) -> None:
    agent, calls, attempts = Agent("acting"), list[str](), list[int]()

    @agent.on(Asked, timeout_seconds=20)
    async def act(asked: Asked, context: Context) -> Answered:
        attempts.append(context.attempt)
        await asyncio.sleep(10)
        calls.append(context.idempotency_key)
        return Answered(number=asked.number)

    @act.undo
    async def take_back(asked: Asked) -> None: ...

    async with worn(tmp_path) as (platform, wrist), running(platform, agent):
        flow = (await platform.bus("tests", Untraced()).publish(Asked(number=1))).flow_id
        await asyncio.sleep(5)
        assert attempts == [1]
        wrist.ahead = jump
        assert (await ended(platform, flow)).state is State.COMMITTED
    # By a clock set forward its lease is over, and somebody else may act already: it is cut off, and comes again under its key.
    assert len(calls) == 1 and attempts == ([1] if jump < 0 else [1, 2])


@JUMPS
async def test_a_retry_comes_earlier_or_later_by_the_jump_and_is_not_lost(tmp_path: Path, jump: float) -> None:
    agent, tried = Agent("answering"), list[float]()
    loop = asyncio.get_running_loop()

    @agent.on(Asked, retry=Retry(delays=(600,)))
    async def answer(asked: Asked) -> Answered:
        tried.append(loop.time())
        if len(tried) == 1:
            raise ConnectionError("away")
        return Answered(number=asked.number)

    async with worn(tmp_path) as (platform, wrist), running(platform, agent):
        flow = (await platform.bus("tests", Untraced()).publish(Asked(number=1))).flow_id
        await asyncio.sleep(10)
        wrist.ahead = jump
        await asyncio.sleep(100 if jump > 0 else HOUR + 700)
        assert (await ended(platform, flow)).state is State.COMMITTED
    waited = tried[1] - tried[0]
    if jump > 0:
        assert waited <= 75, "a clock that is set forward is looked at every minute"
    else:
        assert HOUR <= waited <= HOUR + 600 + 75


@JUMPS
async def test_whoever_follows_a_process_that_died_takes_its_step_over_at_once(tmp_path: Path, jump: float) -> None:
    begun, calls = asyncio.Event(), list[str]()

    def acting(*, stands: bool) -> Agent:
        agent = Agent("acting")

        @agent.on(Asked, timeout_seconds=20)
        async def act(asked: Asked, context: Context) -> Answered:
            calls.append(context.idempotency_key)
            if stands:
                begun.set()
                await asyncio.Event().wait()
            return Answered(number=asked.number)

        @act.undo
        async def take_back(asked: Asked) -> None: ...

        return agent

    async with worn(tmp_path) as (platform, wrist):
        runner = platform.runner(acting(stands=True), Untraced())
        dying = asyncio.create_task(runner.run())
        await runner.ready.wait()
        flow = (await platform.bus("tests", Untraced()).publish(Asked(number=1))).flow_id
        await begun.wait()
        dying.cancel()
        await asyncio.wait([dying])
        wrist.ahead = jump
        before = asyncio.get_running_loop().time()
        async with running(platform, acting(stands=False)):
            assert (await ended(platform, flow)).state is State.COMMITTED
            assert asyncio.get_running_loop().time() - before < 30
    assert len(calls) == 2 and len(set(calls)) == 1, "repeated under the same key"
