"""Who waits at a gate is let go on once it may be over, whatever becomes of those who were to find out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from maypole.bus import Agent, Breaker, Event
from maypole.bus.guarding import Guarding
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.pausing import Pausing
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.work import Ownership, Work
from maypole.schemas.identifiers import StepId

AT = TopicPartition("guarding.asked", 0)


class Asked(Event, type="guarding.asked"):
    number: int


def asking() -> Agent:
    agent = Agent("guarding")

    @agent.on(Asked, breaker=Breaker(failures=1, open_seconds=60))
    async def ask(asked: Asked) -> None: ...

    return agent


def delivered(number: int, ownership: Ownership) -> Work:
    flow = f"flow {number}".encode()
    work = Work(Delivery(*AT, number, 0, flow, b"", ()), ownership, flow)
    work.step = StepId(f"step {number}")
    return work


async def test_a_probe_that_never_asks_leaves_its_turn_to_the_next() -> None:
    woken = list[Work]()
    async with virtual_time():
        ownership = Ownership(AT)
        works = [delivered(number, ownership) for number in range(3)]
        pausing = Pausing({AT: ownership}, {work.lane: None for work in works}, woken.extend)
        agent = asking()
        guarding = Guarding(agent.name, agent.subscriptions, {}, time.time)
        watching = asyncio.create_task(guarding.watch(pausing))
        assert guarding.gates["guarding.asked"].failed(works[0], ConnectionError("away"))
        _wait_at(pausing, guarding, works)
        await asyncio.sleep(59)
        assert woken == []
        await asyncio.sleep(2)
        [probe] = woken
        guarding.over(probe)  # it never asked: its partition was taken away, or its row said that nothing is left to do
        await asyncio.sleep(1)
        assert len(woken) == 2 and woken[1] is not probe, "the next one finds out"
        watching.cancel()
        await asyncio.wait([watching])


def _wait_at(pausing: Pausing, guarding: Guarding, works: Sequence[Work]) -> None:
    for work in works:
        pausing.hold("guarding.asked", work)
    guarding.look_soon()
