"""What every cluster answers."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus.kafka.aio import AioTransport
from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import BrokerUnreachable, Delivery, GroupActive, TopicPartition, TopicSpec, Transport
from tests.contract.brokers import Broker, Kind, those, unique
from tests.contract.owner import Owner, all_of, publish


async def test_a_transport_declares_what_its_kind_declares(broker: Broker, transport: Transport) -> None:
    assert transport.features == broker.kind.features


async def test_the_cluster_has_one_id_for_every_process(broker: Broker, transport: Transport) -> None:
    async with broker.connect() as other:
        assert await other.cluster.cluster_id() == await transport.cluster.cluster_id() != ""


async def test_a_topic_has_the_partitions_asked_for_and_is_listed(broker: Broker, transport: Transport) -> None:
    names = {unique("topic"): count for count in (1, 5)}
    await transport.cluster.create([TopicSpec(name, count, {}) for name, count in names.items()])
    listed = await transport.cluster.topics()
    assert {name: listed[name] for name in names} == names
    assert not any(name.startswith("__") for name in listed)


async def test_creating_a_topic_again_leaves_it_as_it_is(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 2)
    async with transport.sink() as sink:
        await publish(sink, topic, 5)
    await transport.cluster.create([TopicSpec(topic, 9, {})])
    assert (await transport.cluster.topics())[topic] == 2
    assert sum(end for _, end in (await transport.cluster.watermarks(all_of(topic, 2))).values()) == 5


async def test_processes_may_race_to_create_a_topic(broker: Broker, transport: Transport) -> None:
    specs = [TopicSpec(unique("raced"), 2, {}) for _ in range(3)]
    async with broker.connect() as other:
        await asyncio.gather(*(each.cluster.create(specs) for each in (transport, other, transport, other)))
        for each in (transport, other):
            assert {(await each.cluster.topics())[spec.name] for spec in specs} == {2}


@pytest.mark.parametrize("broker", those(lambda f: f.topic_config), indirect=True, ids=str)
async def test_the_settings_of_a_topic_can_be_read_back(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1, {"cleanup.policy": "compact", "retention.ms": "12345"})
    config = await transport.cluster.topic_config(topic)
    assert (config["cleanup.policy"], config["retention.ms"]) == ("compact", "12345")


@pytest.mark.parametrize("broker", those(lambda f: not f.topic_config), indirect=True, ids=str)
async def test_a_broker_that_knows_no_settings_says_nothing(broker: Broker, transport: Transport) -> None:
    assert await transport.cluster.topic_config(await broker.topic(transport, 1)) == {}


@pytest.mark.parametrize("broker", those(lambda f: f.topic_config and f.survives_restart), indirect=True, ids=str)
async def test_a_setting_that_the_broker_does_not_know_is_refused_with_the_topic(broker: Broker, transport: Transport) -> None:
    topic = unique("topic")
    with pytest.raises(ValueError, match=topic):
        await transport.cluster.create([TopicSpec(topic, 1, {"no.such.setting": "1"})])


async def test_watermarks_are_the_oldest_offset_left_and_the_next_one(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1)
    at = TopicPartition(topic, 0)
    assert await transport.cluster.watermarks([at]) == {at: (0, 0)}
    async with transport.sink() as sink:
        await publish(sink, topic, 8)
    broker.trim(at, 3)
    assert await transport.cluster.watermarks([at]) == {at: (3, 8)}
    assert await transport.cluster.watermarks([]) == {}


async def test_offsets_at_a_time_are_the_first_at_or_after_it(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 1)
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink:
        await publish(sink, topic, 2)
        await asyncio.sleep(0.02)  # two milliseconds of broker time must differ
        await publish(sink, topic, 2, 2)
    async with transport.reader({at: 0}) as reader, asyncio.timeout(30):
        found: list[Delivery] = []
        while len(found) < 4:
            found += await reader.read(1.0)
    ask = transport.cluster.offsets_at
    assert await ask([at], 0) == {at: 0}
    assert await ask([at], found[2].timestamp_ms) == {at: 2}
    assert await ask([at], found[1].timestamp_ms + 1) == {at: 2}
    assert await ask([at], found[3].timestamp_ms + 60_000) == {at: 4}


async def test_a_new_group_has_no_offsets_until_they_are_seeded(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 2), unique("group")
    first, second = all_of(topic, 2)
    assert await transport.cluster.committed(group, [first, second]) == {}
    await transport.cluster.seed(group, {first: 4})
    assert await transport.cluster.committed(group, [first, second]) == {first: 4}
    await transport.cluster.seed(group, {first: 5, second: 0})
    assert await transport.cluster.committed(group, [first, second]) == {first: 5, second: 0}


@pytest.mark.parametrize("broker", those(lambda f: f.refuses_seed_of_active_group), indirect=True, ids=str)
async def test_offsets_of_a_group_with_members_cannot_be_seeded(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 1), unique("group"), Owner()
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink:
        await publish(sink, topic, 3)
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, 3)
        with pytest.raises(GroupActive, match=group):
            await transport.cluster.seed(group, {at: 1})
    assert await transport.cluster.committed(group, [at]) == {at: 3}


@pytest.mark.parametrize("broker", those(lambda f: f.reseeds_group), indirect=True, ids=str)
async def test_offsets_can_be_seeded_when_all_members_have_left(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 1), unique("group"), Owner()
    at = TopicPartition(topic, 0)
    async with transport.sink() as sink:
        await publish(sink, topic, 3)
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, 3)
    await transport.cluster.seed(group, {at: 1})
    assert await transport.cluster.committed(group, [at]) == {at: 1}


@pytest.mark.parametrize("kind", ["confluent", "aiokafka"])
async def test_a_broker_that_is_not_there_is_unreachable_in_bounded_time(kind: str) -> None:
    transport = ConfluentTransport if kind == "confluent" else AioTransport
    async with asyncio.timeout(4):
        with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1 "):
            async with transport("127.0.0.1:1", unreachable_seconds=1.0):
                raise AssertionError("a transport opened without a broker")


async def test_a_memory_broker_that_is_away_is_unreachable() -> None:
    broker = MemoryBroker()
    async with MemoryTransport(broker) as transport:
        broker.go_away()
        with pytest.raises(BrokerUnreachable):
            await transport.cluster.topics()
        broker.come_back()
        assert await transport.cluster.topics() == {}


@pytest.mark.parametrize("broker", [Kind.CONFLUENT_EMBEDDED], indirect=True, ids=str)
async def test_every_client_sees_the_same_partitions_on_the_embedded_broker(broker: Broker, transport: Transport) -> None:
    topic = await broker.topic(transport, 6)
    async with AioTransport(broker.bootstrap) as other:
        assert (await other.cluster.topics())[topic] == (await transport.cluster.topics())[topic] == 6
