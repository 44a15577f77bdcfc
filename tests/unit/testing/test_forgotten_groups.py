"""A broker forgets the positions of a group that is away for a week. Nothing is passed over for that."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus import Agent, Event
from maypole.bus.testing import Choreography


class Asked(Event, type="forgotten.asked"):
    number: int


class Answered(Event, type="forgotten.answered"):
    number: int


class Noted(Event, type="forgotten.noted"):
    number: int


def answering(handled: list[int], noted: list[int] | None = None) -> Agent:
    """With `noted` it is a later version, with a subscription more."""
    agent = Agent("answering")

    @agent.on(Asked)
    async def answer(asked: Asked) -> Answered:
        handled.append(asked.number)
        return Answered(number=asked.number)

    if noted is not None:

        @agent.on(Noted)
        async def read(note: Noted) -> None:
            noted.append(note.number)

    return agent


async def test_what_came_while_a_known_agent_was_forgotten_is_handled_and_what_was_done_is_not_done_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled = list[int]()
    agent = answering(handled)
    async with Choreography([agent]) as world:
        assert await (await world.publish(Asked(number=1))).finished() == "committed"
        await world.stop(agent)
        missed = await world.publish(Asked(number=2))
        world.broker.group(agent.name).committed.clear()
        await world.start(agent)
        assert await missed.finished() == "committed"
        await asyncio.sleep(60)
    assert handled == [1, 2]
    (told,) = (vars(record) for record in caplog.records if record.message == "offsets.forgotten")
    assert told["agent"] == agent.name and told["partitions"]


async def test_a_subscription_that_a_known_agent_gains_begins_at_the_end_of_its_topic(caplog: pytest.LogCaptureFixture) -> None:
    noted = list[int]()
    first = answering([])
    later = answering([], noted)
    async with Choreography([first]) as world:
        assert await (await world.publish(Asked(number=1))).finished() == "committed"
        await world.publish(Noted(number=1))
        await world.stop(first)
        await world.publish(Noted(number=2))
        await world.start(later)
        flow = await world.publish(Noted(number=3))
        assert await flow.finished() == "committed"
        await asyncio.sleep(60)
    assert noted == [3]
    assert not [record for record in caplog.records if record.message == "offsets.forgotten"]
