"""Between librdkafka's objects and the port's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import confluent_kafka as ck

from maypole.bus.ports import Delivery, TopicPartition

_new = tuple.__new__


def deliveries(messages: Sequence[ck.Message]) -> list[Delivery]:
    """Those that are records; messages that report an error are left out."""
    # `tuple.__new__` skips the generated constructor: this line runs once per record.
    return [
        _new(Delivery, (m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or ()))
        for m in messages
        if m.error() is None
    ]


def native(partitions: Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    return [ck.TopicPartition(topic, partition) for topic, partition in partitions]


def port(partitions: Iterable[ck.TopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.partition) for p in partitions]
