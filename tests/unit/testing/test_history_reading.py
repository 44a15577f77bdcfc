"""Histories of real choreographies on the broker in memory, with and without a fault in the platform."""

from __future__ import annotations

import pytest

from maypole.bus import Agent, Event, Reject
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import TopicPartition
from maypole.bus.publisher import Publisher
from maypole.bus.testing import Choreography
from maypole.bus.testing.history import check, open_inputs
from maypole.bus.testing.history_entries import Buried, Ended, Pinned
from maypole.bus.testing.history_findings import Kind
from maypole.bus.testing.history_reading import history_of, read_history
from maypole.bus.work import Work


class Asked(Event, type="told.asked"):
    up_to: int


class Counted(Event, type="told.counted"):
    number: int


class Told(Event, type="told.told"):
    number: int


def agents() -> list[Agent]:
    counting, telling = Agent("counting"), Agent("telling")

    @counting.on(Asked, pure=True)
    async def count(asked: Asked) -> list[Counted]:
        return [Counted(number=number) for number in range(asked.up_to)]

    @telling.on(Counted, pure=True)
    async def tell(counted: Counted) -> Told:
        if counted.number == 3:
            raise Reject("three is not told")
        return Told(number=counted.number)

    return [counting, telling]


async def test_what_agents_leave_behind_is_a_good_history_also_when_one_was_killed() -> None:
    async with Choreography(agents()) as world:
        flows = [await world.publish(Asked(up_to=5)) for _ in range(3)]
        await world.kill("telling")
        await world.start(agents()[1])
        for flow in flows:
            await flow.finished()
        history = history_of(world.broker)
    assert check(history) == [] == open_inputs(history)
    assert len({entry.step for entry in history if isinstance(entry, Ended)}) == 3 * 6
    assert sum(isinstance(entry, Buried) for entry in history) >= 3
    assert {entry.agents for entry in history if isinstance(entry, Pinned)} == {frozenset({"counting", "telling"})}


async def test_a_history_is_read_through_a_transport_as_it_is_from_the_broker() -> None:
    async with Choreography(agents()) as world:
        await (await world.publish(Asked(up_to=3))).finished()
        topics = {"counting": "told.asked", "telling": "told.counted"}
        began = {agent: {TopicPartition(topic, partition): 0 for partition in range(4)} for agent, topic in topics.items()}
        read = await read_history(MemoryTransport(world.broker), began, ["told.asked", "told.counted", "told.told"])
        assert sorted(map(repr, read)) == sorted(map(repr, history_of(world.broker, began)))


async def test_a_platform_that_commits_what_it_never_published_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Publisher.finished

    def done_at_once(self: Publisher, work: Work) -> None:
        if work.delivery.topic == "told.counted" and work.delivery.offset == 0:
            self._done([work])
        else:
            finished(self, work)

    monkeypatch.setattr(Publisher, "finished", done_at_once)
    async with Choreography(agents()) as world:
        await world.publish(Asked(up_to=2))
        await world.stop("counting")
        await world.stop("telling")
        findings = check(history_of(world.broker))
    assert [(finding.kind, finding.agent) for finding in findings] == [(Kind.LOST, "telling")]
