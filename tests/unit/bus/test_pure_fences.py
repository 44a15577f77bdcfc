"""Fences of pure steps, which have no row of their own."""

from __future__ import annotations

import asyncio

from maypole.bus import Agent, Event
from maypole.bus.testing import Choreography
from maypole.schemas.commands import Fence
from maypole.schemas.journal import (
    StepCompleted,
    StepFenced,
)
from tests.support.commanding import Commands
from tests.support.world import eventually


class Ordered(Event, type="tallying.ordered"):
    number: int


class Booked(Event, type="tallying.booked"):
    room: str


def tallying(called: list[int], hold: asyncio.Event) -> Agent:
    """Pure, so no row of it is ever looked at; and one flow at a time."""
    agent = Agent("tallying", concurrency=1)

    @agent.on(Ordered, pure=True)
    async def tally(ordered: Ordered) -> Booked:
        called.append(ordered.number)
        await hold.wait()
        return Booked(room=str(ordered.number))

    return agent


async def test_pure_steps_are_fenced_while_they_run_and_while_they_wait_for_their_turn() -> None:
    called, hold = list[int](), asyncio.Event()
    async with Choreography([tallying(called, hold)]) as world:
        flows = [await world.publish(Ordered(number=number)) for number in range(4)]

        async def begun() -> list[int]:
            return called

        await eventually(begun, bool)
        waits, runs = flows[(called[0] + 1) % 4], flows[called[0]]
        fenced = [Commands(world, "tallying", flow) for flow in (waits, runs)]
        for each in fenced:
            await each.send(Fence)
            await each.answer(StepFenced)
        hold.set()
        left = [flow for flow in flows if flow not in [each.flow for each in fenced]]
        assert [await flow.finished() for flow in left] == ["committed"] * 2
    assert len(called) == 3 and not any(each.told(StepCompleted) for each in fenced)


async def test_a_tombstone_of_a_pure_step_is_known_to_whoever_takes_its_partition_over() -> None:
    called, hold = list[int](), asyncio.Event()
    agent = tallying(called, hold)
    async with Choreography([agent]) as world:
        flows = [await world.publish(Ordered(number=number)) for number in range(12)]
        assert len({flow.published.partition for flow in flows}) > 1
        commands = [Commands(world, "tallying", flow) for flow in flows]
        for each in commands:
            await each.send(Fence)
            await each.answer(StepFenced)
        # Where each event lies, so that whoever gets that partition, and only that, learns of it.
        rows = world._cast._stage.stores.of("tallying").steps
        for each in commands:
            assert rows[each.step].place.at == (each.subscription, each.flow.published.partition)
        # Nothing is committed yet: the first of them holds the only worker.
        await world.kill(agent)
        before = len(called)
        hold.set()
        await world.start(agent)
        other = await world.publish(Ordered(number=99))
        assert await other.finished() == "committed"
        for each in commands:
            await each.answer(StepFenced, 2)
    assert called[before:] == [99]
