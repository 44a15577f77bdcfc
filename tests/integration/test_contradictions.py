"""Agents whose declarations contradict each other, or their own past, are refused at their start."""

from __future__ import annotations

from typing import Any

import pytest

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.start_checks import ConflictingSchemas
from tests.support.asking import Asked, answering
from tests.support.names import unique_agent
from tests.support.world import running


async def test_two_agents_of_one_process_that_contradict_each_other_are_not_both_announced(platform: Platform) -> None:
    one, two = Agent(unique_agent("emitting")), Agent(unique_agent("reading"))

    class Made(Event, type="delivery.made"):
        number: int

    @one.on(Asked)
    async def make(asked: Asked) -> Made:
        return Made(number=1)

    class OtherMade(Event, type="delivery.made"):
        number: str

    @two.on(OtherMade)
    async def read(made: OtherMade) -> None: ...

    with pytest.raises(ExceptionGroup) as stopped:
        async with running(platform, one, two):
            raise AssertionError("both were announced")
    assert stopped.group_contains(ConflictingSchemas, match="delivery.made")


async def test_agents_that_declare_a_topic_differently_are_told_apart_at_the_start(platform: Platform) -> None:
    one, two = answering(), Agent(unique_agent("other"))

    class AlsoAsked(Event, type="delivery.asked"):
        text: int

    @two.on(AlsoAsked)
    async def look(asked: AlsoAsked) -> None: ...

    class NarrowlyAsked(Event, type="delivery.asked"):
        text: str
        urgent: bool

    three = Agent(unique_agent("narrow"))

    @three.on(NarrowlyAsked)
    async def hurry(asked: NarrowlyAsked) -> None: ...

    emitting = Agent(unique_agent("emitting"))

    @emitting.on("delivery.unheard")
    async def emit(event: Any) -> Asked:
        return Asked(text="")

    async with running(platform, one):
        with pytest.raises(ConflictingSchemas, match=f"{two.name} and {one.name} declare delivery.asked differently") as refused:
            await platform.runner(two, Untraced()).run()
    async with running(platform, emitting):
        # It reads what the other's readers could not write: only whoever writes matters.
        with pytest.raises(ConflictingSchemas, match=f"{three.name} cannot read what {emitting.name} writes.*urgent"):
            await platform.runner(three, Untraced()).run()
    assert "text" in str(refused.value)


async def test_an_agent_that_could_not_read_what_may_still_wait_for_it_is_refused(platform: Platform) -> None:
    name = unique_agent("changing")

    class Before(Event, type="delivery.noted"):
        size: int

    class After(Event, type="delivery.noted"):
        size: str

    def agent(event: type[Event]) -> Agent:
        made = Agent(name)

        async def note(noted: Any) -> None: ...

        made.on(event)(note)
        return made

    async with running(platform, agent(Before), temporary=False):
        pass
    with pytest.raises(ConflictingSchemas, match=f"{name} was announced with another delivery.noted.*agents retire {name}"):
        await platform.runner(agent(After), Untraced()).run()
    await platform.catalog.retire(name)
    async with running(platform, agent(After)):
        pass
