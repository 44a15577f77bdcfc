"""What every sink does."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, PublishRefused, Record, RecordTooLarge, TopicPartition, Transport
from tests.contract.brokers import Broker, Kind, unique
from tests.contract.owner import all_of, records

KEYS = [
    *(f"flow-{n}" for n in range(30)),
    *("", "a", "ab", "abc", "abcd", "ключ", "鍵", "🎪", "naïve", "Ⅷ", "a" * 300, "flow/with:signs", "\x00", "0" * 36),
]

both_sinks = pytest.mark.parametrize("bulk", [False, True], ids=["sink", "bulk sink"])


async def read_all(
    transport: Transport, topic: str, partitions: int, count: int
) -> list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    found: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = []
    async with transport.reader(dict.fromkeys(all_of(topic, partitions), 0)) as reader, asyncio.timeout(30):
        while len(found) < count:
            found += [(d.partition, d.key, d.value, list(d.headers)) for d in await reader.read(1.0)]
    return found


async def test_a_record_lies_where_murmur2_of_its_key_says(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 7)
    async with transport.sink() as sink:
        receipts = await sink.publish([Record(topic, key.encode(), b"", []) for key in KEYS])
    assert [receipt.partition for receipt in receipts] == [partition_of(key.encode(), 7) for key in KEYS]


async def test_a_receipt_says_where_the_record_lies(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport)
    async with transport.sink() as sink:
        receipts = await sink.publish(records(topic, 20))
    async with transport.reader(dict.fromkeys(all_of(topic, 3), 0)) as reader, asyncio.timeout(30):
        found: list[Delivery] = []
        while len(found) < 20:
            found += await reader.read(1.0)
    lies = {(d.partition, d.offset): d.value for d in found}
    assert [lies[receipt.partition, receipt.offset] for receipt in receipts] == [str(n).encode() for n in range(20)]


@both_sinks
async def test_calls_that_overlap_keep_their_order_on_each_partition(broker: Broker, transport: Transport, bulk: bool) -> None:
    topic = await broker.topic(transport, 2)
    async with transport.sink(bulk=bulk) as sink:
        await asyncio.gather(*(sink.publish(records(topic, 5, start)) for start in range(0, 200, 5)))
    found = await read_all(transport, topic, 2, 200)
    for partition in (0, 1):
        numbers = [int(value or b"") for lies, _, value, _ in found if lies == partition]
        assert numbers == sorted(numbers)


@both_sinks
async def test_headers_survive_repeated_empty_and_binary(broker: Broker, transport: Transport, bulk: bool) -> None:
    topic = await broker.topic(transport, 1)
    headers = [("a", b"1"), ("b", b"\x00\xff"), ("a", b"2"), ("none", None), ("empty", b""), ("unicode", "ключ".encode())]
    async with transport.sink(bulk=bulk) as sink:
        await sink.publish([Record(topic, b"k", b"v", headers), Record(topic, b"k", b"v", ())])
    found = await read_all(transport, topic, 1, 2)
    assert [headers for _, _, _, headers in found] == [headers, []]


@both_sinks
async def test_a_tombstone_is_a_record_without_a_value(broker: Broker, transport: Transport, bulk: bool) -> None:
    topic = await broker.topic(transport, 1)
    async with transport.sink(bulk=bulk) as sink:
        await sink.publish([Record(topic, b"k", None, []), Record(topic, b"k", b"", [])])
    assert [(key, value) for _, key, value, _ in await read_all(transport, topic, 1, 2)] == [(b"k", None), (b"k", b"")]


async def test_a_record_without_a_key_is_taken_by_some_partition(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport)
    async with transport.sink() as sink:
        receipts = await sink.publish([Record(topic, None, b"v", [])])
    assert receipts[0].partition in range(3)


@both_sinks
async def test_publishing_nothing_is_done_at_once(transport: Transport, bulk: bool) -> None:
    async with transport.sink(bulk=bulk) as sink:
        assert list(await sink.publish([])) == []


@both_sinks
async def test_a_record_that_is_too_big_is_refused_with_its_topic(broker: Broker, transport: Transport, bulk: bool) -> None:
    topic = await broker.topic(transport)
    async with transport.sink(bulk=bulk) as sink:
        # The embedded broker itself takes everything; its client does not.
        large = Record(topic, b"k", bytes(42_000_000 if broker.kind.embedded else 5_000_000), [])
        with pytest.raises(RecordTooLarge) as refusal:
            await sink.publish([Record(topic, b"k", b"small", []), large])
        assert refusal.value.topic == topic and refusal.value.record is large
        # A refusal concerns its records only.
        assert len(await sink.publish(records(topic, 3))) == 3


@pytest.mark.parametrize("broker", [kind for kind in Kind if not kind.embedded], indirect=True, ids=str)
@both_sinks
async def test_records_too_large_only_together_are_sent_again_in_smaller_batches(broker: Broker, transport: Transport, bulk: bool) -> None:
    """A broker holds a whole batch of its producer to the limit, which may have been lowered a moment ago."""
    topic = await broker.topic(transport, 1, {"max.message.bytes": "9000"})
    many = [Record(topic, b"k", b"%d" % number + b"." * 700, []) for number in range(200)]
    async with transport.sink(bulk=bulk) as sink:
        receipts = await sink.publish(many)
        known = await sink.publish(many)
        if not bulk:
            assert {receipt.offset for receipt in receipts} == set(range(200)), "each of them once"
            assert [receipt.offset for receipt in known] == list(range(200, 400)), "in order, now that the limit is known"
        with pytest.raises(RecordTooLarge):
            await sink.publish([many[0], Record(topic, b"k", bytes(9500), []), many[1]])
        assert len(await sink.publish(many[2:9])) == 7, "what follows is not held up"
    found = await read_all(transport, topic, 1, 409)
    if not bulk:
        assert [found[receipt.offset][2] for receipt in receipts] == [record.value for record in many]
    assert {value for _, _, value, _ in found[:200]} == {record.value for record in many}
    assert [value for _, _, value, _ in found[200:]] == [record.value for record in [*many, *many[:9]]]


@both_sinks
async def test_a_topic_that_is_not_there_is_refused_and_not_created(broker: Broker, bulk: bool) -> None:
    topic = unique("nowhere")
    config = {"topic.metadata.propagation.max.ms": "500"} if broker.kind.client == "confluent" else None
    async with broker.connect(config) as transport:
        async with transport.sink(bulk=bulk) as sink:
            with pytest.raises(PublishRefused, match="nowhere"):
                await sink.publish([Record(topic, b"k", b"v", [])])
        assert topic not in await transport.cluster.topics()


@both_sinks
async def test_leaving_a_sink_waits_for_what_a_cancelled_caller_handed_over(broker: Broker, transport: Transport, bulk: bool) -> None:
    topic = await broker.topic(transport, 1)
    async with transport.sink(bulk=bulk) as sink:
        await sink.publish(records(topic, 1))
        publishing = asyncio.ensure_future(sink.publish(records(topic, 100, 1)))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait({publishing})
    ends = await transport.cluster.watermarks([TopicPartition(topic, 0)])
    found = await read_all(transport, topic, 1, ends[TopicPartition(topic, 0)][1])
    # Those that were taken, whole and in order, from the first.
    assert [int(value or b"") for _, _, value, _ in found] == list(range(len(found)))


@both_sinks
async def test_more_records_than_the_clients_queue_holds_are_all_written(broker: Broker, bulk: bool) -> None:
    config = {"queue.buffering.max.messages": "100"} if broker.kind.client == "confluent" else None
    async with broker.connect(config) as transport, transport.sink(bulk=bulk) as sink:
        topic = await broker.topic(transport)
        await asyncio.gather(*(sink.publish(records(topic, 500, start)) for start in range(0, 2000, 500)))
        ends = await transport.cluster.watermarks(all_of(topic, 3))
        assert sum(end for _, end in ends.values()) == 2000
