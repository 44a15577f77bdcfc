"""An outage of what an agent needs, on a broker in memory and on real Kafka: it pauses, and goes on by itself."""

from __future__ import annotations

from maypole.bus import Agent, Breaker, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import TopicPartition
from maypole.services.saga import State
from tests.support.names import unique_agent
from tests.support.world import eventually, read_topic, running, states_of


class Asked(Event, type="breaking.asked"):
    text: str


class Answered(Event, type="breaking.answered"):
    text: str


async def test_an_outage_pauses_its_subscription_and_ends_without_a_dead_letter(platform: Platform) -> None:
    agent, away, tries = Agent(unique_agent("answering")), [True], list[str]()

    @agent.on(Asked, attempts_max=50, breaker=Breaker(failures=3, open_seconds=1.5))
    async def answer(asked: Asked) -> Answered:
        tries.append(asked.text)
        if away[0]:
            raise ConnectionError("nobody answers")
        return Answered(text=asked.text)

    bus = platform.bus("tests", Untraced())

    async def tried() -> int:
        return len(tries)

    async with running(platform, agent):
        flows = [(await bus.publish(Asked(text=str(number)))).flow_id for number in range(30)]
        opened = await eventually(tried, lambda count: count >= 3)
        await eventually(tried, lambda count: count >= opened + 2)
        assert len(tries) < 30 * 4, "who met the outage waits, but for one probe at a time"
        offsets = await platform.transport.cluster.committed(agent.name, [TopicPartition("breaking.asked", each) for each in range(4)])
        away[0] = False
        states = await eventually(
            lambda: states_of(platform, flows), lambda states: all(each.state is State.COMMITTED for each in states.values())
        )
    assert len(states) == 30 and sum(offsets.values()) < 30
    assert await read_topic(platform, f"{agent.name}.dlq") == []


async def test_an_agent_stops_at_once_while_its_breaker_is_open_and_its_successor_goes_on(platform: Platform) -> None:
    name, away, answered = unique_agent("answering"), [True], list[str]()

    def answering() -> Agent:
        agent = Agent(name)

        @agent.on(Asked, attempts_max=50, breaker=Breaker(failures=3))
        async def answer(asked: Asked) -> Answered:
            if away[0]:
                away.append(True)
                raise ConnectionError("nobody answers")
            answered.append(asked.text)
            return Answered(text=asked.text)

        return agent

    bus = platform.bus("tests", Untraced())

    async def failed() -> int:
        return len(away) - 1

    async with running(platform, answering(), temporary=False):
        flows = [(await bus.publish(Asked(text=str(number)))).flow_id for number in range(10)]
        await eventually(failed, lambda count: count >= 3)
        before = platform.now()
    assert platform.now() - before < 20, "the drain alone would have 30 s"
    away[0] = False
    async with running(platform, answering()):
        states = await eventually(
            lambda: states_of(platform, flows), lambda states: all(each.state is State.COMMITTED for each in states.values())
        )
    assert len(states) == 10 and len(answered) == 10
