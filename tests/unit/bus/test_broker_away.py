"""A broker that is away: what is in hand waits for it, and what was finished meanwhile is not done again."""

from __future__ import annotations

import asyncio

from maypole.bus import Agent, Event
from maypole.bus.testing import Choreography

FLOWS = 20


class Asked(Event, type="away.asked"):
    number: int


class Answered(Event, type="away.answered"):
    number: int


async def test_what_is_finished_while_the_broker_is_away_is_not_done_again_when_the_process_dies_before_it_is_back() -> None:
    agent, calls = Agent("answering"), list[int]()

    @agent.on(Asked)
    async def answer(asked: Asked) -> Answered:
        calls.append(asked.number)
        await asyncio.sleep(1 + asked.number)  # one after the other, so that each is recorded by itself
        return Answered(number=asked.number)

    async with Choreography([agent]) as world:
        flows = [await world.publish(Asked(number=number)) for number in range(FLOWS)]
        await asyncio.sleep(0.5)
        assert len(calls) == FLOWS, "all are in hand"
        world.broker.go_away()
        await asyncio.sleep(10 + FLOWS)
        await world.kill(agent)
        world.broker.come_back()
        await world.start(agent)
        assert [await flow.finished() for flow in flows] == ["committed"] * FLOWS
    assert sorted(calls) == list(range(FLOWS)), "each once"


async def test_records_in_hand_of_which_the_cluster_must_be_asked_wait_for_it_and_the_agent_goes_on() -> None:
    agent, release = Agent("answering", concurrency=1), asyncio.Event()

    @agent.on(Asked)
    async def answer(asked: Asked) -> Answered:
        await release.wait()
        return Answered(number=asked.number)

    async with Choreography([agent]) as world:
        # Flows with a key may have been started before: who handles them asks the journal.
        flows = [await world.publish(Asked(number=number), idempotency_key=f"order-{number}") for number in range(3)]
        await asyncio.sleep(0.5)
        world.broker.go_away()
        release.set()
        await asyncio.sleep(60)
        assert not any(flow.state == "committed" for flow in flows)
        world.broker.come_back()
        assert [await flow.finished() for flow in flows] == ["committed"] * 3
        assert world.dead_letters(agent) == ()
