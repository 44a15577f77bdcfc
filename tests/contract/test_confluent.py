"""What only the transport on confluent-kafka has to get right."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Iterator

import pytest
from confluent_kafka import ConsumerGroupType, KafkaError
from confluent_kafka.admin import AdminClient

from maypole.bus.kafka import confluent
from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.kafka.confluent_cluster import ConfluentCluster
from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.confluent_sink import ConfluentSink
from maypole.bus.kafka.embedded import EmbeddedKafka, local_cluster
from maypole.bus.ports import TopicPartition, TopicSpec, Transport, WrongProperty
from tests.contract.brokers import unique
from tests.contract.owner import Owner, all_of, publish, values

PRODUCE, OFFSET_COMMIT, CONSUMER_GROUP_HEARTBEAT = 0, 8, 68


@pytest.fixture
def own_kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


async def _topic(transport: Transport, partitions: int) -> str:
    topic = unique("topic")
    await transport.cluster.create([TopicSpec(topic, partitions, {})])
    return topic


async def _untold(cluster: ConfluentCluster) -> GroupProtocol:
    return GroupProtocol.AUTO


async def test_a_broker_that_neither_speaks_the_consumer_protocol_nor_says_so_gets_a_classic_member(
    own_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConfluentCluster, "group_protocol", _untold)
    # Its ways are those of a broker that is not the embedded one.
    monkeypatch.setattr(confluent, "is_embedded", lambda cluster_id: False)
    library = own_kafka._library
    library.rd_kafka_mock_set_apiversion.argtypes = [ctypes.c_void_p, ctypes.c_int16, ctypes.c_int16, ctypes.c_int16]
    library.rd_kafka_mock_set_apiversion(own_kafka._cluster, CONSUMER_GROUP_HEARTBEAT, -1, -1)
    async with ConfluentTransport(own_kafka.bootstrap) as transport, transport.sink() as sink:
        topic = await _topic(transport, 2)
        await publish(sink, topic, 10)
        # The second source knows without trying.
        for start in (0, 10):
            owner = Owner()
            async with asyncio.timeout(20), transport.source(unique("group"), [topic], owner) as source:
                if start:
                    await publish(sink, topic, 10, start)
                await owner.fetch(source, start + 10)
                assert values(owner.seen) == list(range(start + 10))
                assert owner.held == set(all_of(topic, 2))


async def test_an_expired_offset_is_skipped_in_the_classic_protocol_too(own_kafka: EmbeddedKafka) -> None:
    expired: list[object] = []
    async with (
        ConfluentTransport(own_kafka.bootstrap, group_protocol=GroupProtocol.CLASSIC, on_expired=expired.append) as transport,
        transport.sink() as sink,
    ):
        topic, group, owner = await _topic(transport, 2), unique("group"), Owner()
        first, second = all_of(topic, 2)
        where = await publish(sink, topic, 40)
        await transport.cluster.seed(group, {first: 1})
        own_kafka.trim(first.topic, first.partition, 4)
        async with asyncio.timeout(20), transport.source(group, [topic], owner) as source:
            await owner.fetch(source, 40 - 4)
        assert expired == [(group, first, 1, 4)]
        assert transport.expired_records == {group: 3}
        assert sum(1 for delivery in owner.seen if delivery.partition == second.partition) == where.count(second)


@pytest.mark.parametrize("bulk", [False, True], ids=["sink", "bulk sink"])
async def test_records_that_the_broker_failed_for_no_lasting_reason_are_sent_again(own_kafka: EmbeddedKafka, bulk: bool) -> None:
    async with ConfluentTransport(own_kafka.bootstrap) as transport, transport.sink(bulk=bulk) as sink:
        topic = await _topic(transport, 1)
        await publish(sink, topic, 1)
        own_kafka.fail_next(PRODUCE, KafkaError.UNKNOWN)
        async with asyncio.timeout(20):
            await publish(sink, topic, 20, 1)
            await asyncio.gather(*(publish(sink, topic, 5, start) for start in (21, 26, 31)))
        at = TopicPartition(topic, 0)
        async with transport.reader({at: 0}) as reader, asyncio.timeout(30):
            found: list[int] = []
            while len(found) < 36:
                found += [int(delivery.value or b"") for delivery in await reader.read(1.0)]
    # A record that failed comes later than those that did not.
    assert sorted(found) == list(range(36))


@pytest.mark.parametrize("bulk", [False, True], ids=["sink", "bulk sink"])
async def test_who_is_cancelled_while_the_producer_is_replaced_leaves_one_that_works(own_kafka: EmbeddedKafka, bulk: bool) -> None:
    async with ConfluentTransport(own_kafka.bootstrap) as transport, transport.sink(bulk=bulk) as sink:
        assert isinstance(sink, ConfluentSink)
        topic = await _topic(transport, 1)
        await publish(sink, topic, 1)
        own_kafka.fail_next(PRODUCE, KafkaError.UNKNOWN)
        publishing = asyncio.ensure_future(publish(sink, topic, 20, 1))
        async with asyncio.timeout(20):
            while not sink._reporter.stopping:  # noqa: ASYNC110 (a moment between two steps of the sink)
                await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.wait({publishing})
            await asyncio.shield(sink._reporter.ended)
            assert publishing.cancelled()
            await publish(sink, topic, 1, 21)


@pytest.mark.parametrize(
    "error", [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT, KafkaError.UNKNOWN]
)
async def test_a_commit_that_failed_for_no_lasting_reason_is_tried_until_it_is_taken(own_kafka: EmbeddedKafka, error: int) -> None:
    async with ConfluentTransport(own_kafka.bootstrap) as transport, transport.sink() as sink:
        topic, group, owner = await _topic(transport, 1), unique("group"), Owner()
        at = TopicPartition(topic, 0)
        await publish(sink, topic, 3)
        async with asyncio.timeout(20), transport.source(group, [topic], owner) as source:
            await owner.fetch(source, 3)
            own_kafka.fail_next(OFFSET_COMMIT, error, times=2)
            await source.commit({at: 2})
            assert await transport.cluster.committed(group, [at]) == {at: 2}


async def test_a_property_that_librdkafka_does_not_know_is_named(own_kafka: EmbeddedKafka) -> None:
    with pytest.raises(ValueError, match=r"no\.such\.thing"):
        async with ConfluentTransport(own_kafka.bootstrap, config={"no.such.thing": "1"}):
            raise AssertionError("a transport opened with a property that does not exist")


async def test_a_loop_that_falls_behind_keeps_its_partitions_and_gets_every_record_once(own_kafka: EmbeddedKafka) -> None:
    async with ConfluentTransport(own_kafka.bootstrap) as transport, transport.sink() as sink:
        topic, owner = await _topic(transport, 2), Owner()
        await publish(sink, topic, 500)
        async with asyncio.timeout(20), transport.source(unique("group"), [topic], owner, batch_max=10) as source:
            await owner.fetch(source, 10)
            await asyncio.sleep(0.8)  # longer than the member's patience: it pauses what it no longer takes
            await owner.fetch(source, 100)
            await asyncio.sleep(0.8)
            await owner.fetch(source, 500 - len(owner.seen))
    assert values(owner.seen) == list(range(500))


async def test_a_partition_that_stood_still_runs_when_it_comes_back_also_to_a_loop_that_falls_behind(own_kafka: EmbeddedKafka) -> None:
    group, owner, second = unique("group"), Owner(), Owner()
    async with (
        ConfluentTransport(own_kafka.bootstrap) as transport,
        ConfluentTransport(own_kafka.bootstrap) as other,
        transport.sink() as sink,
    ):
        topic = await _topic(transport, 2)
        everything = set(all_of(topic, 2))
        async with asyncio.timeout(50), transport.source(group, [topic], owner, batch_max=10) as source:
            await owner.until(lambda owner: owner.held == everything)
            source.pause(everything)
            async with other.source(group, [topic], second):
                await second.until(lambda second: len(second.held) == len(owner.held) == 1)
                stayed = set(owner.held)
            await owner.until(lambda owner: owner.held == everything)
            source.resume(stayed)
            await publish(sink, topic, 500)
            await owner.fetch(source, 10)
            await asyncio.sleep(0.8)  # longer than the member's patience: it pauses what it no longer takes
            await owner.fetch(source, 490)
    assert values(owner.seen) == list(range(500))


def test_settings_of_the_classic_protocol_choose_it() -> None:
    def chosen(config: dict[str, str]) -> GroupProtocol:
        return ConfluentSettings("b:1", config, 1, GroupProtocol.AUTO).protocol

    assert chosen({}) is GroupProtocol.AUTO
    assert chosen({"session.timeout.ms": "6000"}) is GroupProtocol.CLASSIC
    assert chosen({"group.protocol": "consumer"}) is GroupProtocol.CONSUMER
    assert chosen({"group.instance.id": "one"}) is GroupProtocol.CLASSIC, "there a killed member's successor need not wait for its session"


@pytest.mark.parametrize(
    ("config", "expected"), [({}, ConsumerGroupType.CONSUMER), ({"group.protocol": "classic"}, ConsumerGroupType.CLASSIC)]
)
async def test_a_group_is_of_the_protocol_that_the_broker_offers_unless_another_one_is_chosen(
    kafka: str, config: dict[str, str], expected: ConsumerGroupType
) -> None:
    group, owner, admin = unique("group"), Owner(), AdminClient({"bootstrap.servers": kafka})
    async with ConfluentTransport(kafka, config=config) as transport:
        topic = await _topic(transport, 1)
        async with asyncio.timeout(40), transport.source(group, [topic], owner):
            await owner.until(lambda owner: bool(owner.held))
            listed = await asyncio.to_thread(admin.list_consumer_groups().result, 20)
    assert [found.type for found in listed.valid if found.group_id == group] == [expected]


@pytest.mark.parametrize("name", ["partition.assignment.strategy", "group.remote.assignor"])
@pytest.mark.parametrize("assignor", ["cooperative-sticky", "roundrobin", "range,cooperative-sticky"])
async def test_an_assignment_that_would_part_the_topics_of_a_join_is_refused_before_anything_is_asked(name: str, assignor: str) -> None:
    with pytest.raises(WrongProperty, match=rf"{name}: expected range, found {assignor}: a join needs.*group\.protocol=consumer"):
        async with ConfluentTransport("127.0.0.1:1", config={name: assignor}):
            raise AssertionError("a transport opened with an assignment that parts what belongs together")


def test_guarantees_cannot_be_configured_away() -> None:
    settings = ConfluentSettings(
        "b:1", {"partitioner": "random", "acks": "0", "enable.idempotence": "false", "enable.auto.commit": "true"}, 1, GroupProtocol.AUTO
    )
    producer, consumer = settings.producer(1, bulk=False), settings.consumer("g", GroupProtocol.AUTO)
    assert (producer["partitioner"], producer["acks"], producer["enable.idempotence"]) == ("murmur2_random", "all", True)
    assert consumer["enable.auto.commit"] is False


async def test_librdkafka_speaks_through_our_logger_only(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedKafka() as kafka:
        bootstrap = kafka.bootstrap
    caplog.set_level(logging.DEBUG, "maypole.bus.kafka")
    with pytest.raises(ConnectionError):
        async with ConfluentTransport(bootstrap, unreachable_seconds=0.5):
            raise AssertionError("a transport opened without a broker")
    assert capfd.readouterr() == ("", "")


def test_the_embedded_broker_is_known_by_its_address_while_it_runs() -> None:
    with EmbeddedKafka() as kafka:
        assert kafka.bootstrap.startswith("127.0.0.1:")
        assert local_cluster(kafka.bootstrap) is kafka
    assert local_cluster(kafka.bootstrap) is None
    with pytest.raises(RuntimeError, match="not running"):
        kafka.create_topic("late", 1)


async def test_properties_of_one_kind_of_client_are_no_warning_to_the_others(
    own_kafka: EmbeddedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    properties = {"session.timeout.ms": "6000", "linger.ms": "1"}
    async with ConfluentTransport(own_kafka.bootstrap, config=properties) as transport, transport.sink() as sink:
        topic, owner = await _topic(transport, 1), Owner()
        await publish(sink, topic, 1)
        async with asyncio.timeout(20), transport.source(unique("group"), [topic], owner) as source:
            await owner.fetch(source, 1)
    assert not [record.getMessage() for record in caplog.records if "CONFWARN" in record.getMessage()]
