"""What lies on the broker before anything is measured: topics, the pinned choreography, events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.local.process import wait_until
from maypole.bus.composition import open_platform
from maypole.bus.contracts import announced_schemas
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, root_traceparent
from maypole.schemas.topics import PARTITIONS_DEFAULT, event_topic
from maypole.settings import Settings
from tests.benchmarks.agents import all_agents
from tests.benchmarks.events import encode, prefix_of, sample

Headers = list[tuple[str, str | bytes | None]]
"""The type that confluent-kafka declares; ours are bytes."""
_CALL_SECONDS: Final = 30


def create_topics(kafka: str, names: Sequence[str]) -> None:
    """With the settings of every event topic, whoever uses them."""
    admin = AdminClient({"bootstrap.servers": kafka})
    made = admin.create_topics([NewTopic(name, PARTITIONS_DEFAULT, 1, config=event_topic(name).config) for name in names])
    for future in made.values():
        future.result(_CALL_SECONDS)
    asker = Consumer({"bootstrap.servers": kafka, "group.id": "bench-asker", "log_level": 3})
    for name in names:
        for partition in range(PARTITIONS_DEFAULT):
            wait_until(partial(_is_led, asker, TopicPartition(name, partition)), _CALL_SECONDS, f"{name} to have its leaders")
    asker.close()


def _is_led(asker: Consumer, partition: TopicPartition) -> bool:
    """A partition is created before its leader knows that it leads."""
    try:
        asker.get_watermark_offsets(partition, timeout=_CALL_SECONDS)
    except KafkaException:
        return False
    return True


def pin_choreography(kafka: str, home: Path, root: type[Event]) -> bytes:
    """Announce every agent of the benchmarks, so that flows which start with `root` belong to them. Returns the hash."""
    return asyncio.run(_pin(Settings(home=home, kafka=kafka, tracing="off"), root)).encode()


async def _pin(settings: Settings, root: type[Event]) -> str:
    async with open_platform(settings) as platform:
        for agent in all_agents():
            ids, schemas = announced_schemas(agent.event_classes().values())
            declaration = {**agent.declaration(), "schemas": ids, "temporary": False, "retired": False}
            await platform.catalog.announce(declaration, schemas)
        return (await platform.catalog.pin(root.event_type)).hash


def root_headers(event: type[Event], choreography: bytes, flow: bytes) -> Headers:
    """Those of a root as a Maypole publisher writes them."""
    identity = str(uuid.uuid4()).encode()
    return [
        ("content-type", b"application/avro"),
        ("ce_specversion", b"1.0"),
        ("ce_id", identity),
        ("ce_type", event.event_type.encode()),
        ("ce_source", b"/publishers/bench"),
        ("ce_time", b"2026-01-01T00:00:00.000000Z"),
        ("ce_correlationid", flow),
        ("ce_idempotencykey", identity),
        ("ce_choreography", choreography),
        ("ce_stateversion", b"1"),
        ("traceparent", root_traceparent(FlowId(flow.decode())).encode()),
    ]


def new_flow() -> bytes:
    """Random, so that nobody asks the journal whether it was started before."""
    return str(uuid.uuid4()).encode()


def fill(kafka: str, topic: str, event: type[Event], choreography: bytes, count: int) -> None:
    """Every event starts a flow of its own."""
    prefix = prefix_of(event)

    def record(number: int) -> tuple[bytes, bytes, Headers]:
        flow = new_flow()
        return encode(sample(number), prefix), flow, root_headers(event, choreography, flow)

    _produce(kafka, topic, count, record)


def _produce(kafka: str, topic: str, count: int, record: Callable[[int], tuple[bytes, bytes, Headers]]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "linger.ms": 5,
            "partitioner": "murmur2_random",
            # A new broker loads its coordinators first; waiting for it is no news.
            "log_level": 3,
        }
    )
    for number in range(count):
        value, key, headers = record(number)
        while True:
            try:
                producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()


def rewind(kafka: str, group: str, topic: str) -> None:
    """Set a group that has no members back to the oldest record of a topic."""
    admin = AdminClient({"bootstrap.servers": kafka})
    asker = Consumer({"bootstrap.servers": kafka, "group.id": "bench-asker", "log_level": 3})
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS_DEFAULT)]
    marks = [asker.get_watermark_offsets(at, timeout=_CALL_SECONDS) for at in partitions]
    asker.close()
    start = [TopicPartition(topic, at.partition, oldest) for at, (oldest, _) in zip(partitions, marks, strict=True)]
    for future in admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, start)]).values():
        future.result(_CALL_SECONDS)


def trim(kafka: str, topic: str) -> None:
    """Delete every record of a topic, so that the next ones are its first."""
    admin = AdminClient({"bootstrap.servers": kafka})
    everything = [TopicPartition(topic, partition, OFFSET_END) for partition in range(PARTITIONS_DEFAULT)]
    for future in admin.delete_records(everything).values():
        future.result(_CALL_SECONDS)
