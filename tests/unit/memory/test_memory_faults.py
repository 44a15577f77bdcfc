"""What a broker in memory can do that no real one does on request. What it shares with them is in `tests/contract`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from typing import cast

import pytest

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.faults import IncarnationDead
from maypole.bus.memory.member import MemoryMember
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import BrokerUnreachable, Delivery, PublishRefused, Record, Source, TopicPartition

TOPIC = "memory.tested"
AT = TopicPartition(TOPIC, 0)


class Owner:
    """Takes what it gets, and hands back how far it has read."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[TopicPartition]]] = []
        self.positions: dict[TopicPartition, int] = {}

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", sorted(partitions)))

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.told.append(("revoked", sorted(partitions)))
        return {at: offset for at, offset in self.positions.items() if at in partitions}

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("lost", sorted(partitions)))

    async def read(self, source: Source, count: int) -> list[Delivery]:
        found: list[Delivery] = []
        while len(found) < count:
            batch = await source.fetch()
            found += batch
            for delivery in batch:
                self.positions[TopicPartition(delivery.topic, delivery.partition)] = delivery.offset + 1
        return found


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with virtual_time() as clock:
        broker = MemoryBroker(clock.now)
        broker.create_topic(TOPIC, 1, {})
        yield broker


def numbered(count: int) -> list[Record]:
    return [Record(TOPIC, b"key", b"%d" % number, (("n", b"%d" % number),)) for number in range(count)]


def values(deliveries: Collection[Delivery]) -> list[bytes | None]:
    return [delivery.value for delivery in deliveries]


async def test_a_refused_record_is_told_by_its_reason_and_the_others_are_written(broker: MemoryBroker) -> None:
    broker.faults.refuse = lambda record: "disk full" if record.value == b"1" else None
    async with MemoryTransport(broker) as transport, transport.sink() as sink:
        with pytest.raises(PublishRefused, match=r"memory\.tested: disk full"):
            await sink.publish(numbered(3))
    assert values(broker.log(AT).read(0, 9, float("inf"))) == [b"0", b"2"]


async def test_an_acknowledgement_and_an_arrival_may_take_their_time(broker: MemoryBroker) -> None:
    loop = asyncio.get_running_loop()
    broker.faults.acknowledge_after = lambda record: 2.0
    broker.faults.arrive_after = lambda record: 5.0
    async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.reader({AT: 0}) as reader:
        await sink.publish(numbered(1))
        assert loop.time() == 2.0
        assert await reader.read(1.0) == [] and loop.time() == 3.0
        assert values(await reader.read(10.0)) == [b"0"] and loop.time() == 5.0


async def test_a_record_may_be_written_twice_and_a_delivery_may_come_again(broker: MemoryBroker) -> None:
    broker.faults.append_twice = lambda record: record.value == b"1"
    again = [b"2"]
    broker.faults.deliver_again = lambda delivery: delivery.value in again and again.pop() == delivery.value
    owner = Owner()
    async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.source("group", [TOPIC], owner) as source:
        await sink.publish(numbered(4))
        assert values(await owner.read(source, 7)) == [b"0", b"1", b"1", b"2", b"3", b"2", b"3"]


async def test_an_expelled_member_is_told_of_its_loss_and_joins_again_where_the_group_is(broker: MemoryBroker) -> None:
    owner = Owner()
    async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.source("group", [TOPIC], owner) as source:
        await sink.publish(numbered(3))
        await owner.read(source, 3)
        await source.commit({AT: 1})
        (member,) = broker.members("group")
        cast(MemoryMember, member).expel()
        await source.commit({AT: 3})
        assert values(await owner.read(source, 2)) == [b"1", b"2"], "a commit of what is lost changes nothing"
    assert owner.told == [("assigned", [AT]), ("lost", [AT]), ("assigned", [AT]), ("revoked", [AT])]


async def test_what_an_expelled_member_had_is_taken_by_another(broker: MemoryBroker) -> None:
    one, two = Owner(), Owner()
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(MemoryTransport(broker))
        first = await stack.enter_async_context(transport.source("group", [TOPIC], one))
        sink = await stack.enter_async_context(transport.sink())
        await sink.publish(numbered(1))
        await one.read(first, 1)
        second = await stack.enter_async_context(transport.source("group", [TOPIC], two))
        cast(MemoryMember, broker.members("group")[0]).expel()
        assert values(await two.read(second, 1)) == [b"0"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await first.fetch()


async def test_every_port_of_a_killed_process_refuses_and_its_partitions_are_free(broker: MemoryBroker) -> None:
    dead, alive = Owner(), Owner()
    killed = MemoryTransport(broker)
    async with killed.sink() as sink, killed.reader({AT: 0}) as reader, killed.source("group", [TOPIC], dead) as source:
        await sink.publish(numbered(1))
        await dead.read(source, 1)
        killed.kill()
        for call in (sink.publish(numbered(1)), reader.read(1.0), source.fetch(), source.commit({AT: 1}), killed.cluster.topics()):
            with pytest.raises(IncarnationDead):
                await call
        with pytest.raises(IncarnationDead):
            source.pause([AT])
    assert dead.told == [("assigned", [AT])], "nobody tells the dead"
    async with MemoryTransport(broker) as other, other.source("group", [TOPIC], alive) as source:
        assert values(await alive.read(source, 1)) == [b"0"], "read, and never committed"


async def test_a_publication_waits_for_a_broker_that_is_away_and_questions_are_refused(broker: MemoryBroker) -> None:
    loop = asyncio.get_running_loop()
    async with MemoryTransport(broker) as transport, transport.sink() as sink:
        broker.go_away()
        loop.call_later(30, broker.come_back)
        with pytest.raises(BrokerUnreachable, match="away"):
            await transport.cluster.topics()
        await asyncio.gather(sink.publish(numbered(2)[:1]), sink.publish(numbered(2)[1:]))
        assert loop.time() == 30.0
    assert values(broker.log(AT).read(0, 9, float("inf"))) == [b"0", b"1"], "in the order of the calls"


async def test_a_publication_of_a_process_that_dies_while_the_broker_is_away_is_never_written(broker: MemoryBroker) -> None:
    killed = MemoryTransport(broker)
    async with killed.sink() as sink:
        broker.go_away()
        publishing = asyncio.create_task(sink.publish(numbered(1)))
        await asyncio.sleep(1)
        killed.kill()
        broker.come_back()
        with pytest.raises(IncarnationDead):
            await publishing
    assert broker.log(AT).end == 0


async def test_times_of_records_are_those_of_the_virtual_clock(broker: MemoryBroker) -> None:
    async with MemoryTransport(broker) as transport, transport.sink() as sink:
        await asyncio.sleep(90)
        await sink.publish(numbered(1))
        (record,) = broker.log(AT).read(0, 1, float("inf"))
        assert record.timestamp_ms == 1_767_225_690_000
        assert await transport.cluster.offsets_at([AT], record.timestamp_ms + 1) == {AT: 1}
