"""Another chance for a step that failed: by the way of every retry, and given once."""

from __future__ import annotations

from maypole.bus import Agent, Context, Event
from maypole.bus.testing import Choreography
from maypole.schemas.commands import Fence, Retry
from maypole.schemas.journal import (
    StepCompleted,
    StepFailed,
)
from tests.support.commanding import Commands


class Ordered(Event, type="chances.ordered"):
    number: int


class Charged(Event, type="chances.charged"):
    number: int


def charging(fails: list[BaseException], charged: list[int]) -> Agent:
    """Acts without a way back, so it may only stand after a pivot: its failures are for people."""
    agent = Agent("charging")

    @agent.on(Ordered, pivot=True, attempts_max=1)
    async def charge(ordered: Ordered, context: Context) -> Charged:
        if fails:
            raise fails.pop(0)
        charged.append(context.attempt)
        return Charged(number=ordered.number)

    return agent


async def test_another_chance_is_one_more_attempt_by_the_way_of_every_retry() -> None:
    charged: list[int] = []
    async with Choreography([charging([ConnectionError("away")], charged)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "charging", flow)
        assert commands.told(StepFailed)[0].generation == 1
        await commands.send(Retry, 2)
        assert (await commands.answer(StepCompleted)).outputs
        for count in (2, 3):
            await commands.send(Retry, 2)
            await commands.answer(StepCompleted, count)
    assert charged == [2], "told again, it is answered and not done again"


async def test_another_chance_that_fails_tells_its_own_generation_and_is_given_once() -> None:
    charged: list[int] = []
    async with Choreography([charging([ConnectionError("away")] * 2, charged)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "charging", flow)
        await commands.send(Retry, 2)
        failed = await commands.answer(StepFailed, 2)
        assert (failed.generation, failed.attempts) == (2, 2)
        await commands.send(Retry, 2)
        assert await commands.answer(StepFailed, 3) == failed
        await commands.send(Retry, 3)
        await commands.answer(StepCompleted)
    assert charged == [3]


async def test_a_fence_takes_away_the_chance_that_it_names() -> None:
    charged: list[int] = []
    async with Choreography([charging([ConnectionError("away")], charged)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "charging", flow)
        await commands.send(Fence, 2)
        assert (await commands.answer(StepFailed, 2)).generation == 2
        await commands.send(Retry, 2)
        assert (await commands.answer(StepFailed, 3)).generation == 2
    assert charged == []
