"""A step that is told again, however late, tells the same: consumers that saw it before can see that they did."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus import Agent, Event
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.testing import Choreography, Flow
from maypole.schemas.envelope import rfc3339
from maypole.schemas.journal import StepCompleted
from maypole.schemas.topics import JOURNAL
from tests.support.world import eventually


class Ordered(Event, type="repeated.ordered"):
    number: int


class Packed(Event, type="repeated.packed"):
    number: int


def packing(*, pure: bool) -> Agent:
    agent = Agent("packing")

    @agent.on(Ordered, pure=pure)
    async def pack(ordered: Ordered) -> Packed:
        return Packed(number=ordered.number)

    return agent


def written(world: Choreography, topic: str, event_type: str) -> list[Delivery]:
    logs = [world.broker.log(TopicPartition(topic, partition)) for partition in range(world.broker.topics()[topic])]
    found = (record for log in logs for record in log.read(log.oldest, 10_000, float("inf")))
    return [record for record in found if dict(record.headers)["ce_type"] == event_type.encode()]


def told(record: Delivery) -> tuple[bytes | None, dict[str, bytes | None]]:
    return record.value, {name: value for name, value in record.headers if name.startswith("ce_")}


async def delivered_again(world: Choreography, agent: Agent, flow: Flow, seconds: float) -> None:
    """As when it died before its commit, and came back so much later."""
    await world.stop(agent)
    root = flow.published
    world.broker.group(agent.name).committed[TopicPartition(root.topic, root.partition)] = root.offset
    await asyncio.sleep(seconds)
    await world.start(agent)


@pytest.mark.parametrize("pure", [False, True], ids=["recorded", "pure"])
async def test_outputs_and_completion_that_are_written_again_are_the_same_with_their_time(pure: bool) -> None:
    async with Choreography([agent := packing(pure=pure)]) as world:
        world.faults.write_after = lambda records: 5.0
        flow = await world.publish(Ordered(number=1))
        await flow.finished()
        await delivered_again(world, agent, flow, 100)

        async def packed() -> list[Delivery]:
            return written(world, Packed.event_type, Packed.event_type)

        first, again = await eventually(packed, lambda found: len(found) == 2, seconds=600)
        completed, completed_again = written(world, JOURNAL, StepCompleted.event_type)
        (trigger,) = written(world, Ordered.event_type, Ordered.event_type)
    assert told(first) == told(again) and told(completed) == told(completed_again)
    if pure:
        at = rfc3339(trigger.timestamp_ms).encode()
        assert dict(trigger.headers)["ce_time"] != at, "it was written some time after it was made"
        assert dict(first.headers)["ce_time"] == at == dict(completed.headers)["ce_time"], "nothing but the log knows when it was"
