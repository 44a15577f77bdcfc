"""What nobody has done wrong, or somebody has done ten thousand times: records that expired, and poison without end."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition as Native
from confluent_kafka.admin import AdminClient

from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import Record, TopicPartition
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from tests.support.asking import Asked, answering
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, read_topic, running

POISON = 10_000


async def test_ten_thousand_poison_records_are_buried_and_what_follows_is_handled(platform: Platform) -> None:
    agent = answering()
    poison = [Record("delivery.asked", b"one key for all", b"poison", [("number", str(number).encode())]) for number in range(POISON)]
    async with running(platform, agent):
        await platform.sink.publish(poison)
        after = await platform.bus("tests", Untraced()).publish(Asked(text="good"))
        letters = await eventually(lambda: read_topic(platform, f"{agent.name}.dlq"), lambda found: len(found) >= POISON, seconds=120)
        assert (await ended(platform, after.flow_id)).state is State.COMMITTED
    assert sorted(int(dict(letter.headers)["number"] or b"") for letter in letters) == list(range(POISON))
    assert {letter.value for letter in letters} == {b"poison"}


async def test_records_that_expired_while_an_agent_was_away_are_told_and_counted(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    name = unique_agent("answering")
    await platform.ensure([event_topic("delivery.asked")])
    async with running(platform, answering(name), temporary=False):
        pass
    bus = platform.bus("tests", Untraced())
    missed = [await bus.publish(Asked(text=str(number))) for number in range(5)]
    ends = {TopicPartition(each.topic, each.partition): each.offset + 1 for each in missed}
    for at, end in ends.items():
        trim(platform, at, end)
    async with running(platform, answering(name)):
        after = await bus.publish(Asked(text="next"))
        assert (await ended(platform, after.flow_id)).state is State.COMMITTED

        async def told() -> int:
            await platform.catalog.refresh()
            return sum(int(facts.get("expired", 0)) for (agent, _), facts in platform.catalog.view.instances.items() if agent == name)

        await eventually(told, lambda count: count == len(missed))
    assert caplog.messages.count("bus.records_expired") == len(ends)


def trim(platform: Platform, at: TopicPartition, before: int) -> None:
    """Delete old records, as retention would."""
    if isinstance(platform.transport, MemoryTransport):
        platform.transport._broker.trim(at, before)
        return
    admin = AdminClient({"bootstrap.servers": platform.settings.kafka or ""})
    for future in admin.delete_records([Native(at.topic, at.partition, before)]).values():
        future.result(10)
