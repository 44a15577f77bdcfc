"""What every reader does."""

from __future__ import annotations

import asyncio

from maypole.bus.ports import Delivery, Reader, TopicPartition, Transport
from tests.contract.brokers import Broker
from tests.contract.owner import all_of, offsets, publish


async def read(reader: Reader, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await reader.read(1.0)
    return found


async def test_a_reader_starts_where_it_is_told_on_each_partition(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 2)
    first, second = all_of(topic, 2)
    async with transport.sink() as sink:
        await publish(sink, topic, 40)
    ends = {at: end for at, (_, end) in (await transport.cluster.watermarks([first, second])).items()}
    async with transport.reader({first: 2, second: ends[second]}) as reader:
        found = await read(reader, ends[first] - 2)
        assert offsets(found) == {first: list(range(2, ends[first]))}
        assert list(await reader.read(0.05)) == []


async def test_a_reader_goes_on_with_what_is_written_later(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1)
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink, transport.reader({at: 0}) as reader:
        for round_ in range(3):
            await publish(sink, topic, 4, round_ * 4)
            assert offsets(await read(reader, 4)) == {at: list(range(round_ * 4, round_ * 4 + 4))}


async def test_a_start_that_retention_has_passed_goes_on_at_the_oldest_left(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1)
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink:
        await publish(sink, topic, 10)
    broker.trim(at, 6)
    async with transport.reader({at: 2}) as reader:
        assert offsets(await read(reader, 4)) == {at: [6, 7, 8, 9]}


async def test_a_cancelled_read_swallows_nothing(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1)
    at = TopicPartition(topic, 0)
    found: list[Delivery] = []
    async with transport.sink() as sink, transport.reader({at: 0}) as reader:
        for round_ in range(20):
            publishing = asyncio.ensure_future(publish(sink, topic, 3, round_ * 3))
            try:
                async with asyncio.timeout(0.003 * (round_ % 4)):
                    found += await reader.read(1.0)
            except TimeoutError:
                pass
            await publishing
        found += await read(reader, 60 - len(found))
    assert offsets(found) == {at: list(range(60))}


async def test_a_record_carries_the_time_of_its_writing(broker: Broker, transport: Transport) -> None:
    config = {"message.timestamp.type": "LogAppendTime"} if broker.kind.features.broker_time else {}
    topic = await broker.topic(transport, 1, config)
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink, transport.reader({at: 0}) as reader:
        await publish(sink, topic, 1)
        [first] = await read(reader, 1)
        await asyncio.sleep(0.02)  # broker time must move on
        await publish(sink, topic, 1)
        [second] = await read(reader, 1)
    assert 1_700_000_000_000 < first.timestamp_ms < second.timestamp_ms
